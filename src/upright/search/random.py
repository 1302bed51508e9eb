"""Look all over the group, then ever closer around the best."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..energies.base import Energy
from ..energies.orbit import CHUNK
from ..groups.base import Group
from ..groups.subset import Subset
from ..kinds import Border
from .base import Found, Search, best, found_at, joined, lie_group, nudged, spread


@dataclass(frozen=True)
class RandomSearch(Search):
    """Poses all over the group, then normal steps around the best one, shrinking from round to round.

    Attributes:
        starts: Poses of the first round.
        rounds: Rounds of refinement.
        draws: Poses of each of them.
        scale: Standard deviation of the first round's steps, in Lie coordinates.
        shrink: Factor of it from round to round.
        within: Only elements of this set, such as `upright.groups.Arc`.
        seed: Decides the draws.
    """

    starts: int = 16
    rounds: int = 4
    draws: int = 8
    scale: float = 0.3
    shrink: float = 0.4
    within: Subset | None = None
    seed: int = 0

    def find(
        self, energy: Energy, pictures: Tensor, group: Group, *, chunk: int = CHUNK, border: Border = "edge"
    ) -> Found:
        """Return all poses that were looked at."""
        lie = lie_group(group, "RandomSearch")
        generator = torch.Generator().manual_seed(self.seed)
        poses = spread(group, self.starts, self.within, pictures.device, self.seed)
        every = poses.reshape(1, -1).expand(len(pictures), len(poses))
        found = found_at(energy, pictures, every, chunk=chunk, border=border)
        for number in range(self.rounds):
            steps = torch.randn(self.draws, lie.coordinates, generator=generator, dtype=torch.float64)
            steps = (self.scale * self.shrink**number * steps).to(pictures.device)
            centre = best(found).expand(len(pictures), self.draws)
            around = nudged(centre, steps.expand(len(pictures), -1, -1), self.within)
            found = joined(found, found_at(energy, pictures, around, chunk=chunk, border=border))
        return found
