"""The search contract: from an energy and pictures to weighed candidate poses."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from .._checks import check_positive
from .._values import value
from ..energies.base import Energy
from ..energies.orbit import CHUNK, energies_at
from ..groups.base import Element, FiniteGroup, Group
from ..groups.lie import LieGroup
from ..groups.rotations import O2, SO2
from ..groups.subset import Arc, Subset
from ..kinds import Border


@value
class Found:
    """What a search looked at.

    Attributes:
        candidates: Poses, shape ``(B, K)``; of a finite group searched as a whole, all its elements in order.
        energies: Their energies, shape ``(B, K)``.
        visits: How many poses were looked at for each picture, shape ``(B,)``, int64.
    """

    candidates: Element
    energies: Tensor
    visits: Tensor


class Search(ABC):
    """Looks for the pose at which an energy is lowest. Subclasses are frozen dataclasses: plain settings.

    A search draws from its own ``seed`` on every call: the same pictures give the same poses.
    """

    @abstractmethod
    def find(
        self, energy: Energy, pictures: Tensor, group: Group, *, chunk: int = CHUNK, border: Border = "edge"
    ) -> Found:
        """Return candidates and their energies.

        Args:
            energy: The energy.
            pictures: Shape ``(B, C, H, W)``.
            group: Where poses are looked for.
            chunk: Most moved pictures at once.
            border: What lies outside the pictures.
        """


def found_at(energy: Energy, pictures: Tensor, poses: Element, *, chunk: int, border: Border) -> Found:
    """Look at given poses, shape ``(B, K)``, without gradients."""
    with torch.no_grad():
        energies = energies_at(energy, pictures, poses, chunk=chunk, border=border)
    return Found(poses, energies, torch.full((len(pictures),), poses.shape[1], device=pictures.device))


def joined(one: Found, other: Found) -> Found:
    """Return the candidates of both, side by side."""
    value = torch.cat([one.candidates.value, other.candidates.value], 1)
    return Found(
        Element(one.candidates.group, value),
        torch.cat([one.energies, other.energies], 1),
        one.visits + other.visits,
    )


def best(found: Found, count: int = 1) -> Element:
    """Return the candidates of least energy, shape ``(B, count)``, the first of equals first."""
    order = found.energies.argsort(dim=1, stable=True)[:, :count]
    rows = torch.arange(len(order), device=order.device).unsqueeze(1)
    return found.candidates[rows, order]


def spread(group: Group, count: int, within: Subset | None, device: torch.device, seed: int) -> Element:
    """Return poses all over a group, or over a set of its elements, the nearest to the identity first.

    Args:
        group: The group; of a finite one all elements are returned.
        count: How many poses, of a continuous group. Of O2 as many are reflected.
        within: A set of elements; None: all.
        device: Where the poses live.
        seed: Decides draws from groups that have no natural grid.

    Raises:
        ValueError: If the count is not positive, or the set is one of another group.
    """
    check_positive("the number of poses", count)
    if within is not None and within.group != group:
        raise ValueError(f"within must be a set of elements of {group}, got one of {within.group}")
    if within is None and isinstance(group, FiniteGroup):
        return group.elements(device)
    if within is None and isinstance(group, (SO2, O2)):
        within = Arc(180.0, group)
    if within is not None:
        poses = within.grid(count, device)
        return poses[poses.distance(group.identity(device=device)).argsort(stable=True)]
    drawn = group.sample(count - 1, generator=torch.Generator().manual_seed(seed))
    return Element(group, torch.cat([group.identity(1).value, drawn.value])).to(device)


def lie_group(group: Group, search: str) -> LieGroup:
    """Return the group if its poses can be moved along coordinates.

    Raises:
        TypeError: If they cannot.
    """
    if not isinstance(group, LieGroup):
        raise TypeError(f"{search} moves along the coordinates of a Lie group, got {group}; use Grid")
    return group


def nudged(poses: Element, coordinates: Tensor, within: Subset | None = None) -> Element:
    """Return ``g @ exp(coordinates)``, shapes ``(B, K)`` and ``(B, K, coordinates)``, kept in a set."""
    group = lie_group(poses.group, "a search")
    moved = poses.compose(group.exp(coordinates))
    return moved if within is None else within.project(moved)
