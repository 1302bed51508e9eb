"""A small residual network that judges one picture: how upright is it?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out)
        changes = stride != 1 or channels_in != channels_out
        self.shortcut = (
            nn.Conv2d(channels_in, channels_out, 1, stride, bias=False) if changes else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class ResidualBackbone(nn.Module):
    """A stem and one residual block a stage; a scalar score from the pooled features, in float32.

    Args:
        widths: Channels of the stem and of each stage.
        strides: Stride of the stem and of each stage.
        channels: Channels of the picture.
        outputs: Length of the output: 1 for a score, D for a vector.
    """

    def __init__(
        self,
        *,
        widths: Sequence[int] = (16, 24, 40, 48),
        strides: Sequence[int] = (2, 1, 2, 2),
        channels: int = 3,
        outputs: int = 1,
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, widths[0], 3, strides[0], 1, bias=False)
        self.norm = nn.BatchNorm2d(widths[0])
        stages = zip(widths[:-1], widths[1:], strides[1:], strict=True)
        self.stages = nn.Sequential(*(ResidualBlock(i, o, s) for i, o, s in stages))
        self.head = nn.Linear(widths[-1], outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return scores ``(N, outputs)`` of pictures ``(N, C, s, s)``."""
        x = self.stages(F.relu(self.norm(self.stem(x))))
        pooled = x.mean((-1, -2), dtype=torch.promote_types(x.dtype, torch.float32))
        with torch.autocast(x.device.type, enabled=False):
            out: Tensor = self.head(pooled.to(self.head.weight.dtype))
        return out
