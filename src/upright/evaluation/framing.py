"""Targets follow what the preprocessing does to their picture: a cut, and another size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..adapter.spec import Size


@dataclass(frozen=True)
class Frame:
    """The part of a picture that a model sees, and at what size.

    Attributes:
        left: Left edge in pixels of the picture.
        top: Upper edge.
        width: Width in pixels of the picture.
        height: Height.
        size: What it becomes, (height, width).
    """

    left: float
    top: float
    width: float
    height: float
    size: Size

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels of the result a pixel of the picture, in x and y."""
        return self.size[1] / self.width, self.size[0] / self.height


def frame_of(preprocess: Any, size: Size, made: tuple[int, ...]) -> Frame:
    """Return what a preprocessing shows of a picture.

    Args:
        preprocess: The preprocessing; None: the picture is taken as it is.
        size: The picture's (height, width).
        made: Shape of what was made of it, ``(C, H, W)``.

    Raises:
        ValueError: If it changes the size in an unknown way.
    """
    from ..integrations.preprocess import SquarePreprocess

    height, width = size
    if isinstance(preprocess, SquarePreprocess):
        side = preprocess.crop * min(height, width)
        return Frame((width - side) / 2, (height - side) / 2, side, side, (preprocess.size,) * 2)
    if tuple(made[-2:]) != size:
        raise ValueError(
            f"the preprocessing makes {made[-2]}×{made[-1]} of a picture of {height}×{width} in a way that "
            "targets cannot follow; let it keep the size, or use upright.integrations.SquarePreprocess"
        )
    return Frame(0.0, 0.0, float(width), float(height), size)


def framed(frame: Frame, target: Any) -> Any:
    """Return a target as it lies on what the model sees; texts and numbers stay as they are."""
    if isinstance(target, Tensor) and target.ndim >= 2:
        return framed_map(frame, target)
    return framed_things(frame, target) if isinstance(target, dict) else target


def framed_map(frame: Frame, x: Tensor) -> Tensor:
    """Return maps ``(…, H, W)`` cut and resized to the nearest pixel, ``(…, *frame.size)``."""
    rows = _places(frame.top, frame.height, frame.size[0], x.shape[-2])
    columns = _places(frame.left, frame.width, frame.size[1], x.shape[-1])
    return x[..., rows, :][..., columns]


def _places(start: float, length: float, count: int, limit: int) -> Tensor:
    centres = start + (torch.arange(count, dtype=torch.float64) + 0.5) * (length / count)
    return centres.floor().long().clamp(0, limit - 1)


def framed_things(frame: Frame, target: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return boxes, masks and key points as they lie on the frame; things outside of it are left out."""
    across, down = frame.scale
    scale = torch.tensor([across, down], dtype=torch.float64)
    corner = torch.tensor([frame.left, frame.top], dtype=torch.float64)
    end = torch.tensor([frame.size[1], frame.size[0]], dtype=torch.float64)
    made = dict(target)
    inside = torch.ones(len(target["labels"]), dtype=torch.bool)
    if "boxes" in target:
        moved = ((target["boxes"].double().view(-1, 2, 2) - corner) * scale).clamp(min=0)
        moved = torch.minimum(moved, end)
        inside &= (moved[:, 1] > moved[:, 0]).all(1)
        made["boxes"] = moved.flatten(1).float()
    if "masks" in target:
        made["masks"] = framed_map(frame, target["masks"])
        inside &= made["masks"].flatten(1).any(1)
    if "keypoints" in target:
        points = target["keypoints"].double().clone()
        points[..., :2] = (points[..., :2] - corner) * scale
        out = ((points[..., :2] < 0) | (points[..., :2] > end)).any(-1)
        points[..., 2] = torch.where(out, 0.0, points[..., 2])
        made["keypoints"] = points.float()
    if "area" in target:
        made["area"] = target["area"] * across * down
    return {name: x[inside] for name, x in made.items()}
