"""Black boxes: any function of pictures, a remote endpoint too, whose answers are plain data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .._checks import check_batch
from ..adapter.spec import KindSpec, kind_class
from ..canonicalizers import Canonicalizer, Pose
from ..factory import choose_canonicalizer
from ..groups.base import Group
from ..kinds import Image
from ..pictures import straighten
from .answers import AnswerSpec, PicturePose, check_answer_spec, move_answer
from .encoded import Encoded, check_quality, read_encoded


@dataclass(frozen=True)
class Answer:
    """What a black box said, and how the pictures were turned for it.

    Attributes:
        output: What the function returned, in the frame of the user's pictures.
        pose: One `PicturePose` a picture; one alone where one picture was given.
    """

    output: Any
    pose: Any


class BlackBox:
    """A function of pictures made equivariant; see `black_box`. It keeps no state: threads may share it."""

    def __init__(
        self,
        function: Callable[..., Any],
        canonicalizer: Canonicalizer,
        *,
        inputs: Mapping[int | str, KindSpec] | None = None,
        outputs: AnswerSpec = "invariant",
        quality: int | None = 95,
    ) -> None:
        if not callable(function):
            raise TypeError(f"function must be callable, got {type(function).__name__}")
        inputs = {0: "image"} if inputs is None else inputs
        pictures = [key for key, spec in inputs.items() if kind_class(spec) is Image]
        if len(pictures) != 1:
            raise ValueError(f"inputs must name one argument as 'image', got {dict(inputs)}")
        check_answer_spec(inputs)
        check_answer_spec(outputs)
        check_quality(quality)
        self.function, self.canonicalizer = function, canonicalizer
        self.outputs, self.quality = outputs, quality
        self._picture = pictures[0]
        self._prompts = {key: spec for key, spec in inputs.items() if key != self._picture}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function; its own arguments, its own results, in the frame of the user's pictures."""
        return self.run(*args, **kwargs).output

    def run(self, *args: Any, **kwargs: Any) -> Answer:
        """Call the function and return its answer together with the poses."""
        arguments: dict[int | str, Any] = dict(enumerate(args))
        arguments.update(kwargs)
        if self._picture not in arguments:
            raise TypeError(
                f"no picture: argument {self._picture!r} is missing, got {list(arguments)}; "
                "name it with black_box(..., inputs={'<name>': 'image'})"
            )
        given = arguments[self._picture]
        several = isinstance(given, Sequence) and not isinstance(given, (str, bytes))
        upright, poses = straighten_all(list(given) if several else [given], self.canonicalizer, self.quality)
        arguments[self._picture] = upright if several else upright[0]
        for key in self._prompts.keys() & arguments.keys():
            entries = arguments[key] if several else [arguments[key]]
            check_batch(f"argument {key!r}", len(entries), len(poses), "the pictures")
            moved = [self._to_upright(key, e, pose) for e, pose in zip(entries, poses, strict=True)]
            arguments[key] = moved if several else moved[0]
        output = self.function(
            *(arguments[i] for i in range(len(args))), **{name: arguments[name] for name in kwargs}
        )
        if not several:
            return Answer(poses[0].restore(self.outputs, output), poses[0])
        if not isinstance(output, Sequence) or isinstance(output, (str, bytes)) or len(output) != len(poses):
            got = f"{len(output)}" if isinstance(output, Sequence) else type(output).__name__
            raise ValueError(
                f"for a list of {len(poses)} pictures the function must return a list of as many answers, "
                f"got {got}"
            )
        answers = [pose.restore(self.outputs, entry) for pose, entry in zip(poses, output, strict=True)]
        return Answer(tuple(answers) if isinstance(output, tuple) else answers, poses)

    def _to_upright(self, key: int | str, entry: Any, pose: PicturePose) -> Any:
        turned = pose.element.inverse()
        size = pose.size[::-1] if _swaps(pose) else pose.size
        return move_answer(self._prompts[key], entry, turned, size)

    def __repr__(self) -> str:
        name = getattr(self.function, "__name__", type(self.function).__name__)
        return f"BlackBox({name}, group={self.canonicalizer.group}, outputs={self.outputs!r})"


def black_box(
    function: Callable[..., Any],
    group: Group | str = "C4",
    *,
    canonicalizer: Canonicalizer | str | None = None,
    inputs: Mapping[int | str, KindSpec] | None = None,
    outputs: AnswerSpec = "invariant",
    quality: int | None = 95,
) -> BlackBox:
    """Make any function of pictures equivariant: a remote endpoint, an engine, a pipeline.

    Pictures go in as the function takes them, answers come out as it gives them: numbers in lists and
    dictionaries, arrays, encoded masks. The function runs once a call, on upright pictures; its exceptions
    pass through, and retries, time limits and threads are its caller's. For models on batches of tensors use
    `upright.adapt`. The canonicalizer is trained without the function, by ``upright.fit(canonicalizer, …)``.

    Args:
        function: Takes one picture, or a list of them and then returns a list of as many answers: PIL images,
            arrays ``(H, W[, C])``, tensors ``(C, H, W)``, or encoded pictures (bytes, base64, data URLs).
        group: See `upright.adapt`.
        canonicalizer: See `upright.adapt`.
        inputs: Kinds of the arguments that are moved, by position or keyword; default: the first is the
            picture. Prompts may be named too, such as ``{"image": "image", "points": "points"}``; with a list
            of pictures they are lists as long.
        outputs: What the answer holds: a kind, or kinds by names of entries at any depth, such as
            ``{"box": "boxes", "mask": "mask"}``; see `upright.integrations.answers.move_answer`.
        quality: Encoded JPEG pictures that are turned are written again at this quality (1 to 100); None: as
            PNG. Other formats are written without loss; pictures that need no turning are handed on as they
            are.

    Returns:
        A callable; ``.run(...)`` returns the poses as well.

    Example:
        >>> import numpy as np, upright
        >>> def brightest(picture):
        ...     y, x = np.unravel_index(picture.argmax(), picture.shape)
        ...     return {"found": [{"box": {"x": int(x), "y": int(y), "width": 1, "height": 1}}]}
        >>> robust = black_box(brightest, "C4", outputs={"box": "boxes"})
        >>> picture = np.zeros((40, 60), np.uint8)
        >>> picture[5, 7] = 255
        >>> robust(picture)["found"]
        [{'box': {'x': 7, 'y': 5, 'width': 1, 'height': 1}}]
    """
    chosen = choose_canonicalizer(canonicalizer, group)
    return BlackBox(function, chosen, inputs=inputs, outputs=outputs, quality=quality)


def straighten_all(
    pictures: Sequence[Any], canonicalizer: Canonicalizer, quality: int | None = 95
) -> tuple[list[Any], list[PicturePose]]:
    """Set pictures upright, encoded ones too.

    Args:
        pictures: Pictures of any form; see `black_box`.
        canonicalizer: The canonicalizer.
        quality: See `black_box`.

    Returns:
        The upright pictures, of the same forms, and their poses.
    """
    opened = [
        read_encoded(p, f"picture {i}") if isinstance(p, (str, bytes)) else p for i, p in enumerate(pictures)
    ]
    seen = [p.picture if isinstance(p, Encoded) else p for p in opened]
    upright, pose = straighten(seen, canonicalizer)
    written = [
        _written(given, entry, straight, bool(still), quality)
        for given, entry, straight, still in zip(
            pictures, opened, upright, pose.element.is_identity(), strict=True
        )
    ]
    return written, picture_poses(pose, upright)


def picture_poses(pose: Pose, upright: Sequence[Any]) -> list[PicturePose]:
    """Return the poses of single pictures; ``upright`` are the pictures as the model sees them."""
    confidence = pose.confidence.tolist()
    return [
        PicturePose(pose.element[i], picture_size(picture), confidence[i])
        for i, picture in enumerate(upright)
    ]


def picture_size(picture: Any) -> tuple[int, int]:
    """Return height and width of a PIL image, an array ``(H, W[, C])`` or a tensor ``(C, H, W)``."""
    if hasattr(picture, "getexif"):
        return int(picture.height), int(picture.width)
    height, width = picture.shape[-2:] if isinstance(picture, Tensor) else picture.shape[:2]
    return int(height), int(width)


def _written(given: Any, opened: Any, straight: Any, still: bool, quality: int | None) -> Any:
    if not isinstance(opened, Encoded):
        return straight
    if still and opened.is_stored_as_seen:
        return given
    return opened.write(straight, quality)[0]


def _swaps(pose: PicturePose) -> bool:
    group: Any = pose.element.group
    return bool(group.grid_moves(pose.element) % 2 == 1)
