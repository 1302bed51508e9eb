"""The hub: whether it answers, asked once and briefly (its clients ask for half a minute); down and up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from typing_extensions import TypedDict, Unpack

_PATIENCE = 5.0
"""Seconds to wait for an answer."""


class Download(TypedDict, total=False):
    """How a repository is fetched, as in ``huggingface_hub.snapshot_download``."""

    revision: str | None
    token: str | bool | None
    cache_dir: str | Path | None
    force_download: bool
    local_files_only: bool


class Upload(TypedDict, total=False):
    """How a folder is uploaded, as in ``huggingface_hub.ModelHubMixin.push_to_hub``."""

    private: bool | None
    token: str | None
    branch: str | None
    commit_message: str
    create_pr: bool | None
    allow_patterns: list[str] | str | None
    ignore_patterns: list[str] | str | None
    delete_patterns: list[str] | str | None


class FetchError(LookupError):
    """A repository cannot be had; the message says why."""


def check_settings(settings: Mapping[str, Any], known: type) -> None:
    """Raise TypeError unless all settings are those of `Download` or `Upload`."""
    unknown = sorted(set(settings) - set(known.__annotations__))
    if unknown:
        raise TypeError(
            f"unknown argument {unknown[0]!r}; expected one of {', '.join(sorted(known.__annotations__))}"
        )


def fetch(repo_id: str, files: Sequence[str], **settings: Unpack[Download]) -> Path:
    """Fetch files of a repository of models, from the hub or, where it does not answer, from its cache.

    Args:
        repo_id: Repository, ``"owner/name"``.
        files: Patterns of names.
        **settings: See `Download`.

    Raises:
        FetchError: If the hub has no such repository or revision, or can be reached no more than the cache.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    alone = settings.get("local_files_only", False)
    try:
        reached = not alone and hub_answers(repo_id, "model", settings.get("token"))
        settings["local_files_only"] = not reached
        return Path(snapshot_download(repo_id, allow_patterns=list(files), **settings))
    except LocalEntryNotFoundError as error:
        why = "is not asked (local_files_only=True)" if alone else "cannot be reached"
        raise FetchError(f"it {why}, and the cache here does not hold it") from error
    except Exception as error:  # the hub raises many kinds
        raise FetchError(first_line(error)) from error


def upload(folder: Path, repo_id: str, *, stale: str, **settings: Unpack[Upload]) -> str:
    """Upload a folder in one commit; the repository is made if need be.

    Args:
        folder: The folder.
        repo_id: Repository, ``"name"`` or ``"owner/name"``.
        stale: Pattern of files that go from the repository unless they are in the folder.
        **settings: See `Upload`.

    Returns:
        The address of the commit.

    Raises:
        ConnectionError: If the hub cannot be reached.
        PermissionError: If it refuses.
        ValueError: If no repository can have that name.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    api = HfApi(token=settings.get("token"))
    try:
        reached = hub_answers(repo_id, "model", settings.get("token"))
    except LookupError:  # there is no such repository yet
        reached = True
    if not reached:
        raise ConnectionError(
            f"the hub cannot be reached at {api.endpoint}, so nothing was uploaded; save_pretrained keeps "
            "the model in a folder until it can be"
        )
    message = settings.get("commit_message") or "Upload with upright"
    names = ("create_pr", "allow_patterns", "ignore_patterns")
    chosen: dict[str, Any] = {name: settings.get(name) for name in names}
    try:
        repo_id = api.create_repo(repo_id, private=settings.get("private"), exist_ok=True).repo_id
        commit = api.upload_folder(
            repo_id=repo_id, folder_path=folder, commit_message=message, revision=settings.get("branch"),
            delete_patterns=settings.get("delete_patterns", stale), **chosen,
        )  # fmt: skip
    except HFValidationError as error:
        raise ValueError(f"repo_id must be 'name' or 'owner/name', got {repo_id!r}") from error
    except (HfHubHTTPError, LocalTokenNotFoundError) as error:
        if getattr(getattr(error, "response", None), "status_code", 401) not in (401, 403):
            raise
        raise PermissionError(
            f"the hub does not let you write to {repo_id!r} ({first_line(error)}); log in with "
            "'hf auth login', or pass token=…"
        ) from error
    return str(commit.commit_url)


def first_line(error: Exception) -> str:
    """Return the first line of what an error says, or its name."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def hub_answers(name: str, kind: Literal["model", "dataset"], token: str | bool | None = None) -> bool:
    """Ask the hub for a repository.

    Args:
        name: Repository, ``"owner/name"``.
        kind: What it holds.
        token: Of the user; None: the one that is stored.

    Returns:
        Whether the hub can be reached; if not, only what its cache holds can be opened.

    Raises:
        LookupError: If the hub has no such repository, or no repository can have that name.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    try:
        HfApi(token=token).repo_info(name, repo_type=kind, timeout=_PATIENCE)
    except HFValidationError as error:
        raise LookupError(f"{name!r} cannot be a name on the hub") from error
    except RepositoryNotFoundError as error:
        raise LookupError(
            f"the hub has no {kind} {name!r}; check the name, and log in if it is private or gated"
        ) from error
    except HfHubHTTPError:
        return True  # an answer; the client that comes next says which
    except Exception:  # no connection has many kinds
        return False
    return True
