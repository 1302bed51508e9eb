"""The four set-ups of the literature, jointly trained on CIFAR-10 with the same budget, C4.

    python -m benchmarks.setups --ready runs/cifar-c4/canonicalizer

A published ResNet-20 is fine-tuned on 20,000 labelled pictures: as it is, on turned pictures (group
augmentation), behind a learned canonicalizer (LC) without prior, and with prior. Both canonicalizers start
from the same state: an orbit scorer on the trunk of the same ResNet-20. Reported on the 10,000 test
pictures; LC is exact, so that its accuracy is the same at every pose. With ``--ready``, one row more: the
predictor is fine-tuned behind the canonicalizer of ``benchmarks.cifar``, which the prior trained without
labels and which stays as it is.
"""

from __future__ import annotations

import copy
import time
from typing import Any

import torch

import upright
from benchmarks.cifar import Jitter
from benchmarks.models import cifar_resnet
from benchmarks.pictures import pictures
from benchmarks.record import parser, start, write

SETUPS = {
    "vanilla": "vanilla fine-tuning",
    "augment": "group augmentation",
    "joint_no_prior": "LC, no prior",
    "joint": "LC + prior",
    "ready": "LC + prior, canonicalizer trained before",
}


class Labelled(torch.utils.data.Dataset[Any]):
    """uint8 pictures as float in [0, 1], with labels."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Any:
        return self.x[index].float() / 255, self.y[index]


def trained(setup: str, data: Any, options: Any) -> tuple[upright.Adapted, float]:
    predictor = copy.deepcopy(cifar_resnet(20))
    chosen: Any = "identity"
    if setup == "ready":
        chosen = upright.load_canonicalizer(options.ready, trust_code=True).requires_grad_(False)
    elif setup.startswith("joint"):
        settings = {"depth": 20}
        chosen = upright.canonicalizer(
            "C4", "benchmarks.models:warm_scorer", size=None, standardize=False, options=settings
        )
    robust = upright.adapt(predictor, "C4", canonicalizer=chosen)
    began = time.time()
    upright.fit(
        robust,
        data,
        setup="joint" if setup == "ready" else setup,  # type: ignore[arg-type]
        epochs=options.epochs,
        max_steps=2 if options.smoke else -1,
        batch_size=64,
        optimizer="sgd",
        learning_rate=0.02,
        predictor_learning_rate=0.01,
        weight_decay=5e-4,
        predictor_augment=Jitter(),
        augment=False,
        prior_weight=options.prior_weight,
        average=0.99,
        calibrate=False,
        precision="bf16-mixed",
        seed=options.seed,
        progress=False,
    )
    return robust, time.time() - began


@torch.no_grad()
def measured(robust: upright.Adapted, x: torch.Tensor, y: torch.Tensor) -> dict[str, Any]:
    accuracies, identity = [], []
    for g in upright.Cyclic(4).elements():
        right = 0
        for part, labels in zip(x.split(500), y.split(500), strict=True):
            run = robust.run(upright.act(g, upright.Image(part)).data)
            right += int((run.output.argmax(-1) == labels).sum())
            if int(g.value) == 0:
                identity.append(run.pose.element.is_identity() & ~run.pose.is_tied)
        accuracies.append(round(100 * right / len(x), 2))
    return {
        "upright": accuracies[0],
        "orbit_mean": round(sum(accuracies) / 4, 3),
        "poses": accuracies,
        "identity_rate": round(float(torch.cat(identity).float().mean()), 4),
    }


@torch.no_grad()
def adaptive(robust: upright.Adapted, x: torch.Tensor, y: torch.Tensor) -> dict[str, Any]:
    """Accuracy, at every pose, with top_k until 0.6 of the probability is covered (fixed beforehand)."""
    several = upright.Adapted(robust.model, robust.canonicalizer, mode="top_k", cover=0.6).eval()
    runs = [(several.run(part), labels) for part, labels in zip(x.split(500), y.split(500), strict=True)]
    right = sum(int((run.output.argmax(-1) == labels).sum()) for run, labels in runs)
    passes = torch.cat([run.passes for run, _ in runs]).float().mean()
    return {"adaptive": round(100 * right / len(x), 2), "passes": round(float(passes), 3)}


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--epochs", type=int, default=3)
    options.add_argument("--prior-weight", type=float, default=1.0)
    options.add_argument("--ready", help="folder of the canonicalizer of benchmarks.cifar")
    chosen = options.parse_args()
    start(chosen)
    x, y = pictures("cifar10", "train", limit=256 if chosen.smoke else None)
    test_x, test_y = pictures("cifar10", "test", limit=64 if chosen.smoke else None)
    figures = {}
    for setup, name in SETUPS.items():
        if setup == "ready" and not chosen.ready:
            continue
        robust, seconds = trained(setup, Labelled(x, y), chosen)
        row = measured(robust.eval(), test_x.float() / 255, test_y)
        if setup in ("vanilla", "augment"):
            row.pop("identity_rate")
        else:
            row |= adaptive(robust, test_x.float() / 255, test_y)
        figures[name] = {**row, "seconds": round(seconds)}
        print(name, figures[name], flush=True)
    vanilla, augmented = (figures[SETUPS[setup]] for setup in ("vanilla", "augment"))
    for name in (SETUPS["joint"], SETUPS["ready"]):
        if name in figures:
            figures[name] |= {
                "upright_against_vanilla": round(figures[name]["upright"] - vanilla["upright"], 2),
                "orbit_mean_against_augmentation": round(
                    figures[name]["orbit_mean"] - augmented["orbit_mean"], 2
                ),
            }
    write("setups", figures, chosen, epochs=chosen.epochs, predictor="ResNet-20", pictures=len(x))


if __name__ == "__main__":
    main()
