"""Photos turned by quarters: a published EfficientNet-Lite0 made equivariant by the ready-made ``photo-c4``.

    python -m benchmarks.photo

A quarter turn of a picture is a permutation of its pixels, and the canonicalizer follows it exactly, so that
everything follows from two tables per picture: the posterior of its pose, and the predictor's answers to its
four turns. The adapted models themselves are then run on some pictures at all four poses and must agree with
the tables. Temperature, cover, evidence and prior are chosen on training pictures held back from training.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow.parquet as pq
import torch
from recipes.photo_c4.data import TRAINED
from torch import Tensor, nn

import upright
from benchmarks.cifar import adaptive
from benchmarks.pictures import CACHE, photos
from benchmarks.record import DATA, paired_ratio, parser, rounded, start, write
from upright.evaluation.degrade import reencoded, resampled
from upright.integrations.models import load_model
from upright.priors import CategoricalPrior

SETS = {"photos": "imagenet1k-sample", "tiny_imagenet": "tiny-imagenet"}
PRIORS = (0.5, 0.7, 0.9, 0.97)
"""Shares of upright pictures that the deployment prior may state."""
COVERS, EVIDENCE = [round(0.4 + 0.02 * i, 2) for i in range(30)], (0.0, 1.0, 2.0, 4.0, 8.0, 16.0)
"""What cover and evidence of adaptive ``top_k`` are chosen from."""
LARGEST_LOSS = 0.007
"""Share of upright pictures, held back, that adaptive ``top_k`` with a prior may lose."""


class Among(nn.Module):
    """A classifier asked for some of its classes only."""

    def __init__(self, model: Any, classes: Tensor) -> None:
        super().__init__()
        self.model, self.classes = model, classes

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x.contiguous(memory_format=torch.channels_last))[:, self.classes]


@dataclass
class Table:
    """Pictures, labels, pose log-probabilities ``(N, 4)`` and the predictor's log-probabilities at each
    candidate for the canonical form ``(N, 4, K)``: entry g belongs to the picture turned back by g."""

    x: Tensor
    y: Tensor
    log_p: Tensor
    log_y: Tensor

    @property
    def right(self) -> Tensor:
        """Whether the predictor is right about the picture turned back by g, shape ``(N, 4)``."""
        return (self.log_y.argmax(-1) == self.y[:, None]).double()


def load(name: str, split: str, limit: int | None, preprocess: Any) -> tuple[Tensor, Tensor]:
    """Return preprocessed pictures and labels; ``split`` "held" is what training did not see."""
    folder = SETS[name]
    if split == "held":
        pictures, labels = photos(folder, "train")
        pictures, labels = pictures[TRAINED[folder] :][:limit], labels[TRAINED[folder] :][:limit]
    else:
        pictures, labels = photos(folder, split, limit)
    return torch.stack([preprocess(p) for p in pictures]), labels


@torch.no_grad()
def answers(model: Any, x: Tensor, key: str) -> Tensor:
    """Return the predictor's logits for the picture turned back by each element; kept in the cache."""
    file = CACHE / f"efficientnet-lite0-{key}-{len(x)}.pt"
    if not file.exists():
        turns = []
        for g in range(4):
            back = x.rot90(-g, (2, 3)).contiguous(memory_format=torch.channels_last)
            turns.append(torch.cat([model(part) for part in back.split(16)]))
        CACHE.mkdir(parents=True, exist_ok=True)
        torch.save(torch.stack(turns, 1), file)
    found: Tensor = torch.load(file, weights_only=True)
    return found


@torch.no_grad()
def posterior(canonicalizer: Any, x: Tensor) -> Tensor:
    return torch.cat([canonicalizer(part).log_probs for part in x.split(50)])


@dataclass(frozen=True)
class Rule:
    """Settings of adaptive ``top_k``, and the share of upright pictures that a deployment prior states."""

    cover: float
    evidence: float
    share: float = 0.25


def choose(tables: list[Table], passes: float) -> Rule:
    """Choose cover and evidence on held-back pictures for at most so many passes; both sets count alike."""
    best = (0.0, Rule(0.5, 0.0))
    for rule in (Rule(cover, evidence) for cover in COVERS for evidence in EVIDENCE):
        results = [(adaptive(t.log_p, t.log_y, rule.cover, rule.evidence), t.y) for t in tables]
        if sum(float(used.mean()) for (_, used), _ in results) / len(tables) <= passes:
            score = sum(float((guess == y).float().mean()) for (guess, _), y in results)
            best = max(best, (score, rule), key=lambda pair: pair[0])
    return best[1]


def choose_with_prior(tables: list[Table], passes: float) -> Rule:
    """Choose cover, evidence and prior on held-back pictures for at most so many passes.

    Of the settings that lose at most `LARGEST_LOSS` of the upright pictures, on each set, the one with the
    best mean over the poses.
    """
    best = (-1.0, Rule(0.5, 0.0))
    shares = [round(0.3 + 0.1 * i, 1) for i in range(7)]
    for rule in (Rule(c, e, share) for share in shares for c in COVERS[::2] for e in EVIDENCE):
        found = [blended(t, rule) for t in tables]
        losses = [
            float((t.right[:, 0] - right[:, 0]).mean()) for t, (right, _) in zip(tables, found, strict=True)
        ]
        if (
            max(losses) <= LARGEST_LOSS
            and sum(float(used.mean()) for _, used in found) / len(tables) <= passes
        ):
            score = sum(float(right.mean()) for right, _ in found)
            best = max(best, (score, rule), key=lambda pair: pair[0])
    return best[1]


def posteriors(table: Table, share: float) -> Tensor:
    """Log-probabilities of the pose at each pose, ``(N, 4, 4)``, if ``share`` is said to stand upright."""
    prior = torch.tensor([share] + [(1 - share) / 3] * 3).log()
    moved = [table.log_p.roll(pose, 1) + prior for pose in range(4)]  # that of the turned picture, moved
    return torch.stack(moved, 1).log_softmax(-1)


def with_prior(table: Table, share: float) -> Tensor:
    """Whether the answer is right at each pose, shape ``(N, 4)``, if ``share`` is said to stand upright."""
    g = posteriors(table, share).argmax(-1)
    return table.right.gather(1, (g - torch.arange(4)) % 4)


def blended(table: Table, rule: Rule) -> tuple[Tensor, Tensor]:
    """Whether adaptive ``top_k`` is right at each pose, and its passes, both ``(N, 4)``."""
    moved, right, passes = posteriors(table, rule.share), [], []
    for pose in range(4):
        guess, used = adaptive(moved[:, pose], table.log_y.roll(pose, 1), rule.cover, rule.evidence)
        right.append((guess == table.y).double())
        passes.append(used.double())
    return torch.stack(right, 1), torch.stack(passes, 1)


def interval(rows: dict[str, Tensor], row: str, draws: int = 4000) -> list[float]:
    """Bootstrap the share of the oracle gap that a row closes, over pictures: 2.5% and 97.5%."""
    rng = torch.Generator().manual_seed(0)
    picked = torch.randint(0, len(rows[row]), (draws, len(rows[row])), generator=rng)
    mean = {name: rows[name][picked].mean(1) for name in ("vanilla", "oracle", row)}
    gap = (mean[row] - mean["vanilla"]) / (mean["oracle"] - mean["vanilla"])
    return gap.quantile(torch.tensor([0.025, 0.975], dtype=gap.dtype)).tolist()


def loss_interval(loss: Tensor, draws: int = 4000) -> list[float]:
    """Bootstrap the mean of a loss over pictures: 2.5% and 97.5%."""
    rng = torch.Generator().manual_seed(0)
    means = loss[torch.randint(0, len(loss), (draws, len(loss)), generator=rng)].mean(1)
    return means.quantile(torch.tensor([0.025, 0.975], dtype=means.dtype)).tolist()


def measure(table: Table, rule: Rule, stated: Rule) -> dict[str, Any]:
    """Return the figures of one set: adaptive with one rule, and with another that states a prior."""
    right, still = table.right, table.log_p.argmax(1)
    guess, used = adaptive(table.log_p, table.log_y, rule.cover, rule.evidence)
    with_stated, passes = blended(table, stated)
    rows = {
        "vanilla": right.mean(1),
        "oracle": right[:, 0],
        "average": (table.log_y.exp().mean(1).argmax(-1) == table.y).double(),
        "one_pass": right.gather(1, still[:, None])[:, 0],
        "adaptive": (guess == table.y).double(),
        "adaptive_with_prior": with_stated.mean(1),
    }
    mean = {name: float(row.mean()) for name, row in rows.items()}
    gap = mean["oracle"] - mean["vanilla"]
    nll = -table.log_p[:, 0].double()
    identity = float((still == 0).double().mean())
    return {
        "pictures": len(table.y),
        "upright": {
            **{n: mean[n] for n in ("one_pass", "adaptive")},
            "vanilla": float(right[:, 0].mean()),
            "adaptive_with_prior": float(with_stated[:, 0].mean()),
        },
        "orbit_mean": mean,
        "vanilla_poses": [float(right[:, -g % 4].mean()) for g in range(4)],
        "gap_closed": {n: (mean[n] - mean["vanilla"]) / gap for n in rows if n not in ("vanilla", "oracle")},
        "gap_closed_95": {n: interval(rows, n) for n in ("one_pass", "adaptive", "adaptive_with_prior")},
        "adaptive_passes": float(used.mean()),
        "adaptive_with_prior_passes": {"upright": float(passes[:, 0].mean()), "mean": float(passes.mean())},
        "upright_loss_95": loss_interval(right[:, 0] - with_stated[:, 0]),
        "identity_rate": identity,
        "identity_rate_standard_error": math.sqrt(identity * (1 - identity) / len(nll)),
        "mean_confidence": float(table.log_p.exp().amax(1).mean()),
        "pose_nll": float(nll.mean()),
        "poses_chosen": torch.bincount(still, minlength=4).tolist(),
        "prior": {
            str(share): {"upright": float(r[:, 0].mean()), "orbit_mean": float(r.mean())}
            for share in PRIORS
            for r in [with_prior(table, share)]
        },
    }


def mirrored(canonicalizer: Any, table: Table) -> dict[str, float]:
    """One pass, with scores averaged over every picture and its mirror image (twice the canonicalizer)."""
    canonicalizer.network.mirror = True
    g = posterior(canonicalizer, table.x).argmax(1)
    canonicalizer.network.mirror = False
    right, vanilla, oracle = table.right, float(table.right.mean()), float(table.right[:, 0].mean())
    one_pass = float(right.gather(1, g[:, None]).mean())
    return {
        "identity_rate": float((g == 0).double().mean()),
        "one_pass": one_pass,
        "gap_closed": (one_pass - vanilla) / (oracle - vanilla),
    }


@torch.no_grad()
def leakage(canonicalizer: Any, x: Tensor) -> dict[str, Any]:
    """Degrade after turning: the share of right poses must not move."""
    found = {}
    for name, degrade in (("turned", None), ("re-encoded", reencoded), ("resampled", resampled)):
        right = []
        for pose in range(4):
            parts = [part.rot90(pose, (2, 3)) for part in x.split(50)]
            seen = [canonicalizer(degrade(part) if degrade else part).log_probs for part in parts]
            right.append((torch.cat(seen).argmax(1) == pose).double())
        together = torch.stack(right, 1)
        found[name] = {"identity_rate": float(together[:, 0].mean()), "turned": float(together[:, 1:].mean())}
    return {"pictures": len(x), "pose_accuracy": found}


@torch.no_grad()
def agreement(model: Any, canonicalizer: Any, table: Table, rule: Rule, stated: Rule, count: int) -> float:
    """Share of answers of the adapted models themselves, at all poses, that are those of the tables."""
    one = upright.adapt(model, "C4", canonicalizer=canonicalizer)
    several = one.replace(mode="top_k", cover=rule.cover, evidence=rule.evidence)
    some = one.replace(mode="top_k", cover=stated.cover, evidence=stated.evidence)
    log_p, log_y, y = table.log_p[:count], table.log_y[:count], table.y[:count]
    single = log_y[torch.arange(len(log_p)), log_p.argmax(1)].argmax(-1)
    together = adaptive(log_p, log_y, rule.cover, rule.evidence)[0]
    expected = blended(Table(table.x[:count], y, log_p, log_y), stated)[0]
    same = []
    for pose in range(4):
        x = table.x[:count].rot90(pose, (2, 3))
        same += [one(x).argmax(-1) == single, several(x).argmax(-1) == together]
        canonicalizer.deployment_prior = prior_of(stated.share)
        same.append((some(x).argmax(-1) == y) == expected[:, pose].bool())
        canonicalizer.deployment_prior = None
    return float(torch.cat(same).double().mean())


def prior_of(share: float) -> CategoricalPrior:
    return CategoricalPrior([share] + [(1 - share) / 3] * 3)


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--canonicalizer", default="photo-c4", help="a ready-made name or a saved folder")
    options.add_argument("--limit", type=int, default=1000, help="pictures of Tiny-ImageNet")
    options.add_argument(
        "--held", type=int, default=1000, help="held-back Tiny-ImageNet pictures to choose on"
    )
    options.add_argument("--check", type=int, default=24, help="pictures of each set for the adapted models")
    options.add_argument("--leakage", type=int, default=400, help="pictures of each set for that check")
    options.add_argument("--passes", type=float, default=1.5)
    options.add_argument("--passes-with-prior", type=float, default=2.0)
    given = options.parse_args()
    start(given)
    if given.smoke:
        given.limit, given.held, given.check = 12, 12, 4
    loaded = load_model("efficientnet-lite0")
    assert isinstance(loaded.model, nn.Module)
    predictor = loaded.model.to(memory_format=torch.channels_last)
    canonicalizer = upright.load_canonicalizer(given.canonicalizer)
    tables: dict[tuple[str, str], Table] = {}
    models: dict[str, nn.Module] = {}
    for name in SETS:
        for split in ("held", "test"):
            small = given.smoke or name == "tiny_imagenet"
            limit = (given.held if split == "held" else given.limit) if small else None
            x, y = load(name, split, limit, loaded.preprocess)
            classes = torch.arange(1000)
            if name == "tiny_imagenet":
                column = pq.read_table(DATA / SETS[name] / "train.parquet", columns=["label"])["label"]
                classes = torch.tensor(sorted(set(column.to_pylist())))
            models[name] = Among(predictor, classes)
            log_y = answers(predictor, x, f"{name}-{split}")[..., classes].log_softmax(-1)
            y = torch.searchsorted(classes, y)
            tables[name, split] = Table(x, y, posterior(canonicalizer, x), log_y)
    held = [tables[name, "held"] for name in SETS]
    rule, stated = choose(held, given.passes), choose_with_prior(held, given.passes_with_prior)
    figures: dict[str, Any] = {
        "adaptive_rule": {"cover": rule.cover, "evidence": rule.evidence},
        "adaptive_with_prior_rule": asdict(stated),
        "temperature": float(canonicalizer.temperature),
        "parameters": sum(p.numel() for p in canonicalizer.parameters()),
    }
    for name in SETS:
        table = tables[name, "test"]
        figures[name] = {
            **measure(table, rule, stated),
            "mirror": mirrored(canonicalizer, table),
            "leakage": leakage(canonicalizer, table.x[: given.leakage]),
            "library_agrees_with_tables": agreement(
                models[name], canonicalizer, table, rule, stated, given.check
            ),
            "held_back": measure(tables[name, "held"], rule, stated),
        }
    figures["time_of_canonicalizer_to_predictor"] = cost(canonicalizer, predictor, given.smoke)
    write("photo", rounded(figures), given, predictor="efficientnet-lite0, 224 px, crop 0.875, float32")


@torch.no_grad()
def cost(canonicalizer: Any, predictor: nn.Module, quick: bool) -> dict[str, float]:
    x = torch.randn(8, 3, 224, 224).contiguous(memory_format=torch.channels_last)
    return paired_ratio(lambda: canonicalizer(x), lambda: predictor(x), repeats=3 if quick else 15)


if __name__ == "__main__":
    main()
