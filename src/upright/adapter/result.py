"""What a model returned, as a list of kinds: moved, put together from parts, and averaged over poses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..actions import act_mixed
from ..groups.base import Element
from ..kinds import Boxes, Invariant, Kind, Logits, OrientedBoxes, Points
from .canvas import Canvas, unplace
from .spec import OutputSpec, Size, map_output, wrap


@dataclass(frozen=True)
class Result:
    """The results of a model, in one frame.

    Attributes:
        spec: What the results are.
        template: The model's own output, whose structure is returned to the user.
        kinds: The tensors of the template, in its order, as kinds.
    """

    spec: OutputSpec
    template: Any
    kinds: list[Kind]

    def output(self) -> Any:
        """Return the results in the structure of the model's own output."""
        if isinstance(self.template, list):  # one entry a picture, moved already
            return self.template
        kinds = iter(self.kinds)
        return map_output(self.spec, self.template, lambda spec, data: next(kinds).data)

    def moved(self, g: Element, weights: Tensor | None = None, sizes: list[Size] | None = None) -> Result:
        """Return the results moved forward by ``g``; ``sizes`` are the canvases where they differ."""
        if sizes is None or len(set(sizes)) < 2:
            return replace(self, kinds=[_moved(kind, g, weights) for kind in self.kinds])
        return replace(self, kinds=[_moved_apart(kind, g, sizes) for kind in self.kinds])

    def unplaced(self, picture: Size, size: Size, canvas: Canvas) -> Result:
        """Return the results on the canvas of the upright picture."""
        return replace(self, kinds=[unplace(kind, picture, size, canvas) for kind in self.kinds])

    def select(self, part: slice) -> Result:
        """Return the results of some of the pictures."""
        return replace(self, kinds=[k.replace(data=k.data[part]) if k.data.ndim else k for k in self.kinds])


def read_result(spec: OutputSpec, output: Any, size: Size) -> Result:
    """Find the tensors of a model's output on the canvas ``size``."""
    kinds: list[Kind] = []

    def collect(kind: Any, data: Tensor) -> Tensor:
        kinds.append(wrap(kind, data, size))
        return data

    map_output(spec, output, collect)
    return Result(spec, output, kinds)


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


def merge(parts: list[Result], index: list[Tensor]) -> Result:
    """Put the results of parts of a batch together; ``index`` holds the numbers of each part's pictures."""
    order = torch.cat(index).argsort()
    if isinstance(parts[0].template, list):  # one entry a picture
        entries = [entry for part in parts for entry in part.template]
        return replace(parts[0], template=[entries[i] for i in order.tolist()])
    kinds = []
    for columns in zip(*(part.kinds for part in parts), strict=True):
        if columns[0].data.ndim == 0:  # a scalar, such as a loss that the model computes itself
            shares = torch.tensor([float(len(i)) for i in index]) / len(order)
            data = sum(c.data * s for c, s in zip(columns, shares.tolist(), strict=True))
        else:
            data = torch.cat([c.data for c in columns])[order.to(columns[0].data.device)]
        kinds.append(columns[0].replace(data=data))
    return replace(parts[0], kinds=kinds)


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
    data: Tensor = first.data
    if isinstance(first, (Boxes, OrientedBoxes, Points)):
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
    level = torch.zeros_like(blended[..., :1]) if isinstance(first, Logits) else None
    for column, at, share in zip(columns, index, shares, strict=True):
        at, share = at.to(data.device), share.to(blended.device, blended.dtype)
        share = share.view(-1, *[1] * (data.ndim - 1))
        values = column.data.to(blended.dtype)
        if level is not None:
            level.index_add_(0, at, share * values.logsumexp(-1, keepdim=True))
            values = F.softmax(values, -1)
        blended.index_add_(0, at, share * values)
    if level is not None:
        blended = blended.clamp(min=1e-30).log() + level
    keep = several.to(data.device).view(-1, *[1] * (data.ndim - 1))  # one pose: the model's own bits
    return first.replace(data=torch.where(keep, blended.to(data.dtype), data))
