"""Look at every pose of a grid."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..energies.base import Energy
from ..energies.orbit import CHUNK
from ..groups.base import Group
from ..groups.subset import Subset
from ..kinds import Border
from .base import Found, Search, found_at, spread


@dataclass(frozen=True)
class Grid(Search):
    """Every element of a finite group, or a grid of a continuous one. On finite groups it is exact.

    Attributes:
        count: Poses of the grid of a continuous group; quarter turns are among them where 4 divides it.
        within: Only elements of this set, such as `upright.groups.Arc`.
    """

    count: int = 24
    within: Subset | None = None

    def find(
        self, energy: Energy, pictures: Tensor, group: Group, *, chunk: int = CHUNK, border: Border = "edge"
    ) -> Found:
        """Return all poses of the grid."""
        poses = spread(group, self.count, self.within, pictures.device, 0)
        every = poses.reshape(1, -1).expand(len(pictures), len(poses))
        return found_at(energy, pictures, every, chunk=chunk, border=border)
