"""Data sets of point clouds, whatever they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from .._checks import check_choice


class CloudSet(Dataset[tuple[Tensor, int]]):
    """Point clouds of one size with a class each, and perhaps parts and normals; z points up.

    Items are (points, label).

    Args:
        points: Positions, shape ``(M, N, 3)``.
        labels: Classes, shape ``(M,)``.
        class_names: A name for each class.
        parts: The part that each point belongs to, shape ``(M, N)``, numbered over all classes.
        normals: Unit normals, shape ``(M, N, 3)``.
        part_names: A name for each part.
        parts_of: The parts that occur in a class: class name to part numbers.
    """

    def __init__(
        self,
        points: Tensor,
        labels: Tensor,
        class_names: Sequence[str],
        *,
        parts: Tensor | None = None,
        normals: Tensor | None = None,
        part_names: Sequence[str] = (),
        parts_of: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        if points.ndim != 3 or points.shape[-1] != 3:
            raise ValueError(f"points must have shape (M, N, 3), got {tuple(points.shape)}")
        for name, got, expected in (
            ("labels", labels, points.shape[:1]),
            ("parts", parts, points.shape[:2]),
            ("normals", normals, points.shape),
        ):
            if got is not None and got.shape != expected:
                raise ValueError(
                    f"{name} must have shape {tuple(expected)} to match points, got {tuple(got.shape)}"
                )
        self.points, self.labels, self.parts, self.normals = points, labels, parts, normals
        self.class_names, self.part_names = list(class_names), list(part_names)
        self.parts_of = {name: list(found) for name, found in (parts_of or {}).items()}

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.points[index], int(self.labels[index])


def normalized(points: Tensor) -> Tensor:
    """Return clouds ``(…, N, 3)`` with their centroid at the origin and their farthest point at distance 1.

    Points that all coincide stay at the origin; a cloud without points stays empty.
    """
    if not points.shape[-2]:
        return points
    centred = points - points.mean(-2, keepdim=True)
    radius = centred.norm(dim=-1).amax(-1)[..., None, None]
    return centred / torch.where(radius > 0, radius, torch.ones_like(radius))


def upended(points: Tensor, up: str) -> Tensor:
    """Turn vectors ``(…, 3)`` for which ``up`` ("y" or "z") points up, so that z does."""
    check_choice("up", up, ("y", "z"))
    if up == "z":
        return points
    x, y, z = points.unbind(-1)
    return torch.stack([x, -z, y], -1)
