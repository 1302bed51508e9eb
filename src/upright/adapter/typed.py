"""Typed tensors of torchvision (``tv_tensors``): they say what they hold, and come back as what they were."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from torch import Tensor

from ..kinds import Boxes, Image, Kind, Mask, Points

_MODULE = "torchvision.tv_tensors"
_FORMATS = ("xyxy", "xywh", "cxcywh")


def is_typed(data: Any) -> bool:
    """Say whether a tensor is one of ``torchvision.tv_tensors``; torchvision is not imported for it."""
    return isinstance(data, Tensor) and type(data).__module__.startswith(_MODULE)


def typed_kind(data: Any) -> Any:
    """Return the kind that a typed tensor names itself, or None.

    Raises:
        ValueError: If boxes are in a format that is not axis-aligned.
    """
    name = type(data).__name__
    if name == "BoundingBoxes":
        form: Any = str(data.format.value).lower()
        if form not in _FORMATS:
            raise ValueError(f"the format of BoundingBoxes must be one of {', '.join(_FORMATS)}, got {form}")
        return partial(Boxes, format=form)
    return {"Image": Image, "Mask": Mask, "KeyPoints": Points}.get(name)


def untyped(data: Any) -> Any:
    """Return a plain tensor of the same values."""
    return data.as_subclass(Tensor) if is_typed(data) else data


def retyped(kind: Kind, like: Any) -> Any:
    """Return what a kind holds, typed like the tensor that it came from, on the canvas of the kind."""
    if not is_typed(like):
        return kind.data
    wrap = sys.modules[_MODULE].wrap
    if hasattr(like, "canvas_size") and hasattr(kind, "size"):
        return wrap(kind.data, like=like, canvas_size=tuple(kind.size))
    return wrap(kind.data, like=like)
