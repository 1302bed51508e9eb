"""Sets of elements that need not be groups: a range of angles, a list, a ladder of scales.

What such a set means for a canonicalizer: it chooses poses from the set ``S`` only. Its output is equivariant
under ``g`` on those inputs whose pose stays in the set, ``g @ c(x) ∈ S``; if ``S`` is a group (`is_group`),
that is all of them. Nothing is promised of an element that leads out of the set.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .base import Element, FiniteGroup, Group
from .lie import LieGroup
from .projective import Scale
from .rotations import ANGLE_TOLERANCE, O2, SO2


class Subset(ABC):
    """Elements of a group, to choose poses from. Subclasses are frozen dataclasses that hold no tensors."""

    group: Group
    """The group that the elements belong to."""

    @property
    @abstractmethod
    def is_group(self) -> bool:
        """Whether the set is closed under composition and inverse, and so a group of its own."""

    @abstractmethod
    def contains(self, g: Element) -> Tensor:
        """Say which elements belong to the set, shape ``g.shape``, bool."""

    @abstractmethod
    def sample(self, *shape: int, generator: torch.Generator | None = None, device: Any = None) -> Element:
        """Draw members uniformly (in coordinates, where the set is a range), with batch shape ``shape``."""

    @abstractmethod
    def grid(self, n: int | None = None, device: Any = None) -> Element:
        """Return members spread over the set, shape ``(K,)``: candidates to choose from."""

    @abstractmethod
    def project(self, g: Element) -> Element:
        """Return the nearest member to each element, shape ``g.shape``; members stay as they are."""

    def _check(self, g: Element) -> Element:
        if g.group != self.group:
            raise ValueError(f"g must be an element of {self.group}, got one of {g.group}")
        return g


class _Listed(Subset):
    """Finitely many members."""

    @abstractmethod
    def members(self, device: Any = None) -> Element:
        """Return every member once, shape ``(K,)``."""

    @property
    def is_group(self) -> bool:
        """Whether every product of two members is a member; in a finite set that is enough."""
        members = self.members()
        count = len(members)
        products = members.reshape(count, 1).compose(members.reshape(1, count))
        return bool(self.contains(products).all())

    def contains(self, g: Element) -> Tensor:
        """Say which elements belong to the set, shape ``g.shape``, bool."""
        g = self._check(g)
        return g.reshape(*g.shape, 1).equals(self.members(g.device)).any(-1)

    def sample(self, *shape: int, generator: torch.Generator | None = None, device: Any = None) -> Element:
        """Draw members uniformly, with batch shape ``shape``."""
        if device is None and generator is not None:
            device = generator.device
        members = self.members(device)
        return members[torch.randint(len(members), shape, generator=generator, device=device)]

    def grid(self, n: int | None = None, device: Any = None) -> Element:
        """Return every member, shape ``(K,)``; or ``n`` of them, evenly chosen, if there are more."""
        members = self.members(device)
        if n is None or n >= len(members):
            return members
        _check_count(n)
        return members[torch.linspace(0, len(members) - 1, n, device=device).round().long()]

    def project(self, g: Element) -> Element:
        """Return the nearest member by the group's distance, shape ``g.shape``; the first of equals."""
        g = self._check(g)
        members = self.members(g.device)
        return members[g.reshape(*g.shape, 1).distance(members).argmin(-1)]


@dataclass(frozen=True)
class Members(_Listed):
    """A list of elements of any group; make it by `of`.

    Args:
        group: The group.
        values: The members as they are written down (nested tuples of numbers).

    Example:
        >>> from upright.groups import Cyclic
        >>> quarters = Members.of(Cyclic(8).element(torch.tensor([0, 2, 4, 6])))
        >>> quarters.is_group, len(quarters.grid())
        (True, 4)
        >>> Members.of(SO2().element(degrees=[-30.0, 0.0, 30.0])).is_group
        False
    """

    group: Group
    values: tuple[Any, ...]

    @classmethod
    def of(cls, members: Element) -> Members:
        """Return the set of the given elements; those that are equal count once.

        Raises:
            ValueError: If there are none.
        """
        flat = members.reshape(-1)
        if not len(flat):
            raise ValueError("members must hold at least one element, got none")
        same = flat.reshape(-1, 1).equals(flat.reshape(1, -1)).cpu()
        first = ~same.tril(-1).any(-1)
        return cls(members.group, _nested(flat.value.detach().cpu()[first].tolist()))

    def members(self, device: Any = None) -> Element:
        """Return every member once, in the order given, shape ``(K,)``."""
        dtype = torch.int64 if isinstance(self.group, FiniteGroup) else torch.float64
        return Element(self.group, torch.tensor(self.values, dtype=dtype, device=device))

    def __str__(self) -> str:
        return f"{len(self.values)} elements of {self.group}"


@dataclass(frozen=True)
class Ladder(_Listed):
    """Scales in equal ratios. No group: the product of the two largest is larger still.

    Args:
        smallest: The smallest factor.
        largest: The largest factor.
        steps: How many there are, at least 1.

    Raises:
        ValueError: If the factors are not positive and in order, or ``steps`` is below 1.

    Example:
        >>> Ladder(0.5, 2.0, 3).members().matrix()[:, 0, 0]
        tensor([0.5000, 1.0000, 2.0000], dtype=torch.float64)
    """

    smallest: float
    largest: float
    steps: int
    group: Group = field(default=Scale(), init=False)

    def __post_init__(self) -> None:
        if not 0 < self.smallest <= self.largest:
            raise ValueError(f"expected 0 < smallest <= largest, got {self.smallest} and {self.largest}")
        _check_count(self.steps, "steps")

    def members(self, device: Any = None) -> Element:
        """Return every scale, the smallest first, shape ``(steps,)``."""
        ends = math.log(self.smallest), math.log(self.largest)
        return Element(self.group, torch.linspace(*ends, self.steps, dtype=torch.float64, device=device))

    def __str__(self) -> str:
        return f"{self.steps} scales from {self.smallest:g} to {self.largest:g}"


@dataclass(frozen=True)
class Arc(Subset):
    """Rotations by at most so many degrees to either side, such as ±90°; in O2, reflected ones too.

    Args:
        degrees: The largest angle, from 0 to 180.
        group: ``SO2()`` or ``O2()``.

    Raises:
        TypeError: If the group is another; list the elements of a finite one with `Members`.
        ValueError: If ``degrees`` is out of range.

    Example:
        >>> half = Arc(90)
        >>> half.contains(SO2().element(degrees=[80.0, 100.0])).tolist(), half.is_group
        ([True, False], False)
    """

    degrees: float
    group: Group = field(default=SO2())

    def __post_init__(self) -> None:
        if not isinstance(self.group, (SO2, O2)):
            raise TypeError(
                f"an Arc is one of SO2 or O2, got {self.group}; list elements of a finite group with Members"
            )
        if not 0 <= self.degrees <= 180:
            raise ValueError(f"degrees must lie in [0, 180], got {self.degrees}")

    @property
    def is_group(self) -> bool:
        """Whether the arc is the full circle or no turn at all: any other leads out of itself."""
        return self.degrees == 180 or self.degrees == 0

    def contains(self, g: Element) -> Tensor:
        """Say which elements turn by at most the given angle, up to 1e-9 radians, shape ``g.shape``, bool."""
        return self._signed(self._check(g)).abs() <= math.radians(self.degrees) + ANGLE_TOLERANCE

    def sample(self, *shape: int, generator: torch.Generator | None = None, device: Any = None) -> Element:
        """Draw angles uniformly; in O2 every other one is flipped."""
        g = self.group.sample(*shape, generator=generator, device=device)
        return self._with(g, self._signed(g) * (self.degrees / 180))

    def grid(self, n: int | None = None, device: Any = None) -> Element:
        """Return ``n`` angles (default: one in every 5°) from end to end; in O2, then as many flipped ones.

        The angle 0 is among them if ``n`` is odd. On the full circle the ends are one angle, named once.
        """
        n = 2 * math.floor(self.degrees / 5) + (self.degrees < 180) if n is None else n
        _check_count(n)
        reach = math.radians(self.degrees)
        if n == 1:
            angle = torch.zeros(1, dtype=torch.float64, device=device)
        elif self.degrees == 180:  # 0 is among them
            angle = (torch.arange(n, dtype=torch.float64, device=device) - n // 2) * (2 * math.pi / n)
        else:
            angle = torch.linspace(-reach, reach, n, dtype=torch.float64, device=device)
        assert isinstance(self.group, (SO2, O2))
        if isinstance(self.group, SO2):
            return self.group.element(angle)
        flips = torch.arange(2 * n, device=device) >= n
        return self.group.element(torch.cat([angle, angle]), reflected=flips)

    def project(self, g: Element) -> Element:
        """Return the elements with their angle cut to the range, handedness kept; shape ``g.shape``."""
        reach = math.radians(self.degrees)
        moved = self._with(g, self._signed(self._check(g)).clamp(-reach, reach))
        inside = self.contains(g).reshape(*g.shape, *[1] * self.group.value_ndim)
        return Element(self.group, torch.where(inside, g.value, moved.value))

    def _signed(self, g: Element) -> Tensor:
        assert isinstance(self.group, (SO2, O2))
        angle = self.group.angle(g)
        return torch.where(angle > math.pi, angle - 2 * math.pi, angle)

    def _with(self, g: Element, angle: Tensor) -> Element:
        assert isinstance(self.group, (SO2, O2))
        if isinstance(self.group, SO2):
            return self.group.element(angle)
        return self.group.element(angle, reflected=self.group.is_reflected(g))

    def __str__(self) -> str:
        return f"±{self.degrees:g}° of {self.group}"


@dataclass(frozen=True)
class Window(Subset):
    """Elements of a Lie group whose coordinates are small: ``exp(c)`` with ``|cᵢ| <= reachᵢ``.

    Args:
        group: The group.
        reach: The largest size of each coordinate; one number stands for all.

    Raises:
        TypeError: If the group is no Lie group.
        ValueError: If there are not as many numbers as coordinates, or one is negative.

    Example:
        >>> doubled = Window(Scale(), math.log(2))
        >>> doubled.contains(Scale().element([0.4, 0.6, 1.9])).tolist()
        [False, True, True]
    """

    group: Group
    reach: float | tuple[float, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.group, LieGroup):
            raise TypeError(f"a Window is one of a Lie group, got {self.group}; list elements with Members")
        count = self.group.coordinates
        if isinstance(self.reach, tuple) and len(self.reach) != count:
            raise ValueError(f"reach must be one number or {count} for {self.group}, got {len(self.reach)}")
        if min(self._reach()) < 0:
            raise ValueError(f"reach must not be negative, got {self.reach}")

    @property
    def is_group(self) -> bool:
        """Whether the window holds the identity only, or (SO2) the full circle."""
        reach = self._reach()
        return not any(reach) or (isinstance(self.group, SO2) and reach[0] >= math.pi)

    def contains(self, g: Element) -> Tensor:
        """Say which elements have coordinates in the window, up to 1e-9, shape ``g.shape``, bool.

        Raises:
            ValueError: If an element has no logarithm.
        """
        coordinates = self._lie.log(self._check(g))
        return (coordinates.abs() <= coordinates.new_tensor(self._reach()) + 1e-9).all(-1)

    def sample(self, *shape: int, generator: torch.Generator | None = None, device: Any = None) -> Element:
        """Draw elements with coordinates uniform in the window."""
        if device is None and generator is not None:
            device = generator.device
        reach = torch.tensor(self._reach(), dtype=torch.float64, device=device)
        draw = torch.rand(*shape, len(reach), generator=generator, device=device, dtype=torch.float64)
        return self._lie.exp((2 * draw - 1) * reach)

    def grid(self, n: int | None = None, device: Any = None) -> Element:
        """Return ``n`` steps (default 9; 3 where there are several) along each coordinate, all combined.

        That are ``n ** coordinates`` elements; a coordinate that has no reach has one step. The identity is
        among them if ``n`` is odd.
        """
        n = (9 if self._lie.coordinates == 1 else 3) if n is None else n
        _check_count(n)
        axes = [
            torch.linspace(-r, r, n, dtype=torch.float64, device=device)
            if r and n > 1
            else torch.zeros(1, dtype=torch.float64, device=device)
            for r in self._reach()
        ]
        return self._lie.exp(torch.cartesian_prod(*axes).reshape(-1, len(axes)))

    def project(self, g: Element) -> Element:
        """Return the elements with their coordinates cut to the window, shape ``g.shape``.

        That is the nearest member if the group commutes, and near it otherwise.
        """
        coordinates = self._lie.log(self._check(g))
        reach = coordinates.new_tensor(self._reach())
        moved = self._lie.exp(coordinates.clamp(-reach, reach))
        inside = self.contains(g).reshape(*g.shape, *[1] * self.group.value_ndim)
        return Element(self.group, torch.where(inside, g.value, moved.value))

    @property
    def _lie(self) -> LieGroup:
        assert isinstance(self.group, LieGroup)
        return self.group

    def _reach(self) -> tuple[float, ...]:
        return self.reach if isinstance(self.reach, tuple) else (self.reach,) * self._lie.coordinates

    def __str__(self) -> str:
        return f"a window of {self.group}"


def _nested(values: Any) -> Any:
    return tuple(map(_nested, values)) if isinstance(values, list) else values


def _check_count(n: int, name: str = "n") -> None:
    if n < 1:
        raise ValueError(f"{name} must be at least 1, got {n}")
