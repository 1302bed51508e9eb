"""CIFAR-10 turned: a frozen, published ResNet-20 made equivariant by a canonicalizer trained without labels.

    python -m benchmarks.cifar train --group C4 --output runs/cifar-c4
    python -m benchmarks.cifar evaluate --group C4 --canonicalizer runs/cifar-c4
    python -m benchmarks.cifar train --group C8 --init runs/cifar-c4 --output runs/cifar-c8

The canonicalizer is an orbit scorer whose network starts from the trunk of a published CIFAR-10 network
(which was trained with labels, by others) and is trained on upright pictures of CIFAR-10 (train), CIFAR-100
and Tiny-ImageNet (train) without labels. Adaptive top_k has its cover and evidence chosen on 2,000 CIFAR-10
training pictures that the canonicalizer does not see.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import upright
from benchmarks.models import cifar_resnet
from benchmarks.pictures import pictures
from benchmarks.record import parser, start, write

HELD_BACK = 2000


def training_pictures(repeat: int) -> Tensor:
    """Upright uint8 pictures: CIFAR-10 (less those held back) ``repeat`` times, and everything else once."""
    own = pictures("cifar10", "train")[0][HELD_BACK:]
    others = [pictures("cifar100", "train")[0], pictures("cifar100", "test")[0]]
    others.append(pictures("tiny-imagenet", "train", size=32)[0])
    return torch.cat([own] * repeat + others)


class Unit(torch.utils.data.Dataset[Tensor]):
    """uint8 pictures as float in [0, 1]."""

    def __init__(self, data: Tensor) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Tensor:
        return self.data[index].float() / 255


class Jitter:
    """Pose-preserving augmentation for small lossless pictures: mirror, shift, colour.

    With ``subpixel``, shifts by fractions of a pixel too, whose blur varies, so that the blur of turning
    tells nothing.
    """

    def __init__(self, shift: int = 4, strength: float = 0.1, subpixel: float = 0.0) -> None:
        self.shift, self.strength, self.subpixel = shift, strength, subpixel

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        batch, _, side, _ = x.shape
        draw = lambda *shape: torch.rand(*shape, generator=generator) * 2 - 1  # noqa: E731
        padded = F.pad(x, (self.shift,) * 4, mode="reflect")
        corner = torch.randint(0, 2 * self.shift + 1, (2, batch, 1), generator=generator)
        rows, columns = corner + torch.arange(side)
        x = padded[torch.arange(batch)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(
            0, 3, 1, 2
        )
        if self.subpixel:
            offset = draw(batch, 2).abs() * self.subpixel * 2 / side
            theta = torch.eye(2).repeat(batch, 1, 1)
            grid = F.affine_grid(
                torch.cat([theta, offset.unsqueeze(-1)], 2), list(x.shape), align_corners=False
            )
            x = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
        x = torch.where(draw(batch, 1, 1, 1) < 0, x.flip(-1), x)
        mean, grey = x.mean((1, 2, 3), keepdim=True), x.mean(1, keepdim=True)
        colour = 1 + draw(batch, 1, 1, 1) * 2 * self.strength
        contrast = 1 + draw(batch, 1, 1, 1) * self.strength
        x = (grey + (x - grey) * colour - mean) * contrast + mean
        return x + draw(batch, 1, 1, 1) * self.strength + draw(batch, 3, 1, 1) * 0.3 * self.strength


def canonicalizer(options: argparse.Namespace) -> upright.Canonicalizer:
    resampled = options.group not in ("C4", "D4")
    settings = {"depth": options.depth, "blur": options.blur if resampled else 0.0}
    made = upright.canonicalizer(
        options.group, "benchmarks.models:warm_scorer", size=None, standardize=False, options=settings
    )
    if options.init is not None:
        made.load_state_dict(upright.load_canonicalizer(options.init).state_dict())
    return made


def train(options: argparse.Namespace) -> None:
    data = training_pictures(options.repeat)
    if options.smoke:
        data, options.steps = data[:256], 2
    robust = upright.adapt(cifar_resnet(20), options.group, canonicalizer=canonicalizer(options))
    began = time.time()
    result = upright.fit(
        robust,
        Unit(data),
        max_steps=options.steps,
        epochs=1000,
        batch_size=options.batch_size,
        optimizer="sgd",
        learning_rate=options.learning_rate,
        weight_decay=5e-4,
        augment=Jitter(subpixel=0.0 if options.group in ("C4", "D4") else 0.5),
        average=0.99,
        calibrate=False,
        precision="bf16-mixed",
        gradient_clip=None,
        output=None if options.smoke else options.output,
        resume=not options.smoke,
        seed=options.seed,
        progress=False,
    )
    held = pictures("cifar10", "train")[0][: 100 if options.smoke else HELD_BACK].float() / 255
    temperature = robust.canonicalizer.calibrate(held.split(500))
    poses = [robust.pose(part) for part in held.split(500)]
    rate = torch.cat([p.element.is_identity() & ~p.is_tied for p in poses]).float().mean()
    if not options.smoke:
        robust.save_pretrained(options.output)
    print(f"held-back identity rate {rate:.4f}, temperature {temperature:.3f}, {time.time() - began:.0f} s")
    print(f"{result.images_per_second:.0f} pictures a second")


@torch.no_grad()
def tables(robust: upright.Adapted, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return pose log-probabilities ``(N, |G|)`` of upright pictures and the predictor's log-probabilities at
    each candidate for the canonical form, ``(N, |G|, K)``."""
    log_p, log_y = [], []
    for part in x.split(500):
        log_p.append(robust.pose(part).log_probs)
        candidates = [upright.act(~g, upright.Image(part)).data for g in robust.group.elements()]
        log_y.append(torch.stack([robust.model(c).log_softmax(-1) for c in candidates], 1))
    return torch.cat(log_p), torch.cat(log_y)


def adaptive(log_p: Tensor, log_y: Tensor, cover: float, evidence: float) -> tuple[Tensor, Tensor]:
    """Vectorised twin of ``mode="top_k"`` for choosing its settings: predictions and passes."""
    probs, order = log_p.exp().sort(-1, descending=True)
    taken = (probs.cumsum(-1) - probs) < cover
    entropy = torch.special.entr(log_y.exp()).sum(-1).gather(-1, order)
    weights = torch.where(taken, probs * torch.exp(-evidence * entropy), 0.0)
    ranked = log_y.exp().gather(1, order.unsqueeze(-1).expand(-1, -1, log_y.shape[-1]))
    mixed = (weights.unsqueeze(-1) * ranked).sum(1)
    return mixed.argmax(-1), taken.sum(-1).float()


def choose(robust: upright.Adapted, passes: float) -> tuple[float, float]:
    """Choose cover and evidence on held-back training pictures, for at most so many passes on average."""
    x, y = pictures("cifar10", "train", limit=HELD_BACK)
    log_p, log_y = tables(robust, x.float() / 255)
    best = (0.0, 0.5, 0.0)
    for cover in [0.3 + 0.01 * i for i in range(70)]:
        for evidence in (0.0, 1.0, 2.0, 4.0, 8.0):
            guess, used = adaptive(log_p, log_y, cover, evidence)
            if float(used.mean()) <= passes:
                best = max(best, (float((guess == y).float().mean()), cover, evidence))
    return best[1], best[2]


@torch.no_grad()
def accuracy(robust: upright.Adapted, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Return accuracy in percent and mean passes of a call of the adapted model itself."""
    right, passes = 0, 0
    for part, labels in zip(x.split(500), y.split(500), strict=True):
        run = robust.run(part)
        right, passes = right + int((run.output.argmax(-1) == labels).sum()), passes + int(run.passes.sum())
    return 100 * right / len(x), passes / len(x)


@torch.no_grad()
def evaluate(options: argparse.Namespace) -> None:
    model = cifar_resnet(20)
    limit = 64 if options.smoke else options.limit
    x, y = pictures("cifar10", "test", limit=limit)
    x = x.float() / 255
    if options.smoke:
        chosen: Any = canonicalizer(options)
    else:
        chosen = upright.load_canonicalizer(options.canonicalizer)
    one = upright.adapt(model, options.group, canonicalizer=chosen)
    cover, evidence = (0.5, 1.0) if options.smoke else choose(one, options.passes - 0.02)
    several = upright.adapt(
        model, options.group, canonicalizer=chosen, mode="top_k", cover=cover, evidence=evidence
    )
    rows: dict[str, list[float]] = {"vanilla": [], "oracle": [], "one_pass": [], "adaptive": []}
    passes, agreement = [], []
    upright_pose = torch.cat([one.pose(part).element.value for part in x.split(500)])
    for g in one.group.elements():
        turned = torch.cat([upright.act(g, upright.Image(part)).data for part in x.split(500)])
        back = torch.cat([upright.act(~g, upright.Image(part)).data for part in turned.split(500)])
        rows["vanilla"].append(
            accuracy(upright.adapt(model, options.group, canonicalizer="identity"), turned, y)[0]
        )
        rows["oracle"].append(
            accuracy(upright.adapt(model, options.group, canonicalizer="identity"), back, y)[0]
        )
        rows["one_pass"].append(accuracy(one, turned, y)[0])
        percent, used = accuracy(several, turned, y)
        rows["adaptive"].append(percent)
        passes.append(used)
        pose = torch.cat([one.pose(part).element.value for part in turned.split(500)])
        moved = upright.Element(one.group, upright_pose)
        agreement.append(
            float((g.expand(len(pose)) @ moved).equals(upright.Element(one.group, pose)).float().mean())
        )
    own = sum(p.numel() for p in chosen.parameters())
    summary = {
        name: {
            "upright": round(values[0], 2),
            "orbit_mean": round(sum(values) / len(values), 2),
            "worst_pose": round(min(values), 2),
            "poses": [round(v, 2) for v in values],
        }
        for name, values in rows.items()
    }
    gap = summary["oracle"]["orbit_mean"] - summary["vanilla"]["orbit_mean"]
    figures = {
        "group": options.group,
        "pictures": len(x),
        **summary,
        "identity_rate": round(float((upright_pose == 0).float().mean()), 4),
        "same_canonical_element": [round(a, 4) for a in agreement],
        "adaptive_passes": round(sum(passes) / len(passes), 3),
        "cover": round(cover, 3),
        "evidence": evidence,
        "gap_closed": {
            name: round((summary[name]["orbit_mean"] - summary["vanilla"]["orbit_mean"]) / gap, 4)
            for name in ("one_pass", "adaptive")
        },
        "canonicalizer_parameters": own,
    }
    write(f"cifar10-{options.group.lower()}", figures, options, border="edge", interpolation="bilinear")


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("verb", choices=["train", "evaluate"])
    options.add_argument("--group", default="C4")
    options.add_argument(
        "--depth", type=int, default=56, help="20 or 56: which published trunk to start from"
    )
    options.add_argument("--canonicalizer", type=Path)
    options.add_argument("--output", type=Path, default=Path("runs/cifar-c4"))
    options.add_argument("--steps", type=int, default=2200)
    options.add_argument("--batch-size", type=int, default=32)
    options.add_argument("--repeat", type=int, default=8)
    options.add_argument("--learning-rate", type=float, default=0.02)
    options.add_argument("--init", type=Path, help="a saved canonicalizer to start from")
    options.add_argument("--blur", type=float, default=0.6, help="for groups that resample")
    options.add_argument("--limit", type=int)
    options.add_argument("--passes", type=float, default=1.3)
    chosen = options.parse_args()
    start(chosen)
    {"train": train, "evaluate": evaluate}[chosen.verb](chosen)


if __name__ == "__main__":
    main()
