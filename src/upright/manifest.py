"""What ``upright.json`` says: how a saved canonicalizer is built and how it is used, as plain data."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from ._version import __version__
from .adapter.spec import KINDS, kind_class
from .adapter.views import DEFAULT, OWN, check_name
from .confidence import Gate, NearUprightPrior
from .kinds import Kind
from .priors import (
    CategoricalPrior,
    IdentityPrior,
    MatrixFisherPrior,
    Prior,
    UniformPrior,
    VonMisesPrior,
)

SCHEMA_VERSION = 2
"""Newest version of the layout that this library reads. It writes 2 where there are names, else 1."""

_ADAPTER_KEYS = {*OWN, "inputs", "outputs"}
_OF_EACH = {"group", "canonicalizer", "canonicalizer_class", "state", "adapter", "weights"}
_PREPROCESS_KEYS = {"size", "mean", "std"}
_PRIORS: dict[str, type[Prior]] = {
    "identity": IdentityPrior,
    "categorical": CategoricalPrior,
    "uniform": UniformPrior,
    "von_mises": VonMisesPrior,
    "matrix_fisher": MatrixFisherPrior,
    "near_upright": NearUprightPrior,
}


class LoadError(ValueError):
    """A saved folder cannot be loaded; the message says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The content of ``upright.json``.

    Attributes:
        schema_version: Version of this layout.
        library_version: Version of the library that wrote it.
        group: Name of the group.
        canonicalizer: The `CanonicalizerConfig` as plain data; None for a canonicalizer of one's own making.
        canonicalizer_class: Class of the canonicalizer.
        state: Temperature and deployment prior.
        adapter: Settings of `Adapted`; empty for a canonicalizer alone.
        model: ``reference`` (what the model is rebuilt from, or None), ``class`` of the model, and, where
            given, ``size``, ``mean`` and ``std`` of its ``preprocess``.
        weights: ``file`` and ``sha256`` of the weights.
        name: What the canonicalizer is called among several.
        others: The other canonicalizers by name: for each its ``group``, ``canonicalizer``,
            ``canonicalizer_class``, ``state``, ``adapter`` and ``weights``.
    """

    schema_version: int
    library_version: str
    group: str
    canonicalizer: dict[str, Any] | None
    canonicalizer_class: str
    state: dict[str, Any] = field(default_factory=dict)
    adapter: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] | None = None
    weights: dict[str, Any] = field(default_factory=dict)
    name: str = DEFAULT
    others: dict[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The names of all canonicalizers, the one that is used by default first."""
        return [self.name, *self.others]

    def of(self, name: str, where: str) -> Manifest:
        """Return what the manifest says of the canonicalizer of a name, as if there was no other.

        Args:
            name: One of `names`.
            where: The file, for messages.

        Raises:
            LoadError: If there is none of that name, or what it says cannot be.
        """
        if name == self.name:
            return dataclasses.replace(self, others={})
        if name not in self.others:
            raise LoadError(
                f"{where} holds no canonicalizer {name!r}, only {', '.join(map(repr, self.names))}"
            )
        if not isinstance(self.others[name], dict):
            raise LoadError(
                f"{where}: 'others' has an entry {name!r} of the wrong type; save the model again"
            )
        foreign = {"schema_version", "library_version", "model", "name", "others"} & set(self.others[name])
        _check_keys(where, f"others.{name}.", dict.fromkeys(foreign), _OF_EACH)
        head = {"schema_version": self.schema_version, "library_version": self.library_version}
        body = {"library": "upright", **head, **self.others[name], "name": name, "model": self.model}
        return Manifest.from_dict(body, f"{where}, {name!r}")

    def to_dict(self) -> dict[str, Any]:
        """Return the manifest as plain data, without what a single canonicalizer has no need of."""
        data = {"library": "upright", **asdict(self)}
        if not self.others and self.name == DEFAULT:
            del data["name"], data["others"]
        return data

    def to_json(self) -> str:
        """Return the manifest as JSON.

        Raises:
            TypeError: If an option of the network is not plain data.
        """
        try:
            return json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"
        except (TypeError, ValueError) as error:
            raise TypeError(
                "the canonicalizer's options must be plain data (numbers, strings, lists) "
                f"to be saved: {error}"
            ) from error

    @classmethod
    def from_dict(cls, data: Any, where: str) -> Manifest:
        """Check plain data and make a manifest of it.

        Args:
            data: What the JSON file holds.
            where: The file, for messages.

        Raises:
            LoadError: If it is foreign, newer, incomplete, or has keys or values that do not belong.
        """
        if not isinstance(data, dict) or data.get("library") != "upright":
            raise LoadError(f"{where} was not written by upright; give a folder that save_pretrained wrote")
        version = data.get("schema_version")
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise LoadError(
                f"{where}: schema_version must be a positive integer, got {version!r}; save the model again"
            )
        if version > SCHEMA_VERSION:
            raise LoadError(
                f"{where} has schema {version}, written by upright {data.get('library_version')}; this is "
                f"upright {__version__}, which reads up to schema {SCHEMA_VERSION}; upgrade with: "
                "pip install -U upright"
            )
        fields = {f.name: f for f in dataclasses.fields(cls)}
        values = {key: value for key, value in data.items() if key != "library"}
        _check_keys(where, "", values, fields)
        missing_ = dataclasses.MISSING
        required = {n for n, f in fields.items() if f.default is missing_ and f.default_factory is missing_}
        missing = sorted(required - set(values))
        if missing:
            raise LoadError(f"{where} lacks the key {missing[0]!r}; save the model again")
        for name, value in values.items():
            _check_type(where, name, value)
        manifest = cls(**values)
        _check_names(where, manifest)
        _check_keys(where, "adapter.", manifest.adapter, _ADAPTER_KEYS)
        _check_preprocess(where, (manifest.model or {}).get("preprocess", {}))
        return manifest


def encode_spec(spec: Any) -> Any:
    """Return kinds, alone or by entry, as plain data."""
    if spec is None:
        return None
    if isinstance(spec, Mapping):
        return {"entries": [[key, encode_spec(kind)] for key, kind in spec.items()]}
    return _encode_kind(spec)


def decode_spec(data: Any) -> Any:
    """Invert `encode_spec`.

    Raises:
        ValueError: If the data names no kind.
    """
    if isinstance(data, dict) and "entries" in data:
        return {key: decode_spec(kind) for key, kind in data["entries"]}
    return None if data is None else _decode_kind(data)


def encode_prior(prior: Prior | None) -> Any:
    """Return a prior as plain data; None stays None."""
    if prior is None:
        return None
    for name, kind in _PRIORS.items():
        if type(prior) is kind:
            return {"prior": name, **asdict(prior)}  # type: ignore[call-overload]
    raise TypeError(
        f"a deployment prior of type {type(prior).__name__} cannot be saved; use a CategoricalPrior "
        "or canonicalizer.with_prior(None)"
    )


def decode_prior(data: Any, where: str) -> Prior:
    """Invert `encode_prior`; raises LoadError."""
    try:
        options = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items() if k != "prior"}
        return _PRIORS[data["prior"]](**options)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise LoadError(
            f"{where} holds a deployment prior that cannot be read ({error}); save it again"
        ) from error


def encode_gate(gate: Gate | None) -> Any:
    """Return a gate as plain data; None stays None."""
    return None if gate is None else asdict(gate)


def decode_gate(data: Any) -> Gate | None:
    """Invert `encode_gate`; raises TypeError or ValueError."""
    if data is None:
        return None
    if not isinstance(data, dict):
        raise TypeError(f"gate must hold settings by name, got {data!r}")
    return Gate(**data)


def _encode_kind(spec: Any) -> Any:
    kind = kind_class(spec)
    name = next((n for n, k in KINDS.items() if k is kind), None)
    if name is None or (isinstance(spec, partial) and spec.args):
        raise TypeError(
            f"the kind {spec!r} cannot be saved; use a name ({', '.join(sorted(KINDS))}) or "
            "functools.partial(<kind>, option=…)"
        )
    return {"kind": name, **spec.keywords} if isinstance(spec, partial) else name


def _decode_kind(data: Any) -> Any:
    if isinstance(data, dict):
        options = {key: value for key, value in data.items() if key != "kind"}
        kind: type[Kind] = kind_class(data.get("kind", ""))
        return partial(kind, **options)
    kind_class(data)
    return data


def _check_keys(where: str, prefix: str, data: Mapping[str, Any], known: Any) -> None:
    unknown = sorted(set(data) - set(known))
    if unknown:
        raise LoadError(
            f"{where} has the unknown key {prefix + unknown[0]!r}; known keys: {', '.join(sorted(known))}"
        )


def _check_names(where: str, manifest: Manifest) -> None:
    try:
        for name in manifest.names:
            check_name(name)  # names become names of files
    except ValueError as error:
        raise LoadError(f"{where}: a canonicalizer has a name that cannot be: {error}") from error
    if manifest.name in manifest.others:
        raise LoadError(f"{where} names two canonicalizers {manifest.name!r}; save the model again")


def _check_preprocess(where: str, data: Any) -> None:
    if isinstance(data, Mapping):
        _check_keys(where, "model.preprocess.", data, _PREPROCESS_KEYS)
        numbers = [data.get(name, [1.0]) for name in ("mean", "std")]
        if isinstance(data.get("size", 1), int) and all(
            isinstance(row, list) and all(isinstance(v, (int, float)) for v in row) for row in numbers
        ):
            return
    raise LoadError(
        f"{where}: model.preprocess has values of the wrong type ({data!r}); save the model again"
    )


def _check_type(where: str, name: str, value: Any) -> None:
    expected: Any = dict
    if name in ("library_version", "group", "canonicalizer_class", "name"):
        expected = str
    elif name in ("canonicalizer", "model"):
        expected = (dict, type(None))
    elif name == "schema_version":
        expected = int
    if not isinstance(value, expected):
        raise LoadError(
            f"{where}: {name!r} has a value of the wrong type ({value!r:.40}); save the model again"
        )
