"""The network to be trained: the blocks of ``photo-c4``, which tell up from down, and a head for angles."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import upright
from recipes.photo_c4.network import _Depthwise
from upright.nets import LiteBackbone
from upright.nets.lite import ConvLayer

SIZE = 128
"""Side of the thumbnails."""
RAYS = 64
"""Number of angles."""
OUTPUTS = 128
"""Length of the description that the angle is read from."""


class Quick(ConvLayer):
    """A folded convolution in bfloat16 with a fast backward pass on CPUs."""

    def forward(self, input: Tensor) -> Tensor:
        """Convolve and clamp."""
        conv = self[0]
        assert isinstance(conv, nn.Conv2d)
        assert conv.bias is not None
        x, bias = input.bfloat16(), conv.bias.bfloat16()
        if conv.groups > 1 and torch.is_grad_enabled():
            y: Tensor = _Depthwise.apply(x, conv.weight, conv.stride[0]) + bias.view(1, -1, 1, 1)  # type: ignore[no-untyped-call]
        else:
            y = F.conv2d(x, conv.weight.bfloat16(), bias, conv.stride, conv.padding, 1, conv.groups)  # type: ignore[arg-type]
        return F.relu6(y, inplace=True) if len(self) > 1 else y


def angle_network(quick: bool = False) -> nn.Sequential:
    """Return backbone and judge, started from ``photo-c4``; its convolutions are folded."""
    taken = upright.load_canonicalizer("photo-c4").network.network
    backbone = LiteBackbone(outputs=OUTPUTS, folded=True)
    state = {k: v for k, v in taken.state_dict().items() if not k.startswith("out.")}
    backbone.load_state_dict({**backbone.state_dict(), **state})
    for layer in backbone.modules() if quick else ():
        if isinstance(layer, ConvLayer):
            layer.__class__ = Quick
    return nn.Sequential(backbone, nn.Linear(OUTPUTS, RAYS))
