"""Poses without training: energies of frozen predictors over quarter turns, and a network taught by one.

    python -m benchmarks.energies cifar
    python -m benchmarks.energies tiny

For each energy: the share of the gap between the bare predictor and the oracle that it closes, over all four
poses (a quarter turn permutes pixels, and with them the four candidates: every pose has the same answer).
What the predictor says of the four turns of each picture is kept in the cache. References of distances are
upright training pictures; temperatures, weights of sums and the best energy are chosen on others of them.
Then that energy is distilled into the default small network, from yet other training pictures and their
mirror images in random poses, without labels.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import upright
from benchmarks.models import cifar_resnet
from benchmarks.photo import interval
from benchmarks.pictures import CACHE, photos, pictures
from benchmarks.record import DATA, paired_ratio, parser, rounded, start, write
from upright.canonicalizers import EnergyCanonicalizer
from upright.energies import (
    Energy,
    Entropy,
    Layers,
    LogitEnergy,
    Mahalanobis,
    MaxLogit,
    NearestFeatures,
    Sum,
)
from upright.energies.combine import fitted_weights
from upright.evaluation.degrade import reencoded
from upright.losses import moved_log_probs
from upright.training import distil

PART = 500
"""Pictures that are read, and kept in the cache, together."""
GRID = 4
"""Side of the grid that maps are pooled to: the layout must stay, or a turn could not be told."""


class Setting:
    """A predictor, the layers that energies read, and pictures that it takes.

    Args:
        name: ``"cifar"`` or ``"tiny"``.
        smoke: Whether a few pictures are enough.
        counts: How many pictures of each split there are.
    """

    def __init__(self, name: str, smoke: bool, counts: tuple[int, int, int, int] | None = None) -> None:
        self.name = name
        usual = (2000, 10_000, 2000, 8000) if name == "cifar" else (1000, 1500, 400, 1500)
        counts = (24, 60, 24, 24) if smoke else counts or usual
        self.counts = dict(zip(("test", "references", "tune", "taught"), counts, strict=True))
        starts = (0, 0, 10_000, 12_000) if name == "cifar" else (0, 0, 9000, 3000)
        self.starts = dict(zip(self.counts, starts, strict=True))
        if name == "cifar":
            self.model: nn.Module = cifar_resnet(20)
            self.layers, self.side = ["layer1", "layer2", "layer3"], 32
        else:
            from upright.integrations.models import load_model

            loaded = load_model("efficientnet-lite0")
            assert isinstance(loaded.model, nn.Module)
            self.model, self.preprocess, self.side = loaded.model, loaded.preprocess, 224
            self.layers = ["_blocks.4", "_blocks.10", "_blocks.14", "_blocks.15"]
        self.model = self.model.to(memory_format=torch.channels_last).eval()

    def parts(self, split: str) -> list[tuple[str, int, int]]:
        """Return source, start and end of the parts in which what the predictor says is kept."""
        first, source = self.starts[split], "test" if split == "test" else "train"
        last = first + self.counts[split]
        return [(source, at, min(at + PART, last)) for at in range(first, last, PART)]

    def whole(self, split: str) -> tuple[Tensor, Tensor]:
        """Return all pictures of a split, and labels."""
        parts = self.parts(split)
        return self.pictures(parts[0][0], parts[0][1], parts[-1][2])

    def pictures(self, source: str, first: int, last: int) -> tuple[Tensor, Tensor]:
        """Return pictures as the predictor takes them, and labels."""
        if self.name == "cifar":
            x, y = pictures("cifar10", source)
            return x[first:last].float() / 255, y[first:last]
        found, y = photos("tiny-imagenet", source, last)
        return torch.stack([self.preprocess(p) for p in found[first:]]), y[first:]

    def classes(self) -> Tensor:
        """Return the classes that occur."""
        if self.name == "cifar":
            return torch.arange(10)
        import pyarrow.parquet as pq

        column = pq.read_table(DATA / "tiny-imagenet" / "train.parquet", columns=["label"])["label"]
        return torch.tensor(sorted(set(column.to_pylist())))


Table = dict[str, Tensor]
"""What a predictor says: ``(N, 4, D)`` by layer; entry g is of the picture turned back by g."""


def table(setting: Setting, split: str) -> Table:
    """Return logits and pooled maps of the four turns of pictures, and labels; kept in the cache."""
    parts = [said_of(setting, *part) for part in setting.parts(split)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


@torch.no_grad()
def said_of(setting: Setting, source: str, first: int, last: int) -> Table:
    """Return the table of some pictures, from the cache if it is there."""
    file = CACHE / f"energies-{setting.name}-{source}-{first}-{last}.pt"
    if not file.exists():
        x, y = setting.pictures(source, first, last)
        readers = {name: Layers(setting.model, [name], GRID) for name in setting.layers}
        whole = LogitEnergy(setting.model)
        rows: dict[str, list[Tensor]] = {name: [] for name in (*readers, "logits")}
        for part in x.split(50):
            turns: dict[str, list[Tensor]] = {name: [] for name in rows}
            for g in range(4):
                said = answers_of(part.rot90(-g, (2, 3)), [*readers.values(), whole.model])
                for name, reader in readers.items():
                    turns[name].append(said(reader).half())
                turns["logits"].append(said(whole.model))
            for name, found in turns.items():
                rows[name].append(torch.stack(found, 1))
        CACHE.mkdir(parents=True, exist_ok=True)
        torch.save({**{name: torch.cat(parts) for name, parts in rows.items()}, "labels": y}, file)
    found: Table = torch.load(file, weights_only=True)
    return found


def answers_of(x: Tensor, predictors: list[Any]) -> Any:
    from upright.energies.base import Answers

    return Answers(x.contiguous(memory_format=torch.channels_last), predictors)


def at_all_poses(energy: Energy, known: Table) -> Tensor:
    """Return the energies of the four candidates from the table, shape ``(N, 4)``."""

    def said(g: int) -> Callable[[Any], Tensor]:
        return lambda p: (
            torch.cat([known[name][:, g] for name in p.layers], 1).float()
            if isinstance(p, Layers)
            else known["logits"][:, g]
        )

    nothing = torch.empty(0)
    return torch.stack([energy.measure(nothing, said(g)) for g in range(4)], 1)  # type: ignore[arg-type]


def energies(setting: Setting, known: Table) -> dict[str, Energy]:
    """Return the single energies; distances are to the references in the table."""
    model, layers = setting.model, setting.layers
    labels = known["labels"]

    def features(names: list[str], g: slice | int) -> Tensor:
        found = torch.cat([known[name][:, g] for name in names], -1).float()
        return found if found.ndim == 2 else found.flatten(0, 1)

    def distance(kind: Any, names: list[str], relative: bool, **options: Any) -> Energy:
        reader = Layers(model, names, GRID)
        near = kind(reader, features(names, 0), **options)
        return near - kind(reader, features(names, slice(1, 4))) if relative else near

    deep, deeper = layers[-2:-1], layers[-1:]
    if setting.name == "cifar":
        deep, deeper = layers[1:], layers[2:]
    return {
        "logit energy": LogitEnergy(model),
        "entropy": Entropy(model),
        "largest logit": MaxLogit(model),
        "nearest features": distance(NearestFeatures, deeper, False, neighbours=5),
        "nearest features, relative": distance(NearestFeatures, deeper, True, neighbours=5),
        "Mahalanobis": distance(Mahalanobis, deeper, False),
        "Mahalanobis, a mean for each class": distance(Mahalanobis, deeper, False, labels=labels),
        "Mahalanobis, relative, last": distance(Mahalanobis, deeper, True),
        "Mahalanobis, relative, deep": distance(Mahalanobis, deep, True),
        "Mahalanobis, relative, middle": distance(Mahalanobis, layers[:2], True),
    }


SUMS = {
    "logit + relative Mahalanobis": ("logit energy", "Mahalanobis, relative, deep"),
    "logit + entropy + three relative Mahalanobis": (
        "logit energy",
        "entropy",
        "Mahalanobis, relative, last",
        "Mahalanobis, relative, deep",
        "Mahalanobis, relative, middle",
    ),
}


def measured(found: Tensor, test: Table, classes: Tensor, temperature: float) -> dict[str, Any]:
    """Return the figures of energies ``(N, 4)`` on test pictures."""
    log_y = test["logits"][..., classes].log_softmax(-1)
    y = torch.searchsorted(classes, test["labels"])
    right = (log_y.argmax(-1) == y[:, None]).double()
    chosen = found.argmin(1)
    weights = torch.softmax(-found.double() / temperature, 1)
    together = (weights.unsqueeze(-1) * log_y.exp()).sum(1).argmax(-1)
    rows = {
        "vanilla": right.mean(1),
        "oracle": right[:, 0],
        "one": right.gather(1, chosen[:, None])[:, 0],
        "weighted": (together == y).double(),
    }
    mean = {name: 100 * float(row.mean()) for name, row in rows.items()}
    gap = mean["oracle"] - mean["vanilla"]
    return {
        "accuracy": mean["one"],
        "gap_closed": (mean["one"] - mean["vanilla"]) / gap,
        "gap_closed_95": interval(rows, "one"),
        "identity_rate": float((chosen == 0).double().mean()),
        "accuracy_weighted": mean["weighted"],
        "gap_closed_weighted": (mean["weighted"] - mean["vanilla"]) / gap,
        "vanilla": mean["vanilla"],
        "oracle": mean["oracle"],
    }


def summed(names: tuple[str, ...], single: dict[str, Energy], tune: Table) -> Energy:
    """Return the sum whose weights fit the training pictures that are no references."""
    weights = fitted_weights(torch.stack([at_all_poses(single[name], tune) for name in names], -1))
    return Sum(
        tuple(
            (weight * factor, term)
            for weight, name in zip(weights.tolist(), names, strict=True)
            for factor, term in (getattr(single[name], "terms", ((1.0, single[name]),)))
        )
    )


@torch.no_grad()
def checked(setting: Setting, energy: Energy, known: Tensor, count: int) -> dict[str, Any]:
    """Run the canonicalizer itself on turned pictures, as they are and re-encoded after the turn."""
    c = EnergyCanonicalizer(energy, "C4", chunk=32)
    x = setting.whole("test")[0][:count]
    g = c.group.sample(len(x), generator=torch.Generator().manual_seed(0))  # type: ignore[attr-defined]
    turned = upright.act(g, upright.Image(x)).data
    poses = torch.cat([c(part).element.value for part in turned.split(32)])
    seen = torch.cat([c(reencoded(part)).element.value for part in turned.split(32)])
    want = (known[:count].argmin(1) + g.value) % 4
    return {
        "pictures": count,
        "same_as_table": float((poses == want).double().mean()),
        "pose_accuracy": float((poses == g.value).double().mean()),
        "pose_accuracy_re_encoded": float((seen == g.value).double().mean()),
        "calls": int(c(x[:1]).calls[0]),
    }


def taught(
    setting: Setting, energy: Energy, scale: float, test: Table, classes: Tensor, options: argparse.Namespace
) -> dict[str, Any]:
    """Distil an energy into the default network; the teacher's answers come from the table."""
    posterior = torch.log_softmax(-at_all_poses(energy, table(setting, "taught")).double() / scale, 1)
    x = setting.whole("taught")[0]
    x = x if setting.name == "cifar" else nn.functional.avg_pool2d(x, 2)
    x, posterior = torch.cat([x, x.flip(-1)]), torch.cat([posterior, posterior[:, [0, 3, 2, 1]]])
    torch.manual_seed(options.seed)
    student = upright.canonicalizer("C4", size=32 if setting.name == "cifar" else 64)
    began = time.time()
    g = upright.Cyclic(4).sample(len(x), generator=torch.Generator().manual_seed(1))
    turned = upright.act(g, upright.Image(x)).data
    teacher = FromTable(moved_log_probs(posterior, g))
    distil(
        teacher,
        student,
        turned,
        epochs=options.epochs,
        max_steps=2 if options.smoke else -1,
        batch_size=16 if options.smoke else 128,
        learning_rate=3e-3,
        precision="bf16-mixed",
        progress=False,
        seed=options.seed,
    )
    seconds = time.time() - began
    with torch.no_grad():
        found = torch.cat([-student(part).log_probs for part in setting.whole("test")[0].split(100)])
    batch = setting.whole("test")[0][:8]
    slow = EnergyCanonicalizer(energy, "C4")
    with torch.no_grad():
        cost = paired_ratio(lambda: student(batch), lambda: slow(batch), repeats=2 if options.smoke else 9)
    return {**measured(found, test, classes, 1.0), "cost_of_the_energy": cost, "seconds": round(seconds)}


class FromTable(upright.Canonicalizer):
    """Says what was found before, in the order of the pictures: a teacher is asked once, in order."""

    def __init__(self, log_probs: Tensor) -> None:
        super().__init__("C4")
        self.rest = log_probs

    def forward(self, x: Any) -> upright.Pose:
        said, self.rest = self.rest[: len(x)], self.rest[len(x) :]
        return upright.Pose(upright.Element(self.group, said.argmax(1)), said)


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("predictor", choices=["cifar", "tiny"])
    options.add_argument("--check", type=int, default=100, help="pictures on which the library itself is run")
    options.add_argument("--epochs", type=int, default=5, help="of distillation; 0: none")
    chosen = options.parse_args()
    start(chosen)
    setting = Setting(chosen.predictor, chosen.smoke)
    test, known, tune = (table(setting, split) for split in ("test", "references", "tune"))
    classes = setting.classes()
    single = energies(setting, known)
    every = {**single, **{name: summed(names, single, tune) for name, names in SUMS.items()}}
    figures: dict[str, Any] = {"pictures": setting.counts, "energies": {}}
    likely, scales = {}, {}
    for name, energy in every.items():
        on_tune = at_all_poses(energy, tune)
        scales[name] = 1 / max(1e-6, float(fitted_weights(on_tune.unsqueeze(-1))))
        log_p = torch.log_softmax(-on_tune.double() / scales[name], 1)[:, 0]
        likely[name] = float(log_p.mean())
        row = measured(at_all_poses(energy, test), test, classes, scales[name])
        figures["energies"][name] = {**row, "calls": 4 * energy.calls, "log_likelihood_tune": likely[name]}
        print(name, rounded(figures["energies"][name]), flush=True)
    best = max(likely, key=lambda name: likely[name])
    figures["best_on_training_pictures"] = best
    figures["checked"] = checked(setting, every[best], at_all_poses(every[best], test), min(
        chosen.check, setting.counts["test"]))  # fmt: skip
    print(figures["checked"], flush=True)
    if chosen.epochs:
        figures["distilled"] = taught(setting, every[best], scales[best], test, classes, chosen)
    write(f"energies-{chosen.predictor}", rounded(figures), chosen, border="edge", interpolation="none")


if __name__ == "__main__":
    main()
