"""CIFAR-10 at every angle: a frozen, published ResNet-20 behind a continuous canonicalizer.

    python -m benchmarks.angles --steps 3000 --limit 1000 --threads 1

The canonicalizer of SO2 is trained from nothing, without labels, on upright pictures of CIFAR-10 (train),
CIFAR-100 and Tiny-ImageNet (train). Accuracy over angles in equal steps, with the worst, of the bare model;
adapted; adapted with the likeliest poses weighted (top_k); and turned back by the true angle. Pictures are
turned with their corners (the edge is repeated beyond the border), so that the true angle, too, loses to
resampling twice and to cut corners.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import Tensor

import upright
from benchmarks.cifar import Jitter, training_pictures
from benchmarks.models import cifar_resnet
from benchmarks.pictures import pictures
from benchmarks.record import parser, start, write
from benchmarks.turns import quantiles, train, turned

TRUNK = {"widths": (16, 24, 40, 48), "rays": 64, "rings": 12, "blur": 0.8, "mirror": True, "twice": True}
SETTINGS = {"size": 32, "options": TRUNK}


def percent(right: Tensor) -> float:
    return round(100 * float(right.float().mean()), 2)


@torch.no_grad()
def guesses(model: Any, x: Tensor) -> Tensor:
    return torch.cat([model(part).argmax(-1) for part in x.split(100)])


def summary(accuracies: list[float]) -> dict[str, Any]:
    mean = sum(accuracies) / len(accuracies)
    return {"mean": round(mean, 2), "worst": min(accuracies), "angles": accuracies}


@torch.no_grad()
def measure(robust: upright.Adapted, x: Tensor, y: Tensor, step: float) -> dict[str, Any]:
    several = robust.replace(mode="top_k", top_k=4, cover=0.8)
    rows: dict[str, list[float]] = {"bare": [], "adapted": [], "top_k": [], "true_angle": []}
    still = torch.cat([robust.pose(part).element.value for part in x.split(100)])
    gaps, passes = [], []
    degrees = torch.arange(0, 360, step)
    for angle in degrees.tolist():
        g = upright.SO2().element(degrees=torch.full((len(x),), angle))
        moved = turned(x, g)
        runs = [robust.run(part) for part in moved.split(100)]
        poses = upright.Element(g.group, torch.cat([run.pose.element.value for run in runs]))
        gaps.append(torch.rad2deg((g @ upright.Element(g.group, still)).distance(poses)))
        many = [several.run(part) for part in moved.split(100)]
        passes.append(torch.cat([run.passes for run in many]).float().mean())
        guess = {
            "bare": guesses(robust.model, moved),
            "adapted": torch.cat([run.output.argmax(-1) for run in runs]),
            "top_k": torch.cat([run.output.argmax(-1) for run in many]),
            "true_angle": guesses(robust.model, turned(moved, ~g)),
        }
        for name, found in guess.items():
            rows[name].append(percent(found == y))
    away = upright.Element(upright.SO2(), still).distance(upright.SO2().identity())
    return {
        "pictures": len(x),
        "degrees": degrees.tolist(),
        "accuracy": {name: summary(row) for name, row in rows.items()},
        "passes_of_top_k": round(float(torch.stack(passes).mean()), 3),
        "pose_error_degrees": quantiles(torch.cat(gaps)),
        "upright_within_15_degrees": round(float((torch.rad2deg(away) <= 15).double().mean()), 4),
    }


def run(options: argparse.Namespace) -> dict[str, Any]:
    data = training_pictures(1)
    data = data[:256] if options.smoke else data
    x, y = pictures("cifar10", "test", limit=20 if options.smoke else options.limit)
    c = upright.canonicalizer("SO2", **SETTINGS)
    robust = upright.adapt(cifar_resnet(20), "SO2", canonicalizer=c)
    seconds = train(robust, data, None, options, steps=options.steps, augment=Jitter(subpixel=0.5))
    if not options.smoke:
        robust.save_pretrained(options.output)
    robust.eval()
    step = 90.0 if options.smoke else options.step
    figures = measure(robust, x.float() / 255, y, step)
    training = {"steps": options.steps, "batch": 64, "seconds_of_one_core": round(seconds)}
    return figures | {
        "training": training,
        "settings": SETTINGS,
        "parameters": sum(p.numel() for p in c.parameters()),
    }


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--steps", type=int, default=1500)
    options.add_argument("--limit", type=int, default=1000)
    options.add_argument("--step", type=float, default=15.0, help="degrees between angles")
    options.add_argument("--output", default="runs/so2-cifar")
    chosen = options.parse_args()
    start(chosen)
    write("angles", run(chosen), chosen, border="edge", interpolation="bilinear")


if __name__ == "__main__":
    main()
