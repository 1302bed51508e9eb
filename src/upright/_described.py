"""What is written of an adapted model: its canonicalizers and settings as a `Manifest`, and back."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ._version import __version__
from .adapter.adapted import Adapted
from .adapter.views import DEFAULT, OWN
from .canonicalizers import Canonicalizer
from .factory import CanonicalizerConfig
from .manifest import Manifest, decode_gate, decode_spec, encode_gate, encode_prior, encode_spec

WEIGHTS, OTHER_WEIGHTS = "canonicalizer.safetensors", "canonicalizer.{}.safetensors"
"""Files of weights: of the canonicalizer that is used by default, and of each of the others by its name."""


def describe(
    adapted: Adapted | Canonicalizer,
    weights: Mapping[str, bytes],
    reference: str | None,
    preprocess: Mapping[str, Any] | None,
) -> Manifest:
    """Return the manifest of what is saved.

    Args:
        adapted: An adapted model, or a canonicalizer alone.
        weights: The bytes of the weights, by name of the canonicalizer.
        reference: What the model is rebuilt from; None: what a ``transformers`` model says.
        preprocess: How pictures are made for the model, where it differs from what the reference says.

    Raises:
        TypeError: If a prior or a kind cannot be written.
    """
    adapter: dict[str, Any] = {}
    model: dict[str, Any] | None = None
    others: dict[str, Any] = {}
    name = DEFAULT
    if isinstance(adapted, Adapted):
        adapter = _encoded({setting: getattr(adapted, setting) for setting in OWN})
        adapter |= {"inputs": encode_spec(adapted.inputs), "outputs": encode_spec(adapted.outputs)}
        kind = adapted.model if isinstance(adapted.model, type) else type(adapted.model)
        name_or_path = getattr(adapted.model, "name_or_path", None)
        found = reference or (name_or_path if isinstance(name_or_path, str) and name_or_path else None)
        model = {"reference": found, "class": f"{kind.__module__}.{kind.__qualname__}"}
        name = adapted.name
        for other in adapted.alternatives:
            entry = _describe_one(other.canonicalizer, OTHER_WEIGHTS.format(other.name), weights[other.name])
            others[other.name] = {**entry, "adapter": _encoded(other.settings)}
    elif reference is not None:
        model = {"reference": reference, "class": None}
    if model is not None and preprocess:
        model["preprocess"] = dict(preprocess)
    canonicalizer = adapted.canonicalizer if isinstance(adapted, Adapted) else adapted
    return Manifest(
        schema_version=2 if others or name != DEFAULT else 1,
        library_version=__version__,
        **_describe_one(canonicalizer, WEIGHTS, weights[name]),
        adapter=adapter,
        model=model,
        name=name,
        others=others,
    )


def _describe_one(canonicalizer: Canonicalizer, file: str, weights: bytes) -> dict[str, Any]:
    config = getattr(canonicalizer, "config", None)
    state: dict[str, Any] = {}
    temperature = getattr(canonicalizer, "temperature", None)
    if isinstance(temperature, Tensor):
        state["temperature"] = round(float(temperature), 6)
    if "deployment_prior" in vars(canonicalizer):
        state["deployment_prior"] = encode_prior(canonicalizer.deployment_prior)
    return {
        "group": str(canonicalizer.group),
        "canonicalizer": config.to_dict() if isinstance(config, CanonicalizerConfig) else None,
        "canonicalizer_class": type(canonicalizer).__name__,
        "state": state,
        "weights": {"file": file, "sha256": hashlib.sha256(weights).hexdigest()},
    }


def _encoded(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {**settings, "gate": encode_gate(settings["gate"])}


def decoded(adapter: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of `Adapted` that a manifest holds; raises TypeError or ValueError."""
    settings = dict(adapter)
    for key in ("inputs", "outputs"):
        if key in settings:
            settings[key] = decode_spec(settings[key])
    settings["gate"] = decode_gate(settings.get("gate"))
    return settings


def own(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a canonicalizer has for itself; what the model takes and returns is shared."""
    return {name: value for name, value in settings.items() if name in OWN}


def weights_file(manifest: Manifest, name: str) -> str:
    """Return where the weights of a canonicalizer lie; the manifest's own word for it is not trusted."""
    return WEIGHTS if name == manifest.name else OTHER_WEIGHTS.format(name)
