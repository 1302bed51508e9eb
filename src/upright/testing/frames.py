"""Whether all kinds agree about where things go: one marked pixel, seen as every kind."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..actions import act as library_act
from ..actions import registered_kinds
from ..groups.base import Element, FiniteGroup, Group
from ..groups.colour import ColourGroup
from ..groups.planar import Cyclic, PlanarGroup
from ..groups.product import Product, factors_of, planar_part
from ..groups.projective import PlaneMap, is_similarity, plane_homography
from ..kinds import Boxes, Image, Invariant, Kind, Mask, OrientedBoxes, Points, RegularField, VectorField
from .actions import Act, corners
from .examples import moves_space
from .space import ARROWS, SPACE_MARKS, check_space
from .tolerances import errors, require, require_true

Size = tuple[int, int]


@dataclass(frozen=True)
class Mark:
    """A mark on a canvas, made as a kind and found again in it.

    Attributes:
        make: ``make(centre, size, group, width)`` draws the mark at ``centre`` = ``(x, y)`` in pixels,
            without batch axis: a single pixel if ``width`` is 0, else a smooth spot of that standard
            deviation.
        find: ``find(x)`` returns where the mark is, ``(x, y)`` in pixels, shape ``(2,)`` or ``(N, 2)``.
        slack: How far, in pixels, a smooth spot may be found from its place after a turn that resamples.
    """

    make: Callable[[Tensor, Size, Group, float], Kind]
    find: Callable[[Any], Tensor]
    slack: float = 0.05


MARKS: dict[type[Kind], list[Mark]] = {}
"""Marks of every kind that has a place on the canvas; add one with `register_mark`."""


def register_mark(kind: type[Kind], mark: Mark) -> None:
    """Register how a mark is drawn as a kind and found again, so that `assert_consistent` covers the kind."""
    MARKS.setdefault(kind, []).append(mark)


def assert_consistent(
    group: Group, *, sizes: tuple[Size, ...] = ((8, 8), (7, 7), (5, 8)), act: Act = library_act
) -> None:
    """Check that all kinds agree about where a marked pixel goes, and that this is where the matrix says.

    A pixel, its point, its one-pixel box (every format), its oriented box, its mask and its fields land on
    the same place; quarter turns map the canvas to itself; arrows of fields, points and oriented boxes turn
    alike; a box becomes the hull of its four moved corners; regular fields permute their channels as the
    group says. Under maps of the plane beyond turns and flips, arrows follow the derivative of the map at
    their place, and oriented boxes scale with it.

    In space: a voxel, its point, its label and its box land on the same place, whatever the spacing; vectors,
    pseudo-vectors and tensors turn like what they are made of; boxes have the corners that their points have.

    Args:
        group: A group of the plane, of colours, a product of both, or a group of space, also with colours.
        sizes: Canvases ``(height, width)`` for quarter turns and flips; those that are not square are used
            with them only. Not used in space.
        act: The function under test.

    Raises:
        AssertionError: If kinds disagree, or a kind that the group moves has no mark.
        TypeError: If the group is neither one of the plane nor of space.
    """
    if moves_space(group):
        check_space(group, act)
        return
    factors = factors_of(group)
    if not all(isinstance(factor, (PlanarGroup, PlaneMap, ColourGroup)) for factor in factors):
        raise TypeError(f"group must be a group of the plane or of space, got {group}")
    covered = {*MARKS, *SPACE_MARKS, *ARROWS}
    missing = [
        k.__name__ for k in registered_kinds(group) if k not in covered and not issubclass(k, Invariant)
    ]
    require_true(
        f"{group}: every kind has a mark", not missing, f"{missing} have none; add one with register_mark"
    )
    if isinstance(group, FiniteGroup):
        _check_channels(group, act)
    if isinstance(group, FiniteGroup) and group.order <= 48:
        elements = group.elements()
    else:
        elements = group.sample(16, generator=torch.Generator().manual_seed(0))
    if any(isinstance(factor, PlaneMap) for factor in factors):
        for i, g in enumerate(elements):
            _check_map(g, ((96, 96), (95, 95), (80, 104))[i % 3 if group in factors else 0], act)
        return
    for g in elements:
        plane = _plane(g)
        assert isinstance(plane.group, PlanarGroup)
        if int(plane.group.quarter_turns(plane)) >= 0:
            for size in sizes:
                _check_pixels(g, size, act)
                _check_shapes(g, size, act)
        elif any(height == width for height, width in sizes):
            _check_spots(g, act)
            _check_shapes(g, (48, 48), act)


def _marks(group: Group) -> dict[type[Kind], list[Mark]]:
    """Return the marks of the kinds that the group can move: regular fields need a finite one."""
    return {k: m for k, m in MARKS.items() if k is not RegularField or isinstance(group, FiniteGroup)}


def _plane(g: Element) -> Element:
    """Return what an element does to the plane; colours leave it alone."""
    part = planar_part(g)
    return Cyclic(1).identity(*g.shape) if part is None else part


def _expected(g: Element, centre: Tensor, size: Size) -> tuple[Tensor, Size]:
    """Move a point by the matrix about the middle of the canvas; the canvas swaps sides with an odd turn."""
    matrix = _plane(g).matrix()
    swapped = float(matrix[0, 0].abs()) < 1e-9
    moved = (size[1], size[0]) if swapped else size
    old, new = (torch.tensor([s[1] / 2, s[0] / 2], dtype=torch.float64) for s in (size, moved))
    return (centre - old) @ matrix.mT + new, moved


def _check_pixels(g: Element, size: Size, act: Act) -> None:
    """Move single pixels by an element that keeps the grid: corners, an edge and one inside."""
    height, width = size
    for row, column in {(0, 0), (0, width - 1), (height - 1, 0), (1, 2), (height - 1, width // 2)}:
        centre = torch.tensor([column + 0.5, row + 0.5], dtype=torch.float64)
        expected, canvas = _expected(g, centre, size)
        for kind, marks in _marks(g.group).items():
            for mark in marks:
                moved = act(g, mark.make(centre, size, g.group, 0.0))
                place = f"{kind.__name__}: pixel {row, column} of {height}×{width} goes where the matrix says"
                require(
                    place, errors(mark.find(moved), expected.expand_as(mark.find(moved))), 1e-5, on=repr(g)
                )
                found = tuple(getattr(moved, "size", canvas))
                require_true(
                    f"{kind.__name__}: the canvas {size} becomes {canvas}", found == canvas, str(found)
                )


def _check_spots(g: Element, act: Act) -> None:
    """Move smooth spots by any element: their centre of mass must follow."""
    for side, x, y in ((48, 30.0, 21.0), (47, 17.5, 28.5)):
        centre = torch.tensor([x, y], dtype=torch.float64)
        expected, _ = _expected(g, centre, (side, side))
        for kind, marks in _marks(g.group).items():
            for mark in marks:
                found = mark.find(act(g, mark.make(centre, (side, side), g.group, 2.5)))
                law = f"{kind.__name__}: a spot at {x, y} of {side}×{side} goes where the matrix says"
                require(law, errors(found, expected.expand_as(found)), mark.slack, on=repr(g))


def _check_shapes(g: Element, size: Size, act: Act) -> None:
    """Move arrows and boxes: they must follow their points."""
    middle = torch.tensor([size[1] / 2, size[0] / 2], dtype=torch.float64)
    arrow = torch.tensor([0.8, -0.3], dtype=torch.float64)
    turned = _plane(g).matrix() @ arrow
    ends = act(g, Points(torch.stack([middle, middle + arrow]), size=size)).data
    require("Points: differences turn by the matrix", errors(ends[1] - ends[0], turned), 1e-9, on=repr(g))
    field = act(g, VectorField(arrow.view(2, 1, 1).expand(2, *size).contiguous())).data
    inside = field[:, field.shape[1] // 2, field.shape[2] // 2]
    require("VectorField: vectors turn like differences of points", errors(inside, turned), 1e-6, on=repr(g))
    angle = math.atan2(-float(arrow[1]), float(arrow[0]))  # counter-clockwise on a canvas whose y points down
    box = torch.cat([middle, torch.tensor([3.0, 1.0, angle], dtype=torch.float64)]).unsqueeze(0)
    moved = act(g, OrientedBoxes(box, size=size)).data[0]
    across = moved[4].cos() * turned[1] + moved[4].sin() * turned[0]
    require("OrientedBoxes: sides turn like differences of points", across.abs().view(1), 1e-9, on=repr(g))
    _check_boxes(g, size, act)


def _check_boxes(g: Element, size: Size, act: Act) -> None:
    """Move a box of every format: it must become the hull of its corners, moved as points."""
    middle = torch.tensor([size[1] / 2, size[0] / 2], dtype=torch.float64)
    low, high = middle - torch.tensor([1.5, 2.0]), middle + torch.tensor([2.0, 0.5])
    quad = torch.stack([low, torch.stack([high[0], low[1]]), high, torch.stack([low[0], high[1]])])
    quad = act(g, Points(quad, size=size)).data
    hull = torch.cat([quad.amin(0), quad.amax(0)])
    for box_kind in _box_formats(low, high, size):
        found = torch.cat(corners(act(g, box_kind)), -1)[0]
        law = (
            f"Boxes ({box_kind.format}, normalized={box_kind.normalized}): the hull of the four moved corners"
        )
        require(law, errors(found, hull), 1e-6, on=repr(g))


def _homography(g: Element) -> Tensor:
    """Return what an element does to the plane, ``(3, 3)``, in half-sides from the centre."""
    matrix = torch.eye(3, dtype=torch.float64)
    for part in g.group.parts(g) if isinstance(g.group, Product) else (g,):
        if isinstance(part.group, (PlanarGroup, PlaneMap)):
            matrix = matrix @ plane_homography(part)
    return matrix


def _check_map(g: Element, size: Size, act: Act) -> None:
    """Move marks and arrows by a projective map: they must go where its matrix says."""
    matrix, half = _homography(g), min(size) / 2
    middle = torch.tensor([size[1] / 2, size[0] / 2], dtype=torch.float64)
    similar = bool(is_similarity(matrix))

    def go(matrix: Tensor, place: Tensor) -> Tensor:
        moved = matrix @ torch.cat([(place - middle) / half, torch.ones(1, dtype=torch.float64)])
        return moved[:2] / moved[2] * half + middle

    place = middle + torch.tensor([7.0, -5.0])
    expected = go(matrix, place)
    for kind, marks in _marks(g.group).items():
        for mark in marks if similar or kind is not OrientedBoxes else ():
            moved = act(g, mark.make(place, size, g.group, 2.5))
            law = f"{kind.__name__}: a spot at {place.tolist()} of {size} goes where the matrix says"
            slack = 0.55 if moved.data.dtype == torch.bool else mark.slack  # labels move by whole pixels
            slack = slack if bool((matrix[2, :2] == 0).all()) else 3 * slack  # a spot's middle bends away
            require(law, errors(mark.find(moved), expected.expand_as(mark.find(moved))), slack, on=repr(g))
            found = tuple(getattr(moved, "size", size))
            require_true(f"{kind.__name__}: the canvas {size} stays", found == size, str(found))
    arrow = torch.tensor([0.8, -0.3], dtype=torch.float64)
    field = act(g, VectorField(arrow.view(2, 1, 1).expand(2, *size).contiguous())).data
    for row, column in ((size[0] // 2, size[1] // 2), (size[0] // 2 - 9, size[1] // 2 + 11)):
        source = go(torch.linalg.inv(matrix), torch.tensor([column + 0.5, row + 0.5], dtype=torch.float64))
        pushed = (go(matrix, source + 1e-4 * arrow) - go(matrix, source - 1e-4 * arrow)) / 2e-4
        law = "VectorField: vectors follow the derivative of the map"
        require(law, errors(field[:, row, column], pushed), 1e-6, on=repr(g))
    if similar:
        angle = math.atan2(-float(arrow[1]), float(arrow[0]))
        box = torch.cat([place, torch.tensor([3.0, 1.0, angle], dtype=torch.float64)]).unsqueeze(0)
        moved = act(g, OrientedBoxes(box, size=size)).data[0]
        pushed = go(matrix, place + arrow) - expected
        across = moved[4].cos() * pushed[1] + moved[4].sin() * pushed[0]
        require("OrientedBoxes: sides turn like arrows", across.abs().view(1), 1e-9, on=repr(g))
        ratio = pushed.norm() / arrow.norm()
        require(
            "OrientedBoxes: sides scale like arrows", errors(moved[2:4], ratio * box[0, 2:4]), 1e-9, repr(g)
        )
    _check_boxes(g, size, act)


def _check_channels(group: FiniteGroup, act: Act) -> None:
    """Channel ``h`` of a regular field must become channel ``g @ h``."""
    for g in group.elements() if group.order <= 48 else group.sample(48):
        for h in group.elements()[:8]:
            field = torch.zeros(1, group.order, 6, 6, dtype=torch.float64)
            field[0, int(h.value)] = 1.0
            found = act(g, RegularField(field)).data[0, :, 3, 3].argmax()
            require_true(
                f"RegularField: {g} takes channel {int(h.value)} to {int((g @ h).value)}",
                int(found) == int((g @ h).value),
                f"it went to {int(found)}",
            )


def _spot(centre: Tensor, size: Size, width: float) -> Tensor:
    """Draw a mark, ``(H, W)``, float64."""
    rows = torch.arange(size[0], dtype=torch.float64).view(-1, 1) + 0.5 - centre[1]
    columns = torch.arange(size[1], dtype=torch.float64) + 0.5 - centre[0]
    squared = rows**2 + columns**2
    return torch.exp(-squared / (2 * width**2)) if width else (squared < 0.1).double()


def _mass(weight: Tensor) -> Tensor:
    """Return the centre of mass of ``(…, H, W)`` in pixels, ``(x, y)``."""
    weight = weight.double().abs()
    weight = weight.reshape(-1, *weight.shape[-2:]).sum(0)
    rows = torch.arange(weight.shape[0], dtype=torch.float64) + 0.5
    columns = torch.arange(weight.shape[1], dtype=torch.float64) + 0.5
    return torch.stack([(weight.sum(0) * columns).sum(), (weight.sum(1) * rows).sum()]) / weight.sum()


def _make_regular(centre: Tensor, size: Size, group: Group, width: float) -> RegularField:
    order = group.order if isinstance(group, FiniteGroup) else 1
    data = torch.zeros(1, order, *size, dtype=torch.float64)
    data[0, 0] = _spot(centre, size, width)
    return RegularField(data)


def _box_formats(low: Tensor, high: Tensor, size: Size) -> list[Boxes]:
    """Return one box in all formats, in pixels and as fractions."""
    data = {
        "xyxy": torch.cat([low, high]),
        "xywh": torch.cat([low, high - low]),
        "cxcywh": torch.cat([(low + high) / 2, high - low]),
    }
    sides = torch.tensor([size[1], size[0]] * 2, dtype=torch.float64)
    made: list[Boxes] = []
    for name, box in data.items():
        made.append(Boxes(box.unsqueeze(0), size=size, format=name))  # type: ignore[arg-type]
        made.append(made[-1].replace(data=(box / sides).unsqueeze(0), normalized=True))
    return made


def _box_mark(number: int) -> Mark:
    def make(centre: Tensor, size: Size, group: Group, width: float) -> Boxes:
        return _box_formats(centre - 0.5, centre + 0.5, size)[number]

    return Mark(make, lambda x: torch.stack(corners(x)).mean(0))


register_mark(
    Image,
    Mark(
        lambda centre, size, group, width: Image(_spot(centre, size, width)[None]),
        lambda x: _mass(x.data - x.data.median()),  # colours may shift all pixels alike
    ),
)
register_mark(
    Mask, Mark(lambda centre, size, group, width: Mask(_spot(centre, size, width)), lambda x: _mass(x.data))
)
register_mark(
    Mask,
    Mark(
        lambda centre, size, group, width: Mask(_spot(centre, size, width) > 0.01),
        lambda x: _mass(x.data),
        slack=0.2,
    ),
)
register_mark(
    VectorField,
    Mark(
        lambda centre, size, group, width: VectorField(
            _spot(centre, size, width) * torch.tensor([3.0, 4.0])[:, None, None]
        ),
        lambda x: _mass(x.data.norm(dim=-3)),
    ),
)
register_mark(RegularField, Mark(_make_regular, lambda x: _mass(x.data)))
register_mark(
    Points, Mark(lambda centre, size, group, width: Points(centre[None], size=size), lambda x: x.data[0])
)
register_mark(
    Points,
    Mark(
        lambda centre, size, group, width: Points(
            (centre / torch.tensor([size[1], size[0]])).unsqueeze(0), size=size, normalized=True
        ),
        lambda x: x.data[0] * torch.tensor([x.size[1], x.size[0]]),
    ),
)
register_mark(
    OrientedBoxes,
    Mark(
        lambda centre, size, group, width: OrientedBoxes(
            torch.cat([centre, torch.tensor([1.0, 1.0, 0.3], dtype=torch.float64)]).unsqueeze(0), size=size
        ),
        lambda x: x.data[0, :2],
    ),
)
for _number in range(6):
    register_mark(Boxes, _box_mark(_number))
