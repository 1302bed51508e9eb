"""What is moved: tensors together with what is needed to understand them. How they move is in ``actions``.

Convention:
    Pixel coordinates have x to the right and y down, the origin in the top left corner of the canvas and
    pixel centres at half-integers. ``size`` is the canvas, ``(height, width)`` in pixels. ``…`` stands for
    the batch shape of the element that moves the value (one leading axis, or none) and any further axes.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, TypeVar

from torch import Tensor

from ._values import static as static
from ._values import value as value

Border = Literal["edge", "reflect", "constant"]
"""What lies outside the canvas: the edge pixel repeated, the mirrored picture, or a constant."""
Interpolation = Literal["bilinear", "nearest", "bicubic"]

K = TypeVar("K", bound="Kind")


class Kind:
    """Base of all kinds: frozen dataclasses with one tensor, ``data``."""

    data: Any

    def replace(self: K, **changes: Any) -> K:
        """Return a copy with some fields changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]


@value
class Image(Kind):
    """A picture.

    Attributes:
        data: Pixels, shape ``(…, C, H, W)``, any float or integer dtype, any number of channels.
        border: What lies outside the canvas, where an element needs to look there.
        interpolation: How pixels are resampled by elements that do not keep the grid.
        fill: The constant of ``border="constant"``.
    """

    data: Tensor
    border: Border = static(default="edge")
    interpolation: Interpolation = static(default="bilinear")
    fill: float = static(default=0.0)


@value
class Mask(Kind):
    """A segmentation or a stack of masks: moves like the picture, without mixing labels.

    Attributes:
        data: Shape ``(…, H, W)``; bool and integers take the nearest pixel's label, floats ("soft" masks,
            logits) are interpolated.
        border: What lies outside the canvas.
        fill: The label or value of ``border="constant"``.
    """

    data: Tensor
    border: Border = static(default="constant")
    fill: float = static(default=0.0)


@value
class VectorField(Kind):
    """A vector at every pixel (optical flow, displacement): vectors turn together with the grid.

    Attributes:
        data: Shape ``(…, 2, H, W)``; channel 0 points right, channel 1 points down.
        border: What lies outside the canvas.
        fill: The constant of ``border="constant"``.
    """

    data: Tensor
    border: Border = static(default="edge")
    fill: float = static(default=0.0)


@value
class RegularField(Kind):
    """A feature map with one channel per group element; the channels permute while the grid moves.

    Attributes:
        data: Shape ``(…, C, |G|, H, W)``: channel ``h`` of ``g·f`` is the moved channel ``~g @ h`` of ``f``.
        border: What lies outside the canvas.
        fill: The constant of ``border="constant"``.
    """

    data: Tensor
    border: Border = static(default="edge")
    fill: float = static(default=0.0)


@value
class Points(Kind):
    """Points on the canvas.

    Attributes:
        data: Shape ``(…, N, 2 + extra)``; x, y, then anything that stays with the point (a visibility flag, a
            score).
        size: Canvas ``(height, width)`` in pixels.
        normalized: Whether x and y are fractions of width and height instead of pixels.
    """

    data: Tensor
    size: tuple[int, int] = static()
    normalized: bool = static(default=False)


@value
class Boxes(Kind):
    """Axis-aligned boxes. An element that is no quarter turn gives the hull of the four moved corners.

    Attributes:
        data: Shape ``(…, N, 4)``.
        size: Canvas ``(height, width)`` in pixels.
        format: ``"xyxy"`` (two corners), ``"xywh"`` (top left corner, width, height) or ``"cxcywh"``
            (centre, width, height).
        normalized: Whether coordinates are fractions of width and height instead of pixels.
    """

    data: Tensor
    size: tuple[int, int] = static()
    format: Literal["xyxy", "xywh", "cxcywh"] = static(default="xyxy")
    normalized: bool = static(default=False)


@value
class OrientedBoxes(Kind):
    """Boxes with an angle; they move exactly under every element.

    Attributes:
        data: Shape ``(…, N, 5)``: centre x, centre y, width, height in pixels; angle in radians, by which the
            box is turned counter-clockwise as seen on the screen.
        size: Canvas ``(height, width)`` in pixels.
    """

    data: Tensor
    size: tuple[int, int] = static()


@value
class Invariant(Kind):
    """What no transformation changes: embeddings, labels, anything.

    Attributes:
        data: Anything.
        axis: The axis of a tensor that counts the pictures; None: it belongs to all of them together.
    """

    data: Any
    axis: int | None = static(default=0)


@value
class Logits(Invariant):
    """Unnormalised class scores: invariant; several are averaged as probabilities.

    Attributes:
        data: Shape ``(…, K)``.
        axis: The axis that counts the pictures.
    """

    data: Tensor
