"""Pictures that processors hand over as sequences of patches (NaFlex: SigLIP 2 at any aspect ratio)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ...adapter.signature import Layout


def read_patches(arguments: dict[str, Any]) -> dict[str, Any]:
    """Put pictures in place of their patches.

    Args:
        arguments: ``pixel_values``, patches ``(B, N, 3 · p · p)`` with the channel last, row by row, and
            zeros behind; ``spatial_shapes``, rows and columns of patches, ``(B, 2)``.

    Returns:
        The arguments with ``pixel_values`` a list of pictures ``(3, H_i, W_i)``.

    Raises:
        ValueError: If shapes do not fit.
    """
    patches, shapes = arguments.get("pixel_values"), arguments.get("spatial_shapes")
    if not isinstance(patches, Tensor) or patches.ndim != 3 or shapes is None:
        got = tuple(patches.shape) if isinstance(patches, Tensor) else type(patches).__name__
        raise ValueError(
            f"pixel_values must be patches (B, N, 3·p·p) with spatial_shapes (B, 2), got {got}; "
            "use the image processor of the model"
        )
    side = math.isqrt(patches.shape[-1] // 3)
    pictures = []
    for row, (height, width) in zip(patches, torch.as_tensor(shapes).tolist(), strict=True):
        grid = row[: height * width].reshape(height, width, side, side, 3)
        pictures.append(grid.permute(4, 0, 2, 1, 3).reshape(3, height * side, width * side))
    return {**arguments, "pixel_values": pictures, "_patch": (side, patches.shape[1])}


def write_patches(arguments: dict[str, Any]) -> dict[str, Any]:
    """Invert `read_patches`; shapes follow the pictures, the mask stays, as no picture has more patches."""
    given = dict(arguments)
    side, length = given.pop("_patch")
    rows, shapes = [], []
    for picture in given["pixel_values"]:
        height, width = picture.shape[-2] // side, picture.shape[-1] // side
        grid = picture.reshape(3, height, side, width, side).permute(1, 3, 2, 4, 0)
        row = picture.new_zeros(length, 3 * side * side)
        row[: height * width] = grid.reshape(height * width, -1)
        rows.append(row)
        shapes.append((height, width))
    given["pixel_values"] = torch.stack(rows) if rows else torch.zeros(0, length, 3 * side * side)
    given["spatial_shapes"] = (
        torch.tensor(shapes, dtype=torch.long).reshape(-1, 2).to(given["pixel_values"].device)
    )
    return given


PATCHES = Layout(read_patches, write_patches)
"""Patches of SigLIP 2."""
