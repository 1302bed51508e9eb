"""Moving pixels: exact permutations for quarter turns and flips, one resampling pass for everything else."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..groups.base import Element
from ..groups.planar import PlanarGroup
from ..kinds import Border, Interpolation

_GATHER_PIXELS = 96 * 96
"""Up to this size one gather beats one strided copy per picture (measured: benchmarks/geometry.py)."""


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
    turns, flips = group.quarter_turns(g), group.is_reflected(g)
    if x.shape[0] == 0:
        return x.clone()
    if group.is_exact_on_grid:
        return permute_pixels(x, turns, flips)
    exact = turns >= 0
    if torch.compiler.is_compiling():
        permuted = permute_pixels(x, turns.clamp(min=0), flips)
        resampled = resample(x, g.matrix(), border=border, fill=fill, interpolation=interpolation)
        return torch.where(exact.view(-1, *[1] * (x.ndim - 1)), permuted, resampled)
    if bool(exact.all()):
        return permute_pixels(x, turns, flips)
    if not bool(exact.any()):
        return resample(x, g.matrix(), border=border, fill=fill, interpolation=interpolation)
    at, rest = exact.nonzero().squeeze(1), (~exact).nonzero().squeeze(1)
    permuted = permute_pixels(x[at], turns[at], flips[at])
    if permuted.shape[1:] != x.shape[1:]:
        raise ValueError(_mixed_canvas(x))
    resampled = resample(x[rest], g[rest].matrix(), border=border, fill=fill, interpolation=interpolation)
    return torch.cat([permuted, resampled])[torch.cat([at, rest]).argsort()]


def permute_pixels(x: Tensor, turns: Tensor, flips: Tensor) -> Tensor:
    """Flip left-right where ``flips``, then turn by ``turns`` quarters counter-clockwise.

    Args:
        x: Grids, shape ``(B, …, H, W)``, any dtype; ``H = W`` unless all turns are even or all are odd.
        turns: Quarter turns 0…3, shape ``(B,)``.
        flips: Bool, shape ``(B,)``.
    """
    square = x.shape[-1] == x.shape[-2]
    small = x.shape[-1] * x.shape[-2] <= _GATHER_PIXELS
    if square and (torch.compiler.is_compiling() or ((small or x.is_cuda) and not x.requires_grad)):
        return _gather_pixels(x, turns + 4 * flips)
    moves = list(zip(turns.tolist(), flips.tolist(), strict=True))
    if len(set(moves)) == 1:
        return _permute_one(x, *moves[0])
    if not square and len({turn % 2 for turn, _ in moves}) == 2:
        raise ValueError(_mixed_canvas(x))
    return torch.stack([_permute_one(picture, *move) for picture, move in zip(x, moves, strict=True)])


def _permute_one(x: Tensor, turn: int, flip: bool) -> Tensor:
    """Apply one element to all: one flip copy at most, then a transposed view (rot90 = flip x, transpose)."""
    axes = [-1] * ((turn in (1, 2)) != flip) + [-2] * (turn in (2, 3))
    x = x.flip(axes) if axes else x
    return x.transpose(-1, -2) if turn % 2 else x


def _gather_pixels(x: Tensor, moves: Tensor) -> Tensor:
    """Apply move ``turn + 4·flip`` to each square grid by one gather, without looking at the values."""
    n = x.shape[-1]
    pixels = torch.arange(n * n, device=x.device).view(n, n)
    table = torch.stack(
        [_permute_one(pixels, turn, flip).flatten() for flip in (False, True) for turn in range(4)]
    )
    index = table[moves]  # (B, N·N)
    flat = x.reshape(x.shape[0], -1, n * n)
    return flat.gather(-1, index.unsqueeze(1).expand(-1, flat.shape[1], -1)).view_as(x)


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
    precision = torch.float64 if x.dtype == torch.float64 else torch.float32
    m = matrix.to(device=x.device)[:, :, :, None, None]
    u = ((torch.arange(width, device=x.device, dtype=torch.float64) + 0.5) - width / 2)[None, None, :]
    v = ((torch.arange(height, device=x.device, dtype=torch.float64) + 0.5) - height / 2)[None, :, None]
    source_x, source_y = (
        m[:, 0, 0] * u + m[:, 1, 0] * v,
        m[:, 0, 1] * u + m[:, 1, 1] * v,
    )  # (B, H, W), centred
    if interpolation == "nearest":
        return _look_up_nearest(x, source_x + width / 2, source_y + height / 2, border, fill).view(shape)
    grid = torch.stack([source_x * (2 / width), source_y * (2 / height)], -1).to(precision)
    mode = {"edge": "border", "reflect": "reflection", "constant": "zeros"}[border]
    offset = fill if border == "constant" else 0.0
    values = x.to(precision) - offset if offset else x.to(precision)
    moved = F.grid_sample(values, grid, mode=interpolation, padding_mode=mode, align_corners=False) + offset
    if not x.is_floating_point():
        info = torch.iinfo(x.dtype)
        moved = moved.round().clamp(info.min, info.max)
    return moved.to(x.dtype).view(shape)


def _look_up_nearest(x: Tensor, source_x: Tensor, source_y: Tensor, border: Border, fill: float) -> Tensor:
    """Take the pixel that contains each source position; any dtype, values kept."""
    height, width = x.shape[-2:]
    column, row = source_x.floor().long(), source_y.floor().long()  # (B, H, W)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    if border == "reflect":
        column, row = _mirror(column, width), _mirror(row, height)
    column, row = column.clamp(0, width - 1), row.clamp(0, height - 1)
    index = (row * width + column).flatten(1).unsqueeze(1).expand(-1, x.shape[1], -1)
    moved = x.flatten(-2).gather(-1, index).view_as(x)
    if border == "constant":
        moved = torch.where(inside.unsqueeze(1), moved, torch.as_tensor(fill, dtype=x.dtype, device=x.device))
    return moved


def _mirror(index: Tensor, length: int) -> Tensor:
    """Fold indices back at the canvas edges (half-sample symmetric, as grid_sample's reflection)."""
    index = index % (2 * length)
    return torch.where(index >= length, 2 * length - 1 - index, index)


def _mixed_canvas(x: Tensor) -> str:
    return (
        f"a batch of non-square pictures, {x.shape[-2]}×{x.shape[-1]}, cannot mix quarter turns that swap "
        "its sides with elements that keep them; pass a list of pictures, or pad to square first (the "
        "adapter's canvas policy does that)"
    )
