"""Tables of point clouds, for `benchmarks.table`."""

from __future__ import annotations

from typing import Any

COLUMNS = {
    "z/z bare": "z/z",
    "z/SO3 bare": "z/SO3",
    "z/SO3 spherical": "**z/SO3, `spherical`**",
    "z/SO3 vector neurons": "z/SO3, `vector_neurons`",
    "z/SO3 principal axes": "z/SO3, trained behind `pca`",
    "SO3/SO3 bare": "SO3/SO3",
}


def shapes(classes: Any, parts: Any, cost: Any) -> list[str]:
    """What frozen point networks keep under rotations, and what canonicalizers of clouds cost.

    Args:
        classes: The record ``shapes``, or None.
        parts: The record ``shapes-parts``, or None.
        cost: The record ``clouds``, or None.
    """
    return [*kept(classes, parts), *exact_and_quick(cost)]


def kept(classes: Any, parts: Any) -> list[str]:
    if classes is None:
        return []
    f = classes["figures"]
    commands = " and ".join(f"`{record['command']}`" for record in (classes, parts) if record)
    lines = [
        f"Made-up shapes of 16 classes ({f['training']} for training, {f['test']} for the test, "
        f"{f['points']} points), in per cent, ± half the range over seeds. Training/test are turned about z, "
        "or in any way; the networks behind `spherical` and `vector_neurons` are those of the first two "
        "columns, frozen. Last: how far what is returned moves in the median when clouds turn once more, "
        f"relative to its spread, and the answers that change ({commands}):",
        "",
        f"| measure, network | {' | '.join(COLUMNS.values())} | kept of z/z | moves | change |",
        "| --- |" + " --- |" * (len(COLUMNS) + 3),
    ]
    rows = [(name, row) for name, row in f.items() if name.startswith("accuracy")]
    rows += [(name, row) for name, row in (parts or {"figures": {}})["figures"].items() if "IoU" in name]
    for name, row in rows:
        wide = row["seeds"] > 1
        cells = [
            f"{100 * row[c]['mean']:.1f}" + f" ± {100 * row[c]['half_range']:.1f}" * wide for c in COLUMNS
        ]
        share = row["z/SO3 spherical, share of z/z"]["mean"]
        moves, change = row["change under a turn, median"]["mean"], row["answers that change"]["mean"]
        lines.append(
            f"| {name} | {' | '.join(cells)} | {100 * share:.1f} | {moves:.0e} | {100 * change:.2f} |"
        )
    return lines


def exact_and_quick(record: Any) -> list[str]:
    if record is None or "predictors" not in record["figures"]:
        return []
    lines = [
        "",
        "How far canonical forms of moved clouds are apart, errors of adapted random networks relative to "
        "what they return, and, of clouds of 1,024 points in batches of 32, milliseconds of one core a cloud "
        f"(`{record['command']}`):",
        "",
        "| canonicalizer, group | form, median | worst of 1,000 | equivariance | ms a cloud |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, row in record["figures"].items():
        if "canonical form, 64 points" in row:
            form, error = row["canonical form, 64 points"], row["equivariance error of adapted predictors"]
            cost = row["ms a cloud of 1024, batch 32"]["processor_one_thread"]
            lines.append(
                f"| {name} | {form['median']:.0e} | {form['worst']:.0e} | {error:.0e} | {cost:.2f} |"
            )
    lines += [
        "",
        "| ms of one core a cloud | bare | behind `spherical` | behind `pca` |",
        "| --- | --- | --- | --- |",
    ]
    for name, row in record["figures"]["predictors"].items():
        costs = " | ".join(f"{row[c]['processor_one_thread']:.2f}" for c in ("bare", "spherical", "pca"))
        lines.append(f"| {name} | {costs} |")
    return lines


def in_short(classes: Any, particles: Any) -> list[str]:
    """One line each, for the README."""
    lines = []
    if classes is not None:
        kept = {
            name: 100 * classes["figures"][f"accuracy, {name}"]["z/SO3 spherical, share of z/z"]["mean"]
            for name in ("PointNet", "DGCNN")
        }
        bare = {
            name: 100 * classes["figures"][f"accuracy, {name}"]["z/SO3 bare, share of z/z"]["mean"]
            for name in kept
        }
        told = " and ".join(
            f"a frozen {name} keeps {kept[name]:.1f}% (bare {bare[name]:.0f}%)" for name in kept
        )
        lines.append(f"* Clouds under any rotation (16 made-up classes): of its upright accuracy {told}.")
    if particles is not None:
        f = particles["figures"]
        lines.append(
            f"* Five charged particles, equal weights and time, test error: EGNN {f['EGNN']['mse']:.4f}, a "
            f"plain graph network, adapted to E(3), {f['GNN, adapted']['mse']:.4f}."
        )
    return lines
