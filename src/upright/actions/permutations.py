"""Permutations on everything that has members: rows change places, no entry changes."""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor

from ..groups.base import Element
from ..groups.permutations import Permutations
from ..kinds import Kind
from ..kinds_space import (
    Cloud,
    OrientedBoxes3D,
    Pairs,
    PointMask,
    PointVectors,
    PseudoVectors,
    Rows,
    Tensors,
    Vectors,
)
from .registry import register_action

K = TypeVar("K", bound=Kind)


def reorder(g: Element, x: K, *axes: int) -> K:
    """Carry what lies at ``i`` along the given axes, counted from the end, to the places of ``g``.

    Raises:
        ValueError: If an axis does not hold one entry a member.
    """
    data: Tensor = x.data
    members = g.value.shape[-1]
    if any(axis <= -data.ndim or data.shape[axis] != members for axis in axes):
        raise ValueError(
            f"{type(x).__name__}.data must have {members} members along "
            f"{' and '.join(map(str, axes))}, behind the batch, got shape {tuple(data.shape)}"
        )
    source = g.inverse().value
    for axis in axes:
        index = source.view(len(source), *[1] * (data.ndim + axis - 1), members, *[1] * (-1 - axis))
        data = data.gather(axis, index.expand(data.shape))
    return x.replace(data=data)


@register_action(Permutations, Cloud)
def reorder_cloud(g: Element, x: Cloud) -> Cloud:
    """Change the order of points."""
    return reorder(g, x, -2)


@register_action(Permutations, Vectors)
@register_action(Permutations, PointVectors)
def reorder_vectors(g: Element, x: Vectors) -> Vectors:
    """Change the order of arrows, one a member: ``(…, n, 3)``."""
    return reorder(g, x, -2)


@register_action(Permutations, PseudoVectors)
def reorder_pseudo_vectors(g: Element, x: PseudoVectors) -> PseudoVectors:
    """Change the order of axes, one a member: ``(…, n, 3)``."""
    return reorder(g, x, -2)


@register_action(Permutations, Tensors)
def reorder_tensors(g: Element, x: Tensors) -> Tensors:
    """Change the order of tensors, one a member: ``(…, n, 3, 3)``."""
    return reorder(g, x, -3)


@register_action(Permutations, OrientedBoxes3D)
def reorder_boxes(g: Element, x: OrientedBoxes3D) -> OrientedBoxes3D:
    """Change the order of boxes."""
    return reorder(g, x, -2)


@register_action(Permutations, PointMask)
def reorder_mask(g: Element, x: PointMask) -> PointMask:
    """Change the order of what says which rows are members."""
    return reorder(g, x, -1)


@register_action(Permutations, Rows)
def reorder_rows(g: Element, x: Rows) -> Rows:
    """Change the order of rows."""
    return reorder(g, x, -1 - x.inner)


@register_action(Permutations, Pairs)
def reorder_pairs(g: Element, x: Pairs) -> Pairs:
    """Change the order of rows and of columns alike."""
    return reorder(g, x, -2 - x.inner, -1 - x.inner)
