"""Maps of the plane beyond turns and flips: scales, translations, affine maps, homographies.

Convention:
    Coordinates are centred on the canvas and measured in its shorter half-side: x right, y down, and on a
    square canvas both run from -1 to 1. So an element means the same on every size. ``homography(g)`` moves
    what is on the canvas: content at ``p`` goes to ``H p`` (homogeneous columns ``(x, y, 1)``).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from .base import Element, Group
from .lie import LieGroup, exponential, logarithm
from .planar import PlanarGroup

TOLERANCE = 1e-9
"""Entries of two elements that differ by less count as equal."""


class PlaneMap(Group):
    """Any group of projective maps of the plane: what their actions need to know of it."""

    dimension: ClassVar[int] = 3

    @abstractmethod
    def homography(self, g: Element) -> Tensor:
        """Return the homographies that move ``(x, y, 1)`` columns, ``(*g.shape, 3, 3)``, float64."""

    def matrix(self, g: Element, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return the homographies, shape ``(*g.shape, 3, 3)``."""
        return self.homography(g).to(dtype)

    def equal_values(self, a: Tensor, b: Tensor) -> Tensor:
        """Compare what is written down up to `TOLERANCE`."""
        equal = (a - b).abs() <= TOLERANCE
        return equal.flatten(-self.value_ndim).all(-1) if self.value_ndim else equal


def plane_homography(g: Element) -> Tensor:
    """Return the homographies of elements of a `PlaneMap` or a `PlanarGroup`, ``(*g.shape, 3, 3)``, float64.

    Raises:
        TypeError: If the group is none of the plane.
    """
    if isinstance(g.group, PlaneMap):
        return g.group.homography(g)
    if not isinstance(g.group, PlanarGroup):
        raise TypeError(f"expected an element of a group of the plane, got one of {g.group}")
    return _bordered(g.matrix(), torch.zeros(*g.shape, 2, dtype=torch.float64, device=g.device))


def is_similarity(homography: Tensor) -> Tensor:
    """Say which homographies keep shapes (turn, flip, scale evenly, shift), shape ``(…)``, bool."""
    h = homography / homography[..., 2:, 2:]
    a = h[..., :2, :2]
    square = a.mT @ a
    even = (square[..., 0, 0] - square[..., 1, 1]).abs() + square[..., 0, 1].abs()
    bends = h[..., 2, :2].abs().sum(-1)
    return (even <= 1e-9 * square.abs().sum((-1, -2))) & (bends <= TOLERANCE)


class _Windowed(PlaneMap, LieGroup):
    """Non-compact groups: there is no uniform distribution, so that `sample` draws from a window."""

    window: ClassVar[tuple[float, ...]]
    """Half the width of the window of coordinates that `sample` draws from uniformly."""

    def sample(self, *shape: int, generator: torch.Generator | None = None, device: Any = None) -> Element:
        """Draw elements with coordinates uniform in ``[-window, window]``: the group has no uniform law."""
        if device is None and generator is not None:
            device = generator.device
        window = torch.tensor(self.window, dtype=torch.float64, device=device)
        draw = torch.rand(*shape, len(window), generator=generator, device=device, dtype=torch.float64)
        return self.exp((2 * draw - 1) * window)


@dataclass(frozen=True)
class Scale(_Windowed):
    """Even scaling about the canvas centre; ``Element.value`` is the logarithm of the factor, float64.

    Factors above 1 enlarge; the logarithm is natural. `sample` draws log-uniformly from 1/2 to 2.

    Example:
        >>> g = Scale().element(factor=2.0)
        >>> (g @ g).equals(Scale().element(factor=4.0)).item()
        True
    """

    coordinates: ClassVar[int] = 1
    window: ClassVar[tuple[float, ...]] = (math.log(2),)

    def element(self, factor: Any, device: Any = None) -> Element:
        """Return scalings by positive factors, numbers or tensors of any shape.

        Raises:
            ValueError: If a factor is not positive.
        """
        factor = torch.as_tensor(factor, dtype=torch.float64, device=device)
        if not bool((factor > 0).all()):
            raise ValueError(f"factor must be positive, got {factor.tolist()}; flips are in O2 and D1")
        return Element(self, factor.log())

    def factor(self, g: Element) -> Tensor:
        """Return the factors, float64, shape ``g.shape``."""
        return g.value.exp()

    def identity(self, *shape: int, device: Any = None) -> Element:
        """Return the identity, repeated over the batch shape ``shape``."""
        return Element(self, torch.zeros(shape, dtype=torch.float64, device=device))

    def compose(self, g: Element, h: Element) -> Element:
        """Return ``g @ h``: factors multiply."""
        return Element(self, g.value + h.value)

    def inverse(self, g: Element) -> Element:
        """Return ``~g``."""
        return Element(self, -g.value)

    def homography(self, g: Element) -> Tensor:
        """Return ``diag(s, s, 1)``, shape ``(*g.shape, 3, 3)``."""
        factor = g.value.exp()
        return torch.diag_embed(torch.stack([factor, factor, torch.ones_like(factor)], -1))

    def distance(self, g: Element, h: Element) -> Tensor:
        """Return the absolute logarithm of the ratio of the factors; invariant on both sides."""
        return (g.value - h.value).abs()

    def generators(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return ``diag(1, 1, 0)``, shape ``(1, 3, 3)``."""
        return _PLANE[2:3].to(dtype)

    def exp(self, coordinates: Tensor) -> Element:
        """Return scalings by the exponential of the coordinate, shape ``(…, 1)``."""
        return Element(self, coordinates[..., 0].double())

    def log(self, g: Element) -> Tensor:
        """Return the logarithms of the factors, shape ``(*g.shape, 1)``."""
        return g.value.unsqueeze(-1)

    def __str__(self) -> str:
        return "scale"


@dataclass(frozen=True)
class Translation(_Windowed):
    """Shifts; ``Element.value`` is ``(x, y)`` in shorter half-sides, x right and y down, float64.

    `sample` draws both uniformly from -0.5 to 0.5, a quarter of a square canvas.

    Example:
        >>> g = Translation().element(0.5, 0.0)  # on 8×8: two pixels to the right
        >>> g.equals(Translation().from_pixels(2, 0, size=(8, 8))).item()
        True
    """

    value_ndim: ClassVar[int] = 1
    coordinates: ClassVar[int] = 2
    window: ClassVar[tuple[float, ...]] = (0.5, 0.5)

    def element(self, x: Any, y: Any, device: Any = None) -> Element:
        """Return shifts by ``x`` to the right and ``y`` down, in shorter half-sides; shapes broadcast."""
        x, y = (torch.as_tensor(v, dtype=torch.float64, device=device) for v in (x, y))
        return Element(self, torch.stack([x + 0 * y, y + 0 * x], -1))

    def from_pixels(self, x: Any, y: Any, size: tuple[int, int], device: Any = None) -> Element:
        """Return shifts given in pixels of a canvas ``(height, width)``; whole ones move pixels exactly."""
        x, y = (torch.as_tensor(v, dtype=torch.float64, device=device) for v in (x, y))
        return self.element(x / (min(size) / 2), y / (min(size) / 2))

    def identity(self, *shape: int, device: Any = None) -> Element:
        """Return the identity, repeated over the batch shape ``shape``."""
        return Element(self, torch.zeros(*shape, 2, dtype=torch.float64, device=device))

    def compose(self, g: Element, h: Element) -> Element:
        """Return ``g @ h``: shifts add."""
        return Element(self, g.value + h.value)

    def inverse(self, g: Element) -> Element:
        """Return ``~g``."""
        return Element(self, -g.value)

    def homography(self, g: Element) -> Tensor:
        """Return the unit matrix with the shift in its last column, shape ``(*g.shape, 3, 3)``."""
        unit = torch.eye(2, dtype=torch.float64, device=g.device).expand(*g.shape, 2, 2)
        return _bordered(unit, g.value)

    def distance(self, g: Element, h: Element) -> Tensor:
        """Return the Euclidean length of the difference, in half-sides; invariant on both sides."""
        length: Tensor = torch.linalg.vector_norm(g.value - h.value, dim=-1)
        return length

    def generators(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return the shifts right and down, shape ``(2, 3, 3)``."""
        return _PLANE[:2].to(dtype)

    def exp(self, coordinates: Tensor) -> Element:
        """Return the shifts with the given coordinates, shape ``(…, 2)``."""
        return Element(self, coordinates.double())

    def log(self, g: Element) -> Tensor:
        """Return the shifts, shape ``(*g.shape, 2)``."""
        return g.value

    def __str__(self) -> str:
        return "translation"


class _Matrices(_Windowed):
    """Affine maps and homographies: written down as matrices, with a distance invariant on the left only."""

    value_ndim: ClassVar[int] = 2
    is_bi_invariant: ClassVar[bool] = False

    def identity(self, *shape: int, device: Any = None) -> Element:
        """Return the identity, repeated over the batch shape ``shape``."""
        unit = torch.eye(3, dtype=torch.float64, device=device)
        return self._from(unit.expand(*shape, 3, 3))

    def compose(self, g: Element, h: Element) -> Element:
        """Return ``g @ h``: matrices multiply."""
        return self._from(self.homography(g) @ self.homography(h))

    def distance(self, g: Element, h: Element) -> Tensor:
        """Return ``max(‖M‖, ‖M⁻¹‖)`` for ``M = ~g @ h`` with ``‖M‖ = log(1 + |M - 1|)`` (Frobenius norm).

        Submultiplicativity makes it a metric; it is invariant on the left: no distance on these groups is on
        both sides. Near the identity it is the Frobenius norm of the logarithm.
        """
        unit = torch.eye(3, dtype=torch.float64, device=g.device)
        there, back = (self.homography(self.compose(self.inverse(a), b)) - unit for a, b in ((g, h), (h, g)))
        return torch.maximum(*(torch.linalg.matrix_norm(m).log1p() for m in (there, back)))

    def exp(self, coordinates: Tensor) -> Element:
        """Return the exponential of the algebra's elements, shape ``(…, coordinates)``; differentiable."""
        return self._from(exponential(coordinates, self.generators()))

    def log(self, g: Element) -> Tensor:
        """Return principal logarithms in the basis of the generators, shape ``(*g.shape, coordinates)``.

        Raises:
            ValueError: If an element reflects or turns by half a turn.
        """
        algebra = logarithm(self.homography(g)).flatten(-2)  # (…, 9)
        dual: Tensor = torch.linalg.pinv(self.generators().flatten(1)).to(algebra.device)
        return algebra @ dual

    @abstractmethod
    def _from(self, homography: Tensor) -> Element:
        """Write homographies of the group down."""


@dataclass(frozen=True)
class Affine(_Matrices):
    """Invertible affine maps; ``Element.value`` is the matrix ``(A | t)``, shape ``(…, 2, 3)``, float64.

    Coordinates of `exp` are (shift right, shift down, logarithm of the scale, angle counter-clockwise,
    stretch of x against y, shear). `sample` draws them uniformly: shifts to ±0.25, scale
    1/1.5…1.5, angle ±45°, the others ±0.2.

    Example:
        >>> g = Affine().element([[1.0, 0.2, 0.0], [0.0, 1.0, 0.1]])
        >>> (g @ ~g).is_identity().item()
        True
    """

    coordinates: ClassVar[int] = 6
    window: ClassVar[tuple[float, ...]] = (0.25, 0.25, math.log(1.5), math.pi / 4, 0.2, 0.2)

    def element(self, matrix: Any, device: Any = None) -> Element:
        """Return the maps with the given matrices ``(A | t)``, shape ``(…, 2, 3)``.

        Raises:
            ValueError: If the shape is another, or a matrix is not invertible.
        """
        matrix = _checked(matrix, (2, 3), device)
        _check_invertible(torch.linalg.det(matrix[..., :2]))
        return Element(self, matrix)

    def inverse(self, g: Element) -> Element:
        """Return ``~g``."""
        a, t = g.value[..., :2], g.value[..., 2:]
        (p, q), (r, s) = (row.unbind(-1) for row in a.unbind(-2))
        adjugate = torch.stack([torch.stack([s, -q], -1), torch.stack([-r, p], -1)], -2)
        a = adjugate / (p * s - q * r)[..., None, None]
        return Element(self, torch.cat([a, -(a @ t)], -1))

    def homography(self, g: Element) -> Tensor:
        """Return the matrices with a last row ``(0, 0, 1)``, shape ``(*g.shape, 3, 3)``."""
        return _bordered(g.value[..., :2], g.value[..., 2])

    def generators(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return shifts, scale, turn, stretch and shear, shape ``(6, 3, 3)``."""
        return _PLANE[:6].to(dtype)

    def _from(self, homography: Tensor) -> Element:
        return Element(self, homography[..., :2, :])

    def __str__(self) -> str:
        return "affine"


@dataclass(frozen=True)
class Homography(_Matrices):
    """Invertible projective maps; ``Element.value`` is the 3×3 matrix of determinant 1, float64.

    Matrices that differ by a factor are one map; determinant 1 picks one of them, so that matrices multiply
    as maps compose. Coordinates of `exp` are those of `Affine`, then the slopes of perspective along x and y.
    `sample` draws from `Affine`'s window and slopes to ±0.1.

    Example:
        >>> g = Homography().element([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.1, 0.0, 1.0]])
        >>> (g @ ~g).is_identity().item()
        True
    """

    coordinates: ClassVar[int] = 8
    window: ClassVar[tuple[float, ...]] = (*Affine.window, 0.1, 0.1)

    def element(self, matrix: Any, device: Any = None) -> Element:
        """Return the maps with the given matrices, shape ``(…, 3, 3)``, of any nonzero determinant.

        Raises:
            ValueError: If the shape is another, or a matrix is not invertible.
        """
        matrix = _checked(matrix, (3, 3), device)
        determinant = torch.linalg.det(matrix)
        _check_invertible(determinant)
        root = determinant.sign() * determinant.abs() ** (1 / 3)
        return Element(self, matrix / root[..., None, None])

    def inverse(self, g: Element) -> Element:
        """Return ``~g``: the adjugate, the determinant being 1."""
        a, b, c = g.value.unbind(-2)
        columns = [torch.linalg.cross(u, v) for u, v in ((b, c), (c, a), (a, b))]
        return Element(self, torch.stack(columns, -1))

    def homography(self, g: Element) -> Tensor:
        """Return the matrices, shape ``(*g.shape, 3, 3)``."""
        return g.value

    def generators(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return `Affine`'s generators without their trace, then the slopes, shape ``(8, 3, 3)``."""
        trace = _PLANE.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None]
        return (_PLANE - trace / 3 * torch.eye(3, dtype=torch.float64)).to(dtype)

    def _from(self, homography: Tensor) -> Element:
        return Element(self, homography)

    def __str__(self) -> str:
        return "homography"


def _generator(*entries: tuple[int, int, float]) -> list[list[float]]:
    rows = [[0.0] * 3 for _ in range(3)]
    for row, column, entry in entries:
        rows[row][column] = entry
    return rows


_PLANE = torch.tensor(
    [
        _generator((0, 2, 1)),  # right
        _generator((1, 2, 1)),  # down
        _generator((0, 0, 1), (1, 1, 1)),  # larger
        _generator((0, 1, 1), (1, 0, -1)),  # counter-clockwise, y pointing down
        _generator((0, 0, 1), (1, 1, -1)),  # wider and lower
        _generator((0, 1, 1), (1, 0, 1)),  # sheared
        _generator((2, 0, 1)),  # away on the right
        _generator((2, 1, 1)),  # away at the bottom
    ],
    dtype=torch.float64,
)
"""A basis of the Lie algebra of the affine group, and the two slopes of perspective, ``(8, 3, 3)``."""


def _bordered(linear: Tensor, shift: Tensor) -> Tensor:
    """Return ``((A, t), (0, 1))``, shape ``(…, 3, 3)``."""
    top = torch.cat([linear, shift.unsqueeze(-1)], -1)
    bottom = torch.tensor([[0.0, 0.0, 1.0]], dtype=top.dtype, device=top.device)
    return torch.cat([top, bottom.expand(*top.shape[:-2], 1, 3)], -2)


def _checked(matrix: Any, shape: tuple[int, int], device: Any) -> Tensor:
    checked: Tensor = torch.as_tensor(matrix, dtype=torch.float64, device=device)
    if checked.shape[-2:] != shape:
        raise ValueError(f"matrix must have shape (…, {shape[0]}, {shape[1]}), got {tuple(checked.shape)}")
    return checked


def _check_invertible(determinant: Tensor) -> None:
    if not bool((determinant.abs() > 1e-12).all()):
        raise ValueError(f"matrix must be invertible, got determinants {determinant.tolist()}")
