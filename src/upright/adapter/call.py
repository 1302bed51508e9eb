"""One call of the model: its arguments, with those that are moved taken out by name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..actions import act, act_mixed
from ..groups.base import Element
from ..kinds import Image, Invariant, Kind, Mask
from ..kinds_space import Cloud, PointMask, PointVectors
from .canvas import unplace
from .embedding import Embedding
from .extent import read_extents, turn_within, turned_extents
from .signature import InputSpec, Layout, Signature, unwrapped
from .spec import Size, kind_class, wrap
from .subject import SUBJECTS, check_subject, cut_clouds
from .typed import retyped


class _Cut(list[Tensor]):
    """Rows of a tensor, each cut to the size of its picture."""


@dataclass(frozen=True)
class Call:
    """Arguments of one call, and the pictures among them.

    Attributes:
        args: Positional arguments.
        kwargs: Keyword arguments.
        moved: Kind of every argument that the specification names, by position or name; the pictures come
            first.
        padding: Which argument says where pictures are padded, if one does.
        canvas: The padded canvas from which the pictures were cut; None: they were not.
        extents: Height and width of what the pictures fill of their canvas, where they stay on it; None: all.
        layout: How the model lays out pictures; None: it takes them.
        subject: The kind of what the canonicalizer looks at, which is called a picture here.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    moved: dict[int | str, InputSpec]
    padding: int | str | None = None
    canvas: Size | None = None
    extents: list[Size] | None = None
    layout: Layout | None = None
    subject: type[Kind] = Image

    @property
    def pictures(self) -> Any:
        """The pictures: a tensor ``(B, C, H, W)``, a list of ``(C, H_i, W_i)``, or an `Embedding`."""
        return self[next(iter(self.moved))]

    @property
    def seen(self) -> Any:
        """The pictures as the canonicalizer is to see them, without padding."""
        if self.subject is Cloud:
            masks = [self[key] for key, spec in self.moved.items() if _is_a(spec, PointMask)]
            arrows = [self[key] for key, spec in self.moved.items() if _is_a(spec, PointVectors)]
            return cut_clouds(self.pictures, masks[0] if masks else None, arrows)
        if self.extents is None:
            return self.pictures
        return [row[..., :h, :w] for row, (h, w) in zip(self.pictures, self.extents, strict=True)]

    @property
    def batch(self) -> int:
        """Number of pictures."""
        return self.pictures.shape[0] if isinstance(self.pictures, Tensor) else len(self.pictures)

    @property
    def sizes(self) -> list[Size]:
        """Height and width of every picture."""
        if self.extents is not None:
            return self.extents
        if isinstance(self.pictures, Tensor):
            return [(self.pictures.shape[-2], self.pictures.shape[-1])] * self.batch
        return [(p.shape[-2], p.shape[-1]) for p in self.pictures]

    @property
    def frame(self) -> Size:
        """Height and width of the canvas that the model sees, where all pictures share one."""
        if isinstance(self.pictures, Tensor):
            return self.pictures.shape[-2], self.pictures.shape[-1]
        if isinstance(self.pictures, Embedding):
            return self.pictures.canvas
        return self.sizes[0] if self.sizes else (1, 1)

    def __getitem__(self, key: int | str) -> Any:
        return self.args[key] if isinstance(key, int) else self.kwargs[key]

    def with_values(self, values: Mapping[int | str, Any]) -> Call:
        """Return the call with some arguments replaced."""
        args = tuple(values.get(i, a) for i, a in enumerate(self.args))
        return replace(self, args=args, kwargs={k: values.get(k, v) for k, v in self.kwargs.items()})

    def select(self, index: Tensor) -> Call:
        """Return the call for some of the pictures: every argument with one entry a picture is cut alike."""
        arguments: list[tuple[int | str, Any]] = [*enumerate(self.args), *self.kwargs.items()]
        part = self.with_values({
            key: _take(entry, index, self.batch) for key, entry in arguments if not self._is_shared(key)
        })  # fmt: skip
        return part if self.extents is None else replace(part, extents=_take(self.extents, index, self.batch))

    def moved_back(self, g: Element, weights: Tensor | None = None) -> Call:
        """Return the call with every moved argument turned back by ``g``."""
        if self.extents is not None:
            return self._moved_back_within(g.inverse(), self.extents)
        size = self.frame
        values: dict[int | str, Any] = {}
        for key, spec in self.moved.items():
            entry = self[key]
            if is_invariant(spec):
                continue
            if isinstance(entry, Tensor):
                kind = wrap(spec, entry, size)  # type: ignore[arg-type]
                values[key] = retyped(act_mixed(g, weights, kind, inverse=True), entry)
            else:
                kinds = [entry_kinds(spec, e, size) for e, size in zip(entry, self.sizes, strict=True)]
                moved = zip(act(g.inverse(), kinds), entry, strict=True)
                values[key] = type(entry)(entry_data(kind, e) for kind, e in moved)
        return self.with_values(values)

    def _moved_back_within(self, g: Element, extents: list[Size]) -> Call:
        """Return the call with everything moved within the part of the canvas that each picture fills."""
        values: dict[int | str, Any] = {}
        for key, spec in self.moved.items():
            entry = self[key]
            if is_invariant(spec):
                continue
            if isinstance(entry, Tensor) and not isinstance(spec, Mapping):
                values[key] = turn_within(g, wrap(spec, entry, self.frame), extents, self.frame).data
            else:
                raise TypeError(f"argument {key!r} must be a tensor to be moved, got {type(entry).__name__}")
        return replace(self.with_values(values), extents=turned_extents(g, extents))

    def send(self, model: Any) -> Any:
        """Call the model, with the features of embeddings in their arguments."""
        kwargs: dict[str, Any] = {}
        for name, entry in self.kwargs.items():
            kwargs.update(entry.features if isinstance(entry, Embedding) else {name: entry})
        if self.layout is not None:
            kwargs = self.layout.write(kwargs)
        return model(*self.args, **kwargs)

    def without_padding(self) -> Call:
        """Return the call with every picture, and what lies on it, cut to its own size, in lists.

        Nothing changes where no picture is padded.
        """
        if self.padding is None or not isinstance(self.pictures, Tensor):
            return self
        valid = valid_sizes(self[self.padding], self.sizes)
        canvas = self.sizes[0] if self.sizes else (1, 1)
        if all(size == canvas for size in valid):
            return self
        values: dict[int | str, Any] = {}
        for key, spec in self.moved.items():
            entry = self[key]
            if not is_invariant(spec):
                rows = [_cut(spec, row, size, canvas) for row, size in zip(entry, valid, strict=True)]
                values[key] = _Cut(rows) if isinstance(entry, Tensor) else rows
        return replace(self.with_values(values), canvas=canvas)

    def stacked(self) -> Call:
        """Return the call with what was cut, now of one shape, stacked again."""
        values = {}
        for key in self.moved:
            entry = self[key]
            if isinstance(entry, _Cut):
                values[key] = torch.stack(entry)
        return replace(self.with_values(values), canvas=None)

    def _is_shared(self, key: int | str) -> bool:
        spec = self.moved.get(key)
        return isinstance(spec, partial) and spec.keywords.get("axis", 0) is None


def read_call(
    model: Any,
    inputs: Mapping[Any, InputSpec] | None,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    signature: Signature | None = None,
    subject: type[Kind] = Image,
) -> Call:
    """Find the arguments that are moved.

    Args:
        model: The predictor, whose signature names positional arguments.
        inputs: Kinds by position or name; None: the first argument, or the one named like a picture.
        args: Positional arguments of the call.
        kwargs: Keyword arguments of the call.
        signature: What is known of the model's class beyond ``inputs``.
        subject: The kind that the canonicalizer reads; for `Image`, read "picture".

    Raises:
        TypeError: If no picture is among the arguments.
        ValueError: If pictures, or what lies on them, have another shape than they must.
    """
    names = positional_names(unwrapped(model)) if inputs is not None else []
    signature = signature or Signature({})
    if signature.layout is not None:
        args, kwargs = (), signature.layout.read({**dict(zip(names, args, strict=False)), **kwargs})

    def find(name: int | str) -> int | str | None:
        """Return where a named argument is, or None if the call leaves it out."""
        found = names.index(name) if isinstance(name, str) and name in names[: len(args)] else name
        present = found < len(args) if isinstance(found, int) else found in kwargs
        return (
            found
            if present and (args[found] if isinstance(found, int) else kwargs[found]) is not None
            else None
        )

    if inputs is None:
        known = SUBJECTS[subject]
        key: int | str | None = 0 if args else next((n for n in known.names if n in kwargs), None)
        if key is None:
            raise TypeError(
                f"no {known.noun} among the arguments {sorted(kwargs)}; "
                f"name it with adapt(..., inputs={{'<name>': '{known.spec}'}})"
            )
        moved: dict[int | str, InputSpec] = {key: subject}
    else:
        present = {find(name): spec for name, spec in inputs.items()}
        moved = {key: spec for key, spec in present.items() if key is not None}
    embedded = _find_embedding(signature, kwargs)
    pictures = [key for key, spec in moved.items() if _is_a(spec, subject)]
    if embedded is not None:
        pictures, moved = [embedded], {embedded: Invariant, **moved}
    if not pictures:
        noun = SUBJECTS[subject].noun
        raise TypeError(f"inputs must name a {noun} that is among the arguments, got {dict(inputs or {})}")
    mask = find(signature.padding) if signature.padding is not None else None
    if mask is not None:
        moved.setdefault(mask, Mask)
    call = Call(args, kwargs, {pictures[0]: moved[pictures[0]], **moved}, mask, subject=subject)
    call = replace(call, extents=_extents(signature, call), layout=signature.layout)
    if signature.check is not None:
        signature.check({**dict(zip(names, args, strict=False)), **kwargs}, call.sizes)
    return call


def _find_embedding(signature: Signature, kwargs: dict[str, Any]) -> str | None:
    """Return the argument that holds features instead of pictures, if the call gives one."""
    if signature.embeds is None or kwargs.get(signature.embeds.arguments[0]) is None:
        return None
    name = signature.embeds.arguments[0]
    if not isinstance(kwargs[name], Embedding):
        raise TypeError(
            f"{name} must be what <adapted>.embed(pictures) returns, which knows the poses, "
            f"got {type(kwargs[name]).__name__}"
        )
    return name


def _extents(signature: Signature, call: Call) -> list[Size] | None:
    """Return what the pictures fill of their canvas, or None where they fill it."""
    if isinstance(call.pictures, Embedding):
        return call.pictures.extents
    check_subject(call.pictures, call.subject)
    given = call.kwargs.get(signature.extents) if signature.extents is not None else None
    if given is None or not isinstance(call.pictures, Tensor):
        return None
    extents = read_extents(given, call.sizes, signature.extents)
    return None if all(extent == call.frame for extent in extents) else extents


def valid_sizes(mask: Tensor, sizes: list[Size]) -> list[Size]:
    """Return the height and width of every picture inside its padding.

    Args:
        mask: Ones where there is picture, shape ``(B, H, W)``.
        sizes: Canvas of every picture.

    Raises:
        ValueError: If the mask does not fit the pictures, or is no rectangle in the top left corner.
    """
    expected = (len(sizes), *sizes[0]) if sizes else tuple(mask.shape)
    if tuple(mask.shape) != expected:
        raise ValueError(
            f"the padding mask must have shape {expected} to match the pictures, got {tuple(mask.shape)}"
        )
    inside = mask.bool()
    heights, widths = inside.any(2).sum(1), inside.any(1).sum(1)
    for i, (height, width) in enumerate(zip(heights.tolist(), widths.tolist(), strict=True)):
        if not height or not bool(inside[i, :height, :width].all()):
            raise ValueError(
                f"padding must lie below and to the right of picture {i}, but its mask is no rectangle "
                "of ones in the top left corner"
            )
    return list(zip(heights.tolist(), widths.tolist(), strict=True))


def entry_kinds(spec: InputSpec, entry: Any, size: Size) -> Any:
    """Wrap one picture's entry: a tensor, or what is named of a dictionary."""
    if isinstance(spec, Mapping):
        return {name: wrap(kind, entry[name], size) for name, kind in spec.items() if name in entry}
    return wrap(spec, entry, size)


def entry_data(kinds: Any, entry: Any) -> Any:
    """Return one picture's entry with the data of its kinds."""
    if isinstance(kinds, dict):
        return {**entry, **{name: retyped(kind, entry[name]) for name, kind in kinds.items()}}
    return retyped(kinds, entry)


def _cut(spec: InputSpec, entry: Any, size: Size, canvas: Size) -> Any:
    """Cut one picture's entry on the padded canvas to the picture's own size; fractions follow."""
    kinds = entry_kinds(spec, entry, canvas)
    if isinstance(kinds, dict):
        kinds = {name: unplace(kind, size, canvas, "pad") for name, kind in kinds.items()}
        return entry_data(kinds, entry)
    return unplace(kinds, size, canvas, "pad").data


def is_invariant(spec: InputSpec) -> bool:
    """Say whether a specification is of something that is not moved."""
    return _is_a(spec, Invariant)


def _is_a(spec: InputSpec, wanted: type[Kind]) -> bool:
    kind = None if isinstance(spec, Mapping) else kind_class(spec)
    return isinstance(kind, type) and issubclass(kind, wanted)


def positional_names(model: Any) -> list[str]:
    """Return the names of the arguments of a module or function; none where it does not tell."""
    while hasattr(model, "canonicalizer") and hasattr(model, "model"):  # adapted to another group already
        model = unwrapped(model.model)
    call = model.forward if isinstance(model, torch.nn.Module) else model
    try:
        return list(inspect.signature(call).parameters)
    except (TypeError, ValueError):  # builtins and compiled callables have no signature
        return []


def _take(entry: Any, index: Tensor, batch: int) -> Any:
    if isinstance(entry, Embedding):
        return entry.select(index)
    if isinstance(entry, Tensor) and entry.ndim and entry.shape[0] == batch:
        return entry[index.to(entry.device)]
    if isinstance(entry, list) and len(entry) == batch:
        return type(entry)(entry[i] for i in index.tolist())
    return entry
