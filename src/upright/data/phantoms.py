"""Synthetic anatomy: volumes of bodies with organs, no two alike, from a seed. Not data of any patient."""

from __future__ import annotations

import torch
from torch import Tensor

from .._checks import check_positive

# centre and half axes along x (to the right), y (to the front), z (to the head), in half sides of the volume;
# brightness added to what lies there already
_ORGANS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float], float]] = {
    "body": ((0.0, 0.0, 0.0), (0.78, 0.55, 0.92), 0.5),
    "right lung": ((0.36, 0.02, 0.42), (0.25, 0.34, 0.36), -0.4),
    "left lung": ((-0.38, 0.0, 0.45), (0.21, 0.32, 0.32), -0.4),
    "heart": ((-0.12, 0.2, 0.32), (0.17, 0.18, 0.17), 0.45),
    "liver": ((0.34, 0.08, -0.14), (0.32, 0.32, 0.2), 0.3),
    "stomach": ((-0.3, 0.16, -0.2), (0.17, 0.14, 0.14), -0.25),
    "spleen": ((-0.5, -0.22, -0.12), (0.11, 0.13, 0.16), 0.35),
    "right kidney": ((0.3, -0.28, -0.42), (0.11, 0.1, 0.17), 0.25),
    "left kidney": ((-0.3, -0.28, -0.36), (0.11, 0.1, 0.17), 0.25),
    "spine": ((0.0, -0.38, 0.0), (0.09, 0.1, 0.9), 0.6),
}


def phantoms(
    count: int,
    shape: tuple[int, int, int] = (24, 24, 24),
    *,
    noise: float = 0.15,
    variation: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw bodies with organs, in the axes of anatomy: right, front, head.

    Ellipsoids that differ from body to body in place, size and brightness, in bodies that lean by some
    degrees, under an uneven light and with noise. No rotation or reflection of a body is another body: the
    heart is on the left, the liver on the right, the spine in the back, the lungs above.

    Args:
        count: How many.
        shape: Depth (z, to the head), height (y, to the front) and width (x, to the right) in voxels.
        noise: Standard deviation of the noise; flesh is about 0.5 bright.
        variation: How much bodies differ; 0: not but for the noise.
        generator: Source of the draws.

    Returns:
        Volumes, shape ``(count, 1, depth, height, width)``, float32.

    Raises:
        ValueError: If a side is not positive.

    Example:
        >>> phantoms(2, (8, 10, 12)).shape
        torch.Size([2, 1, 8, 10, 12])
    """
    for side in shape:
        check_positive("shape", side)
    at = _positions(count, shape, variation, generator)  # (count, D, H, W, 3)
    volume = torch.zeros(count, *shape)
    for centre, axes, brightness in _ORGANS.values():
        middle = torch.tensor(centre) + 0.04 * variation * _normal(generator, count, 3)
        half = torch.tensor(axes) * (1 + 0.1 * variation * _normal(generator, count, 3)).clamp(0.6, 1.4)
        level = ((at - _over(middle)) / _over(half)).norm(dim=-1)
        light = brightness * (1 + 0.15 * variation * _normal(generator, count))
        volume += light.view(-1, 1, 1, 1) * torch.sigmoid((1 - level) * 12)
    slope = 0.1 * variation * _normal(generator, count, 3)
    volume = volume * (1 + (at * _over(slope)).sum(-1))
    return (volume + noise * _normal(generator, *volume.shape)).unsqueeze(1)


def _positions(
    count: int, shape: tuple[int, int, int], variation: float, generator: torch.Generator | None
) -> Tensor:
    """Return where each voxel lies in each body, in half sides, shape ``(count, D, H, W, 3)``."""
    sides = [(torch.arange(n) + 0.5) * (2 / n) - 1 for n in shape]
    z, y, x = torch.meshgrid(*sides, indexing="ij")
    at = torch.stack([x, y, z], -1).expand(count, *shape, 3)
    turn = 0.08 * variation * _normal(generator, count, 3)  # radians about x, y and z
    zero = torch.zeros(count)
    skew = torch.stack([zero, -turn[:, 2], turn[:, 1], turn[:, 2], zero, -turn[:, 0],
                        -turn[:, 1], turn[:, 0], zero], 1).view(count, 3, 3)  # fmt: skip
    lean: Tensor = torch.linalg.matrix_exp(skew)
    return torch.einsum("bij,bdhwj->bdhwi", lean, at - _over(0.05 * variation * _normal(generator, count, 3)))


def _normal(generator: torch.Generator | None, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator)


def _over(vectors: Tensor) -> Tensor:
    """Return one vector per volume, shape ``(B, 1, 1, 1, 3)``."""
    return vectors.view(-1, 1, 1, 1, 3)
