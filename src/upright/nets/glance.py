"""Angles read off at a glance: any network that names the angle of one look, exact under quarter turns."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..actions.grid import permuted
from ..groups.base import Group
from ..groups.parse import parse_group
from ..groups.planar import Cyclic
from ..groups.rotations import SO2
from .thumbnail import disc
from .voting import rough_pose


class Glance(nn.Module):
    """Turns any network that names the angle of a picture into one that follows quarter turns exactly.

    The network sees the inscribed disc of a picture, which every rotation keeps, in all four quarter turns;
    what it says of each is turned back, and the mean counts. With ``looks=1`` it sees it once: after the
    quarter turn that the picture's own coarse brightness calls for (see `OrbitVoter`). In training, turn the
    pictures by any angle: between quarter turns it has to be learned.

    Args:
        network: Maps pictures ``(N, C, s, s)`` to logits ``(N, rays)``: of the angles ``i · 360° / rays``.
        group: ``"SO2"``; or a group of rotations C_n, whose elements get the probability near their angles.
        rays: Number of angles, a multiple of 4.
        window_degrees: For C_n: standard deviation of the bell in which probability counts as near.
        looks: 4, or 1 for a quarter of the price.
    """

    is_exact_on_grid = True

    def __init__(
        self,
        network: nn.Module,
        group: Group | str = "SO2",
        *,
        rays: int = 64,
        window_degrees: float = 8.0,
        looks: int = 4,
    ) -> None:
        super().__init__()
        self.group = parse_group(group)
        if not isinstance(self.group, (SO2, Cyclic)):
            raise ValueError(f"group must be SO2 or a group of rotations C<n>, got {self.group}")
        if rays % 4 or rays < 8:
            raise ValueError(f"rays must be a multiple of 4, at least 8, got {rays}")
        if looks not in (1, 4):
            raise ValueError(f"looks must be 1 or 4, got {looks}")
        self.network, self.rays, self.window_degrees, self.looks = network, rays, window_degrees, looks
        self.bins = rays

    def forward(self, x: Tensor) -> Tensor:
        """Score every angle, or every element of C_n.

        Args:
            x: Square thumbnails, shape ``(B, C, s, s)``.

        Returns:
            Scores, shape ``(B, rays)`` or ``(B, n)``.
        """
        count, quarter = x.shape[0], torch.arange(4, device=x.device)
        with torch.autocast(x.device.type, enabled=False):  # copies must not differ by rounding
            seen = x * disc(x.shape[-1], x)
            backs = torch.stack([permuted(seen, -k % 4) for k in range(4)])
        if self.looks == 1:
            shifts = rough_pose(seen, Cyclic(4)).unsqueeze(0)
            backs = backs[shifts, torch.arange(count, device=x.device)]
        else:
            shifts = quarter.unsqueeze(1).expand(4, count)
        logits: Tensor = self.network(backs.flatten(0, 1))
        if logits.shape != (self.looks * count, self.rays):
            raise ValueError(
                f"the network must return one logit per angle, shape ({self.looks * count}, {self.rays}), "
                f"got {tuple(logits.shape)}"
            )
        own = torch.promote_types(logits.dtype, torch.float32)
        votes = F.log_softmax(logits.to(own), -1).view(self.looks, count, self.rays)
        ray = torch.arange(self.rays, device=x.device)
        index = (ray - shifts.unsqueeze(-1) * (self.rays // 4)) % self.rays
        mean = votes.gather(-1, index).sort(0).values.mean(0)  # in the order of size: the same sum
        return self._near(mean, self.group) if isinstance(self.group, Cyclic) else mean

    def _near(self, scores: Tensor, group: Cyclic) -> Tensor:
        """Return the logarithm of the probability near the angle of each element of C_n."""
        ray = torch.arange(self.rays, device=scores.device).double() * (2 * math.pi / self.rays)
        angle = torch.arange(group.n, device=scores.device).double() * (2 * math.pi / group.n)
        sharp = math.radians(self.window_degrees) ** -2
        bells = sharp * ((ray - angle.unsqueeze(1)).cos() - 1)  # (n, rays)
        return torch.logsumexp(F.log_softmax(scores, -1).unsqueeze(1) + bells.to(scores), -1)
