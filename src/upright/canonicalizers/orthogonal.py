"""Axes and nearest rotations of 3×3 matrices: by LAPACK, in exported graphs by plain arithmetic."""

from __future__ import annotations

import torch
from torch import Tensor

_SWEEPS = 4
"""Of Jacobi's method, for 3×3 matrices in float64: errors of 2e-5 after three, of rounding after four."""
_STEPS = 8
"""Of Newton's iteration: errors of rounding after seven, up to condition numbers of 8e5."""


def principal_axes(symmetric: Tensor) -> tuple[Tensor, Tensor]:
    """Return the eigenvalues ``(B, 3)``, rising, and eigenvectors ``(B, 3, 3)``, as columns.

    Args:
        symmetric: Shape ``(B, 3, 3)``, float64.
    """
    if torch.compiler.is_exporting():
        return jacobi(symmetric)
    values, axes = torch.linalg.eigh(symmetric)
    return values, axes


def nearest_orthogonal(matrices: Tensor, reflects: bool) -> Tensor:
    """Return the rotations nearest to matrices ``(B, 3, 3)``, or the nearest orthogonal matrices.

    Args:
        matrices: Shape ``(B, 3, 3)``.
        reflects: Whether a determinant of -1 is allowed; else it is turned to +1 along the weakest direction.
    """
    if torch.compiler.is_exporting():
        return _nearest_in_graph(matrices, reflects)
    u, _, vh = torch.linalg.svd(matrices)
    if reflects:
        nearest: Tensor = u @ vh
        return nearest
    hand = torch.linalg.det(u @ vh).sign().detach()
    last = torch.stack([torch.ones_like(hand), torch.ones_like(hand), hand], -1)
    proper: Tensor = u @ (last.unsqueeze(-1) * vh)
    return proper


def determinant(matrices: Tensor) -> Tensor:
    """Return the determinants of 3×3 matrices, ``(…, 3, 3)`` to ``(…,)``."""
    a, b, c = matrices.unbind(-2)
    found: Tensor = (a * torch.linalg.cross(b, c)).sum(-1)
    return found


def jacobi(symmetric: Tensor) -> tuple[Tensor, Tensor]:
    """Return what `principal_axes` returns, by turns that clear one entry each.

    Reference:
        Golub and Van Loan, "Matrix Computations", 4th edition, section 8.5.
    """
    a = symmetric
    axes = torch.eye(3, dtype=a.dtype, device=a.device).expand_as(a)
    for _ in range(_SWEEPS):
        for p, q in ((0, 1), (0, 2), (1, 2)):
            turn = _clearing(a, p, q)
            a = turn.mT @ a @ turn
            axes = axes @ turn
    values, order = torch.diagonal(a, dim1=-2, dim2=-1).sort(dim=-1)
    return values, axes.gather(-1, order.unsqueeze(-2).expand_as(axes))


def _clearing(a: Tensor, p: int, q: int) -> Tensor:
    """Return the rotations, the smaller of two, after which the entries ``(p, q)`` are zero."""
    off = a[:, p, q]
    clear = off == 0
    theta = (a[:, q, q] - a[:, p, p]) / (2 * torch.where(clear, 1.0, off))
    tangent = torch.where(theta < 0, -1.0, 1.0) / (theta.abs() + (theta * theta + 1).sqrt())
    tangent = torch.where(clear, 0.0, tangent)
    cosine = 1 / (tangent * tangent + 1).sqrt()
    sine = tangent * cosine
    one, zero = torch.ones_like(sine), torch.zeros_like(sine)
    entries = {(p, p): cosine, (q, q): cosine, (p, q): sine, (q, p): -sine}
    rows = [
        torch.stack([entries.get((i, j), one if i == j else zero) for j in range(3)], -1) for i in range(3)
    ]
    return torch.stack(rows, -2)


def _nearest_in_graph(matrices: Tensor, reflects: bool) -> Tensor:
    """Go halfway to the inverse transpose, time and again; the singular values go to 1.

    Reference:
        Higham 1986, "Computing the Polar Decomposition - with Applications", scaled by the determinant.
    """
    x = matrices
    for _ in range(_STEPS):
        a, b, c = x.unbind(-2)
        cofactors = torch.stack(
            [torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], -2
        )
        volume = determinant(x).view(-1, 1, 1)
        volume = torch.where(volume.abs() < 1e-100, 1e-100, volume)
        scale = volume.abs() ** (-1 / 3)
        x = (scale * x + cofactors / (volume * scale)) / 2
    if reflects:
        return x
    weakest = jacobi(matrices.mT @ matrices)[1][..., :1]
    mirrored = x - 2 * (x @ weakest) @ weakest.mT
    return torch.where(determinant(x).view(-1, 1, 1) < 0, mirrored, x)
