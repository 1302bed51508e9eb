"""Pictures that are not square, under groups that resample: placed on a square, moved there, and taken back.

``pad``
    The square's side is the longer side, and the picture lies in its middle with zeros around; where the
    sides differ by an odd number, the extra row or column is below or to the right.
``stretch``
    The shorter side is stretched to the longer; turns are turns of the stretched picture.

The model sees the square upright, and results are cut or shrunk back to the picture's own canvas. Quarter
turns of the picture stay exact, with ``pad`` where the sides differ by an even number, else to one pixel.
What turns beyond the square is lost, and what was never on the picture shows in its corners.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..groups.base import Group
from ..groups.planar import PlanarGroup
from ..groups.product import factors_of
from ..groups.projective import PlaneMap
from ..kinds import Boxes, Image, Invariant, Kind, OrientedBoxes, Points, VectorField
from .call import Call, entry_data, entry_kinds, is_invariant
from .canvas import Canvas, numbers, place, resize_grid, scaled, unplace
from .result import Result
from .spec import Size, wrap
from .typed import retyped


def needs_square(group: Group) -> bool:
    """Say whether elements turn by more than quarter turns, or turn and map the plane in one resampling."""
    plane = [f for f in factors_of(group) if isinstance(f, (PlanarGroup, PlaneMap))]
    turns = any(isinstance(f, PlanarGroup) for f in plane)
    return turns and not all(f.is_exact_on_grid for f in plane)


def on_squares(call: Call, group: Group, canvas: Canvas) -> Call | None:
    """Return the call with every picture, and what lies on it, on the smallest square; None: they stand so.

    Raises:
        ValueError: If the group needs squares, the pictures are none, and the policy or the call is one that
            does not place them.
    """
    if not needs_square(group) or call.batch == 0 or not isinstance(call.pictures, (Tensor, list, tuple)):
        return None
    uneven = next((size for size in call.sizes if size[0] != size[1]), None)
    if uneven is None:
        return None
    batched = isinstance(call.pictures, Tensor)
    if canvas == "bucket" or call.extents is not None or call.canvas is not None:
        if not batched:  # pictures alone may still be turned by quarter turns
            return None
        remedy = "pad or resize them to a square first"
        if canvas == "bucket":
            remedy = "set canvas='pad' to place them on squares, or " + remedy
        raise ValueError(
            f"{group} turns by more than quarter turns and needs square pictures, got "
            f"{uneven[0]}×{uneven[1]}; {remedy}"
        )
    values: dict[int | str, Any] = {}
    for key, spec in call.moved.items():
        entry = call[key]
        if is_invariant(spec):
            continue
        if isinstance(entry, Tensor) and not isinstance(spec, Mapping):
            size = call.frame
            values[key] = retyped(placed_kind(wrap(spec, entry, size), size, canvas), entry)
        elif isinstance(entry, (list, tuple)):
            kinds = [entry_kinds(spec, e, size) for e, size in zip(entry, call.sizes, strict=True)]
            placed = [_placed_entry(kind, size, canvas) for kind, size in zip(kinds, call.sizes, strict=True)]
            values[key] = type(entry)(entry_data(kind, e) for kind, e in zip(placed, entry, strict=True))
        else:
            raise TypeError(
                f"argument {key!r} must be a tensor or a list of them, got {type(entry).__name__}"
            )
    return call.with_values(values)


def off_squares(
    result: Result, sizes: list[Size], canvas: Canvas, read: Callable[[Any, Size], Result]
) -> Result:
    """Take results on squares back to the pictures' own canvases.

    Args:
        result: The results, moved forward.
        sizes: Height and width of each picture.
        canvas: The policy by which pictures were placed.
        read: Reads the entry of one picture, where results are a list of such, on a canvas.
    """
    if isinstance(result.template, list):
        entries = []
        for entry, size in zip(result.template, sizes, strict=True):
            own = read(entry, (max(size), max(size)))
            own = replace(own, kinds=[taken_back(kind, size, canvas) for kind in own.kinds])
            entries.append(own.output())
        return replace(result, template=entries)
    if len(set(sizes)) == 1:
        return replace(result, kinds=[taken_back(kind, sizes[0], canvas) for kind in result.kinds])
    return replace(result, kinds=[_taken_apart(kind, sizes, canvas) for kind in result.kinds])


def _taken_apart(kind: Kind, sizes: list[Size], canvas: Canvas) -> Kind:
    """Take back results of pictures of different shapes, one by one."""
    if isinstance(kind, Invariant):
        return kind
    if not isinstance(kind, (Boxes, OrientedBoxes, Points)):
        raise ValueError(
            f"{type(kind).__name__} of pictures of different shapes cannot be one tensor; let the model "
            "return a list with one entry a picture"
        )
    rows = []
    for i, size in enumerate(sizes):
        row = kind.replace(data=kind.data[i : i + 1], size=(max(size), max(size)))
        rows.append(taken_back(row, size, canvas).data)
    return kind.replace(data=torch.cat(rows))


def taken_back(kind: Kind, picture: Size, canvas: Canvas) -> Kind:
    """Take what lies on the square of a picture back to the picture."""
    side = _side(picture)
    if isinstance(kind, Invariant) or (isinstance(side, int) and picture == (side, side)):
        return kind
    if canvas == "pad":
        kind = _shifted(kind, picture, back=True)
    return unplace(kind, picture, (side, side), canvas)


def _placed_entry(kinds: Any, size: Size, canvas: Canvas) -> Any:
    if isinstance(kinds, dict):
        return {name: placed_kind(kind, size, canvas) for name, kind in kinds.items()}
    return placed_kind(kinds, size, canvas)


def placed_kind(kind: Kind, picture: Size, canvas: Canvas) -> Kind:
    """Put what lies on a picture on its square."""
    side = _side(picture)
    square = (side, side)
    if isinstance(kind, Invariant) or (isinstance(side, int) and picture == square):
        return kind
    if isinstance(kind, (Points, Boxes, OrientedBoxes)):
        placed = unplace(kind, square, picture, canvas)  # the other way round: from the picture's canvas
        return placed if canvas == "stretch" else _shifted(placed, picture, back=False)
    data = kind.data
    if canvas == "pad":
        top, left = _margins(picture)
        around = (left, side - picture[1] - left, top, side - picture[0] - top)
        return kind.replace(data=F.pad(data, around))
    if isinstance(kind, VectorField):
        raise ValueError("canvas='stretch' cannot place VectorField; use canvas='pad'")
    if isinstance(kind, Image):
        flat = data.reshape(-1, *data.shape[-3:])
        return kind.replace(data=place(flat, square, canvas).reshape(*data.shape[:-2], side, side))
    return kind.replace(data=resize_grid(data, side, side))


def _margins(picture: Size) -> tuple[int, int]:
    """Return how many rows lie above, and columns left of, a picture in the middle of its square."""
    side = _side(picture)
    return (side - picture[0]) // 2, (side - picture[1]) // 2


def _side(picture: Size) -> int:
    """Return the longer side; sides may be symbols of a graph, which does not choose."""
    if isinstance(picture[0], torch.SymInt) or isinstance(picture[1], torch.SymInt):
        return torch.sym_max(*picture)
    return max(picture)


def _shifted(kind: Kind, picture: Size, *, back: bool) -> Kind:
    """Move what lies on the square between its top left corner and its middle; grids back only."""
    side, (top, left), data = _side(picture), _margins(picture), kind.data
    if isinstance(kind, (Points, Boxes, OrientedBoxes)):
        unit = side if getattr(kind, "normalized", False) else 1
        shift = numbers([left / unit, top / unit], data) * (-1 if back else 1)
        corners = isinstance(kind, Boxes) and kind.format == "xyxy"
        columns = 4 if corners else 2
        moved = data[..., :columns] + shift.repeat(columns // 2)
        return kind.replace(data=torch.cat([moved, data[..., columns:]], -1))
    rows, columns = (scaled(m, n, side) for m, n in zip((top, left), data.shape[-2:], strict=True))
    return kind.replace(data=data.roll((-rows, -columns), (-2, -1)))
