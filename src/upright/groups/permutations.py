"""Permutations of the members of a set: points of a cloud, atoms, particles, nodes of a graph.

Convention:
    ``value[i]`` is the place to which member ``i`` goes: row ``i`` of a moved table is found in row
    ``value[i]``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from .._checks import check_positive
from .base import Element, Group


@dataclass(frozen=True)
class Permutations(Group):
    """All ``n!`` ways to put ``n`` members in order; elements are places, shape ``(*shape, n)``, int64.

    They are finitely many, but not numbered: a `FiniteGroup` lists its elements, which nobody can here.

    Args:
        n: How many members.

    Example:
        >>> g = Permutations(3).element([1, 2, 0])  # the first goes to place 1, the last to place 0
        >>> (g @ g @ g).is_identity().item(), (~g).value.tolist()
        (True, [2, 0, 1])
    """

    n: int
    is_finite: ClassVar[bool] = False
    value_ndim: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_positive("n", self.n)

    def __str__(self) -> str:
        return f"S{self.n}"

    @property
    def dimension(self) -> int:  # type: ignore[override]
        """Side of the matrices: the number of members."""
        return self.n

    def element(self, places: Any, device: Any = None) -> Element:
        """Return the elements that carry members to the given places, shape ``(*shape, n)``.

        Raises:
            TypeError: If places are no integers.
            ValueError: If a row does not hold each of ``0 … n - 1`` once.
        """
        value = torch.as_tensor(places, device=device)
        if value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
            raise TypeError(f"places must be integers, got {value.dtype}")
        every = torch.arange(self.n, device=value.device)
        if value.shape[-1:] != (self.n,) or not bool((value.sort(-1).values == every).all()):
            raise ValueError(f"places must hold each of 0 … {self.n - 1} once, got {value.tolist()}")
        return Element(self, value.long())

    def identity(self, *shape: int, device: Any = None) -> Element:
        """Return the identity, repeated over the batch shape ``shape``."""
        return Element(self, torch.arange(self.n, device=device).expand(*shape, self.n))

    def sample(self, *shape: int, generator: torch.Generator | None = None, device: Any = None) -> Element:
        """Draw elements uniformly, with batch shape ``shape``."""
        if device is None and generator is not None:
            device = generator.device
        draws = torch.rand(*shape, self.n, generator=generator, device=device, dtype=torch.float64)
        return Element(self, draws.argsort(-1))

    def compose(self, g: Element, h: Element) -> Element:
        """Return ``g @ h``: first ``h``, then ``g``."""
        shape = torch.broadcast_shapes(g.value.shape, h.value.shape)  # type: ignore[no-untyped-call]
        return Element(self, g.value.expand(shape).gather(-1, h.value.expand(shape)))

    def inverse(self, g: Element) -> Element:
        """Return ``~g``."""
        return Element(self, g.value.argsort(-1))

    def matrix(self, g: Element, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return the matrices that move columns of ``n`` entries, ``(*g.shape, n, n)``, of 0 and 1."""
        return F.one_hot(g.value, self.n).mT.to(dtype)

    def distance(self, g: Element, h: Element) -> Tensor:
        """Return how many members the two carry to different places, float64, shape broadcast."""
        return (g.value != h.value).sum(-1).double()
