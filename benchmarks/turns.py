"""What the benchmarks of continuous rotations share: data, networks, random angles, pose errors."""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from torch import Tensor

import upright
from benchmarks.setups import Labelled


def train(robust: Any, x: Tensor, y: Tensor | None, options: argparse.Namespace, **settings: Any) -> float:
    """Train on uint8 pictures as `upright.fit` does; return the seconds of this process."""
    began = time.process_time()
    labels = torch.zeros(len(x), dtype=torch.long) if y is None else y
    upright.fit(
        robust, Labelled(x, labels), max_steps=2 if options.smoke else settings.pop("steps", -1),
        **{"epochs": 1000, "batch_size": 64, "seed": options.seed, "progress": False, "average": 0.98,
           "learning_rate": 4e-3, "held_back": 0.02, **{k: v for k, v in settings.items() if k != "steps"}},
    )  # fmt: skip
    return time.process_time() - began


def turned(x: Tensor, g: upright.Element) -> Tensor:
    """Turn pictures; beyond the border the edge is repeated."""
    parts = zip(g.value.split(100), x.split(100), strict=True)
    return torch.cat(
        [upright.act(upright.Element(g.group, v), upright.Image(part)).data for v, part in parts]
    )


def quantiles(errors: Tensor) -> dict[str, float]:
    """Summarise pose errors in degrees; above 15° another hill of the density was seen."""
    found = errors.double().quantile(torch.tensor([0.5, 0.9, 0.95], dtype=torch.float64)).tolist()
    names = ("median", "percentile_90", "percentile_95")
    return {n: round(v, 3) for n, v in zip(names, found, strict=True)} | {
        "share_above_15": round(float((errors > 15).double().mean()), 4)
    }
