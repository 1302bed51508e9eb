"""Answers in plain data, numbers in lists and dictionaries, taken back to the frame of the user's picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..actions import act
from ..adapter.spec import KindSpec, Size, kind_class, wrap
from ..groups.base import Element
from ..kinds import Boxes, Image, Invariant, Kind, OrientedBoxes, Points
from ..pictures import turn
from .encoded import read_encoded

AnswerSpec = KindSpec | Mapping[Any, KindSpec]
"""A kind for the whole answer, or kinds by the names of entries, which are looked up at every depth; numbers
name positions of the outermost list. Beside the names of kinds, ``"keypoints"`` are points whose flat lists
hold triples: x, y and something that stays."""
Scale = float | tuple[int, int] | None
Order = Literal["xy", "yx"]

_COORDINATES = (Boxes, OrientedBoxes, Points)
_BOX_NAMES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("xyxy", ("xmin", "ymin", "xmax", "ymax")),
    ("xyxy", ("x1", "y1", "x2", "y2")),
    ("xyxy", ("x0", "y0", "x1", "y1")),
    ("xyxy", ("left", "top", "right", "bottom")),
    ("cxcywh", ("cx", "cy", "width", "height")),
    ("cxcywh", ("cx", "cy", "w", "h")),
    ("cxcywh", ("xcenter", "ycenter", "width", "height")),
    ("xywh", ("left", "top", "width", "height")),
    ("xywh", ("x", "y", "width", "height")),
    ("xywh", ("x", "y", "w", "h")),
)
"""Names under which boxes come, in lower case without underscores, and what they mean. What ``x, y`` mean is
the specification's to say: ``partial(Boxes, format="cxcywh")``."""


@dataclass(frozen=True)
class PicturePose:
    """How one picture was turned before a model saw it, and how to take coordinates back.

    Attributes:
        element: The pose, one element: the user's picture is ``act(element, upright picture)``.
        size: Canvas ``(height, width)`` of the upright picture, in pixels.
        confidence: Probability of the pose.
    """

    element: Element
    size: Size
    confidence: float

    def restore(self, outputs: AnswerSpec, answer: Any, *, scale: Scale = None, order: Order = "xy") -> Any:
        """Take what a model said of the upright picture back to the user's frame.

        Args:
            outputs: What the answer holds, such as ``"points"`` or ``{"bbox_2d": "boxes"}``; see
                `move_answer`.
            answer: Numbers in lists and dictionaries of any depth, arrays or tensors.
            scale: The unit of coordinates. None: pixels of the upright picture. A number: the length of both
                sides: 1 for fractions, 1000 as Qwen-VL and Gemini count, 1024 for PaliGemma. A pair: pixels
                of a copy resized to ``(height, width)``, as Qwen2.5-VL counts.
            order: ``"yx"`` where y comes first (PaliGemma, Gemini).

        Returns:
            The answer, of the same structure and in the same unit; where ``scale`` is a pair, in pixels of
            the user's picture.

        Raises:
            TypeError: If an entry is not what ``outputs`` says.
            KeyError: If a named entry is missing.

        Example:
            >>> import upright
            >>> pose = PicturePose(upright.Cyclic(4).elements()[2], (480, 640), 0.9)
            >>> pose.restore({"bbox_2d": "boxes"}, [{"bbox_2d": [0, 0, 100, 250], "label": "a"}], scale=1000)
            [{'bbox_2d': [900, 750, 1000, 1000], 'label': 'a'}]
        """
        return move_answer(outputs, answer, self.element, self.size, scale=scale, order=order)


def move_answer(
    outputs: AnswerSpec, answer: Any, g: Element, size: Size, *, scale: Scale = None, order: Order = "xy"
) -> Any:
    """Move an answer in plain data by ``g``.

    Boxes are four numbers in a row (what follows stays), or a dictionary such as ``{"xmin": …}``,
    ``{"left", "top", "width", "height"}`` or ``{"x", "y", "w", "h"}``; points are ``[x, y]`` (a third number
    stays), ``{"x", "y"}``, or a flat list of pairs. Masks and pictures are arrays, tensors, PIL images,
    nested lists of numbers, or encoded (bytes, base64, data URL). All of them may be nested to any depth.
    Integers stay integers (rounded, where they must be).

    Args:
        outputs: See `AnswerSpec`; entries that are not named do not change.
        answer: The answer about a picture with canvas ``size``.
        g: One element, without batch axis.
        size: Canvas ``(height, width)`` before moving, in pixels.
        scale: See `PicturePose.restore`.
        order: See `PicturePose.restore`.

    Returns:
        The moved answer, of the same structure and types.
    """
    frame = _Frame(g, size, scale, order)
    if not isinstance(outputs, Mapping):
        return _read(outputs, answer, frame, "the answer")
    seen: set[Any] = set()
    moved = _search(outputs, answer, frame, seen, top=True)
    missing = [name for name in outputs if name not in seen]
    if missing and not _holds_nothing(answer):
        raise KeyError(f"outputs names {missing}, which the answer does not hold; it holds {_names(answer)}")
    return moved


def check_answer_spec(outputs: AnswerSpec) -> None:
    """Raise ValueError if a specification names an unknown kind."""
    for spec in outputs.values() if isinstance(outputs, Mapping) else [outputs]:
        if spec != "keypoints":
            kind_class(spec)


@dataclass(frozen=True)
class _Frame:
    g: Element
    size: Size
    scale: Scale
    order: Order

    def move(self, spec: KindSpec, rows: Any, box_format: str | None) -> Any:
        """Move rows of coordinates, ``(N, 2 | 4 | 5)``, float64."""
        columns = rows.shape[1]
        if columns == 5 and (self.order == "yx" or self.scale is not None):
            raise ValueError(
                f"oriented boxes come in pixels, x first, got scale={self.scale}, {self.order!r}"
            )
        swapped = [1, 0, 3, 2][:columns] if self.order == "yx" else list(range(columns))
        kind = wrap(spec, torch.from_numpy(rows[:, swapped]), self.size)
        if box_format is not None and not (box_format == "xywh" and getattr(kind, "format", "") == "cxcywh"):
            kind = kind.replace(format=box_format)
        if self.scale is None:
            return act(self.g, kind).data.numpy()[:, swapped]
        if getattr(kind, "normalized", False):
            raise ValueError(f"scale={self.scale} or normalized=True, not both; leave normalized out")
        unit = self.scale if isinstance(self.scale, tuple) else (self.scale, self.scale)
        moved: Any = act(self.g, kind.replace(data=_stretched(kind.data, unit, self.size)))
        if not isinstance(self.scale, tuple):
            moved = moved.replace(data=_stretched(moved.data, moved.size, unit))
        return moved.data.numpy()[:, swapped]


def _stretched(data: Tensor, old: tuple[float, float], new: tuple[float, float]) -> Tensor:
    old_sides, new_sides = data.new_tensor([old[1], old[0]]), data.new_tensor([new[1], new[0]])
    pairs = data.reshape(len(data), -1, 2)
    return (pairs * new_sides / old_sides).reshape(data.shape)


def _search(outputs: Mapping[Any, KindSpec], part: Any, frame: _Frame, seen: set[Any], top: bool) -> Any:
    """Move the entries that are named, wherever they are."""
    if isinstance(part, Mapping):
        moved = {}
        for name, entry in part.items():
            if name in outputs:
                seen.add(name)
                moved[name] = _read(outputs[name], entry, frame, repr(name))
            else:
                moved[name] = _search(outputs, entry, frame, seen, False)
        return _like_mapping(part, moved)
    if isinstance(part, (list, tuple)):
        positions = {i for i in range(len(part)) if top and i in outputs}
        seen |= positions
        return _like_sequence(
            part,
            [
                _read(outputs[i], entry, frame, f"entry {i}")
                if i in positions
                else _search(outputs, entry, frame, seen, False)
                for i, entry in enumerate(part)
            ],
        )
    return part


def _read(spec: KindSpec, entry: Any, frame: _Frame, name: str) -> Any:
    kind: type[Kind] = Points if spec == "keypoints" else kind_class(spec)
    if entry is None or issubclass(kind, Invariant):
        return entry
    if issubclass(kind, _COORDINATES):
        return _coordinates(spec, kind, entry, frame, name)
    return _grid(spec, kind, entry, frame, name)


def _coordinates(spec: KindSpec, kind: type[Kind], entry: Any, frame: _Frame, name: str) -> Any:
    again = partial(_coordinates, spec, kind, frame=frame, name=name)
    columns = 4 if kind is Boxes else 5 if kind is OrientedBoxes else 2
    make: KindSpec = "points" if spec == "keypoints" else spec
    if isinstance(entry, (Tensor, np.ndarray)):
        return _array(make, entry, columns, frame, name)
    if isinstance(entry, Mapping):
        found = _named(kind, entry)
        if found is None:
            return _like_mapping(entry, {key: again(entry=value) for key, value in entry.items()})
        box_format, keys = found
        moved = frame.move(make, np.array([[entry[k] for k in keys]], dtype=np.float64), box_format)[0]
        new = {k: _like_number(entry[k], v) for k, v in zip(keys, moved.tolist(), strict=True)}
        return _like_mapping(entry, {k: new.get(k, v) for k, v in entry.items()})
    if isinstance(entry, (list, tuple)):
        if _are_rows(entry, columns):
            return _rows(make, entry, columns, frame)
        if not entry or not _is_number(entry[0]):
            return _like_sequence(entry, [again(entry=value) for value in entry])
        return _numbers(make, entry, columns, 3 if spec == "keypoints" else 2, frame, name)
    if _is_number(entry):
        raise TypeError(
            f"{name} must hold {kind.__name__}, {columns} numbers in a row or under their names, "
            f"got the number {entry}; name the entry that holds them in outputs"
        )
    return entry


def _are_rows(entry: Sequence[Any], columns: int) -> bool:
    """Whether these are boxes or points, one a row, which can be moved together."""
    return (
        bool(entry)
        and all(
            isinstance(row, (list, tuple))
            and len(row) >= columns
            and (columns > 2 or len(row) <= 3)  # longer ones are points one after the other
            and all(map(_is_number, row[:columns]))
            for row in entry
        )
    )


def _rows(spec: KindSpec, entry: Sequence[Any], columns: int, frame: _Frame) -> Any:
    moved = frame.move(spec, np.array([row[:columns] for row in entry], dtype=np.float64), None)
    new = [
        _like_sequence(row, [*map(_like_number, row[:columns], values), *row[columns:]])
        for row, values in zip(entry, moved.tolist(), strict=True)
    ]
    return _like_sequence(entry, new)


def _numbers(
    spec: KindSpec, entry: Sequence[Any], columns: int, stride: int, frame: _Frame, name: str
) -> Any:
    """Move numbers in a row: one box or point and what belongs to it, or points one after the other."""
    length = len(entry)
    flat = columns == 2 and length > 3
    if length < columns or (flat and length % stride):
        wanted = f"a multiple of {stride}" if flat else f"at least {columns}"
        raise TypeError(f"{name} must have {wanted} numbers in a row, got {length}: {list(entry)[:8]}")
    starts = range(0, length, stride) if flat else range(1)
    places = [[start + i for i in range(columns)] for start in starts]
    if not all(_is_number(entry[i]) for row in places for i in row):
        raise TypeError(f"{name} must hold numbers, got {list(entry)[:8]}")
    moved = frame.move(spec, np.array([[entry[i] for i in row] for row in places], dtype=np.float64), None)
    new = list(entry)
    for row, values in zip(places, moved.tolist(), strict=True):
        for i, value in zip(row, values, strict=True):
            new[i] = _like_number(entry[i], value)
    return _like_sequence(entry, new)


def _array(spec: KindSpec, entry: Any, columns: int, frame: _Frame, name: str) -> Any:
    values = entry.detach().cpu().numpy() if isinstance(entry, Tensor) else entry
    if values.ndim == 0 or (values.shape[-1] < columns and values.size):
        raise TypeError(f"{name} must have shape (..., {columns}), got {values.shape}")
    if not values.size:
        return entry
    rows = values.reshape(-1, values.shape[-1])
    moved = frame.move(spec, rows[:, :columns].astype(np.float64), None)
    if np.issubdtype(values.dtype, np.integer):
        moved = np.rint(moved)
    new = np.concatenate([moved.astype(values.dtype), rows[:, columns:]], 1).reshape(values.shape)
    return torch.from_numpy(new).to(entry) if isinstance(entry, Tensor) else new


def _grid(spec: KindSpec, kind: type[Kind], entry: Any, frame: _Frame, name: str) -> Any:
    again = partial(_grid, spec, kind, frame=frame, name=name)
    if entry is None:
        return None
    if isinstance(entry, (bytes, str)):
        encoded = read_encoded(entry, name)
        return encoded.write(turn(frame.g, encoded.picture), None)[0]
    if isinstance(entry, (Tensor, np.ndarray)):
        return _pixels(spec, kind, entry, frame, name)
    if isinstance(entry, Mapping):
        return _like_mapping(entry, {key: again(entry=value) for key, value in entry.items()})
    if isinstance(entry, (list, tuple)):
        numbers = _as_numbers(entry)
        if numbers is None or not numbers.size:
            return _like_sequence(entry, [again(entry=value) for value in entry])
        return _pixels(spec, kind, numbers, frame, name).tolist()
    if _is_number(entry):
        raise TypeError(f"{name} must hold {kind.__name__}, got the number {entry}; name another in outputs")
    return turn(frame.g, entry)


def _pixels(spec: KindSpec, kind: type[Kind], entry: Any, frame: _Frame, name: str) -> Any:
    if entry.ndim < 2:
        raise TypeError(f"{name} must hold {kind.__name__} of shape (..., H, W), got {tuple(entry.shape)}")
    if issubclass(kind, Image):
        return turn(frame.g, entry)
    if isinstance(entry, Tensor):
        return act(frame.g, wrap(spec, entry, frame.size)).data
    return act(frame.g, wrap(spec, torch.from_numpy(np.ascontiguousarray(entry)), frame.size)).data.numpy()


def _named(kind: type[Kind], entry: Mapping[Any, Any]) -> tuple[str | None, list[Any]] | None:
    """Return the format and the keys, in order, of a box or a point whose numbers have names."""
    plain = {str(key).lower().replace("_", ""): key for key, value in entry.items() if _is_number(value)}
    if kind is Points and {"x", "y"} <= plain.keys():
        return None, [plain["x"], plain["y"]]
    for box_format, names in _BOX_NAMES if kind is Boxes else ():
        if plain.keys() >= set(names):
            return box_format, [plain[name] for name in names]
    return None


def _as_numbers(entry: Sequence[Any]) -> Any:
    """Return nested lists of plain numbers as an array; None if they are something else."""
    first: Any = entry
    while isinstance(first, (list, tuple)) and first:
        first = first[0]
    if not (_is_number(first) or isinstance(first, bool)):
        return None
    try:
        return np.array(entry)
    except ValueError:  # rows of different lengths
        return None


def _is_number(x: Any) -> bool:
    return isinstance(x, (int, float, np.integer, np.floating)) and not isinstance(x, bool)


def _like_number(given: Any, value: float) -> Any:
    whole = isinstance(given, (int, np.integer))
    return type(given)(round(value) if whole else value)


def _like_sequence(given: Any, entries: list[Any]) -> Any:
    return type(given)(*entries) if hasattr(given, "_fields") else type(given)(entries)


def _like_mapping(given: Mapping[Any, Any], items: dict[Any, Any]) -> Any:
    make: Callable[[dict[Any, Any]], Any] = type(given)
    return items if type(given) is dict else make(items)


def _holds_nothing(part: Any) -> bool:
    """Whether there is an empty place, such as the list of boxes where nothing was found."""
    if isinstance(part, Mapping):
        return not part or any(_holds_nothing(entry) for entry in part.values())
    if isinstance(part, (list, tuple)):
        return not part or any(_holds_nothing(entry) for entry in part)
    return part is None


def _names(part: Any) -> list[Any]:
    """Names of entries, for messages."""
    if isinstance(part, Mapping):
        return [*part, *(name for entry in part.values() for name in _names(entry))]
    if isinstance(part, (list, tuple)) and part:
        return _names(part[0])
    return []
