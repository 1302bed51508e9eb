"""The two nouns: a group (a frozen, hashable description) and an element (a batched value)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from .._values import static, value


class Group(ABC):
    """A group of transformations. Subclasses are frozen dataclasses that hold no tensors.

    A group stores how an element is written down (``value_ndim`` trailing dimensions of a tensor) and does
    its algebra on those tensors; users work with `Element`.
    """

    is_finite: ClassVar[bool]
    """Whether the group has finitely many elements, so that `FiniteGroup.elements` exists."""
    dimension: ClassVar[int]
    """Side of the matrices that `matrix` returns."""
    value_ndim: ClassVar[int] = 0
    """How many trailing dimensions of `Element.value` belong to one element."""
    is_bi_invariant: ClassVar[bool] = True
    """Whether `distance` is invariant on both sides; where it cannot be, it is on the left only."""

    @property
    def is_exact_on_grid(self) -> bool:
        """Whether no element resamples: every one maps the square pixel grid to itself. False unless said."""
        return False

    @abstractmethod
    def identity(self, *shape: int, device: Any = None) -> Element:
        """Return the identity, repeated over the batch shape ``shape``."""

    @abstractmethod
    def sample(self, *shape: int, generator: torch.Generator | None = None, device: Any = None) -> Element:
        """Draw elements with batch shape ``shape``: uniformly (Haar measure), or from a window it states."""

    @abstractmethod
    def compose(self, g: Element, h: Element) -> Element:
        """Return ``g @ h``: first ``h``, then ``g``."""

    @abstractmethod
    def inverse(self, g: Element) -> Element:
        """Return ``~g``."""

    @abstractmethod
    def matrix(self, g: Element, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return the matrices of ``g``, shape ``(*g.shape, dimension, dimension)``."""

    @abstractmethod
    def distance(self, g: Element, h: Element) -> Tensor:
        """Return the distance between ``g`` and ``h``, shape broadcast, float64; see `is_bi_invariant`."""

    def equal_values(self, a: Tensor, b: Tensor) -> Tensor:
        """Say which elements, as they are written down, are the same, shape broadcast, bool."""
        equal = a == b
        return equal.flatten(-self.value_ndim).all(-1) if self.value_ndim else equal


class FiniteGroup(Group):
    """A group whose elements are numbered ``0 … order - 1``, the identity being 0."""

    is_finite: ClassVar[bool] = True

    @property
    @abstractmethod
    def order(self) -> int:
        """Number of elements."""

    def elements(self, device: Any = None) -> Element:
        """Return every element once, in the order of their numbers, shape ``(order,)``."""
        return Element(self, torch.arange(self.order, device=device))

    def element(self, index: int | Tensor, device: Any = None) -> Element:
        """Return the elements with the given numbers.

        Args:
            index: Numbers in ``[-order, order)``; negative ones count from the end. In a graph they are
                taken modulo the order.
            device: Where the element lives; default: that of ``index``.

        Raises:
            IndexError: If a number is out of range.
        """
        low, high = (index, index) if isinstance(index, int) else (0, 0)
        index = torch.as_tensor(index, device=device)
        if index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
            raise TypeError(f"index must be of an integer type, got {index.dtype}")
        if low == high == 0 and index.numel() and not torch.compiler.is_compiling():  # graphs hold no values
            low, high = int(index.min()), int(index.max())
        if low < -self.order or high >= self.order:
            raise IndexError(
                f"index must lie in [-{self.order}, {self.order}) for {self}, got values from {low} to {high}"
            )
        return Element(self, index.long() % self.order)

    def identity(self, *shape: int, device: Any = None) -> Element:
        """Return the identity, repeated over the batch shape ``shape``."""
        return Element(self, torch.zeros(shape, dtype=torch.long, device=device))

    def sample(self, *shape: int, generator: torch.Generator | None = None, device: Any = None) -> Element:
        """Draw elements uniformly, with batch shape ``shape``."""
        if device is None and generator is not None:
            device = generator.device
        return Element(self, torch.randint(self.order, shape, generator=generator, device=device))


@value
class Element:
    """Elements of a group, batched: ``g @ h`` composes (first ``h``, then ``g``), ``~g`` inverts.

    Attributes:
        group: The group they belong to.
        value: How they are written down, shape ``(*shape, …)``; for a finite group their numbers (int64).

    Example:
        >>> from upright.groups import Cyclic
        >>> g = Cyclic(4).elements()
        >>> (g @ ~g).is_identity().all().item()
        True
    """

    group: Group = static()
    value: Tensor

    @property
    def shape(self) -> torch.Size:
        """Batch shape."""
        return self.value.shape[: self.value.ndim - self.group.value_ndim]

    @property
    def device(self) -> torch.device:
        """Where the element lives."""
        return self.value.device

    def to(self, device: Any) -> Element:
        """Return the element on another device."""
        return Element(self.group, self.value.to(device))

    def matrix(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return the matrices, shape ``(*shape, d, d)`` with ``d = group.dimension``."""
        return self.group.matrix(self, dtype)

    def distance(self, other: Element) -> Tensor:
        """Return the distance to ``other``; see the group for its unit."""
        return self.group.distance(self, self._same_group(other))

    def is_identity(self) -> Tensor:
        """Say which elements are the identity, shape ``shape``, bool."""
        return self.equals(self.group.identity(device=self.device))

    def equals(self, other: Element) -> Tensor:
        """Compare element by element, shape broadcast, bool."""
        return self.group.equal_values(self.value, self._same_group(other).value)

    def reshape(self, *shape: int) -> Element:
        """Return the same elements with another batch shape."""
        return Element(self.group, self.value.reshape(*shape, *self.value.shape[len(self.shape) :]))

    def expand(self, *shape: int) -> Element:
        """Return the elements broadcast to the batch shape ``shape``."""
        if self.shape == shape:
            return self
        return Element(self.group, self.value.expand(*shape, *self.value.shape[len(self.shape) :]))

    def compose(self, other: Element) -> Element:
        """Return ``self @ other``: first ``other``, then ``self``."""
        return self.group.compose(self, self._same_group(other))

    def inverse(self) -> Element:
        """Return ``~self``; used inside the library, since ``torch.compile`` does not trace ``~``."""
        return self.group.inverse(self)

    __matmul__ = compose
    __invert__ = inverse

    def __getitem__(self, index: Any) -> Element:
        return Element(self.group, self.value[index])

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a single element has no length; only a batch of elements does")
        return self.shape[0]

    def __iter__(self) -> Iterator[Element]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"Element({self.group}, {self.value.tolist()})"

    def _same_group(self, other: Element) -> Element:
        if not isinstance(other, Element):
            raise TypeError(f"expected an Element of {self.group}, got {type(other).__name__}")
        if other.group != self.group:
            raise ValueError(f"elements must belong to one group, got {self.group} and {other.group}")
        return other
