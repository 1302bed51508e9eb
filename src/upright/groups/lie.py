"""Lie groups: elements of continuous groups, reached from coordinates of their Lie algebra."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from .base import Element, Group


class LieGroup(Group):
    """A continuous group with an exponential map.

    ``exp`` is differentiable, so that a search can follow gradients in the coordinates; it need only reach
    the component of the identity. ``matrix(exp(c))`` is the matrix exponential of ``Σ cᵢ Gᵢ``.
    """

    is_finite: ClassVar[bool] = False
    coordinates: ClassVar[int]
    """Dimension of the Lie algebra."""

    @abstractmethod
    def generators(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return a basis of the Lie algebra as matrices, shape ``(coordinates, dimension, dimension)``."""

    @abstractmethod
    def exp(self, coordinates: Tensor) -> Element:
        """Return the elements with the given coordinates, shape ``(…, coordinates)``; differentiable."""

    @abstractmethod
    def log(self, g: Element) -> Tensor:
        """Return coordinates of elements in the component of the identity, shape ``(*g.shape, coordinates)``.

        Raises:
            ValueError: If an element is out of reach of `exp`.
        """


def exponential(coordinates: Tensor, generators: Tensor) -> Tensor:
    """Return ``exp(Σ cᵢ Gᵢ)``, shape ``(…, d, d)``, float64; differentiable.

    Args:
        coordinates: Shape ``(…, k)``.
        generators: Shape ``(k, d, d)``.
    """
    algebra = torch.tensordot(coordinates.double(), generators.to(coordinates.device).double(), 1)
    moved: Tensor = torch.linalg.matrix_exp(algebra)
    return moved


def logarithm(matrix: Tensor) -> Tensor:
    """Return the principal logarithm of real matrices, shape ``(…, d, d)``, float64.

    Reference:
        Higham, Functions of Matrices (2008), chapter 11: inverse scaling and squaring; the square roots by
        the scaled product of Denman and Beavers, the rest by the series of ``2 artanh``.

    Raises:
        ValueError: If a matrix is singular or has a negative eigenvalue: it has no real principal logarithm.
    """
    matrix = matrix.detach().double()
    if not matrix.numel():
        return matrix.clone()
    eigenvalues = torch.linalg.eigvals(matrix)
    away = (eigenvalues.imag.abs() > 1e-9 * eigenvalues.abs()) | (eigenvalues.real > 1e-12)
    if not bool(away.all()):
        raise ValueError(
            "an element has no logarithm: its matrix is singular or has a negative eigenvalue (it reflects, "
            "or turns by half a turn); take it apart first"
        )
    unit = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    roots = 0
    while float((matrix - unit).flatten(1 - matrix.ndim).norm(dim=-1).max()) > 0.3 and roots < 40:
        matrix, roots = _square_root(matrix), roots + 1
    z: Tensor = torch.linalg.solve(matrix + unit, matrix - unit)  # both commute
    squared, term, total = z @ z, z, z
    for odd in range(3, 31, 2):
        term = term @ squared
        total = total + term / odd
    return total * 2.0 ** (roots + 1)


def _square_root(matrix: Tensor) -> Tensor:
    """Return the principal square root, by Denman and Beavers' iteration."""
    root, inverse = matrix, torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    inverse = inverse.expand_as(matrix)
    for _ in range(40):
        before = root
        root, inverse = (
            (root + torch.linalg.inv(inverse)) / 2,
            (inverse + torch.linalg.inv(root)) / 2,
        )
        if float((root - before).abs().max()) <= 1e-15 * float(root.abs().max()):
            break
    return root
