"""Figures of a report: accuracy over angle, and the reliability of the poses. No global state, no display."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .style import COLOURS, GREY, INK, canvas, colours, direct_title, save
from .tables import number, percent, titled

if TYPE_CHECKING:
    from .report import PoseAccuracy, Report, RowMetrics

_LABELS = {"vanilla": "bare model", "average": "group average", "adapted": "adapted", "oracle": "oracle"}
_FRONT = ("vanilla", "adapted")  # drawn last, over the others


def plot_angles(
    report: Report, path: str | Path, *, rows: Sequence[str] = ("vanilla", "adapted", "oracle")
) -> Path:
    """Draw accuracy over angle as a polar plot: a circle is what an equivariant model looks like.

    Markers are measured poses, bands their confidence intervals; lines between markers only guide the eye.
    Where the task is another than classification, its first metric takes the place of accuracy.
    Reflected poses have a panel of their own.

    Args:
        report: The report.
        path: The file; its suffix chooses the format.
        rows: Rows to draw; those that were not run are left out.

    Returns:
        The path.

    Raises:
        ValueError: If the group has no angles, or none of the rows was run.
    """
    shown = sorted((name for name in report.rows if name in rows), key=lambda name: name in _FRONT)
    if not shown:
        raise ValueError(f"rows must name rows of the report, {list(report.rows)}, got {list(rows)}")
    poses = report.rows[shown[0]].poses
    if any(pose.degrees is None for pose in poses):
        raise ValueError(f"accuracy over angle needs a group of planar rotations, got {report.setting.group}")
    panels = sorted({pose.reflected for pose in poses})
    extra = 0.2 * (len(panels) > 1)
    width, height, head, foot = 4.9 * len(panels), 6.1 + extra, 1.3 + extra, 1.2
    figure = canvas(width, height)
    side = height - head - foot
    for i, reflected in enumerate(panels):
        middle = (i + 0.5) * 4.9
        box = ((middle - side / 2) / width, foot / height, side / width, side / height)
        axes = figure.add_axes(box, projection="polar")
        _polar(axes, [pose for pose in poses if pose.reflected == reflected], _radii(report, shown))
        for name in shown:
            _curve(axes, name, report.rows[name], reflected, colours(shown)[name])
        if len(panels) > 1:
            text = "flipped, then turned" if reflected else "turned"
            figure.text(
                middle / width, 1 - 1.02 / height, text, fontsize=10.5, color=GREY, ha="center", va="center"
            )
    s = report.setting
    what = titled(s.metric) if s.has_labels else "Agreement with the bare model upright"
    direct_title(
        figure,
        f"{what} over angle",
        f"{s.model}, {s.group} · {s.pictures:,} pictures, {s.size} · {100 * s.confidence:g}% intervals",
    )
    legend(figure, [name for name in report.rows if name in shown], report)
    return save(figure, path)


def _radii(report: Report, shown: Sequence[str]) -> list[tuple[float, str]]:
    """Return the circles of the plot with their labels: shares up to 1, other metrics up to their largest."""
    if report.setting.is_share:
        return [(0.25, "25"), (0.5, "50"), (0.75, "75"), (1.0, "100%")]
    top = max(pose.accuracy.high for name in shown for pose in report.rows[name].poses) or 1.0
    return [(share * top, f"{share * top:.2g}") for share in (0.25, 0.5, 0.75, 1.0)]


def _polar(axes: Any, poses: list[PoseAccuracy], radii: list[tuple[float, str]]) -> None:
    from matplotlib import patheffects

    axes.set_theta_zero_location("N")
    axes.set_theta_direction(1)  # counter-clockwise, as pictures turn
    axes.set_ylim(0, radii[-1][0])
    axes.set_yticks([radius for radius, _ in radii])
    axes.set_yticklabels([])
    degrees = [float(pose.degrees or 0.0) for pose in poses]
    step = max(1, len(degrees) // 8)
    axes.set_thetagrids(degrees[::step], [f"{d:g}°" for d in degrees[::step]], fontsize=10.5, color=INK)
    between = math.pi / max(len(degrees), 4)
    for radius, text in radii:
        label = axes.text(between, radius, text, fontsize=8, color=GREY, ha="center", va="center", zorder=9)
        label.set_path_effects([patheffects.withStroke(linewidth=2.4, foreground="white")])
    axes.tick_params(axis="x", pad=5)
    axes.grid(color="#E3E5E8", linewidth=0.8)
    axes.spines["polar"].set_visible(False)
    axes.set_axisbelow("line")


def _curve(axes: Any, name: str, row: RowMetrics, reflected: bool, colour: str) -> None:
    poses = sorted((p for p in row.poses if p.reflected == reflected), key=lambda pose: pose.degrees or 0.0)
    angles = np.radians([pose.degrees or 0.0 for pose in poses])
    value, low, high = ([getattr(p.accuracy, end) for p in poses] for end in ("value", "low", "high"))
    fine, (value_fine, low_fine, high_fine) = _closed(angles, [value, low, high])
    if name == "oracle":
        axes.plot(fine, value_fine, color=colour, linewidth=1.4, linestyle=(0, (4, 3)), zorder=2)
        return
    axes.fill_between(fine, low_fine, high_fine, color=colour, alpha=0.16, linewidth=0, zorder=2)
    axes.plot(fine, value_fine, color=colour, linewidth=2.2, solid_capstyle="round", zorder=4)
    axes.plot(
        angles, value, "o", color=colour, markersize=6, markeredgecolor="white", markeredgewidth=1.2,
        zorder=5, clip_on=False,
    )  # fmt: skip


def _closed(angles: Any, columns: list[list[float]]) -> tuple[Any, list[Any]]:
    """Interpolate columns linearly over the angle, all the way round."""
    fine = np.linspace(0, 2 * math.pi, 361)
    return fine, [np.interp(fine, angles, column, period=2 * math.pi) for column in columns]


def legend(figure: Any, shown: list[str], report: Report) -> None:
    """Name the curves, with the two numbers that sum each up."""
    from matplotlib.lines import Line2D

    width, height = figure.get_size_inches()
    column = min(1.62, (width - 0.4) / len(shown))
    left = (width - column * len(shown)) / 2
    for i, name in enumerate(shown):
        row, x = report.rows[name], left + i * column + 0.08
        dashes: Any = (0, (2.2, 1.4)) if name == "oracle" else "-"
        line = Line2D(
            [x / width, (x + 0.26) / width], [0.565 / height] * 2, color=colours(shown)[name], linewidth=2.4,
            linestyle=dashes, transform=figure.transFigure,
        )  # fmt: skip
        figure.add_artist(line)
        text = {"ha": "left", "va": "center", "color": INK}
        label = _LABELS.get(name, name)
        figure.text((x + 0.34) / width, 0.57 / height, label, fontsize=10, fontweight="bold", **text)
        upright, mean = (number(x.value, report.setting.is_share) for x in (row.upright, row.orbit_mean))
        numbers = f"upright {upright}\nmean {mean}"
        figure.text((x + 0.34) / width, 0.295 / height, numbers, fontsize=9, linespacing=1.35, **text)


def plot_reliability(report: Report, path: str | Path) -> Path:
    """Draw how often the chosen pose is right over how confident the canonicalizer is.

    Args:
        report: The report.
        path: The file; its suffix chooses the format.

    Returns:
        The path.
    """
    chosen = report.canonicalizer
    figure = canvas(4.6, 5.0)
    axes = figure.add_axes((0.13, 0.12, 0.82, 0.68))
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    for bin_ in chosen.bins:
        axes.plot(
            [bin_.confidence] * 2, [bin_.confidence, bin_.accuracy], color=COLOURS["vanilla"], linewidth=1.2
        )
    axes.scatter(
        [b.confidence for b in chosen.bins],
        [b.accuracy for b in chosen.bins],
        s=[30 + 700 * b.share for b in chosen.bins],
        color=COLOURS["adapted"], zorder=3,
    )  # fmt: skip
    axes.set_xlim(0, 1.04)
    axes.set_ylim(0, 1.04)
    axes.set_xlabel("confidence in the pose", fontsize=10, color=INK)
    axes.set_ylabel("share of right poses", fontsize=10, color=INK)
    axes.grid(color="#E3E5E8", linewidth=0.8)
    axes.tick_params(length=0, labelsize=9, labelcolor=GREY)
    for side in axes.spines.values():
        side.set_visible(False)
    direct_title(
        figure,
        "Confidence of the poses",
        f"calibration error {percent(chosen.calibration_error)}% · area: share of pictures",
    )
    return save(figure, path)
