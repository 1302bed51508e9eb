"""Reading text: a string a picture; character accuracy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from ...adapter.spec import Size
from ..measures import Ratio
from .base import Read, Task


def text(*, lists: bool = True, read: Read | None = None) -> Task:
    """Return the task of reading the text of a picture.

    The model returns one string a picture, or one list of lines. Targets are strings. Runs of white space
    count as one blank. Character accuracy is 1 − edits / characters, at least 0 a picture, over all
    characters of the targets.

    Args:
        lists: Whether the model is called with a list of pictures, unless the data brings batches.
        read: Makes a list of strings of the whole output, if it is none of the above; see `Task`.
    """
    return Task(
        name="text",
        metrics=[
            Ratio("character accuracy", right_characters),
            Ratio("characters in any order", shared_characters),
        ],
        read=read or _read,
        decide=lambda readings: [_plain(reading) for reading in readings],
        prepare=_prepare,
        refer=lambda prediction: prediction,
        lists=lists,
    )


def right_characters(found: str, true: str) -> tuple[int, int]:
    """Return how many characters are right by the smallest number of edits, and how many there are."""
    try:
        from rapidfuzz.distance import Levenshtein
    except ImportError as error:
        raise ImportError("task='text' needs rapidfuzz; pip install 'upright[metrics]'") from error
    return max(0, len(true) - int(Levenshtein.distance(found, true))), len(true)


def shared_characters(found: str, true: str) -> tuple[int, int]:
    """Return how many characters were found in whatever order, blanks left out, and how many there are."""
    left, right = (Counter(x.replace(" ", "")) for x in (found, true))
    return (left & right).total(), right.total()


def _read(output: Any, sizes: list[Size]) -> Sequence[Any]:
    if isinstance(output, str) or not isinstance(output, Sequence):
        raise TypeError(
            f"the model must return a list of {len(sizes)} texts, got {type(output).__name__}; "
            "upright.evaluation.text(read=...) makes one"
        )
    return output


def _plain(reading: Any) -> str:
    lines = [reading] if isinstance(reading, str) else list(reading)
    return " ".join(" ".join(map(str, lines)).split())


def _prepare(target: Any, size: Size) -> str:
    if not isinstance(target, str):
        raise TypeError(f"targets of text must be strings, got {type(target).__name__}")
    return _plain(target)
