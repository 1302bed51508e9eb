"""One call of the model: its arguments, with those that are moved taken out by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..actions import act, act_mixed
from ..groups.base import Element
from ..kinds import Image
from .spec import KindSpec, Size, kind_class, wrap

_PICTURE_NAMES = ("pixel_values", "images", "image", "x", "input", "inputs")


@dataclass(frozen=True)
class Call:
    """Arguments of one call, and the pictures among them.

    Attributes:
        args: Positional arguments.
        kwargs: Keyword arguments.
        moved: Kind of every argument that is moved, by position or name; the pictures come first.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    moved: dict[int | str, KindSpec]

    @property
    def pictures(self) -> Any:
        """The pictures: a tensor ``(B, C, H, W)`` or a list of ``(C, H_i, W_i)``."""
        return self[next(iter(self.moved))]

    @property
    def batch(self) -> int:
        """Number of pictures."""
        return len(self.pictures)

    @property
    def sizes(self) -> list[Size]:
        """Canvas of every picture."""
        if isinstance(self.pictures, Tensor):
            return [(self.pictures.shape[-2], self.pictures.shape[-1])] * self.batch
        return [(p.shape[-2], p.shape[-1]) for p in self.pictures]

    def __getitem__(self, key: int | str) -> Any:
        return self.args[key] if isinstance(key, int) else self.kwargs[key]

    def with_values(self, values: Mapping[int | str, Any]) -> Call:
        """Return the call with some arguments replaced."""
        args = tuple(values.get(i, a) for i, a in enumerate(self.args))
        return replace(self, args=args, kwargs={k: values.get(k, v) for k, v in self.kwargs.items()})

    def select(self, index: Tensor) -> Call:
        """Return the call for some of the pictures: every argument with one entry a picture is cut alike."""
        return self.map(lambda entry: _take(entry, index, self.batch))

    def map(self, f: Callable[[Any], Any]) -> Call:
        """Return the call with ``f`` applied to every argument."""
        return replace(
            self, args=tuple(f(a) for a in self.args), kwargs={k: f(v) for k, v in self.kwargs.items()}
        )

    def moved_back(self, g: Element, weights: Tensor | None = None) -> Call:
        """Return the call with every moved argument turned back by ``g``."""
        values: dict[int | str, Any] = {}
        for key, spec in self.moved.items():
            entry = self[key]
            if isinstance(entry, Tensor):
                kind = wrap(spec, entry, self.sizes[0] if self.sizes else (1, 1))
                values[key] = act_mixed(g, weights, kind, inverse=True).data
            else:
                kinds = [wrap(spec, e, size) for e, size in zip(entry, self.sizes, strict=True)]
                values[key] = [kind.data for kind in act(g.inverse(), kinds)]
        return self.with_values(values)


def read_call(
    model: Any, inputs: Mapping[int | str, KindSpec] | None, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Call:
    """Find the arguments that are moved.

    Args:
        model: The predictor, whose signature names positional arguments.
        inputs: Kinds by position or name; None: the first argument, or the one named like a picture.
        args: Positional arguments of the call.
        kwargs: Keyword arguments of the call.

    Raises:
        TypeError: If no picture is among the arguments.
    """
    if inputs is None:
        key: int | str | None = 0 if args else next((n for n in _PICTURE_NAMES if n in kwargs), None)
        if key is None:
            raise TypeError(
                f"no picture among the arguments {sorted(kwargs)}; "
                "name it with adapt(..., inputs={'<name>': 'image'})"
            )
        moved: dict[int | str, KindSpec] = {key: Image}
    else:
        names = _positional_names(model)
        moved = {}
        for name, spec in inputs.items():
            found = names.index(name) if isinstance(name, str) and name in names[: len(args)] else name
            present = found < len(args) if isinstance(found, int) else found in kwargs
            if present and (args[found] if isinstance(found, int) else kwargs[found]) is not None:
                moved[found] = spec
    pictures = [key for key, spec in moved.items() if _is_image(spec)]
    if not pictures:
        raise TypeError(f"inputs must name a picture that is among the arguments, got {dict(inputs or {})}")
    call = Call(args, kwargs, {pictures[0]: moved[pictures[0]], **moved})
    _check_pictures(call.pictures)
    return call


def _is_image(spec: KindSpec) -> bool:
    kind = kind_class(spec)
    return isinstance(kind, type) and issubclass(kind, Image)


def _check_pictures(pictures: Any) -> None:
    if isinstance(pictures, Tensor):
        if pictures.ndim != 4:
            raise ValueError(
                f"pictures must have shape (B, C, H, W), got {tuple(pictures.shape)}; add a batch axis"
            )
    elif isinstance(pictures, (list, tuple)):
        for i, picture in enumerate(pictures):
            if not isinstance(picture, Tensor) or picture.ndim != 3:
                got = tuple(picture.shape) if isinstance(picture, Tensor) else type(picture).__name__
                raise ValueError(f"picture {i} of the list must be a tensor (C, H, W), got {got}")
    else:
        raise TypeError(
            f"pictures must be a tensor (B, C, H, W) or a list of (C, H, W), got {type(pictures).__name__}"
        )


def _positional_names(model: Any) -> list[str]:
    call = model.forward if isinstance(model, torch.nn.Module) else model
    try:
        return list(inspect.signature(call).parameters)
    except (TypeError, ValueError):  # builtins and compiled callables have no signature
        return []


def _take(entry: Any, index: Tensor, batch: int) -> Any:
    if isinstance(entry, Tensor) and entry.ndim and entry.shape[0] == batch:
        return entry[index.to(entry.device)]
    if isinstance(entry, list) and len(entry) == batch:
        return [entry[i] for i in index.tolist()]
    return entry
