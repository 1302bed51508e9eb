"""Energies that compare features with those of upright references, or with given directions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .._checks import check_batch, check_positive
from ..actions import act
from ..groups.base import FiniteGroup
from ..groups.parse import parse_finite_group
from ..kinds import Image
from .base import Answers, Energy, Predictor, evaluating, read

FEATURES = ("image_embeds", "pooler_output", "logits")
"""Entries of a model's output that hold one vector a picture, the preferred first."""


def features_of(model: Predictor, pictures: Tensor, chunk: int = 64) -> Tensor:
    """Return the features of pictures, shape ``(N, D)``, without gradients, a chunk at a time."""
    with torch.no_grad(), evaluating(model):
        return torch.cat([vectors(model(part)) for part in torch.split(pictures, chunk)])


def vectors(output: Any) -> Tensor:
    """Read one vector a picture out of a model's output: maps and tokens are averaged over places."""
    found = read(output, FEATURES)
    if found.ndim == 4:
        found = found.mean((-1, -2))
    elif found.ndim == 3:
        found = found.mean(1)
    if found.ndim != 2:
        raise ValueError(f"features must be vectors (N, D) or maps, got shape {tuple(found.shape)}")
    return found if found.dtype == torch.float64 else found.float()


@dataclass(frozen=True, eq=False)
class _OfFeatures(Energy):
    """What energies of features share.

    Attributes:
        features: The frozen model whose output is read, such as a `Layers`.
    """

    features: Predictor

    @property
    def predictors(self) -> tuple[Predictor, ...]:
        """The model."""
        return (self.features,)

    def _vectors(self, answers: Answers) -> Tensor:
        return vectors(answers(self.features))

    def _references(self, given: Tensor, name: str = "references") -> Tensor:
        """Return features ``(M, D)``: as given, or those of pictures."""
        if not isinstance(given, Tensor) or given.ndim not in (2, 4) or not len(given):
            got = tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__
            raise ValueError(f"{name} must be features (M, D) or pictures (M, C, H, W), got {got}")
        return features_of(self.features, given) if given.ndim == 4 else given


@dataclass(frozen=True, eq=False)
class NearestFeatures(_OfFeatures):
    """Mean distance to the nearest references, between features of length 1.

    Attributes:
        references: Upright pictures ``(M, C, H, W)``, or their features ``(M, D)``, which are kept.
        neighbours: How many of the nearest count.

    Reference:
        Sun et al. 2022, "Out-of-distribution detection with deep nearest neighbors", arXiv 2204.06507.
    """

    references: Tensor
    neighbours: int = 1

    def __post_init__(self) -> None:
        check_positive("neighbours", self.neighbours)
        known = F.normalize(self._references(self.references), dim=1)
        object.__setattr__(self, "references", known)

    def measure(self, pictures: Tensor, answers: Answers) -> Tensor:
        """Return the distances, shape ``(N,)``."""
        found = F.normalize(self._vectors(answers), dim=1)
        near = found @ self.references.to(found).T  # cosines, (N, M)
        best = near.topk(min(self.neighbours, near.shape[1]), dim=1).values
        return (2 - 2 * best).clamp(min=1e-12).sqrt().mean(1)


@dataclass(frozen=True, eq=False)
class Mahalanobis(_OfFeatures):
    """Half the squared Mahalanobis distance to a Gaussian of the references, or to the nearest of several.

    The difference of two is the relative distance: ``Mahalanobis(f, upright) - Mahalanobis(f, turned)``.

    Attributes:
        references: Upright pictures ``(M, C, H, W)``, or their features ``(M, D)``; only mean and covariance
            are kept.
        labels: Class of each reference, shape ``(M,)``: a mean for each class, one covariance for all.
        shrinkage: Share of a multiple of the identity in the covariance, in [0, 1]; None: the oracle
            approximating shrinkage (Chen et al. 2010, equation 23).

    Reference:
        Lee et al. 2018, arXiv 1807.03888; relative: Ren et al. 2021, arXiv 2106.09022.
    """

    references: Tensor
    labels: Tensor | None = None
    shrinkage: float | None = None
    means: Tensor = field(init=False)
    whitening: Tensor = field(init=False)

    def __post_init__(self) -> None:
        known = self._references(self.references).double()
        labels = torch.zeros(len(known), dtype=torch.long) if self.labels is None else self.labels
        check_batch("labels", len(labels), len(known), "references")
        numbers = torch.unique(labels, return_inverse=True)[1].to(known.device)
        count = int(numbers.max()) + 1
        sums = known.new_zeros(count, known.shape[1]).index_add_(0, numbers, known)
        means = sums / torch.bincount(numbers, minlength=count).unsqueeze(1)
        covariance = shrunk(known - means[numbers], self.shrinkage)
        factor = torch.linalg.cholesky(covariance)
        eye = torch.eye(len(factor), dtype=factor.dtype, device=factor.device)
        whitening = torch.linalg.solve_triangular(factor, eye, upper=False).T  # W Wᵀ = covariance⁻¹
        for name, value in (("means", means @ whitening), ("whitening", whitening)):
            object.__setattr__(self, name, value.float())
        object.__setattr__(self, "references", known[:0])

    def measure(self, pictures: Tensor, answers: Answers) -> Tensor:
        """Return half the squared distances, shape ``(N,)``."""
        found = self._vectors(answers)
        white = found @ self.whitening.to(found)
        return 0.5 * torch.cdist(white, self.means.to(found)).square().amin(1)


@dataclass(frozen=True, eq=False)
class Discriminant(_OfFeatures):
    """Minus the log odds, by one linear function, that pictures are upright and not the same ones moved.

    Fisher's discriminant of the differences between the features of upright references and of the same ones
    moved: what tells pictures apart but not poses cancels before anything is fitted. If the differences are
    Gaussian, ``d ~ N(±m, S)``, the log odds of an order are ``2 mᵀ S⁻¹ d``: in closed form, without training
    step by step. See `discriminant`, which makes the differences.

    Attributes:
        differences: Features of upright references less those of the same moved, shape ``(M, D)``; only
            their mean and covariance are used, and only one direction is kept.
        shrinkage: Share of a multiple of the identity in the covariance, in [0, 1]; None: as in
            `Mahalanobis`, which is too little where differences of one picture resemble each other.

    Reference:
        Fisher 1936, "The use of multiple measurements in taxonomic problems", Annals of Eugenics 7.
    """

    differences: Tensor
    shrinkage: float | None = 0.3
    direction: Tensor = field(init=False)

    def __post_init__(self) -> None:
        known = self.differences
        if known.ndim != 2 or not len(known):
            raise ValueError(f"differences must have shape (M, D), at least one, got {tuple(known.shape)}")
        known = known if known.dtype == torch.float64 else known.float()
        mean = known.mean(0)
        covariance = shrunk(known - mean, self.shrinkage).double()
        direction = 2 * torch.linalg.solve(covariance, mean.double())
        object.__setattr__(self, "direction", direction.float())
        object.__setattr__(self, "differences", known[:0])

    def measure(self, pictures: Tensor, answers: Answers) -> Tensor:
        """Return minus the log odds but for a constant, shape ``(N,)``."""
        found = self._vectors(answers)
        return -(found @ self.direction.to(found))


@dataclass(frozen=True, eq=False)
class Similarity(_OfFeatures):
    """Minus the largest cosine to any of the targets: a CLIP-like score.

    Attributes:
        targets: Embeddings of texts ("a photo, upright") or of pictures, shape ``(M, D)``.
    """

    targets: Tensor

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", F.normalize(self._references(self.targets, "targets"), dim=1))

    def measure(self, pictures: Tensor, answers: Answers) -> Tensor:
        """Return minus the cosines, shape ``(N,)``."""
        found = F.normalize(self._vectors(answers), dim=1)
        return -(found @ self.targets.to(found).T).amax(1)


def shrunk(centred: Tensor, shrinkage: float | None) -> Tensor:
    """Return the covariance of centred features ``(M, D)``, shrunk towards a multiple of the identity.

    Raises:
        ValueError: If ``shrinkage`` is not in [0, 1].
    """
    count, size = centred.shape
    covariance = centred.T @ centred / count
    trace = covariance.trace()
    if shrinkage is None:
        square = covariance.square().sum()
        above = (1 - 2 / size) * square + trace**2
        below = (count + 1 - 2 / size) * (square - trace**2 / size)
        shrinkage = 1.0 if below <= 0 else min(1.0, float(above / below))
    if not 0 <= shrinkage <= 1:
        raise ValueError(f"shrinkage must lie in [0, 1], got {shrinkage}")
    eye = torch.eye(size, dtype=covariance.dtype, device=covariance.device)
    floor = torch.finfo(torch.float32).eps * trace.clamp(min=1e-30) / size  # positive definite in any case
    return (1 - shrinkage) * covariance + (shrinkage * trace / size + floor) * eye


def relative(
    kind: Callable[[Predictor, Tensor], Energy],
    features: Predictor,
    pictures: Tensor,
    group: FiniteGroup | str,
) -> Energy:
    """Return how much nearer pictures are to upright references than to the same references moved.

    What tells pictures apart but not poses cancels in the difference, which single distances do not do.

    Args:
        kind: Such as `Mahalanobis` or `NearestFeatures`; called as ``kind(features, references)``.
        features: The frozen model whose output is read.
        pictures: Upright references, shape ``(M, C, H, W)``, square.
        group: The finite group whose other elements move them.

    Example:
        >>> energy = relative(Mahalanobis, lambda x: x.mean(3).flatten(1), torch.rand(50, 1, 4, 4), "C4")
        >>> energy(torch.rand(2, 1, 4, 4)).shape
        torch.Size([2])
    """
    moved = _moved_features(features, pictures, group)
    return kind(features, moved[0]) - kind(features, torch.cat(moved[1:]))


def discriminant(
    features: Predictor,
    pictures: Tensor,
    group: FiniteGroup | str,
    *,
    shrinkage: float | None = 0.3,
) -> Discriminant:
    """Return the `Discriminant` of upright pictures and the same moved by the other elements of a group.

    Args:
        features: The frozen model whose output is read, such as a `Layers`.
        pictures: Upright references, shape ``(M, C, H, W)``, square; the more, the better.
        group: The finite group.
        shrinkage: See `Discriminant`.

    Example:
        >>> energy = discriminant(lambda x: x.mean(3).flatten(1), torch.rand(50, 1, 4, 4), "C4")
        >>> energy(torch.rand(2, 1, 4, 4)).shape
        torch.Size([2])
    """
    upright, *moved = _moved_features(features, pictures, group)
    return Discriminant(features, torch.cat([upright - other for other in moved]), shrinkage)


def _moved_features(features: Predictor, pictures: Tensor, group: FiniteGroup | str) -> list[Tensor]:
    """Return the features of pictures moved by every element, the identity first."""
    parsed = parse_finite_group(group)
    moved = [features_of(features, act(g, Image(pictures)).data) for g in parsed.elements()]
    if len(moved) < 2:
        raise ValueError(f"group must have elements that move something, got {parsed}")
    return moved
