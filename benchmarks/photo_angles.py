"""Photos turned by any angle: a published EfficientNet-Lite0 with ``photo-so2`` and ``photo-c8``.

    python -m benchmarks.photo_angles --threads 1

Test pictures are turned by random angles with their corners (the edge is repeated beyond the border), so
that the true angle, too, loses to resampling twice and to cut corners. Accuracy of the bare
model; adapted; and turned back by the true angle. Pose errors are those of the angle found. ``photo-c4``,
which knows quarter turns only, stands beside.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

import upright
from benchmarks.photo import SETS, Among, interval, load
from benchmarks.pictures import CACHE
from benchmarks.record import DATA, parser, rounded, start, write
from benchmarks.turns import turned
from upright.integrations.models import load_model

CANONICALIZERS = {"photo-so2": "any", "photo-c8": "eighths", "photo-c4": "any"}
"""Ready-made names, and the angles that each meets: any, or multiples of 45 degrees."""


@dataclass
class Turned:
    """Pictures turned by ``angles`` in radians, and whether the predictor is right: bare, and turned back."""

    x: Tensor
    y: Tensor
    angles: Tensor
    bare: Tensor
    oracle: Tensor


@torch.no_grad()
def right(model: Any, x: Tensor, y: Tensor) -> Tensor:
    return torch.cat([model(part).argmax(-1) for part in x.split(32)]).eq(y).double()


def prepared(model: Any, x: Tensor, y: Tensor, angles: Tensor, key: str) -> Turned:
    """Turn pictures; whether the predictor is right is kept in the cache."""
    g = upright.SO2().element(angle=angles)
    moved, file = turned(x, g), CACHE / f"photo-angles-{key}-{len(x)}.pt"
    if not file.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        torch.save((angles, right(model, moved, y), right(model, turned(moved, ~g), y)), file)
    known, bare, oracle = torch.load(file, weights_only=True)
    assert torch.equal(known, angles)
    return Turned(moved, y, angles, bare, oracle)


def angle_of(element: upright.Element) -> Tensor:
    group: Any = element.group
    value = element.value.double()
    return value if str(group) == "SO2" else value * (2 * math.pi / group.n)


@torch.no_grad()
def measured(model: Any, c: Any, seen: Turned, repeats: int) -> dict[str, Any]:
    """Return accuracy, share of the gap closed with its bootstrap interval, and errors of the angle."""
    robust = upright.adapt(model, str(c.group), canonicalizer=c)
    runs = [robust.run(part) for part in seen.x.split(32)]
    found = torch.cat([run.output.argmax(-1) for run in runs]).eq(seen.y).double()
    off = torch.cat([angle_of(run.pose.element) for run in runs]) - seen.angles
    off = torch.rad2deg(torch.atan2(off.sin(), off.cos()).abs())
    near = off[off <= 45]
    rows = {"vanilla": seen.bare, "oracle": seen.oracle, "one_pass": found}
    rows = {name: row.view(repeats, -1).mean(0) for name, row in rows.items()}  # of the angles of a picture
    mean = {name: float(row.mean()) for name, row in rows.items()}
    gap = mean["oracle"] - mean["vanilla"]
    return {
        "accuracy": mean,
        "gap_closed": (mean["one_pass"] - mean["vanilla"]) / gap if gap else None,
        "gap_closed_95": interval(rows, "one_pass"),
        "error_degrees_median": float(off.median()),
        "error_degrees_median_within_45": float(near.median()) if len(near) else None,
        **{f"within_{d}_degrees": float((off <= d).double().mean()) for d in (5, 15, 45)},
        "mean_confidence": float(torch.cat([run.pose.confidence for run in runs]).mean()),
    }


@torch.no_grad()
def follows(c: Any, x: Tensor) -> dict[str, float]:
    """Say by how much poses miss following quarter turns, and turns by 30° of the disc, in degrees."""
    still, missed = angle_of(c(x).element), {}
    for name, degrees in (("90", 90.0), ("30", 30.0)):
        g = upright.SO2().element(degrees=torch.full((len(x),), degrees))
        off = angle_of(c(turned(x, g)).element) - still - math.radians(degrees)
        missed[name] = torch.rad2deg(torch.atan2(off.sin(), off.cos()).abs())
    return {
        "quarter_turn_largest_miss": float(missed["90"].max()),
        "turn_by_30_median_miss": float(missed["30"].median()),
    }


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--canonicalizers", nargs="*", default=list(CANONICALIZERS))
    options.add_argument("--limit", type=int, default=1000, help="pictures of Tiny-ImageNet")
    options.add_argument("--repeats", type=int, default=2, help="angles of each of the 150 photos")
    given = options.parse_args()
    start(given)
    if given.smoke:
        given.limit, given.repeats = 8, 1
    loaded = load_model("efficientnet-lite0")
    assert isinstance(loaded.model, nn.Module)
    predictor = loaded.model.to(memory_format=torch.channels_last)
    ready = {name: upright.load_canonicalizer(name) for name in given.canonicalizers}
    figures: dict[str, Any] = {name: {} for name in ready}
    draws = torch.Generator().manual_seed(given.seed)
    for name in SETS:
        few = name == "tiny_imagenet" or given.smoke
        x, y = load(name, "test", given.limit if few else None, loaded.preprocess)
        classes, repeats = torch.arange(1000), 1
        if name == "tiny_imagenet":
            column = pq.read_table(DATA / SETS[name] / "train.parquet", columns=["label"])["label"]
            classes = torch.tensor(sorted(set(column.to_pylist())))
        else:
            repeats = given.repeats
            x, y = x.repeat(repeats, 1, 1, 1), y.repeat(repeats)
        model, y = Among(predictor, classes), torch.searchsorted(classes, y)
        eighths = torch.randint(8, (len(x),), generator=draws).double() * (math.pi / 4)
        anywhere = torch.rand(len(x), generator=draws, dtype=torch.float64) * (2 * math.pi)
        still = float(right(model, x[: len(x) // repeats], y[: len(x) // repeats]).mean())
        for kind, angles in (("any", anywhere), ("eighths", eighths)):
            seen = prepared(model, x, y, angles, f"{name}-{kind}-{given.seed}")
            for which, c in ready.items():
                if CANONICALIZERS.get(which, "any") == kind:
                    figures[which][name] = {
                        "pictures": len(y) // repeats,
                        "angles_of_each": repeats,
                        "upright": still,
                        **measured(model, c, seen, repeats),
                        **follows(c, x[:64]),
                    }
                    print(which, name, rounded(figures[which][name]), flush=True)
    notes = {"predictor": "efficientnet-lite0, 224 px, crop 0.875, float32", "border": "edge"}
    write("photo-angles", rounded(figures), given, **notes)


if __name__ == "__main__":
    main()
