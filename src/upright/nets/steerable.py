"""The vector network: the picture answers with a vector that turns with it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .._checks import check_choice
from .polar import parts
from .polar_density import GROUPS, PolarTrunk, reversed_angles


class SteerableNet(nn.Module):
    """Answers with one vector, whose angle is the pose and whose length is the concentration.

    The vector is the sum over rays of what each ray gives in its own frame, ``Σ f(ray) · e^{iθ}``. It stands
    for the von Mises density ``exp(v · (cos θ, sin θ))``, whose logarithm is returned at equally spaced
    angles; its peak is the vector's angle. For O(2) the mirrored picture answers with a vector of its own,
    and each handedness gets a score besides. One hill for each handedness: for pictures with several likely
    angles use `PolarDensity`.

    Args:
        group: ``"SO2"`` or ``"O2"``.
        channels: Channels of the picture.
        **trunk: Arguments of `PolarTrunk`.

    Reference:
        Kaba et al. 2023, arXiv 2211.06489, section 3.2 (a vector as a frame); Cohen and Welling 2017, arXiv
        1612.08498 (steerable networks).
    """

    is_exact_on_grid = True

    def __init__(self, group: object = "SO2", *, channels: int = 3, **trunk: object) -> None:
        super().__init__()
        check_choice("group", str(group), GROUPS)
        self.has_reflections = str(group) == "O2"
        self.trunk = PolarTrunk(channels=channels, **trunk)  # type: ignore[arg-type]
        self.bins = self.trunk.rays * (1 + self.has_reflections)
        self.head = nn.Linear(self.trunk.width, 3)  # along the ray, across it, and how likely unmirrored

    def forward(self, x: Tensor) -> Tensor:
        """Return scores ``(B, bins)``: of the rotations by ``i · 360° / rays``, then of the reflections."""
        if not self.has_reflections:
            return self._score(x)
        turned, flipped = parts(self._score(torch.cat([x, x.flip(-1)])), 2)
        return torch.cat([turned, reversed_angles(flipped)], 1)

    def vectors(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return vectors ``(B, 2)``, x right and y up, and scores of handedness ``(B,)``."""
        rays = self.trunk(x)
        with torch.autocast(x.device.type, enabled=False):
            rays = rays.to(self.head.weight.dtype).transpose(1, 2)  # (B, rays, width)
            along, across, hand = self.head(rays).unbind(-1)
            angle = (torch.arange(self.trunk.rays, device=x.device).double() + 0.5) * (
                2 * math.pi / self.trunk.rays
            )
            cos, sin = angle.cos().to(along), angle.sin().to(along)
            right, up = along * cos - across * sin, along * sin + across * cos
            return torch.stack([right.mean(-1), up.mean(-1)], -1) * self.trunk.rays**0.5, hand.mean(-1)

    def _score(self, x: Tensor) -> Tensor:
        vectors, hand = self.vectors(x)
        angle = torch.arange(self.trunk.rays, device=x.device).double() * (2 * math.pi / self.trunk.rays)
        around = torch.stack([angle.cos(), angle.sin()]).to(vectors)
        return vectors @ around + hand.unsqueeze(-1)
