"""Moving voxels: exact permutations for the 48 orientations of a cube, one resampling for everything else."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..groups.base import Element
from ..groups.space import SpatialGroup
from ..kinds import Border
from ..kinds_space import Spacing
from .grid import SIGNED, mirror, valued, working_precision

_NEAR = 1e-9
"""How far the entries of a matrix may be from those of a signed permutation that they count as."""


def move_voxels(
    g: Element,
    x: Tensor,
    spacing: Spacing,
    *,
    border: Border,
    fill: float = 0.0,
    nearest: bool = False,
) -> tuple[Tensor, Spacing]:
    """Move a batch of voxel grids about their middle.

    Signed permutations of the axes without shift permute voxels: no arithmetic, dtype kept, any shape; shape
    and spacing permute with the axes. Other elements keep the grid and look each output voxel centre up in
    the input, once.

    Args:
        g: One element per grid, shape ``(B,)``, of a spatial group.
        x: Grids, shape ``(B, …, D, H, W)``, any dtype.
        spacing: Distances between voxels along D, H, W.
        border: What lies outside.
        fill: The constant of ``border="constant"``.
        nearest: Whether the nearest voxel is taken instead of a mean of eight.

    Returns:
        Moved grids, dtype of ``x``, and their spacing.

    Raises:
        ValueError: If the elements of a batch disagree about shape and spacing.
    """
    group = g.group
    assert isinstance(group, SpatialGroup)
    spacing = _checked(x, spacing)
    if x.shape[0] == 0 or x.numel() == 0:
        return x.clone(), spacing
    rotation = group.rotation(g)
    rotation = rotation.to(x.device)
    shift = group.translation(g).to(x.device)
    source, sign = orientation(rotation.detach())
    if group.is_exact_on_grid:
        return _permute(x, spacing, source, sign)
    exact = keeps_axes(rotation.detach(), shift.detach())
    look = {"border": border, "fill": fill, "nearest": nearest}
    follows = g.value.requires_grad and torch.is_grad_enabled()
    if torch.compiler.is_compiling() or (follows and _is_even(x, spacing)):
        moved = resample(x, rotation, shift, spacing, **look)  # type: ignore[arg-type]
        still = torch.where(exact.view(-1, 1), source, torch.arange(3, device=x.device))
        kept = _gather(x, still, torch.where(exact.view(-1, 1), sign, 1)) if _is_even(x, spacing) else x
        exact = exact if _is_even(x, spacing) else exact & _is_unturned(source, sign)
        both = torch.where(exact.view(-1, *[1] * (x.ndim - 1)), kept, moved)
        return valued(both, moved), spacing
    if bool(exact.all()):
        return _permute(x, spacing, source, sign)
    at, rest = exact.nonzero().squeeze(1), (~exact).nonzero().squeeze(1)
    moved = resample(x[rest], rotation[rest], shift[rest], spacing, **look)  # type: ignore[arg-type]
    if not len(at):
        return moved, spacing
    kept, frame = _permute(x[at], spacing, source[at], sign[at])
    if kept.shape[1:] != x.shape[1:] or frame != spacing:
        raise ValueError(_mixed(x, spacing))
    return torch.cat([kept, moved])[torch.cat([at, rest]).argsort()], spacing


def orientation(rotation: Tensor) -> tuple[Tensor, Tensor]:
    """Return which axis of a grid each axis comes from, and whether it runs the other way.

    Args:
        rotation: Matrices of x, y, z; shape ``(B, 3, 3)``.

    Returns:
        Axes 0…2 of D, H, W and signs -1 or 1, int64, each ``(B, 3)``; of use where `keeps_axes`.
    """
    turned = rotation.flip(-1, -2)  # of z, y, x
    source = turned.abs().argmax(-1)
    return source, turned.gather(-1, source.unsqueeze(-1)).squeeze(-1).round().long()


def keeps_axes(rotation: Tensor, shift: Tensor) -> Tensor:
    """Say which elements permute the axes and shift nothing, ``(B,)``, bool."""
    near = (rotation - rotation.round()).abs().amax((-1, -2)) <= _NEAR
    return near & (shift == 0).all(-1)


def resample(
    x: Tensor,
    rotation: Tensor,
    shift: Tensor,
    spacing: Spacing,
    *,
    border: Border,
    fill: float = 0.0,
    nearest: bool = False,
) -> Tensor:
    """Look every output voxel centre ``p`` up at ``Rᵀ (p - t)``, measured from the middle in spacing units.

    Args:
        x: Grids, shape ``(B, …, D, H, W)``.
        rotation: Orthogonal matrices, shape ``(B, 3, 3)``.
        shift: Shifts, shape ``(B, 3)``.
        spacing: Distances between voxels along D, H, W.
        border: What lies outside.
        fill: The constant of ``border="constant"``.
        nearest: Whether the nearest voxel is taken.
    """
    batch, sides = x.shape[0], x.shape[-3:]
    values = x.reshape(batch, -1, *sides)
    steps = rotation.new_tensor(spacing[::-1])  # along x, y, z
    halves = rotation.new_tensor([side / 2 for side in sides[::-1]])
    back = rotation.mT * steps[:, None].reciprocal()  # voxels along x, y, z for a place in spacing units
    start = halves - (back @ shift.unsqueeze(-1)).squeeze(-1)  # (B, 3)
    precision = rotation.dtype if nearest else working_precision(x.dtype)
    if not nearest:  # from edge to edge, -1…1
        back, start = back / halves[:, None], start / halves - 1
    places = [
        (torch.arange(side, device=x.device, dtype=rotation.dtype) + 0.5 - side / 2) * step
        for side, step in zip(sides[::-1], steps, strict=True)
    ]
    along = [(back[:, None, :, i] * place[:, None]).to(precision) for i, place in enumerate(places)]
    grid = along[0][:, None, None] + along[1][:, None, :, None]
    grid = grid + (along[2] + start.to(precision)[:, None])[:, :, None, None]  # (B, D, H, W, 3)
    if nearest:
        return _nearest(values, grid, border, fill).view(x.shape)
    mode = {"edge": "border", "reflect": "reflection", "constant": "zeros"}[border]
    offset = fill if border == "constant" else 0.0
    values = values.to(precision) - offset if offset else values.to(precision)
    moved = F.grid_sample(values, grid, mode="bilinear", padding_mode=mode, align_corners=False) + offset
    if not x.is_floating_point():
        info = torch.iinfo(x.dtype)
        moved = moved.round().clamp(info.min, info.max)
    return moved.to(x.dtype).view(x.shape)


def _nearest(x: Tensor, grid: Tensor, border: Border, fill: float) -> Tensor:
    """Take the voxel that contains each place, in voxels along x, y, z; any dtype, values kept."""
    depth, height, width = x.shape[-3:]
    place = grid.floor().long()
    index = torch.zeros_like(place[..., 0])
    inside = torch.ones_like(index, dtype=torch.bool)
    for i, side in ((2, depth), (1, height), (0, width)):
        at = place[..., i]
        inside = inside & (at >= 0) & (at < side)
        at = mirror(at, side) if border == "reflect" else at
        index = index * side + at.clamp(0, side - 1)
    index = index.flatten(1).unsqueeze(1).expand(-1, x.shape[1], -1)
    moved = _with_bits(x, lambda bits: bits.flatten(-3).gather(-1, index))
    if border == "constant":
        outside = ~inside.flatten(1).unsqueeze(1)
        moved = torch.where(outside, torch.as_tensor(fill, device=x.device).to(x.dtype), moved)
    return moved.view(x.shape)


def _permute(x: Tensor, spacing: Spacing, source: Tensor, sign: Tensor) -> tuple[Tensor, Spacing]:
    """Permute and flip the axes of each grid; any dtype."""
    if torch.compiler.is_compiling() and _is_even(x, spacing):
        return _gather(x, source, sign), spacing
    moves: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
        (tuple(axes), tuple(ways)) for axes, ways in zip(source.tolist(), sign.tolist(), strict=True)
    ]
    sides = x.shape[-3:]
    frames = {tuple((sides[a], spacing[a]) for a in axes) for axes, _ in moves}
    if len(frames) > 1:
        raise ValueError(_mixed(x, spacing))
    a, b, c = moves[0][0]
    frame = (spacing[a], spacing[b], spacing[c])
    if len(set(moves)) == 1:
        return _permuted(x, *moves[0]), frame
    return torch.stack([_permuted(grid, *move) for grid, move in zip(x, moves, strict=True)]), frame


def _permuted(x: Tensor, axes: tuple[int, ...], ways: tuple[int, ...]) -> Tensor:
    """Return ``x`` with axis ``axes[i]`` at the place of ``i``, the other way round where ``ways[i] < 0``."""
    first = x.ndim - 3
    moved = x.permute(*range(first), *(first + axis for axis in axes))
    flipped = [first + i for i, way in enumerate(ways) if way < 0]
    return _with_bits(moved, lambda bits: bits.flip(flipped)) if flipped else moved


def _gather(x: Tensor, source: Tensor, sign: Tensor) -> Tensor:
    """Permute N×N×N grids by one gather, without looking at the values of the moves."""
    n = x.shape[-1]
    line = torch.arange(n, device=x.device)
    strides = torch.tensor([n * n, n, 1], device=x.device)[source]  # (B, 3)
    places = torch.where(sign.unsqueeze(-1) > 0, line, n - 1 - line) * strides.unsqueeze(-1)  # (B, 3, N)
    index = places[:, 0, :, None, None] + places[:, 1, None, :, None] + places[:, 2, None, None, :]
    flat = x.reshape(x.shape[0], -1, n**3)
    return flat.gather(-1, index.flatten(1).unsqueeze(1).expand(-1, flat.shape[1], -1)).view(x.shape)


def _with_bits(x: Tensor, move: Callable[[Tensor], Tensor]) -> Tensor:
    """Move entries, in a dtype that torch can move; other dtypes as they are, so that gradients pass."""
    signed = SIGNED.get(x.dtype)
    return move(x) if signed is None else move(x.view(signed)).view(x.dtype)


def _is_even(x: Tensor, spacing: Spacing) -> bool:
    """Say whether every orientation keeps shape and spacing."""
    return len(set(x.shape[-3:])) == 1 and len(set(spacing)) == 1


def _is_unturned(source: Tensor, sign: Tensor) -> Tensor:
    return (source == torch.arange(3, device=source.device)).all(-1) & (sign > 0).all(-1)


def _checked(x: Tensor, spacing: Spacing) -> Spacing:
    """Return three positive numbers, after checking that the grid has three axes."""
    if x.ndim < 4:
        raise ValueError(f"a grid of voxels must have shape (B, …, D, H, W), got {tuple(x.shape)}")
    steps = tuple(float(step) for step in spacing)
    if len(steps) != 3 or not all(0 < step < float("inf") for step in steps):
        raise ValueError(f"spacing must be three positive numbers, along D, H and W, got {spacing}")
    return steps[0], steps[1], steps[2]


def _mixed(x: Tensor, spacing: Spacing) -> str:
    depth, height, width = x.shape[-3:]
    return (
        f"a batch of volumes {depth}×{height}×{width} with spacing {spacing} cannot mix elements that "
        "exchange unlike axes with elements that keep them; pass a list of volumes, or resample to cubes"
    )
