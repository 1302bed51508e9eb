"""Densities over headings: how much an upright cloud looks as if a direction were its front; and its hand."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .spherical import Surface, directions_of

_ORDERS = 6
"""Highest order of the waves about the vertical."""
_CYLINDRICAL = 6


class HeadingDensity(nn.Module):
    """Scores headings about given verticals; when the cloud turns about one, they turn with it.

    Args:
        channels: Functions on the circle.
        width: Hidden numbers a point and a heading, as in `SphericalDensity`.
    """

    def __init__(self, *, channels: int = 16, width: int = 48) -> None:
        super().__init__()
        self.channels = channels
        self.each, self.own = nn.Linear(width, width), nn.Linear(_CYLINDRICAL, width, bias=False)
        self.again, self.again_whole = nn.Linear(width, width), nn.Linear(width, width)
        self.weights = nn.Linear(width, channels * (_ORDERS + 3))
        self.norm = nn.LayerNorm(channels)
        self.judge, self.judge_whole = nn.Linear(channels, width), nn.Linear(width, width)
        self.last = nn.Sequential(nn.ReLU(), nn.Linear(width, 1))

    def forward(self, seen: Surface, hidden: Tensor, whole: Tensor, frames: Tensor, count: int) -> Tensor:
        """Score headings.

        Args:
            seen: What is seen of the clouds.
            hidden: What `SphericalDensity` made of every point, shape ``(B, S, width)``.
            whole: And of the cloud, shape ``(B, width)``.
            frames: Frames whose third axis is the vertical and whose first is heading 0, ``(B, U, 3, 3)``.
            count: How many headings, equally spaced from 0 on, counter-clockwise.

        Returns:
            Scores ``(B, U, count)``.
        """
        x, y, z = torch.einsum("bsi,buij->jbus", seen.points, frames)
        rho = (x * x + y * y + 1e-12).sqrt()
        flat = torch.einsum("buia,bsij,bujc->acbus", frames, seen.flat, frames)
        spread = torch.einsum("bui,bsij,buj->bus", frames[..., 2], seen.spread, frames[..., 2])
        slope = (flat[0, 2] ** 2 + flat[1, 2] ** 2 + 1e-12).sqrt()
        own = torch.stack([z, rho, z * z, flat[2, 2], spread, slope], -1)
        point = F.relu(self.each(hidden).unsqueeze(1) + self.own(own))
        point = F.relu(self.again(point) + self.again_whole(whole)[:, None, None])
        weights = self.weights(point) * seen.share.unsqueeze(1)
        c, s = directions_of(torch.stack([x, y], -1)).unbind(-1)
        cosines, sines = [torch.ones_like(c), c], [torch.zeros_like(s), s]
        for _ in range(_ORDERS - 1):
            cosines.append(cosines[-1] * c - sines[-1] * s)
            sines.append(sines[-1] * c + cosines[-2] * s)
        cosines += [flat[0, 0] - flat[1, 1], flat[0, 2]]
        sines += [2 * flat[0, 1], flat[1, 2]]
        waves = torch.stack([torch.stack(cosines, -1), torch.stack(sines, -1)], -2)  # (B, U, S, 2, orders)
        weights = weights.reshape(*weights.shape[:-1], _ORDERS + 3, self.channels)
        amplitudes = torch.einsum("busmc,busam->bucam", weights, waves).flatten(-2)
        order = torch.tensor([*range(_ORDERS + 1), 2, 1], device=z.device)
        angle = headings(count, z).unsqueeze(-1) * order
        basis = torch.cat([angle.cos(), angle.sin()], -1)  # (count, 2 * orders)
        values = self.norm((amplitudes @ basis.mT).mT)
        scores: Tensor = self.last(self.judge(values) + self.judge_whole(whole)[:, None, None])
        return scores.squeeze(-1)


class Handedness(nn.Module):
    """Says whether an upright cloud is the right way round, or its mirror image: odd in y.

    Args:
        width: As in `SphericalDensity`.
    """

    def __init__(self, *, width: int = 48) -> None:
        super().__init__()
        self.each, self.own = nn.Linear(width, 24), nn.Linear(5, 24, bias=False)
        self.last = nn.Linear(24, 1)
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))

    def forward(self, seen: Surface, hidden: Tensor, frames: Tensor) -> Tensor:
        """Return logits, above 0 for the right way round.

        Args:
            seen: What is seen of the clouds.
            hidden: What `SphericalDensity` made of every point, shape ``(B, S, width)``.
            frames: Shape ``(B, U, 3, 3)``.

        Returns:
            Shape ``(B, U)``; the sign changes with that of the frames' second axis.
        """
        x, y, z = torch.einsum("bsi,buij->jbus", seen.points, frames)
        own = torch.stack([x, z, x * x, y * y, z * z], -1)
        weight = self.last(F.relu(self.each(hidden).unsqueeze(1) + self.own(own))).squeeze(-1)
        logits: Tensor = self.log_scale.exp() * (weight * y * seen.share.squeeze(-1).unsqueeze(1)).sum(-1)
        return logits


def headings(count: int, like: Tensor) -> Tensor:
    """Return equally spaced angles in radians, from 0 on, shape ``(count,)``."""
    return torch.arange(count, dtype=like.dtype, device=like.device) * (2 * math.pi / count)
