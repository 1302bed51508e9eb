"""Whether the hub answers: asked once and briefly; its clients ask an absent hub for half a minute."""

from __future__ import annotations

from typing import Literal

_PATIENCE = 5.0
"""Seconds to wait for an answer."""


def hub_answers(name: str, kind: Literal["model", "dataset"]) -> bool:
    """Ask the hub for a repository.

    Returns:
        Whether the hub can be reached; if not, only what its cache holds can be opened.

    Raises:
        LookupError: If the hub has no such repository, or no repository can have that name.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    try:
        HfApi().repo_info(name, repo_type=kind, timeout=_PATIENCE)
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
