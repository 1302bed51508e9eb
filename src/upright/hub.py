"""Save and load adapted models: safetensors and JSON, of the canonicalizer only, never of the model.

A saved folder holds ``canonicalizer.safetensors`` (the weights), ``upright.json`` (a `Manifest`: how the
canonicalizer is built and how it is used) and ``README.md`` (its card).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ._checks import check_choice
from ._files import write_folder
from ._packing import StoredDtype, pack, unpack
from ._version import __version__
from .adapter.adapted import Adapted
from .canonicalizers import Canonicalizer
from .factory import CanonicalizerConfig, assemble, build
from .manifest import (
    SCHEMA_VERSION,
    LoadError,
    Manifest,
    decode_gate,
    decode_prior,
    decode_spec,
    encode_gate,
    encode_prior,
    encode_spec,
)

WEIGHTS, MANIFEST, CARD = "canonicalizer.safetensors", "upright.json", "README.md"
_SHIPPED = {"C4": "photo-c4"}


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
) -> Path:
    """Save the canonicalizer and how it is used; the model itself is only named.

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

    Returns:
        The folder.

    Raises:
        FileExistsError: If the folder holds something else.
        TypeError: If something cannot be written as JSON.
    """
    check_choice("dtype", dtype, ["float32", "float16", "int8"])
    target = Path(folder).expanduser()
    check_target(target)
    canonicalizer = adapted.canonicalizer if isinstance(adapted, Adapted) else adapted
    if not isinstance(canonicalizer, Canonicalizer):
        raise TypeError(f"adapted must be an Adapted or a Canonicalizer, got {type(adapted).__name__}")
    weights = safetensors.torch.save(pack(canonicalizer.state_dict(), dtype), metadata={"format": "pt"})
    manifest = _describe(
        adapted, canonicalizer, model_reference, preprocess, hashlib.sha256(weights).hexdigest()
    )
    files = {
        WEIGHTS: weights,
        MANIFEST: manifest.to_json().encode(),
        CARD: manifest.card(len(weights), card).encode(),
    }
    return write_folder(target, files)


def load(
    folder: str | os.PathLike[str],
    model: Callable[..., Any] | None = None,
    *,
    canonicalizer: Canonicalizer | None = None,
    trust_code: bool = False,
) -> Adapted:
    """Load an adapted model.

    Args:
        folder: A saved folder, the name of a ready-made canonicalizer, or a hub repository ``"owner/name"``.
        model: The model; default: rebuilt from the model reference in the folder.
        canonicalizer: A canonicalizer of one's own making into which the weights are loaded; needed where the
            saved one was not made by `upright.canonicalizer`.
        trust_code: Whether ``"module:callable"`` names in the folder may be imported and called.

    Returns:
        The adapted model, in evaluation mode as far as the canonicalizer is concerned.

    Raises:
        LoadError: If the folder is foreign, damaged, of a newer version, or names no model.
    """
    path = resolve(folder)
    manifest = read_manifest(path)
    loaded = _load_weights(path, manifest, canonicalizer, trust_code)
    if model is None:
        model = _rebuild_model(path, manifest, trust_code)
    settings = dict(manifest.adapter)
    try:
        for key in ("inputs", "outputs"):
            if key in settings:
                settings[key] = decode_spec(settings[key])
        settings["gate"] = decode_gate(settings.get("gate"))
        return assemble(model, loaded, **settings)
    except (TypeError, ValueError) as error:
        raise LoadError(f"{path / MANIFEST} holds adapter settings that do not fit: {error}") from error


def load_canonicalizer(
    name: str | os.PathLike[str], *, canonicalizer: Canonicalizer | None = None, trust_code: bool = False
) -> Canonicalizer:
    """Load a canonicalizer alone; arguments and errors as for `load`."""
    path = resolve(name)
    return _load_weights(path, read_manifest(path), canonicalizer, trust_code)


def push_to_hub(
    adapted: Adapted | Canonicalizer, repo_id: str, *, private: bool = False, **kwargs: Any
) -> str:
    """Save into a temporary folder and upload that to the hub.

    Args:
        adapted: An adapted model, or a canonicalizer alone.
        repo_id: Repository, ``"owner/name"``; it is made if need be.
        private: Whether a repository that is made is private.
        **kwargs: Passed to `save`.

    Returns:
        The address of the commit.
    """
    import tempfile

    import huggingface_hub

    with tempfile.TemporaryDirectory() as folder:
        saved = save(adapted, Path(folder) / "saved", **kwargs)
        api = huggingface_hub.HfApi()
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id, folder_path=saved, commit_message=f"upright {__version__}"
        )
    return str(commit.commit_url)


def resolve(name: str | os.PathLike[str]) -> Path:
    """Return the folder that a ready-made name, a path or a hub repository stands for.

    Raises:
        LoadError: If there is none, or the hub cannot be reached.
    """
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
        return _download(text)
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
    except (OSError, ValueError) as error:
        raise LoadError(f"{path} cannot be read ({error}); save the model again") from error
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


def _describe(
    adapted: Adapted | Canonicalizer,
    canonicalizer: Canonicalizer,
    reference: str | None,
    preprocess: Mapping[str, Any] | None,
    digest: str,
) -> Manifest:
    config = getattr(canonicalizer, "config", None)
    settings: dict[str, Any] = {}
    model: dict[str, Any] | None = None
    if isinstance(adapted, Adapted):
        for name in ("mode", "top_k", "cover", "cut", "evidence", "canvas"):
            settings[name] = getattr(adapted, name)
        settings["gate"] = encode_gate(adapted.gate)
        settings["inputs"], settings["outputs"] = encode_spec(adapted.inputs), encode_spec(adapted.outputs)
        kind = adapted.model if isinstance(adapted.model, type) else type(adapted.model)
        name_or_path = getattr(adapted.model, "name_or_path", None)
        found = reference or (name_or_path if isinstance(name_or_path, str) and name_or_path else None)
        model = {"reference": found, "class": f"{kind.__module__}.{kind.__qualname__}"}
    elif reference is not None:
        model = {"reference": reference, "class": None}
    if model is not None and preprocess:
        model["preprocess"] = dict(preprocess)
    state: dict[str, Any] = {}
    temperature = getattr(canonicalizer, "temperature", None)
    if isinstance(temperature, Tensor):
        state["temperature"] = round(float(temperature), 6)
    if "deployment_prior" in vars(canonicalizer):
        state["deployment_prior"] = encode_prior(canonicalizer.deployment_prior)
    return Manifest(
        schema_version=SCHEMA_VERSION,
        library_version=__version__,
        group=str(canonicalizer.group),
        canonicalizer=config.to_dict() if isinstance(config, CanonicalizerConfig) else None,
        canonicalizer_class=type(canonicalizer).__name__,
        state=state,
        adapter=settings,
        model=model,
        weights={"file": WEIGHTS, "sha256": digest},
    )


def _load_weights(
    path: Path, manifest: Manifest, given: Canonicalizer | None, trust_code: bool
) -> Canonicalizer:
    made = given if given is not None else _build(path, manifest, trust_code)
    if str(made.group) != manifest.group:
        raise LoadError(
            f"{path} holds a canonicalizer of {manifest.group}, but canonicalizer is one of {made.group}"
        )
    state = _read_weights(path, manifest)
    own = made.state_dict()
    missing, extra = sorted(set(own) - set(state)), sorted(set(state) - set(own))
    if missing or extra:
        what = f"lacks {missing[0]}" if missing else f"holds {extra[0]}, which the canonicalizer has not"
        raise LoadError(f"{path / WEIGHTS} does not fit {MANIFEST}: it {what}; save the model again")
    for name, tensor in state.items():
        if tensor.shape != own[name].shape:
            raise LoadError(
                f"{path / WEIGHTS} does not fit {MANIFEST}: {name} must have shape {tuple(own[name].shape)}, "
                f"got {tuple(tensor.shape)}; save the model again"
            )
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise LoadError(
                f"{path / WEIGHTS} holds values that are not finite in {name}; save the model again"
            )
    made.load_state_dict(state)
    if manifest.state.get("deployment_prior") is not None:
        where = str(path / MANIFEST)
        try:
            prior = decode_prior(manifest.state["deployment_prior"], where)
            made.deployment_prior = made.with_prior(prior).deployment_prior  # checked by the view
        except (TypeError, ValueError) as error:
            raise LoadError(f"{where} holds a deployment prior that does not fit: {error}") from error
    return made.eval()


def _build(path: Path, manifest: Manifest, trust_code: bool) -> Canonicalizer:
    """Build the canonicalizer that a manifest describes, untrained, without touching the random state."""
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
        with torch.random.fork_rng(devices=[]):
            return build(config)
    except LoadError:
        raise
    except (TypeError, ValueError, ImportError, AttributeError, RuntimeError, ArithmeticError) as error:
        raise LoadError(
            f"{path / MANIFEST} describes a canonicalizer that cannot be built: {error}"
        ) from error


def _read_weights(path: Path, manifest: Manifest) -> dict[str, Tensor]:
    file = path / WEIGHTS
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise LoadError(f"{path} is not complete (it holds no {WEIGHTS}); save the model again") from None
    except OSError as error:
        raise LoadError(f"{file} cannot be read ({error}); save the model again") from error
    expected = manifest.weights.get("sha256")
    if expected is not None and hashlib.sha256(data).hexdigest() != expected:
        raise LoadError(
            f"{file} is damaged (its checksum is not the one in {MANIFEST}); save or download it again"
        )
    try:
        return unpack(safetensors.torch.load(data))
    except (SafetensorError, ValueError, KeyError) as error:
        raise LoadError(f"{file} is damaged ({error}); save or download it again") from error


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


def _download(repo_id: str) -> Path:
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(repo_id, allow_patterns=[WEIGHTS, MANIFEST, CARD]))
    except Exception as error:  # the hub raises many kinds; all mean "not there or not reachable"
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise LoadError(
            f"{repo_id!r} is no folder here and could not be fetched from the hub ({reason}); "
            "check the name and the connection, or give a local folder"
        ) from error
