"""Made-up shapes turned in space: PointNet and DGCNN, bare and adapted, for classes and for parts.

    python -m benchmarks.shapes
    python -m benchmarks.shapes parts

Protocols are named after what turns in training and in the test: z/z, z/SO3, SO3/SO3. Rows of z/SO3:

* bare: trained on upright shapes turned about z;
* oracle: the same predictor, the true rotation undone;
* spherical, vector neurons: the same predictor, frozen, behind a canonicalizer that was fitted to the
  training shapes, without labels; "up to 3": averaged over its likeliest poses;
* principal axes: trained, from the same shapes turned about z, behind `PCAFrame`, and tested behind it.

"Change under a turn": how far the outputs of the adapted predictor move, relative to their spread, when
the test clouds turn once more, and the share of answers that change.

Every figure is a mean over seeds, each with objects, weights and turns of its own, with the spread over
them. The shapes are synthetic (`upright.data.shapes`); figures say nothing of ModelNet or ShapeNet.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import upright
from benchmarks.record import parser, start, write
from upright import SO3
from upright.canonicalizers import (
    Canonicalizer,
    PCAFrame,
    SphericalCanonicalizer,
    VectorNeuronCanonicalizer,
)
from upright.data import CloudSet, make_shapes
from upright.nets.points import DGCNN, DGCNNParts, PointNet, PointNetParts
from upright.priors import MatrixFisherPrior

PREDICTORS = {
    "PointNet": lambda classes: PointNet(classes, width=0.5, transforms=False),
    "DGCNN": lambda classes: DGCNN(classes, width=0.25, neighbours=10),
}
PARTS = {
    "PointNet": lambda parts, classes: PointNetParts(parts, classes=classes, width=0.25, transforms=False),
    "DGCNN": lambda parts, classes: DGCNNParts(parts, classes=classes, width=0.25, neighbours=10),
}
UP = MatrixFisherPrior(30.0, upright=(0, 0, 1))
Judge = Callable[[Any, CloudSet, Tensor], float]


def rotations(count: int, how: str, generator: torch.Generator) -> Tensor:
    """Draw rotations ``(count, 3, 3)``: about z, or any."""
    if how == "SO3":
        return SO3().sample(count, generator=generator).value.float()
    angle = torch.rand(count, generator=generator) * 2 * torch.pi
    c, s, o = angle.cos(), angle.sin(), torch.zeros(count)
    return torch.stack([c, -s, o, s, c, o, o, o, o + 1], -1).reshape(-1, 3, 3)


def turned(points: Tensor, how: str, generator: torch.Generator) -> Tensor:
    """Turn every cloud ``(B, N, 3)`` at random."""
    return points @ rotations(len(points), how, generator).mT


def own_parts(data: CloudSet) -> Tensor:
    """Say which parts each class has, shape ``(classes, parts)``."""
    own = torch.zeros(len(data.class_names), len(data.part_names), dtype=torch.bool)
    for i, name in enumerate(data.class_names):
        own[i, data.parts_of[name]] = True
    return own


def train(
    model: Any, trained: nn.Module, data: CloudSet, how: str, epochs: int, seed: int, parts: bool = False
) -> None:
    """Train ``trained`` through ``model``, for classes or for the parts of the class, which is known."""
    own = own_parts(data)
    rng = torch.Generator().manual_seed(seed)
    batch = min(32, len(data))
    steps = len(data) // batch * epochs
    optimizer = torch.optim.AdamW(trained.parameters(), 2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps + 1)
    trained.train()
    for _ in range(steps):
        index = torch.randint(len(data), (batch,), generator=rng)
        points, labels = turned(data.points[index], how, rng), data.labels[index]
        if parts:
            logits = model(points, labels).masked_fill(~own[labels].unsqueeze(1), -torch.inf)
            loss = F.cross_entropy(logits.flatten(0, 1), data.parts[index].flatten())
        else:
            loss = F.cross_entropy(model(points), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    trained.eval()


@torch.no_grad()
def accuracy(model: Any, data: CloudSet, points: Tensor) -> float:
    """Return the share of right answers."""
    answers = torch.cat([model(part).argmax(-1) for part in points.split(64)])
    return float((answers == data.labels).float().mean())


@torch.no_grad()
def mean_iou(model: Any, data: CloudSet, points: Tensor) -> float:
    """Return the mean over clouds of the mean over their class's parts of intersection over union."""
    scores = []
    for part, labels, true in zip(points.split(64), data.labels.split(64), data.parts.split(64), strict=True):
        for logits, label, wanted in zip(model(part, labels), labels, true, strict=True):
            own = data.parts_of[data.class_names[label]]
            found = torch.tensor(own)[logits[:, own].argmax(-1)]
            ious = []
            for number in own:
                a, b = found == number, wanted == number
                ious.append(float((a & b).sum()) / float((a | b).sum()) if bool((a | b).any()) else 1.0)
            scores.append(statistics.mean(ious))
    return statistics.mean(scores)


def adapted(model: nn.Module, canonicalizer: Any, mode: Any = "canonical", **settings: Any) -> Any:
    outputs = settings.pop("outputs", "logits")
    return upright.adapt(
        model, "SO3", canonicalizer=canonicalizer, mode=mode, inputs={"points": "cloud"}, outputs=outputs,
        **settings,
    ).eval()  # fmt: skip


def finders(data: CloudSet, epochs: int, seed: int) -> tuple[dict[str, Canonicalizer], dict[str, float]]:
    """Fit what finds up, without labels; also return seconds of processor time."""
    made: dict[str, Canonicalizer] = {}
    seconds = {}
    torch.manual_seed(seed)
    for name, finder, settings in (
        ("spherical", SphericalCanonicalizer("SO3", heading=False), {"prior": UP}),
        ("vector neurons", VectorNeuronCanonicalizer("SO3"), {"augment": False}),
    ):
        began = time.process_time()
        upright.fit(
            finder, data.points, epochs=epochs, batch_size=min(32, len(data)), learning_rate=4e-3,
            progress=False, seed=seed, **settings,
        )  # fmt: skip
        made[name], seconds[name] = finder.eval(), time.process_time() - began
    return made, seconds


@torch.no_grad()
def tilts(finder: Canonicalizer, test: CloudSet, turns: Tensor) -> dict[str, float]:
    """Return how far what is found is from up, in degrees."""
    found = torch.cat([finder(x).element.value[..., 2] for x in (test.points @ turns.mT).split(64)])
    cosine = (found * turns[..., 2]).sum(-1).clamp(-1, 1)
    tilt = torch.rad2deg(cosine.acos())
    return {"median": float(tilt.median()), "share within 20 degrees": float((tilt < 20).double().mean())}


@torch.no_grad()
def changes(model: Any, data: CloudSet, points: Tensor, seed: int, *, parts: bool) -> dict[str, float]:
    """Return how far outputs move, relative to their standard deviation, when clouds turn once more."""
    rotation = rotations(len(data), "SO3", torch.Generator().manual_seed(seed + 199))
    given = zip(points.split(64), (points @ rotation.mT).split(64), data.labels.split(64), strict=True)
    off, changed, spread = [], [], []
    for before, after, labels in given:
        known = (labels,) if parts else ()
        a, b = model(before, *known), model(after, *known)
        off.append((a - b).abs().flatten(1).amax(1).double())
        changed.append((a.argmax(-1) != b.argmax(-1)).double().flatten())
        spread.append(a.double().std())
    error = torch.cat(off) / torch.stack(spread).mean()
    return {
        "change under a turn, median": float(error.median()),
        "change under a turn, 99th percentile": float(error.quantile(0.99)),
        "answers that change": float(torch.cat(changed).mean()),
    }


def protocols(
    make: Callable[[], nn.Module], judge: Judge, data: CloudSet, test: CloudSet,
    found: Mapping[str, Canonicalizer], epochs: int, seed: int, *, parts: bool,
) -> dict[str, float]:  # fmt: skip
    """Train one predictor for every protocol and test it."""

    def fresh() -> nn.Module:
        torch.manual_seed(seed)
        return make()

    outputs = "invariant" if parts else "logits"
    upright_model, turned_model, canonical_model = fresh(), fresh(), fresh()
    framed = adapted(canonical_model, PCAFrame("SO3"), outputs=outputs)
    train(upright_model, upright_model, data, "z", epochs, seed, parts)
    train(turned_model, turned_model, data, "SO3", epochs, seed, parts)
    train(framed, canonical_model, data, "z", epochs, seed, parts)
    rng = torch.Generator().manual_seed(seed + 99)
    about_z, any_way = (test.points @ rotations(len(test), how, rng).mT for how in ("z", "SO3"))
    rows = {
        "z/z bare": judge(upright_model, test, about_z),
        "z/SO3 bare": judge(upright_model, test, any_way),
        "z/SO3 oracle": judge(upright_model, test, test.points),
    }
    for name, finder in found.items():
        rows[f"z/SO3 {name}"] = judge(adapted(upright_model, finder, outputs=outputs), test, any_way)
    exact = changes(
        adapted(upright_model, found["spherical"], outputs=outputs), test, any_way, seed, parts=parts
    )
    several = adapted(upright_model, found["spherical"], "top_k", top_k=3, outputs=outputs)
    rows["z/SO3 spherical, up to 3"] = judge(several, test, any_way)
    rows["z/SO3 principal axes"] = judge(framed, test, any_way)
    averaged = adapted(canonical_model, PCAFrame("SO3"), "weighted", outputs=outputs)
    rows["z/SO3 principal axes, weighted"] = judge(averaged, test, any_way)
    rows["SO3/SO3 bare"] = judge(turned_model, test, any_way)
    upright_share = {f"{row}, share of z/z": rows[row] / max(rows["z/z bare"], 1e-9) for row in rows}
    shares = {row: share for row, share in upright_share.items() if row.startswith("z/SO3")}
    return {**rows, **shares, **exact}


def short(x: float) -> float:
    """Return four digits."""
    return float(f"{x:.4g}")


def summary(runs: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Return means over seeds, and half the range over them."""
    return {
        row: {
            "mean": short(statistics.mean(run[row] for run in runs)),
            "half_range": short((max(run[row] for run in runs) - min(run[row] for run in runs)) / 2),
        }
        for row in runs[0]
    }


def main() -> None:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--per-class", type=int, default=60)
    options.add_argument("--points", type=int, default=192)
    options.add_argument("--epochs", type=int, default=10)
    options.add_argument("--seeds", type=int, default=2)
    options.add_argument("task", nargs="?", choices=("classes", "parts"), default="classes")
    options = options.parse_args()
    start(options)
    per_class, points, epochs, seeds = options.per_class, options.points, options.epochs, options.seeds
    classes = None
    if options.smoke:
        per_class, points, epochs, seeds, classes = 2, 24, 1, 1, ["chair", "car", "tree"]
    parts = options.task == "parts"
    runs: dict[str, list[dict[str, float]]] = {}
    numbers = {"per_class": per_class, "points": points, "epochs": epochs}

    def record(name: str, row: dict[str, float]) -> None:
        runs.setdefault(name, []).append(row)
        print(name, row, flush=True)

    def keep() -> None:
        figures = {"training": len(data), "test": len(test), **numbers}
        figures |= {name: {"seeds": len(rows), **summary(rows)} for name, rows in runs.items()}
        write(
            "shapes-parts" if parts else "shapes",
            figures,
            options,
            data="synthetic: upright.data.make_shapes",
        )

    for seed in range(options.seed, options.seed + seeds):
        data, test = (
            make_shapes(count, points, classes=classes, noise=0.01, split=split, seed=seed)
            for count, split in ((per_class, "train"), (math.ceil(per_class / 2), "test"))
        )
        found, seconds = finders(data, 2 * epochs, seed)
        turns = rotations(len(test), "SO3", torch.Generator().manual_seed(seed))
        for name, finder in found.items():
            fitting = {"processor seconds of fitting": seconds[name]}
            record(f"up, {name}", {**fitting, **tilts(finder, test, turns)})
        sizes = (len(data.part_names), len(data.class_names)) if parts else (len(data.class_names),)
        judge, measure = (mean_iou, "mean IoU of parts") if parts else (accuracy, "accuracy")
        for name, make in (PARTS if parts else PREDICTORS).items():
            made = partial(make, *sizes)
            row = protocols(made, judge, data, test, found, epochs, seed, parts=parts)
            record(f"{measure}, {name}", row)
            keep()


if __name__ == "__main__":
    main()
