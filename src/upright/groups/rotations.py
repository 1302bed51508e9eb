"""Continuous rotations and reflections of the plane: SO(2) and O(2).

Convention:
    As for the finite planar groups: a positive angle turns counter-clockwise as seen on the screen, and a
    reflection element flips left-right first. Angles within `ANGLE_TOLERANCE` of a quarter turn are quarter
    turns, and so move pixels without resampling.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from .base import Element
from .lie import LieGroup
from .planar import PlanarGroup

ANGLE_TOLERANCE = 1e-9
"""Radians below which two angles count as one."""


class CircleGroup(LieGroup):
    """Any group written down by one angle in radians in ``[0, 2π)``, float64."""

    coordinates: ClassVar[int] = 1

    def element(self, angle: Any = None, *, degrees: Any = None, device: Any = None) -> Element:
        """Return the turns by angles in radians, or in degrees; numbers or tensors of any shape."""
        return Element(self, radians(angle, degrees, device))

    def identity(self, *shape: int, device: Any = None) -> Element:
        """Return the identity, repeated over the batch shape ``shape``."""
        return Element(self, torch.zeros(shape, dtype=torch.float64, device=device))

    def sample(self, *shape: int, generator: torch.Generator | None = None, device: Any = None) -> Element:
        """Draw angles uniformly, with batch shape ``shape``."""
        return Element(self, _uniform_angles(shape, generator, device))

    def compose(self, g: Element, h: Element) -> Element:
        """Return ``g @ h``: first ``h``, then ``g``."""
        return Element(self, wrapped(g.value + h.value))

    def inverse(self, g: Element) -> Element:
        """Return ``~g``."""
        return Element(self, wrapped(-g.value))

    def angle(self, g: Element) -> Tensor:
        """Return the angles in radians, in ``[0, 2π)``, float64, shape ``g.shape``."""
        return g.value

    def equal_values(self, a: Tensor, b: Tensor) -> Tensor:
        """Compare angles modulo 2π, up to `ANGLE_TOLERANCE`."""
        return same_angle(a, b)

    def exp(self, coordinates: Tensor) -> Element:
        """Return turns by the given angles in radians, shape ``(…, 1)``."""
        return Element(self, wrapped(coordinates[..., 0].double()))

    def log(self, g: Element) -> Tensor:
        """Return the angles in ``(-π, π]``, shape ``(*g.shape, 1)``."""
        return _signed(g.value).unsqueeze(-1)


class _ContinuousPlanarGroup(PlanarGroup, LieGroup):
    """What SO(2) and O(2) share."""

    coordinates: ClassVar[int] = 1

    @property
    def is_exact_on_grid(self) -> bool:
        """False: most angles resample."""
        return False

    def quarter_turns(self, g: Element) -> Tensor:
        """Return the number of quarter turns 0…3, or -1 where the angle is none; int64, shape ``g.shape``."""
        quarters = self.angle(g).detach() / (math.pi / 2)
        nearest = quarters.round()
        near = (quarters - nearest).abs() <= ANGLE_TOLERANCE / (math.pi / 2)
        return torch.where(near, nearest.long() % 4, -1)

    def generators(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return the generator of counter-clockwise turns (y points down), shape ``(1, 2, 2)``."""
        return torch.tensor([[[0.0, 1.0], [-1.0, 0.0]]], dtype=dtype)


@dataclass(frozen=True)
class SO2(CircleGroup, _ContinuousPlanarGroup):
    """All rotations; ``Element.value`` is the angle in radians in ``[0, 2π)``, float64.

    Example:
        >>> g = SO2().element(degrees=30.0)
        >>> (g @ g @ g).equals(SO2().element(degrees=90.0)).item()
        True
    """

    def is_reflected(self, g: Element) -> Tensor:
        """Return False everywhere, shape ``g.shape``."""
        return torch.zeros_like(g.value, dtype=torch.bool)

    def __str__(self) -> str:
        return "SO2"


@dataclass(frozen=True)
class O2(_ContinuousPlanarGroup):
    """All rotations and reflections; ``Element.value`` is ``(angle, reflected)``, float64.

    ``reflected`` is 0 or 1; the element is ``R^angle F^reflected``: the flip left-right comes first.

    Example:
        >>> flip = O2().element(degrees=20.0, reflected=True)
        >>> (flip @ flip).is_identity().item()
        True
    """

    value_ndim: ClassVar[int] = 1

    def element(
        self, angle: Any = None, *, degrees: Any = None, reflected: Any = False, device: Any = None
    ) -> Element:
        """Return elements by angle (radians or degrees) and whether they flip first; shapes broadcast."""
        angles = radians(angle, degrees, device)
        flips = torch.as_tensor(reflected, device=angles.device).to(angles)
        return Element(self, torch.stack([angles + 0 * flips, flips + 0 * angles], -1))

    def identity(self, *shape: int, device: Any = None) -> Element:
        """Return the identity, repeated over the batch shape ``shape``."""
        return Element(self, torch.zeros(*shape, 2, dtype=torch.float64, device=device))

    def sample(self, *shape: int, generator: torch.Generator | None = None, device: Any = None) -> Element:
        """Draw angles uniformly and flip every other one, with batch shape ``shape``."""
        angles = _uniform_angles(shape, generator, device)
        flips = torch.randint(2, shape, generator=generator, device=angles.device)
        return Element(self, torch.stack([angles, flips.double()], -1))

    def compose(self, g: Element, h: Element) -> Element:
        """Return ``g @ h``: ``R^a F^b R^c F^d = R^(a + (-1)^b c) F^(b + d)``."""
        a, b = g.value.unbind(-1)
        c, d = h.value.unbind(-1)
        return Element(self, torch.stack([wrapped(a + (1 - 2 * b) * c), (b - d).abs()], -1))

    def inverse(self, g: Element) -> Element:
        """Return ``~g``; a reflection is its own inverse."""
        angle, flip = g.value.unbind(-1)
        return Element(self, torch.stack([torch.where(flip > 0, angle, wrapped(-angle)), flip], -1))

    def angle(self, g: Element) -> Tensor:
        """Return the angles in radians, in ``[0, 2π)``, float64, shape ``g.shape``."""
        return g.value[..., 0]

    def is_reflected(self, g: Element) -> Tensor:
        """Say which elements flip left-right before they rotate, bool, shape ``g.shape``."""
        return g.value[..., 1] > 0.5

    def equal_values(self, a: Tensor, b: Tensor) -> Tensor:
        """Compare angles modulo 2π, up to `ANGLE_TOLERANCE`, and handedness."""
        return same_angle(a[..., 0], b[..., 0]) & (a[..., 1] == b[..., 1])

    def exp(self, coordinates: Tensor) -> Element:
        """Return rotations by the given angles in radians, shape ``(…, 1)``; reflections are out of reach."""
        angle = wrapped(coordinates[..., 0].double())
        return Element(self, torch.stack([angle, torch.zeros_like(angle)], -1))

    def log(self, g: Element) -> Tensor:
        """Return the angles in ``(-π, π]``, shape ``(*g.shape, 1)``.

        Raises:
            ValueError: If an element is a reflection.
        """
        if bool(self.is_reflected(g).any()):
            raise ValueError("a reflection has no logarithm; take it apart into a flip and a rotation first")
        return _signed(self.angle(g)).unsqueeze(-1)

    def __str__(self) -> str:
        return "O2"


def radians(angle: Any = None, degrees: Any = None, device: Any = None) -> Tensor:
    """Return one given angle as float64 radians in ``[0, 2π)``.

    Raises:
        TypeError: Unless exactly one of the two is given.
    """
    if (angle is None) == (degrees is None):
        raise TypeError("give angle (radians) or degrees, and only one of them")
    given = torch.as_tensor(degrees if angle is None else angle, dtype=torch.float64, device=device)
    return wrapped(given * (math.pi / 180) if angle is None else given)


def wrapped(angle: Tensor) -> Tensor:
    """Return angles modulo 2π, in ``[0, 2π)``; gradients pass unchanged."""
    turn = torch.remainder(angle, 2 * math.pi)
    return torch.where(turn >= 2 * math.pi, turn - 2 * math.pi, turn)  # -1e-17 % 2π rounds to 2π


def same_angle(a: Tensor, b: Tensor) -> Tensor:
    """Say where two angles agree modulo 2π, up to `ANGLE_TOLERANCE`."""
    return _signed(wrapped(a - b)).abs() <= ANGLE_TOLERANCE


def _signed(angle: Tensor) -> Tensor:
    """Return angles of ``[0, 2π)`` in ``(-π, π]``."""
    return torch.where(angle > math.pi, angle - 2 * math.pi, angle)


def _uniform_angles(shape: tuple[int, ...], generator: torch.Generator | None, device: Any) -> Tensor:
    if device is None and generator is not None:
        device = generator.device
    return 2 * math.pi * torch.rand(shape, generator=generator, device=device, dtype=torch.float64)
