"""Learning curves and ablations: steps, network, resolution, prior weight, estimator, top_k.

    python -m benchmarks.ablations

CIFAR-10, C4, the published ResNet-20. *Curves*: canonicalizers trained from nothing on upright pictures
without labels, the predictor frozen, measured as they learn: each network of the library, the default one at
three resolutions, and one begun from a trained trunk. *Joint*: predictor and default canonicalizer trained
together for a few steps, over prior weights and gradient estimators. *top_k*: accuracy and passes over the
probability that is covered, with the last canonicalizer of the curves. Budgets are small: the figures rank
settings, they do not show what long training gives.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

import upright
from benchmarks.cifar import HELD_BACK, Jitter, Unit
from benchmarks.models import cifar_resnet
from benchmarks.pictures import pictures
from benchmarks.record import parser, start, write
from benchmarks.setups import Labelled

NETWORKS: dict[str, dict[str, Any]] = {
    "orbit, 32 pixels": {"network": "orbit", "size": 32},
    "orbit, 24 pixels": {"network": "orbit", "size": 24},
    "orbit, 16 pixels": {"network": "orbit", "size": 16},
    "group_cnn, 32 pixels": {"network": "group_cnn", "size": 32},
    "polar, 32 pixels": {"network": "polar", "size": 32, "options": {"rays": 64, "rings": 16}},
    "trunk of a trained ResNet-20": {
        "network": "benchmarks.models:warm_scorer",
        "size": None,
        "standardize": False,
        "options": {"depth": 20},
    },
}
WEIGHTS = (0.0, 0.1, 1.0, 10.0)
ESTIMATORS = ("straight_through", "soft", "gumbel", "score_function")
COVERS = (0.5, 0.7, 0.9, 0.99, 1.0)


@torch.no_grad()
def scored(robust: upright.Adapted, x: Tensor, y: Tensor) -> dict[str, float]:
    """Accuracy (the same at every quarter turn), how many upright pictures are left alone, passes."""
    robust.eval()
    runs = [robust.run(part) for part in x.split(250)]
    guess = torch.cat([run.output.argmax(-1) for run in runs])
    still = torch.cat([run.pose.element.is_identity() & ~run.pose.is_tied for run in runs])
    return {
        "accuracy": round(100 * float((guess == y).float().mean()), 2),
        "identity_rate": round(float(still.float().mean()), 4),
        "passes": round(float(torch.cat([run.passes for run in runs]).float().mean()), 3),
    }


def curve(settings: dict[str, Any], data: Tensor, test: Any, options: Any) -> tuple[Any, Any]:
    """Train from nothing in equal pieces of one schedule without decay; measure after each."""
    torch.manual_seed(options.seed)
    made = upright.canonicalizer("C4", **settings)
    robust = upright.adapt(cifar_resnet(20), "C4", canonicalizer=made)
    points = []
    for piece in range(2 if options.smoke else options.pieces):
        result = upright.fit(
            robust, Unit(data), max_steps=2 if options.smoke else options.steps // options.pieces,
            epochs=1000, batch_size=64, learning_rate=2e-3, schedule="constant", average=0.98,
            augment=Jitter(), calibrate=False, seed=options.seed + piece, progress=False,
        )  # fmt: skip
        steps = (piece + 1) * (options.steps // options.pieces)
        points.append({"steps": steps, **scored(robust, *test), "loss": result.history[-1]["prior_loss"]})
        print(points[-1], flush=True)
    return points, robust


def joint(options: Any, test: Any, *, weight: float = 1.0, estimator: str = "straight_through") -> Any:
    x, y = pictures("cifar10", "train", limit=256 if options.smoke else None)
    made = upright.canonicalizer("C4", size=32, estimator=estimator)
    robust = upright.adapt(copy.deepcopy(cifar_resnet(20)), "C4", canonicalizer=made)
    upright.fit(
        robust, Labelled(x, y), setup="joint", max_steps=2 if options.smoke else options.joint_steps,
        epochs=1000, batch_size=64, learning_rate=2e-3, predictor_learning_rate=2e-4, prior_weight=weight,
        predictor_augment=Jitter(), augment=False, average=0.98, calibrate=False, seed=options.seed,
        progress=False,
    )  # fmt: skip
    row = scored(robust, *test)
    print("joint", weight, estimator, row, flush=True)
    return row


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--steps", type=int, default=400, help="of each learning curve")
    options.add_argument("--pieces", type=int, default=4, help="points of each learning curve")
    options.add_argument("--joint-steps", type=int, default=200)
    options.add_argument("--limit", type=int, default=2000, help="test pictures")
    chosen = options.parse_args()
    start(chosen)
    data = torch.cat([pictures("cifar10", "train")[0][HELD_BACK:], pictures("cifar100", "train")[0]])
    x, y = pictures("cifar10", "test", limit=32 if chosen.smoke else chosen.limit)
    test = (x.float() / 255, y)
    figures: dict[str, Any] = {"curves": {}, "prior weight": {}, "estimator": {}, "top_k": {}}
    for name, settings in NETWORKS.items():
        print(name, flush=True)
        figures["curves"][name], robust = curve(settings, data, test, chosen)
    for cover in COVERS:
        several = upright.Adapted(robust.model, robust.canonicalizer, mode="top_k", cover=cover)
        figures["top_k"][str(cover)] = scored(several, *test)
    for weight in WEIGHTS:
        figures["prior weight"][str(weight)] = joint(chosen, test, weight=weight)
    for estimator in ESTIMATORS[1:]:
        figures["estimator"][estimator] = joint(chosen, test, estimator=estimator)
    figures["estimator"][ESTIMATORS[0]] = figures["prior weight"]["1.0"]
    write("ablations", figures, chosen, steps=chosen.steps, joint_steps=chosen.joint_steps, pictures=len(x))


if __name__ == "__main__":
    main()
