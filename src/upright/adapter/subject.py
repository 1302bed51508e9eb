"""What canonicalizers look at: pictures, point clouds, volumes; what it is called, and its shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..actions.volume import orientation
from ..groups.base import Element
from ..groups.space import SpatialGroup
from ..kinds import Image, Kind
from ..kinds_space import Cloud, Volume

PICTURE_NAMES = ("pixel_values", "images", "image", "x", "input", "inputs")


@dataclass(frozen=True)
class Subject:
    """One kind of thing that is brought upright.

    Attributes:
        noun: What it is called in messages.
        spec: The name of its kind in specifications.
        names: What arguments that hold it are usually called.
        axes: The axes of one of it.
    """

    noun: str
    spec: str
    names: tuple[str, ...]
    axes: tuple[str, ...]


SUBJECTS: dict[type[Kind], Subject] = {
    Image: Subject("picture", "image", PICTURE_NAMES, ("C", "H", "W")),
    Cloud: Subject(
        "cloud", "cloud", ("points", "pos", "positions", "cloud", "xyz", "x", "input", "inputs"), ("N", "3")
    ),
    Volume: Subject(
        "volume", "volume", ("volume", "volumes", "voxels", *PICTURE_NAMES), ("C", "D", "H", "W")
    ),
}
"""By the kind that a canonicalizer `reads`."""


def check_subject(things: Any, kind: type[Kind]) -> None:
    """Raise unless ``things`` is a batch of the kind, as a tensor or a list.

    Raises:
        TypeError: If it is neither.
        ValueError: If a shape is another.
    """
    subject = SUBJECTS[kind]
    shape, noun = ", ".join(subject.axes), subject.noun
    if isinstance(things, Tensor):
        if things.ndim != len(subject.axes) + 1:
            raise ValueError(
                f"{noun}s must have shape (B, {shape}), got {tuple(things.shape)}; add a batch axis"
            )
    elif isinstance(things, (list, tuple)):
        for i, thing in enumerate(things):
            if not isinstance(thing, Tensor) or thing.ndim != len(subject.axes):
                got = tuple(thing.shape) if isinstance(thing, Tensor) else type(thing).__name__
                raise ValueError(f"{noun} {i} of the list must be a tensor ({shape}), got {got}")
    else:
        raise TypeError(
            f"{noun}s must be a tensor (B, {shape}) or a list of ({shape}), got {type(things).__name__}"
        )


def cut_clouds(points: Any, mask: Tensor | None, arrows: Sequence[Any] = ()) -> Any:
    """Return positions without further columns, with the tips of arrows, and without rows that are padding.

    Args:
        points: Shape ``(B, N, 3 + features)``, or a list of ``(N_i, 3 + features)``.
        mask: Which rows are points, shape ``(B, N)``; None: all.
        arrows: Arrows at the points, each of shape ``(B, N, 3)``, or a list of ``(N_i, 3)``.
    """
    if not isinstance(points, Tensor):
        return [with_tips(cloud, [a[i] for a in arrows]) for i, cloud in enumerate(points)]
    if mask is None or bool(mask.all()):
        return with_tips(points, arrows)
    if mask.shape != points.shape[:2]:
        raise ValueError(
            f"the mask of points must have shape {tuple(points.shape[:2])} to match them, "
            f"got {tuple(mask.shape)}"
        )
    rows = mask.bool().repeat(1, 1 + len(arrows))
    return [cloud[row] for cloud, row in zip(with_tips(points, arrows), rows, strict=True)]


def with_tips(points: Tensor, arrows: Sequence[Tensor]) -> Tensor:
    """Return positions, and behind them the tips of arrows at them: ``(…, N · (1 + arrows), 3)``.

    Raises:
        ValueError: If there is not one arrow a point.
    """
    points = points[..., :3]
    for arrow in arrows:
        if arrow.shape != points.shape:
            raise ValueError(
                f"point_vectors must have shape {tuple(points.shape)}, one a point, got "
                f"{tuple(arrow.shape)}; use 'vectors' for others"
            )
    return torch.cat([points, *(points + arrow for arrow in arrows)], -2) if arrows else points


def volume_buckets(volumes: Any, g: Element) -> list[Tensor] | None:
    """Return which volumes take one shape when they are turned back; None: all do, or none changes shape.

    Args:
        volumes: Shape ``(B, C, D, H, W)``, or a list.
        g: Their poses, shape ``(B,)``.
    """
    group = g.group
    if not isinstance(volumes, Tensor) or not len(volumes) or not isinstance(group, SpatialGroup):
        return None
    if not group.is_exact_on_grid or len(set(volumes.shape[-3:])) == 1:
        return None
    source, _ = orientation(group.rotation(g.inverse()))
    shapes = [tuple(volumes.shape[axis - 3] for axis in axes) for axes in source.tolist()]
    index = [torch.tensor([i for i, s in enumerate(shapes) if s == shape]) for shape in sorted(set(shapes))]
    return index if len(index) > 1 else None
