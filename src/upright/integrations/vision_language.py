"""Vision-language models of ``transformers``: pictures are set upright before the processor cuts them up."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from torch import Tensor

from ..canonicalizers import Canonicalizer
from ..factory import choose_canonicalizer
from ..groups.base import Group
from ..pictures import straighten
from .answers import PicturePose
from .blackbox import picture_poses

_LOCATIONS = re.compile(r"(?:<loc\d{4}>){4}")
_PALIGEMMA_UNIT = 1024


def adapt_processor(
    processor: Any, group: Group | str = "C4", *, canonicalizer: Canonicalizer | str | None = None
) -> Any:
    """Make a vision-language model equivariant by its processor; the model itself is not touched.

    The model sees every picture upright, however it is turned or mirrored, whether it comes by
    ``processor(images=…, text=…)``, by ``processor.apply_chat_template(…)`` or by a ``pipeline`` made with
    ``processor=``. What the model says is about the upright picture: take coordinates back with the poses.
    Videos and coordinates in a question are not moved (boxes in arguments of their own are refused); an EXIF
    orientation is applied to pictures.

    Args:
        processor: A processor of ``transformers`` (LLaVA, Qwen-VL, SmolVLM, PaliGemma, Gemma 3, InternVL, …),
            or any other of its classes that has an ``image_processor``.
        group: See `upright.adapt`.
        canonicalizer: See `upright.adapt`.

    Returns:
        A processor of the same class, which shares its parts with the given one. What it returns has one more
        attribute, ``poses``: a `PicturePose` for every picture, in their order. ``.straighten(images)``
        returns the upright pictures and the poses alone.

    Raises:
        TypeError: If it is no processor of pictures, or is adapted already.

    Example:
        >>> robust = adapt_processor(AutoProcessor.from_pretrained(name), "C4")  # doctest: +SKIP
        >>> inputs = robust(images=photo, text="<image> Find it.", return_tensors="pt")  # doctest: +SKIP
        >>> answer = json.loads(robust.decode(model.generate(**inputs)[0]))  # doctest: +SKIP
        >>> inputs.poses[0].restore({"bbox_2d": "boxes"}, answer, scale=1000)  # doctest: +SKIP
    """
    if isinstance(processor, _Straightening):
        raise TypeError("processor is adapted already; adapt the processor that it was made of")
    if not callable(processor) or not hasattr(processor, "image_processor"):
        raise TypeError(
            f"processor must be a processor with an image_processor, got {type(processor).__name__}; "
            "models that take pixel_values of whole pictures are adapted with upright.adapt(model)"
        )
    return _adapted(processor, choose_canonicalizer(canonicalizer, group))


def restore_locations(text: str, pose: PicturePose) -> str:
    """Take the location tokens in an answer of PaliGemma, ``<loc0123>`` four times a box, back.

    Args:
        text: The answer, special tokens kept.
        pose: The pose of the picture.

    Returns:
        The same text with the boxes in the user's frame.
    """

    def move(match: re.Match[str]) -> str:
        given = [int(number) for number in re.findall(r"\d+", match[0])]
        box = pose.restore("boxes", given, scale=_PALIGEMMA_UNIT, order="yx")
        return "".join(f"<loc{min(max(value, 0), _PALIGEMMA_UNIT - 1):04d}>" for value in box)

    return _LOCATIONS.sub(move, text)


class _Straightening:
    """What an adapted processor does before its own class."""

    _bare: Any
    _canonicalizer: Canonicalizer

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        call: Callable[..., Any] = super().__call__  # type: ignore[misc]
        signature = inspect.signature(call)
        bound = signature.bind_partial(*args, **kwargs)
        named = bound.arguments if "images" in signature.parameters else bound.arguments.get("kwargs", {})
        poses: list[PicturePose] = []
        options = {**kwargs, **(kwargs.get("images_kwargs") or {})}
        _refuse_boxes({**options, **bound.arguments})
        if named.get("images") is not None:
            named["images"], poses = self.straighten(named["images"], options.get("input_data_format"))
        made = call(*bound.args, **bound.kwargs)
        made.poses = poses
        return made

    def straighten(self, images: Any, input_data_format: Any = None) -> tuple[Any, list[PicturePose]]:
        """Set pictures upright.

        Args:
            images: What the processor takes: PIL images, arrays, tensors, paths, addresses, base64; one, or
                lists of any depth.
            input_data_format: ``"channels_first"`` or ``"channels_last"`` for arrays and tensors; default:
                recognised by the shape.

        Returns:
            The upright pictures, nested alike, opened where they were paths or addresses; and their poses.
        """
        leaves = [self._opened(picture) for picture in _leaves(images)]
        given = [_in_our_layout(picture, input_data_format) for picture in leaves]
        upright, pose = straighten(given, self._canonicalizer)
        poses = picture_poses(pose, upright)
        laid_out = [
            _in_their_layout(straight, ours, theirs)
            for straight, ours, theirs in zip(upright, given, leaves, strict=True)
        ]
        return _nested(images, iter(laid_out)), poses

    def _opened(self, picture: Any) -> Any:
        if not isinstance(picture, str):
            return picture
        fetch = getattr(self._bare.image_processor, "fetch_images", None)
        if fetch is not None:
            return fetch(picture)
        from transformers.image_utils import load_image

        return load_image(picture)

    def to_dict(self) -> Any:
        """Return what is saved: the processor without what adapts it."""
        return self._bare.to_dict()

    def save_pretrained(self, *args: Any, **kwargs: Any) -> Any:
        """Save the processor without what adapts it."""
        return self._bare.save_pretrained(*args, **kwargs)

    def __reduce__(self) -> Any:
        return _adapted, (self._bare, self._canonicalizer)


def _adapted(processor: Any, canonicalizer: Canonicalizer) -> Any:
    """Return a copy of a processor, of a class that is derived from its own: all its methods call ours."""
    own = type(processor)
    made = copy.copy(processor)
    made.__class__ = type(own.__name__, (_Straightening, own), {"__module__": own.__module__})
    made._bare, made._canonicalizer = processor, canonicalizer
    return made


def _refuse_boxes(options: dict[str, Any]) -> None:
    """Raise TypeError for questions about a part of the picture, whose numbers are of the one as given."""
    for name in ("box", "bboxes"):
        if options.get(name) is not None:
            raise TypeError(
                f"{name} is of the picture as given, but the model sees it upright; move it by the inverse "
                "of poses[i].element after .straighten(images); give both to the processor that was adapted"
            )


def _leaves(images: Any) -> Iterator[Any]:
    if isinstance(images, (list, tuple)) or (isinstance(images, (np.ndarray, Tensor)) and images.ndim > 3):
        for entry in images:
            yield from _leaves(entry)
    elif images is not None:
        yield images


def _nested(images: Any, leaves: Iterator[Any]) -> Any:
    if isinstance(images, (list, tuple)) or (isinstance(images, (np.ndarray, Tensor)) and images.ndim > 3):
        return [_nested(entry, leaves) for entry in images]
    return None if images is None else next(leaves)


def _in_our_layout(picture: Any, layout: Any) -> Any:
    """Return arrays with channels last, tensors with channels first."""
    if not isinstance(picture, (np.ndarray, Tensor)) or picture.ndim != 3:
        return picture
    if layout is None:
        from transformers.image_utils import infer_channel_dimension_format

        layout = infer_channel_dimension_format(picture)
    first = str(getattr(layout, "value", layout)) in ("channels_first", "first")
    if isinstance(picture, Tensor):
        return picture if first else picture.permute(2, 0, 1)
    return picture.transpose(1, 2, 0) if first else picture


def _in_their_layout(upright: Any, ours: Any, theirs: Any) -> Any:
    if ours is theirs or not isinstance(upright, (np.ndarray, Tensor)):
        return upright
    if isinstance(upright, Tensor):
        return upright.permute(1, 2, 0).contiguous()
    return np.ascontiguousarray(upright.transpose(2, 0, 1))
