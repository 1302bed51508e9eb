"""Promptable segmentation: the Segment Anything family.

Points, boxes and mask prompts are in pixels of the picture that the model is given (the processors scale them
from the photo's own), with pixel centres at half-integers like everywhere in this library; they move with the
picture, their labels do not. Masks come back in the user's frame. Hidden states, attentions and the features
that SAM 2 returns stay in the frame of the upright picture.

The processor of SAM resizes the longer side and pads below and to the right. Hand over all that it returns,
``robust(**inputs)``: with ``reshaped_input_sizes`` the picture is turned within its part of the canvas, as if
the processor had placed the turned photo. Masks of low resolution then move by whole cells, off by half a
cell at most where a side is no multiple of the mask's stride. SAM 2 and later stretch to a square, unpadded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...adapter.signature import Embeds
from ...adapter.spec import Size
from .base import Signature

_PAD = -10.0
"""Coordinates of points and boxes that only fill up a batch."""
_SLACK = 1.0
"""Pixels by which a point on the border may be off, as processors round."""


def check_prompts(prompts: Mapping[str, Any], sizes: list[Size]) -> None:
    """Check points and boxes against the pictures.

    Args:
        prompts: Arguments of the call by name, those that are given.
        sizes: Height and width of every picture.

    Raises:
        ValueError: If there is not one set of prompts a picture, a shape is wrong, a point or a whole box
            lies outside its picture, or a box has a negative side.
    """
    points, boxes, labels = (prompts.get(n) for n in ("input_points", "input_boxes", "input_labels"))
    if isinstance(points, Tensor):
        _check_shape("input_points", points, "(B, prompts, points, 2)", 4, 2, sizes)
        if isinstance(labels, Tensor) and labels.shape != points.shape[:-1]:
            raise ValueError(
                f"input_labels must have shape {tuple(points.shape[:-1])} to match input_points, "
                f"got {tuple(labels.shape)}"
            )
        used = (points != _PAD).any(-1)
        used = used & (labels >= 0) if isinstance(labels, Tensor) else used
        inside = (points >= -_SLACK) & (points <= _corners(points, sizes) + _SLACK)
        _require("input_points", points, used, inside.all(-1), sizes, "point")
    if isinstance(boxes, Tensor):
        _check_shape("input_boxes", boxes, "(B, boxes, 4)", 3, 4, sizes)
        used = (boxes != _PAD).any(-1)
        negative = used & (boxes[..., 2:] < boxes[..., :2]).any(-1)
        if bool(negative.any()):
            i, k = negative.nonzero()[0].tolist()
            raise ValueError(
                f"input_boxes must be (x1, y1, x2, y2) with x1 <= x2 and y1 <= y2, got "
                f"{boxes[i, k].tolist()} for box {k} of picture {i}; sort its corners"
            )
        meets = (boxes[..., 2:] >= 0).all(-1) & (boxes[..., :2] <= _corners(boxes, sizes)).all(-1)
        _require("input_boxes", boxes, used, meets, sizes, "box")


def _check_shape(name: str, given: Tensor, shape: str, ndim: int, last: int, sizes: list[Size]) -> None:
    if given.ndim != ndim or given.shape[-1] != last or given.shape[0] != len(sizes):
        raise ValueError(
            f"{name} must have shape {shape} with B = {len(sizes)} pictures, got {tuple(given.shape)}"
        )


def _corners(like: Tensor, sizes: list[Size]) -> Tensor:
    """Return the lower right corner of every picture, to compare prompts of shape ``(B, …, 2)`` with."""
    corners = torch.tensor([(w, h) for h, w in sizes], dtype=torch.float64, device=like.device).reshape(-1, 2)
    return corners.view(-1, *[1] * (like.ndim - 2), 2)


def _require(name: str, given: Tensor, used: Tensor, ok: Tensor, sizes: list[Size], what: str) -> None:
    wrong = (used & ~ok).nonzero()
    if len(wrong):
        at = wrong[0].tolist()
        height, width = sizes[at[0]]
        raise ValueError(
            f"{name} must lie on the picture, {height}×{width} (height × width) as the model sees it, got "
            f"{what} {given[tuple(at)].tolist()} for picture {at[0]}; scale prompts as its processor does"
        )


_PROMPTS = {"input_points": "points", "input_boxes": "boxes", "input_masks": "mask"}
_EMBEDS = Embeds("get_image_embeddings", ("image_embeddings",))


def _promptable(**settings: Any) -> Signature:
    return Signature(
        inputs={"pixel_values": "image", **_PROMPTS},
        outputs={"pred_masks": "mask"},
        check=check_prompts,
        **settings,
    )


PROMPTABLE = {
    "SamModel": _promptable(embeds=_EMBEDS, extents="reshaped_input_sizes"),
    "SamHQModel": _promptable(
        embeds=Embeds("get_image_embeddings", ("image_embeddings", "intermediate_embeddings")),
        extents="reshaped_input_sizes",
    ),
    **dict.fromkeys(("Sam2Model", "Sam3TrackerModel"), _promptable(embeds=_EMBEDS)),
}
"""Promptable models of ``transformers``."""
