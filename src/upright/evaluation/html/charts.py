"""Charts of the page as SVG that takes its colours from the page's style sheet, light or dark."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from markupsafe import Markup

from ..curve import transformation_named
from ..report import CanonicalizerMetrics, PoseAccuracy, Report, RowMetrics
from ..style import COLOURS
from ..tables import number, percent
from ..transformations import Transformation

Point = tuple[float, float]
_WIDE = 440
_RADIUS, _MIDDLE = 148.0, (220.0, 178.0)
_LEFT, _RIGHT, _TOP, _FOOT, _TALL = 44.0, 14.0, 14.0, 42.0, 330.0


def tone(report: Report, name: str) -> str:
    """Return the class of the style sheet that colours a row; never the row's own name."""
    if name in COLOURS:
        return f"row-{name}"
    others = [row for row in report.rows if row not in COLOURS]
    return f"row-other{others.index(name) % 5}"


def shown(report: Report) -> list[str]:
    """Return the rows of a polar plot: bare, adapted and oracle; all where none of them was run."""
    return [name for name in report.rows if name in ("vanilla", "adapted", "oracle")] or list(report.rows)


def has_angles(report: Report) -> bool:
    """Say whether poses have angles, and enough of them for a polar plot."""
    poses = _poses(report)
    return len(poses) > 2 and all(pose.degrees is not None for pose in poses)


def has_values(report: Report) -> bool:
    """Say whether one number tells the poses apart, and there are enough of them for a curve."""
    poses = _poses(report)
    angles = has_angles(report) and len(poses) < 12
    return not angles and len(poses) > 2 and all(p.value is not None and not p.reflected for p in poses)


def polar(report: Report, reflected: bool) -> Markup:
    """Draw the metric over angle: a circle is what an equivariant model looks like."""
    names = shown(report)
    poses = [pose for pose in _poses(report) if pose.reflected == reflected]
    top = _top(report, names)
    parts = [
        Markup('<circle class="grid" cx="{}" cy="{}" r="{:.1f}"/>').format(*_MIDDLE, share * _RADIUS)
        for share in (0.25, 0.5, 0.75, 1.0)
    ]
    degrees = sorted(pose.degrees or 0.0 for pose in poses)
    step = -(-len(degrees) // 12)
    for angle in degrees[::step]:
        (x, y), (tx, ty) = _around(angle, _RADIUS), _around(angle, _RADIUS + 15)
        tx += 14 * (tx - _MIDDLE[0]) / _RADIUS
        parts.append(
            Markup('<line class="grid" x1="{}" y1="{}" x2="{:.1f}" y2="{:.1f}"/>').format(*_MIDDLE, x, y)
        )
        parts.append(
            Markup('<text class="tick" x="{:.1f}" y="{:.1f}">{:g}°</text>').format(tx, ty + 4, angle)
        )
    between = 180 / max(len(degrees), 4)
    for name in sorted(names, key=lambda name: name in ("vanilla", "adapted")):
        own = [pose for pose in report.rows[name].poses if pose.reflected == reflected]
        parts.append(_ring(own, top, name, tone(report, name), report))
    for share in (0.25, 0.5, 0.75, 1.0):
        x, y = _around(between, share * _RADIUS)
        text = f"{100 * share:g}" if report.setting.is_share else f"{share * top:.2g}"
        parts.append(Markup('<text class="radius" x="{:.1f}" y="{:.1f}">{}</text>').format(x, y + 4, text))
    return _svg(_WIDE, 356, parts, f"{report.setting.metric} over angle")


def _ring(poses: Sequence[PoseAccuracy], top: float, name: str, style: str, report: Report) -> Markup:
    """Draw one row of a polar plot: its interval, its line, its poses."""
    turned = sorted(poses, key=lambda pose: pose.degrees or 0.0)
    angles = [pose.degrees or 0.0 for pose in turned]
    fine = np.arange(0, 361, 3)

    def closed(end: str) -> list[Point]:
        radii = np.interp(fine, angles, [getattr(p.accuracy, end) / top for p in turned], period=360)
        return [_around(float(a), _RADIUS * float(r)) for a, r in zip(fine, radii, strict=True)]

    line = Markup('<path class="line" d="{}"/>').format(_path(closed("value")))
    if name == "oracle":
        return Markup('<g class="{} dashed">{}</g>').format(style, line)
    band = Markup('<path class="band" fill-rule="evenodd" d="{}Z{}Z"/>').format(
        _path(closed("high")), _path(closed("low"))
    )
    places = [_around(pose.degrees or 0.0, _RADIUS * pose.accuracy.value / top) for pose in turned]
    dots = [_dot(place, _said(report, name, pose)) for place, pose in zip(places, turned, strict=True)]
    return Markup('<g class="{}">{}{}{}</g>').format(style, band, line, Markup("").join(dots))


def curve(report: Report) -> Markup:
    """Draw the metric over the number that tells the poses apart."""
    known, poses = transformation_named(report), _poses(report)
    values = sorted({pose.value or 0.0 for pose in poses})
    log = known is not None and known.unit == "×" and values[0] > 0
    around = known is not None and known.period is not None and values[0] >= 0
    ends = (0.0, known.period or 0.0) if known is not None and around else (values[0], values[-1])
    ends = (math.log(ends[0]), math.log(ends[1])) if log else ends

    def across(value: float) -> float:
        place = math.log(value) if log else value
        return _LEFT + (_WIDE - _LEFT - _RIGHT) * (place - ends[0]) / ((ends[1] - ends[0]) or 1.0)

    parts = _frame(report, _top(report, list(report.rows)))
    parts += [
        Markup('<text class="tick" x="{:.1f}" y="{}">{}</text>').format(across(v), _TALL - _FOOT + 19, text)
        for v, text in _ticks(values, known, around)
    ]
    for name, row in report.rows.items():
        parts.append(_line(report, name, row, across, known.period if known and around else None))
    if known is not None:
        middle = (_LEFT + _WIDE - _RIGHT) / 2
        parts.append(
            Markup('<text class="axis" x="{}" y="{}">{}</text>').format(middle, _TALL - 4, known.axis)
        )
    return _svg(_WIDE, _TALL, parts, f"{report.setting.metric} at every value")


def _line(
    report: Report, name: str, row: RowMetrics, across: Callable[[float], float], period: float | None
) -> Markup:
    top = _top(report, list(report.rows))
    poses = sorted(row.poses, key=lambda pose: pose.value or 0.0)
    values = [pose.value or 0.0 for pose in poses]
    if period is not None and len(values) > 2:
        widest = max(b - a for a, b in itertools.pairwise(values))
        if period - values[-1] + values[0] <= 1.5 * widest:  # all the way round
            poses, values = [*poses, poses[0]], [*values, values[0] + period]

    def places(end: str) -> list[Point]:
        return [
            (across(v), _height(getattr(p.accuracy, end) / top)) for v, p in zip(values, poses, strict=True)
        ]

    line = Markup('<path class="line" d="{}"/>').format(_path(places("value")))
    if name == "oracle":
        return Markup('<g class="{} dashed">{}</g>').format(tone(report, name), line)
    band = Markup('<path class="band" d="{}Z"/>').format(_path([*places("high"), *reversed(places("low"))]))
    dots = [_dot(at, _said(report, name, p), 3.2) for at, p in zip(places("value"), poses, strict=True)]
    worst = Markup('<circle class="worst" cx="{:.1f}" cy="{:.1f}" r="7"/>').format(
        across(row.worst.value or 0.0), _height(row.worst.accuracy.value / top)
    )
    drawn = Markup("").join([band, line, *(dots if len(dots) <= 49 else []), worst])
    return Markup('<g class="{}">{}</g>').format(tone(report, name), drawn)


def strips(report: Report) -> Markup:
    """Draw the metric at poses that have neither angle nor number, side by side."""
    poses, names, parts = _poses(report), list(report.rows), _frame(report, _top(report, list(report.rows)))
    step = (_WIDE - _LEFT - _RIGHT) / len(poses)
    shift = min(9.0, step / (len(names) + 1))
    for i, pose in enumerate(poses):
        middle = _LEFT + (i + 0.5) * step
        if len(poses) <= 12:
            parts.append(
                Markup('<text class="tick" x="{:.1f}" y="{}">{}</text>').format(
                    middle, _TALL - _FOOT + 19, pose.label
                )
            )
        for j, name in enumerate(names):
            own, x = report.rows[name].poses[i], middle + (j - (len(names) - 1) / 2) * shift
            y, low, high = (
                _height(getattr(own.accuracy, end) / _top(report, names)) for end in ("value", "low", "high")
            )
            stem = Markup('<line class="stem" x1="{0:.1f}" x2="{0:.1f}" y1="{1:.1f}" y2="{2:.1f}"/>').format(
                x, low, high
            )
            dot = _dot((x, y), _said(report, name, own), min(4.0, shift / 2))
            parts.append(Markup('<g class="{}">{}{}</g>').format(tone(report, name), stem, dot))
    return _svg(_WIDE, _TALL, parts, f"{report.setting.metric} at every pose")


def reliability(chosen: CanonicalizerMetrics) -> Markup:
    """Draw how often the chosen pose is right over how confident the canonicalizer is."""
    side, left, top = 300.0, 60.0, 14.0

    def place(x: float, y: float) -> Point:
        return left + side * x, top + side * (1 - y)

    parts = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        (x0, y), (x1, _) = place(0, share), place(1, share)
        parts.append(
            Markup('<line class="grid" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>').format(
                x0, x1, y, y
            )
        )
        parts.append(
            Markup('<text class="tick end" x="{:.1f}" y="{:.1f}">{:g}</text>').format(
                x0 - 8, y + 4, 100 * share
            )
        )
        x, _ = place(share, 0)
        parts.append(
            Markup('<text class="tick" x="{:.1f}" y="{:.1f}">{:g}</text>').format(
                x, top + side + 18, 100 * share
            )
        )
    (x0, y0), (x1, y1) = place(0, 0), place(1, 1)
    parts.append(
        Markup('<line class="ideal" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(x0, y0, x1, y1)
    )
    for one in chosen.bins:
        x, y = place(one.confidence, one.accuracy)
        _, fair = place(one.confidence, one.confidence)
        said = (
            f"confidence {percent(one.confidence)}%: {percent(one.accuracy)}% right, "
            f"{percent(one.share)}% of all"
        )
        stem = Markup('<line class="stem" x1="{0:.1f}" x2="{0:.1f}" y1="{1:.1f}" y2="{2:.1f}"/>').format(
            x, fair, y
        )
        parts.append(
            Markup('<g class="row-adapted">{}{}</g>').format(
                stem, _dot((x, y), said, 3 + 12 * one.share**0.5)
            )
        )
    parts.append(
        Markup('<text class="axis" x="{:.1f}" y="{:.1f}">confidence in the pose, %</text>').format(
            left + side / 2, top + side + 38
        )
    )
    parts.append(
        Markup(
            '<text class="axis" transform="translate(16 {:.1f}) rotate(-90)">right poses, %</text>'
        ).format(top + side / 2)
    )
    return _svg(left + side + 20, top + side + 46, parts, "share of right poses over confidence")


def _frame(report: Report, top: float) -> list[Markup]:
    """Return the lines of a chart with their labels."""
    parts = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = _height(share)
        text = f"{100 * share:g}" if report.setting.is_share else f"{share * top:.2g}"
        parts.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{y:.1f}" y2="{y:.1f}"/>').format(
                _LEFT, _WIDE - _RIGHT, y=y
            )
        )
        parts.append(
            Markup('<text class="tick end" x="{}" y="{:.1f}">{}</text>').format(_LEFT - 8, y + 4, text)
        )
    return parts


def _ticks(
    values: Sequence[float], known: Transformation | None, around: bool
) -> Iterable[tuple[float, str]]:
    if known is not None and around:
        return [(float(v), f"{v}°") for v in range(0, int(known.period or 0) + 1, 45)]
    step = -(-len(values) // 9)
    start = next((i for i, v in enumerate(values) if known is not None and v == 1.0), 0) % step
    return [(v, known.label(v) if known is not None else f"{v:.3g}") for v in values[start::step]]


def _poses(report: Report) -> tuple[PoseAccuracy, ...]:
    return next(iter(report.rows.values())).poses


def _top(report: Report, names: Sequence[str]) -> float:
    """Return what lies at the edge: 1 of shares, the largest value of other metrics."""
    if report.setting.is_share:
        return 1.0
    return max(pose.accuracy.high for name in names for pose in report.rows[name].poses) or 1.0


def _said(report: Report, name: str, pose: PoseAccuracy) -> str:
    """Return what is shown where the pointer rests on a mark."""
    share, at = report.setting.is_share, pose.accuracy
    value, low, high = (number(x, share) for x in (at.value, at.low, at.high))
    return f"{report.rows[name].label or name}, {pose.label}: {value} ({low}–{high})"


def _around(degrees: float, radius: float) -> Point:
    """Return a place on a circle; 0° is up, angles grow counter-clockwise, as pictures turn."""
    angle = math.radians(degrees)
    return _MIDDLE[0] - radius * math.sin(angle), _MIDDLE[1] - radius * math.cos(angle)


def _height(share: float) -> float:
    return _TALL - _FOOT - (_TALL - _FOOT - _TOP) * share


def _path(places: Sequence[Point]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)


def _dot(place: Point, said: str, radius: float = 4.4) -> Markup:
    return Markup('<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="{:.1f}"><title>{}</title></circle>').format(
        *place, radius, said
    )


def _svg(width: float, height: float, parts: Iterable[Markup], said: str) -> Markup:
    return Markup('<svg viewBox="0 0 {:g} {:g}" role="img" aria-label="{}">{}</svg>').format(
        width, height, said, Markup("").join(parts)
    )
