"""Every row of an evaluation on CIFAR-10, C4: what canonicalization is compared with, and what each costs.

    python -m benchmarks.baselines --canonicalizer runs/cifar-c4/canonicalizer --threads 1

The predictor is the published ResNet-20, frozen in all rows but that of the spatial transformer. There are
rows without training; those with the canonicalizer of ``benchmarks.cifar`` (one pass, top_k, weighted
means); and three baselines trained here on CIFAR-10's training pictures: a plain classifier of turns, learnt
weights of an average (on a tenth of them), a spatial transformer. Reported are the accuracy at the four
poses, predictor passes a picture, and the time against the bare model.
"""

from __future__ import annotations

import upright
from benchmarks.models import cifar_resnet
from benchmarks.pictures import pictures
from benchmarks.record import parser, start, write
from benchmarks.setups import Labelled
from upright import baselines
from upright.evaluation import Row

UNTRAINED = ("vanilla", "average", "tta", "lambda", "equizero", "posterior", "adapted", "oracle")


def trained_rows(robust: upright.Adapted, data: Labelled, epochs: int) -> list[Row]:
    """Train the baselines that need it."""
    few = Labelled(data.x[: len(data) // 10], data.y[: len(data) // 10])
    classifier = baselines.fit_classifier("C4", data, size=32, fitting=baselines.Fitting(epochs=epochs))
    weights = baselines.fit_weights(robust, few)
    rate = baselines.Fitting(epochs=max(1, epochs // 4), learning_rate=2e-3)
    transformer = baselines.fit_transformer(robust.model, data, size=32, fitting=rate)
    return [
        Row("classifier", lambda it: it.replace(canonicalizer=classifier), "plain classifier of turns"),
        Row.fixed("weights", weights, "average, learnt weights"),
        Row.fixed("transformer", transformer, "spatial transformer, trained jointly"),
    ]


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--canonicalizer", help="folder of the canonicalizer of benchmarks.cifar")
    options.add_argument("--limit", type=int, default=2000)
    options.add_argument("--epochs", type=int, default=8)
    chosen = options.parse_args()
    start(chosen)
    smoke = chosen.smoke
    if chosen.canonicalizer is None and not smoke:
        raise SystemExit("give --canonicalizer, the folder that benchmarks.cifar train has written")
    c = (
        upright.load_canonicalizer(chosen.canonicalizer, trust_code=True)
        if chosen.canonicalizer is not None
        else upright.canonicalizer("C4", size=None, standardize=False)
    )
    robust = upright.adapt(cifar_resnet(20), "C4", canonicalizer=c)
    data = Labelled(*pictures("cifar10", "train", limit=128 if smoke else None))
    test = Labelled(*pictures("cifar10", "test", limit=8 if smoke else chosen.limit))
    added = trained_rows(robust, data, 1 if smoke else chosen.epochs)
    several = Row("top_k", lambda it: it.replace(mode="top_k", cover=0.88, evidence=8.0), "adaptive top_k")
    report = upright.evaluate(robust, test, rows=[*UNTRAINED, several, *added], leakage=False, batch_size=100)
    figures = {}
    for name, row in report.rows.items():
        cost = row.cost
        chooser = report.choosers.get(name)
        figures[name] = {
            "upright": round(100 * row.upright.value, 2),
            "orbit_mean": round(100 * row.orbit_mean.value, 2),
            "worst": round(100 * row.worst.accuracy.value, 2),
            "passes": round(row.passes, 3),
            "parameters": None if cost is None else cost.parameters,
            "time_against_bare": None if cost is None else round(cost.time_ratio, 3),
            "poses_follow_turns": None if chooser is None else round(100 * (chooser.equivariance or 0.0), 2),
        }
    write("baselines", figures, chosen, predictor="ResNet-20", pictures=len(test))


if __name__ == "__main__":
    main()
