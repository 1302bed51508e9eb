"""Numbers from records: intervals, accuracies, calibration. Pure functions of tensors.

Convention:
    Records have shape ``(N, P)``: one row a picture, one column a pose; column 0 is upright (the identity).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

INVALID = -1
"""The prediction where a model's scores were not numbers: it agrees with nothing, itself included."""

RESAMPLES = 400
"""How many resamples of the pictures make an interval where there is no closed form."""


@dataclass(frozen=True)
class Estimate:
    """A number with its confidence interval.

    Attributes:
        value: The number; a share lies in 0…1.
        low: Lower end of the interval.
        high: Upper end of the interval.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Bin:
    """One bin of a reliability diagram.

    Attributes:
        confidence: Mean confidence in the bin.
        accuracy: Share of right choices in the bin.
        share: Share of all choices that fall into the bin.
    """

    confidence: float
    accuracy: float
    share: float


def normal_quantile(confidence: float) -> float:
    """Return the half-width of a two-sided normal interval, in standard deviations."""
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def wilson(share: float, count: float, confidence: float = 0.95) -> Estimate:
    """Return a share with its Wilson score interval, which stays in 0…1 and never has width 0.

    Args:
        share: The share observed.
        count: Number of independent observations (may be a fraction: an effective number).
        confidence: Coverage of the interval.

    Reference:
        E. B. Wilson, Probable inference, the law of succession, and statistical inference, 1927.

    Example:
        >>> round(wilson(1.0, 10).low, 3)
        0.722
    """
    z2 = normal_quantile(confidence) ** 2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = math.sqrt(z2 * (share * (1 - share) / count + z2 / (4 * count * count))) / (1 + z2 / count)
    return Estimate(share, min(max(0.0, centre - half), share), max(min(1.0, centre + half), share))


def clustered(right: Tensor, confidence: float = 0.95) -> Estimate:
    """Return the mean over pictures and poses; its interval knows that poses of one picture go together.

    The variance of the mean is taken between pictures (cluster-robust); a Wilson interval is formed with the
    number of independent observations that would give this variance.

    Args:
        right: What was right, shape ``(N, P)``, bool.
        confidence: Coverage of the interval.

    Returns:
        The mean; its interval is that of ``N`` observations if all poses of a picture always agree, that of
        ``N·P`` if they are independent.
    """
    means = right.double().mean(1)
    share, count = float(means.mean()), len(means)
    variance = float(means.var(correction=1)) / count if count > 1 else 0.0
    effective = share * (1 - share) / variance if variance > 0 else float(count)
    return wilson(share, max(effective, 1.0), confidence)


def resamples(count: int, number: int = RESAMPLES) -> Tensor:
    """Return how often each picture occurs in resamples of all, shape ``(R, N)``, float64; always the same.

    Reference:
        B. Efron, Bootstrap methods: another look at the jackknife, 1979.
    """
    drawn = torch.randint(count, (number, count), generator=torch.Generator().manual_seed(0))
    return torch.zeros(number, count, dtype=torch.float64).scatter_add_(
        1, drawn, torch.ones(number, count, dtype=torch.float64)
    )


def quantiles(value: float, draws: Tensor, confidence: float = 0.95) -> Estimate:
    """Return a value with the interval between quantiles of its resamples (percentile bootstrap).

    Args:
        value: The value on all pictures, which the interval always holds.
        draws: The value on resamples, shape ``(R,)``; NaN is left out.
        confidence: Coverage of the interval.
    """
    ends = torch.tensor([0.5 - confidence / 2, 0.5 + confidence / 2], dtype=draws.dtype)
    low, high = draws.nanquantile(ends).tolist()
    return Estimate(value, min(low, value), max(high, value))


def standard_error(x: Tensor) -> float:
    """Return the standard error of the mean of independent values, shape ``(N,)``; 0 for fewer than two."""
    return float(x.double().std(correction=1)) / math.sqrt(len(x)) if len(x) > 1 else 0.0


def reliability(confidence: Tensor, right: Tensor, bins: int = 15) -> tuple[float, tuple[Bin, ...]]:
    """Return the expected calibration error and the bins of the reliability diagram.

    Args:
        confidence: Confidence of every choice in 0…1, any shape.
        right: Whether it was right, the same shape.
        bins: Number of bins of equal width.

    Reference:
        Guo et al. 2017, arXiv 1706.04599, equation 3.
    """
    from torchmetrics.functional.classification import binary_calibration_error

    p, hit = confidence.flatten().clamp(0, 1).double(), right.flatten()
    error = float(binary_calibration_error(p, hit.long(), n_bins=bins, norm="l1", validate_args=False))
    which = (p * bins).ceil().clamp(1, bins).long() - 1  # bins are open below, closed above
    filled = []
    for i in range(bins):
        inside = which == i
        if bool(inside.any()):
            share = float(inside.double().mean())
            filled.append(Bin(float(p[inside].mean()), float(hit[inside].double().mean()), share))
    return error, tuple(filled)
