"""A gallery: pictures as given, their canonical forms, and what both models make of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..adapter import Adapted
from .samples import Finding, Sample, samples
from .style import COLOURS, GREY, INK, canvas, direct_title, save

_SIDE, _GAP, _CAPTION = 1.42, 0.13, 0.68  # inches
_LEFT, _HEAD = 1.1, 0.98


def plot_gallery(
    robust: Adapted,
    pictures: Any,
    path: str | Path,
    class_names: Sequence[str] | None = None,
    count: int = 8,
    *,
    turn: bool = True,
    classes: Any = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Path:
    """Draw pictures as given and in their canonical form, with the bare and the adapted model's predictions.

    Args:
        robust: The adapted model.
        pictures: Anything that `upright.evaluate` takes, with or without labels. Without labels, a prediction
            is marked wrong if it is not the bare model's for the upright picture.
        path: The file; its suffix chooses the format.
        class_names: Names of the classes; what follows a comma is left out. None: their numbers.
        count: Number of pictures, at most.
        turn: Turn the pictures first, by the poses of the group in turn. False: they are turned already.
        classes: The only classes that may be predicted, as in `upright.evaluate`.
        mean: What was subtracted from each channel when the pictures were normalised; None: the range of each
            picture is shown.
        std: What each channel was divided by, with ``mean``.

    Returns:
        The path.

    Raises:
        ValueError: If there are no pictures.
    """
    items = samples(
        robust, pictures, count=count, turn=turn, class_names=class_names, classes=classes, mean=mean, std=std
    )
    figure = _draw(items, robust)
    return save(figure, path)


def _draw(items: list[Sample], robust: Adapted) -> Any:
    columns = len(items)
    width = _LEFT + columns * (_SIDE + _GAP) + 0.15
    height = _HEAD + 2 * (_SIDE + _CAPTION) + 0.1
    figure = canvas(max(width, 5.6), height)
    model = getattr(robust.model, "__name__", type(robust.model).__name__)
    judged = sum(item.bare.right is not None for item in items)
    tally = ""
    if judged:
        bare, adapted = (sum(bool(getattr(i, name).right) for i in items) for name in ("bare", "adapted"))
        tally = f" · right: bare {bare} of {judged}, adapted {adapted} of {judged}"
    direct_title(figure, "The same pictures, before and after", f"{model}, {robust.group}{tally}")
    rows = [
        ("as given", "bare model", "given", "bare"),
        ("canonical\nform", "adapted", "canonical", "adapted"),
    ]
    for r, (what, who, pixels, guess) in enumerate(rows):
        top = _HEAD + r * (_SIDE + _CAPTION)
        _text(figure, 0.28, top + _SIDE / 2, what, fontsize=10, color=GREY, va="center")
        colour = COLOURS["vanilla" if guess == "bare" else "adapted"]
        _text(
            figure, 0.28, top + _SIDE + 0.17, who, fontsize=10, color=colour, fontweight="bold", va="center"
        )
        for c, item in enumerate(items):
            left = _LEFT + 0.12 + c * (_SIDE + _GAP)
            _picture(figure, left, top, getattr(item, pixels))
            _caption(figure, left + _SIDE / 2, top + _SIDE, getattr(item, guess))
    return figure


def _picture(figure: Any, left: float, top: float, pixels: Any) -> None:
    width, height = figure.get_size_inches()
    axes = figure.add_axes((left / width, 1 - (top + _SIDE) / height, _SIDE / width, _SIDE / height))
    axes.imshow(pixels, interpolation="nearest" if max(pixels.shape[:2]) < 100 else "antialiased")
    axes.set_anchor("S")
    axes.set_axis_off()


def _caption(figure: Any, middle: float, top: float, guess: Finding) -> None:
    """Write a prediction and its confidence; mark it right or wrong, not by colour alone."""
    wrong = guess.right is False
    sign = "" if guess.right is None else "✗ " if wrong else "✓ "
    colour = COLOURS["vanilla"] if wrong else INK
    _text(
        figure,
        middle,
        top + 0.17,
        sign + guess.text,
        fontsize=9,
        color=colour,
        ha="center",
        va="center",
    )
    _text(
        figure,
        middle,
        top + 0.36,
        f"{100 * (guess.confidence or 0.0):.0f}%",
        fontsize=8.5,
        color=GREY,
        ha="center",
        va="center",
    )


def _text(figure: Any, x: float, y: float, text: str, **style: Any) -> None:
    """Write text at a place in inches from the top left corner."""
    width, height = figure.get_size_inches()
    figure.text(x / width, 1 - y / height, text, **style)
