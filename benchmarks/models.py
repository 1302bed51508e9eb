"""Predictors of the benchmarks: the published CIFAR ResNets, and large models with random weights."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks.record import DATA

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def normalised(conv: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Convolve and normalise; in one convolution where nothing is trained."""
    if norm.training or torch.is_grad_enabled():
        return norm(conv(x))
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    weight = (conv.weight * scale.view(-1, 1, 1, 1)).contiguous(memory_format=torch.channels_last)
    return F.conv2d(x, weight, norm.bias - norm.running_mean * scale, conv.stride, conv.padding)


class Block(nn.Module):
    """Two convolutions and a parameter-free shortcut (option A of He et al.)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.stride, self.grows = stride, channels_out - channels_in

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(normalised(self.conv1, self.bn1, x))
        y = normalised(self.conv2, self.bn2, y)
        if self.grows:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.grows // 2, self.grows // 2))
        return F.relu(y + x)


class CifarResNet(nn.Module):
    """He et al. 2015 (arXiv 1512.03385), section 4.2; pictures in [0, 1], normalised inside.

    Args:
        depth: 20, 56, …: ``6 n + 2`` layers.
        outputs: Length of the output; None returns the 64 pooled features.
    """

    def __init__(self, depth: int = 20, outputs: int | None = 10) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        blocks, width = (depth - 2) // 6, 16
        for stage in range(3):
            wider = 16 * 2**stage
            first = Block(width, wider, 1 if stage == 0 else 2)
            setattr(
                self,
                f"layer{stage + 1}",
                nn.Sequential(first, *(Block(wider, wider, 1) for _ in range(blocks - 1))),
            )
            width = wider
        self.linear = nn.Identity() if outputs is None else nn.Linear(64, outputs)
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(normalised(self.conv1, self.bn1, (x - self.mean) / self.std))
        x = self.layer3(self.layer2(self.layer1(x)))
        pooled = x.mean((-1, -2), dtype=torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            return self.linear(pooled)


class SelectiveResNet(CifarResNet):
    """Trains through the pictures that matter only.

    All pictures are scored without a graph, as in evaluation; on the way back those with large gradients, and
    a weighted sample of the others (the gradient of the scores stays unbiased), are run again with one. In an
    orbit whose pose is clear nearly all gradients vanish, and the way back is three quarters of the work.
    """

    share = 0.25

    def forward(self, x: Tensor) -> Tensor:
        if self.training and torch.is_grad_enabled():
            return _Selective.apply(x, self.linear.weight, self)
        return super().forward(x)


class _Selective(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, parameter: Tensor, network: SelectiveResNet) -> Tensor:
        ctx.x, ctx.network, ctx.low = x, network, torch.is_autocast_enabled(x.device.type)
        network.eval()
        out = torch.cat([CifarResNet.forward(network, part) for part in x.split(64)])
        network.train()
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, None]:
        chosen, weight = sampled(gradient.flatten(1).norm(dim=1), ctx.network.share)
        with torch.enable_grad(), torch.autocast(ctx.x.device.type, torch.bfloat16, enabled=ctx.low):
            out = CifarResNet.forward(ctx.network, ctx.x[chosen])
        out.backward(gradient[chosen] * weight.unsqueeze(1))
        return None, None, None


def sampled(size: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Choose a share of the entries, each with a probability proportional to its size (at most 1).

    Returns:
        Their indices, and one over their probabilities.
    """
    count = max(1, round(share * len(size)))
    chance = size * (count / size.sum())
    for _ in range(8):
        sure = chance >= 1
        rest = count - int(sure.sum())
        chance = torch.where(sure, 1.0, size * (rest / size[~sure].sum().clamp_min(1e-30)))
    ticks = (chance.double().cumsum(0) + torch.rand(())).floor()  # systematic: the count varies by one
    chosen = (ticks.diff(prepend=ticks.new_zeros(1)) > 0).nonzero().squeeze(1)
    return chosen, 1 / chance[chosen].clamp_min(1e-6)


def cifar_resnet(depth: int = 20, *, outputs: int | None = 10, selective: bool = False) -> CifarResNet:
    """Return a published CIFAR-10 network; with other outputs, a fresh head (or none) on its trunk."""
    model = SelectiveResNet(depth, outputs) if selective else CifarResNet(depth, outputs)
    weights = load_file(DATA / "cifar10-resnets" / f"resnet{depth}.safetensors")
    if outputs != 10:
        weights = {name: value for name, value in weights.items() if not name.startswith("linear")}
    missing = model.load_state_dict(weights, strict=False).missing_keys
    assert all(name.startswith("linear") for name in missing), missing
    return model.eval()


def warm_scorer(
    group: Any, *, channels: int = 3, depth: int = 56, selective: bool = False, **options: Any
) -> nn.Module:
    """Orbit scorer whose network starts from the trunk of a published CIFAR-10 network."""
    from upright.nets import OrbitScorer

    return OrbitScorer(cifar_resnet(depth, outputs=1, selective=selective), group, **options)


def vision_transformer() -> nn.Module:
    """ViT-B/16 at 224 pixels, random weights."""
    from transformers import ViTConfig, ViTForImageClassification

    return _Logits(ViTForImageClassification(ViTConfig(num_labels=1000)))


def resnet50() -> nn.Module:
    """ResNet-50, random weights."""
    from transformers import ResNetConfig, ResNetForImageClassification

    return _Logits(ResNetForImageClassification(ResNetConfig(num_labels=1000)))


class _Logits(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x).logits
