"""Groups of space (rotations, reflections, shifts) on every three-dimensional kind.

Arithmetic is one product and sum per coordinate, never a matrix product: a batch moves as its parts do, under
autocast too. Groups that only permute axes move signs and entries, any signed dtype.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..groups.base import Element
from ..groups.space import SpatialGroup
from ..kinds_space import (
    Cloud,
    LabelVolume,
    OrientedBoxes3D,
    Pairs,
    PointVectors,
    PseudoVectors,
    Rows,
    Tensors,
    Vectors,
    Volume,
)
from .planar import keep_still
from .registry import leave, register_action
from .volume import move_voxels

for _kind in (Rows, Pairs):
    register_action(SpatialGroup, _kind)(leave)


@register_action(SpatialGroup, Cloud)
def move_cloud(g: Element, x: Cloud) -> Cloud:
    """Turn positions about the origin and shift them; features stay."""
    width = 3 + x.features
    if x.features < 0 or x.data.shape[-1] != width or x.data.ndim < 3:
        hint = "; transpose channels to the end" if x.data.ndim > 2 and x.data.shape[-2] == width else ""
        raise ValueError(
            f"Cloud.data must have shape (…, N, {width}) for features={x.features}, got "
            f"{tuple(x.data.shape)}{hint}"
        )
    moved = shifted(g, turned(g, x.data[..., :3]))
    moved = torch.cat([moved, x.data[..., 3:]], -1) if x.features else moved
    return x.replace(data=keep_still(g, moved, x.data))


@register_action(SpatialGroup, Vectors)
@register_action(SpatialGroup, PointVectors)
def turn_vectors(g: Element, x: Vectors) -> Vectors:
    """Turn arrows; they are not shifted."""
    _check_axes(x.data, 1, "Vectors", "(…, 3)")
    return x.replace(data=keep_still(g, turned(g, x.data), x.data))


@register_action(SpatialGroup, PseudoVectors)
def turn_pseudo_vectors(g: Element, x: PseudoVectors) -> PseudoVectors:
    """Turn axes, and change their sign where the element reflects."""
    _check_axes(x.data, 1, "PseudoVectors", "(…, 3)")
    moved = turned(g, x.data)
    moved = torch.where(_reflects(g, moved.ndim), -moved, moved)
    return x.replace(data=keep_still(g, moved, x.data))


@register_action(SpatialGroup, Tensors)
def turn_tensors(g: Element, x: Tensors) -> Tensors:
    """Turn both axes."""
    _check_axes(x.data, 2, "Tensors", "(…, 3, 3)")
    rows = turned(g, x.data)
    return x.replace(data=keep_still(g, turned(g, rows.mT).mT, x.data))


@register_action(SpatialGroup, Volume)
def move_volume(g: Element, x: Volume) -> Volume:
    """Move voxels; see `move_voxels`."""
    if x.data.ndim < 5:
        raise ValueError(f"Volume.data must have shape (…, C, D, H, W), got {tuple(x.data.shape)}")
    nearest = x.data.dtype == torch.bool or x.interpolation == "nearest"
    data, spacing = move_voxels(g, x.data, x.spacing, border=x.border, fill=x.fill, nearest=nearest)
    return x.replace(data=data, spacing=spacing)


@register_action(SpatialGroup, LabelVolume)
def move_label_volume(g: Element, x: LabelVolume) -> LabelVolume:
    """Move labels by the nearest voxel, soft labels by interpolation."""
    nearest = not x.data.is_floating_point()
    data, spacing = move_voxels(g, x.data, x.spacing, border=x.border, fill=x.fill, nearest=nearest)
    return x.replace(data=data, spacing=spacing)


@register_action(SpatialGroup, OrientedBoxes3D)
def move_oriented_boxes(g: Element, x: OrientedBoxes3D) -> OrientedBoxes3D:
    """Move centres, turn axes; sides stay. Where the element reflects, the third axis changes its sign."""
    if x.data.shape[-1] != 15 or x.data.ndim < 3:
        raise ValueError(f"OrientedBoxes3D.data must have shape (…, N, 15), got {tuple(x.data.shape)}")
    centre = shifted(g, turned(g, x.data[..., :3]))
    axes = x.data[..., 6:].reshape(*x.data.shape[:-1], 3, 3)
    axes = turned(g, axes.mT).mT  # every column
    third = torch.arange(3, device=axes.device) == 2
    axes = torch.where(_reflects(g, axes.ndim) & third, -axes, axes)
    moved = torch.cat([centre, x.data[..., 3:6], axes.flatten(-2)], -1)
    return x.replace(data=keep_still(g, moved, x.data))


def turned(g: Element, v: Tensor) -> Tensor:
    """Turn (and reflect) vectors, shape ``(B, …, 3)``; dtype kept.

    Raises:
        TypeError: If the dtype cannot hold what comes out.
    """
    group = g.group
    assert isinstance(group, SpatialGroup)
    shape = (-1, *[1] * (v.ndim - 2))
    matrix = group.rotation(g).to(v.device)
    if group.is_exact_on_grid:
        if v.dtype == torch.bool or not (v.dtype.is_signed or v.is_complex()):
            raise TypeError(f"coordinates must be of a signed dtype, got {v.dtype}; convert them first")
        source = matrix.abs().argmax(-1)  # (B, 3)
        ways = matrix.gather(-1, source.unsqueeze(-1)).squeeze(-1).reshape(*shape, 3)
        picked = v.gather(-1, source.reshape(*shape, 3).expand(v.shape))
        return torch.where(ways < 0, -picked, picked)
    if not v.is_floating_point():
        raise TypeError(f"coordinates must be floating-point numbers under {group}, got {v.dtype}")
    precision = torch.promote_types(v.dtype, torch.float32)
    columns = matrix.to(precision).mT.reshape(*shape, 3, 3)  # row i: where axis i goes
    values = v.to(precision)
    moved = values[..., 0:1] * columns[..., 0, :]
    moved = moved + values[..., 1:2] * columns[..., 1, :]
    return (moved + values[..., 2:3] * columns[..., 2, :]).to(v.dtype)


def shifted(g: Element, v: Tensor) -> Tensor:
    """Shift positions, shape ``(B, …, 3)``; dtype kept."""
    group = g.group
    assert isinstance(group, SpatialGroup)
    if group.is_exact_on_grid:
        return v
    shift = group.translation(g).to(v.device).reshape(-1, *[1] * (v.ndim - 2), 3)
    precision = torch.promote_types(v.dtype, torch.float32)
    return (v.to(precision) + shift.to(precision)).to(v.dtype)


def _reflects(g: Element, ndim: int) -> Tensor:
    group = g.group
    assert isinstance(group, SpatialGroup)
    return (group.determinant(g) < 0).view(-1, *[1] * (ndim - 1))


def _check_axes(data: Tensor, count: int, kind: str, shape: str) -> None:
    if data.ndim < count + 1 or tuple(data.shape[-count:]) != (3,) * count:
        raise ValueError(f"{kind}.data must have shape {shape}, got {tuple(data.shape)}")
