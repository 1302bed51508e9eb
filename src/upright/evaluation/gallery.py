"""A gallery: pictures as given, their canonical forms, and what both models make of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._checks import check_positive
from ..actions import act
from ..adapter import Adapted
from ..kinds import Image
from .modes import evaluating, placed
from .scores import call, check_classes, class_scores, predict
from .style import COLOURS, GREY, INK, canvas, direct_title, save
from .transformations import pose_grid

_SIDE, _GAP, _CAPTION = 1.42, 0.13, 0.68  # inches
_LEFT, _HEAD = 1.1, 0.98


@dataclass(frozen=True, eq=False)
class _Item:
    """One picture of the gallery: pixels as given and canonical, and the two guesses."""

    given: Any
    canonical: Any
    bare: tuple[int, float]
    adapted: tuple[int, float]
    right: int | None


@torch.no_grad()
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
    check_positive("count", count)
    if (mean is None) != (std is None):
        raise ValueError("mean and std must be given together; pass both, as the transform has them")
    subset = check_classes(classes)
    with evaluating(robust):
        items = [
            _look(robust, x, label, i if turn else None, subset, (mean, std))
            for i, (x, label) in enumerate(islice(_pictures(pictures), count))
        ]
    if not items:
        raise ValueError("pictures must hold at least one picture, got none")
    figure = _draw(items, class_names, robust)
    return save(figure, path)


def _pictures(data: Any) -> Any:
    from ..data import loader

    for batch, labels in loader(data, 8):
        for i, picture in enumerate(batch):
            yield picture, None if labels is None else int(labels[i])


def _look(
    robust: Adapted,
    picture: Tensor,
    label: int | None,
    turned_by: int | None,
    classes: Tensor | None,
    scale: Any,
) -> _Item:
    """Run both models on one picture."""
    x = placed(picture.unsqueeze(0), robust.model)
    right = label
    if turned_by is not None:
        if right is None:
            right = _guess(robust, call(robust, robust.model, x), classes)[0]
        poses = pose_grid(robust.group)
        step = max(1, len(poses) // 8)
        x = act(poses[(turned_by + 1) * step % len(poses)].to(x.device).reshape(1), Image(x)).data
    run = call(robust, robust.run, x)
    return _Item(
        _pixels(x[0], scale),
        _pixels(act(run.pose.element.inverse(), Image(x)).data[0], scale),
        _guess(robust, call(robust, robust.model, x), classes),
        _guess(robust, run.output, classes),
        right,
    )


def _guess(robust: Adapted, output: Any, classes: Tensor | None) -> tuple[int, float]:
    scores = class_scores(robust, output, 1)
    considered = scores if classes is None else scores[:, classes.to(scores.device)]
    return int(predict(scores, classes)[0]), float(considered.softmax(1).max())


def _pixels(picture: Tensor, scale: Any) -> Any:
    """Return a picture as an array ``(H, W, 3)`` in 0…1."""
    mean, std = scale
    x = picture.detach().cpu().double()
    if mean is not None:
        x = x * torch.tensor(std).double().view(-1, 1, 1) + torch.tensor(mean).double().view(-1, 1, 1)
    elif picture.dtype == torch.uint8:
        x = x / 255
    elif float(x.min()) < 0 or float(x.max()) > 1:
        x = (x - x.min()) / (x.max() - x.min()).clamp(min=1e-12)
    x = x[:3] if x.shape[0] >= 3 else x[:1].expand(3, -1, -1)
    return x.clamp(0, 1).permute(1, 2, 0).numpy()


def _draw(items: list[_Item], class_names: Sequence[str] | None, robust: Adapted) -> Any:
    columns = len(items)
    width = _LEFT + columns * (_SIDE + _GAP) + 0.15
    height = _HEAD + 2 * (_SIDE + _CAPTION) + 0.1
    figure = canvas(max(width, 5.6), height)
    model = getattr(robust.model, "__name__", type(robust.model).__name__)
    judged = sum(item.right is not None for item in items)
    tally = ""
    if judged:
        bare, adapted = (sum(getattr(i, name)[0] == i.right for i in items) for name in ("bare", "adapted"))
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
            _caption(figure, left + _SIDE / 2, top + _SIDE, getattr(item, guess), item.right, class_names)
    return figure


def _picture(figure: Any, left: float, top: float, pixels: Any) -> None:
    width, height = figure.get_size_inches()
    axes = figure.add_axes((left / width, 1 - (top + _SIDE) / height, _SIDE / width, _SIDE / height))
    axes.imshow(pixels, interpolation="nearest" if max(pixels.shape[:2]) < 100 else "antialiased")
    axes.set_anchor("S")
    axes.set_axis_off()


def _caption(
    figure: Any,
    middle: float,
    top: float,
    guess: tuple[int, float],
    right: int | None,
    names: Sequence[str] | None,
) -> None:
    """Write a prediction and its confidence; mark it right or wrong, not by colour alone."""
    number, confidence = guess
    wrong = right is not None and number != right
    sign = "" if right is None else "✗ " if wrong else "✓ "
    colour = COLOURS["vanilla"] if wrong else INK
    _text(
        figure,
        middle,
        top + 0.17,
        sign + _name(number, names),
        fontsize=9,
        color=colour,
        ha="center",
        va="center",
    )
    _text(
        figure,
        middle,
        top + 0.36,
        f"{100 * confidence:.0f}%",
        fontsize=8.5,
        color=GREY,
        ha="center",
        va="center",
    )


def _name(number: int, names: Sequence[str] | None, longest: int = 16) -> str:
    if number < 0:
        return "not a number"
    name = str(number) if names is None or number >= len(names) else str(names[number]).split(",")[0].strip()
    name = name.replace("_", " ")
    return name if len(name) <= longest else name[: longest - 1].rstrip() + "…"


def _text(figure: Any, x: float, y: float, text: str, **style: Any) -> None:
    """Write text at a place in inches from the top left corner."""
    width, height = figure.get_size_inches()
    figure.text(x / width, 1 - y / height, text, **style)
