"""Save and load adapted models: safetensors and JSON, of the canonicalizers only, never of the model.

A saved folder holds ``canonicalizer.safetensors`` (the weights), ``upright.json`` (a `Manifest`: how the
canonicalizer is built and how it is used) and ``README.md`` (its card); where there are several, also
``canonicalizer.<name>.safetensors`` of each of the others.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from fnmatch import fnmatch
from importlib import resources
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor
from typing_extensions import Unpack

from ._budget import Budget
from ._checks import check_choice
from ._described import OTHER_WEIGHTS, WEIGHTS, decoded, describe, own, weights_file
from ._files import write_folder
from ._online import Download, FetchError, Upload, check_settings, fetch, first_line, upload
from ._packing import StoredDtype, pack, unpack
from .adapter.adapted import Adapted
from .adapter.views import DEFAULT, OWN, Alternative
from .canonicalizers import Canonicalizer
from .card import Reports, write_card
from .factory import CanonicalizerConfig, assemble, build, suited
from .manifest import (
    LoadError,
    Manifest,
    decode_prior,
)

MANIFEST, CARD = "upright.json", "README.md"
_SHIPPED = {"C4": "photo-c4", "D4": "photo-d4", "C8": "photo-c8", "SO2": "photo-so2"}


def _packaged(name: str) -> Path:
    return Path(str(resources.files("upright"))) / "weights" / name


READY_MADE: dict[str, str] = {
    g: name for g, name in _SHIPPED.items() if (_packaged(name) / MANIFEST).is_file()
}
"""Canonicalizers that ship with the package and are the default of `upright.adapt`, by group."""
BY_NAME = ("document-c4",)
"""Canonicalizers that ship with the package and are asked for by name."""


def save(
    adapted: Adapted | Canonicalizer,
    folder: str | os.PathLike[str],
    model_reference: str | None = None,
    card: str | None = None,
    *,
    preprocess: Mapping[str, Any] | None = None,
    dtype: StoredDtype = "float32",
    report: Reports | None = None,
) -> Path:
    """Save the canonicalizers and how they are used; the model itself is only named.

    Everything is written to a folder beside and then renamed: a crash leaves the old folder or the new one.

    Args:
        adapted: An adapted model, or a canonicalizer alone.
        folder: Where to; an existing folder must be empty or one that `save` made (its other files are kept).
        model_reference: What `load` rebuilds the model from: a hub name, a local ``transformers`` folder or
            ``"module:callable"``. Default: the name under which a ``transformers`` model was loaded, if any.
        card: Markdown that is added to the folder's ``README.md``: what it was trained on, what was measured.
        preprocess: How the command line is to make pictures for the model, where that differs from what the
            reference says: ``size``, ``mean`` and ``std`` of `SquarePreprocess`, any of them.
        dtype: ``"float16"`` stores matrices and filters in half precision, ``"int8"`` in bytes with a scale
            for every row, and vectors in half precision; all are loaded as float32.
        report: What `upright.evaluate` found, or reports by the name of the data (``{"cifar10": report}``):
            tables for the card, and figures that the hub shows beside the model.

    Returns:
        The folder.

    Raises:
        FileExistsError: If the folder holds something else.
        TypeError: If something cannot be written as JSON.
    """
    check_choice("dtype", dtype, ["float32", "float16", "int8"])
    target = Path(folder).expanduser()
    check_target(target)
    named = adapted.canonicalizers if isinstance(adapted, Adapted) else {DEFAULT: adapted}
    for one in named.values():
        if not isinstance(one, Canonicalizer):
            raise TypeError(f"adapted must be an Adapted or a Canonicalizer, got {type(one).__name__}")
    weights = {name: _packed(one, dtype) for name, one in named.items()}
    manifest = describe(adapted, weights, model_reference, preprocess)
    sizes = {name: len(data) for name, data in weights.items()}
    files = {weights_file(manifest, name): data for name, data in weights.items()}
    files[MANIFEST] = manifest.to_json().encode()
    files[CARD] = write_card(manifest, sizes, card, report).encode()
    return write_folder(target, files, stale=lambda name: fnmatch(name, OTHER_WEIGHTS.format("*")))


def load(
    folder: str | os.PathLike[str],
    model: Callable[..., Any] | None = None,
    *,
    canonicalizer: Canonicalizer | Mapping[str, Canonicalizer] | None = None,
    trust_code: bool = False,
    **download: Unpack[Download],
) -> Adapted:
    """Load an adapted model.

    Args:
        folder: A saved folder, the name of a ready-made canonicalizer, or a hub repository ``"owner/name"``.
        model: The model; default: rebuilt from the model reference in the folder.
        canonicalizer: A canonicalizer of one's own making into which the weights are loaded; needed where the
            saved one was not made by `upright.canonicalizer`. Where there are several: such ones by name.
        trust_code: Whether ``"module:callable"`` names in the folder may be imported and called.
        **download: For hub repositories: ``revision`` (a branch, tag or commit), ``token``, ``cache_dir``,
            ``force_download`` and ``local_files_only``, as in ``huggingface_hub.snapshot_download``.

    Returns:
        The adapted model, in evaluation mode as far as the canonicalizers are concerned.

    Raises:
        LoadError: If the folder is foreign, damaged, of a newer version, or names no model.
    """
    path = resolve(folder, **download)
    manifest = read_manifest(path)
    given = canonicalizer if isinstance(canonicalizer, Mapping) else {manifest.name: canonicalizer}
    unknown = sorted(set(given) - set(manifest.names))
    if unknown:
        raise LoadError(f"{path} holds no canonicalizer {unknown[0]!r}, only {', '.join(manifest.names)}")
    described = {name: manifest.of(name, str(path / MANIFEST)) for name in manifest.names}
    loaded = {
        name: _load_weights(path, one, given.get(name), trust_code, weights_file(manifest, name))
        for name, one in described.items()
    }
    if model is None:
        model = _rebuild_model(path, manifest, trust_code)
    try:
        settings = {name: decoded(one.adapter) for name, one in described.items()}
        others = [
            Alternative(name, suited(loaded[name], model), {**OWN, **own(settings[name])})
            for name in manifest.others
        ]
        first = assemble(model, loaded[manifest.name], **settings[manifest.name], name=manifest.name)
        for other in others:  # raises where they do not fit
            first.replace(**other.settings, canonicalizer=other.canonicalizer)
        return first.replace(others=others) if others else first
    except Exception as error:  # what stands in the file may be anything
        reason = first_line(error)
        raise LoadError(f"{path / MANIFEST} holds adapter settings that do not fit: {reason}") from error


def load_canonicalizer(
    folder: str | os.PathLike[str],
    *,
    name: str | None = None,
    canonicalizer: Canonicalizer | None = None,
    trust_code: bool = False,
    **download: Unpack[Download],
) -> Canonicalizer:
    """Load a canonicalizer alone.

    Args:
        folder: As for `load`.
        name: Which one, where the folder holds several; default: the one that is used by default.
        canonicalizer: As for `load`.
        trust_code: As for `load`.
        **download: As for `load`.

    Raises:
        LoadError: As for `load`, or if there is none of that name.
    """
    path = resolve(folder, **download)
    manifest = read_manifest(path)
    one = manifest.of(manifest.name if name is None else name, str(path / MANIFEST))
    return _load_weights(path, one, canonicalizer, trust_code, weights_file(manifest, one.name))


def push_to_hub(
    adapted: Adapted | Canonicalizer | str | os.PathLike[str], repo_id: str, **settings: Any
) -> str:
    """Upload an adapted model, a canonicalizer or a saved folder, in one commit.

    Args:
        adapted: An adapted model, or a canonicalizer alone; it is saved into a temporary folder. Or the
            folder that `save` wrote.
        repo_id: Repository, ``"owner/name"``; it is made if need be.
        **settings: ``private``, ``token``, ``branch``, ``commit_message``, ``create_pr``, ``allow_patterns``,
            ``ignore_patterns`` and ``delete_patterns``, as in ``huggingface_hub.ModelHubMixin``; all others
            are passed to `save`. By default canonicalizers that are no longer there go from the repository.

    Returns:
        The address of the commit.

    Raises:
        ConnectionError: If the hub cannot be reached.
        PermissionError: If it refuses.
        ValueError: If no repository can have that name.
        LoadError: If the folder is none that `save` wrote.
    """
    uploading, saving = upload_settings(settings)
    stale = OTHER_WEIGHTS.format("*")
    if isinstance(adapted, (str, os.PathLike)):
        if saving:
            raise TypeError(f"{sorted(saving)[0]!r} goes with models; a saved folder is uploaded as it is")
        path = Path(adapted).expanduser()
        read_manifest(path)
        return upload(path, repo_id, stale=stale, **uploading)
    with tempfile.TemporaryDirectory() as folder:
        saved = save(adapted, Path(folder) / "saved", **saving)
        return upload(saved, repo_id, stale=stale, **uploading)


def upload_settings(settings: Mapping[str, Any]) -> tuple[Upload, dict[str, Any]]:
    """Return which settings are those of an upload, and the others."""
    mine: Any = {name: value for name, value in settings.items() if name in Upload.__annotations__}
    return mine, {name: value for name, value in settings.items() if name not in mine}


def resolve(name: str | os.PathLike[str], **download: Unpack[Download]) -> Path:
    """Return the folder that a ready-made name, a path or a hub repository stands for.

    Raises:
        LoadError: If there is none, or the hub cannot be reached.
        TypeError: If a setting is not one of a download.
    """
    check_settings(download, Download)
    text = os.fspath(name)
    ready = sorted((*READY_MADE.values(), *BY_NAME))
    if text in ready:
        return _packaged(text)
    path = Path(text).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise LoadError(f"{path} is a file; give the folder that upright.hub.save wrote")
    if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", text) and isinstance(name, str):
        return _download(text, download)
    raise LoadError(
        f"no saved canonicalizer {text!r}; give a folder that upright.hub.save wrote, "
        f"a hub repository 'owner/name', or a ready-made one ({', '.join(ready)})"
    )


def read_manifest(folder: str | os.PathLike[str]) -> Manifest:
    """Read and check ``upright.json`` of a saved folder.

    Raises:
        LoadError: If it is missing, damaged or of a newer version.
    """
    path = Path(folder) / MANIFEST
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LoadError(
            f"{Path(folder)} was not saved by upright (it holds no {MANIFEST}); "
            "give a folder that save_pretrained wrote"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise LoadError(f"{path} cannot be read ({first_line(error)}); save the model again") from error
    return Manifest.from_dict(data, str(path))


def check_target(folder: str | os.PathLike[str]) -> None:
    """Raise FileExistsError if `save` would refuse to write there."""
    folder = Path(folder).expanduser()
    if not folder.exists():
        return
    if not folder.is_dir():
        raise FileExistsError(f"{folder} is a file; give another folder")
    if any(folder.iterdir()) and not (folder / MANIFEST).is_file():
        raise FileExistsError(
            f"{folder} holds files that upright did not write; give another or an empty folder"
        )


def _packed(canonicalizer: Canonicalizer, dtype: StoredDtype) -> bytes:
    return safetensors.torch.save(pack(canonicalizer.state_dict(), dtype), metadata={"format": "pt"})


def _load_weights(
    path: Path, manifest: Manifest, given: Canonicalizer | None, trust_code: bool, file: str = WEIGHTS
) -> Canonicalizer:
    state = _read_weights(path, manifest, file)
    stored = sum(tensor.numel() for tensor in state.values())
    made = given if given is not None else _build(path, manifest, trust_code, stored)
    if str(made.group) != manifest.group:
        raise LoadError(
            f"{path} holds a canonicalizer of {manifest.group}, but canonicalizer is one of {made.group}"
        )
    own = made.state_dict()
    missing, extra = sorted(set(own) - set(state)), sorted(set(state) - set(own))
    if missing or extra:
        what = f"lacks {missing[0]}" if missing else f"holds {extra[0]}, which the canonicalizer has not"
        raise LoadError(f"{path / file} does not fit {MANIFEST}: it {what}; save the model again")
    for name, tensor in state.items():
        if tensor.shape != own[name].shape:
            raise LoadError(
                f"{path / file} does not fit {MANIFEST}: {name} must have shape {tuple(own[name].shape)}, "
                f"got {tuple(tensor.shape)}; save the model again"
            )
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise LoadError(f"{path / file} holds values that are not finite in {name}; save the model again")
    made.load_state_dict(state)
    if manifest.state.get("deployment_prior") is not None:
        where = str(path / MANIFEST)
        try:
            prior = decode_prior(manifest.state["deployment_prior"], where)
            made.deployment_prior = made.with_prior(prior).deployment_prior  # checked by the view
        except (TypeError, ValueError) as error:
            raise LoadError(f"{where} holds a deployment prior that does not fit: {error}") from error
    return made.eval()


def _build(path: Path, manifest: Manifest, trust_code: bool, stored: int) -> Canonicalizer:
    """Build the canonicalizer that a manifest describes, untrained, without touching the random state.

    What it describes may not be larger than the numbers that are stored for it.
    """
    if manifest.canonicalizer is None:
        raise LoadError(
            f"{path} holds the weights of a {manifest.canonicalizer_class} that was not made by "
            "upright.canonicalizer; build it yourself and pass it as canonicalizer=…"
        )
    try:
        config = CanonicalizerConfig.from_dict(manifest.canonicalizer)
        if ":" in config.network and not trust_code:
            raise LoadError(
                f"{path} names the code {config.network!r} for its network; pass trust_code=True to run it, "
                "or build the canonicalizer yourself and pass it as canonicalizer=…"
            )
        with torch.random.fork_rng(devices=[]), Budget(stored):
            return build(config)
    except LoadError:
        raise
    except Exception as error:  # what stands in the file may be anything
        raise LoadError(
            f"{path / MANIFEST} describes a canonicalizer that cannot be built: {first_line(error)}"
        ) from error


def _read_weights(path: Path, manifest: Manifest, name: str) -> dict[str, Tensor]:
    file = path / name
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise LoadError(f"{path} is not complete (it holds no {name}); save the model again") from None
    except OSError as error:
        raise LoadError(f"{file} cannot be read ({error}); save the model again") from error
    expected = manifest.weights.get("sha256")
    if expected is not None and hashlib.sha256(data).hexdigest() != expected:
        raise LoadError(
            f"{file} is damaged (its checksum is not the one in {MANIFEST}); save or download it again"
        )
    try:
        return unpack(safetensors.torch.load(data))
    except Exception as error:  # of a damaged file any kind
        raise LoadError(f"{file} is damaged ({first_line(error)}); save or download it again") from error


def _rebuild_model(path: Path, manifest: Manifest, trust_code: bool) -> Callable[..., Any]:
    reference = (manifest.model or {}).get("reference")
    if not reference:
        raise LoadError(
            f"{path} does not say which model it belongs to; pass it: upright.load(folder, model=…)"
        )
    if ":" in reference and not trust_code:
        raise LoadError(
            f"{path} names the code {reference!r} for its model; pass model=…, or trust_code=True to run it"
        )
    from .integrations.models import load_model

    model: Callable[..., Any] = load_model(reference).model
    return model


def _download(repo_id: str, settings: Download) -> Path:
    try:
        return fetch(repo_id, [WEIGHTS, OTHER_WEIGHTS.format("*"), MANIFEST, CARD], **settings)
    except FetchError as error:
        raise LoadError(
            f"{repo_id!r} is no folder here and could not be fetched from the hub ({error}); "
            "check the name and the connection, or give a local folder"
        ) from error
