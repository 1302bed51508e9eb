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
    the component of the identity.
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
