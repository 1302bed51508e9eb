"""How figures look: one palette (Okabe and Ito's, safe for colour-blind readers), one way to save."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .._files import write_file

INK = "#20242A"
GREY = "#6B7280"
COLOURS = {"vanilla": "#D55E00", "average": "#CC9A00", "adapted": "#0072B2", "oracle": "#4B5563"}
OTHERS = ("#009E73", "#CC79A7", "#56B4E9", "#8C6D00", "#7A4FBF")
"""Colours of further rows, in the order in which they come."""


def colours(names: Iterable[str]) -> dict[str, str]:
    """Return the colour of each row."""
    rest = [name for name in names if name not in COLOURS]
    return {**COLOURS, **{name: OTHERS[i % len(OTHERS)] for i, name in enumerate(rest)}}


def canvas(width: float, height: float) -> Any:
    """Return an empty figure of the given size in inches, drawn without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=200, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def direct_title(figure: Any, title: str, subtitle: str) -> None:
    """Write a title and a line below it, from the left edge."""
    width, height = figure.get_size_inches()
    left = 0.28 / width
    figure.text(left, 1 - 0.30 / height, title, fontsize=13.5, fontweight="bold", color=INK, va="top")
    figure.text(left, 1 - 0.60 / height, subtitle, fontsize=9.5, color=GREY, va="top")


def save(figure: Any, path: str | Path) -> Path:
    """Write a figure, whole or not at all; the suffix of the path chooses the format (PNG if there is none).

    Raises:
        ValueError: If the format is unknown.
    """
    path = Path(path)
    form = path.suffix.removeprefix(".").lower() or "png"
    known = sorted(figure.canvas.get_supported_filetypes())
    if form not in known:
        raise ValueError(f"path must end in one of {', '.join(known)}, got {path.name!r}")
    content = io.BytesIO()
    figure.savefig(content, format=form, facecolor=figure.get_facecolor())
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_file(path, content.getvalue())
