"""Reflections where none is told from the other: mirror images are equally natural."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..actions.grid import permuted
from ..groups.base import Element, FiniteGroup
from ..groups.parse import parse_planar_group
from ..groups.planar import Cyclic, Dihedral
from .voting import rough_pose

PREFERENCE = 0.01
"""By how much the score of the mirror image that is chosen is above that of the other."""


class MirrorTied(nn.Module):
    """Makes a scorer of quarter turns one of turns and reflections, for pictures that have no handedness.

    The mirror image of an upright photo is an upright photo: no network can know which of the two was taken.
    So both get the same score but for a hair, which decides for one of them by the coarse brightness
    (`rough_pose`): arbitrarily, and the same for a picture and its mirror image. A network that is exactly
    equivariant to turns gives one that is exactly equivariant to turns and flips, for the same price.

    Args:
        network: Maps pictures ``(B, C, s, s)`` to scores ``(B, 4)`` of the quarter turns, equivariantly.
        group: ``"D4"``.
    """

    is_exact_on_grid = True

    def __init__(self, network: nn.Module, group: FiniteGroup | str = "D4") -> None:
        super().__init__()
        self.group = parse_planar_group(group)
        if self.group != Dihedral(4):
            raise ValueError(f"mirror images are tied in D4, got {self.group}")
        if getattr(network, "group", Cyclic(4)) != Cyclic(4):
            raise ValueError(f"network must score C4, got one of {network.group}")
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Score every element.

        Args:
            x: Square thumbnails, shape ``(B, C, s, s)``.

        Returns:
            Scores, shape ``(B, 8)``.
        """
        seen = self.group.is_reflected(Element(self.group, rough_pose(x, self.group)))
        y = torch.where(seen.view(-1, 1, 1, 1), permuted(x, 4), x)  # the same for both mirror images
        turns: Tensor = self.network(y)
        # act(~r, y) is act(~r, x), or act(~(F r), x) where y is the mirror image; F r = ~r F
        turned = turns[:, [0, 3, 2, 1]]
        own = torch.cat([turns, turns - PREFERENCE], 1)
        other = torch.cat([turned - PREFERENCE, turned], 1)
        return torch.where(seen.unsqueeze(1), other, own)
