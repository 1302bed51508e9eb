"""Rotations and reflections of the plane.

Convention:
    x right, y down; a positive angle turns counter-clockwise as seen on the screen. A reflection element
    flips left-right first and rotates then: ``g = R^r F^f``.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from .base import Element, FiniteGroup, Group


class PlanarGroup(Group):
    """Any group of rotations and reflections about a point: what planar actions need to know of it."""

    dimension: ClassVar[int] = 2

    @property
    def swaps_sides(self) -> bool | None:
        """Whether all elements exchange height and width of a canvas, or none does; None: some do."""
        return None

    @property
    @abstractmethod
    def is_exact_on_grid(self) -> bool:
        """Whether every element maps the square pixel grid to itself (quarter turns and flips only)."""

    @abstractmethod
    def angle(self, g: Element) -> Tensor:
        """Return the angles in radians, in ``[0, 2π)``, float64, shape ``g.shape``."""

    @abstractmethod
    def is_reflected(self, g: Element) -> Tensor:
        """Say which elements flip left-right before they rotate, bool, shape ``g.shape``."""

    @abstractmethod
    def quarter_turns(self, g: Element) -> Tensor:
        """Return the number of quarter turns 0…3, or -1 where the angle is none; int64, shape ``g.shape``."""

    def grid_moves(self, g: Element) -> Tensor:
        """Return ``turns + 4 · flip`` where the element keeps the grid, else -1; int64, shape ``g.shape``."""
        turns = self.quarter_turns(g)
        return torch.where(turns >= 0, turns + 4 * self.is_reflected(g), -1)

    def matrix(self, g: Element, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return the matrices that move ``(x, y)`` columns about the origin, ``(*g.shape, 2, 2)``."""
        angle = self.angle(g)
        cos, sin = torch.cos(angle), torch.sin(angle)
        turns = self.quarter_turns(g)  # exact zeros and ones where the grid is kept
        table = torch.tensor(
            [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]], dtype=angle.dtype, device=g.device
        )
        exact = table[turns.clamp(min=0)]
        cos = torch.where(turns >= 0, _instead(exact[..., 0], cos), cos)
        sin = torch.where(turns >= 0, _instead(exact[..., 1], sin), sin)
        sign = 1 - 2 * self.is_reflected(g).to(angle.dtype)
        rows = [torch.stack([sign * cos, sin], -1), torch.stack([-sign * sin, cos], -1)]
        return torch.stack(rows, -2).to(dtype)

    def distance(self, g: Element, h: Element) -> Tensor:
        """Return the angle of ``~g @ h`` in radians, in ``[0, π]``; π between opposite handedness."""
        between = g.inverse().compose(h)
        angle = self.angle(between)
        return torch.where(self.is_reflected(between), math.pi, torch.minimum(angle, 2 * math.pi - angle))


_LARGEST_TABLE = 4096
"""Matrices of groups up to this order are looked up, those of larger ones are computed."""


class FinitePlanarGroup(PlanarGroup, FiniteGroup):
    """What C_n and D_n share: ``n`` rotations, numbered first; then, in D_n, the reflected ones."""

    n: int
    """Number of rotations."""

    @property
    def swaps_sides(self) -> bool | None:
        """False where there are no quarter turns but by 180°; None: some elements exchange the sides."""
        return None if self.n > 2 else False

    @property
    def is_exact_on_grid(self) -> bool:
        """Whether all rotations are quarter turns (``n`` divides 4)."""
        return 4 % self.n == 0

    def angle(self, g: Element) -> Tensor:
        """Return the angles in radians, in ``[0, 2π)``, float64, shape ``g.shape``."""
        return (g.value % self.n).double() * (2 * math.pi / self.n)

    def is_reflected(self, g: Element) -> Tensor:
        """Say which elements flip left-right before they rotate, bool, shape ``g.shape``."""
        return g.value >= self.n

    def quarter_turns(self, g: Element) -> Tensor:
        """Return the number of quarter turns 0…3, or -1 where the angle is none; int64, shape ``g.shape``."""
        quarters = 4 * (g.value % self.n)
        return torch.where(quarters % self.n == 0, quarters // self.n, -1)

    def grid_moves(self, g: Element) -> Tensor:
        """Return ``turns + 4 · flip`` where the element keeps the grid, else -1; int64, shape ``g.shape``."""
        if self.n == 4:
            return g.value  # the elements are numbered like the moves
        return self._looked_up(_move_table, g)

    def matrix(self, g: Element, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return the matrices that move ``(x, y)`` columns about the origin, ``(*g.shape, 2, 2)``."""
        if self.order > _LARGEST_TABLE or torch.compiler.is_compiling():
            return super().matrix(g, dtype)
        return self._looked_up(_matrix_table, g).to(dtype)

    def _looked_up(self, table: Any, g: Element) -> Tensor:
        """Take one row for each element from a constant table of the group."""
        make = table.__wrapped__ if torch.compiler.is_compiling() else table
        rows: Tensor = make(self, g.device)
        return rows.index_select(0, g.value.reshape(-1)).view(g.shape + rows.shape[1:])

    def all_grid_moves(self) -> list[int]:
        """Return the grid moves of all elements, as plain numbers."""
        turns = [4 * r // self.n if 4 * r % self.n == 0 else -1 for r in range(self.n)]
        return [*turns, *(turn + 4 if turn >= 0 else -1 for turn in turns)][: self.order]


def _instead(exact: Tensor, near: Tensor) -> Tensor:
    """Return what is exact, with the gradient of what is near it: their difference is exact too."""
    return near + (exact - near).detach() if near.requires_grad else exact


@lru_cache(maxsize=32)
def _matrix_table(group: FinitePlanarGroup, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return PlanarGroup.matrix(group, group.elements(device))


@lru_cache(maxsize=32)
def _move_table(group: FinitePlanarGroup, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(group.all_grid_moves(), device=device)


@dataclass(frozen=True)
class Cyclic(FinitePlanarGroup):
    """C_n, the rotations by multiples of 360°/n; element ``r`` turns by ``r·360°/n`` counter-clockwise.

    Args:
        n: Number of rotations, at least 1.

    Example:
        >>> Cyclic(8).order
        8
    """

    n: int

    def __post_init__(self) -> None:
        _check_n(self.n, "Cyclic")

    @property
    def order(self) -> int:
        """Number of elements: ``n``."""
        return self.n

    def compose(self, g: Element, h: Element) -> Element:
        """Return ``g @ h``: first ``h``, then ``g``."""
        return Element(self, (g.value + h.value) % self.n)

    def inverse(self, g: Element) -> Element:
        """Return ``~g``."""
        return Element(self, -g.value % self.n)

    def __str__(self) -> str:
        return f"C{self.n}"


@dataclass(frozen=True)
class Dihedral(FinitePlanarGroup):
    """D_n, the ``n`` rotations of C_n and the ``n`` reflections; element ``r + n·f`` is ``R^r F^f``.

    ``F`` flips left-right and comes first; ``R`` turns by 360°/n counter-clockwise.

    Args:
        n: Number of rotations, at least 1; the group has ``2n`` elements.

    Example:
        >>> flip = Dihedral(4).element(4)
        >>> (flip @ flip).is_identity().item()
        True
    """

    n: int

    def __post_init__(self) -> None:
        _check_n(self.n, "Dihedral")

    @property
    def order(self) -> int:
        """Number of elements: ``2n``."""
        return 2 * self.n

    def compose(self, g: Element, h: Element) -> Element:
        """Return ``g @ h``: first ``h``, then ``g``. ``R^a F^b R^c F^d = R^(a + (-1)^b c) F^(b + d)``."""
        flip_g, flip_h = g.value // self.n, h.value // self.n
        turn = (g.value + (1 - 2 * flip_g) * h.value) % self.n
        return Element(self, turn + self.n * (flip_g ^ flip_h))

    def inverse(self, g: Element) -> Element:
        """Return ``~g``; a reflection is its own inverse."""
        return Element(self, torch.where(self.is_reflected(g), g.value, -g.value % self.n))

    def __str__(self) -> str:
        return f"D{self.n}"


def _check_n(n: Any, name: str) -> None:
    if isinstance(n, bool) or not isinstance(n, int):
        raise TypeError(f"n must be an int, got {type(n).__name__}; write {name}(4)")
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}; write {name}(4) for quarter turns")


@dataclass(frozen=True)
class SideCoset(FinitePlanarGroup):
    """Those elements of C4 or D4 that exchange the sides of a canvas, or those that keep them.

    Elements are numbered as in the whole group; products belong to it. What knows that all elements exchange
    the sides, or none, knows the shape of what it moves without looking at elements, as graphs must.

    Args:
        whole: C4 or D4.
        swaps: Whether its elements exchange height and width.

    Example:
        >>> SideCoset(Cyclic(4), swaps=True).swaps_sides
        True
    """

    whole: FinitePlanarGroup
    swaps: bool

    def __post_init__(self) -> None:
        if self.whole.n != 4:
            raise ValueError(f"whole must be C4 or D4, got {self.whole}")

    @property
    def n(self) -> int:  # type: ignore[override]
        """Number of rotations of the whole group."""
        return self.whole.n

    @property
    def order(self) -> int:
        """Number of elements of the whole group, by which they are numbered."""
        return self.whole.order

    @property
    def swaps_sides(self) -> bool:
        """Whether height and width are exchanged."""
        return self.swaps

    def compose(self, g: Element, h: Element) -> Element:
        """Return ``g @ h``, an element of the whole group."""
        return self.whole.compose(Element(self.whole, g.value), Element(self.whole, h.value))

    def inverse(self, g: Element) -> Element:
        """Return ``~g``, which exchanges the sides if ``g`` does."""
        return Element(self, self.whole.inverse(Element(self.whole, g.value)).value)

    def __str__(self) -> str:
        return f"{self.whole}, sides {'swapped' if self.swaps else 'kept'}"
