"""What is measured: a metric keeps a record of every picture, and makes numbers of all records.

Convention:
    ``records[p][i]`` is the record of picture ``i`` at pose ``p``; pose 0 is upright. A resample of the
    pictures is a row of weights, ``(N,)``: how often each picture occurs in it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .metrics import (
    RESAMPLES,
    Estimate,
    clustered,
    normal_quantile,
    quantiles,
    resamples,
    standard_error,
    wilson,
)

Records = Sequence[Sequence[Any]]


@dataclass(frozen=True, eq=False)
class Measured:
    """One metric of one row at all poses.

    Attributes:
        values: The metric at every pose, shape ``(P,)``, float64.
        draws: The same over resamples of the pictures, shape ``(R, P)``; None where ``right`` is known.
        right: What was right, shape ``(N, P)``, bool, for shares of pictures, whose intervals need no
            resampling.
    """

    values: Tensor
    draws: Tensor | None = None
    right: Tensor | None = None

    @classmethod
    def of(cls, right: Tensor) -> Measured:
        """Return the shares of what was right, shape ``(N, P)``, bool."""
        return cls(right.double().mean(0), right=right)

    def at(self, p: int, confidence: float) -> Estimate:
        """Return the metric at one pose with its interval."""
        value = float(self.values[p])
        if self.right is not None:
            return wilson(value, len(self.right), confidence)
        assert self.draws is not None
        return quantiles(value, self.draws[:, p], confidence)

    def mean(self, confidence: float, start: int = 0) -> Estimate:
        """Return the mean over the poses from ``start`` on; its interval knows that poses go together."""
        if self.right is not None:
            return clustered(self.right[:, start:], confidence)
        assert self.draws is not None
        return quantiles(float(self.values[start:].mean()), self.draws[:, start:].mean(1), confidence)

    def worst(self, confidence: float, *, lower_is_better: bool = False) -> Estimate:
        """Return the metric at its worst pose.

        The interval is that of resamples of the pictures, each with its own worst pose, and holds that of the
        metric at the pose, without which it would have no width where nothing, or everything, was right.
        """
        draws = self.draws
        if self.right is not None:
            draws = resamples(len(self.right)) @ self.right.double() / len(self.right)
        assert draws is not None
        end = torch.amax if lower_is_better else torch.amin
        filled = draws.nan_to_num(-torch.inf if lower_is_better else torch.inf)
        lowest = end(filled, 1)
        found = torch.where(lowest.isfinite(), lowest, torch.nan)
        drawn = quantiles(float(end(self.values, 0)), found, confidence)
        place = int(self.values.argmax() if lower_is_better else self.values.argmin())
        there = self.at(place, confidence)
        return Estimate(drawn.value, min(drawn.low, there.low), max(drawn.high, there.high))


class Metric(ABC):
    """A number over pictures.

    Attributes:
        name: What it is called in tables.
        lower_is_better: Whether it is an error.
        is_share: Whether it lies in 0…1 and is shown in per cent.
    """

    name: str
    lower_is_better: bool
    is_share: bool

    @abstractmethod
    def record(self, prediction: Any, target: Any) -> Any:
        """Return what has to be kept of one picture; small, on the CPU."""

    @abstractmethod
    def values(self, records: Records, weights: Tensor) -> Tensor:
        """Return the metric at every pose over each resample, ``(R, P)``, float64.

        Args:
            records: Records of ``N`` pictures at ``P`` poses.
            weights: How often each picture counts, shape ``(R, N)``.
        """

    def measure(self, records: Records) -> Measured:
        """Return the metric at every pose, with what its intervals need."""
        draws = self.values(records, resamples(len(records[0]), self.resamples))
        return Measured(self.once(records), draws=draws)

    @property
    def resamples(self) -> int:
        """How many resamples make an interval."""
        return RESAMPLES

    def once(self, records: Records) -> Tensor:
        """Return the metric at every pose, shape ``(P,)``.

        Raises:
            ValueError: If it is not defined, since no picture has anything to be found.
        """
        values = self.values(records, torch.ones(1, len(records[0]), dtype=torch.float64))[0]
        if bool(values.isnan().any()):
            raise ValueError(
                f"{self.name} is not defined on these pictures: no target holds anything that counts; "
                "check the targets, or evaluate on more pictures"
            )
        return values


@dataclass(frozen=True)
class Mean(Metric):
    """The mean of a number of each picture, or the share of pictures that are right.

    Attributes:
        name: What it is called in tables.
        function: Called as ``function(prediction, target)``; a bool, or a number. NaN leaves the picture out.
        lower_is_better: Whether it is an error.
        is_share: Whether it lies in 0…1 and is shown in per cent.
    """

    name: str
    function: Callable[[Any, Any], Any]
    lower_is_better: bool = False
    is_share: bool = True

    def record(self, prediction: Any, target: Any) -> bool | float:
        """Return the number of one picture."""
        found = self.function(prediction, target)
        found = found.item() if isinstance(found, Tensor) else found
        return found if isinstance(found, bool) else float(found)

    def values(self, records: Records, weights: Tensor) -> Tensor:
        """Return the means, shape ``(R, P)``."""
        return weighted_mean(torch.tensor(records, dtype=torch.float64), weights)

    def measure(self, records: Records) -> Measured:
        """Return the means; shares have a closed form."""
        if all(isinstance(record, bool) for column in records for record in column):
            return Measured.of(torch.tensor(records).T)
        return super().measure(records)


@dataclass(frozen=True)
class Ratio(Metric):
    """A sum over pictures divided by another, such as right characters by all characters.

    Attributes:
        name: What it is called in tables.
        function: Called as ``function(prediction, target)``; returns two numbers, part and whole, or two
            tensors of one shape: then the metric is the mean of the ratios whose whole is not 0.
        lower_is_better: Whether it is an error.
        is_share: Whether it lies in 0…1 and is shown in per cent.
    """

    name: str
    function: Callable[[Any, Any], tuple[Any, Any]]
    lower_is_better: bool = False
    is_share: bool = True

    def record(self, prediction: Any, target: Any) -> Tensor:
        """Return part and whole of one picture, shape ``(2, K)``."""
        part, whole = (
            torch.as_tensor(x, dtype=torch.float64).cpu() for x in self.function(prediction, target)
        )
        return torch.stack([part.reshape(-1), whole.reshape(-1)])

    def values(self, records: Records, weights: Tensor) -> Tensor:
        """Return the ratios, shape ``(R, P)``."""
        longest = max(record.shape[1] for column in records for record in column)
        found = []
        for column in records:
            both = torch.zeros(len(column), 2, longest, dtype=torch.float64)
            for i, record in enumerate(column):
                both[i, :, : record.shape[1]] = record
            part, whole = (weights @ both.flatten(1)).view(len(weights), 2, longest).unbind(1)
            ratios = torch.where(whole > 0, part / whole, torch.nan)
            found.append(ratios.nanmean(1))
        return torch.stack(found, 1)


@dataclass(frozen=True)
class Torchmetric(Metric):
    """A metric of ``torchmetrics`` whose states are sums, or lists of what was seen.

    Attributes:
        name: What it is called in tables.
        metric: The metric; it is called with a prediction and a target, each with a batch axis of one in
            front where it is a tensor, and in a list where it is not.
    """

    name: str
    metric: Any

    @property
    def lower_is_better(self) -> bool:  # type: ignore[override]
        """Whether it is an error."""
        return self.metric.higher_is_better is False

    @property
    def is_share(self) -> bool:  # type: ignore[override]
        """Whether it lies in 0…1."""
        return (self.metric.plot_lower_bound, self.metric.plot_upper_bound) == (0.0, 1.0)

    def record(self, prediction: Any, target: Any) -> dict[str, Any]:
        """Return the state after one picture."""
        self.metric.reset()
        self.metric.update(_alone(prediction), _alone(target))
        state = {name: getattr(self.metric, name) for name in self.metric._defaults}
        return {name: list(x) if isinstance(x, list) else x.clone().cpu() for name, x in state.items()}

    def values(self, records: Records, weights: Tensor) -> Tensor:
        """Return what the metric computes from the states put together, shape ``(R, P)``."""
        found = [[self._value(column, row) for column in records] for row in weights]
        self.metric.reset()
        return torch.tensor(found, dtype=torch.float64)

    def _value(self, column: Sequence[Any], weights: Tensor) -> float:
        self.metric.reset()
        self.metric._update_count, self.metric._computed = len(column), None
        for name, default in self.metric._defaults.items():
            parts = [record[name] for record in column]
            if isinstance(default, list):
                whole = [x for part, w in zip(parts, weights.tolist(), strict=True) for x in part * int(w)]
            else:
                stacked = torch.stack(parts)
                whole = torch.tensordot(weights, stacked.double(), dims=1).to(stacked.dtype)
            setattr(self.metric, name, whole)
        return float(self.metric.compute())


def gap_closed(
    vanilla: Measured,
    adapted: Measured,
    oracle: Measured,
    confidence: float = 0.95,
    *,
    lower_is_better: bool = False,
) -> float | None:
    """Return (adapted − vanilla) / (oracle − vanilla), of the means over the orbit.

    Args:
        vanilla: The metric of the bare model.
        adapted: That of the adapted model.
        oracle: That of the model on pictures turned back by their true pose.
        confidence: How sure it must be that there is a gap.
        lower_is_better: Whether the metric is an error.

    Returns:
        The share; None where the oracle is not better beyond the noise (paired over pictures), so that a
        ratio would mean nothing.
    """
    sign = -1.0 if lower_is_better else 1.0
    gap = float(oracle.values.mean() - vanilla.values.mean())
    if oracle.right is not None and vanilla.right is not None:
        gaps = oracle.right.double().mean(1) - vanilla.right.double().mean(1)
        noise = normal_quantile(confidence) * standard_error(gaps) if len(gaps) > 1 else float("inf")
        is_clear = sign * gap > noise + 1e-12
    else:
        assert oracle.draws is not None
        assert vanilla.draws is not None
        gaps = sign * (oracle.draws.mean(1) - vanilla.draws.mean(1))
        is_clear = sign * gap > 0 and float(gaps.nanquantile(0.5 - confidence / 2)) > 1e-12
    return float(adapted.values.mean() - vanilla.values.mean()) / gap if is_clear else None


def as_metric(metric: Any) -> Metric:
    """Return a metric: itself, or one made of a ``torchmetrics`` object or a function of one picture.

    Raises:
        TypeError: If it is none of these.
    """
    from torchmetrics import Metric as Theirs

    if isinstance(metric, Metric):
        return metric
    if isinstance(metric, Theirs):
        _check_states(metric)
        return Torchmetric(type(metric).__name__, metric)
    if callable(metric):
        return Mean(getattr(metric, "__name__", type(metric).__name__).replace("_", " "), metric)
    raise TypeError(
        f"metrics must be functions of (prediction, target), torchmetrics objects or Metrics, got {metric!r}"
    )


def weighted_mean(table: Tensor, weights: Tensor) -> Tensor:
    """Return the means over pictures that are not NaN, shape ``(R, P)``.

    Args:
        table: Numbers at ``P`` poses of ``N`` pictures, shape ``(P, N)``, float64.
        weights: How often each picture counts, shape ``(R, N)``.
    """
    known = ~table.isnan()
    total = weights @ torch.where(known, table, 0.0).T
    return total / (weights @ known.T.double())  # NaN where nothing is known


def _check_states(metric: Any) -> None:
    for name, reduce in metric._reductions.items():
        if not isinstance(metric._defaults[name], list) and getattr(reduce, "__name__", "") != "dim_zero_sum":
            raise TypeError(
                f"the state {name!r} of {type(metric).__name__} is neither a sum nor a list, so that it "
                "cannot be put together picture by picture; pass a function of one picture"
            )


def _alone(x: Any) -> Any:
    return x.unsqueeze(0) if isinstance(x, Tensor) else [x]
