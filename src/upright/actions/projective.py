"""Scales, translations, affine maps and homographies on every two-dimensional kind.

The canvas stays; each output pixel centre is looked up in the input once. Maps that take pixel centres to
pixel centres (whole-pixel shifts, quarter turns of a square canvas) move pixels without arithmetic. Where a
map shrinks, pictures and soft masks are smoothed first, as antialiased resizing does; labels take the nearest
pixel.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..groups.base import Element
from ..groups.projective import PlaneMap, is_similarity
from ..kinds import Border, Boxes, Image, Interpolation, Mask, OrientedBoxes, Points, VectorField
from .grid import interpolate, look_up_nearest, mirror, valued, working_precision
from .planar import from_pixels, image_settings, keep_still, moved_mask, to_pixels
from .registry import register_action

Size = tuple[int, int]

_COMPILED_TAPS = 8
"""How far smoothing reaches in compiled graphs, which cannot read how wide it should be, in pixels."""
_FAR = 1e6
"""Positions further out than so many pixels are all alike."""


@register_action(PlaneMap, Image)
def move_image(g: Element, x: Image) -> Image:
    """Move pixels; see `move_pixels`."""
    return x.replace(data=move_pixels(g, x.data, **image_settings(x)))


@register_action(PlaneMap, Mask)
def move_mask(g: Element, x: Mask) -> Mask:
    """Move labels by the nearest pixel, soft masks by interpolation."""
    return moved_mask(move_pixels, g, x)


@register_action(PlaneMap, VectorField)
def move_vector_field(g: Element, x: VectorField) -> VectorField:
    """Move the grid and push the vectors forward by the derivative of the map at their place."""
    if x.data.ndim < 4 or x.data.shape[-3] != 2:
        raise ValueError(f"VectorField.data must have shape (…, 2, H, W), got {tuple(x.data.shape)}")
    moved = move_pixels(g, x.data, border=x.border, fill=x.fill)
    precision = torch.promote_types(moved.dtype, torch.float32)
    derivative = _derivative(g, (x.data.shape[-2], x.data.shape[-1])).to(precision)  # (B, 2, 2, H, W)
    derivative = derivative.view(len(g), *[1] * (moved.ndim - 4), *derivative.shape[1:])
    first, second = (moved.to(precision)[..., i : i + 1, :, :] for i in (0, 1))
    pushed = derivative[..., :, 0, :, :] * first + derivative[..., :, 1, :, :] * second
    return x.replace(data=keep_still(g, pushed.to(moved.dtype), x.data))


@register_action(PlaneMap, Points)
def move_points(g: Element, x: Points) -> Points:
    """Move x and y; further columns stay."""
    if x.data.shape[-1] < 2:
        raise ValueError(f"Points.data must have shape (…, N, 2 or more), got {tuple(x.data.shape)}")
    xy = _project(g, to_pixels(x.data[..., :2].double(), x.size, x.normalized), x.size)
    xy = from_pixels(xy, x.size, x.normalized).to(x.data.dtype)
    return x.replace(data=keep_still(g, torch.cat([xy, x.data[..., 2:]], -1), x.data))


@register_action(PlaneMap, Boxes)
def move_boxes(g: Element, x: Boxes) -> Boxes:
    """Move boxes to the hull of their four moved corners."""
    if x.data.shape[-1] != 4:
        raise ValueError(f"Boxes.data must have shape (…, N, 4), got {tuple(x.data.shape)}")
    first, second = (to_pixels(x.data[..., i : i + 2].double(), x.size, x.normalized) for i in (0, 2))
    if x.format == "cxcywh":
        first, second = first - second / 2, first + second / 2
    elif x.format == "xywh":
        second = first + second
    (left, top), (right, bottom) = first.unbind(-1), second.unbind(-1)
    corners = torch.stack([left, top, right, top, right, bottom, left, bottom], -1)
    corners = corners.view(*corners.shape[:-1], 4, 2)
    moved = _project(g, corners, x.size)
    first, second = moved.amin(-2), moved.amax(-2)
    if x.format == "cxcywh":
        first, second = (first + second) / 2, second - first
    elif x.format == "xywh":
        second = second - first
    data = torch.cat([from_pixels(part, x.size, x.normalized) for part in (first, second)], -1)
    return x.replace(data=keep_still(g, data.to(x.data.dtype), x.data))


@register_action(PlaneMap, OrientedBoxes)
def move_oriented_boxes(g: Element, x: OrientedBoxes) -> OrientedBoxes:
    """Move centres, turn angles, scale sides: maps that keep shapes only."""
    if x.data.shape[-1] != 5:
        raise ValueError(f"OrientedBoxes.data must have shape (…, N, 5), got {tuple(x.data.shape)}")
    group = g.group
    assert isinstance(group, PlaneMap)
    homography = group.homography(g)
    if not torch.compiler.is_compiling() and not bool(is_similarity(homography).all()):
        raise ValueError(
            f"OrientedBoxes stay rectangles under similarities only (turns, flips, even scales, shifts); "
            f"got an element of {group} that is none. Move their four corners as Points instead"
        )
    shape = (-1, *[1] * (x.data.ndim - 2))
    linear = (homography[..., :2, :2] / homography[..., 2:, 2:]).view(*shape, 2, 2)
    data = x.data.double()
    side = torch.stack([data[..., 4].cos(), -data[..., 4].sin()], -1)  # along the width; y points down
    side = (linear @ side.unsqueeze(-1)).squeeze(-1)
    angle = torch.atan2(-side[..., 1], side[..., 0])
    angle = torch.remainder(angle + math.pi / 2, math.pi) - math.pi / 2  # a box turned by π is itself
    sides = data[..., 2:4] * torch.linalg.vector_norm(side, dim=-1, keepdim=True)
    moved = torch.cat([_project(g, data[..., :2], x.size), sides, angle.unsqueeze(-1)], -1)
    return x.replace(data=keep_still(g, moved.to(x.data.dtype), x.data))


def move_pixels(
    g: Element,
    x: Tensor,
    *,
    border: Border,
    fill: float = 0.0,
    interpolation: Interpolation = "bilinear",
) -> Tensor:
    """Move a batch of pixel grids; the canvas stays.

    Args:
        g: One element of a `PlaneMap` per grid, shape ``(B,)``.
        x: Grids, shape ``(B, …, H, W)``, any dtype.
        border: What lies outside the canvas; what a homography shows behind its horizon lies outside.
        fill: The constant of ``border="constant"``.
        interpolation: How pixels are looked up; ``"nearest"`` keeps the values of integers and bools.

    Returns:
        Moved grids, dtype of ``x``; gradients reach the element, also where it moves pixels exactly.
    """
    if x.ndim < 3:
        raise ValueError(f"a grid must have shape (B, …, H, W), got {tuple(x.shape)}")
    if x.shape[0] == 0 or x.numel() == 0:
        return x.clone()
    size = (x.shape[-2], x.shape[-1])
    group = g.group
    assert isinstance(group, PlaneMap)
    back = group.homography(g.inverse()).to(x.device)
    exact = _keeps_pixels(back, size)
    compiling = torch.compiler.is_compiling()
    flat = x.reshape(x.shape[0], -1, *size)
    follows = back.requires_grad and torch.is_grad_enabled()
    if interpolation == "nearest" or (not compiling and not follows and bool(exact.all())):
        return look_up_nearest(flat, *_positions(back, size), border, fill).view(x.shape)
    moved = _resample(flat, back, border, fill, interpolation)
    if compiling or bool(exact.any()):
        nearest = look_up_nearest(flat, *_positions(back.detach(), size), border, fill)
        moved = valued(torch.where(exact.view(-1, 1, 1, 1), nearest, moved), moved)
    return moved.view(x.shape)


def _resample(x: Tensor, back: Tensor, border: Border, fill: float, interpolation: Interpolation) -> Tensor:
    """Look every pixel centre up in ``(B, C, H, W)``, smoothed first where the map shrinks."""
    height, width = size = (x.shape[-2], x.shape[-1])
    column, row = _positions(back, size)
    grid = torch.stack([column * (2 / width) - 1, row * (2 / height) - 1], -1)
    # with interpolation's own, the variance is that of a triangle stretched to the step
    variance = (_shrinking(back) - 1).clamp(min=0) / 6

    def smooth(values: Tensor) -> Tensor:
        if not torch.compiler.is_compiling() and not bool((variance > 1e-6).any()):
            return values
        values = _blurred(values, variance[:, 0], border)
        return _blurred(values.mT, variance[:, 1], border).mT

    return interpolate(
        x,
        grid.to(working_precision(x.dtype)),
        border=border,
        fill=fill,
        interpolation=interpolation,
        prefilter=smooth,
    )


def _in_pixels(homography: Tensor, size: Size) -> Tensor:
    """Return homographies in pixels from the centre of the canvas, ``(B, 3, 3)``."""
    unit = min(size) / 2
    return homography * homography.new_tensor([[1, 1, unit], [1, 1, unit], [1 / unit, 1 / unit, 1]])


def _centres(size: Size, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the pixel centres, x ``(W,)`` and y ``(H, 1)``, in pixels from the centre of the canvas."""
    height, width = size
    x = torch.arange(width, device=device, dtype=torch.float64) + (0.5 - width / 2)
    y = torch.arange(height, device=device, dtype=torch.float64) + (0.5 - height / 2)
    return x, y.unsqueeze(1)


def _positions(back: Tensor, size: Size) -> tuple[Tensor, Tensor]:
    """Return where every output pixel centre comes from, x and y in pixels, each ``(B, H, W)``, float64."""
    u, v = _centres(size, back.device)
    m = _in_pixels(back, size)[..., None, None]
    x, y, w = (m[:, i, 0] * u + m[:, i, 1] * v + m[:, i, 2] for i in range(3))
    front = w * m[:, 2, 2] > 1e-12  # on the same side of the horizon as the centre
    w = torch.where(front, w, torch.ones_like(w))
    x, y = ((p / w + side / 2).clamp(-_FAR, _FAR) for p, side in ((x, size[1]), (y, size[0])))
    return torch.where(front, x, torch.full_like(x, -_FAR)), torch.where(front, y, torch.full_like(y, -_FAR))


def _keeps_pixels(back: Tensor, size: Size) -> Tensor:
    """Say which maps take pixel centres to pixel centres, up to 1e-6 pixels, one to one, ``(B,)``, bool."""
    m = _in_pixels(back.detach(), size)
    m = m / m[:, 2:, 2:]
    whole = m[:, :2, :2].round()
    middle = m.new_tensor([size[1] / 2, size[0] / 2])
    source = (m[:, :2, :2] @ (0.5 - middle)) + m[:, :2, 2] + middle - 0.5  # of the first pixel
    still = (m[:, :2, :2] - whole).abs().amax((1, 2)) * max(size) <= 1e-6
    still &= (whole[:, 0, 0] * whole[:, 1, 1] - whole[:, 0, 1] * whole[:, 1, 0]).abs() == 1
    still &= (source - source.round()).abs().amax(1) <= 1e-6
    return still & (m[:, 2, :2].abs().amax(1) * max(size) <= 1e-9)


def _shrinking(back: Tensor) -> Tensor:
    """Return how far apart neighbours are looked up at the centre, squared, along x and y, ``(B, 2)``."""
    source = back[:, :2, 2:] / back[:, 2:, 2:]
    jacobian = (back[:, :2, :2] - source * back[:, 2:, :2]) / back[:, 2:, 2:]
    return jacobian.square().sum(-1)


def _blurred(values: Tensor, variance: Tensor, border: Border) -> Tensor:
    """Smooth rows by Gaussians, each picture by its own variance in pixels²; ``(B, C, H, W)``."""
    width = values.shape[-1]
    reach = _COMPILED_TAPS
    if not torch.compiler.is_compiling():
        reach = math.ceil(4 * math.sqrt(max(float(variance.detach().max()), 0.0)))
    taps = torch.arange(-reach, reach + 1, device=values.device, dtype=variance.dtype)
    weights = torch.exp(-taps.square() / (2 * variance[:, None] + 1e-12))
    weights = (weights / weights.sum(-1, keepdim=True)).to(values.dtype)  # (B, 2 · reach + 1)
    if border == "constant":
        padded = F.pad(values, (reach, reach))
    else:
        index = torch.arange(-reach, width + reach, device=values.device)
        index = mirror(index, width) if border == "reflect" else index.clamp(0, width - 1)
        padded = values.index_select(-1, index)
    batch, channels, height = values.shape[:3]
    kernels = weights.repeat_interleave(channels, 0).view(batch * channels, 1, 1, -1)
    rows = padded.reshape(1, batch * channels, height, -1)
    return F.conv2d(rows, kernels, groups=batch * channels).view(values.shape)


def _derivative(g: Element, size: Size) -> Tensor:
    """Return the derivative of the map at the source of every output pixel, ``(B, 2, 2, H, W)``, float64."""
    group = g.group
    assert isinstance(group, PlaneMap)
    m, back = (_in_pixels(group.homography(h), size)[..., None, None] for h in (g, g.inverse()))
    u, v = _centres(size, m.device)
    place = torch.stack([u.expand(size), v.expand(size)]).unsqueeze(1)  # (2, 1, H, W)
    w = back[:, 2, 0] * u + back[:, 2, 1] * v + back[:, 2, 2]  # one over that of the source: (B, H, W)
    return (m[:, :2, :2] - place * m[:, 2:, :2]) * w[:, None, None]


def _project(g: Element, xy: Tensor, size: Size) -> Tensor:
    """Move points in pixels, shape ``(B, …, 2)``, float64."""
    group = g.group
    assert isinstance(group, PlaneMap)
    m = _in_pixels(group.homography(g), size).to(xy.device)
    m = m.view(-1, *[1] * (xy.ndim - 2), 3, 3)
    middle = xy.new_tensor([size[1] / 2, size[0] / 2])
    moved = (m[..., :2] @ (xy - middle).unsqueeze(-1)).squeeze(-1) + m[..., 2]
    return moved[..., :2] / moved[..., 2:] + middle
