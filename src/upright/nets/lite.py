"""The first blocks of EfficientNet-Lite0 and a head that keeps where things are: it describes photos."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLOCKS: tuple[tuple[int, int, int, int, int], ...] = (
    (32, 16, 3, 1, 1),
    (16, 24, 3, 2, 6),
    (24, 24, 3, 1, 6),
    (24, 40, 5, 2, 6),
    (40, 40, 5, 1, 6),
    (40, 80, 3, 2, 6),
    (80, 80, 3, 1, 6),
    (80, 80, 3, 1, 6),
    (80, 112, 5, 1, 6),
    (112, 112, 5, 1, 6),
    (112, 112, 5, 1, 6),
    (112, 192, 5, 2, 6),
    (192, 192, 5, 1, 6),
    (192, 192, 5, 1, 6),
)
"""Channels in and out, kernel, stride and expansion of the blocks 1 to 14."""


class ConvLayer(nn.Sequential):
    """A convolution without bias, batch normalisation and, if wanted, ReLU6; folded: one with a bias."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int = 1,
        stride: int = 1,
        *,
        groups: int = 1,
        active: bool = True,
        folded: bool = False,
    ) -> None:
        conv = nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, groups=groups, bias=folded)
        norm = [] if folded else [nn.BatchNorm2d(channels_out, eps=1e-3)]
        super().__init__(conv, *norm, *([nn.ReLU6(inplace=True)] if active else []))


class InvertedResidual(nn.Module):
    """Widen, convolve each channel on its own, narrow; with a shortcut where the shape stays."""

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, stride: int, expansion: int, *, folded: bool
    ) -> None:
        super().__init__()
        wide = channels_in * expansion
        self.has_shortcut = channels_in == channels_out and stride == 1
        self.expand = ConvLayer(channels_in, wide, folded=folded) if expansion > 1 else nn.Identity()
        self.depthwise = ConvLayer(wide, wide, kernel, stride, groups=wide, folded=folded)
        self.project = ConvLayer(wide, channels_out, active=False, folded=folded)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.has_shortcut else y


class LiteBackbone(nn.Module):
    """Fourteen blocks of EfficientNet-Lite0, with symmetric padding, and a head on a flattened grid.

    The grid is flattened, not averaged: sky above and ground below is what tells up from down. It is made for
    square pictures of 96 to 160 pixels that were shifted and scaled to mean 0 and variance 1.

    Args:
        outputs: Length of the description, whose values are not negative.
        channels: Channels of the picture.
        deep: Channels of the 4×4 grid.
        dropout: Share of the values that are dropped in training.
        folded: Without batch normalisation, its scale and shift being part of the convolutions, for use
            after training; see `fold`.

    Reference:
        Tan and Le 2019, arXiv 1905.11946 (EfficientNet); EfficientNet-Lite leaves out squeeze-and-excitation
        and uses ReLU6 (github.com/tensorflow/tpu, models/official/efficientnet/lite). Inverted residual
        blocks: Sandler et al. 2018, arXiv 1801.04381.
    """

    def __init__(
        self,
        *,
        outputs: int = 64,
        channels: int = 3,
        deep: int = 32,
        dropout: float = 0.2,
        folded: bool = False,
    ) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {
            "outputs": outputs,
            "channels": channels,
            "deep": deep,
            "dropout": dropout,
        }
        self.stem = ConvLayer(channels, 32, 3, 2, folded=folded)
        self.blocks = nn.Sequential(*(InvertedResidual(*block, folded=folded) for block in BLOCKS))
        self.deep = ConvLayer(BLOCKS[-1][1], deep, folded=folded)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(deep * 16, outputs)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # twice as fast on CPUs

    def forward(self, x: Tensor) -> Tensor:
        """Return descriptions ``(N, outputs)`` of pictures ``(N, C, s, s)``, float32 even under autocast."""
        return self.described(self.blocks(self.stem(x)))

    def described(self, features: Tensor) -> Tensor:
        """Return the descriptions of what the blocks made of the pictures."""
        grid = F.adaptive_avg_pool2d(self.deep(features).to(self.out.weight.dtype), 4).flatten(1)
        with torch.autocast(grid.device.type, enabled=False):
            described: Tensor = self.dropout(F.relu(self.out(self.dropout(grid))))
        return described

    def fold(self) -> LiteBackbone:
        """Return a copy for use after training whose convolutions contain the batch normalisation."""
        if not any(isinstance(m, nn.BatchNorm2d) for m in self.modules()):
            raise ValueError("the network is folded already")
        made = LiteBackbone(**self.settings, folded=True).eval()
        for new, old in zip(_conv_layers(made), _conv_layers(self), strict=True):
            new[0].load_state_dict(_folded(old))
        made.out.load_state_dict(self.out.state_dict())
        return made


def _conv_layers(network: nn.Module) -> list[ConvLayer]:
    return [m for m in network.modules() if isinstance(m, ConvLayer)]


@torch.no_grad()
def _folded(layer: ConvLayer) -> dict[str, Tensor]:
    """Return weight and bias of the convolution that does what convolution and normalisation do."""
    conv, norm = layer[0], layer[1]
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_var is not None
    assert norm.running_mean is not None
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return {
        "weight": conv.weight * scale.view(-1, 1, 1, 1),
        "bias": norm.bias - norm.running_mean * scale,
    }
