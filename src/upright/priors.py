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
from .groups.product import Product
from .groups.space import SpatialGroup

IDENTITY_CONCENTRATION = 50.0
"""Concentration of `IdentityPrior` on continuous groups: a standard deviation of 8°."""


class Prior(ABC):
    """A distribution over the elements of a group."""

    @abstractmethod
    def log_probs(self, group: FiniteGroup) -> Tensor:
        """Return the log-probability of every element, shape ``(|G|,)``, float32; ``-inf``: impossible."""

    def log_density(self, elements: Element) -> Tensor:
        """Return the logarithm of the density at elements, up to a constant; shape ``elements.shape``.

        Raises:
            TypeError: If the prior has no density on the elements' group.
        """
        group = elements.group
        if not isinstance(group, FiniteGroup):
            raise TypeError(
                f"{type(self).__name__} has no density on {group}; use an IdentityPrior, a VonMisesPrior or "
                "a UniformPrior"
            )
        return self.log_probs(group).to(elements.device)[elements.value]


@dataclass(frozen=True)
class IdentityPrior(Prior):
    """All pretraining data is upright: a point mass on the identity.

    On a continuous group, where a point has no mass: a bell of `IDENTITY_CONCENTRATION` about the identity.
    """

    def log_probs(self, group: FiniteGroup) -> Tensor:
        """Return 0 for the identity, ``-inf`` for the others."""
        log_probs = torch.full((group.order,), -math.inf)
        log_probs[0] = 0.0
        return log_probs

    def log_density(self, elements: Element) -> Tensor:
        """Return the bell's logarithm: von Mises in angles, matrix Fisher in space, Gaussian elsewhere."""
        group = elements.group
        if isinstance(group, FiniteGroup):
            return super().log_density(elements)
        if isinstance(group, PlanarGroup):
            return _von_mises(elements, 0.0, IDENTITY_CONCENTRATION)
        if isinstance(group, SpatialGroup):
            return MatrixFisherPrior().log_density(elements)
        away = elements.distance(group.identity(device=elements.device))
        return (-0.5 * IDENTITY_CONCENTRATION * away**2).float()


@dataclass(frozen=True)
class VonMisesPrior(Prior):
    """Angles spread about a mean as ``exp(concentration · cos(angle - mean))``; nothing is reflected.

    Args:
        mean_degrees: Mean angle, in degrees, counter-clockwise.
        concentration: At least 0; 0 is uniform. The standard deviation is about ``57.3° / √concentration``.
    """

    mean_degrees: float = 0.0
    concentration: float = IDENTITY_CONCENTRATION

    def __post_init__(self) -> None:
        if not (self.concentration >= 0 and math.isfinite(self.concentration)):
            raise ValueError(f"concentration must be at least 0 and finite, got {self.concentration}")
        if not math.isfinite(self.mean_degrees):
            raise ValueError(f"mean_degrees must be finite, got {self.mean_degrees}")

    def log_probs(self, group: FiniteGroup) -> Tensor:
        """Return the density at the elements of a finite planar group, normalised over them."""
        return torch.log_softmax(self.log_density(group.elements()), -1)

    def log_density(self, elements: Element) -> Tensor:
        """Return ``concentration · cos(angle - mean)``, and ``-inf`` for reflections.

        In products with the plane's rotations, this for the angle, and `IdentityPrior` for each other factor:
        with scales a von Mises density times a normal one of their logarithms.
        """
        if isinstance(elements.group, Product) and not isinstance(elements.group, FiniteGroup):
            parts = elements.group.parts(elements)
            terms = [
                self.log_density(part)
                if isinstance(part.group, PlanarGroup)
                else IdentityPrior().log_density(part)
                for part in parts
            ]
            return torch.stack(terms).sum(0)
        return _von_mises(elements, math.radians(self.mean_degrees), self.concentration)

    @classmethod
    def estimate(cls, poses: Element | Iterable[Any]) -> VonMisesPrior:
        """Estimate mean and concentration from poses seen in data, by maximum likelihood.

        Args:
            poses: Elements of a group of rotations, shape ``(N,)``; or an iterable of `Pose` whose listed
                elements count by their probabilities. Reflections do not count.

        Returns:
            The prior; the concentration is at most 10,000 (a standard deviation of 0.6°).

        Raises:
            TypeError: If the elements are not planar.
            ValueError: If there are none.

        Reference:
            Mardia and Jupp 2000, "Directional Statistics", section 5.3.1.
        """
        if isinstance(poses, Element):
            pairs = [(poses, torch.ones(poses.shape))]
        else:
            posteriors: Iterable[Any] = poses
            pairs = [pose.top_k() for pose in posteriors]
        resultant, total = torch.zeros(2, dtype=torch.float64), 0.0
        for elements, weights in pairs:
            group = elements.group
            if not isinstance(group, PlanarGroup):
                raise TypeError(f"poses must be planar, got elements of {group}")
            counted = weights.double().to(elements.device) * ~group.is_reflected(elements)
            angle = group.angle(elements).detach()
            resultant += torch.stack([(counted * angle.cos()).sum(), (counted * angle.sin()).sum()]).cpu()
            total += float(counted.sum())
        if not total > 0:
            raise ValueError("poses must hold at least one rotation; got none")
        mean = math.degrees(math.atan2(float(resultant[1]), float(resultant[0])))
        return cls(mean, _concentration(float(resultant.norm()) / total))


@dataclass(frozen=True)
class MatrixFisherPrior(Prior):
    """Rotations of space spread about the identity or about an axis, ``exp(tr(Fᵀ R))``; nothing is reflected.

    Translations do not count.

    Args:
        concentration: At least 0; 0 is uniform. The standard deviation of the angle about each axis is about
            ``57.3° / √concentration``.
        upright: None: everything stands as it should. An axis, ``(x, y, z)``: this axis does, such as the
            vertical of things that stand on the ground, and the angle about it is uniform.

    Reference:
        Mardia and Jupp 2000, "Directional Statistics", section 13.2.3.
    """

    concentration: float = IDENTITY_CONCENTRATION
    upright: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        if not (self.concentration >= 0 and math.isfinite(self.concentration)):
            raise ValueError(f"concentration must be at least 0 and finite, got {self.concentration}")
        if self.upright is not None and not 0 < math.hypot(*self.upright) < math.inf:
            raise ValueError(f"upright must be an axis (x, y, z) of finite length, got {self.upright}")

    def log_probs(self, group: FiniteGroup) -> Tensor:
        """Return the density at the elements of a finite spatial group, normalised over them."""
        return torch.log_softmax(self.log_density(group.elements()), -1)

    def log_density(self, elements: Element) -> Tensor:
        """Return the logarithm of the density, 0 at its top, and ``-inf`` for reflections."""
        group = elements.group
        if not isinstance(group, SpatialGroup):
            raise TypeError(f"a matrix Fisher prior needs a group of rotations of space, got {group}")
        rotation = group.rotation(elements)
        if self.upright is None:
            cosine = (rotation.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
        else:
            axis = rotation.new_tensor(self.upright)
            axis = axis / axis.norm()
            cosine = (rotation @ axis) @ axis
        bell = self.concentration * (cosine - 1)
        return torch.where(group.determinant(elements) < 0, -math.inf, bell).float()


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
        max_degrees: Only elements that turn by at most this many degrees either way, without reflection: an
            arc.
        indices: Only the elements with these numbers, of a finite group.
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
            inside &= _within(group.elements(), self.max_degrees)
        if not bool(inside.any()):
            raise ValueError(f"the subset of {group} must not be empty; got {self}")
        return torch.where(inside, -math.log(int(inside.sum())), -math.inf)

    def log_density(self, elements: Element) -> Tensor:
        """Return 0 on the subset and ``-inf`` elsewhere."""
        if isinstance(elements.group, FiniteGroup):
            return super().log_density(elements)
        if self.indices is not None:
            raise TypeError(f"indices need a finite group, got {elements.group}; use max_degrees")
        if self.max_degrees is None:
            return torch.zeros(elements.shape, device=elements.device)
        return torch.where(_within(elements, self.max_degrees), 0.0, -math.inf)


def _within(elements: Element, max_degrees: float) -> Tensor:
    """Say which elements turn by at most so many degrees, without reflection."""
    group = elements.group
    if not isinstance(group, PlanarGroup):
        raise TypeError(f"max_degrees needs a planar group, got {group}")
    near = elements.distance(group.identity(device=elements.device)) <= math.radians(max_degrees) + 1e-9
    return near & ~group.is_reflected(elements)


def _von_mises(elements: Element, mean: float, concentration: float) -> Tensor:
    """Return the logarithm of a von Mises density up to a constant; ``-inf`` for reflections."""
    group = elements.group
    if not isinstance(group, PlanarGroup):
        raise TypeError(f"a von Mises prior needs a group of planar rotations, got {group}")
    bell = concentration * (torch.cos(group.angle(elements) - mean) - 1)
    return torch.where(group.is_reflected(elements), -math.inf, bell).float()


def _concentration(length: float) -> float:
    """Solve ``I1(κ) / I0(κ) = length`` by bisection, κ in [0, 10,000]."""
    low, high = 0.0, 1e4
    for _ in range(60):
        middle = torch.tensor((low + high) / 2, dtype=torch.float64)
        below = float(torch.special.i1e(middle) / torch.special.i0e(middle)) < length
        low, high = (float(middle), high) if below else (low, float(middle))
    return low if low > 1e-9 else 0.0
