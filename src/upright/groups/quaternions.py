"""Rotations of space as unit quaternions, rotation vectors and Euler angles: plain tensors.

Convention:
    Right-handed axes x, y, z; a rotation by a positive angle about an axis is counter-clockwise as seen
    from its tip. Quaternions are ``(x, y, z, w)``, scalar last, as in SciPy; ``q`` and ``-q`` are one
    rotation. Matrices move columns. Everything is float64.
"""

from __future__ import annotations

import torch
from torch import Tensor


def quaternion_matrix(quaternion: Tensor) -> Tensor:
    """Return the rotation matrices of quaternions of any length but 0, shape ``(…, 4)`` to ``(…, 3, 3)``."""
    x, y, z, w = (quaternion / torch.linalg.vector_norm(quaternion, dim=-1, keepdim=True)).unbind(-1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def matrix_quaternion(rotation: Tensor) -> Tensor:
    """Return the unit quaternions of rotation matrices, ``(…, 3, 3)`` to ``(…, 4)``, with ``w`` at least 0.

    Reference:
        Shepperd, Quaternion from rotation matrix (1978): divide by the largest of the four components, so
        that precision is kept at every angle.
    """
    (a, b, c), (d, e, f), (g, h, i) = (row.unbind(-1) for row in rotation.unbind(-2))
    rows = [  # 4 q qᵀ
        [1 + a - e - i, b + d, c + g, h - f],
        [b + d, 1 - a + e - i, f + h, c - g],
        [c + g, f + h, 1 - a - e + i, d - b],
        [h - f, c - g, d - b, 1 + a + e + i],
    ]
    outer = torch.stack([torch.stack(row, -1) for row in rows], -2)
    largest = outer.diagonal(dim1=-2, dim2=-1).argmax(-1)
    row = torch.take_along_dim(outer, largest[..., None, None], -2).squeeze(-2)
    unit = row / torch.linalg.vector_norm(row, dim=-1, keepdim=True)
    return torch.where(unit[..., 3:] < 0, -unit, unit)


def matrix_rotvec(rotation: Tensor) -> Tensor:
    """Return rotation vectors (axis times angle, angles in ``[0, π]``), ``(…, 3, 3)`` to ``(…, 3)``.

    At half turns the axis may point either way.
    """
    q = matrix_quaternion(rotation)
    sine = torch.linalg.vector_norm(q[..., :3], dim=-1, keepdim=True)
    small = sine < 1e-9
    ratio = 2 * torch.atan2(sine, q[..., 3:]) / torch.where(small, 1.0, sine)
    return q[..., :3] * torch.where(small, 2.0, ratio)


def axis_matrix(axis: int, angle: Tensor) -> Tensor:
    """Return rotations about x (0), y (1) or z (2) by angles in radians, ``(…)`` to ``(…, 3, 3)``."""
    cos, sin, zero, one = torch.cos(angle), torch.sin(angle), torch.zeros_like(angle), torch.ones_like(angle)
    rows = [[one, zero, zero], [zero, cos, -sin], [zero, sin, cos]]
    about_x = torch.stack([torch.stack(row, -1) for row in rows], -2)
    return about_x.roll((axis, axis), (-2, -1))


def cross_matrix(vector: Tensor) -> Tensor:
    """Return the matrices of the cross product, ``[v] u = v × u``, ``(…, 3)`` to ``(…, 3, 3)``."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    rows = [[zero, -z, y], [z, zero, -x], [-y, x, zero]]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def rotation_angle(rotation: Tensor) -> Tensor:
    """Return the angles of rotation matrices, radians in ``[0, π]``, precise at both ends, ``(…)``."""
    skew = torch.stack([rotation[..., (i + 2) % 3, (i + 1) % 3] - rotation[..., (i + 1) % 3, (i + 2) % 3]
                        for i in range(3)], -1)  # fmt: skip
    trace = rotation.diagonal(dim1=-2, dim2=-1).sum(-1)
    return torch.atan2(torch.linalg.vector_norm(skew, dim=-1), trace - 1)
