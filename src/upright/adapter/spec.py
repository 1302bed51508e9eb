"""Which arguments and results of a model are moved, and as what kind."""

from __future__ import annotations

import copy
import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor

from .. import kinds, kinds_space
from .typed import is_typed, typed_kind, untyped

Size = tuple[int, int]
KindSpec = str | type[kinds.Kind] | Callable[..., kinds.Kind]
"""A kind by name (``"image"``, ``"mask"``, ``"boxes"`` …), a kind class, a ``functools.partial`` of one
(``partial(Boxes, format="cxcywh", normalized=True)``), or a function ``f(data, size=(height, width))`` that
returns a kind, where it depends on the data."""

KINDS: dict[str, type[kinds.Kind]] = {
    "image": kinds.Image,
    "mask": kinds.Mask,
    "boxes": kinds.Boxes,
    "oriented_boxes": kinds.OrientedBoxes,
    "points": kinds.Points,
    "vector_field": kinds.VectorField,
    "regular_field": kinds.RegularField,
    "invariant": kinds.Invariant,
    "logits": kinds.Logits,
    "cloud": kinds_space.Cloud,
    "point_mask": kinds_space.PointMask,
    "point_vectors": kinds_space.PointVectors,
    "vectors": kinds_space.Vectors,
    "pseudo_vectors": kinds_space.PseudoVectors,
    "tensors": kinds_space.Tensors,
    "rows": kinds_space.Rows,
    "pairs": kinds_space.Pairs,
    "volume": kinds_space.Volume,
    "label_volume": kinds_space.LabelVolume,
    "oriented_boxes_3d": kinds_space.OrientedBoxes3D,
}
"""Kinds by the names that specifications use."""

_ON_A_CANVAS = (kinds.Boxes, kinds.OrientedBoxes, kinds.Points)


def kind_class(spec: KindSpec) -> Any:
    """Return the kind class that a specification makes.

    Raises:
        ValueError: If a name is unknown.
    """
    if isinstance(spec, str):
        if spec not in KINDS:
            raise ValueError(f"unknown kind {spec!r}; expected one of {', '.join(sorted(KINDS))}")
        return KINDS[spec]
    return spec.func if isinstance(spec, partial) else spec


def wrap(spec: KindSpec, data: Any, size: Size) -> kinds.Kind:
    """Make the kind of some data on a canvas of the given size; typed tensors say what they are."""
    if is_typed(data):
        spec, data = typed_kind(data) or spec, untyped(data)
    make = KINDS[spec] if isinstance(spec, str) else spec
    if not isinstance(kind_class(spec), type) or issubclass(kind_class(spec), _ON_A_CANVAS):
        return make(data, size=size)  # type: ignore[call-arg]
    return make(data)  # type: ignore[call-arg]


EntrySpec = KindSpec | Mapping[Any, Any]
"""Kind of an entry; where it is a dictionary, or a list or tuple of such, kinds by entry, to any depth."""
OutputSpec = EntrySpec
Move = Callable[[KindSpec, Any], Any]


def map_output(spec: OutputSpec, output: Any, move: Move, *, strict: bool = True) -> Any:
    """Rebuild a model's output with every specified tensor replaced by ``move(kind, tensor)``.

    A single kind means the tensor itself, the entry ``"logits"`` of a mapping (its first entry if there is
    none), or the first entry of a tuple. A mapping names entries, by key or by position. Entries that are
    not named are invariant: they are handed to ``move`` as such where they are tensors, and kept where they
    are not. Entries that are named but missing raise if ``strict``, else they are skipped.
    """
    if isinstance(output, Tensor):
        if isinstance(spec, Mapping):
            raise TypeError(
                f"outputs names entries {list(spec)}, but the model returned one tensor; name one kind"
            )
        return move(spec, output)
    if isinstance(output, Mapping):
        named = spec if isinstance(spec, Mapping) else {_primary(output): spec}
        _check_named(named, list(output), strict)
        return _with_items(
            output, {k: _move_entry(named.get(k, kinds.Invariant), v, move) for k, v in output.items()}
        )
    if isinstance(output, tuple):
        named = spec if isinstance(spec, Mapping) else {0: spec}
        _check_named(named, list(range(len(output))), strict)
        return _with_entries(
            output, [_move_entry(named.get(i, kinds.Invariant), e, move) for i, e in enumerate(output)]
        )
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        fields = {f.name: getattr(output, f.name) for f in dataclasses.fields(output)}
        named = spec if isinstance(spec, Mapping) else {_primary(fields): spec}
        _check_named(named, list(fields), strict)
        made = copy.copy(output)
        for name, entry in fields.items():
            object.__setattr__(made, name, _move_entry(named.get(name, kinds.Invariant), entry, move))
        return made
    if isinstance(spec, Mapping) or not (
        isinstance(kind_class(spec), type) and issubclass(kind_class(spec), kinds.Invariant)
    ):
        raise TypeError(
            f"outputs={spec!r} needs a tensor, tuple, dict or dataclass, but the model returned "
            f"{type(output).__name__}; wrap the model in a function that returns tensors"
        )
    return output


def _move_entry(spec: EntrySpec, entry: Any, move: Move) -> Any:
    if isinstance(entry, Tensor):
        return move(kinds.Invariant if isinstance(spec, Mapping) else spec, entry)
    if isinstance(entry, Mapping):
        inner = (lambda k: spec.get(k, kinds.Invariant)) if isinstance(spec, Mapping) else (lambda k: spec)
        return _with_items(entry, {k: _move_entry(inner(k), v, move) for k, v in entry.items()})
    if isinstance(entry, (tuple, list)):
        return _with_entries(entry, [_move_entry(spec, e, move) for e in entry])
    return entry


def _with_entries(output: Any, entries: list[Any]) -> Any:
    """Return a list, tuple or named tuple of the same type."""
    return type(output)(*entries) if hasattr(output, "_fields") else type(output)(entries)


def _primary(output: Mapping[Any, Any]) -> Any:
    return "logits" if "logits" in output else next(iter(output), "logits")


def _check_named(named: Mapping[Any, Any], found: list[Any], strict: bool) -> None:
    missing = [key for key in named if key not in found]
    if not strict and len(missing) == len(named) and missing and all(isinstance(key, int) for key in found):
        raise TypeError(
            f"the results of this model are known by name ({', '.join(map(str, named))}), but it returned a "
            "tuple; call it with return_dict=True"
        )
    if strict and missing:
        raise KeyError(f"outputs names {missing}, which the model did not return; it returned {found}")


def _with_items(output: Mapping[Any, Any], items: dict[Any, Any]) -> Any:
    """Return a mapping of the same type: a dict, or a dataclass-like ``ModelOutput`` of transformers."""
    if type(output) in (dict, OrderedDict):
        return type(output)(items)  # type: ignore[call-arg]
    made: Any = type(output)(**items)
    if isinstance(made, OrderedDict):
        for key in items:  # entries are found by position too
            made.move_to_end(key)
    return made


def check_outputs(spec: OutputSpec) -> None:
    """Raise ValueError if a specification names an unknown kind."""
    if isinstance(spec, Mapping):
        for entry in spec.values():
            check_outputs(entry)
    else:
        kind_class(spec)
