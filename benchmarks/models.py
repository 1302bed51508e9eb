"""Predictors of the benchmarks: the published CIFAR ResNets, and large models with random weights."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks.record import DATA

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


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
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
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
        x = F.relu(self.bn1(self.conv1((x - self.mean) / self.std)))
        x = self.layer3(self.layer2(self.layer1(x)))
        pooled = x.mean((-1, -2), dtype=torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            return self.linear(pooled)


def cifar_resnet(depth: int = 20, *, outputs: int | None = 10) -> CifarResNet:
    """Return a published CIFAR-10 network; with other outputs, a fresh head (or none) on its trunk."""
    model = CifarResNet(depth, outputs)
    weights = load_file(DATA / "cifar10-resnets" / f"resnet{depth}.safetensors")
    if outputs != 10:
        weights = {name: value for name, value in weights.items() if not name.startswith("linear")}
    missing = model.load_state_dict(weights, strict=False).missing_keys
    assert all(name.startswith("linear") for name in missing), missing
    return model.eval()


def warm_scorer(group: Any, *, channels: int = 3, depth: int = 56, blur: float = 0.0) -> nn.Module:
    """Orbit scorer whose network starts from the trunk of a published CIFAR-10 network."""
    from upright.nets import OrbitScorer

    trunk = cifar_resnet(depth, outputs=1)
    return OrbitScorer(trunk, group, blur=blur)


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
