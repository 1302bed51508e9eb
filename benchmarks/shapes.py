"""Made-up shapes turned in space: PointNet and DGCNN, bare and adapted.

    python -m benchmarks.shapes

Protocols are named after what turns in training and in the test: z/z, z/SO3, SO3/SO3. Rows of z/SO3:

* bare: trained on upright shapes turned about z;
* vector neurons: the same predictor behind a canonicalizer that was fitted to aligned shapes, without labels;
* principal axes: trained, from the same shapes turned about z, behind `PCAFrame`, and tested behind it.

The shapes are synthetic (`upright.data.shapes`); figures say nothing of ModelNet.
"""

from __future__ import annotations

import time
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import upright
from benchmarks.record import median_ms, parser, start, write
from upright import SO3
from upright.canonicalizers import PCAFrame, VectorNeuronCanonicalizer
from upright.data import CloudSet, make_shapes
from upright.nets.points import DGCNN, PointNet

PREDICTORS = {
    "PointNet": lambda classes: PointNet(classes, width=0.5, transforms=False),
    "DGCNN": lambda classes: DGCNN(classes, width=0.25, neighbours=12),
}


def turned(points: Tensor, how: str, generator: torch.Generator) -> Tensor:
    """Turn every cloud ``(B, N, 3)`` at random: about z, or in any way."""
    if how == "z":
        angle = torch.rand(len(points), generator=generator) * 2 * torch.pi
        c, s, o = angle.cos(), angle.sin(), torch.zeros(len(points))
        rotation = torch.stack([c, -s, o, s, c, o, o, o, o + 1], -1).reshape(-1, 3, 3)
    else:
        group = SO3()
        rotation = group.rotation(group.sample(len(points), generator=generator)).to(points)
    return points @ rotation.mT


def train(model: Any, trained: nn.Module, data: CloudSet, how: str, epochs: int, seed: int) -> float:
    """Train ``trained`` through ``model``; returns seconds."""
    rng = torch.Generator().manual_seed(seed)
    batch = min(32, len(data))
    steps = len(data) // batch * epochs
    optimizer = torch.optim.AdamW(trained.parameters(), 2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps + 1)
    began = time.perf_counter()
    trained.train()
    for _ in range(steps):
        index = torch.randint(len(data), (batch,), generator=rng)
        loss = F.cross_entropy(model(turned(data.points[index], how, rng)), data.labels[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    trained.eval()
    return time.perf_counter() - began


@torch.no_grad()
def accuracy(model: Any, data: CloudSet, how: str) -> float:
    """Return the share of right answers to a fixed draw of turns."""
    points = turned(data.points, how, torch.Generator().manual_seed(99))
    answers = torch.cat([model(part).argmax(-1) for part in points.split(64)])
    return float((answers == data.labels).float().mean())


def adapted(model: nn.Module, canonicalizer: Any, mode: Any = "canonical") -> Any:
    return upright.adapt(
        model, "SO3", canonicalizer=canonicalizer, mode=mode, inputs={"points": "cloud"}, outputs="logits"
    ).eval()


def protocols(name: str, data: CloudSet, test: CloudSet, finder: Any, epochs: int, seed: int) -> Any:
    """Train one predictor for every protocol and test it."""

    def fresh() -> nn.Module:
        torch.manual_seed(seed)
        return PREDICTORS[name](len(data.class_names))

    upright_model, turned_model, canonical_model = fresh(), fresh(), fresh()
    framed = adapted(canonical_model, PCAFrame("SO3"))
    seconds = {
        "z": train(upright_model, upright_model, data, "z", epochs, seed),
        "SO3": train(turned_model, turned_model, data, "SO3", epochs, seed),
        "principal axes": train(framed, canonical_model, data, "z", epochs, seed),
    }
    averaged = adapted(canonical_model, PCAFrame("SO3"), "weighted")
    found = adapted(upright_model, finder)
    rows = {
        "z/z bare": accuracy(upright_model, test, "z"),
        "z/SO3 bare": accuracy(upright_model, test, "SO3"),
        "z/SO3 vector neurons": accuracy(found, test, "SO3"),
        "z/SO3 principal axes": accuracy(framed, test, "SO3"),
        "z/SO3 principal axes, weighted": accuracy(averaged, test, "SO3"),
        "SO3/SO3 bare": accuracy(turned_model, test, "SO3"),
    }
    x = test.points[:32]
    share = {row: rows[row] / rows["z/z bare"] for row in rows} if rows["z/z bare"] else {}
    with torch.no_grad():
        ms = {
            "bare": median_ms(lambda: upright_model(x), repeats=5) / len(x),
            "vector neurons": median_ms(lambda: found(x), repeats=5) / len(x),
            "principal axes": median_ms(lambda: framed(x), repeats=5) / len(x),
        }
    return {"accuracy": rows, "share_of_upright": share, "seconds_of_training": seconds, "ms_a_cloud": ms}


def main() -> None:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--per-class", type=int, default=60)
    options.add_argument("--points", type=int, default=256)
    options.add_argument("--epochs", type=int, default=12)
    options = options.parse_args()
    start(options)
    per_class, points, epochs = (
        (2, 32, 1) if options.smoke else (options.per_class, options.points, options.epochs)
    )
    data = make_shapes(per_class, points, noise=0.01, seed=options.seed)
    test = make_shapes(max(1, per_class // 2), points, noise=0.01, split="test", seed=options.seed)
    finder = VectorNeuronCanonicalizer("SO3")
    began = time.perf_counter()
    upright.fit(finder, data, augment=False, epochs=epochs, batch_size=32, progress=False, seed=options.seed)
    figures: dict[str, Any] = {
        "training": len(data), "test": len(test), "points": points, "epochs": epochs,
        "seconds_of_fitting_vector_neurons": time.perf_counter() - began,
    }  # fmt: skip
    finder.eval()
    for name in PREDICTORS:
        figures[name] = protocols(name, data, test, finder, epochs, options.seed)
    write("shapes", figures, options, data="synthetic: upright.data.make_shapes")


if __name__ == "__main__":
    main()
