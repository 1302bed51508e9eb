"""A report as tables in the terminal."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

from .metrics import Estimate
from .report import CanonicalizerMetrics, Report

LONGEST = 40
"""Most poses that a table shows; of more, evenly many are shown."""

_WIDEST = 4
"""Most rows whose intervals the table of poses has room for."""


def report_tables(report: Report) -> Any:
    """Return the tables of a report as one `rich` renderable."""
    from rich.console import Group

    return Group(*report_parts(report).values(), _footer(report))


def report_parts(report: Report) -> dict[str, Any]:
    """Return the tables of a report by name, in the order in which they are shown."""
    parts = {"accuracy": _accuracy(report)}
    if any(row.further for row in report.rows.values()):
        parts["further"] = _further(report)
    parts |= {"poses": _poses(report), "canonicalizer": _canonicalizer(report)}
    if report.leakage:
        parts["leakage"] = _leakage(report)
    if any(row.cost for row in report.rows.values()):
        parts["rows"] = _row_costs(report)
    if report.overhead is not None:
        parts["overhead"] = _overhead(report)
    return parts


def as_text(renderable: Any, width: int = 120) -> str:
    """Return a `rich` renderable as plain text."""
    from rich.console import Console

    console = Console(file=io.StringIO(), width=width, color_system=None, legacy_windows=False)
    console.print(renderable)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in text.splitlines())


def percent(share: float | None) -> str:
    """Return a share in per cent with one decimal, or a dash."""
    return "–" if share is None else f"{100 * share:.1f}"


def interval(estimate: Estimate | None, is_share: bool = True) -> str:
    """Return a number with its interval; a share in per cent."""
    if estimate is None:
        return "–"
    value, low, high = (number(x, is_share) for x in (estimate.value, estimate.low, estimate.high))
    return f"{value} [dim]({low}–{high})[/dim]"


def _between(estimate: Estimate | None, is_share: bool) -> str:
    """Return the interval of a number alone."""
    if estimate is None:
        return ""
    return f"[dim]({number(estimate.low, is_share)}–{number(estimate.high, is_share)})[/dim]"


def number(value: float | None, is_share: bool = True) -> str:
    """Return a share in per cent, any other number with three digits."""
    return percent(value) if is_share or value is None else f"{value:.3g}"


def points(delta: float, is_share: bool = True) -> str:
    """Return a difference with its sign; of shares in percentage points."""
    return f"{100 * delta:+.1f}" if is_share else f"{delta:+.3g}"


def named(report: Report, name: str) -> str:
    """Return what a row is called, safe from being read as markup."""
    return literal(report.rows[name].label or name if name in report.rows else name)


def literal(text: str) -> str:
    """Return text that `rich` shows as it stands, brackets and all."""
    from rich.markup import escape

    return escape(text)


def titled(metric: str) -> str:
    """Return a name as it stands at the start of a title; mAP and its like stay as they are."""
    return metric if metric[1:2].isupper() else metric[:1].upper() + metric[1:]


def described(metric: str, is_share: bool, lower_is_better: bool = False) -> str:
    """Return the name of a metric with its unit, at the start of a title."""
    return (
        titled(metric)
        + (", in per cent" if is_share else "")
        + (", lower is better" if lower_is_better else "")
    )


def size_in_bytes(count: int) -> str:
    """Return a number of bytes in a readable unit."""
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count / 2**10:.0f} KiB"


def _table(title: str, *columns: str, left: int = 1) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(
        title=literal(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for i, column in enumerate(columns):
        table.add_column(literal(column), justify="left" if i < left else "right")
    return table


def _accuracy(report: Report) -> Any:
    setting = report.setting
    share = setting.is_share
    what = described(setting.metric, share, setting.lower_is_better)
    if not setting.has_labels:
        metric = "" if setting.metric == "accuracy" else f" ({setting.metric})"
        what = f"Agreement with the bare model on upright pictures{metric} (there are no labels)"
        what += ", in per cent" if share else ""
    title = f"{what} ({100 * setting.confidence:g}% intervals)"
    table = _table(
        title, "", "upright", "orbit mean", "worst pose", "prediction\nchanged", "largest\ndifference",
        "passes a\npicture",
    )  # fmt: skip
    for name, row in report.rows.items():
        table.add_row(
            named(report, name),
            interval(row.upright, share),
            interval(row.orbit_mean, share),
            f"{number(row.worst.accuracy.value, share)} at {literal(row.worst.label)} "
            + _between(row.worst_case, share),
            percent(row.changed),
            f"{row.largest_difference:.2g}",
            f"{row.passes:.2f}",
            style="bold" if name == "adapted" else None,
        )
    notes = []
    if "adapted" in report.rows and {"vanilla", "oracle"} <= set(report.rows):
        closed = report.gap_closed
        notes.append(
            "no gap between bare model and oracle beyond the noise, so no share of it is stated"
            if closed is None
            else f"share of the gap between bare model and oracle that is closed: {percent(closed)}%"
        )
    for name, row in report.rows.items():
        if row.invalid:
            notes.append(
                f"[red]{named(report, name)}: scores of {row.invalid} turned pictures were not numbers[/red]"
            )
    table.caption, table.caption_justify = "\n".join(notes) or None, "left"
    return table


def _further(report: Report) -> Any:
    """Return the other metrics of the task, one line a row and metric."""
    table = _table("Further metrics", "metric", "", "upright", "orbit mean", "worst pose", left=2)
    for metric in next(iter(report.rows.values())).further:
        for i, (name, row) in enumerate(report.rows.items()):
            scores = row.further[metric]
            share = scores.is_share
            table.add_row(
                "" if i else literal(metric) + (", in per cent" if share else ""),
                named(report, name),
                interval(scores.upright, share),
                interval(scores.orbit_mean, share),
                f"{number(scores.worst.accuracy.value, share)} at {literal(scores.worst.label)}",
                style="bold" if name == "adapted" else None,
            )
    return table


def _poses(report: Report) -> Any:
    chosen, rows = report.canonicalizer, report.rows
    step = -(-len(chosen.poses) // LONGEST)
    title = "Every pose" if step == 1 else f"One pose of {step}"
    columns = [rows[name].label or name for name in rows]
    table = _table(title, "pose", *columns, "right pose", "c(gx) = g·c(x)")

    def cell(estimate: Estimate, is_share: bool = True) -> str:
        few = len(rows) <= _WIDEST
        return interval(estimate, is_share) if few else number(estimate.value, is_share)

    for i, pose in list(enumerate(chosen.poses))[::step]:
        cells = [cell(row.poses[i].accuracy, report.setting.is_share) for row in rows.values()]
        table.add_row(literal(pose.label), *cells, cell(pose.accuracy), percent(chosen.equivariance_at[i]))
    return table


def _canonicalizer(report: Report) -> Any:
    every = {"adapted": report.canonicalizer, **report.choosers}
    names = [report.rows[name].label or name if name in report.rows else name for name in every]
    table = _table("Poses chosen, in per cent; a tie is never right", "", *names)
    table.show_header = len(every) > 1
    for text, cell in _POSES_CHOSEN.items():
        table.add_row(text, *(cell(chosen) for chosen in every.values()))
    if any(chosen.tolerance for chosen in every.values()):
        degrees = [_degrees(chosen.tolerance) for chosen in every.values()]
        table.add_row("a pose is right within", *degrees)
        for text, field in (("distance from the true pose", "pose_error"), _EQUIVARIANCE):
            table.add_row(f"median {text}", *(_degrees(getattr(c, field)) for c in every.values()))
    return table


_EQUIVARIANCE = ("distance of c(gx) from g·c(x)", "equivariance_error")
_POSES_CHOSEN: dict[str, Callable[[CanonicalizerMetrics], str]] = {
    "upright pictures left alone (identity rate)": lambda chosen: interval(chosen.identity_rate),
    "turned pictures: true pose found": lambda chosen: interval(chosen.pose_accuracy),
    "equivariance: c(gx) = g·c(x)": lambda chosen: percent(chosen.equivariance),
    "ties: upright pictures / all": lambda chosen: f"{percent(chosen.tied_upright)} / {percent(chosen.tied)}",
    "mean confidence": lambda chosen: percent(chosen.confidence),
    "calibration error": lambda chosen: percent(chosen.calibration_error),
}


def _degrees(distance: float | None) -> str:
    """Return a distance of poses as it is, and as an angle."""
    return "–" if distance is None else f"{distance:.3g} ({math.degrees(distance):.3g}°)"


def _row_costs(report: Report) -> Any:
    table = _table(
        "Cost of each row, a picture", "", "passes", "further\nparameters", "time", "time / bare model"
    )
    for name, row in report.rows.items():
        if row.cost is None:
            continue
        table.add_row(
            named(report, name),
            f"{row.passes:.2f}",
            f"{row.cost.parameters:,}",
            f"{row.cost.milliseconds:.2f} ms",
            f"×{row.cost.time_ratio:.2f}",
        )
    return table


def _leakage(report: Report) -> Any:
    first, share = next(iter(report.leakage.values())), report.setting.is_share
    table = _table(
        f"Leakage check, {first.pictures} pictures: degraded after turning, against turning alone, in points",
        "after turning", "pose\naccuracy", "allowed", "identity\nrate", "adapted", "bare model\nupright",
        "oracle", "verdict",
    )  # fmt: skip
    table.columns[-1].justify = "left"
    table.caption_justify = "left"
    for name, check in report.leakage.items():
        means, upright = check.orbit_mean, check.upright
        table.add_row(
            literal(f"{name} ({check.detail})"),
            points(check.pose_accuracy.delta),
            f"±{percent(check.tolerance)}",
            points(check.identity_rate.delta),
            points(means["adapted"].delta, share) if "adapted" in means else "–",
            points(upright["vanilla"].delta, share),
            points(means["oracle"].delta, share) if "oracle" in means else "–",
            "[red]MOVED[/red]" if check.moved else "[green]unmoved[/green]",
        )
    moved = [
        f"[red]{literal(name)}: {check.verdict}[/red]"
        for name, check in report.leakage.items()
        if check.moved
    ]
    table.caption = "\n".join(moved) or None
    return table


def _overhead(report: Report) -> Any:
    cost = report.overhead
    assert cost is not None
    table = _table(f"Cost, batch of {'×'.join(map(str, cost.batch))}", "", "bare model", "adapted", "ratio")
    share = cost.parameters_share
    table.add_row(
        "parameters",
        f"{cost.parameters_model:,}",
        f"+{cost.parameters_added:,}",
        "–" if share is None else f"+{100 * share:.2f}%",
    )
    ratio = f"×{cost.time_ratio:.3f} (quartiles {cost.time_ratio_low:.3f}–{cost.time_ratio_high:.3f})"
    table.add_row(
        f"time (median of {cost.runs} pairs, {cost.passes:.2f} passes a picture)",
        f"{1e3 * cost.seconds_model:.2f} ms",
        f"{1e3 * cost.seconds_adapted:.2f} ms",
        ratio,
    )
    memory = cost.memory_ratio
    table.add_row(
        "peak memory beyond weights",
        size_in_bytes(cost.peak_bytes_model),
        size_in_bytes(cost.peak_bytes_adapted),
        "–" if memory is None else f"×{memory:.2f}",
    )
    return table


def _footer(report: Report) -> Any:
    from rich.text import Text

    s = report.setting
    poses = f", at poses of {s.poses}" if s.poses else ""
    lines = [
        f"{s.model}, {s.group}, {s.mode}{poses} · {s.task} · {s.pictures} pictures of {s.size}"
        + ("" if s.classes is None else f", {s.classes} classes")
        + (f", {s.skipped} unreadable ones left out" if s.skipped else ""),
        f"turned with border {s.border}, {s.interpolation} interpolation (quarter turns and flips are exact)",
        f"torch {s.torch} on {s.device}, {s.dtype}, {s.threads} threads, {s.machine}",
        f"{s.seconds:.0f} s · {s.created}",
    ]
    return Text("\n".join(lines), style="dim")
