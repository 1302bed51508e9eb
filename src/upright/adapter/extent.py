"""Pictures that fill the top left corner of a canvas of fixed size: turned where they lie, padded again.

Models of a fixed input size (Segment Anything) see every picture in the top left corner of one canvas, padded
below and to the right. A picture that is turned as it lies there has its padding elsewhere, so only the part
that holds the picture is moved; where its sides swap, the rest is transposed. On coarser grids, such as masks
of low resolution, the part is rounded to whole cells, so that it is off by half a cell at most.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..actions import act
from ..groups.base import Element
from ..groups.planar import PlanarGroup
from ..groups.product import planar_part
from ..kinds import Boxes, Invariant, Kind, OrientedBoxes, Points
from .spec import Size


def read_extents(given: Any, sizes: list[Size], name: Any = "sizes") -> list[Size]:
    """Read heights and widths of the pictures on their canvases.

    Args:
        given: Shape ``(B, 2)``: a tensor, an array or lists.
        sizes: Canvases of the pictures.
        name: Name of the argument, for errors.

    Raises:
        ValueError: If shapes do not fit, or a picture is empty or larger than its canvas.
    """
    extents = torch.as_tensor(given)
    if tuple(extents.shape) != (len(sizes), 2):
        raise ValueError(
            f"{name} must have shape ({len(sizes)}, 2), a height and a width for each picture, "
            f"got {tuple(extents.shape)}"
        )
    read = [(int(height), int(width)) for height, width in extents.tolist()]
    for i, (extent, size) in enumerate(zip(read, sizes, strict=True)):
        if not (0 < extent[0] <= size[0] and 0 < extent[1] <= size[1]):
            raise ValueError(
                f"{name} must lie within the canvas {size[0]}×{size[1]}, got {extent[0]}×{extent[1]} "
                f"for picture {i}"
            )
    return read


def turned_extents(g: Element, extents: list[Size]) -> list[Size]:
    """Return heights and widths after the move."""
    return [(w, h) if odd else (h, w) for (h, w), odd in zip(extents, _swaps(g), strict=True)]


def turn_within(g: Element, kind: Kind, extents: list[Size], canvas: Size) -> Kind:
    """Move what lies on each picture, within the part of the canvas that the picture fills.

    Args:
        g: One element a picture, shape ``(B,)``.
        kind: Something on the canvas, leading axis ``B``; grids may be coarser than the canvas.
        extents: Height and width of each picture before the move.
        canvas: Height and width of the canvas.

    Raises:
        ValueError: If the group resamples and a picture is not square.
    """
    if isinstance(kind, Invariant) or not extents:
        return kind
    group = g.group
    if not group.is_exact_on_grid:
        uneven = next((e for e in extents if e[0] != e[1]), None)
        if uneven is not None:
            raise ValueError(
                f"{group} turns by more than quarter turns and needs square pictures, got "
                f"{uneven[0]}×{uneven[1]}; pad or resize them to a square first"
            )
    rows = []
    for i, (extent, odd) in enumerate(zip(extents, _swaps(g), strict=True)):
        row = kind.replace(data=kind.data[i : i + 1])
        if isinstance(kind, (Boxes, OrientedBoxes, Points)):
            rows.append(act(g[i : i + 1], row.replace(size=extent)).data)
        else:
            rows.append(_turn_grid(g[i : i + 1], row, extent, canvas, odd))
    return kind.replace(data=torch.cat(rows))


def _turn_grid(g: Element, kind: Kind, extent: Size, canvas: Size, odd: bool) -> Tensor:
    """Turn the filled part of one grid, and transpose the rest with it."""
    data = kind.data
    height, width = (
        max(1, round(side * cells / whole))
        for side, cells, whole in zip(extent, data.shape[-2:], canvas, strict=True)
    )
    moved: Tensor = act(g, kind.replace(data=data[..., :height, :width])).data
    if moved.shape == data.shape and (height, width) == tuple(data.shape[-2:]):
        return moved
    turned: Tensor = (data.transpose(-1, -2) if odd else data).clone()
    turned[..., : moved.shape[-2], : moved.shape[-1]] = moved
    return turned


def _swaps(g: Element) -> list[bool]:
    """Say which elements swap height and width."""
    plane = planar_part(g)
    if plane is None:
        return [False] * len(g)
    assert isinstance(plane.group, PlanarGroup)
    turns = plane.group.quarter_turns(plane)  # -1 where the angle is none
    odd: list[bool] = ((turns == 1) | (turns == 3)).tolist()
    return odd
