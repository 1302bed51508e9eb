"""The first blocks of EfficientNet-Lite0 and a head that keeps where things are: the network of photos."""

from __future__ import annotations

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
)
"""Channels in and out, kernel, stride and expansion of the blocks 1 to 12; block 12 halves the map again."""


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
    """Twelve blocks of EfficientNet-Lite0, with symmetric padding, and a head on two flattened grids.

    The grids are flattened, not averaged: sky above and ground below is what tells up from down. The
    features at stride 16 are pooled to 4×4, those at stride 32 to 3×3. It is made for square pictures of 64
    to 128 pixels that were shifted and scaled to mean 0 and variance 1.

    Args:
        outputs: Length of the output.
        channels: Channels of the picture.
        mixed: Channels of the 4×4 grid.
        deep: Channels of the 3×3 grid.
        hidden: Width of the hidden layer.
        dropout: Share of the head's values that are dropped in training.
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
        outputs: int = 4,
        channels: int = 3,
        mixed: int = 32,
        deep: int = 24,
        hidden: int = 64,
        dropout: float = 0.1,
        folded: bool = False,
    ) -> None:
        super().__init__()
        self.settings = {
            "outputs": outputs, "channels": channels, "mixed": mixed, "deep": deep, "hidden": hidden,
            "dropout": dropout,
        }  # fmt: skip
        self.stem = ConvLayer(channels, 32, 3, 2, folded=folded)
        self.blocks = nn.Sequential(*(InvertedResidual(*block, folded=folded) for block in BLOCKS))
        self.mixed = ConvLayer(BLOCKS[-1][0], mixed, folded=folded)
        self.deep = ConvLayer(BLOCKS[-1][1], deep, folded=folded)
        self.dropout = nn.Dropout(dropout)
        self.hidden = nn.Linear(mixed * 16 + deep * 9, hidden)
        self.out = nn.Linear(hidden, outputs)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # twice as fast on CPUs

    def forward(self, x: Tensor) -> Tensor:
        """Return scores ``(N, outputs)`` of pictures ``(N, C, s, s)``, in float32 under an autocast too."""
        middle = self.blocks[:-1](self.stem(x))
        last = self.blocks[-1](middle)
        own = self.hidden.weight.dtype
        grids = [
            F.adaptive_avg_pool2d(self.mixed(middle).to(own), 4).flatten(1),
            F.adaptive_avg_pool2d(self.deep(last).to(own), 3).flatten(1),
        ]
        with torch.autocast(x.device.type, enabled=False):
            hidden = F.relu(self.hidden(self.dropout(torch.cat(grids, 1))))
            out: Tensor = self.out(self.dropout(hidden))
        return out

    def fold(self) -> LiteBackbone:
        """Return a copy for use after training whose convolutions contain the batch normalisation."""
        if not any(isinstance(m, nn.BatchNorm2d) for m in self.modules()):
            raise ValueError("the network is folded already")
        made = LiteBackbone(**self.settings, folded=True).eval()  # type: ignore[arg-type]
        for new, old in zip(_conv_layers(made), _conv_layers(self), strict=True):
            new[0].load_state_dict(_folded(old))
        made.hidden.load_state_dict(self.hidden.state_dict())
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
