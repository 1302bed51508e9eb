"""Canvas policies: how pictures that stand upright in different shapes share a model call.

In a batch of H×W pictures those that lie on their side are W×H once upright. Turning is always exact; the
policy only says how the model is then called:

``bucket``
    one call a shape. Every picture is seen exactly as if it had come alone and upright.
``pad``
    one call: pictures are padded below and to the right to the common canvas; results are cut back.
``stretch``
    one call: pictures are resized to the square of the common canvas; results are resized back.

``pad`` and ``stretch`` change nothing where all upright pictures of a batch have one shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..kinds import Boxes, Invariant, Kind, OrientedBoxes, Points, VectorField
from .spec import Size

Canvas = Literal["bucket", "pad", "stretch"]
CANVASES: tuple[Canvas, ...] = ("bucket", "pad", "stretch")


def place(pictures: Tensor, size: Size, canvas: Canvas) -> Tensor:
    """Put upright pictures ``(B, C, h, w)`` on a common canvas."""
    height, width = pictures.shape[-2:]
    if (height, width) == size:
        return pictures
    if canvas == "pad":
        return pad_to(pictures, size)
    antialias = pictures.is_floating_point()
    return F.interpolate(pictures, size, mode="bilinear", align_corners=False, antialias=antialias)


def pad_to(x: Tensor, size: Size) -> Tensor:
    """Pad ``(…, h, w)`` with zeros below and to the right."""
    return F.pad(x, (0, size[1] - x.shape[-1], 0, size[0] - x.shape[-2]))


def unplace(kind: Kind, picture: Size, size: Size, canvas: Canvas) -> Kind:
    """Take a result on the common canvas ``size`` back to the upright canvas ``picture``."""
    if picture == size or isinstance(kind, Invariant):
        return kind
    if canvas == "stretch" and isinstance(kind, (OrientedBoxes, VectorField)):
        raise ValueError(
            f"canvas='stretch' cannot take {type(kind).__name__} back; use canvas='bucket' or 'pad'"
        )
    scale = (picture[0] / size[0], picture[1] / size[1]) if canvas == "stretch" else (1.0, 1.0)
    data: Any = kind.data
    if isinstance(kind, (Points, Boxes, OrientedBoxes)):
        normalized = getattr(kind, "normalized", False)
        factors = [scale[1], scale[0]]
        if normalized:
            factors = [1.0, 1.0] if canvas == "stretch" else [size[1] / picture[1], size[0] / picture[0]]
        columns = 4 if isinstance(kind, Boxes) else 2
        moved = data[..., :columns] * numbers(factors * (columns // 2), data)
        return kind.replace(data=torch.cat([moved, data[..., columns:]], -1), size=picture)
    rows, columns = (scaled(picture[axis], data.shape[axis - 2], size[axis]) for axis in (0, 1))
    if canvas == "pad":
        return kind.replace(data=data[..., :rows, :columns])
    return kind.replace(data=resize_grid(data, rows, columns))


def numbers(values: Sequence[float], like: Tensor) -> Tensor:
    """Return numbers, which may be symbols of a graph, as a tensor of the dtype and device of another."""
    if not any(isinstance(v, (torch.SymInt, torch.SymFloat)) for v in values):
        return like.new_tensor(values)
    return torch.stack([like.new_full((), v) for v in values])


def scaled(length: int, cells: int, side: int) -> int:
    """Return how many of a line's cells, which cover ``side`` pixels, cover ``length`` of them, rounded.

    Raises:
        ValueError: If that cannot be told in a graph, which does not know the numbers yet.
    """
    if not any(isinstance(n, torch.SymInt) for n in (length, cells, side)):
        return round(length * cells / side)
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    if not statically_known_true(cells == side):
        raise ValueError(
            "results on a coarser grid than the picture cannot be taken off its square in a graph of any "
            "size; export with a fixed size"
        )
    return length


def resize_grid(data: Tensor, rows: int, columns: int) -> Tensor:
    """Resize ``(…, h, w)``: numbers by interpolation, labels by the nearest cell."""
    flat = data.reshape(1, -1, *data.shape[-2:])
    if data.is_floating_point():
        resized = F.interpolate(flat, (rows, columns), mode="bilinear", align_corners=False, antialias=True)
    else:
        resized = F.interpolate(flat.double(), (rows, columns), mode="nearest-exact").to(data.dtype)
    return resized.reshape(*data.shape[:-2], rows, columns)
