"""The model card: what the hub reads of it (YAML), what it is and how it is loaded, and what was measured."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .evaluation.report import PoseAccuracy, Report, RowMetrics
from .evaluation.tables import LONGEST, described, number, percent
from .manifest import Manifest

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

Reports = Report | Mapping[str, Report]
"""What was measured: a report, or reports by the name of the data: ``"cifar10"`` or ``"owner/data"``."""

TAGS = ("equivariance", "canonicalization")
HUB_TASKS = {
    "classification": "image-classification",
    "segmentation": "image-segmentation",
    "instances": "image-segmentation",
    "detection": "object-detection",
    "keypoints": "keypoint-detection",
    "depth": "depth-estimation",
    "text": "image-to-text",
    "retrieval": "image-feature-extraction",
}
"""What the hub calls the tasks of `upright.evaluation.tasks`; others keep their names."""


def write_card(
    manifest: Manifest, sizes: Mapping[str, int], text: str | None = None, reports: Reports | None = None
) -> str:
    """Return the card as Markdown with a YAML head.

    Args:
        manifest: What was saved.
        sizes: Bytes of the weights, by name of the canonicalizer.
        text: Markdown that is added to it.
        reports: What was measured.
    """
    from huggingface_hub import ModelCard

    several = reports if isinstance(reports, Mapping) else {"": reports} if reports is not None else {}
    named = {" ".join(name.split()): report for name, report in several.items()}
    parts = [f"---\n{_metadata(manifest, named)}\n---", _introduction(manifest, sizes)]
    parts += [measured(report, name) for name, report in named.items()]
    parts += [text.strip()] if text else []
    return str(ModelCard("\n\n".join(parts) + "\n"))  # reads it back, so that it is what the hub can read


def measured(report: Report, data: str = "") -> str:
    """Return what a report says as a section in Markdown: the orbit table, every pose, the conditions."""
    setting, chosen = report.setting, report.canonicalizer
    share = setting.is_share
    what = described(setting.metric, share, setting.lower_is_better)
    rows = [
        [
            f"**{_called(name, row)}**" if name == "adapted" else _called(name, row),
            *(_interval(value, share) for value in (row.upright, row.orbit_mean)),
            f"{number(row.worst.accuracy.value, share)} at {row.worst.label}",
            percent(row.changed),
            f"{row.passes:.2f}",
        ]
        for name, row in report.rows.items()
    ]
    head = ["", "upright", "mean over poses", "worst pose", "answers changed, %", "passes"]
    step = -(-len(chosen.poses) // LONGEST)
    poses = list(enumerate(chosen.poses))[::step]
    each = [[pose.label, *_at_pose(report, i, pose)] for i, pose in poses]
    title = f"## Measured on {data}" if data else "## Measured"
    labels = (
        ""
        if setting.has_labels
        else " Agreement with the bare model on upright pictures: there are no labels."
    )
    return "\n\n".join([
        title,
        f"{what}, at {len(chosen.poses)} poses of {setting.pictures} pictures of {setting.size}; "
        f"{100 * setting.confidence:g}% intervals.{labels}",
        _table(head, rows),
        _table(["pose", *(_called(n, row) for n, row in report.rows.items()), "right pose found, %"], each),
        "\n".join(f"- {line}" for line in _remarks(report)),
    ])  # fmt: skip


def _metadata(manifest: Manifest, reports: Mapping[str, Report]) -> str:
    from huggingface_hub import ModelCardData

    model = manifest.model or {}
    reference = model.get("reference")
    tasks = {HUB_TASKS.get(r.setting.task) for r in reports.values()}
    data = ModelCardData(
        library_name="upright",
        tags=[*TAGS, *sorted({manifest.group, *(entry["group"] for entry in manifest.others.values())})],
        base_model=reference if _is_repository(reference) else None,
        pipeline_tag=tasks.pop() if len(tasks) == 1 else None,
        metrics=sorted({_slug(r.setting.metric) for r in reports.values()}) or None,
        datasets=[name for name in reports if _is_repository(name)] or None,
        model_name=f"{reference or model.get('class') or 'a canonicalizer'}, {manifest.group}",
        eval_results=[result for name, report in reports.items() for result in _results(name, report)],
    )
    if not data.eval_results:
        data.eval_results = data.model_name = None
    return str(data.to_yaml()).strip()


def _results(name: str, report: Report) -> list[EvalResult]:
    """Return what the hub shows beside the model: the adapted model upright, over all poses, at the worst."""
    from huggingface_hub import EvalResult

    row, setting = report.rows.get("adapted"), report.setting
    if row is None:
        return []
    found = {
        "upright": row.upright.value,
        f"mean over poses of {setting.poses or setting.group}": row.orbit_mean.value,
        "worst pose": row.worst.accuracy.value,
    }
    data = name or f"{setting.pictures} pictures"
    return [
        EvalResult(
            task_type=HUB_TASKS.get(setting.task, setting.task),
            dataset_type=name if _is_repository(name) else _slug(data),
            dataset_name=data,
            metric_type=_slug(setting.metric),
            metric_name=f"{setting.metric}, {where}" if setting.has_labels else f"agreement, {where}",
            metric_value=round(value, 6),
        )
        for where, value in found.items()
    ]


def _introduction(manifest: Manifest, sizes: Mapping[str, int]) -> str:
    reference = (manifest.model or {}).get("reference")
    first = f'robust = upright.load("<this folder>"{"" if reference else ", model=model"})'
    if not manifest.adapter:
        first = f'robust = upright.adapt(model, "{manifest.group}", canonicalizer="<this folder>")'
    several = ""
    if manifest.others:
        first += f'\nrobust = robust.choose("{next(iter(manifest.others))}")'
        rows = [
            [name, one.group, _network(one), f"{sizes[name] / 1024:.0f} KiB", one.adapter.get("mode", "")]
            for name in manifest.names
            for one in [manifest.of(name, "the card")]
        ]
        several = _table(["name", "group", "network", "weights", "mode"], rows) + "\n\n"
    facts = [
        ("Group", manifest.group),
        ("Network", _network(manifest)),
        ("Weights", f"{sizes[manifest.name] / 1024:.0f} KiB"),
        ("Temperature", manifest.state.get("temperature")),
        ("Mode", manifest.adapter.get("mode")),
        ("Model", reference),
        ("Written by", f"upright {manifest.library_version}, schema {manifest.schema_version}"),
    ]
    table = _table(["", ""], [[name, str(value)] for name, value in facts if value is not None])
    plural = f"Canonicalizers for {', '.join(dict.fromkeys([manifest.group, *_groups(manifest)]))}"
    title = plural if manifest.others else f"A canonicalizer for {manifest.group}"
    return f"# {title}\n\n{table}\n\n{several}```python\nimport upright\n\n{first}\n```"


def _groups(manifest: Manifest) -> list[str]:
    return [entry["group"] for entry in manifest.others.values()]


def _network(manifest: Manifest) -> str:
    return str((manifest.canonicalizer or {}).get("network", manifest.canonicalizer_class))


def _at_pose(report: Report, i: int, pose: PoseAccuracy) -> list[str]:
    share = report.setting.is_share
    values = [number(row.poses[i].accuracy.value, share) for row in report.rows.values()]
    return [*values, percent(pose.accuracy.value)]


def _remarks(report: Report) -> list[str]:
    setting, chosen, lines = report.setting, report.canonicalizer, []
    if report.gap_closed is not None:
        closed = percent(report.gap_closed)
        lines.append(f"Share of the gap between the bare model and the true pose that is closed: {closed}%")
    rate = f"Upright pictures left alone: {percent(chosen.identity_rate.value)}%"
    if chosen.pose_accuracy is not None:
        rate += f"; turned pictures whose pose was found: {percent(chosen.pose_accuracy.value)}%"
    sure = f"mean confidence {percent(chosen.confidence)}%"
    lines.append(f"{rate}; {sure}, calibration error {percent(chosen.calibration_error)}%")
    if report.overhead is not None:
        cost = report.overhead
        where = f"{setting.device}, {setting.threads} threads"
        lines.append(f"Time of a batch against the bare model: ×{cost.time_ratio:.3f} ({where})")
    moved = [name for name, check in report.leakage.items() if check.moved]
    if report.leakage:
        verdict = f"moved by {', '.join(moved)}" if moved else "not moved by " + ", ".join(report.leakage)
        lines.append(f"Leakage check: poses were {verdict} after turning")
    border = f"border {setting.border}, {setting.interpolation} interpolation"
    lines.append(f"{setting.model}, {setting.group}, {setting.mode}; turned with {border}")
    lines.append(f"torch {setting.torch} on {setting.device}, {setting.dtype}; {setting.created}")
    return lines


def _called(name: str, row: RowMetrics) -> str:
    return row.label or name


def _interval(estimate: Any, is_share: bool) -> str:
    value, low, high = (number(x, is_share) for x in (estimate.value, estimate.low, estimate.high))
    return f"{value} ({low}–{high})"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _is_repository(name: str | os.PathLike[str] | None) -> bool:
    return (
        isinstance(name, str)
        and re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name) is not None
        and not Path(name).exists()
    )
