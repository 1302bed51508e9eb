"""Vector neurons: a small network whose features are arrows that turn with the cloud."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._checks import check_positive


class VectorLinear(nn.Module):
    """Mixes arrows; there is no bias, which would not turn.

    Args:
        inputs: Arrows in.
        outputs: Arrows out.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / inputs**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Mix arrows ``(…, inputs, 3)`` to ``(…, outputs, 3)``, in the precision of the arrows."""
        mixed: Tensor = F.linear(x.mT, self.weight.to(x)).mT
        return mixed


class VectorReLU(nn.Module):
    """Takes off the part of each arrow that points against a learned direction.

    Args:
        channels: Arrows.
        slope: Share of that part that stays.

    Reference:
        Deng et al. 2021, "Vector Neurons", arXiv 2104.12229, equations 5 and 6.
    """

    def __init__(self, channels: int, slope: float = 0.2) -> None:
        super().__init__()
        self.direction = VectorLinear(channels, channels)
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        """Bend arrows ``(…, channels, 3)``."""
        k = self.direction(x)
        against = (x * k).sum(-1, keepdim=True).clamp(max=0)
        bent: Tensor = x - (1 - self.slope) * against / ((k * k).sum(-1, keepdim=True) + 1e-12) * k
        return bent


class VectorNeurons(nn.Module):
    """Three arrows a cloud, as the columns of a matrix that turns with it: ``M(R x) = R M(x)``.

    Each point enters as arrows: itself, itself times its squared length, and what the moments of degree two
    and three make of it. So much of the shape is seen without neighbours, in time linear in the points.

    Args:
        reflects: Whether the matrix also follows reflections; else cross products count too, so that the
            columns span space even for clouds with a plane of symmetry.
        channels: Arrows a point between the layers.
        layers: How many layers.

    Reference:
        Deng et al. 2021, "Vector Neurons", arXiv 2104.12229.
    """

    def __init__(self, *, reflects: bool = False, channels: int = 16, layers: int = 2) -> None:
        super().__init__()
        check_positive("channels", channels)
        check_positive("layers", layers)
        self.reflects = reflects
        sizes = [5] + [channels] * layers
        self.mixes = nn.ModuleList(VectorLinear(2 * a, b) for a, b in pairwise(sizes))
        self.bends = nn.ModuleList(VectorReLU(channels) for _ in range(layers))
        self.left = None if reflects else VectorLinear(channels, channels)
        self.right = None if reflects else VectorLinear(channels, channels)
        self.last = VectorLinear(channels if reflects else 2 * channels, 3)
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, points: Tensor, present: Tensor, every: Tensor, count: Tensor) -> Tensor:
        """Return the matrices ``M``, shape ``(B, 3, 3)``, in the precision of the points.

        Args:
            points: Points that are looked at one by one, shape ``(B, N, 3)``; padding is zero.
            present: Which of them are points, shape ``(B, N)``.
            every: All points, for the moments, shape ``(B, N_all, 3)``; padding is zero.
            count: How many they are, shape ``(B,)``.
        """
        size = ((every * every).sum((1, 2)) / count).clamp(min=1e-300).sqrt().view(-1, 1, 1)
        share = present.to(points) / present.sum(1, keepdim=True)
        x = _arrows(points / size, every / size, count)
        for mix, bend in zip(self.mixes, self.bends, strict=True):
            whole = torch.einsum("bn,bnci->bci", share, x).unsqueeze(1).expand_as(x)
            x = bend(mix(torch.cat([x, whole], 2)))
            length = torch.einsum("bn,bnci->b", share, x * x) / x.shape[2]
            x = x / (length + 1e-12).sqrt().view(-1, 1, 1, 1)
        pooled = torch.einsum("bn,bnci->bci", share, x)
        if self.left is not None and self.right is not None:
            pooled = torch.cat([pooled, torch.linalg.cross(self.left(pooled), self.right(pooled))], 1)
        columns: Tensor = self.last(pooled).mT
        return columns * self.log_scale.to(columns).exp()


def _arrows(points: Tensor, every: Tensor, count: Tensor) -> Tensor:
    """Return what each point enters as, ``(B, N, 5, 3)``: true arrows, under reflections too."""
    number = count.to(points).view(-1, 1, 1)
    x, y, z = every.unbind(-1)
    pairs = torch.stack([x * x, y * y, z * z, x * y, x * z, y * z], -1)
    spread = every.mT @ every / number
    cubic = every.mT @ pairs / number  # (B, 3, 6)
    lean = cubic[..., :3].sum(-1)  # mean of |p|² p
    x, y, z = points.unbind(-1)
    own = torch.stack([x * x, y * y, z * z, 2 * x * y, 2 * x * z, 2 * y * z], -1)
    far = (points * points).sum(-1, keepdim=True)
    bent = far / (1 + far) * points
    return torch.stack(
        [points, bent, points @ spread, own @ cubic.mT, lean.unsqueeze(1).expand_as(points)], 2
    )
