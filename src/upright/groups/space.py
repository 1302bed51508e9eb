"""Rotations and reflections of space, SO(3) and O(3), and what all spatial groups share.

Convention:
    Right-handed axes x, y, z. Elements move columns about the origin: ``v`` goes to ``R v + t``. A positive
    angle turns counter-clockwise as seen from the tip of its axis. A tensor of voxels ``(depth, height,
    width)`` has its axes in the order z, y, x.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from .base import Element, Group
from .lie import LieGroup, exponential
from .quaternions import (
    axis_matrix,
    cross_matrix,
    matrix_quaternion,
    matrix_rotvec,
    quaternion_matrix,
    rotation_angle,
)

TOLERANCE = 1e-9
"""Entries of two elements that differ by less count as equal."""
_ORTHOGONAL = 1e-3
"""How far ``Rᵀ R`` of a given matrix may be from the unit matrix before it is no rotation."""


class SpatialGroup(Group):
    """Any group of rigid motions of space: what spatial actions need to know of it."""

    dimension: ClassVar[int] = 3
    is_proper: ClassVar[bool]
    """Whether every element keeps handedness: determinant +1."""

    @abstractmethod
    def rotation(self, g: Element) -> Tensor:
        """Return the orthogonal parts ``R``, ``(*g.shape, 3, 3)``, float64; determinant -1: it reflects."""

    def translation(self, g: Element) -> Tensor:
        """Return the shifts ``t``, ``(*g.shape, 3)``, float64: zeros where the group has none."""
        return torch.zeros(*g.shape, 3, dtype=torch.float64, device=g.device)

    def determinant(self, g: Element) -> Tensor:
        """Return +1.0 or -1.0: whether an element keeps handedness, float64, shape ``g.shape``."""
        return sign_of_determinant(self.rotation(g))

    def angle(self, g: Element) -> Tensor:
        """Return the angles of the rotations ``det(R) R`` in radians, in ``[0, π]``, shape ``g.shape``."""
        return rotation_angle(self.rotation(g) * self.determinant(g)[..., None, None])

    def matrix(self, g: Element, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return the matrices that move ``(x, y, z)`` columns, ``(*g.shape, 3, 3)``."""
        return self.rotation(g).to(dtype)

    def distance(self, g: Element, h: Element) -> Tensor:
        """Return the angle of ``~g @ h`` in radians, in ``[0, π]``; π between opposite handedness."""
        between = self.rotation(g).mT @ self.rotation(h)
        return torch.where(sign_of_determinant(between) < 0, math.pi, rotation_angle(between))


class ContinuousSpatialGroup(SpatialGroup, LieGroup):
    """What the four continuous groups share."""

    value_ndim: ClassVar[int] = 2

    def from_quaternion(self, quaternion: Any, device: Any = None) -> Element:
        """Return rotations by quaternions ``(x, y, z, w)``, scalar last, shape ``(…, 4)``.

        They may have any length but 0: it is divided out.

        Raises:
            ValueError: If the shape is another, or a quaternion is 0.
        """
        q = last_axis(quaternion, 4, "quaternion", device)
        known = not torch.compiler.is_compiling()  # graphs hold no values
        if known and not bool((q.detach().abs().amax(-1) > 0).all()):
            raise ValueError("quaternion must not be 0: it is no rotation; (0, 0, 0, 1) is the identity")
        return self._from(quaternion_matrix(q))

    def from_rotvec(self, rotvec: Any, device: Any = None) -> Element:
        """Return rotations about axes by their lengths in radians, shape ``(…, 3)``; differentiable."""
        vector = last_axis(rotvec, 3, "rotvec", device)
        return self._from(exponential(vector, turns()))

    def from_euler(self, axes: str, angles: Any, *, degrees: bool = False, device: Any = None) -> Element:
        """Return rotations by angles about axes, one after the other, as SciPy's ``from_euler``.

        Args:
            axes: Some of ``xyz``, turned about in this order: in lower case about the axes of space
                (extrinsic), in upper case about those that turn along (intrinsic).
            angles: Shape ``(…, len(axes))``; radians.
            degrees: Whether the angles are in degrees.
            device: Where the elements live; default: that of ``angles``.

        Raises:
            ValueError: If ``axes`` is of another form, or does not match the shape of ``angles``.
        """
        if not axes or not (set(axes) <= set("xyz") or set(axes) <= set("XYZ")):
            raise ValueError(f"axes must be some of 'xyz' or some of 'XYZ', such as 'zyx', got {axes!r}")
        given = last_axis(angles, len(axes), "angles", device)
        given = given.deg2rad() if degrees else given
        made = torch.eye(3, dtype=torch.float64, device=given.device)
        for axis, angle in zip(axes, given.unbind(-1), strict=True):
            turn = axis_matrix("xyz".index(axis.lower()), angle)
            made = turn @ made if axis.islower() else made @ turn
        return self._from(made)

    def quaternion(self, g: Element) -> Tensor:
        """Return unit quaternions ``(x, y, z, w)`` with ``w`` at least 0, ``(*g.shape, 4)``, float64.

        Raises:
            ValueError: If an element reflects.
        """
        return matrix_quaternion(self._proper(g))

    def rotvec(self, g: Element) -> Tensor:
        """Return rotation vectors, axis times angle in ``[0, π]``, ``(*g.shape, 3)``, float64.

        Raises:
            ValueError: If an element reflects.
        """
        return matrix_rotvec(self._proper(g))

    def equal_values(self, a: Tensor, b: Tensor) -> Tensor:
        """Compare entries up to `TOLERANCE`."""
        return ((a - b).abs() <= TOLERANCE).flatten(-2).all(-1)

    def identity(self, *shape: int, device: Any = None) -> Element:
        """Return the identity, repeated over the batch shape ``shape``."""
        return self._from(torch.eye(3, dtype=torch.float64, device=device).expand(*shape, 3, 3))

    @abstractmethod
    def _from(self, rotation: Tensor) -> Element:
        """Write orthogonal matrices down as elements that do not shift."""

    def _drawn(self, shape: tuple[int, ...], generator: torch.Generator | None, device: Any) -> Tensor:
        """Draw orthogonal matrices uniformly (Haar measure), ``(*shape, 3, 3)``."""
        device = generator.device if device is None and generator is not None else device
        normal = torch.randn(*shape, 4, generator=generator, device=device, dtype=torch.float64)
        drawn = quaternion_matrix(normal)
        if self.is_proper:
            return drawn
        sides = torch.randint(2, shape, generator=generator, device=device)
        return drawn * (1.0 - 2.0 * sides.double())[..., None, None]

    def _proper(self, g: Element) -> Tensor:
        """Return rotations, or raise ValueError where an element reflects."""
        if not self.is_proper and bool((self.determinant(g) < 0).any()):
            raise ValueError(
                "an element that reflects is no rotation: it has no logarithm and no quaternion; multiply "
                "its matrix by -1 first"
            )
        return self.rotation(g)

    def _checked(self, rotation: Any, device: Any) -> Tensor:
        """Return given matrices with rounding taken out, or raise ValueError."""
        if hasattr(rotation, "as_matrix"):  # a Rotation of SciPy
            rotation = rotation.as_matrix()
        made: Tensor = torch.as_tensor(rotation, dtype=torch.float64, device=device)
        if made.shape[-2:] != (3, 3):
            raise ValueError(f"rotation must have shape (…, 3, 3), got {tuple(made.shape)}")
        unit = torch.eye(3, dtype=torch.float64, device=made.device)
        gap = (made.mT @ made - unit).detach().abs()
        if gap.numel() and not bool((gap <= _ORTHOGONAL).all()):
            raise ValueError(
                f"rotation must be orthogonal, but RᵀR differs from the unit matrix by "
                f"{float(gap.max()):.3g}; take the nearest rotation (by SVD) first"
            )
        if self.is_proper and bool((sign_of_determinant(made) < 0).any()):
            raise ValueError(
                f"rotation must have determinant +1 in {self}, got -1: a reflection; use {self._wider} for "
                "those, or negate one axis of the frame"
            )
        for _ in range(3):  # Newton and Schulz: float32 rounding goes, signed permutations keep their bits
            made = made @ (3 * unit - made.mT @ made) / 2
        return made

    _wider: ClassVar[str] = ""
    """The group with reflections, as it is named in errors."""


class _Turns(ContinuousSpatialGroup):
    """SO(3) and O(3): written down as matrices."""

    coordinates: ClassVar[int] = 3

    def element(self, rotation: Any, device: Any = None) -> Element:
        """Return the elements with the given matrices, shape ``(…, 3, 3)``, precise to about three digits.

        A ``scipy.spatial.transform.Rotation`` is taken too; ``Rotation.from_matrix(g.matrix())`` leads back.
        What is left of rounding is taken out: matrices of float32 become orthogonal in float64.

        Raises:
            ValueError: If the shape is another, or a matrix is not orthogonal or not of the group.
        """
        return Element(self, self._checked(rotation, device))

    def sample(self, *shape: int, generator: torch.Generator | None = None, device: Any = None) -> Element:
        """Draw elements uniformly (Haar measure), with batch shape ``shape``."""
        return Element(self, self._drawn(shape, generator, device))

    def compose(self, g: Element, h: Element) -> Element:
        """Return ``g @ h``: first ``h``, then ``g``."""
        return Element(self, g.value @ h.value)

    def inverse(self, g: Element) -> Element:
        """Return ``~g``."""
        return Element(self, g.value.mT)

    def rotation(self, g: Element) -> Tensor:
        """Return the matrices, ``(*g.shape, 3, 3)``, float64."""
        return g.value

    def generators(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return the turns about x, y and z, shape ``(3, 3, 3)``."""
        return turns().to(dtype)

    def exp(self, coordinates: Tensor) -> Element:
        """Return rotations by rotation vectors in radians, shape ``(…, 3)``; differentiable."""
        return self.from_rotvec(coordinates)

    def log(self, g: Element) -> Tensor:
        """Return rotation vectors of length at most π, ``(*g.shape, 3)``; at π either of the two.

        Raises:
            ValueError: If an element reflects.
        """
        return self.rotvec(g)

    def _from(self, rotation: Tensor) -> Element:
        return Element(self, rotation)


@dataclass(frozen=True)
class SO3(_Turns):
    """All rotations about the origin; ``Element.value`` is the matrix, shape ``(…, 3, 3)``, float64.

    Example:
        >>> g = SO3().from_euler("z", [30.0], degrees=True)
        >>> (g @ g @ g).equals(SO3().from_rotvec([0.0, 0.0, 1.5707963267948966])).item()
        True
    """

    is_proper: ClassVar[bool] = True
    _wider: ClassVar[str] = "O3()"

    def __str__(self) -> str:
        return "SO3"


@dataclass(frozen=True)
class O3(_Turns):
    """Rotations and reflections about the origin; ``Element.value`` is the matrix, ``(…, 3, 3)``, float64.

    Example:
        >>> mirror = O3().element([[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
        >>> (mirror @ mirror).is_identity().item(), O3().determinant(mirror).item()
        (True, -1.0)
    """

    is_proper: ClassVar[bool] = False

    def __str__(self) -> str:
        return "O3"


def turns() -> Tensor:
    """Return the turns about x, y and z as a basis of the Lie algebra, ``(3, 3, 3)``, float64."""
    return cross_matrix(torch.eye(3, dtype=torch.float64))


def sign_of_determinant(matrix: Tensor) -> Tensor:
    """Return the signs of determinants, shape ``(…)``, float64."""
    first, second, third = matrix.detach().unbind(-2)
    triple = (torch.linalg.cross(first, second) * third).sum(-1)
    return torch.where(triple < 0, -1.0, 1.0).double()


def last_axis(given: Any, size: int, name: str, device: Any) -> Tensor:
    """Return float64 of shape ``(…, size)``, or raise ValueError."""
    made: Tensor = torch.as_tensor(given, dtype=torch.float64, device=device)
    if not made.ndim or made.shape[-1] != size:
        raise ValueError(f"{name} must have shape (…, {size}), got {tuple(made.shape)}")
    return made
