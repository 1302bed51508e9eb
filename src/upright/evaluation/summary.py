"""From records to the numbers of the report."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..groups.base import Element, FiniteGroup
from ..groups.planar import PlanarGroup
from .confusion import confuse
from .leakage import chose_right
from .measures import Measured, Metric
from .metrics import Estimate, clustered, reliability, wilson
from .orbit import PoseTrack, Track
from .overhead import RowCost
from .poses import disagreements, errors, near, tolerance
from .report import CanonicalizerMetrics, MetricScores, PoseAccuracy, RowMetrics
from .tasks.base import Task
from .transformations import pose_names, pose_values


def summarize_row(
    track: Track,
    measured: Sequence[Measured],
    task: Task,
    poses: Element,
    confidence: float,
    *,
    label: str = "",
    cost: RowCost | None = None,
) -> RowMetrics:
    """Return the metrics of one row.

    Args:
        track: What the row did at ``P`` poses of ``N`` pictures.
        measured: What each metric of the task makes of it.
        task: The task.
        poses: The poses, the identity first, shape ``(P,)``.
        confidence: Coverage of the intervals.
        label: What the row is called.
        cost: What it costs.
    """
    every = [
        summarize_metric(one, metric, poses, confidence)
        for one, metric in zip(measured, task.metrics, strict=True)
    ]
    first = every[0]
    return RowMetrics(
        upright=first.upright,
        orbit_mean=first.orbit_mean,
        turned_mean=first.turned_mean,
        worst=first.worst,
        poses=first.poses,
        changed=_mean(track.changed[:, 1:]),
        largest_difference=float(track.largest.nan_to_num(0.0).max()),
        mean_difference=_mean_of_numbers(track.mean[:, 1:]),
        passes=_mean(track.passes),
        invalid=int(track.invalid.sum()),
        further={metric.name: one for metric, one in zip(task.metrics[1:], every[1:], strict=True)},
        worst_case=first.worst_case,
        cost=cost,
        label=label,
    )


def summarize_metric(measured: Measured, metric: Metric, poses: Element, confidence: float) -> MetricScores:
    """Return one metric of one row."""
    at = describe(poses, [measured.at(p, confidence) for p in range(len(poses))])
    pick = max if metric.lower_is_better else min
    return MetricScores(
        upright=at[0].accuracy,
        orbit_mean=measured.mean(confidence),
        turned_mean=measured.mean(confidence, 1) if len(at) > 1 else None,
        worst=pick(at, key=lambda pose: pose.accuracy.value),
        poses=at,
        is_share=metric.is_share,
        worst_case=measured.worst(confidence, lower_is_better=metric.lower_is_better),
    )


def summarize_poses(track: PoseTrack, poses: Element, confidence: float) -> CanonicalizerMetrics:
    """Return the metrics of the canonicalizer.

    Args:
        track: What it chose at ``P`` poses of ``N`` pictures.
        poses: The poses, the identity first, shape ``(P,)``.
        confidence: Coverage of the intervals.
    """
    right = chose_right(track, poses)
    at = describe(poses, [wilson(_mean(right[:, p]), len(right), confidence) for p in range(right.shape[1])])
    allowed = tolerance(track.chosen.group, poses.group)
    far, apart = errors(track.chosen, poses), disagreements(track.chosen, poses)
    same = near(apart, allowed)
    error, bins = reliability(track.confidence, right)
    several = right.shape[1] > 1
    return CanonicalizerMetrics(
        identity_rate=at[0].accuracy,
        pose_accuracy=clustered(right[:, 1:], confidence) if several else None,
        poses=at,
        equivariance=_mean(same[:, 1:]) if several else None,
        equivariance_at=tuple(_mean(same[:, p]) for p in range(same.shape[1])),
        tied_upright=_mean(track.tied[:, 0]),
        tied=_mean(track.tied),
        confidence=_mean(track.confidence),
        calibration_error=error,
        bins=bins,
        tolerance=allowed,
        pose_error=float(far[:, 1:].median()) if several else None,
        equivariance_error=float(apart[:, 1:].median()) if several else None,
        confusion=confuse(track, poses, pose_labels),
    )


def describe(poses: Element, values: list[Estimate]) -> tuple[PoseAccuracy, ...]:
    """Put a value beside each pose."""
    group, count = poses.group, len(poses)
    numbers = poses.value.tolist() if isinstance(group, FiniteGroup) else list(range(count))
    degrees: list[float | None] = [None] * count
    flips = [False] * count
    if isinstance(group, PlanarGroup):
        degrees = [round(math.degrees(angle), 9) for angle in group.angle(poses).tolist()]
        flips = group.is_reflected(poses).tolist()
    rows = zip(numbers, degrees, flips, values, pose_values(poses), pose_names(poses), strict=True)
    return tuple(PoseAccuracy(*row) for row in rows)


def pose_labels(poses: Element) -> list[str]:
    """Return what each pose is called in a few characters."""
    nothing = Estimate(0.0, 0.0, 0.0)
    return [pose.label for pose in describe(poses, [nothing] * len(poses))]


def _mean(x: Tensor) -> float:
    return float(x.double().mean()) if x.numel() else 0.0


def _mean_of_numbers(x: Tensor) -> float:
    numbers = x[~torch.isnan(x)]
    return _mean(numbers)
