"""Canonicalizers of point clouds: how exact, how equivariant what is adapted, and how fast.

    python -m benchmarks.clouds

Clouds are Gaussian, stretched and about some place; predictors are random and heed no symmetry. Times of
adapted predictors stand beside those of the same predictors, bare.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import upright
from benchmarks.record import paired_ratio, parser, start, times_ms, write
from upright.actions import act
from upright.canonicalizers import Canonicalizer
from upright.kinds_space import Cloud, Vectors
from upright.nets.points import DGCNN, PointNet

GROUPS = ("SO3", "O3", "SE3", "E3")
NAMES = ("pca", "minimal", "vector_neurons", "spherical")


def clouds(count: int, points: int, generator: torch.Generator) -> Tensor:
    stretch = torch.tensor([1.0, 0.8, 0.6])
    return torch.randn(count, points, 3, generator=generator) * stretch + 0.2


def invariance(c: Canonicalizer, x: Tensor, generator: torch.Generator) -> dict[str, float]:
    """Return how far the canonical form moves when the cloud does: the farthest point of each cloud."""
    g = c.group.sample(len(x), generator=generator)
    forms = [act(c(y).element.inverse(), Cloud(y)).data for y in (x, act(g, Cloud(x)).data)]
    off = (forms[0] - forms[1]).abs().amax((1, 2)).double()
    return {"median": float(off.median()), "p99": float(off.quantile(0.99)), "worst": float(off.max())}


def equivariance(c: Canonicalizer, points: int, trials: int, generator: torch.Generator) -> float:
    """Return the largest error of vectors of adapted random predictors, relative to the largest entry."""
    worst = 0.0
    for trial in range(trials):
        torch.manual_seed(trial)
        model = nn.Sequential(nn.Flatten(), nn.Linear(3 * points, 32), nn.Tanh(), nn.Linear(32, 3))
        robust = upright.adapt(model, c.group, canonicalizer=c, outputs="vectors")
        x = clouds(32, points, generator)
        g = c.group.sample(32, generator=generator)
        moved, after = act(g, Vectors(robust(x))).data, robust(act(g, Cloud(x)).data)
        worst = max(worst, float((moved - after).abs().max() / moved.abs().max()))
    return worst


def per_cloud(c: nn.Module, x: Tensor, repeats: int) -> dict[str, float]:
    """Return milliseconds a cloud: least and median on the clock, and processor time of one thread."""
    clock, threads = times_ms(lambda: c(x), repeats=repeats), torch.get_num_threads()
    torch.set_num_threads(1)
    began = time.process_time()
    for _ in range(repeats):
        c(x)
    processor = 1e3 * (time.process_time() - began) / repeats
    torch.set_num_threads(threads)
    values = {
        "clock_least": min(clock),
        "clock_median": sorted(clock)[len(clock) // 2],
        "processor_one_thread": processor,
    }
    return {name: round(value / len(x), 4) for name, value in values.items()}


def beside(x: Tensor, repeats: int) -> dict[str, Any]:
    """Return milliseconds a cloud of predictors, bare and adapted, and the ratio of pairs run in turn."""
    predictors = {"PointNet": PointNet(40), "DGCNN, width 0.25": DGCNN(40, width=0.25, neighbours=10)}
    figures: dict[str, Any] = {}
    for title, model in predictors.items():
        figures[title] = {"bare": per_cloud(model.eval(), x, repeats)}
        for name in ("spherical", "pca"):
            finder = upright.canonicalizer("SO3", name)
            robust = upright.adapt(
                model, "SO3", canonicalizer=finder, inputs={0: "cloud"}, outputs="logits"
            ).eval()
            pairs = paired_ratio(partial(robust, x), partial(model, x), repeats=repeats, warmup=0)
            figures[title][name] = {**per_cloud(robust, x, repeats), **pairs}
    return figures


@torch.no_grad()
def main() -> None:
    options = parser(__doc__ or "").parse_args()
    start(options)
    count, trials, repeats = (8, 1, 1) if options.smoke else (1000, 10, 15)
    generator = torch.Generator().manual_seed(options.seed)
    figures: dict[str, Any] = {}
    for name in NAMES:
        for group in GROUPS:
            torch.manual_seed(options.seed)
            c = upright.canonicalizer(group, name).eval()
            figures[f"{name} {group}"] = {
                "canonical form, 64 points": invariance(c, clouds(count, 64, generator), generator),
                "canonical form, 5 points": invariance(c, clouds(count, 5, generator), generator),
                "equivariance error of adapted predictors": equivariance(c, 8, trials, generator),
                "ms a cloud of 1024, batch 32": per_cloud(c, clouds(32, 1024, generator), repeats),
            }
    torch.manual_seed(options.seed)
    size = 64 if options.smoke else 1024
    figures["predictors"] = beside(clouds(32, size, generator), (repeats + 2) // 3)
    write(
        "clouds",
        figures,
        options,
        load="other processes may share the cores; see processor time",
        predictors="ms a cloud of 1024, batch 32, SO3",
    )


if __name__ == "__main__":
    main()
