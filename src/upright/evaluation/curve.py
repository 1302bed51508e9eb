"""Off the grid: a metric over a continuous angle, scale or hue, as a report and as a figure."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..adapter import Adapted
from ..groups.base import Element
from ..groups.subset import Subset
from .figures import legend
from .protocol import evaluate
from .report import PoseAccuracy, Report
from .rows import Row
from .style import GREY, INK, canvas, colours, direct_title, save
from .tables import titled
from .transformations import TRANSFORMATIONS, Transformation
from .transformations import transformation as named

if TYPE_CHECKING:
    from .report import RowMetrics


def evaluate_curve(
    robust: Adapted,
    data: Any,
    transformation: str | Transformation | Element | Subset = "rotation",
    values: Any = None,
    *,
    rows: Sequence[str | Row] = ("vanilla", "adapted", "oracle"),
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    **settings: Any,
) -> Report:
    """Measure a model over a continuous transformation, which need not be one of its group.

    Every picture is transformed by every value, its target with it. The model may be adapted to another
    group: one made equivariant to quarter turns, say, at every tenth degree.

    Args:
        robust: The adapted model, from `upright.adapt`.
        data: See `upright.evaluate`.
        transformation: A name in `upright.evaluation.TRANSFORMATIONS` (``"rotation"``, ``"scale"``,
            ``"hue"``, ``"brightness"``, ``"contrast"``, ``"gamma"``), a `upright.evaluation.Transformation`,
            or elements of any group, shape ``(P,)``, or a set of them.
        values: Degrees, factors or shifts, shape ``(P,)``; None: the usual ones. The value that changes
            nothing is always among them: it is the reference of the equivariance error, and counts in the
            mean.
        rows: Which rows to run; see `upright.evaluate`.
        mean: For colours: what was subtracted from the channels when the pictures were normalised.
        std: What they were divided by, with ``mean``.
        **settings: Further arguments of `upright.evaluate`. Its leakage check is left out unless asked for.

    Returns:
        The report: one pose a value, the metric there with its interval (``rows[…].poses``), its mean
        (``orbit_mean``) and its worst case (``worst``, ``worst_case``). ``report.plot_curve(path)`` draws it.

    Raises:
        ValueError: If the transformation is unknown, or a value is out of its range.
        TypeError: If values are given together with elements.

    Example:
        >>> import torch, upright
        >>> robust = upright.adapt(lambda x: x[:, :2, 4, 4], "C4", canonicalizer="identity")
        >>> data = (torch.rand(6, 3, 8, 8), torch.zeros(6).long())
        >>> report = upright.evaluate_curve(robust, data, "rotation", range(0, 360, 45), overhead=False)
        >>> [pose.label for pose in report.rows["adapted"].poses][:3]
        ['0°', '45°', '90°']
    """
    if isinstance(transformation, (Element, Subset)):
        if values is not None:
            raise TypeError("values belong to a transformation; leave them out where elements are given")
        poses: Any = transformation
    else:
        found = named(transformation).normalized(mean, std)
        poses = found.elements(list(values) if isinstance(values, range) else values)
    return evaluate(robust, data, rows=rows, poses=poses, **{"leakage": False, **settings})


def plot_curve(report: Report, path: str | Path, *, rows: Sequence[str] | None = None) -> Path:
    """Draw the metric over the number that tells the poses apart, with the worst case of every row marked.

    Markers are measured poses, bands their confidence intervals; lines between markers only guide the eye.

    Args:
        report: What `upright.evaluate_curve` found.
        path: The file; its suffix chooses the format.
        rows: Rows to draw; None: all.

    Returns:
        The path.

    Raises:
        ValueError: If the poses are not told apart by one number, or none of the rows was run.
    """
    shown = [name for name in report.rows if rows is None or name in rows]
    if not shown:
        raise ValueError(f"rows must name rows of the report, {list(report.rows)}, got {rows}")
    poses = report.rows[shown[0]].poses
    if any(pose.value is None or pose.reflected for pose in poses):
        group = report.setting.poses or report.setting.group
        raise ValueError(f"a curve needs poses that one number tells apart, got poses of {group}")
    known = transformation_named(report)
    width, height = max(7.2, 1.75 * len(shown)), 5.2
    figure = canvas(width, height)
    axes = figure.add_axes((0.75 / width, 1.45 / height, 1 - 1.05 / width, 1 - 2.5 / height))
    drawn = colours(shown)
    for name in shown:
        period = None if known is None else known.period
        _line(axes, report.rows[name], drawn[name], period, dashed=name == "oracle")
    _dress(axes, report, poses, known)
    s = report.setting
    what = titled(s.metric) if s.has_labels else "Agreement with the bare model upright"
    axis = known.name if known is not None else str(s.poses or s.group)
    direct_title(
        figure,
        f"{what} over {axis}",
        f"{s.model}, {s.group} · {s.pictures:,} pictures, {s.size} · {100 * s.confidence:g}% intervals · "
        "ring: worst case",
    )
    legend(figure, shown, report)
    return save(figure, path)


def transformation_named(report: Report) -> Transformation | None:
    """Return the transformation of a report's poses; angles of any planar group are rotations."""
    poses = next(iter(report.rows.values())).poses
    if poses[0].degrees is not None:
        return TRANSFORMATIONS["rotation"]
    name = (report.setting.poses or report.setting.group).partition("[")[0]
    return next((one for one in TRANSFORMATIONS.values() if str(one.group) == name), None)


def _line(axes: Any, row: RowMetrics, colour: str, period: float | None, *, dashed: bool) -> None:
    poses = sorted(row.poses, key=lambda pose: pose.value or 0.0)
    x = [pose.value or 0.0 for pose in poses]
    if (
        period is not None
        and len(x) > 2
        and period - x[-1] <= 1.5 * max(b - a for a, b in itertools.pairwise(x))
    ):
        poses, x = [*poses, poses[0]], [*x, x[0] + period]  # all the way round
    value, low, high = ([getattr(pose.accuracy, end) for pose in poses] for end in ("value", "low", "high"))
    if dashed:
        axes.plot(x, value, color=colour, linewidth=1.4, linestyle=(0, (4, 3)), zorder=2)
        return
    axes.fill_between(x, low, high, color=colour, alpha=0.16, linewidth=0, zorder=2)
    axes.plot(x, value, color=colour, linewidth=2.0, zorder=4)
    if len(x) <= 40:
        axes.plot(x, value, "o", color=colour, markersize=4, markeredgecolor="white", zorder=5)
    worst = row.worst
    axes.plot(
        worst.value or 0.0, worst.accuracy.value, "o", color="none", markeredgecolor=colour, markersize=11,
        markeredgewidth=1.6, zorder=6, clip_on=False,
    )  # fmt: skip


def _dress(axes: Any, report: Report, poses: Sequence[PoseAccuracy], known: Transformation | None) -> None:
    """Label the axes of a curve."""
    if known is not None and known.unit == "×":
        axes.set_xscale("log")
        ticks = [v for v in known.values if _within(poses, v)]
        axes.set_xticks(ticks, [known.label(v) for v in ticks])
        axes.set_xticks([], minor=True)
    elif known is not None and known.period is not None:
        axes.set_xticks(range(0, int(known.period) + 1, 45), [f"{d}°" for d in range(0, 361, 45)])
        axes.set_xlim(0, known.period)
    if report.setting.is_share:
        axes.set_ylim(0, 1.0)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1.0], ["0", "25", "50", "75", "100%"])
    axes.set_xlabel(known.axis if known is not None else "", fontsize=10, color=INK)
    axes.grid(color="#E3E5E8", linewidth=0.8)
    axes.tick_params(length=0, labelsize=9, labelcolor=GREY)
    for side in axes.spines.values():
        side.set_visible(False)


def _within(poses: Sequence[PoseAccuracy], value: float) -> bool:
    """Say whether a value lies within the range of the poses."""
    found = [pose.value for pose in poses if pose.value is not None]
    return min(found) - 1e-9 <= value <= max(found) + 1e-9
