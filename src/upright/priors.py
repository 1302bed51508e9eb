"""Distributions over the poses of the pretraining data: what "canonical" means to the predictor."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .groups.base import Element, FiniteGroup
from .groups.planar import PlanarGroup


class Prior(ABC):
    """A distribution over the elements of a finite group."""

    @abstractmethod
    def log_probs(self, group: FiniteGroup) -> Tensor:
        """Return the log-probability of every element, shape ``(|G|,)``, float32; ``-inf``: impossible."""


@dataclass(frozen=True)
class IdentityPrior(Prior):
    """All pretraining data is upright: a point mass on the identity."""

    def log_probs(self, group: FiniteGroup) -> Tensor:
        """Return 0 for the identity, ``-inf`` for the others."""
        log_probs = torch.full((group.order,), -math.inf)
        log_probs[0] = 0.0
        return log_probs


@dataclass(frozen=True)
class CategoricalPrior(Prior):
    """Given probabilities.

    Args:
        probs: One probability per element, in the order of `FiniteGroup.elements`; they are normalised.
    """

    probs: tuple[float, ...]

    def __init__(self, probs: Sequence[float]) -> None:
        if not probs or any(p < 0 or not math.isfinite(p) for p in probs) or sum(probs) <= 0:
            raise ValueError(f"probs must be non-negative, finite and not all zero, got {list(probs)}")
        object.__setattr__(self, "probs", tuple(float(p) / sum(probs) for p in probs))

    def log_probs(self, group: FiniteGroup) -> Tensor:
        """Return the logarithms of the given probabilities."""
        if len(self.probs) != group.order:
            raise ValueError(f"probs must have {group.order} entries for {group}, got {len(self.probs)}")
        return torch.tensor(self.probs).log()

    @classmethod
    def estimate(cls, poses: Element | Iterable[Any], *, smoothing: float = 1.0) -> CategoricalPrior:
        """Estimate the probabilities from poses seen in data.

        Args:
            poses: Elements of a finite group, shape ``(N,)``, such as the annotated orientations of a data
                set; or an iterable of `Pose` whose posteriors are averaged.
            smoothing: Pseudo-count added to every element (Laplace), so that nothing is impossible.

        Returns:
            The categorical prior.
        """
        if isinstance(poses, Element):
            group = poses.group
            if not isinstance(group, FiniteGroup):
                raise TypeError(f"poses must be elements of a finite group, got {group}")
            counts = torch.bincount(poses.value.flatten(), minlength=group.order).double()
        else:
            posteriors: Iterable[Any] = poses
            totals = [pose.probs.double().sum(0) for pose in posteriors]
            if not totals:
                raise ValueError("poses must not be empty")
            counts = torch.stack(totals).sum(0)
        return cls((counts + smoothing).tolist())


@dataclass(frozen=True)
class UniformPrior(Prior):
    """Every element, or every element of a subset, equally likely.

    Args:
        max_degrees: Only elements that turn by at most this many degrees either way, without reflection.
        indices: Only the elements with these numbers.
    """

    max_degrees: float | None = None
    indices: tuple[int, ...] | None = None

    def log_probs(self, group: FiniteGroup) -> Tensor:
        """Return ``-log`` of the size of the subset on the subset, ``-inf`` elsewhere."""
        inside = torch.ones(group.order, dtype=torch.bool)
        if self.indices is not None:
            inside[:] = False
            inside[group.element(torch.tensor(self.indices)).value] = True
        if self.max_degrees is not None:
            if not isinstance(group, PlanarGroup):
                raise TypeError(f"max_degrees needs a planar group, got {group}")
            elements = group.elements()
            near = elements.distance(group.identity()) <= math.radians(self.max_degrees) + 1e-9
            inside &= near & ~group.is_reflected(elements)
        if not bool(inside.any()):
            raise ValueError(f"the subset of {group} must not be empty; got {self}")
        return torch.where(inside, -math.log(int(inside.sum())), -math.inf)
