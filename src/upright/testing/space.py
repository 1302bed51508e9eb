"""Whether all kinds agree about where things go in space: one marked voxel, seen as every kind."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..actions import act as library_act
from ..actions import registered_kinds
from ..groups.base import Element, FiniteGroup, Group
from ..groups.colour import ColourGroup
from ..groups.product import Product, factors_of
from ..groups.space import SpatialGroup
from ..kinds import Invariant, Kind
from ..kinds_space import (
    Cloud,
    LabelVolume,
    OrientedBoxes3D,
    Pairs,
    PointVectors,
    PseudoVectors,
    Rows,
    Spacing,
    Tensors,
    Vectors,
    Volume,
)
from .tolerances import errors, require, require_true

Act = Callable[[Element, Any], Any]
Shape = tuple[int, int, int]
_GRIDS: tuple[tuple[Shape, Spacing], ...] = (
    ((4, 4, 4), (1.0, 1.0, 1.0)),
    ((5, 5, 5), (3.0, 1.0, 0.5)),
    ((3, 4, 5), (1.0, 2.0, 2.0)),
)


@dataclass(frozen=True)
class SpaceMark:
    """A mark in space, made as a kind and found again in it.

    Attributes:
        make: ``make(place, shape, spacing, width)`` draws the mark at ``place`` = ``(x, y, z)``, measured
            from the middle in units of ``spacing``, without batch axis: a single voxel of a grid ``shape``
            (D, H, W) if ``width`` is 0, else a smooth spot of that standard deviation.
        find: ``find(x)`` returns where the mark is, ``(x, y, z)``, shape ``(3,)``.
        slack: How far a smooth spot may be found from its place after a move that resamples.
    """

    make: Callable[[Tensor, Shape, Spacing, float], Kind]
    find: Callable[[Any], Tensor]
    slack: float = 0.05


SPACE_MARKS: dict[type[Kind], SpaceMark] = {}
"""Marks of every kind that has a place in space; add one with `register_space_mark`."""

ARROWS: dict[type[Kind], Callable[[Tensor, Tensor], Kind]] = {}
"""Kinds that have a direction and no place, made of two arrows; add one with `register_arrows`."""


def register_space_mark(kind: type[Kind], mark: SpaceMark) -> None:
    """Register how a mark is drawn as a kind and found again, so that `assert_consistent` covers the kind."""
    SPACE_MARKS[kind] = mark


def register_arrows(kind: type[Kind], make: Callable[[Tensor, Tensor], Kind]) -> None:
    """Register how a kind is made of two arrows ``(3,)``: moved, it must be that of the moved arrows."""
    ARROWS[kind] = make


def check_space(
    group: Group,
    act: Act = library_act,
    grids: tuple[tuple[Shape, Spacing], ...] = _GRIDS,
) -> None:
    """Check that all kinds agree about where a marked voxel goes, and that this is where the matrix says.

    Args:
        group: A group of space, or a product of one with colours.
        act: The function under test.
        grids: Shapes (D, H, W) and distances between voxels along them, for groups that permute axes.

    Raises:
        AssertionError: If kinds disagree, or a kind that the group moves has neither mark nor arrows.
        TypeError: If the group is another.
    """
    if not all(isinstance(factor, (SpatialGroup, ColourGroup)) for factor in factors_of(group)):
        raise TypeError(f"group must be one of space, or a product of one with colours, got {group}")
    covered = {*SPACE_MARKS, *ARROWS, Invariant}
    missing = [kind.__name__ for kind in registered_kinds(group) if kind not in covered]
    law = f"{group}: every kind has a mark"
    require_true(law, not missing, f"{missing} have none; add one with register_space_mark")
    if isinstance(group, FiniteGroup) and group.order <= 48:
        elements = group.elements()
    else:
        elements = group.sample(8, generator=torch.Generator().manual_seed(0))
    for g in elements:
        _check_arrows(g, act)
        _check_boxes(g, act)
        if group.is_exact_on_grid:
            for shape, spacing in grids:
                _check_voxels(g, shape, spacing, act)
    if not group.is_exact_on_grid:
        for g in elements:
            _check_spot(g, (32, 31, 33), (1.0, 1.0, 1.0), act)
        for g in elements[:4]:
            _check_spot(g, (24, 33, 42), (1.5, 1.0, 0.8), act)


def moved_frame(g: Element, shape: Shape, spacing: Spacing) -> tuple[Shape, Spacing]:
    """Return shape and spacing after a move that permutes the axes, one element, from its matrix alone."""
    turned = _rotation(g).abs().round().long().flip(0, 1)  # of z, y, x
    sides = (turned @ torch.tensor(shape)).tolist()
    steps = (turned.double() @ torch.tensor(spacing, dtype=torch.float64)).tolist()
    return (sides[0], sides[1], sides[2]), (steps[0], steps[1], steps[2])


def _rotation(g: Element) -> Tensor:
    """Return the linear part of the matrix, ``(3, 3)``, float64."""
    return _matrix(g)[:3, :3]


def _matrix(g: Element) -> Tensor:
    """Return the matrix of what moves space; colours leave it alone."""
    parts = g.group.parts(g) if isinstance(g.group, Product) else (g,)
    return next(part.matrix() for part in parts if isinstance(part.group, SpatialGroup))


def _go(g: Element, place: Tensor) -> Tensor:
    """Move a place by the matrix alone."""
    matrix = _matrix(g)
    moved = matrix[:3, :3] @ place
    return moved + matrix[:3, 3] if len(matrix) == 4 else moved


def _check_voxels(g: Element, shape: Shape, spacing: Spacing, act: Act) -> None:
    """Move single voxels by an element that keeps the grid: a corner, and one at an edge."""
    frame = moved_frame(g, shape, spacing)
    for index in ((0, 0, 0), (1, 2, 0)):
        steps = [(i + 0.5 - s / 2) * d for i, s, d in zip(index, shape, spacing, strict=True)]
        place = torch.tensor(steps[::-1], dtype=torch.float64)
        for kind, mark in SPACE_MARKS.items():
            moved = act(g, mark.make(place, shape, spacing, 0.0))
            law = f"{kind.__name__}: voxel {index} of {shape}, spacing {spacing}, goes where the matrix says"
            require(law, errors(mark.find(moved), _go(g, place)), 1e-5, on=repr(g))
            if isinstance(moved, (Volume, LabelVolume)):
                found = tuple(moved.data.shape[-3:]), tuple(moved.spacing)
                law = f"{kind.__name__}: {shape}, {spacing} becomes {frame[0]}, {frame[1]}"
                require_true(law, found == frame, f"it became {found}; {g!r}")


def _check_spot(g: Element, shape: Shape, spacing: Spacing, act: Act) -> None:
    """Move a smooth spot by any element: its centre of mass must follow."""
    place = torch.tensor([4.0, -3.0, 2.5], dtype=torch.float64)
    for kind, mark in SPACE_MARKS.items():
        moved = act(g, mark.make(place, shape, spacing, 2.0))
        law = f"{kind.__name__}: a spot in {shape}, spacing {spacing}, goes where the matrix says"
        require(law, errors(mark.find(moved), _go(g, place)), mark.slack, on=repr(g))
        if isinstance(moved, (Volume, LabelVolume)):
            kept = tuple(moved.data.shape[-3:]) == shape and tuple(moved.spacing) == spacing
            require_true(f"{kind.__name__}: shape and spacing stay", kept, str(moved.spacing))


def _check_arrows(g: Element, act: Act) -> None:
    """Move what has a direction: it must be what the arrows, moved as differences of points, make."""
    arrows = torch.tensor([[0.8, -0.3, 0.4], [0.1, 0.9, -0.7]], dtype=torch.float64)
    turned = arrows @ _rotation(g).mT
    start = torch.tensor([[2.0, 5.0, -1.0]], dtype=torch.float64)
    ends = act(g, Cloud(torch.cat([start, start + arrows]))).data
    require("Cloud: differences turn by the matrix", errors(ends[1:] - ends[:1], turned), 1e-9, on=[g, g])
    for kind, make in ARROWS.items():
        found, expected = act(g, make(*arrows)).data, make(*turned).data
        law = f"{kind.__name__}: what is made of two arrows turns with them"
        require(law, errors(found[None], expected[None]), 1e-9, on=[g])


def _check_boxes(g: Element, act: Act) -> None:
    """Move a box: its corners must be those of the box, moved as points; its axes must stay a rotation."""
    axes = torch.linalg.qr(torch.tensor([[1.0, 0.2, 0.5], [0.3, -1.0, 0.1], [0.2, 0.4, 1.0]]).double())[0]
    axes = axes * torch.linalg.det(axes)
    numbers = torch.tensor([1.0, -2.0, 0.5, 3.0, 1.5, 0.7], dtype=torch.float64)
    box = OrientedBoxes3D(torch.cat([numbers, axes.flatten()]).unsqueeze(0))
    moved = act(g, box)
    expected = act(g, Cloud(box_corners(box)[0])).data
    apart = (box_corners(moved)[0].unsqueeze(1) - expected).norm(dim=-1).amin(1)
    require("OrientedBoxes3D: corners go where their points go", apart.amax().view(1), 1e-9, on=[g])
    determinant = torch.linalg.det(moved.data[0, 6:].view(3, 3))
    require("OrientedBoxes3D: axes stay a rotation", (determinant - 1).abs().view(1), 1e-9, on=[g])


def box_corners(x: OrientedBoxes3D) -> Tensor:
    """Return the eight corners of every box, shape ``(…, N, 8, 3)``, float64."""
    data = x.data.double()
    signs = torch.tensor(list(itertools.product((-0.5, 0.5), repeat=3)), dtype=torch.float64)
    local = signs * data[..., None, 3:6]  # (…, N, 8, 3)
    axes = data[..., 6:].reshape(*data.shape[:-1], 3, 3)
    corners: Tensor = local @ axes.mT + data[..., None, :3]
    return corners


def _spot(place: Tensor, shape: Shape, spacing: Spacing, width: float) -> Tensor:
    """Draw a mark, ``(D, H, W)``, float64."""
    squared = torch.zeros(shape, dtype=torch.float64)
    for axis, (coordinates, centre) in enumerate(zip(_places(shape, spacing), place.flip(0), strict=True)):
        view = [1, 1, 1]
        view[axis] = -1
        squared = squared + (coordinates - centre).view(view) ** 2
    return torch.exp(-squared / (2 * width**2)) if width else (squared < 0.01).double()


def _mass(weight: Tensor, spacing: Spacing) -> Tensor:
    """Return the centre of mass of ``(…, D, H, W)`` from the middle, ``(x, y, z)``."""
    weight = weight.double().abs()
    weight = weight.reshape(-1, *weight.shape[-3:]).sum(0)
    shape = (weight.shape[0], weight.shape[1], weight.shape[2])
    z, y, x = _places(shape, spacing)
    found = [(weight.sum((0, 1)) * x).sum(), (weight.sum((0, 2)) * y).sum(), (weight.sum((1, 2)) * z).sum()]
    return torch.stack(found) / weight.sum()


def _places(shape: Shape, spacing: Spacing) -> list[Tensor]:
    """Return the voxel centres along D, H, W, from the middle."""
    return [
        (torch.arange(side, dtype=torch.float64) + 0.5 - side / 2) * step
        for side, step in zip(shape, spacing, strict=True)
    ]


def _box_at(place: Tensor) -> OrientedBoxes3D:
    unit = torch.eye(3, dtype=torch.float64)
    return OrientedBoxes3D(torch.cat([place, torch.ones(3, dtype=torch.float64), unit.flatten()])[None])


register_space_mark(Cloud, SpaceMark(lambda place, *_: Cloud(place[None]), lambda x: x.data[0]))
register_space_mark(
    Volume,
    SpaceMark(
        lambda place, shape, spacing, width: Volume(_spot(place, shape, spacing, width)[None], spacing),
        lambda x: _mass(x.data, x.spacing),
    ),
)
register_space_mark(
    LabelVolume,
    SpaceMark(
        lambda place, shape, spacing, width: LabelVolume(_spot(place, shape, spacing, width) > 0.1, spacing),
        lambda x: _mass(x.data, x.spacing),
        slack=0.2,
    ),
)
register_space_mark(
    OrientedBoxes3D, SpaceMark(lambda place, *_: _box_at(place), lambda x: box_corners(x)[0].mean(0))
)
register_arrows(Vectors, lambda a, b: Vectors(a))
register_arrows(PointVectors, lambda a, b: PointVectors(b))
register_arrows(PseudoVectors, lambda a, b: PseudoVectors(torch.linalg.cross(a, b)))
register_arrows(Tensors, lambda a, b: Tensors(torch.outer(a, b)))
register_arrows(Rows, lambda a, b: Rows(torch.stack([a @ a, b @ b])))
register_arrows(Pairs, lambda a, b: Pairs(torch.stack([a, b]) @ torch.stack([a, b]).mT))
