"""Volumes for canonicalizers: small copies that permute exactly, and a network that judges one of them."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._checks import check_positive


class VolumeBackbone(nn.Module):
    """A small 3-D convolutional network that scores volumes one by one.

    Args:
        channels: Channels of the volumes.
        width: Channels of the first layer; each of the others has twice as many.
        layers: Layers of stride 2.
    """

    def __init__(self, *, channels: int = 1, width: int = 8, layers: int = 3) -> None:
        super().__init__()
        check_positive("width", width)
        check_positive("layers", layers)
        sizes = [channels] + [width * 2**i for i in range(layers)]
        parts: list[nn.Module] = []
        for a, b in pairwise(sizes):
            parts += [nn.Conv3d(a, b, 3, stride=2, padding=1), nn.GroupNorm(1, b), nn.ReLU()]
        self.layers = nn.Sequential(*parts)
        self.last = nn.Linear(sizes[-1], 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return one score a volume: ``(N, C, s, s, s)`` to ``(N, 1)``."""
        scores: Tensor = self.last(self.layers(x).mean((2, 3, 4)))
        return scores


def small_volume(x: Tensor, size: int) -> Tensor:
    """Return volumes shrunk into the middle of a cube, the same for every order and direction of the axes.

    The longest side fills the cube; around the others lies the mean of the volume.

    Args:
        x: Volumes, shape ``(B, C, D, H, W)``, float.
        size: Side of the cube in voxels.

    Returns:
        Shape ``(B, C, size, size, size)``.
    """
    longest = max(x.shape[2:])
    margins = [min(round(size * (1 - side / longest) / 2), (size - 1) // 2) for side in x.shape[2:]]
    shrunk = F.adaptive_avg_pool3d(x, [size - 2 * margin for margin in margins])  # type: ignore[arg-type]
    if not any(margins):
        return shrunk
    mean = shrunk.mean((2, 3, 4), keepdim=True)
    pads = [margin for margin in reversed(margins) for _ in (0, 1)]
    padded: Tensor = F.pad(shrunk - mean, pads) + mean
    return padded


def standardized_volume(x: Tensor) -> Tensor:
    """Return volumes with each channel shifted and scaled to mean 0 and variance 1."""
    if x.shape[0] == 0:
        return x
    mean, variance = x.mean((2, 3, 4), keepdim=True), x.var((2, 3, 4), keepdim=True, unbiased=False)
    return (x - mean) / torch.sqrt(variance + 1e-8 * (1 + mean**2))
