"""Planar groups (rotations and reflections) on every two-dimensional kind."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..groups.base import Element, FiniteGroup, Group
from ..groups.planar import PlanarGroup
from ..kinds import Boxes, Image, Mask, OrientedBoxes, Points, RegularField, VectorField
from .grid import move_grid, sides, valued
from .registry import register_action


@register_action(PlanarGroup, Image)
def move_image(g: Element, x: Image) -> Image:
    """Move pixels; see `move_grid`."""
    return x.replace(data=move_grid(g, x.data, **image_settings(x)))


@register_action(PlanarGroup, Mask)
def move_mask(g: Element, x: Mask) -> Mask:
    """Move labels by the nearest pixel, soft masks by interpolation."""
    return moved_mask(move_grid, g, x)


@register_action(PlanarGroup, VectorField)
def move_vector_field(g: Element, x: VectorField) -> VectorField:
    """Move the grid and turn the vectors with it."""
    if x.data.ndim < 4 or x.data.shape[-3] != 2:
        raise ValueError(f"VectorField.data must have shape (…, 2, H, W), got {tuple(x.data.shape)}")
    moved = move_grid(g, x.data, border=x.border, fill=x.fill)
    return x.replace(data=turn_vectors(g, moved.movedim(-3, -1)).movedim(-1, -3))


@register_action(PlanarGroup, RegularField)
def move_regular_field(g: Element, x: RegularField) -> RegularField:
    """Move the grid and permute the channels: channel ``h`` comes from channel ``~g @ h``."""
    check_regular(g.group, x.data)
    return x.replace(data=permute_channels(g, move_grid(g, x.data, border=x.border, fill=x.fill)))


@register_action(PlanarGroup, Points)
def move_points(g: Element, x: Points) -> Points:
    """Move x and y about the canvas centre; further columns stay."""
    if x.data.shape[-1] < 2:
        raise ValueError(f"Points.data must have shape (…, N, 2 or more), got {tuple(x.data.shape)}")
    size = moved_size(g, x.size)
    xy = to_pixels(x.data[..., :2], x.size, x.normalized)
    xy = from_pixels(turn_about_centre(g, xy, x.size, size), size, x.normalized)
    moved = torch.cat([xy.to(x.data.dtype), x.data[..., 2:]], -1)
    return x.replace(data=keep_still(g, moved, x.data), size=size)


@register_action(PlanarGroup, Boxes)
def move_boxes(g: Element, x: Boxes) -> Boxes:
    """Move boxes; the hull of the four corners where the angle is no quarter turn."""
    if x.data.shape[-1] != 4:
        raise ValueError(f"Boxes.data must have shape (…, N, 4), got {tuple(x.data.shape)}")
    size = moved_size(g, x.size)
    boxes = torch.cat([to_pixels(x.data[..., i : i + 2], x.size, x.normalized) for i in (0, 2)], -1)
    first, second = boxes[..., :2], boxes[..., 2:]
    if x.format == "cxcywh":
        moved = torch.cat([turn_about_centre(g, first, x.size, size), _hull(g, second)], -1)
    else:
        corner = second if x.format == "xyxy" else first + second
        corners = [first, torch.stack([first[..., 0], corner[..., 1]], -1), corner]
        corners.append(torch.stack([corner[..., 0], first[..., 1]], -1))
        turned = torch.stack([turn_about_centre(g, c, x.size, size) for c in corners])
        low = turned.amin(0)
        moved = torch.cat([low, turned.amax(0) if x.format == "xyxy" else _hull(g, second)], -1)
    moved = torch.cat([from_pixels(moved[..., i : i + 2], size, x.normalized) for i in (0, 2)], -1)
    return x.replace(data=keep_still(g, moved.to(x.data.dtype), x.data), size=size)


@register_action(PlanarGroup, OrientedBoxes)
def move_oriented_boxes(g: Element, x: OrientedBoxes) -> OrientedBoxes:
    """Move centres, turn angles; sides stay. A reflection negates the angle before the turn."""
    if x.data.shape[-1] != 5:
        raise ValueError(f"OrientedBoxes.data must have shape (…, N, 5), got {tuple(x.data.shape)}")
    group = g.group
    assert isinstance(group, PlanarGroup)
    size = moved_size(g, x.size)
    xy = turn_about_centre(g, x.data[..., :2], x.size, size).to(x.data.dtype)
    shape = (-1, *[1] * (x.data.ndim - 2))
    turn = group.angle(g).view(shape).to(x.data.device)
    angle = x.data[..., 4]
    turned = torch.where(group.is_reflected(g).view(shape), -angle, angle) + turn
    turned = torch.remainder(turned + math.pi / 2, math.pi) - math.pi / 2  # a box turned by π is itself
    moved = torch.cat([xy, x.data[..., 2:4], turned.to(angle.dtype).unsqueeze(-1)], -1)
    return x.replace(data=keep_still(g, moved, x.data), size=size)


def check_regular(group: Group, data: Tensor) -> None:
    """Raise unless a regular field fits a finite group."""
    if not isinstance(group, FiniteGroup):
        raise TypeError(f"RegularField needs a finite group, got {group}")
    if data.ndim < 5 or data.shape[-3] != group.order:
        raise ValueError(
            f"RegularField.data must have shape (…, C, {group.order}, H, W) for {group}, "
            f"got {tuple(data.shape)}"
        )


def permute_channels(g: Element, data: Tensor) -> Tensor:
    """Put channel ``~g @ h`` of regular fields, shape ``(B, …, C, |G|, H, W)``, at the place of ``h``."""
    group = g.group
    assert isinstance(group, FiniteGroup)
    source = g.inverse().reshape(-1, 1).compose(group.elements(g.device).reshape(1, -1)).value  # (B, |G|)
    index = source.view(source.shape[0], *[1] * (data.ndim - 4), group.order, 1, 1)
    return data.gather(-3, index.expand(data.shape))


def image_settings(x: Image) -> dict[str, Any]:
    """Return how the pixels of a picture are moved; bools are looked up, not interpolated."""
    interpolation = "nearest" if x.data.dtype == torch.bool else x.interpolation
    return {"border": x.border, "fill": x.fill, "interpolation": interpolation}


def moved_mask(move: Callable[..., Tensor], g: Element, x: Mask) -> Mask:
    """Move a mask by a mover of pixels: labels by the nearest pixel, soft masks by interpolation."""
    soft = x.data.is_floating_point()
    data = x.data.unsqueeze(1) if x.data.ndim == 3 else x.data  # a channel for (B, H, W)
    moved = move(g, data, border=x.border, fill=x.fill, interpolation="bilinear" if soft else "nearest")
    return x.replace(data=moved.squeeze(1) if x.data.ndim == 3 else moved)


def turn_vectors(g: Element, v: Tensor) -> Tensor:
    """Turn vectors ``(x, y)``, shape ``(B, …, 2)``: signed swaps for quarter turns, the matrix otherwise."""
    group = g.group
    assert isinstance(group, PlanarGroup)
    shape = (-1, *[1] * (v.ndim - 2))
    turns, flips = group.quarter_turns(g).view(shape), group.is_reflected(g).view(shape)
    x = torch.where(flips, -v[..., 0], v[..., 0])
    y = v[..., 1]
    odd = turns % 2 == 1  # 90°: (x, y) → (y, -x); 180°: (-x, -y); 270°: (-y, x)
    first, second = torch.where(odd, y, x), torch.where(odd, x, y)
    first = torch.where((turns == 2) | (turns == 3), -first, first)
    second = torch.where((turns == 1) | (turns == 2), -second, second)
    exact = torch.stack([first, second], -1)
    if group.is_exact_on_grid:
        return exact
    precision = torch.promote_types(v.dtype, torch.float32)
    matrix = g.matrix(precision).to(v.device)
    general = torch.einsum("bij,b...j->b...i", matrix, v.to(precision)).to(v.dtype)
    if matrix.requires_grad:  # its entries are exact at quarter turns; so gradients reach the angle there too
        return general
    return torch.where((turns >= 0).unsqueeze(-1), exact, general)


def turn_about_centre(g: Element, xy: Tensor, size: tuple[int, int], moved: tuple[int, int]) -> Tensor:
    """Move points from the canvas ``size`` to the canvas ``moved``, shape ``(B, …, 2)``, in pixels.

    Written as a turn about the origin plus an offset, so that a quarter turn rounds at most once.
    """
    precision = torch.promote_types(xy.dtype, torch.float32)
    matrix = g.matrix(torch.float64)
    old, new = (sides(s, torch.float64, g.device) / 2 for s in (size, moved))
    offset = (new - matrix @ old).to(device=xy.device, dtype=precision)
    return turn_vectors(g, xy.to(precision)) + offset.view(-1, *[1] * (xy.ndim - 2), 2)


def moved_size(g: Element, size: tuple[int, int]) -> tuple[int, int]:
    """Return the canvas after the move: sides swap under an odd quarter turn, else stay.

    Raises:
        ValueError: If the elements disagree on a canvas that is not square.
    """
    height, width = size
    group = g.group
    assert isinstance(group, PlanarGroup)
    if group.swaps_sides is not None:
        return (width, height) if group.swaps_sides else size
    if height == width or not g.shape[0]:
        return size
    swaps = group.quarter_turns(g) % 4 % 2 == 1
    swaps &= group.quarter_turns(g) >= 0
    if bool(swaps.any()) != bool(swaps.all()):
        raise ValueError(
            f"a batch on a non-square canvas, {height}×{width}, cannot mix quarter turns that swap its sides "
            "with elements that keep them; pass a list with one entry per picture"
        )
    return (width, height) if bool(swaps.any()) else size


def keep_still(g: Element, moved: Tensor, x: Tensor) -> Tensor:
    """Keep the bits of what the identity moves: fractions round, and boxes may have swapped corners."""
    kept = torch.where(g.is_identity().view(-1, *[1] * (x.ndim - 1)), x, moved)
    return valued(kept, moved) if g.value.requires_grad else kept  # at the identity too, the pose has slopes


def _hull(g: Element, lengths: Tensor) -> Tensor:
    """Return width and height of the axis-aligned hull of turned rectangles, shape ``(B, …, 2)``."""
    precision = torch.promote_types(lengths.dtype, torch.float32)
    matrix = g.matrix(precision).abs().to(lengths.device)
    return torch.einsum("bij,b...j->b...i", matrix, lengths.to(precision))


def to_pixels(xy: Tensor, size: tuple[int, int], normalized: bool) -> Tensor:
    """Return pixels."""
    return xy * sides(size, xy.dtype, xy.device) if normalized else xy


def from_pixels(xy: Tensor, size: tuple[int, int], normalized: bool) -> Tensor:
    """Return fractions again, if they were fractions."""
    return xy / sides(size, xy.dtype, xy.device) if normalized else xy
