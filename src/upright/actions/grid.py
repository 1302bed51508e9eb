"""Moving pixels: exact permutations for quarter turns and flips, one resampling pass for everything else."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..groups.base import Element
from ..groups.planar import PlanarGroup
from ..kinds import Border, Interpolation

_GATHER_PIXELS = 96 * 96
"""Up to this size one gather beats one strided copy per picture (measured: benchmarks/geometry.py)."""
SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}
"""Dtypes that torch can hold but not flip, and what their bits are moved as."""


def move_grid(
    g: Element, x: Tensor, *, border: Border, fill: float = 0.0, interpolation: Interpolation = "bilinear"
) -> Tensor:
    """Move a batch of pixel grids about the centre of their canvas.

    Quarter turns and flips permute pixels: no arithmetic, dtype kept, any height and width; an odd quarter
    turn of H×W is W×H. Other elements keep the canvas and resample once, looking up each output pixel centre
    in the input.

    Args:
        g: One element per grid, shape ``(B,)``.
        x: Grids, shape ``(B, …, H, W)``, any dtype.
        border: What lies outside the canvas.
        fill: The constant of ``border="constant"``.
        interpolation: How other elements resample; integers and bools with ``"nearest"`` keep their values.

    Returns:
        Moved grids, dtype of ``x``.

    Raises:
        ValueError: If the canvas is not square and ``g`` mixes elements that swap its sides with others.
    """
    group = g.group
    assert isinstance(group, PlanarGroup)
    if x.ndim < 3:
        raise ValueError(f"a grid must have shape (B, …, H, W), got {tuple(x.shape)}")
    if not torch.compiler.is_compiling() and x.shape[0] == 0:
        return x.clone()
    moves = group.grid_moves(g)
    if group.is_exact_on_grid:
        return permute_pixels(x, moves, group.swaps_sides)
    exact = moves >= 0
    square = x.shape[-1] == x.shape[-2]
    if square and g.value.is_floating_point() and g.value.requires_grad and torch.is_grad_enabled():
        resampled = resample(x, g.matrix(), border=border, fill=fill, interpolation=interpolation)
        moved = permute_pixels(x, moves.clamp(min=0))
        return valued(torch.where(exact.view(-1, *[1] * (x.ndim - 1)), moved, resampled), resampled)
    if torch.compiler.is_compiling():
        moved = permute_pixels(x, moves.clamp(min=0))
        resampled = resample(x, g.matrix(), border=border, fill=fill, interpolation=interpolation)
        return torch.where(exact.view(-1, *[1] * (x.ndim - 1)), moved, resampled)
    if bool(exact.all()):
        return permute_pixels(x, moves)
    if not bool(exact.any()):
        return resample(x, g.matrix(), border=border, fill=fill, interpolation=interpolation)
    at, rest = exact.nonzero().squeeze(1), (~exact).nonzero().squeeze(1)
    moved = permute_pixels(x[at], moves[at])
    if moved.shape[1:] != x.shape[1:]:
        raise ValueError(_mixed_canvas(x))
    resampled = resample(x[rest], g[rest].matrix(), border=border, fill=fill, interpolation=interpolation)
    return torch.cat([moved, resampled])[torch.cat([at, rest]).argsort()]


class _Valued(torch.autograd.Function):
    """Forward: the value. Backward: to what stands in for it."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, smooth: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return None, gradients[0]


def valued(value: Tensor, smooth: Tensor) -> Tensor:
    """Return ``value``, bit for bit, with the gradients of ``smooth``, of which it is the exact form."""
    if not smooth.requires_grad:
        return value
    made: Tensor = _Valued.apply(value.detach(), smooth)  # type: ignore[no-untyped-call]
    return made


def permute_pixels(x: Tensor, moves: Tensor, swaps: bool | None = None) -> Tensor:
    """Flip left-right and turn by quarters, each grid by its own move.

    Args:
        x: Grids, shape ``(B, …, H, W)``, any dtype; ``H = W`` unless all turns are even or all are odd.
        moves: ``turns + 4 · flip``, shape ``(B,)``: the flip comes first, turns (0…3) are counter-clockwise.
        swaps: Whether all turns are odd, or all even, where it is known without looking; None: it is not.
    """
    signed = SIGNED.get(x.dtype)
    if signed is not None:
        return permute_pixels(x.view(signed), moves, swaps).view(x.dtype)
    if swaps is not None and torch.compiler.is_compiling():
        return _gather_rectangles(x, moves, swaps)
    height, width = x.shape[-2:]
    square, small = height == width, height * width <= _GATHER_PIXELS
    if square and (torch.compiler.is_compiling() or ((small or x.is_cuda) and not x.requires_grad)):
        return _gather_pixels(x, moves, width)
    codes: list[int] = moves.tolist()
    if len(set(codes)) == 1:
        return permuted(x, codes[0])
    if not square and len({code % 2 for code in codes}) == 2:
        raise ValueError(_mixed_canvas(x))
    return torch.stack([permuted(picture, code) for picture, code in zip(x, codes, strict=True)])


def permuted(x: Tensor, move: int) -> Tensor:
    """Return ``x``, flipped left-right where ``move >= 4``, then turned by ``move % 4`` quarters.

    At most one flip copy, then a transposed view: ``rot90 = flip x, transpose``.
    """
    turn, flip = move % 4, move >= 4
    axes = [-1] * ((turn in (1, 2)) != flip) + [-2] * (turn in (2, 3))
    x = x.flip(axes) if axes else x
    return x.transpose(-1, -2) if turn % 2 else x


def _gather_pixels(x: Tensor, moves: Tensor, n: int) -> Tensor:
    """Apply each move to its N×N grids by one gather, without looking at its value."""
    compiling = torch.compiler.is_compiling()
    index = _sources(moves, n) if compiling else _all_sources(n, x.device).index_select(0, moves)  # (B, N·N)
    flat = x.flatten(-2) if x.ndim == 4 else x.reshape(x.shape[0], -1, n * n)
    return flat.gather(-1, index.unsqueeze(1).expand(-1, flat.shape[1], -1)).view_as(x)


def _sources(moves: Tensor, n: int) -> Tensor:
    """Return where each pixel of each moved N×N grid comes from: affine in (row, column); ``(B, N·N)``."""
    last, end = n - 1, n * n - 1
    unturned = [(0, n, 1), (last, -1, n), (end, -n, -1), (n * last, 1, -n)]  # offset, step by row, by column
    flipped = [(last, n, -1), (0, 1, n), (n * last, -n, 1), (end, -1, -n)]
    source = torch.tensor(unturned + flipped, device=moves.device)[moves]
    line = torch.arange(n, device=moves.device)
    rows = source[:, 0, None] + source[:, 1, None] * line  # (B, N)
    return (rows[:, :, None] + (source[:, 2, None] * line)[:, None, :]).flatten(1)


def _gather_rectangles(x: Tensor, moves: Tensor, swaps: bool) -> Tensor:
    """Apply moves that all exchange the sides, or all keep them, by one gather; the shape is known then."""
    height, width = x.shape[-2:]
    row, column = torch.arange(height, device=x.device), torch.arange(width, device=x.device)
    if swaps:  # the moved row runs along the columns
        row, column = column, row
    lengths = (width, height) if swaps else (height, width)
    turn, flip = moves % 4, moves >= 4
    # a quarter counter-clockwise: (i, j) shows (j, W - 1 - i); three: (H - 1 - j, i); flips mirror columns
    back_rows = (turn == 1) != flip if swaps else turn == 2
    back_columns = turn == 3 if swaps else (turn == 2) != flip
    index = [
        torch.where(back[:, None], length - 1 - line, line)
        for back, line, length in ((back_rows, row, lengths[0]), (back_columns, column, lengths[1]))
    ]  # where along the input each moved row, each moved column lies
    steps = (1, width) if swaps else (width, 1)
    source = (index[0][:, :, None] * steps[0] + index[1][:, None, :] * steps[1]).flatten(1)
    flat = x.reshape(x.shape[0], math.prod(x.shape[1:-2]), height * width)
    moved = flat.gather(-1, source.unsqueeze(1).expand(-1, flat.shape[1], -1))
    return moved.reshape(*x.shape[:-2], *lengths)


@lru_cache(maxsize=16)
def _all_sources(n: int, device: torch.device) -> Tensor:
    """Return the constant table of `_sources` for all eight moves."""
    with torch.inference_mode(False):
        return _sources(torch.arange(8, device=device), n)


def resample(
    x: Tensor, matrix: Tensor, *, border: Border, fill: float = 0.0, interpolation: Interpolation = "bilinear"
) -> Tensor:
    """Look up every output pixel centre ``p`` at ``matrixᵀ p`` (orthogonal maps about the canvas centre).

    Args:
        x: Grids, shape ``(B, …, H, W)``.
        matrix: Maps of the plane in pixel units, shape ``(B, 2, 2)``, orthogonal.
        border: What lies outside the canvas.
        fill: The constant of ``border="constant"``.
        interpolation: ``"bilinear"``, ``"bicubic"`` or ``"nearest"``.
    """
    shape, (height, width) = x.shape, x.shape[-2:]
    x = x.reshape(shape[0], -1, height, width)
    precision = working_precision(x.dtype)
    m = matrix.to(device=x.device, dtype=torch.float64)
    u = torch.arange(width, device=x.device, dtype=torch.float64) + (0.5 - width / 2)
    v = torch.arange(height, device=x.device, dtype=torch.float64) + (0.5 - height / 2)
    if interpolation == "nearest":
        source_x = m[:, 0, 0, None, None] * u + (m[:, 1, 0, None] * v)[:, :, None] + width / 2  # (B, H, W)
        source_y = m[:, 0, 1, None, None] * u + (m[:, 1, 1, None] * v)[:, :, None] + height / 2
        return look_up_nearest(x, source_x, source_y, border, fill).view(shape)
    unit = 2 / sides((height, width), torch.float64, x.device)  # of grid_sample
    across = m[:, 0, None, :] * u[:, None] * unit  # (B, W, 2)
    down = m[:, 1, None, :] * v[:, None] * unit  # (B, H, 2)
    grid = across.to(precision)[:, None, :, :] + down.to(precision)[:, :, None, :]
    return interpolate(x, grid, border=border, fill=fill, interpolation=interpolation).view(shape)


def sides(size: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return width and height of a canvas, shape ``(2,)``; they may be symbols of a graph."""
    if any(isinstance(side, torch.SymInt) for side in size):
        return torch.stack([torch.full((), side, dtype=dtype, device=device) for side in (size[1], size[0])])
    return torch.tensor([size[1], size[0]], dtype=dtype, device=device)


def working_precision(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which pixels of a dtype are interpolated."""
    return torch.float64 if dtype in (torch.float64, torch.int64, torch.int32) else torch.float32


def interpolate(
    x: Tensor,
    grid: Tensor,
    *,
    border: Border,
    fill: float,
    interpolation: Interpolation,
    prefilter: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Look pixels up at positions, shape ``(B, H, W, 2)``, in the units of ``grid_sample``.

    Args:
        x: Grids, shape ``(B, C, H, W)``.
        grid: Positions ``(x, y)``, -1…1 from edge to edge of the canvas, in the working precision.
        border: What lies outside the canvas.
        fill: The constant of ``border="constant"``.
        interpolation: ``"bilinear"`` or ``"bicubic"``.
        prefilter: What is done to the pixels before, in the working precision (less ``fill``).
    """
    precision = grid.dtype
    mode = {"edge": "border", "reflect": "reflection", "constant": "zeros"}[border]
    offset = fill if border == "constant" else 0.0
    values = x.to(precision) - offset if offset else x.to(precision)
    values = prefilter(values) if prefilter else values
    moved = F.grid_sample(values, grid, mode=interpolation, padding_mode=mode, align_corners=False) + offset
    if not x.is_floating_point():
        info = torch.iinfo(x.dtype)
        moved = moved.round().clamp(info.min, info.max)
    return moved.to(x.dtype)


def look_up_nearest(x: Tensor, source_x: Tensor, source_y: Tensor, border: Border, fill: float) -> Tensor:
    """Take the pixel that contains each source position; any dtype, values kept."""
    height, width = x.shape[-2:]
    column, row = source_x.floor().long(), source_y.floor().long()  # (B, H, W)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    if border == "reflect":
        column, row = mirror(column, width), mirror(row, height)
    column, row = column.clamp(0, width - 1), row.clamp(0, height - 1)
    index = (row * width + column).flatten(1).unsqueeze(1).expand(-1, x.shape[1], -1)
    moved = x.flatten(-2).gather(-1, index).view_as(x)
    if border == "constant":
        moved = torch.where(inside.unsqueeze(1), moved, torch.as_tensor(fill, dtype=x.dtype, device=x.device))
    return moved


def mirror(index: Tensor, length: int) -> Tensor:
    """Fold indices back at the canvas edges (half-sample symmetric, as grid_sample's reflection)."""
    index = index % (2 * length)
    return torch.where(index >= length, 2 * length - 1 - index, index)


def _mixed_canvas(x: Tensor) -> str:
    return (
        f"a batch of non-square pictures, {x.shape[-2]}×{x.shape[-1]}, cannot mix quarter turns that swap "
        "its sides with elements that keep them; pass a list of pictures, or pad to square first (the "
        "adapter's canvas policy does that)"
    )
