"""Train ``photo-so2`` and ``photo-c8`` on upright pictures turned by random angles.

    python -m recipes.photo_so2.train --output runs/photo-so2

The trunk is that of ``photo-c4``. First the head learns alone, from what the trunk makes of looks that are
kept in memory; then the blocks behind the fifth learn with it. A look is a picture turned by an angle of its
own, its inscribed disc only; each counts in its four quarter turns. The loss is the cross-entropy of the
angle, spread over a bell. The second stage is timed by the clock: results do not repeat bit for bit.
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
from safetensors.torch import save_file
from torch import Tensor, nn

from recipes.photo_c4.data import Source, read, recoloured, sources
from recipes.photo_so2.network import RAYS, SIZE, angle_network
from upright.nets import LiteBackbone
from upright.nets.thumbnail import disc, standardized

BELL = math.radians(6.0)
"""Standard deviation of the bell over which a true angle is spread."""
FROZEN = 5
"""Blocks that never learn, besides the stem."""
EXACT = 0.15
"""Share of the looks at multiples of 45 degrees."""


def turned(pictures: np.ndarray, size: int, smallest: float, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Resample once: turn by any angle, scale, aspect, shift, mirror; return pictures and angles in radians.

    The angle is that by which an upright picture was turned, counter-clockwise as seen.
    """
    n = len(pictures)
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div_(255)

    def draw() -> Tensor:
        return torch.rand(n, generator=rng)

    angle = draw() * (2 * math.pi)
    angle = torch.where(draw() < EXACT, (angle / (math.pi / 4)).round() * (math.pi / 4), angle)
    scale, aspect = draw() * (1 - smallest) + smallest, torch.exp((draw() - 0.5) * 0.2)
    flip = torch.where(draw() < 0.5, -1.0, 1.0)
    sx, sy = (scale * aspect.sqrt()).clamp(max=1), (scale / aspect.sqrt()).clamp(max=1)
    tx, ty = (draw() * 2 - 1) * (1 - sx), (draw() * 2 - 1) * (1 - sy)
    rows = [  # where an output pixel comes from: turned back, scaled, mirrored, shifted
        torch.stack([flip * sx * angle.cos(), -flip * sx * angle.sin(), tx], 1),
        torch.stack([sy * angle.sin(), sy * angle.cos(), ty], 1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1), [n, 3, size, size], align_corners=False)
    return F.grid_sample(x, grid, padding_mode="reflection", align_corners=False), angle


def drawn(
    mix: list[Source], count: int, size: int, draws: np.random.Generator, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw looks as the network will see them, and their angles."""
    shares = np.array([s.share for s in mix])
    parts = []
    for source, n in zip(mix, draws.multinomial(count, shares / shares.sum()), strict=True):
        if n:
            chosen = np.sort(draws.integers(0, len(source.pictures), n))
            parts.append(turned(source.pictures[chosen], size, source.smallest, rng))
    x, angle = (torch.cat(part) for part in zip(*parts, strict=True))
    return standardized(recoloured(x, rng)) * disc(size, x), angle


def held_back(limit: int) -> list[Source]:
    """Return training pictures that are not trained on, as they are."""
    tiny = [np.asarray(p) for p in read("tiny-imagenet", "train")[11_000:][:limit]]
    return [Source(np.stack(tiny), 1.0, 1.0)]


def loss_of(logits: Tensor, angle: Tensor) -> Tensor:
    """Return the cross-entropy to bells around the angles."""
    ray = torch.arange(logits.shape[1]) * (2 * math.pi / logits.shape[1])
    wanted = F.softmax(((ray - angle.unsqueeze(1)).cos() - 1) / BELL**2, -1)
    return F.cross_entropy(logits, wanted)


def errors(logits: Tensor, angle: Tensor) -> Tensor:
    """Return how far the likeliest cell is from the angle, in degrees."""
    found = logits.argmax(-1) * (2 * math.pi / logits.shape[1])
    return torch.rad2deg(torch.atan2((found - angle).sin(), (found - angle).cos()).abs())


def in_quarters(x: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Return looks in their four quarter turns, and the angles."""
    copies = torch.cat([x.rot90(k, (2, 3)) for k in range(4)])
    return copies, torch.cat([angle + k * (math.pi / 2) for k in range(4)])


def trunk(backbone: LiteBackbone, x: Tensor) -> Tensor:
    """Return what the blocks that never learn make of looks."""
    features: Tensor = backbone.stem(x.contiguous(memory_format=torch.channels_last))
    return backbone.blocks[:FROZEN](features)  # type: ignore[no-any-return]


@torch.no_grad()
def gathered(
    network: nn.Sequential, mix: list[Source], count: int, seed: int, batch: int = 32
) -> tuple[Tensor, Tensor]:
    """Return what all blocks make of looks, ``(count, C, h, w)`` in bfloat16, and their angles."""
    backbone = network[0]
    draws, rng = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    features, angles = [], []
    for _ in range(0, count, 4 * batch):
        x, angle = in_quarters(*drawn(mix, batch, SIZE, draws, rng))
        features.append(backbone.blocks[FROZEN:](trunk(backbone, x)).contiguous())
        angles.append(angle)
    return torch.cat(features), torch.cat(angles)


def groups_of(network: nn.Sequential, rate: float, whole: bool) -> list[dict[str, Any]]:
    """Return the parameters that learn: the head at 2.5 times the rate, and if wanted the later blocks."""
    backbone, judge = network[0], network[1]
    parts = [([backbone.deep, backbone.out, judge], 2.5 * rate)]
    if whole:
        parts.append((list(backbone.blocks[FROZEN:]), rate))
    groups = []
    for modules, peak in parts:
        values = [p for m in modules for p in m.parameters()]
        many, few = [p for p in values if p.dim() > 1], [p for p in values if p.dim() < 2]
        groups += [
            {"params": many, "weight_decay": 0.05, "peak": peak, "lr": peak},
            {"params": few, "weight_decay": 0.0, "peak": peak, "lr": peak},
        ]
    return groups


def follow(groups: list[dict[str, Any]], done: float) -> None:
    """Set the learning rates after a share of the stage: a short rise, then a cosine."""
    share = done / 0.03 if done < 0.03 else 0.5 * (1 + math.cos(math.pi * (done - 0.03) / 0.97))
    for group in groups:
        group["lr"] = group["peak"] * share


def step(network: nn.Sequential, optimizer: torch.optim.Optimizer, features: Tensor, angle: Tensor) -> float:
    """Take one step from what all blocks made of looks; return the loss."""
    loss = loss_of(network[1](network[0].described(features)), angle)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], 2.0)
    optimizer.step()
    return loss.item()


@torch.no_grad()
def report(what: str, network: nn.Sequential, features: Tensor, angle: Tensor) -> None:
    """Print how far single looks at held-back pictures, and the means of four, are from the truth."""
    network.eval()
    logits = network[1](network[0].described(features).float())
    parts = logits.log_softmax(-1).unflatten(0, (-1, 4, 32))
    back = [parts[:, k].roll(-k * (RAYS // 4), -1) for k in range(4)]
    upright_angle = angle.unflatten(0, parts.shape[:3])[:, 0].flatten()
    for name, said, true in (
        ("one look", logits, angle),
        ("four", (sum(back) / 4).flatten(0, 1), upright_angle),
    ):
        off = errors(said, true)
        near = off[off <= 22.5]
        print(
            f"{time.strftime('%H:%M')} {what}: {name}, loss {float(loss_of(said, true)):.3f}, within 22.5 "
            f"degrees {len(near) / len(off):.3f}, of these median {float(near.median()):.1f}",
            flush=True,
        )


def fit_head(network: nn.Sequential, seen: tuple[Tensor, Tensor], options: argparse.Namespace) -> None:
    """Train the head on what was gathered."""
    features, angle = seen
    size = min(256, len(angle))
    steps, rng = options.epochs * (len(angle) // size), torch.Generator().manual_seed(options.seed)
    groups = groups_of(network, 1e-3, whole=False)
    optimizer = torch.optim.AdamW(groups)
    network.train()
    for i in range(steps):
        follow(optimizer.param_groups, i / steps)
        picked = torch.randint(len(angle), (size,), generator=rng)
        step(network, optimizer, features[picked], angle[picked])


def fit_whole(
    network: nn.Sequential, mix: list[Source], held: tuple[Tensor, Tensor], options: argparse.Namespace
) -> nn.Sequential:
    """Train the later blocks with the head, by the clock; return the running average of the weights."""
    draws, rng = np.random.default_rng(options.seed + 2), torch.Generator().manual_seed(options.seed + 2)
    optimizer = torch.optim.AdamW(groups_of(network, options.learning_rate, whole=True), betas=(0.9, 0.99))
    average, backbone = copy.deepcopy(network), network[0]
    began = last = time.monotonic()
    losses: list[float] = []
    count = 0
    while (done := (time.monotonic() - began) / (60 * options.minutes)) < 1:
        follow(optimizer.param_groups, done)
        network.train()
        x, angle = in_quarters(*drawn(mix, options.batch_size, SIZE, draws, rng))
        with torch.no_grad():
            features = trunk(backbone, x)
        losses.append(step(network, optimizer, backbone.blocks[FROZEN:](features), angle))
        count += 1
        with torch.no_grad():
            for mean, value in zip(average.parameters(), network.parameters(), strict=True):
                mean.lerp_(value, 1 - min(0.998, (count + 1) / (count + 10)))
        if time.monotonic() - last > 240:
            last, what = time.monotonic(), f"{done:.0%}, {count} steps, loss {np.mean(losses):.3f}"
            with torch.no_grad():
                report(what, average, average[0].blocks[FROZEN:](held[0]), held[1])
            save(average, options)
            losses = []
    print(f"{count} steps of {options.batch_size} pictures in four poses")
    return average


@torch.no_grad()
def held_looks(network: nn.Sequential, mix: list[Source], count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return what the blocks that never learn make of looks at held-back pictures, and the angles."""
    draws, rng = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    parts = [in_quarters(*drawn(mix, 32, SIZE, draws, rng)) for _ in range(0, count, 128)]
    return torch.cat([trunk(network[0], x) for x, _ in parts]), torch.cat([angle for _, angle in parts])


def save(network: nn.Sequential, options: argparse.Namespace) -> None:
    """Write the weights."""
    options.output.mkdir(parents=True, exist_ok=True)
    state = {k: v.contiguous() for k, v in network.state_dict().items()}
    save_file(state, options.output / "network.safetensors")


def main() -> None:
    """Run the command line."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--output", type=Path, default=Path("runs/photo-so2"))
    options.add_argument("--looks", type=int, default=40_000, help="that the head learns from")
    options.add_argument("--epochs", type=int, default=10, help="of the head alone")
    options.add_argument("--minutes", type=float, default=40.0, help="of the head and the later blocks")
    options.add_argument("--held", type=int, default=2048, help="looks at held-back pictures")
    options.add_argument("--batch-size", type=int, default=32, help="pictures, each in four poses")
    options.add_argument("--learning-rate", type=float, default=2e-4)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--smoke", action="store_true", help="seconds, on 32 pictures")
    given = options.parse_args()
    if given.smoke:
        given.looks, given.held, given.epochs, given.minutes, given.batch_size = 128, 128, 2, 0.03, 8
    torch.set_num_threads(given.threads)
    torch.manual_seed(given.seed)
    network = angle_network(quick=True)
    mix = sources(given.smoke)
    held = held_looks(network, mix if given.smoke else held_back(1000), given.held, given.seed + 1)
    fit_head(network, gathered(network, mix, given.looks, given.seed), given)
    with torch.no_grad():
        report("the head alone", network, network[0].blocks[FROZEN:](held[0]), held[1])
    save(network, given)
    average = fit_whole(network, mix, held, given)
    with torch.no_grad():
        report("the end", average, average[0].blocks[FROZEN:](held[0]), held[1])
    save(average, given)


if __name__ == "__main__":
    main()
