"""Poses: which are evaluated, and how those that were chosen compare with the true ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..groups.base import Element, FiniteGroup, Group
from ..groups.colour import CyclicHue, Hue, HueGroup
from ..groups.planar import FinitePlanarGroup, PlanarGroup
from ..groups.projective import Affine, Homography, PlaneMap, plane_homography
from ..groups.rotations import O2
from ..groups.subset import Subset
from .transformations import pose_grid

NEAR = math.radians(5)
"""How far a pose of a continuous group may lie from the true one and count as right: 5° of rotations, the
same number in the unit of any other group's distance."""

_EXACT = 1e-9
_PLANE = (PlanarGroup, PlaneMap)


def chosen_poses(group: Group, poses: Sequence[int] | Element | Subset | None) -> Element:
    """Return the poses that are evaluated, the identity first, none twice, shape ``(P,)``.

    Args:
        group: The group of the adapted model.
        poses: Numbers of elements of a finite group; elements of any group; a set, whose grid is taken; None:
            see `pose_grid`.

    Raises:
        TypeError: If numbers are given where the group is not finite.
    """
    if poses is None:
        given = pose_grid(group)
    elif isinstance(poses, Subset):
        given = poses.grid()
    elif isinstance(poses, Element):
        given = poses.to("cpu")
    elif isinstance(group, FiniteGroup):
        given = group.element(torch.as_tensor(list(poses), dtype=torch.long))
    else:
        raise TypeError(f"poses of {group} must be elements, got {poses!r}; make them with {group}().element")
    flat = given.reshape(-1)
    every = Element(flat.group, torch.cat([flat.group.identity(1).value, flat.value]))
    same = every.reshape(-1, 1).equals(every.reshape(1, -1))  # (P, P)
    return every[~same.tril(-1).any(1)]


def tolerance(chosen: Group, poses: Group) -> float:
    """Return how far a chosen pose may lie from the true one, in radians or the group's own unit.

    0 for a finite group at its own poses. At poses between those of a finite group of turns, or of hues, the
    nearest of them is right. See `NEAR` for continuous groups.
    """
    for finite, family in ((FinitePlanarGroup, PlanarGroup), (CyclicHue, HueGroup)):
        if isinstance(chosen, finite) and chosen != poses and isinstance(poses, family):
            return math.pi / chosen.n
    return 0.0 if isinstance(chosen, FiniteGroup) else NEAR


def errors(chosen: Element, poses: Element) -> Tensor:
    """Return how far chosen poses lie from the true ones, shape ``(N, P)``, float64.

    Args:
        chosen: Chosen poses, shape ``(N, P)``.
        poses: By what pictures were turned, shape ``(P,)``. If their group is another than that of the chosen
            ones, not both are turns or hues, and the chosen ones are no affine maps, nothing that could be
            found was done: the identity is right.
    """
    one, other = comparable(chosen, poses)
    return _apart(one, other.reshape(1, -1).expand(*one.shape))


def disagreements(chosen: Element, poses: Element) -> Tensor:
    """Return how far ``c(gx)`` lies from ``g @ c(x)``, shape ``(N, P)``, float64; as `errors`."""
    one, other = comparable(chosen, poses)
    upright = one[:, :1].expand(*one.shape)
    return _apart(one, other.reshape(1, -1).expand(*one.shape).compose(upright))


def comparable(chosen: Element, poses: Element) -> tuple[Element, Element]:
    """Return chosen and true poses as elements of one group."""
    poses = poses.to(chosen.device)
    if chosen.group == poses.group:
        return chosen, poses
    if isinstance(chosen.group, PlanarGroup) and isinstance(poses.group, PlanarGroup):
        return in_the_plane(chosen), in_the_plane(poses)
    if isinstance(chosen.group, (Affine, Homography)) and isinstance(poses.group, _PLANE):
        one, other = (Homography().element(plane_homography(g)) for g in (chosen, poses))
        return one, other
    if isinstance(chosen.group, HueGroup) and isinstance(poses.group, HueGroup):
        return Hue().element(chosen.group.angle(chosen)), Hue().element(poses.group.angle(poses))
    return chosen, chosen.group.identity(len(poses), device=chosen.device)


def in_the_plane(g: Element) -> Element:
    """Return elements of any planar group as elements of O(2)."""
    group: Any = g.group
    return O2().element(group.angle(g), reflected=group.is_reflected(g))


def _apart(one: Element, other: Element) -> Tensor:
    """Return distances, 0 where two elements are the same."""
    return torch.where(one.equals(other), 0.0, one.distance(other).double())


def near(distance: Tensor, allowed: float) -> Tensor:
    """Say which distances count as none, bool."""
    return distance <= allowed + _EXACT
