"""Example values of every kind, on which laws are checked: an open registry."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import kinds, kinds_space
from ..groups.base import FiniteGroup, Group
from ..groups.permutations import Permutations
from ..groups.product import factors_of
from ..groups.projective import PlaneMap
from ..groups.space import SpatialGroup


@dataclass(frozen=True)
class Request:
    """What an example should be like.

    Attributes:
        group: The group that will move it.
        batch: Length of the leading axis.
        size: Canvas ``(height, width)``; in space ``(depth, height, width)``.
        dtype: Dtype of the tensor.
        generator: Source of the draws.
        smooth: Whether pictures are smooth and empty near their border, so that resampling errs little; for
            groups that carry content across the border, smooth everywhere.
    """

    group: Group
    batch: int
    size: tuple[int, ...]
    dtype: torch.dtype
    generator: torch.Generator
    smooth: bool


Maker = Callable[[Request], kinds.Kind]
EXAMPLES: dict[type[kinds.Kind], Maker] = {}
"""How to make an example of each kind; add one with `register_example`."""


def register_example(kind: type[kinds.Kind]) -> Callable[[Maker], Maker]:
    """Register how examples of a kind are made, so that the checks cover it.

    Raises:
        ValueError: If the kind has one already.
    """

    def register(make: Maker) -> Maker:
        if kind in EXAMPLES:
            raise ValueError(f"an example of {kind.__name__} is registered already")
        EXAMPLES[kind] = make
        return make

    return register


def is_exact(group: Group) -> bool:
    """Say whether every element of a group maps the pixel grid to itself."""
    return bool(getattr(group, "is_exact_on_grid", False))


def crosses_border(group: Group) -> bool:
    """Say whether a group scales or shifts the canvas, so that content leaves it."""
    return any(isinstance(factor, PlaneMap) for factor in factors_of(group))


def moves_space(group: Group) -> bool:
    """Say whether a group moves things in space instead of the plane."""
    return any(isinstance(factor, SpatialGroup) for factor in factors_of(group))


def example(
    kind: type[kinds.Kind],
    group: Group,
    *,
    batch: int = 3,
    size: tuple[int, ...] | None = None,
    dtype: torch.dtype = torch.float32,
    generator: torch.Generator | None = None,
) -> Any:
    """Make an example of a kind.

    Args:
        kind: The kind.
        group: The group that will move it. Where the group resamples, pictures are smooth.
        batch: Length of the leading axis.
        size: Canvas ``(height, width)``; default: 12×12, 64×64 for groups that resample, 96×96 for those that
            scale or shift too. In space ``(depth, height, width)``; default: 6×6×6, 36×36×36 for groups that
            resample.
        dtype: Dtype of the tensor, for kinds that allow it.
        generator: Source of the draws.

    Raises:
        KeyError: If no example of the kind is registered.
    """
    if kind not in EXAMPLES:
        raise KeyError(f"no example of {kind.__name__}; add one with upright.testing.register_example")
    generator = generator or torch.Generator().manual_seed(0)
    smooth = not is_exact(group)
    if size is None and moves_space(group):
        size = (36, 36, 36) if smooth else (6, 6, 6)
    size = size or ((96, 96) if crosses_border(group) else (64, 64) if smooth else (12, 12))
    return EXAMPLES[kind](Request(group, batch, size, dtype, generator, smooth))


def bumps(channels: tuple[int, ...], request: Request) -> Tensor:
    """Return smooth pictures, ``(batch, *channels, H, W)``, float64 in 0…1: Gaussians about the centre."""
    height, width = request.size[-2:]
    shape = (request.batch, *channels, 3, 1, 1)
    reach = min(height, width) / 2 - 22
    draw = torch.rand((2, *shape), generator=request.generator, dtype=torch.float64)
    radius, angle = max(reach, 2.0) * draw[0].sqrt(), 2 * math.pi * draw[1]
    rows = torch.arange(height, dtype=torch.float64).view(-1, 1) + 0.5 - height / 2
    columns = torch.arange(width, dtype=torch.float64) + 0.5 - width / 2
    weight = torch.rand(shape, generator=request.generator, dtype=torch.float64) + 0.2
    down = weight * torch.exp(-((rows - radius * angle.sin()) ** 2) / (2 * 5.0**2))  # (…, 3, H, 1)
    across = torch.exp(-((columns - radius * angle.cos()) ** 2) / (2 * 5.0**2))  # (…, 3, 1, W)
    picture = down.squeeze(-1).mT @ across.squeeze(-2)  # the sum of three bumps
    return picture / picture.amax((-1, -2), keepdim=True)


def waves(channels: tuple[int, ...], request: Request) -> Tensor:
    """Return smooth pictures, ``(batch, *channels, H, W)``, float64 in 0…1: waves 60 to 120 pixels long."""
    height, width = request.size[-2:]
    shape = (request.batch, *channels, 3, 1, 1)
    draw = torch.rand((3, *shape), generator=request.generator, dtype=torch.float64)
    number, angle, phase = 2 * math.pi / (60 + 60 * draw[0]), 2 * math.pi * draw[1], 2 * math.pi * draw[2]
    rows = torch.arange(height, dtype=torch.float64).view(-1, 1)
    columns = torch.arange(width, dtype=torch.float64)
    return 0.5 + torch.cos(number * (angle.cos() * columns + angle.sin() * rows) + phase).mean(-3) / 2


def _pixels(channels: tuple[int, ...], request: Request) -> Tensor:
    if request.smooth:
        values = (waves if crosses_border(request.group) else bumps)(channels, request)
    else:
        shape = (request.batch, *channels, *request.size[-2:])
        values = torch.rand(shape, generator=request.generator, dtype=torch.float64)
    if request.dtype == torch.bool:
        return values > 0.5
    return (values if request.dtype.is_floating_point else (values * 100).round()).to(request.dtype)


@register_example(kinds.Image)
def _image(request: Request) -> kinds.Image:
    return kinds.Image(_pixels((3,), request))


@register_example(kinds.Mask)
def _mask(request: Request) -> kinds.Mask:
    values = _pixels((), request)
    integer = not (values.is_floating_point() or values.dtype == torch.bool)
    return kinds.Mask(values // 40 if integer else values)  # few labels, in large regions


@register_example(kinds.VectorField)
def _vector_field(request: Request) -> kinds.VectorField:
    return kinds.VectorField(_pixels((2,), request))


@register_example(kinds.RegularField)
def _regular_field(request: Request) -> kinds.RegularField:
    order = request.group.order if isinstance(request.group, FiniteGroup) else 1
    return kinds.RegularField(_pixels((1, order), request))


def _canvas(request: Request) -> tuple[int, int]:
    return request.size[-2], request.size[-1]


def _places(request: Request, count: int) -> Tensor:
    """Return points on the canvas, on a grid of quarter pixels, ``(batch, count, 2)``, float64."""
    height, width = request.size[-2:]
    sides = torch.tensor([width, height], dtype=torch.float64)
    draw = torch.rand(request.batch, count, 2, generator=request.generator, dtype=torch.float64)
    return (draw * sides * 4).round() / 4


@register_example(kinds.Points)
def _points(request: Request) -> kinds.Points:
    flag = torch.rand(request.batch, 5, 1, generator=request.generator, dtype=torch.float64).round()
    return kinds.Points(torch.cat([_places(request, 5), flag], -1).to(request.dtype), size=_canvas(request))


@register_example(kinds.Boxes)
def _boxes(request: Request) -> kinds.Boxes:
    first, second = _places(request, 4), _places(request, 4)
    low, high = torch.minimum(first, second), torch.maximum(first, second) + 1
    return kinds.Boxes(torch.cat([low, high], -1).to(request.dtype), size=_canvas(request))


@register_example(kinds.OrientedBoxes)
def _oriented_boxes(request: Request) -> kinds.OrientedBoxes:
    sides = torch.rand(request.batch, 4, 2, generator=request.generator, dtype=torch.float64) * 4 + 1
    angle = torch.rand(request.batch, 4, 1, generator=request.generator, dtype=torch.float64) * 2.5 - 1.25
    data = torch.cat([_places(request, 4), sides, angle], -1)
    return kinds.OrientedBoxes(data.to(request.dtype), size=_canvas(request))


@register_example(kinds.Invariant)
def _invariant(request: Request) -> kinds.Invariant:
    return kinds.Invariant(torch.rand(request.batch, 4, generator=request.generator).to(request.dtype))


@register_example(kinds.Logits)
def _logits(request: Request) -> kinds.Logits:
    return kinds.Logits(torch.randn(request.batch, 4, generator=request.generator).to(request.dtype))


def _drawn(request: Request, *shape: int) -> Tensor:
    """Return normal numbers, ``(batch, *shape)``, float64."""
    return torch.randn(request.batch, *shape, generator=request.generator, dtype=torch.float64)


def _members(request: Request, *, usual: int) -> int:
    """Return how many members a set has: as many as are permuted."""
    return request.group.n if isinstance(request.group, Permutations) else usual


def _voxels(channels: int, request: Request) -> Tensor:
    """Return volumes, ``(batch, channels, D, H, W)``: noise, or smooth bumps near the middle."""
    size = request.size if len(request.size) == 3 else (4, 5, 6)  # a group of the plane leaves them
    shape = (request.batch, channels)
    if not (request.smooth and len(request.size) == 3):
        values = torch.rand(*shape, *size, generator=request.generator, dtype=torch.float64)
    else:
        middle = 4 * torch.rand(*shape, 2, 3, generator=request.generator, dtype=torch.float64) - 2
        lines = [torch.arange(side, dtype=torch.float64) + 0.5 - side / 2 for side in size]
        d, h, w = (
            torch.exp(-((line - middle[..., i, None]) ** 2) / (2 * 5.0**2)) for i, line in enumerate(lines)
        )
        values = torch.einsum("bckd,bckh,bckw->bcdhw", d, h, w) / 2
    if request.dtype == torch.bool:
        return values > 0.3
    return (values if request.dtype.is_floating_point else (values * 100).round()).to(request.dtype)


@register_example(kinds_space.Cloud)
def _cloud(request: Request) -> kinds_space.Cloud:
    return kinds_space.Cloud(_drawn(request, _members(request, usual=6), 5).to(request.dtype), features=2)


@register_example(kinds_space.Vectors)
def _vectors(request: Request) -> kinds_space.Vectors:
    return kinds_space.Vectors(_drawn(request, _members(request, usual=6), 3).to(request.dtype))


@register_example(kinds_space.PseudoVectors)
def _pseudo_vectors(request: Request) -> kinds_space.PseudoVectors:
    return kinds_space.PseudoVectors(_drawn(request, _members(request, usual=6), 3).to(request.dtype))


@register_example(kinds_space.Tensors)
def _tensors(request: Request) -> kinds_space.Tensors:
    return kinds_space.Tensors(_drawn(request, _members(request, usual=4), 3, 3).to(request.dtype))


@register_example(kinds_space.Volume)
def _volume(request: Request) -> kinds_space.Volume:
    return kinds_space.Volume(_voxels(2, request))


@register_example(kinds_space.LabelVolume)
def _label_volume(request: Request) -> kinds_space.LabelVolume:
    values = _voxels(1, request).squeeze(1)
    integer = not (values.is_floating_point() or values.dtype == torch.bool)
    return kinds_space.LabelVolume(values // 20 if integer else values)  # few labels, in large regions


@register_example(kinds_space.OrientedBoxes3D)
def _oriented_boxes_3d(request: Request) -> kinds_space.OrientedBoxes3D:
    count = _members(request, usual=4)
    axes = torch.linalg.qr(_drawn(request, count, 3, 3))[0]
    axes = axes * torch.linalg.det(axes)[..., None, None]
    data = torch.cat([_drawn(request, count, 3), _drawn(request, count, 3).abs() + 0.5, axes.flatten(-2)], -1)
    return kinds_space.OrientedBoxes3D(data.to(request.dtype))


@register_example(kinds_space.PointVectors)
def _point_vectors(request: Request) -> kinds_space.PointVectors:
    return kinds_space.PointVectors(_drawn(request, _members(request, usual=6), 3).to(request.dtype))


@register_example(kinds_space.Rows)
def _rows(request: Request) -> kinds_space.Rows:
    return kinds_space.Rows(_drawn(request, _members(request, usual=6), 2).to(request.dtype), inner=1)


@register_example(kinds_space.Pairs)
def _pairs(request: Request) -> kinds_space.Pairs:
    count = _members(request, usual=6)
    return kinds_space.Pairs(_drawn(request, count, count).to(request.dtype))


@register_example(kinds_space.PointMask)
def _point_mask(request: Request) -> kinds_space.PointMask:
    return kinds_space.PointMask(_drawn(request, _members(request, usual=6)) > 0)
