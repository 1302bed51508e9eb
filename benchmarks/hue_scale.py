"""Hue shifts and zooms of photos: EfficientNet-Lite0 on Tiny-ImageNet, bare, adapted, with the pose known.

    python -m benchmarks.hue_scale hue
    python -m benchmarks.hue_scale scale

Both canonicalizers are trained here, briefly, on training pictures without labels.

Hues: `CyclicHue(12)`, an orbit network; colours are not clipped, so that the adapted model gives one answer
at all twelve hues, and all follows from two tables per picture: the posterior of its hue, and the predictor's
answers to the twelve. The adapted model itself is then run on some pictures and must agree.

Scales: a ladder, which is no group; a small network guesses the step. A picture that was enlarged has lost
its border for good: made smaller again, with its edge going on outside, it may be worse than as it was. So
there are rows that enlarge pictures only, and leave those that are thought too large as they are.
A picture made smaller shows its streaked border, by which the step is easily guessed: the figures hold for
pictures padded so, not for those taken from afar.
"""

from __future__ import annotations

import time
from typing import Any

import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import upright
from benchmarks.photo import Among
from benchmarks.pictures import CACHE, photos, pictures
from benchmarks.record import DATA, parser, start, write
from upright import CyclicHue, Hue, Image, Ladder, Pose, Scale, act
from upright.canonicalizers import Canonicalizer
from upright.evaluation.degrade import reencoded, resampled
from upright.integrations.models import load_model
from upright.nets import ResidualBackbone, thumbnail
from upright.nets.thumbnail import standardized
from upright.training import DestroyArtefacts

MEAN, STD = 127 / 255, 128 / 255
"""How the predictor's pictures are normalised."""
SIZE = 32
"""Side of the thumbnails: half the pictures', so that artefacts of compression are small."""
STEPS = Ladder(0.5, 2.0, 7)


class InAnyFrame:
    """Destroys artefacts in a random frame of hue, so that those of re-encoding tell nothing of the hue."""

    def __init__(self) -> None:
        self.group = Hue(mean=MEAN, std=STD)
        self.destroy = DestroyArtefacts(flip=True, colour=0.0, grey=0.0)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        g = self.group.sample(len(x), generator=generator)
        return act(~g, Image(self.destroy(act(g, Image(x)).data, generator))).data


class ScaleGuesser(Canonicalizer):
    """A network that guesses the step of the ladder from a thumbnail; its guesses are the candidates."""

    def __init__(self) -> None:
        super().__init__(Scale())
        self.network = ResidualBackbone(strides=(1, 2, 2, 2), outputs=STEPS.steps)

    def log_probs(self, x: Tensor) -> Tensor:
        """Return log-probabilities of the steps, ``(B, steps)``."""
        return F.log_softmax(self.network(standardized(thumbnail(x, SIZE))), -1)

    def forward(self, x: Any) -> Pose:
        """Return the steps, the likeliest first."""
        log_probs, index = self.log_probs(x).sort(-1, descending=True)
        candidates = STEPS.members(x.device)[index]
        return Pose(candidates[:, 0], log_probs, candidates=candidates)


def train_scale(x: Tensor, epochs: int, seed: int) -> ScaleGuesser:
    """Train on upright pictures, each brought to a random step; no labels."""
    rng = torch.Generator().manual_seed(seed)
    guesser, destroy = ScaleGuesser(), DestroyArtefacts(flip=True)
    steps = max(1, len(x) // 64) * epochs
    optimizer = torch.optim.AdamW(guesser.parameters(), 3e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in range(steps):
        index = torch.randint(len(x), (64,), generator=rng)
        step = torch.randint(STEPS.steps, (64,), generator=rng)
        moved = act(STEPS.members()[step], Image(x[index].float())).data
        loss = F.cross_entropy(guesser.log_probs(destroy(moved, rng)), step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return guesser.eval()


@torch.no_grad()
def answered(model: nn.Module, x: Tensor) -> Tensor:
    """Return log-probabilities, ``(N, K)``."""
    return torch.cat([model(part) for part in x.split(16)]).log_softmax(-1)


def answers(model: nn.Module, key: str, moves: list[Any], x: Tensor) -> Tensor:
    """Return log-probabilities for every move of the pictures, ``(N, P, K)``; kept in the cache."""
    file = CACHE / f"hue-scale-{key}-{len(x)}.pt"
    if not file.exists():
        found = torch.stack([answered(model, act(g.expand(len(x)), Image(x)).data) for g in moves], 1)
        CACHE.mkdir(parents=True, exist_ok=True)
        torch.save(found, file)
    kept: Tensor = torch.load(file, weights_only=True)
    return kept


def right(log_y: Tensor, y: Tensor) -> Tensor:
    """Say which answers are right, float64, the shape of ``log_y`` without classes."""
    return (log_y.argmax(-1) == y.view(-1, *[1] * (log_y.ndim - 2))).double()


def rows_of(rows: dict[str, Tensor], values: list[float]) -> dict[str, Any]:
    """Summarise correctness ``(N, P)`` of each row: the curve, its mean and its worst, and the gap closed."""
    curves = {name: row.mean(0) for name, row in rows.items()}
    mean = {name: float(curve.mean()) for name, curve in curves.items()}
    error = {name: float(row.mean(1).std() / len(row) ** 0.5) for name, row in rows.items()}
    gap = mean["oracle"] - mean["bare"]
    return {
        "values": values,
        "curves": {name: [round(v, 4) for v in curve.tolist()] for name, curve in curves.items()},
        "mean": mean,
        "mean_standard_error": error,
        "worst": {name: float(curve.min()) for name, curve in curves.items()},
        "gap_closed": {name: (mean[name] - mean["bare"]) / gap for name in mean if gap},
    }


@torch.no_grad()
def hue(model: nn.Module, c: Canonicalizer, x: Tensor, y: Tensor, check: int) -> dict[str, Any]:
    """Measure hue shifts by multiples of 30°."""
    group = c.group
    assert isinstance(group, CyclicHue)
    n = group.order
    log_y = answers(model, f"hue{n}", list(group.elements()), x)  # [i, g]: picture i, its hue turned by g
    log_p = torch.cat([c(part).log_probs for part in x.split(50)])
    candidates = log_y[:, (-torch.arange(n)) % n]  # [i, g]: the picture turned back by g
    entropy = torch.special.entr(candidates.exp()).sum(-1)
    each = torch.arange(len(x))
    chosen = {
        "adapted": right(candidates[each, log_p.argmax(-1)].unsqueeze(1), y),
        "adapted, top_k": right((log_p.exp().unsqueeze(-1) * candidates.exp()).sum(1).unsqueeze(1), y),
        "average": right(candidates.exp().mean(1).unsqueeze(1), y),
        "surest": right(candidates[each, entropy.argmin(-1)].unsqueeze(1), y),
        "oracle": right(log_y[:, :1], y),
    }
    rows = {"bare": right(log_y, y), **{name: row.expand(-1, n) for name, row in chosen.items()}}
    robust = upright.adapt(model, group, canonicalizer=c)
    expected = candidates[each, log_p.argmax(-1)].argmax(-1)[:check]
    same = [
        robust(act(g.expand(check), Image(x[:check])).data).argmax(-1) == expected for g in group.elements()
    ]
    return {
        **rows_of(rows, [360 / n * i for i in range(n)]),
        "adapted_agrees_with_table": float(torch.cat(same).double().mean()),
        "identity_rate": float((log_p.argmax(-1) == 0).double().mean()),
        "mean_confidence": float(log_p.exp().amax(-1).mean()),
        "leakage": leakage(c, group, x),
    }


@torch.no_grad()
def leakage(c: Canonicalizer, group: CyclicHue, x: Tensor) -> dict[str, float]:
    """Return the share of right hues after turning, and after degrading what was turned: it must not move."""
    found = {}
    g = group.sample(len(x), generator=torch.Generator().manual_seed(0))
    for name, degrade in (("turned", None), ("re-encoded", reencoded), ("resampled", resampled)):
        moved = act(g, Image(x)).data
        seen = degrade(moved) if degrade else moved
        found[name] = float(
            torch.cat([c(part).element.value for part in seen.split(50)]).eq(g.value).double().mean()
        )
    return found


@torch.no_grad()
def scale(model: nn.Module, c: ScaleGuesser, x: Tensor, y: Tensor, check: int) -> dict[str, Any]:
    """Measure zooms by the steps of the ladder."""
    members = STEPS.members()
    ratio = float(members.value[1] - members.value[0])
    named = ("bare", "adapted", "adapted, enlarges only", "oracle", "oracle, enlarges only")
    rows: dict[str, list[Tensor]] = {name: [] for name in named}
    hits, near, same = [], [], []
    robust = upright.adapt(model, c.group, canonicalizer=c)
    for g in members:
        moved = act(g.expand(len(x)), Image(x))
        element = c(moved.data).element
        off = (element.value - g.value).abs()
        hits.append(float((off < ratio / 2).double().mean()))
        near.append(float((off < 1.5 * ratio).double().mean()))
        known = answered(model, act((~g).expand(len(x)), moved).data)
        found, missed = known.clone(), (off >= ratio / 2).nonzero().squeeze(1)
        if len(missed):
            found[missed] = answered(model, act(~element[missed], Image(moved.data[missed])).data)
        bare, larger = right(answered(model, moved.data), y), element.value > ratio / 2
        rows["bare"].append(bare)
        rows["adapted"].append(right(found, y))
        rows["adapted, enlarges only"].append(torch.where(larger, bare, rows["adapted"][-1]))
        rows["oracle"].append(right(known, y))
        rows["oracle, enlarges only"].append(bare if float(g.value) > ratio / 2 else rows["oracle"][-1])
        same.append(robust(moved.data[:check]).argmax(-1) == found[:check].argmax(-1))
    return {
        **rows_of({name: torch.stack(row, 1) for name, row in rows.items()},
                  [round(v, 4) for v in members.value.exp().tolist()]),
        "adapted_agrees": float(torch.cat(same).double().mean()),
        "steps_right": hits,
        "steps_right_or_next": near,
    }  # fmt: skip


def load(limit: int) -> tuple[nn.Module, Tensor, Tensor]:
    """Return the predictor over the 200 classes, its preprocessed test pictures, and labels."""
    loaded = load_model("efficientnet-lite0")
    assert isinstance(loaded.model, nn.Module)
    column = pq.read_table(DATA / "tiny-imagenet" / "train.parquet", columns=["label"])["label"]
    classes = torch.tensor(sorted(set(column.to_pylist())))
    opened, labels = photos("tiny-imagenet", "test", limit)
    assert loaded.preprocess is not None
    x = torch.stack([loaded.preprocess(p) for p in opened])
    model = Among(loaded.model.to(memory_format=torch.channels_last), classes)
    return model.eval(), x, torch.searchsorted(classes, labels)


def main() -> None:
    """Train, measure and record."""
    options = parser(__doc__ or "")
    options.add_argument("what", choices=("hue", "scale"))
    options.add_argument("--limit", type=int, default=300, help="test pictures")
    options.add_argument("--train", type=int, default=12_000, help="training pictures")
    options.add_argument("--epochs", type=int, default=4)
    options.add_argument("--check", type=int, default=4, help="pictures for the adapted model itself")
    given = options.parse_args()
    start(given)
    if given.smoke:
        given.limit, given.train, given.epochs, given.check = 4, 64, 1, 1
    model, x, y = load(given.limit)
    seen = pictures("tiny-imagenet", "train", limit=given.train)[0][..., 4:60, 4:60]  # as the predictor crops
    began = time.perf_counter()
    figures: dict[str, Any] = {"pictures": len(x)}
    if given.what == "hue":
        group = CyclicHue(12, mean=MEAN, std=STD)
        hues = upright.canonicalizer(group, size=SIZE, options={"strides": (2, 2, 2, 2)})
        upright.fit(
            hues, (seen.float() / 255 - MEAN) / STD, augment=InAnyFrame(), epochs=given.epochs,
            learning_rate=3e-3, batch_size=64, progress=False, seed=given.seed,
        )  # fmt: skip
        seconds = time.perf_counter() - began
        print(f"trained in {seconds:.0f} s", flush=True)
        figures |= hue(model, hues.eval(), x, y, given.check)
    else:
        scales = train_scale(seen, given.epochs, given.seed)
        seconds = time.perf_counter() - began
        print(f"trained in {seconds:.0f} s", flush=True)
        figures |= scale(model, scales, x, y, given.check)
    figures["training"] = {"pictures": len(seen), "epochs": given.epochs, "seconds": round(seconds)}
    write(given.what, figures, given, predictor="EfficientNet-Lite0, 200 classes", border="edge")


if __name__ == "__main__":
    main()
