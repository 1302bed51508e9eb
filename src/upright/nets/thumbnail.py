"""A small square copy of a picture that turns exactly with it."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

_BAND = 64
"""Rows of a huge picture that are held in the dtype of the thumbnail at a time."""


def thumbnail(x: Tensor, size: int, dtype: torch.dtype | None = None) -> Tensor:
    """Resize the centre square of a picture, with antialiasing.

    Two products with symmetric interpolation matrices: quarter turns and flips of the picture turn and flip
    the thumbnail, up to rounding, for odd and even sides alike (also where the square starts at half a
    pixel).

    Args:
        x: Pictures, shape ``(B, C, H, W)``, floating point, or any dtype if ``dtype`` is given.
        size: Side of the thumbnail in pixels.
        dtype: Floating-point dtype of the thumbnail; huge pictures are converted band by band. None: that of
            the picture.

    Returns:
        Thumbnails, shape ``(B, C, size, size)``.
    """
    dtype = dtype or x.dtype
    if any(isinstance(side, torch.SymInt) for side in x.shape[-2:]):
        return _thumbnail_of_any_size(x, size, dtype)
    if x.shape[-1] == size and x.shape[-2] == size:
        return x.to(dtype)
    side = min(x.shape[-1], x.shape[-2])
    if side >= 8 * size:  # one cheap exact pass first, so that huge pictures cost one reading
        factor = side // (4 * size)
        x = _shrink(x, factor, dtype)
        side = min(x.shape[-1], x.shape[-2])
    x = x.to(dtype)
    rows = triangle_filter(x.shape[-2], side, size).to(x)
    columns = triangle_filter(x.shape[-1], side, size).to(x)
    return rows @ (x @ columns.transpose(0, 1))


def _thumbnail_of_any_size(x: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """Make thumbnails in a graph that does not know the sides yet, by the same filters.

    Blocks of pixels are not averaged first; what they would do is part of the filters.
    """
    height, width = (torch.full((), n, dtype=torch.float64) for n in x.shape[-2:])
    factor = (torch.minimum(height, width) / (4 * size)).floor().clamp(min=1)  # 1 below twice that
    rest = torch.stack([height, width]) % factor
    filters = []
    for length, whole in zip(x.shape[-2:], (height, width), strict=True):
        pixel = torch.arange(length, dtype=torch.float64)
        count, window = (whole / factor).floor(), (torch.minimum(height, width) / factor).floor()
        block = ((pixel - (whole % factor) / 2) / factor).floor()  # blocks after a symmetric cut
        first, last = (pixel * count / whole).floor(), ((pixel + 1) * count / whole).ceil() - 1
        inside = (block >= 0) & (block < count)
        cut = _triangles(block, count, window, size) * inside
        bins = _triangles(first, count, window, size) / _bin_width(first, whole, count)
        more = _triangles(last, count, window, size) / _bin_width(last, whole, count)
        spread = bins + more * (last > first)  # bins that share pixels, where no cut is symmetric
        weights = torch.where((rest % 2 == 1).any(), spread, cut)
        filters.append((weights / weights.sum(1, keepdim=True)).float().to(x.device, dtype))
    return filters[0] @ (x.to(dtype) @ filters[1].transpose(0, 1))


def _bin_width(number: Tensor, length: Tensor, count: Tensor) -> Tensor:
    """Return how many pixels a bin of adaptive pooling holds."""
    return ((number + 1) * length / count).ceil() - (number * length / count).floor()


def standardized(x: Tensor) -> Tensor:
    """Return pictures with mean 0 and variance 1 over the inscribed disc, channel by channel.

    Undoes any positive affine change of a channel: 0…255 or 0…1, any normalisation, brightness, contrast.

    Args:
        x: Square pictures, shape ``(B, C, s, s)``.
    """
    inside = disc(x.shape[-1], x)
    weight = inside / inside.sum()
    mean = (x * weight).sum((-1, -2), keepdim=True)
    centred = x - mean
    variance = (centred**2 * weight).sum((-1, -2), keepdim=True)
    scale = x.abs().amax((-1, -2), keepdim=True) * 1e-4 + 1e-12  # a flat picture stays flat
    return centred / (variance.sqrt() + scale)


def disc(size: int, like: Tensor) -> Tensor:
    """Return the inscribed disc as a ``(size, size)`` mask of zeros and ones, typed as ``like``."""
    axis = (torch.arange(size, device=like.device, dtype=torch.float32) + 0.5) * (2 / size) - 1
    return (axis[:, None] ** 2 + axis[None, :] ** 2 <= 1).to(like.dtype)


def triangle_filter(length: int, window: int, size: int) -> Tensor:
    """Return the matrix ``(size, length)`` that resizes the central ``window`` of a line to ``size`` samples.

    Linear interpolation; when shrinking, the triangle widens to two output pixels (antialiasing).
    """
    weights = _triangles(torch.arange(length, dtype=torch.float64), length, window, size)
    return (weights / weights.sum(1, keepdim=True)).float()


def _triangles(pixel: Tensor, length: Tensor | int, window: Tensor | int, size: int) -> Tensor:
    """Return the weights, not normalised, of pixels of a line for the samples of its centre."""
    scale = torch.as_tensor(window / size, dtype=torch.float64)
    start = (length - window) / 2
    centres = start + (torch.arange(size, dtype=torch.float64) + 0.5) * scale
    away = (pixel[None, :] + 0.5 - centres[:, None]).abs()
    return (1 - away / scale.clamp(min=1.0)).clamp(min=0)


def _shrink(x: Tensor, factor: int, dtype: torch.dtype) -> Tensor:
    """Average blocks of ``factor`` pixels, after cutting the sides to a multiple, symmetrically."""
    height, width = x.shape[-2:]
    rows, columns = height % factor, width % factor
    if rows % 2 or columns % 2:  # an odd remainder has no symmetric cut; adaptive bins are symmetric
        across = _by_bands(lambda band: F.adaptive_avg_pool2d(band, (None, width // factor)), x, 1, dtype)
        return F.adaptive_avg_pool2d(across, (height // factor, None))
    x = x[..., rows // 2 : height - rows // 2, columns // 2 : width - columns // 2]
    return _by_bands(lambda band: F.avg_pool2d(band, factor), x, factor, dtype)


def _by_bands(pool: Callable[[Tensor], Tensor], x: Tensor, factor: int, dtype: torch.dtype) -> Tensor:
    """Pool bands of rows, ``factor`` rows to one, so that a picture is never held in ``dtype`` as a whole."""
    band = max(_BAND // factor, 1)
    first = pool(x[..., : band * factor, :].to(dtype))
    out = first.new_empty(*x.shape[:-2], x.shape[-2] // factor, first.shape[-1])
    out[..., :band, :] = first
    for start in range(band, out.shape[-2], band):
        part = x[..., start * factor : (start + band) * factor, :]
        out[..., start : start + band, :] = pool(part.to(dtype))
    return out
