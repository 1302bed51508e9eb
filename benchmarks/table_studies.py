"""Tables of studies, for `benchmarks.table`: the headline table, ablations, exported files."""

from __future__ import annotations

from typing import Any


def headline(*records: Any) -> list[str]:
    """The table of arXiv 2310.01647 on CIFAR-100, with both predictors."""
    lines = []
    for record in filter(None, records):
        first = (
            f"{record['predictor']}, {record['pictures']:,} training pictures, {record['epochs']} "
            f"epoch{'s' * (record['epochs'] > 1)} each (`{record['command']}`):"
        )
        heads = "| set-up | upright | mean over poses | adaptive top_k (passes) | identity rate |"
        lines += ["", first, "", heads, "| --- | --- | --- | --- | --- |"]
        for title, row in record["figures"].items():
            more = row.get("adaptive")
            several = (
                f"{more['upright']:.1f} / {more['orbit_mean']:.1f} ({more['passes']:.2f})" if more else ""
            )
            rate = f"{100 * row['identity_rate']:.1f}" if "identity_rate" in row else ""
            lines.append(f"| {title} | {row['upright']:.1f} | {row['orbit_mean']:.1f} | {several} | {rate} |")
    if lines:
        about = (
            "CIFAR-100 under eighth turns (C8), in per cent of 2,000 test pictures; one standard error is"
            " about 1 point. The paper fine-tunes at 224 pixels on all pictures; here it is the models "
            "below at 64 pixels, on a part of them, for minutes of one core. The canonicalizer trained "
            "before stands in front of the vanilla predictor, which is not touched any more. Published "
            "(upright / mean over poses; vanilla, augmentation, LC, LC + prior): ResNet-50 85.9 / 44.9, "
            "83.0 / 79.8, 78.6 / 77.5, 83.6 / 82.1; ViT 88.0 / 55.9, 83.5 / 80.2, 80.9 / 80.5, 84.3 / "
            "83.7."
        )
        lines = [about, *lines]
    return lines


def ablations(record: Any) -> list[str]:
    """Learning curves and ablations of canonicalizers on CIFAR-10."""
    if record is None:
        return []
    f, curves = record["figures"], record["figures"]["curves"]
    steps = [point["steps"] for point in next(iter(curves.values()))]
    lines = [
        f"CIFAR-10, C4, ResNet-20, {record['pictures']:,} test pictures; accuracy at every pose and identity "
        f"rate, in per cent. Learning curves from nothing, the predictor frozen (`{record['command']}`):",
        "",
        "| network | " + " | ".join(f"{n} steps" for n in steps) + " |",
        "| --- |" + " --- |" * len(steps),
    ]
    pair = "{:.1f} ({:.1f})"
    for name, points in curves.items():
        cells = [pair.format(point["accuracy"], 100 * point["identity_rate"]) for point in points]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    parts = (
        ("prior weight", f"prior weight; joint training, {record['joint_steps']} steps"),
        ("estimator", f"gradient estimator; the same, {record['joint_steps']} steps"),
        ("top_k", "probability that top_k covers; the last network above"),
    )
    for key, title in parts:
        lines += ["", f"| {title} | accuracy | identity rate | passes |", "| --- | --- | --- | --- |"]
        lines += [
            f"| {name} | {row['accuracy']:.1f} | {100 * row['identity_rate']:.1f} | {row['passes']:.2f} |"
            for name, row in f[key].items()
        ]
    return lines


def deployed(record: Any) -> list[str]:
    """Ready-made canonicalizers as ONNX files, and eight bits."""
    if record is None:
        return []
    f = record["figures"]
    lines = [
        f"Canonicalizers alone, {record['pictures']} test photos at 224 pixels in four quarter turns "
        f"(`{record['command']}`); time of batches of ten, ONNX Runtime by torch, with quartiles:",
        "",
        "| file | size | largest difference of the confidence from torch | time |",
        "| --- | --- | --- | --- |",
    ]
    for name, row in f.items():
        if "time_onnx_by_torch" in row:
            lines.append(
                f"| `{name}` | {row['bytes'] / 1e6:.1f} MB | {row['confidence_worst_difference']:.0e} | "
                f"{quartiles(row['time_onnx_by_torch'])} |"
            )
    small = f["8 bits"]
    lines += [
        "",
        "| `photo-c4` | file | pose right | pose as in full precision | follows quarter turns | time |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for title, same, time in (
        ("full precision", "", "1"),
        ("8 bits", f"{100 * small['agreement']:.1f}%", quartiles(small["time_8_bits_by_full"])),
    ):
        row = small[title]
        lines.append(
            f"| {title} | {row['bytes'] / 1e6:.1f} MB | {100 * row['pose_right']:.1f}% | {same} | "
            f"{100 * row['follows_quarter_turns']:.1f}% | {time} |"
        )
    return lines


def quartiles(time: Any) -> str:
    return f"×{time['ratio']:.2f} ({time['ratio_q1']:.2f} to {time['ratio_q3']:.2f})"


def served(record: Any) -> list[str]:
    """The page's server under load."""
    if record is None:
        return []
    f, machine = record["figures"], record["machine"]
    lines = [
        f"EfficientNet-Lite0 with `photo-c4`, {record['workers']} workers, clients and server on "
        f"{machine['cores']} cores (`{record['command']}`). Without a server one answer takes "
        f"{f['alone']['answer_ms']:.0f} ms, of which the bare model {f['alone']['model_ms']:.0f} ms.",
        "",
        "| clients | requests a second | of what the workers could give | median | 95% | 99% |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    times = "{p50_ms:.0f} ms | {p95_ms:.0f} ms | {p99_ms:.0f} ms"
    for name, row in f.items():
        if name.endswith("clients"):
            share = f"{100 * row['share_of_best']:.0f}%"
            lines.append(
                f"| {name.split()[0]} | {row['requests_per_second']:.1f} | {share} | {times.format(**row)} |"
            )
    row, memory = f["hostile"], f["memory_mb"]
    lines += [
        f"| 8 beside 8 hostile ones | {row['requests_per_second']:.1f} | | {times.format(**row)} |",
        "",
        f"No hostile client got an answer. Memory: {memory['before']:.0f} MB before, "
        f"{memory['after']:.0f} MB after, {memory['most']:.0f} MB at most.",
    ]
    return lines


def streamed(speed: Any, memory: Any) -> list[str]:
    """Streams against decoding alone, and their memory."""
    if speed is None or memory is None:
        return []
    f, about = speed["figures"], speed["figures"]["pictures"]
    lines = [
        f"{about['count']} photos of {' × '.join(map(str, about['sides']))} pixels, "
        f"{speed['machine']['cores']} cores (`{speed['command']}`, `{memory['command']}`):",
        "",
        "| | pictures a second | of decoding alone |",
        "| --- | --- | --- |",
    ]
    lines += [
        f"| {name} | {row['pictures_per_second']:.1f} | {100 * row['of_limit']:.0f}% |"
        for name, row in f.items()
        if "pictures_per_second" in row
    ]
    counts = [name for name in memory["figures"]["folder"] if name.isdigit()]
    lines += [
        "",
        f"| memory beyond the process, MB | {' | '.join(f'{int(n):,} pictures' for n in counts)} |",
        "| --- |" + " --- |" * len(counts),
    ]
    for kind, row in memory["figures"].items():
        cells = [f"{row[count]['megabytes']:.0f}" for count in counts]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    return lines
