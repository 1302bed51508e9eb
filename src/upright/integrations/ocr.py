"""OCR engines made equivariant: a page that lies on its side or its head is read as well as an upright one.

Lines keep the order in which they are read upright. The four corners of a line keep theirs too: the first is
where the text begins, then on around it, so that in the user's frame they say which way the text runs.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..canonicalizers import Canonicalizer
from ..factory import choose_canonicalizer
from ..groups.base import Element, Group
from ..groups.parse import parse_group
from ..groups.planar import Cyclic
from ..pictures import straighten, turn
from .answers import PicturePose, move_answer
from .blackbox import picture_poses, straighten_all

DOCUMENTS = "document-c4"
"""The canonicalizer of OCR engines that are adapted to quarter turns."""


@dataclass(frozen=True)
class Reading:
    """What an OCR engine read, and how the page was turned for it.

    Attributes:
        output: What the engine returned, in the frame of the user's picture.
        upright: The same in the frame of the upright page: what layout analysis wants.
        pose: How the page lies; ``pose.confidence`` is low where there is little text to tell it by.
    """

    output: Any
    upright: Any
    pose: PicturePose


class AdaptedOCR:
    """An OCR engine made equivariant: called like the engine, returns what the engine returns.

    Build it with `adapt_ocr` or `upright.adapt`. It keeps no state of its own.

    Args:
        engine: A ``RapidOCR`` of the package ``rapidocr``, or any function of one picture that returns a list
            of ``(quad, text, …)``.
        canonicalizer: Finds how pages lie.
    """

    def __init__(self, engine: Callable[..., Any], canonicalizer: Canonicalizer) -> None:
        if not callable(engine):
            raise TypeError(f"engine must be callable, got {type(engine).__name__}")
        self.engine, self.canonicalizer = engine, canonicalizer
        self._settings = _settings(engine) if is_rapid(engine) else {}

    @property
    def group(self) -> Group:
        """The group of transformations under which the engine is now equivariant."""
        return self.canonicalizer.group

    def __call__(self, picture: Any, *args: Any, **kwargs: Any) -> Any:
        """Call the engine: its own arguments, its own result, in the frame of the user's picture."""
        return self.run(picture, *args, **kwargs).output

    def run(self, picture: Any, *args: Any, **kwargs: Any) -> Reading:
        """Call the engine and return its result in both frames together with the pose.

        Args:
            picture: For ``RapidOCR`` whatever it takes (a path, a URL, bytes, an array, a PIL image), seen as
                it sees it: it applies an EXIF orientation to files and URLs only. For functions see
                `upright.black_box`.
            *args: Further arguments of the engine.
            **kwargs: Further arguments of the engine.
        """
        if is_rapid(self.engine):
            given, pose = self._seen_by_rapid(picture)
            called = inspect.signature(self.engine).bind(picture, *args, **kwargs).arguments
            asked = {name: value for name, value in list(called.items())[1:] if value is not None}
            try:
                upright = self.engine(turn(pose.element.inverse(), given), **{**self._settings, **asked})
            finally:
                self.engine.update_params(**self._settings)  # type: ignore[attr-defined]
            return Reading(_moved_result(upright, pose), upright, pose)
        straight, poses = straighten_all([picture], self.canonicalizer, None)
        upright = self.engine(straight[0], *args, **kwargs)
        return Reading(_moved_lines(upright, poses[0]), upright, poses[0])

    def pose(self, picture: Any) -> PicturePose:
        """Return how a page lies, without reading it."""
        if is_rapid(self.engine):
            return self._seen_by_rapid(picture)[1]
        return straighten_all([picture], self.canonicalizer, None)[1][0]

    def _seen_by_rapid(self, picture: Any) -> tuple[Any, PicturePose]:
        """Return the picture as RapidOCR loads it, ``(H, W, 3)`` in BGR, and its pose."""
        given = self.engine.load_img(picture)  # type: ignore[attr-defined]
        straight, pose = straighten(given[..., ::-1], self.canonicalizer)
        return given, picture_poses(pose, [straight])[0]

    def __repr__(self) -> str:
        return f"AdaptedOCR({type(self.engine).__name__}, group={self.group})"


def adapt_ocr(
    engine: Callable[..., Any], group: Group | str = "C4", *, canonicalizer: Canonicalizer | str | None = None
) -> AdaptedOCR:
    """Make an OCR engine equivariant without changing it.

    The switches of a ``RapidOCR`` (``use_cls`` and the like) are read now, given on every call and set again
    after it: what one call asks for does not carry over to the next, as it does in the bare engine. Threads
    may share the adapted engine as long as all of them ask for the same.

    Args:
        engine: A ``RapidOCR``, which `upright.adapt` recognises too, or a function of one picture (PIL image,
            array, tensor, encoded bytes) that returns a list of ``(quad, text, …)``, where a quad has shape
            ``(4, 2)`` or ``(8,)``: x, y in pixels, as ``easyocr`` does, for example.
        group: See `upright.adapt`.
        canonicalizer: See `upright.adapt`. Default: ``"document-c4"`` for C4, which needs the extra
            ``[ocr]``.

    Returns:
        A callable; ``.run(...)`` returns the pose as well.

    Raises:
        LoadError: If the packages of the extra ``[ocr]`` are missing.

    Example:
        >>> import numpy as np, upright
        >>> def engine(picture):  # "reads" the white spot
        ...     y, x = np.unravel_index(picture.argmax(), picture.shape)
        ...     return [([[x, y], [x + 1, y], [x + 1, y + 1], [x, y + 1]], "spot", 1.0)]
        >>> page = np.zeros((40, 60), np.uint8)
        >>> page[5, 7] = 255
        >>> [(quad, text, score)] = adapt_ocr(engine, canonicalizer="photo-c4")(page)
        >>> np.min(quad, axis=0).tolist()
        [7, 5]
    """
    if canonicalizer is None and parse_group(group) == Cyclic(4):
        canonicalizer = DOCUMENTS
    return AdaptedOCR(engine, choose_canonicalizer(canonicalizer, group))


def is_rapid(engine: Any) -> bool:
    """Whether an object is a ``RapidOCR`` of the package ``rapidocr``, found out without importing it."""
    return any(
        cls.__name__ == "RapidOCR" and cls.__module__.split(".")[0] == "rapidocr"
        for cls in type(engine).__mro__
    )


def _settings(engine: Any) -> dict[str, Any]:
    """Return the switches of a ``RapidOCR`` as they are now, by their names in a call."""
    switches = ("use_det", "use_cls", "use_rec", "return_word_box", "return_single_char_box", "text_score")
    settings = {name: getattr(engine, name) for name in switches}
    return {**settings, **{name: engine.cfg.Det[name] for name in ("box_thresh", "unclip_ratio")}}


def _moved_result(upright: Any, pose: PicturePose) -> Any:
    """Take a result of ``RapidOCR`` (text, or boxes alone) to the user's frame; crops of lines stay."""
    if getattr(upright, "boxes", None) is None:
        return upright
    moved = copy.copy(upright)
    moved.boxes = move_answer("points", upright.boxes, pose.element, pose.size)
    moved.img = turn(pose.element, upright.img)  # what vis() draws on
    if hasattr(upright, "word_results"):
        moved.word_results = _moved_words(upright.word_results, pose.element, pose.size)
    if hasattr(upright, "to_markdown"):
        moved.to_markdown = upright.to_markdown  # it tells lines by their place on the page
    return moved


def _moved_words(part: Any, g: Element, size: tuple[int, int]) -> Any:
    """Move the quads of words, ``(text, score, quad or None)``, at any depth."""
    if not isinstance(part, (tuple, list)):
        return part
    if len(part) == 3 and isinstance(part[0], str):
        entries = [part[0], part[1], move_answer("points", part[2], g, size)]
    else:
        entries = [_moved_words(entry, g, size) for entry in part]
    return tuple(entries) if isinstance(part, tuple) else entries


def _moved_lines(upright: Any, pose: PicturePose) -> Any:
    """Move the quads of lines ``(quad, text, …)``."""
    if upright is None:
        return None
    if not isinstance(upright, (list, tuple)):
        raise TypeError(
            f"an OCR engine must return a list of (quad, text, …), got {type(upright).__name__}; "
            "wrap it in a function that does"
        )
    moved = []
    for i, line in enumerate(upright):
        quad = line[0] if isinstance(line, (list, tuple)) and len(line) else line
        found = () if isinstance(quad, str) else _shape(quad)
        if found not in ((4, 2), (8,)):
            raise ValueError(
                f"line {i} must be (quad, text, …), its quad of shape (4, 2) or (8,), got {line!r:.80}; "
                "wrap the engine in a function that returns that"
            )
        flat = found == (8,) and hasattr(quad, "reshape")
        quad = move_answer("points", quad.reshape(4, 2) if flat else quad, pose.element, pose.size)
        quad = quad.reshape(8) if flat else quad
        moved.append((quad, *line[1:]) if isinstance(line, tuple) else [quad, *line[1:]])
    return tuple(moved) if isinstance(upright, tuple) else moved


def _shape(quad: Any) -> tuple[int, ...]:
    try:
        return np.shape(quad)
    except ValueError:  # ragged
        return ()
