"""Write the figures of ``benchmarks/results`` into the README and pages, between two markers.

python -m benchmarks.table
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.record import RESULTS
from benchmarks.table_space import in_short, shapes
from benchmarks.table_studies import ablations, deployed, headline, served, streamed

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- figures: python -m benchmarks.table -->", "<!-- end of figures -->"


def recorded(name: str) -> Any:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def result(name: str) -> Any:
    record = recorded(name)
    return None if record is None else record["figures"]


def accuracy() -> list[str]:
    lines = [
        "Accuracy of a frozen predictor, upright / mean over all poses, in per cent:",
        "",
        "| data, predictor, group | bare | adapted, one pass | adapted, adaptive top_k | true pose known |",
        "| --- | --- | --- | --- | --- |",
    ]
    for group in ("c4", "c8"):
        f = result(f"cifar10-{group}")
        if f:
            pair = {k: f"{f[k]['upright']:.1f} / {f[k]['orbit_mean']:.1f}" for k in ("vanilla", "one_pass")}
            adaptive = f"{f['adaptive']['upright']:.1f} / {f['adaptive']['orbit_mean']:.1f}"
            passes = f"{f['adaptive_rule']['passes']:.2f} passes"
            oracle = f"{f['oracle']['upright']:.1f} / {f['oracle']['orbit_mean']:.1f}"
            lines.append(
                f"| CIFAR-10 ({f['pictures']:,}), ResNet-20, {group.upper()} | {pair['vanilla']} | "
                f"**{pair['one_pass']}** | **{adaptive}** ({passes}) | {oracle} |"
            )
            lines += peer() if group == "c4" else []
    f = result("photo")
    titles = {"tiny_imagenet": "Tiny-ImageNet", "photos": "ImageNet photos"}
    for name, title in titles.items() if f else ():
        row = f[name]
        mean, first, pictures = row["orbit_mean"], row["upright"], row["pictures"]
        oracle = f"{100 * mean['oracle']:.1f}"
        lines.append(
            f"| {title} ({pictures:,}), EfficientNet-Lite0, C4, `photo-c4` | "
            f"{100 * first['vanilla']:.1f} / {100 * mean['vanilla']:.1f} | "
            f"**{100 * first['one_pass']:.1f} / {100 * mean['one_pass']:.1f}** | "
            f"**{100 * first['adaptive']:.1f} / {100 * mean['adaptive']:.1f}** "
            f"({row['adaptive_passes']:.2f} passes) | {oracle} / {oracle} |"
        )
        passes = row["adaptive_with_prior_passes"]["mean"]
        share = f["adaptive_with_prior_rule"]["share"]
        lines.append(
            f"| the same, told that {100 * share:.0f}% are upright | | | "
            f"**{100 * first['adaptive_with_prior']:.1f} / {100 * mean['adaptive_with_prior']:.1f}** "
            f"({passes:.2f} passes) | |"
        )
    lines += [*mirrored(titles), *any_angle(titles)]
    f = result("segmentation")
    if f:
        mean = {name: f"{100 * value:.1f}" for name, value in f["orbit_mean"].items()}
        lines.append(
            f"| Penn-Fudan ({f['pictures']}), U²-Netp in ONNX, IoU, C4, `photo-c4` | "
            f"{100 * f['vanilla_poses'][0]:.1f} / {mean['vanilla']} | "
            f"**{mean['one_pass']} / {mean['one_pass']}** | **{mean['adaptive']} / {mean['adaptive']}** "
            f"({f['passes']['adaptive']:.2f} passes) | {mean['oracle']} / {mean['oracle']} |"
        )
    return lines


def mirrored(titles: dict[str, str]) -> list[str]:
    """Quarter turns and flips of photos."""
    lines, f = [], result("mirrored")
    for name, title in titles.items() if f else ():
        mean = {key: f"{100 * value:.1f}" for key, value in f[name]["orbit_mean"].items()}
        lines.append(
            f"| {title} ({f[name]['pictures']:,}), EfficientNet-Lite0, D4, `photo-d4` | "
            f"{100 * f[name]['vanilla_poses'][0]:.1f} / {mean['vanilla']} | "
            f"**{mean['one_pass']} / {mean['one_pass']}** | | {mean['oracle']} / {mean['oracle']} |"
        )
    return lines


def any_angle(titles: dict[str, str]) -> list[str]:
    """Photos at any angle, and at multiples of 45 degrees."""
    lines, f = [], result("photo-angles")
    for which, what in (("photo-so2", "any angle"), ("photo-c8", "C8")) if f else ():
        for name, title in titles.items():
            row, mean = f[which][name], f[which][name]["accuracy"]
            lines.append(
                f"| {title} ({row['pictures']:,}), EfficientNet-Lite0, {what} at random, `{which}` | "
                f"{100 * row['upright']:.1f} / {100 * mean['vanilla']:.1f} | "
                f"**{100 * mean['one_pass']:.1f}** (mean) | | {100 * mean['oracle']:.1f} (mean) |"
            )
    return lines


def peer() -> list[str]:
    """The peer's recipe on the pictures of the CIFAR-10 row."""
    record = recorded("peer-cifar")
    if record is None:
        return []
    best = max(record["figures"].values(), key=lambda row: row["orbit_mean"])
    return [
        f"| the same ({record['pictures']:,}), `equiadapt` 0.1.2 trained {record['minutes']:.0f} minutes | | "
        f"{best['accuracy'][0]:.1f} / {best['orbit_mean']:.1f} | | |"
    ]


def elsewhere() -> list[str]:
    """What needs no training, transformations that are no quarter turns, and space."""
    lines = []
    f = result("energies-cifar")
    if f:
        own = f["energies"]["logit energy"]
        best = max(f["energies"].items(), key=lambda pair: pair[1]["accuracy"])
        lines.append(
            f"* No training (CIFAR-10, ResNet-20, C4): the pose that the model's own logits like best gives "
            f"{own['accuracy']:.1f}% at every pose ({100 * own['gap_closed']:.0f}% of the gap); {best[0]}: "
            f"{best[1]['accuracy']:.1f}% ({100 * best[1]['gap_closed']:.0f}%); 4 passes to find it."
        )
    f = result("distilled")
    if f:
        own, best = f["energies"]["entropy"], f["energies"]["sum"]
        lines.append(
            f"* No training (Tiny-ImageNet ({f['pictures']['test']:,}), EfficientNet-Lite0, C4): the surest "
            f"pose {own['accuracy']:.1f}% ({100 * own['gap_closed']:.0f}% of the gap); logit energy, entropy "
            f"and two linear functions of its features in closed form: {best['accuracy']:.1f}% "
            f"({100 * best['gap_closed']:.0f}%), {best['accuracy_weighted']:.1f}% "
            f"({100 * best['gap_closed_weighted']:.0f}%) where the answers at the four poses are averaged."
        )
    f = result("pose-error")
    if f:
        lines.append(
            f"* Any angle (SO2, Tiny-ImageNet): c(gx) is off g·c(x) by "
            f"{f['disc']['pose_error_degrees']['median']:.2f}° in the median, "
            f"{f['disc']['pose_error_degrees']['percentile_95']:.1f}° at the 95th percentile."
        )
    f = result("rotated-mnist")
    if f:
        error = {name: f"{row['turned']:.1f}%" for name, row in f["test_error_percent"].items()}
        lines.append(
            f"* Rotated MNIST, test error: a CNN trained upright {error['CNN, upright digits']}, the same "
            f"behind a canonicalizer {error['frozen CNN, canonicalizer with prior']}, told the true angle "
            f"{error['CNN, true angle']}."
        )
    f = result("hue")
    if f:
        mean = {name: f"{100 * value:.1f}" for name, value in f["mean"].items()}
        lines.append(
            f"* Hue (Tiny-ImageNet, EfficientNet-Lite0, 12 hues, {f['pictures']} pictures): bare "
            f"{mean['bare']}%, adapted {mean['adapted']}%, true hue known {mean['oracle']}%."
        )
    return [*lines, *in_short(recorded("shapes"), recorded("nbody")), ""]


def exactness() -> list[str]:
    f, lines = result("exactness"), []
    if f:
        shares = [row["share"] for row in f["adapted_models"].values()]
        total = sum(row["inputs"] for row in f["adapted_models"].values())
        lines += [
            f"* Quarter turns and flips, every kind, square and not, odd and even: in "
            f"{len(f['kinds']['wrong'])} of {f['kinds']['cases']} cases a bit differs from the reference.",
            f"* Arbitrary models with re-drawn random weights, C4 and D4: the adapted model commutes with "
            f"the group bit for bit on {100 * min(shares):.2f}% of {total:,} inputs.",
            f"* Boxes at 45°: worst IoU with the true hull {f['worst_hull_iou_at_45_degrees']:.3f}.",
        ]
    return lines


def cost() -> list[str]:
    f, lines = result("overhead"), []
    if f:
        threads = recorded("overhead")["machine"]["threads"]
        lines += [
            "",
            f"Cost on a batch of 8×3×224×224, float32, {threads} CPU thread{'s' * (threads > 1)}:",
            "",
            "| predictor, group, canonicalizer | time (quartiles) | parameters |",
            "| --- | --- | --- |",
        ]
        lines += [
            f"| {name} | {row['added_time_percent']:+.1f}% ({row['added_time_percent_q1']:.1f} to "
            f"{row['added_time_percent_q3']:.1f}) | +{row['added_parameters_percent']:.2f}% |"
            for name, row in f.items()
        ]
    return lines


def setups() -> list[str]:
    f, lines = result("setups"), []
    if f:
        lines += [
            "",
            "Set-ups trained with the same budget (CIFAR-10, ResNet-20, C4), in per cent:",
            "",
            "| set-up | upright | mean over poses | adaptive top_k (passes) | identity rate |",
            "| --- | --- | --- | --- | --- |",
        ]
        for name, row in f.items():
            if "upright" in row:
                rate = f"{100 * row['identity_rate']:.1f}" if "identity_rate" in row else ""
                several = f"{row['adaptive']:.1f} ({row['passes']:.2f})" if "adaptive" in row else ""
                lines.append(
                    f"| {name} | {row['upright']:.1f} | {row['orbit_mean']:.1f} | {several} | {rate} |"
                )
    return lines


def reading() -> list[str]:
    f, lines = result("ocr"), []
    if f:
        lines += [
            "",
            "Characters that RapidOCR reads, in order, on pages turned by 0 / 90 / 180 / 270°, in per cent:",
            "",
            "| pages | bare | with its angle classifier | adapted, `document-c4` | oracle gap closed |",
            "| --- | --- | --- | --- | --- |",
        ]
    for name, row in f.items() if f else ():
        off, on = (row["order_kept"][f"angle classifier {switch}"] for switch in ("off", "on"))
        bare, with_classifier, adapted = (
            " / ".join(f"{100 * v:.1f}" for v in part["poses"])
            for part in (off["bare"], on["bare"], off["adapted"])
        )
        gap = f"{100 * off['gap_closed']:.0f}%"
        lines.append(f"| {name} ({row['pages_read']}) | {bare} | {with_classifier} | **{adapted}** | {gap} |")
    return lines


LABELS = {
    "vanilla": "bare",
    "average": "mean over the group",
    "tta": "mean over random turns",
    "lambda": "mean weighted by the model's certainty",
    "weights": "mean with learnt weights",
    "equizero": "pose that the model likes best",
    "classifier": "plain classifier of turns",
    "transformer": "spatial transformer, trained jointly",
    "adapted": "**adapted, one pass**",
    "top_k": "**adapted, adaptive top_k**",
    "posterior": "mean weighted by the posterior",
    "oracle": "true pose known",
}


def baselines() -> list[str]:
    record = recorded("baselines")
    if record is None:
        return []
    lines = [
        f"CIFAR-10 ({record['pictures']:,} pictures), {record['predictor']}, C4, in per cent; passes of the "
        f"predictor a picture (`{record['command']}`):",
        "",
        "| row | upright | mean over poses | worst pose | passes |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, label in LABELS.items():
        row = record["figures"][name]
        lines.append(
            f"| {label} | {row['upright']:.1f} | {row['orbit_mean']:.1f} | {row['worst']:.1f} | "
            f"{row['passes']:.2f} |"
        )
    return lines


def particles() -> list[str]:
    """Canonicalized predictors of charged particles beside EGNN."""
    record = recorded("nbody")
    if record is None:
        return []
    f = record["figures"]
    models = {name: row for name, row in f.items() if isinstance(row, dict)}
    lines = [
        "Charged particles, five bodies: positions 1000 steps later, from positions and velocities; "
        f"{f['systems']:,} systems to train on, {f['seconds']:g} processor seconds of one core for each "
        f"model, 2,000 systems to test (`{record['command']}`). Errors are mean squares of coordinates, with "
        f"their standard deviation over {len(models['EGNN']['mse_of_seeds'])} seeds; particles that fly "
        f"straight on have {f['straight on, mse']:.4f}. Equivariance is relative to how far particles "
        "move: the median, the worst of all, and the worst of systems of 2, 3 and 20 bodies, one at a time.",
        "",
        "| model | weights | steps | test error | equivariance | worst | other numbers |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in models.items():
        error = f"{row['mse']:.5f} ± {row['mse_deviation']:.5f}"
        error = f"**{error}**" if "," in name else error
        rest = " | ".join(
            f"{row[k]:.1e}" for k in ("equivariance_median", "equivariance_worst", "others_worst")
        )
        lines.append(f"| {name} | {row['weights']:,} | {row['steps']:,} | {error} | {rest} |")
    return lines


def insert(page: str, parts: list[str]) -> None:
    path = ROOT / page
    before, rest = path.read_text().split(BEGIN)
    after = rest.split(END)[1]
    path.write_text(f"{before}{BEGIN}\n" + "\n".join(parts) + f"\n{END}{after}")


def main() -> None:
    insert("README.md", [*exactness(), *elsewhere(), *accuracy(), *reading(), *setups(), *cost()])
    insert("docs/baselines.md", baselines())
    insert("docs/export.md", deployed(recorded("deploy")))
    insert("docs/serve.md", served(recorded("serve")))
    insert("docs/streaming.md", streamed(recorded("streaming-speed"), recorded("streaming-memory")))
    clouds = shapes(*map(recorded, ("shapes", "shapes-parts", "clouds")))
    space = [*particles(), "", *clouds]
    insert("docs/space.md", space)
    sections = [
        (
            "The headline table of the literature",
            headline(recorded("headline-lite"), recorded("headline-vit")),
        ),
        ("Ways to use the same model", baselines()),
        ("Learning curves and ablations", ablations(recorded("ablations"))),
        ("Space", space),
    ]
    rows = [line for title, lines in sections if lines for line in ["", f"## {title}", "", *lines]]
    insert(
        "docs/benchmarks.md", [*exactness(), *elsewhere(), *accuracy(), *reading(), *setups(), *cost(), *rows]
    )


if __name__ == "__main__":
    main()
