"""What a model returned, as a list of kinds: moved, put together from parts, and averaged over poses."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..actions import act_mixed
from ..groups.base import Element
from ..kinds import Boxes, Invariant, Kind, Logits, OrientedBoxes, Points
from ..kinds_space import OrientedBoxes3D
from .canvas import Canvas, pad_to, unplace
from .extent import turn_within
from .spec import OutputSpec, Size, map_output, wrap
from .typed import retyped


@dataclass(frozen=True)
class Result:
    """The results of a model, in one frame.

    Attributes:
        spec: What the results are.
        template: The model's own output, whose structure is returned to the user.
        kinds: The tensors of the template, in its order, as kinds.
        size: Canvas of the pictures that the model saw.
        strict: Whether entries that the specification names must be there.
    """

    spec: OutputSpec
    template: Any
    kinds: list[Kind]
    size: Size = (1, 1)
    strict: bool = True

    def output(self) -> Any:
        """Return the results in the structure of the model's own output."""
        if isinstance(self.template, list):  # one entry a picture, moved already
            return self.template
        kinds = iter(self.kinds)

        def take(spec: Any, data: Tensor) -> Any:
            return retyped(next(kinds), data)

        return map_output(self.spec, self.template, take, strict=self.strict)

    def moved(self, g: Element, weights: Tensor | None = None, sizes: list[Size] | None = None) -> Result:
        """Return the results moved forward by ``g``; ``sizes`` are the canvases where they differ."""
        if sizes is None or len(set(sizes)) < 2:
            return replace(self, kinds=[_moved(kind, g, weights) for kind in self.kinds])
        return replace(self, kinds=[_moved_apart(kind, g, sizes) for kind in self.kinds])

    def within(self, g: Element, extents: list[Size]) -> Result:
        """Return the results moved forward by ``g``, within what the upright pictures fill of the canvas."""
        return replace(self, kinds=[turn_within(g, kind, extents, self.size) for kind in self.kinds])

    def unplaced(self, picture: Size, size: Size, canvas: Canvas) -> Result:
        """Return the results on the canvas of the upright picture."""
        return replace(self, kinds=[unplace(kind, picture, size, canvas) for kind in self.kinds])

    def select(self, part: slice) -> Result:
        """Return the results of some of the pictures."""
        return replace(self, kinds=[_part(kind, part) for kind in self.kinds])

    def spread(self, g: Element, canvas: Size) -> Result:
        """Return the results moved forward by ``g``, each put back on the padded canvas."""
        return replace(self, kinds=[_spread(kind, g, self.size, canvas) for kind in self.kinds])


def read_result(spec: OutputSpec, output: Any, size: Size, *, strict: bool = True) -> Result:
    """Find the tensors of a model's output on the canvas ``size``."""
    kinds: list[Kind] = []

    def collect(kind: Any, data: Tensor) -> Tensor:
        kinds.append(wrap(kind, data, size))
        return data

    map_output(spec, output, collect, strict=strict)
    return Result(spec, output, kinds, size, strict)


def _moved(kind: Kind, g: Element, weights: Tensor | None) -> Kind:
    if isinstance(kind, Invariant):
        return kind
    moved: Kind = act_mixed(g, weights, kind)
    return moved


def _moved_apart(kind: Kind, g: Element, sizes: list[Size]) -> Kind:
    """Move results that lie on canvases of different sizes, one by one."""
    if not isinstance(kind, (Boxes, OrientedBoxes, Points)):
        return _moved(kind, g, None)
    data = [
        _moved(kind.replace(data=kind.data[i : i + 1], size=size), g[i : i + 1], None).data
        for i, size in enumerate(sizes)
    ]
    return kind.replace(data=torch.cat(data))


def _spread(kind: Kind, g: Element, size: Size, canvas: Size) -> Kind:
    """Move results of pictures that shared an upright canvas, one by one, each to its own picture."""
    if isinstance(kind, Invariant) or not kind.data.shape[0]:
        return kind
    moved = [_moved(kind.replace(data=kind.data[i : i + 1]), g[i : i + 1], None).data for i in range(len(g))]
    if not isinstance(kind, (Boxes, OrientedBoxes, Points)):
        rows, columns = kind.data.shape[-2:]
        moved = [pad_to(m, _on_canvas(m, size, (rows, columns), canvas)) for m in moved]
    return kind.replace(data=torch.cat(moved))


def _on_canvas(moved: Tensor, size: Size, grid: Size, canvas: Size) -> Size:
    """Return the shape of a dense result on the padded canvas, by its stride on the canvas of one picture."""
    strides = [side / cells for side, cells in zip(size, grid, strict=True)]
    stride = max(strides)  # cells at the border may be cut
    whole = round(stride) if stride >= 1 else 1 / round(1 / stride)
    height, width = (math.ceil(side / whole) for side in canvas)
    return max(height, moved.shape[-2]), max(width, moved.shape[-1])


def _part(kind: Kind, part: slice) -> Kind:
    axis = batch_axis(kind)
    if axis is None or kind.data.ndim == 0:
        return kind
    return kind.replace(data=kind.data[(slice(None),) * axis + (part,)])


def batch_axis(kind: Kind) -> int | None:
    """Return the axis of a result that counts the pictures; None: it belongs to all of them together."""
    return kind.axis if isinstance(kind, Invariant) else 0


def merge(parts: list[Result], index: list[Tensor]) -> Result:
    """Put the results of parts of a batch together; ``index`` holds the numbers of each part's pictures."""
    order = torch.cat(index).argsort()
    if isinstance(parts[0].template, list):  # one entry a picture
        entries = [entry for part in parts for entry in part.template]
        return replace(parts[0], template=[entries[i] for i in order.tolist()])
    kinds = []
    for columns in zip(*(part.kinds for part in parts), strict=True):
        kinds.append(_merge_kind(columns, index, order))
    return replace(parts[0], kinds=kinds)


def _merge_kind(columns: tuple[Kind, ...], index: list[Tensor], order: Tensor) -> Kind:
    first = columns[0]
    axis = batch_axis(first)
    if axis is None:
        return first
    if first.data.ndim == 0:  # a scalar, such as a loss that the model computes itself
        shares = [len(i) / len(order) for i in index]
        return first.replace(data=sum(c.data * s for c, s in zip(columns, shares, strict=True)))
    for column, numbers in zip(columns, index, strict=True):
        if column.data.ndim <= axis or column.data.shape[axis] != len(numbers):
            raise ValueError(
                f"a result of shape {tuple(column.data.shape)} has not one entry for each of {len(numbers)} "
                "pictures; if it belongs to all pictures together, name it in outputs as "
                "functools.partial(upright.Invariant, axis=None)"
            )
    if len({c.data.shape[:axis] + c.data.shape[axis + 1 :] for c in columns}) > 1:
        shapes = " and ".join(str(tuple(c.data.shape)) for c in columns)
        raise ValueError(
            f"a result has shapes {shapes} for pictures that stand upright in different shapes, so it lies "
            "on the picture; name it in outputs as a mask or an image"
        )
    return first.replace(
        data=torch.cat([c.data for c in columns], axis).index_select(axis, order.to(first.data.device))
    )


def blend(parts: list[Result], index: list[Tensor], weights: list[Tensor]) -> Result:
    """Average over poses: picture ``index[i][j]`` has entry ``j`` of ``parts[i]``, with ``weights[i][j]``.

    Parts beyond the first may hold fewer pictures; the first holds all. Weights are normalised per picture.
    Class scores are averaged as probabilities, everything else as it is.
    """
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0].template, list):
        raise TypeError("lists with one entry a picture cannot be averaged over poses; use mode='canonical'")
    total = torch.zeros_like(weights[0]).index_add(0, torch.cat(index), torch.cat(weights))
    shares = [w / total[i] for w, i in zip(weights, index, strict=True)]
    kinds = []
    for columns in zip(*(part.kinds for part in parts), strict=True):
        kinds.append(_blend_kind(columns, index, shares))
    return replace(parts[0], kinds=kinds)


def _blend_kind(columns: tuple[Kind, ...], index: list[Tensor], shares: list[Tensor]) -> Kind:
    first = columns[0]
    axis = batch_axis(first)
    if axis is None:
        return first
    if first.data.ndim == 0:  # a scalar, such as a loss
        total = sum(float(share.sum()) for share in shares)
        return first.replace(
            data=sum(c.data * (float(s.sum()) / total) for c, s in zip(columns, shares, strict=True))
        )
    if axis:
        rows = tuple(c.replace(data=c.data.movedim(axis, 0), axis=0) for c in columns)
        return first.replace(data=_blend_kind(rows, index, shares).data.movedim(0, axis))
    data: Tensor = first.data
    if isinstance(first, (Boxes, OrientedBoxes, OrientedBoxes3D, Points)):
        raise TypeError(f"{type(first).__name__} of several poses cannot be averaged; use mode='canonical'")
    several = torch.cat(index).bincount(minlength=data.shape[0]) > 1
    if not bool(several.any()):
        return first
    if not data.is_floating_point():
        raise TypeError(
            f"{type(first).__name__} results of dtype {data.dtype} cannot be averaged over poses; "
            "use mode='canonical' or let the model return scores"
        )
    blended = torch.zeros_like(data, dtype=torch.promote_types(data.dtype, torch.float32))
    level = None
    if isinstance(first, Logits):
        level, blended = torch.zeros_like(blended[..., :1]), torch.full_like(blended, -math.inf)
    for column, at, share in zip(columns, index, shares, strict=True):
        at, share = at.to(data.device), share.to(blended.device, blended.dtype)
        share = share.view(-1, *[1] * (data.ndim - 1))
        values = column.data.to(blended.dtype)
        if level is not None:
            level.index_add_(0, at, share * values.logsumexp(-1, keepdim=True))
            added = torch.logaddexp(blended[at], F.log_softmax(values, -1) + share.log())
            blended = blended.index_copy(0, at, added)
        else:
            blended.index_add_(0, at, share * values)
    if level is not None:
        blended = blended + level
    keep = several.to(data.device).view(-1, *[1] * (data.ndim - 1))  # one pose: the model's own bits
    return first.replace(data=torch.where(keep, blended.to(data.dtype), data))
