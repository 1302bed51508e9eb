"""Putting the page together: every number and name goes through the template, which escapes it."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from ..._files import write_file
from ..confusion import TIED, Confusion
from ..report import Report, Setting
from ..samples import Finding, Sample
from ..tables import number, percent, report_parts, titled
from . import charts, words
from .tables import as_html, title_of

_LARGEST, _SMALL = 320, 100
"""Longest side of a picture on the page, in pixels; below the second, pixels are shown as squares."""

_PAINT = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (240, 228, 66), (86, 180, 233))


def write_page(report: Report, path: str | Path, samples: Sequence[Sample] = ()) -> Path:
    """Write a report as one HTML page that needs nothing else and asks for nothing from outside.

    The page runs no code (its own policy forbids it), follows the reader's choice of light or dark, and
    carries the report's data, to be saved from it.

    Args:
        report: The report.
        path: The file; missing folders are made.
        samples: Pictures to show, from `upright.evaluation.samples`.

    Returns:
        The path.
    """
    text = page(report, samples)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    return write_file(path, text)


def page(report: Report, samples: Sequence[Sample] = ()) -> str:
    """Return the page that `write_page` writes."""
    s = report.setting
    data = base64.b64encode(report.to_json().encode()).decode()
    made: str = _template().render(
        style=Markup(_text("report.css")),
        report=report,
        s=s,
        words=words,
        headline=words.headline(report),
        summary=words.summary(report),
        tiles=words.tiles(report),
        measured=titled(s.metric) if s.has_labels else "Agreement with the bare model upright",
        rows=[_row(report, name) for name in report.rows],
        chart=_chart(report),
        tables={name: (title_of(table), as_html(table)) for name, table in report_parts(report).items()},
        confusion=_confusion(report.canonicalizer.confusion, report),
        reliability=charts.reliability(report.canonicalizer) if report.canonicalizer.bins else None,
        costs=_costs(report),
        gallery=[_picture_of(sample, s) for sample in samples],
        environment=_environment(s),
        call=s.command or _call(s),
        data=Markup("data:application/json;base64,") + data,
    )
    return made


@cache
def _template() -> Any:
    from jinja2 import Environment, StrictUndefined

    made = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return made.from_string(_text("report.html"))


def _text(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _row(report: Report, name: str) -> dict[str, Any]:
    """Return the marks of one row, upright, on average and at its worst, as places in per cent."""
    row, share = report.rows[name], report.setting.is_share
    top = 1.0 if share else max(one.worst.accuracy.high for one in report.rows.values())
    top = top if share else max(top, *(one.upright.high for one in report.rows.values()), 1e-12)
    marks = {
        "upright": row.upright.value,
        "mean": row.orbit_mean.value,
        "low": row.orbit_mean.low,
        "high": row.orbit_mean.high,
        "worst": row.worst.accuracy.value,
    }
    places = {key: f"{100 * min(max(value / top, 0.0), 1.0):.2f}" for key, value in marks.items()}
    ends = sorted((float(places["upright"]), float(places["worst"])))
    return {
        "label": row.label or name,
        "tone": charts.tone(report, name),
        "is_adapted": name == "adapted",
        "at": places,
        "from": f"{ends[0]:.2f}",
        "wide": f"{ends[1] - ends[0]:.2f}",
        "said": {key: words.value(value, share) for key, value in marks.items()},
        "worst_at": row.worst.label,
        "passes": words.passes(row.passes),
    }


def _chart(report: Report) -> dict[str, Any]:
    """Return the drawing of the metric over the poses, of the kind that suits them."""
    if charts.has_angles(report):
        sides = sorted({pose.reflected for pose in next(iter(report.rows.values())).poses})
        names = charts.shown(report)
        names_of = {False: "turned", True: "flipped, then turned"}
        figures = [(names_of[side] if len(sides) > 1 else "", charts.polar(report, side)) for side in sides]
        note = "A circle is what an equivariant model looks like."
    elif charts.has_values(report):
        names, figures = list(report.rows), [("", charts.curve(report))]
        note = "A level line is what an equivariant model looks like. Ring: the worst value."
    else:
        names, figures = list(report.rows), [("", charts.strips(report))]
        note = "Level rows of dots are what an equivariant model looks like."
    legend = [{"label": report.rows[name].label or name, "tone": charts.tone(report, name)} for name in names]
    return {"figures": figures, "legend": legend, "note": note, "names": names}


def _confusion(found: Confusion | None, report: Report) -> dict[str, Any] | None:
    """Return the confusion of poses as shares of each row."""
    if found is None or len(found.counts) < 2:
        return None
    rows = []
    for pose, counts, right in zip(report.canonicalizer.poses, found.counts, found.right, strict=True):
        total = sum(counts) or 1
        cells = [
            {
                "share": f"{count / total:.3f}",
                "text": f"{100 * count / total:.0f}" if count else "",
                "said": f"{pose.label} taken for {label}: {count} of {total}"
                if label != TIED
                else f"{pose.label}, tied: {count} of {total}",
                "dark": count / total > 0.5,
                "right": i in right,
            }
            for i, (count, label) in enumerate(zip(counts, found.chosen, strict=True))
        ]
        rows.append({"label": pose.label, "cells": cells})
    every = len(found.chosen)
    step = -(-every // 12)
    heads = [label if i % step == 0 or label == TIED else "" for i, label in enumerate(found.chosen)]
    return {"heads": heads, "rows": rows, "fine": max(every, len(rows)) > 12}


def _costs(report: Report) -> list[dict[str, Any]]:
    """Return what each row costs, as bars against the bare model."""
    costs = [(name, row) for name, row in report.rows.items() if row.cost is not None]
    if not costs:
        return []
    top = max(1.0, *(row.cost.time_ratio for _, row in costs if row.cost))
    bars = [
        {
            "label": "bare model",
            "tone": "row-vanilla",
            "ratio": "×1",
            "wide": f"{100 / top:.1f}",
            "passes": "1.00",
        }
    ]
    for name, row in costs:
        assert row.cost is not None
        bars.append(
            {
                "label": row.label or name,
                "tone": charts.tone(report, name),
                "ratio": words.times(row.cost.time_ratio),
                "wide": f"{100 * row.cost.time_ratio / top:.1f}",
                "passes": f"{row.passes:.2f}",
            }
        )
    return bars


def _picture_of(sample: Sample, s: Setting) -> dict[str, Any]:
    """Return one picture of the gallery."""
    drawn = any(f.boxes or f.points or f.map is not None for f in (sample.bare, sample.adapted))
    frames: list[tuple[str, str, Finding | None]] = [("as given", _image(sample.given), None)]
    if drawn:
        frames = [
            (name, _image(_painted(sample.given, found)), found)
            for name, found in (("bare model", sample.bare), ("adapted", sample.adapted))
        ]
    frames.append(("canonical", _image(sample.canonical), None))
    height, width = sample.given.shape[:2]
    return {
        "frames": frames,
        "size": (width, height),
        "small": max(height, width) < _SMALL,
        "sample": sample,
        "confidence": percent(sample.confidence),
        "findings": [
            {
                "who": who,
                "tone": style,
                "found": found,
                "confidence": "" if found.confidence is None else f"{100 * found.confidence:.0f}%",
                "score": "" if found.score is None else f"{s.metric} {number(found.score, s.is_share)}",
            }
            for who, style, found in (
                ("bare", "row-vanilla", sample.bare),
                ("adapted", "row-adapted", sample.adapted),
            )
            if found.text or found.score is not None
        ],
    }


def _image(pixels: Any) -> str:
    """Return a picture as a data address: photos as JPEG, small pictures as PNG."""
    from PIL import Image

    picture = Image.fromarray((np.asarray(pixels) * 255).round().astype(np.uint8))
    small = max(picture.size) < _SMALL
    picture.thumbnail((_LARGEST, _LARGEST), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    picture.save(content, **({"format": "PNG"} if small else {"format": "JPEG", "quality": 86}))
    kind = "png" if small else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"


def _painted(pixels: Any, found: Finding) -> Any:
    """Return a picture with the map that was found laid over it; numbers that are no classes in shades."""
    if found.map is None or np.shape(found.map) != pixels.shape[:2]:
        return pixels
    values = np.nan_to_num(np.asarray(found.map))
    if np.array_equal(values, values.round()) and values.max(initial=0) < 256:
        palette = np.array([(0, 0, 0), *_PAINT]) / 255
        paint = palette[np.where(values > 0, (values.astype(int) - 1) % len(_PAINT) + 1, 0)]
        weight = np.where(values > 0, 0.55, 0.0)[..., None]
    else:
        low, high = float(values.min()), float(values.max())
        shade = (values - low) / ((high - low) or 1.0)
        paint = np.stack([shade, 0.35 + 0.4 * shade, 1 - shade], -1)
        weight = np.full((*values.shape, 1), 0.75)
    return np.clip(pixels * (1 - weight) + paint * weight, 0, 1)


def _environment(s: Setting) -> list[tuple[str, str]]:
    """Return what was evaluated, on what, and how."""
    pairs = [
        ("model", s.model),
        ("group", s.group),
        ("mode", s.mode),
        ("poses", s.poses or s.group),
        ("task", f"{s.task}, {s.metric}" + (f", {s.classes} classes" if s.classes is not None else "")),
        ("right is", s.reference),
        (
            "pictures",
            f"{s.pictures:,} of {s.size}" + (f", {s.skipped} unreadable left out" if s.skipped else ""),
        ),
        (
            "beyond the canvas",
            f"{s.border}; {s.interpolation} interpolation (quarter turns and flips are exact)",
        ),
        ("intervals", f"{100 * s.confidence:g}%"),
        ("upright", s.library),
        ("torch", f"{s.torch} on {s.device}, {s.dtype}, {s.threads} threads"),
        ("machine", s.machine),
        ("took", f"{s.seconds:.0f} s"),
        ("made", s.created),
    ]
    return [(name, value) for name, value in pairs if value]


def _call(s: Setting) -> str:
    """Return the call of Python with the settings that are known."""
    known = {"task": s.task, "border": s.border, "confidence": s.confidence}
    usual = {"task": "classification", "border": "edge", "confidence": 0.95}
    parts = [f"{name}={value!r}" for name, value in known.items() if value != usual[name]]
    if s.poses:
        parts.append(f"poses=...  # of {s.poses}")
    return f"upright.evaluate(robust, data{''.join(', ' + part for part in parts)})"
