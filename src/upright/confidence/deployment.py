"""Deployment priors: how often each pose occurs in use, given, or estimated from inputs without labels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._checks import check_positive
from ..canonicalizers.base import Canonicalizer
from ..canonicalizers.pose import Pose
from ..groups.base import Element, FiniteGroup, Group
from ..groups.parse import parse_group
from ..groups.planar import PlanarGroup
from ..priors import CategoricalPrior, Prior, UniformPrior


@dataclass(frozen=True)
class NearUprightPrior(Prior):
    """A share of the inputs stands within an angle of upright, unreflected; the others lie anyhow.

    Both parts are uniform. It is for groups of planar turns, continuous ones above all.

    Args:
        share: Share of the inputs near upright, in 0…1.
        within_degrees: Largest angle that counts as near.
    """

    share: float
    within_degrees: float

    def __post_init__(self) -> None:
        _check_share(self.share)
        if not 0 < self.within_degrees < 180:
            raise ValueError(f"within_degrees must lie between 0 and 180, got {self.within_degrees}")

    def log_probs(self, group: FiniteGroup) -> Tensor:
        """Return the log-probabilities of a finite planar group."""
        return near_upright(group, self.share, self.within_degrees).log_probs(group)

    def log_density(self, elements: Element) -> Tensor:
        """Return the logarithm of the density with respect to the uniform one; shape ``elements.shape``."""
        group = elements.group
        if isinstance(group, FiniteGroup):
            return super().log_density(elements)
        inside = UniformPrior(max_degrees=self.within_degrees).log_density(elements).isfinite()
        near = near_share(group, self.within_degrees)
        log = [math.log(x) if x else -math.inf for x in (self.share / near, (1 - self.share) / (1 - near))]
        return torch.where(inside, log[0], log[1])


def deployment_prior(
    group: Group | str, upright: float, *, within_degrees: float | None = None
) -> CategoricalPrior | NearUprightPrior:
    """Return the prior "so many inputs stand upright, the others lie in any other pose".

    Args:
        group: The group, or its name.
        upright: Share of upright inputs, in 0…1.
        within_degrees: What counts as upright besides the identity: turns by at most so many degrees, without
            reflection. Needed for continuous groups.

    Returns:
        The prior, for ``canonicalizer.with_prior`` or ``robust.with_prior``.

    Raises:
        TypeError: If the group is continuous and ``within_degrees`` is not given, or is given and the group
            does not turn the plane.
        ValueError: If a number is out of its range.

    Example:
        >>> deployment_prior("C2", upright=0.75).probs
        (0.75, 0.25)
    """
    parsed = parse_group(group)
    _check_share(upright)
    if isinstance(parsed, FiniteGroup):
        return near_upright(parsed, upright, within_degrees or 0.0)
    if within_degrees is None or not isinstance(parsed, PlanarGroup):
        raise TypeError(
            f"upright needs a tolerance in {parsed}; give within_degrees for groups of planar turns, or take "
            "a VonMisesPrior"
        )
    return NearUprightPrior(upright, within_degrees)


@dataclass(frozen=True, eq=False)
class EstimatedPrior:
    """A deployment prior estimated from inputs without labels.

    Attributes:
        prior: The prior.
        upright: Share of upright inputs.
        low: Lower ends of the bootstrap intervals of ``history[-1]``, shape ``(K,)``.
        high: Upper ends.
        history: Shares of the ``K`` classes of poses after every iteration, the start first, shape
            ``(T, K)``: the elements of a finite group; near upright and not, for a continuous one.
        log_likelihood: Mean log-likelihood of an input along the way, up to a constant, shape ``(T,)``.
        converged: Whether the shares came to rest.
        inputs: Number of inputs.
    """

    prior: CategoricalPrior | NearUprightPrior
    upright: float
    low: Tensor
    high: Tensor
    history: Tensor
    log_likelihood: Tensor
    converged: bool
    inputs: int


@torch.no_grad()
def estimate_prior(
    source: Any,
    pictures: Any = None,
    *,
    within_degrees: float | None = None,
    smoothing: float = 0.1,
    iterations: int = 2000,
    tolerance: float = 1e-7,
    draws: int = 200,
    confidence: float = 0.95,
    seed: int = 0,
) -> EstimatedPrior:
    """Estimate from unlabelled inputs how often each pose occurs in use, by expectation and maximisation.

    The posteriors of an equivariant canonicalizer are those under a uniform prior: every picture counts alike
    in all its poses. The shares ``π`` of another population maximise the likelihood of the inputs,
    ``Σ log Σ_g π_g p(g | x)``; every step re-weights the posteriors by ``π`` and takes their mean. What comes
    out is as good as the confidences are calibrated; see `upright.evaluation.calibration`.

    Args:
        source: A canonicalizer or an adapted model, whose own deployment prior is left out of account; or
            `Pose` values made without one, one or many.
        pictures: Inputs as they come in use, for the first two: a tensor ``(N, C, H, W)``, or batches of them
            (tensors, lists of ``(C, H_i, W_i)``, or what begins with one, as loaders yield).
        within_degrees: For continuous groups of planar turns: what counts as upright.
        smoothing: Pseudo-count of every class of poses, so that no pose becomes impossible.
        iterations: Most iterations.
        tolerance: Change of the shares at which they count as at rest.
        draws: Bootstrap resamples of the inputs. Where next to no input is turned they cannot vary much, and
            the interval is too short.
        confidence: Coverage of the intervals.
        seed: Seed of the resamples.

    Returns:
        The prior, with its intervals and its history.

    Raises:
        TypeError: If there is no posterior, or ``within_degrees`` is missing.
        ValueError: If there are no inputs.

    Reference:
        Saerens, Latinne and Decaestecker 2002, "Adjusting the outputs of a classifier to new a priori
        probabilities", Neural Computation 14(1), equation 2.9.
    """
    check_positive("iterations", iterations)
    check_positive("draws", draws)
    poses = list(_poses(source, pictures))
    if not poses or not sum(len(pose.element) for pose in poses):
        raise ValueError("no inputs to estimate the prior from; give at least one picture")
    group = poses[0].group
    parts = [_classes(pose, within_degrees) for pose in poses]
    posterior, trained = torch.cat([part for part, _ in parts]), parts[0][1]
    ones = torch.ones(1, len(posterior), dtype=torch.float64)
    history, converged = _maximize(posterior, trained, ones, trained[None], smoothing, iterations, tolerance)
    shares = history[-1][0]
    low, high = _interval(posterior, trained, shares, smoothing, iterations, draws, confidence, seed)
    along = torch.cat(history)
    if isinstance(group, FiniteGroup):
        prior: CategoricalPrior | NearUprightPrior = CategoricalPrior(shares.tolist())
    else:
        assert within_degrees is not None
        prior = NearUprightPrior(float(shares[0]), within_degrees)
    likelihood = (posterior @ (along / trained).T).log().mean(0)
    return EstimatedPrior(
        prior, float(shares[0]), low, high, along, likelihood, converged, len(posterior)
    )  # fmt: skip


def _interval(
    posterior: Tensor,
    trained: Tensor,
    shares: Tensor,
    smoothing: float,
    iterations: int,
    draws: int,
    confidence: float,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """Return the ends of the bootstrap intervals of the shares, each ``(K,)``; inputs are resampled."""
    rng = torch.Generator().manual_seed(seed)
    picked = torch.randint(0, len(posterior), (draws, len(posterior)), generator=rng)
    counts = torch.zeros(draws, len(posterior), dtype=torch.float64)
    counts.scatter_add_(1, picked, torch.ones_like(picked, dtype=torch.float64))
    start = (shares.clamp(min=1e-6) / shares.clamp(min=1e-6).sum()).expand(draws, -1)
    resampled, _ = _maximize(posterior, trained, counts, start, smoothing, iterations, 1e-5)
    ends = torch.tensor([0.5 - confidence / 2, 0.5 + confidence / 2], dtype=torch.float64)
    low, high = resampled[-1].quantile(ends, dim=0)
    return low, high


def _maximize(
    posterior: Tensor,
    trained: Tensor,
    counts: Tensor,
    start: Tensor,
    smoothing: float,
    iterations: int,
    tolerance: float,
) -> tuple[list[Tensor], bool]:
    """Iterate for several resamples at once.

    Args:
        posterior: Probabilities under ``trained``, shape ``(N, K)``.
        trained: Prior of the posteriors, shape ``(K,)``.
        counts: How often each input counts, shape ``(D, N)``.
        start: Shares to start from, shape ``(D, K)``.
        smoothing: Pseudo-count of every class.
        iterations: Most iterations.
        tolerance: Change at which to stop.

    Returns:
        The shares after every iteration, each ``(D, K)``, the start first; and whether they came to rest.
    """
    likelihood = posterior / trained
    total = counts.sum(1, keepdim=True) + smoothing * posterior.shape[1]
    history = [start]
    for _ in range(iterations):
        shares = history[-1]
        evidence = (shares @ likelihood.T).clamp(min=1e-300)  # (D, N)
        history.append((shares * ((counts / evidence) @ likelihood) + smoothing) / total)
        if float((history[-1] - shares).abs().max()) < tolerance:
            return history, True
    return history, False


def _poses(source: Any, pictures: Any) -> Iterator[Pose]:
    """Return the posteriors under a uniform prior."""
    chosen = getattr(source, "canonicalizer", source)
    if isinstance(chosen, Canonicalizer):
        if pictures is None:
            raise TypeError("pictures are needed to estimate the prior from; give them after the model")
        if chosen.deployment_prior is not None:
            chosen = chosen.with_prior(None)
        was_training, chosen = chosen.training, chosen.eval()
        try:
            yield from (chosen(batch) for batch in batches_of(pictures))
        finally:
            chosen.train(was_training)
    elif pictures is not None:
        raise TypeError(f"source must be a canonicalizer or an adapted model, got {type(source).__name__}")
    else:
        yield from [source] if isinstance(source, Pose) else source


def batches_of(pictures: Any, size: int = 64) -> Iterable[Any]:
    """Return batches: parts of a tensor ``(N, C, H, W)``, or what the batches of a loader begin with."""
    if isinstance(pictures, Tensor):
        return torch.split(pictures, size)
    return (_pictures(batch) for batch in pictures)


def _pictures(batch: Any) -> Any:
    """Return the pictures of a batch: what comes first if that is a batch itself."""
    if isinstance(batch, (tuple, list)) and batch:
        first = batch[0]
        if isinstance(batch, tuple) or (isinstance(first, Tensor) and first.ndim == 4):
            return first
    return batch


def _classes(pose: Pose, within_degrees: float | None) -> tuple[Tensor, Tensor]:
    """Return probabilities of classes of poses ``(B, K)``, and the prior under which they hold ``(K,)``."""
    if isinstance(pose.group, FiniteGroup) and pose.candidates is None:
        if pose.log_probs is None:
            raise TypeError("the poses have no posterior to estimate a prior from; take other poses")
        order = pose.group.order
        return pose.probs.double().cpu(), torch.full((order,), 1 / order, dtype=torch.float64)
    if within_degrees is None:
        raise TypeError(f"upright needs a tolerance in {pose.group}; give within_degrees")
    if pose.grid is not None and pose.log_density is not None:
        listed, probs = pose.grid.expand(*pose.log_density.shape), pose.log_density.exp()
    else:
        raise TypeError(
            "the poses have no density over the group to estimate a prior from; use a canonicalizer with one"
        )
    inside = UniformPrior(max_degrees=within_degrees).log_density(listed).isfinite()
    near = torch.where(inside, probs, 0.0).sum(-1).double().cpu()
    share = inside.double().mean().cpu()
    return torch.stack([near, 1 - near], -1).clamp(0, 1), torch.stack([share, 1 - share])


def near_upright(group: FiniteGroup, share: float, within_degrees: float = 0.0) -> CategoricalPrior:
    """Return ``share`` spread evenly over the elements near the identity, and the rest over the others."""
    near = torch.zeros(group.order, dtype=torch.bool)
    near[0] = True
    if within_degrees:
        near = UniformPrior(max_degrees=within_degrees).log_probs(group).isfinite()
    inside, outside = int(near.sum()), int((~near).sum())
    if not outside:
        return CategoricalPrior([1.0] * group.order)
    return CategoricalPrior([share / inside if n else (1 - share) / outside for n in near.tolist()])


def near_share(group: Group, within_degrees: float) -> float:
    """Return the share of a continuous group of planar turns that turns by at most so many degrees."""
    with_reflections = bool(getattr(group, "value_ndim", 0))  # O(2): half of the group is reflected
    return within_degrees / (360 if with_reflections else 180)


def _check_share(share: float) -> None:
    if not 0 <= share <= 1:
        raise ValueError(f"upright must be a share in 0…1, got {share}")
