"""The symmetries of the cube: 24 rotations, and 48 moves with reflections. Exact on grids of voxels.

Convention:
    As in `space`. Rotation ``4·f + q`` turns by ``q`` quarter turns about z first and carries +z, by ``f``,
    then: to +z, +x, -z, -x (0…3: ``f`` quarter turns about y), -y (4: one about x) or +y (5: one back).
    Element ``r + 24·i`` of the full group is rotation ``r``, and for ``i = 1`` its negative ``-R``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from .base import Element, FiniteGroup
from .space import SpatialGroup, sign_of_determinant

Rows = tuple[tuple[int, ...], ...]

_X: Rows = ((1, 0, 0), (0, 0, -1), (0, 1, 0))
_Y: Rows = ((0, 0, 1), (0, 1, 0), (-1, 0, 0))
_Z: Rows = ((0, -1, 0), (1, 0, 0), (0, 0, 1))


def _times(a: Rows, b: Rows) -> Rows:
    return tuple(tuple(sum(a[i][k] * b[k][j] for k in range(3)) for j in range(3)) for i in range(3))


def _power(a: Rows, n: int) -> Rows:
    made: Rows = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
    for _ in range(n):
        made = _times(a, made)
    return made


_FACES = [*(_power(_Y, f) for f in range(4)), _X, _power(_X, 3)]
_ROTATIONS = [_times(face, _power(_Z, q)) for face in _FACES for q in range(4)]
_NUMBERS = {rows: number for number, rows in enumerate(_ROTATIONS)}
_TABLE = [_NUMBERS[_times(a, b)] for a in _ROTATIONS for b in _ROTATIONS]
"""Entry ``24 g + h`` is the number of ``g @ h``."""
_INVERSES = [_TABLE[24 * number :].index(0) for number in range(24)]


class CubeGroup(SpatialGroup, FiniteGroup):
    """What the two groups share: signed permutations of the axes, exact on any grid of voxels."""

    @property
    def is_exact_on_grid(self) -> bool:
        """True: axes permute and flip."""
        return True

    @property
    def order(self) -> int:
        """Number of elements: 24, or 48 with reflections."""
        return 24 if self.is_proper else 48

    def compose(self, g: Element, h: Element) -> Element:
        """Return ``g @ h``: first ``h``, then ``g``; looked up in a table."""
        number = _constant("table", g.device)[(g.value % 24) * 24 + h.value % 24]
        return Element(self, number + 24 * ((g.value // 24) ^ (h.value // 24)))

    def inverse(self, g: Element) -> Element:
        """Return ``~g``."""
        return Element(self, _constant("inverses", g.device)[g.value % 24] + g.value // 24 * 24)

    def rotation(self, g: Element) -> Tensor:
        """Return signed permutation matrices, ``(*g.shape, 3, 3)``, float64, of 0, 1 and -1 exactly."""
        return _constant("rotations", g.device)[g.value % 24].double() * self.determinant(g)[..., None, None]

    def determinant(self, g: Element) -> Tensor:
        """Return +1.0 or -1.0: whether an element keeps handedness, float64, shape ``g.shape``."""
        return 1.0 - 2.0 * (g.value // 24).double()

    def axes(self, g: Element) -> tuple[Tensor, Tensor]:
        """Return ``(source, sign)``, both int64 ``(*g.shape, 3)``: ``(R v)[i]`` is ``sign[i] v[source[i]]``.

        ``i`` counts x, y, z, so that 0 is the last axis of a tensor of voxels.
        """
        rows = self.rotation(g).long()
        return rows.abs().argmax(-1), rows.sum(-1)

    def nearest(self, rotation: Tensor) -> Element:
        """Return the elements nearest to orthogonal matrices, ``(…, 3, 3)``; of equally near ones the first.

        Raises:
            ValueError: If the shape is another, or a matrix reflects and the group does not.
        """
        if rotation.shape[-2:] != (3, 3):
            raise ValueError(f"rotation must have shape (…, 3, 3), got {tuple(rotation.shape)}")
        sign = sign_of_determinant(rotation.double())
        if self.is_proper and bool((sign < 0).any()):
            raise ValueError(f"rotation must have determinant +1 in {self}, got -1; use FullOctahedral()")
        proper = (rotation.double() * sign[..., None, None]).flatten(-2)  # (…, 9)
        traces = proper @ _constant("rotations", rotation.device).double().flatten(1).mT  # (…, 24)
        near = traces >= traces.amax(-1, keepdim=True) - 1e-12
        return Element(self, near.long().argmax(-1) + 24 * (sign < 0).long())


@dataclass(frozen=True)
class Octahedral(CubeGroup):
    """The 24 rotations of the cube; element ``4·f + q`` turns ``q`` times about z, then carries +z by ``f``.

    ``f`` = 0…5 carries +z to +z, +x, -z, -x, -y, +y. Elements 0…3 are the quarter turns about z.

    Example:
        >>> g = Octahedral().element(1)  # a quarter turn about z: x goes to y
        >>> g.matrix()[:, 0].tolist(), (g @ g @ g @ g).is_identity().item()
        ([0.0, 1.0, 0.0], True)
    """

    is_proper: ClassVar[bool] = True

    def __str__(self) -> str:
        return "octahedral"


@dataclass(frozen=True)
class FullOctahedral(CubeGroup):
    """The 48 rotations and reflections of the cube; element ``r + 24·i`` is ``(-1)^i`` times rotation ``r``.

    Rotations are numbered as in `Octahedral`; element 24 is the inversion ``-1``.

    Example:
        >>> group = FullOctahedral()
        >>> group.order, group.element(24).matrix().diagonal().tolist()
        (48, [-1.0, -1.0, -1.0])
    """

    is_proper: ClassVar[bool] = False

    def __str__(self) -> str:
        return "full octahedral"


def _constant(name: str, device: torch.device) -> Tensor:
    """Return a constant of the rotations; a compiled graph makes its own."""
    make: Any = _made.__wrapped__ if torch.compiler.is_compiling() else _made
    made: Tensor = make(name, device)
    return made


@lru_cache(maxsize=32)
def _made(name: str, device: torch.device) -> Tensor:
    rows: Any = {"rotations": _ROTATIONS, "inverses": _INVERSES, "table": _TABLE}[name]
    with torch.inference_mode(False):
        return torch.tensor(rows, device=device)
