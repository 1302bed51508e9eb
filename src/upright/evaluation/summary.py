"""From records to the numbers of the report."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..groups.base import Element
from ..groups.planar import PlanarGroup
from .leakage import chose_right
from .measures import Measured, Metric
from .metrics import Estimate, clustered, reliability, wilson
from .orbit import PoseTrack, Track
from .report import CanonicalizerMetrics, MetricScores, PoseAccuracy, RowMetrics
from .tasks.base import Task


def summarize_row(
    track: Track, measured: Sequence[Measured], task: Task, poses: Element, confidence: float
) -> RowMetrics:
    """Return the metrics of one row.

    Args:
        track: What the row did at ``P`` poses of ``N`` pictures.
        measured: What each metric of the task makes of it.
        task: The task.
        poses: The poses, the identity first, shape ``(P,)``.
        confidence: Coverage of the intervals.
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
    upright = Element(poses.group, track.chosen[:, :1].expand_as(track.chosen))
    expected = poses.to("cpu").reshape(1, -1).expand(*track.chosen.shape).compose(upright)
    same = expected.value == track.chosen
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
    )


def describe(poses: Element, values: list[Estimate]) -> tuple[PoseAccuracy, ...]:
    """Put a value beside each pose."""
    group = poses.group
    numbers = poses.value.tolist()
    if not isinstance(group, PlanarGroup):
        return tuple(PoseAccuracy(n, None, False, v) for n, v in zip(numbers, values, strict=True))
    degrees = [round(math.degrees(angle), 9) for angle in group.angle(poses).tolist()]
    flips = group.is_reflected(poses).tolist()
    return tuple(PoseAccuracy(*row) for row in zip(numbers, degrees, flips, values, strict=True))


def _mean(x: Tensor) -> float:
    return float(x.double().mean()) if x.numel() else 0.0


def _mean_of_numbers(x: Tensor) -> float:
    numbers = x[~torch.isnan(x)]
    return _mean(numbers)
