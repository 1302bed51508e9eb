"""Accuracy over the share of turned inputs: one pass, gates, deployment priors (given, estimated), averages.

    python -m benchmarks.confidence --canonicalizer runs/cifar-c4/canonicalizer

Everything follows from two tables, the posterior of the pose and the predictor's answer at every quarter
turn of every picture, which the adapter itself then reads (``upright.evaluation.recorded``). Tables of the
predictor are those of ``benchmarks.photo``. Priors are estimated from one sample of inputs without labels at
each share, and again, for the error of the estimate, from samples of few inputs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from torch import Tensor

import upright
from benchmarks.models import cifar_resnet
from benchmarks.photo import SETS, answers, load, posterior
from benchmarks.pictures import CACHE, pictures
from benchmarks.record import DATA, parser, rounded, start, write
from upright.evaluation.calibration import calibration
from upright.evaluation.recorded import recorded
from upright.evaluation.shares import TURNED, accuracy_by_share, default_rows
from upright.integrations.models import load_model

FEW = (25, 100, 400)
"""Numbers of unlabelled inputs that a prior is estimated from."""


@torch.no_grad()
def tables(name: str, options: Any) -> tuple[Tensor, Tensor, Tensor, float]:
    """Return log-probabilities of poses ``(N, 4, 4)`` and class scores ``(N, 4, K)`` of pictures at every
    pose, their labels, and the temperature of the canonicalizer; the tables are kept in the cache."""
    cifar = name == "cifar10"
    canonicalizer = (
        upright.load_canonicalizer(options.canonicalizer, trust_code=True)
        if cifar and not options.smoke
        else upright.load_canonicalizer("photo-c4")
    )
    if cifar:
        x, y = pictures("cifar10", "test", limit=options.limit)
        x = x.float() / 255
        file = CACHE / f"resnet20-cifar10-test-{len(x)}.pt"
        if not file.exists():
            model = cifar_resnet(20)
            turns = [torch.cat([model(p.rot90(-g, (2, 3))) for p in x.split(100)]) for g in range(4)]
            CACHE.mkdir(parents=True, exist_ok=True)
            torch.save(torch.stack(turns, 1), file)
        scores = torch.load(file, weights_only=True)
    else:
        loaded = load_model("efficientnet-lite0")
        limit = options.limit if options.smoke or name == "tiny_imagenet" else None
        x, y = load(name, "test", min(limit, 1000) if limit else None, loaded.preprocess)
        scores = answers(loaded.model, x, f"{name}-test")
        if name == "tiny_imagenet":
            column = pq.read_table(DATA / SETS[name] / "train.parquet", columns=["label"])["label"]
            classes = torch.tensor(sorted(set(column.to_pylist())))
            scores, y = scores[..., classes], torch.searchsorted(classes, y)
    log_p = posterior(canonicalizer, x)
    moved = torch.stack([log_p.roll(h, 1) for h in range(4)], 1)  # that of the picture turned by h
    return moved, scores[:, [0, 3, 2, 1]], y, float(canonicalizer.temperature)


def rows(robust: upright.Adapted) -> dict[str, Any]:
    """The rows of the library, with more gates, and a given prior with several passes."""
    found = default_rows(robust)
    one = found["one pass"]
    for threshold in (0.7, 0.9):
        found[f"gate {threshold}"] = one.replace(gate=upright.Gate(threshold=threshold))
    return found


def few(robust: upright.Adapted, keys: Tensor, turned: float, draws: int) -> dict[str, float]:
    """Error of the estimated share of upright inputs, and how often its interval covers, from few inputs."""
    found = {}
    for count in FEW:
        rng = torch.Generator().manual_seed(0)
        errors, covered = [], []
        for draw in range(draws):
            sample = keys[torch.randint(0, len(keys), (count,), generator=rng)]
            pose = torch.randint(1, 4, (count,), generator=rng)
            pose[torch.rand(count, generator=rng) >= turned] = 0
            sample = upright.act(robust.group.element(pose), upright.Image(sample)).data
            estimate = upright.estimate_prior(robust, sample, draws=100, seed=draw)
            errors.append(estimate.upright - (1 - turned))
            covered.append(float(estimate.low[0]) <= 1 - turned <= float(estimate.high[0]))
        errors_ = torch.tensor(errors)
        found[str(count)] = {
            "rms_error": float(errors_.square().mean().sqrt()),
            "bias": float(errors_.mean()),
            "interval_covers": sum(covered) / len(covered),
        }
    return found


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--canonicalizer", type=Path, default=Path("runs/cifar-c4/canonicalizer"))
    options.add_argument("--limit", type=int, default=2000, help="pictures of CIFAR-10")
    options.add_argument("--draws", type=int, default=20, help="samples of few inputs")
    given = options.parse_args()
    start(given)
    if given.smoke:
        given.limit, given.draws = 12, 2
    figures: dict[str, Any] = {}
    for name in (*SETS, "cifar10"):
        log_p, scores, y, temperature = tables(name, given)
        base = upright.adapt(_asked_never, "C4", canonicalizer="photo-c4")
        robust, keys = recorded(base, log_p, scores)
        curve = accuracy_by_share(robust, keys, y, rows=rows, record_first=False)
        report = calibration(robust, keys)
        figures[name] = {
            **curve.to_dict(),
            "best": [curve.best(i) for i in range(len(TURNED))],
            "calibration": {
                "pose_accuracy": report.accuracy.value,
                "mean_confidence": report.confidence,
                "error": report.error,
                "refitted_error": report.refitted_error,
                "temperature": temperature,
                "refitted_temperature": temperature * report.temperature,
            },
            "prior_from_few_5%_turned": few(robust, keys, 0.05, given.draws),
        }
    write("confidence", rounded(figures), given, predictors="efficientnet-lite0 (photo-c4); ResNet-20")


def _asked_never(x: Tensor) -> Tensor:
    raise RuntimeError("the record answers instead")


if __name__ == "__main__":
    main()
