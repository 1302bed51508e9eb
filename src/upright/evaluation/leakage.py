"""The leakage check: does the pose come from the content, or from artefacts that turn with the pixels?

Turning a picture turns its compression grid, chroma siting and interpolation blur with it. Re-encoding or
resampling *after* turning wipes them out. A canonicalizer that reads content does not care; one that reads
artefacts loses its pose accuracy. What the degradation itself costs is seen on upright pictures and on the
bare model with the true pose.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..groups.base import Element
from .degrade import JPEG_QUALITY, RESAMPLING, reencoded, resampled
from .measures import Metric
from .metrics import normal_quantile, standard_error
from .orbit import Degrade, PoseTrack, Record
from .poses import errors, near, tolerance

DEGRADATIONS: Mapping[str, tuple[str, Degrade]] = {
    "re-encoded": (f"JPEG, quality {JPEG_QUALITY}", reencoded),
    "resampled": (f"resized to {RESAMPLING:.2f} and back", resampled),
}
"""What is done to pictures after turning: name → (detail, function)."""

TOLERANCE = 0.02
"""How much poses may move without a flag; more where so few pictures cannot show it."""


@dataclass(frozen=True)
class Change:
    """A share, or another metric, before and after a degradation.

    Attributes:
        before: On pictures that were only turned.
        after: On pictures that were turned, then degraded.
    """

    before: float
    after: float

    @property
    def delta(self) -> float:
        """After minus before."""
        return self.after - self.before


@dataclass(frozen=True)
class Leakage:
    """One degradation after turning, against turning alone, on the same pictures.

    Attributes:
        detail: What was done.
        pictures: Number of pictures.
        pose_accuracy: Share of turned pictures whose true pose was chosen, ties not counted.
        identity_rate: Share of upright pictures that were left alone, ties not counted.
        upright: Accuracy (the task's first metric) on upright pictures, by row. The bare model's is its
            own loss.
        orbit_mean: Mean accuracy over the poses, of the adapted model and the oracle. The oracle's is the
            loss of a perfect canonicalizer.
        tolerance: How much pose accuracy and identity rate may move.
        moved: Whether one of them moved more than that.
    """

    detail: str
    pictures: int
    pose_accuracy: Change
    identity_rate: Change
    upright: dict[str, Change]
    orbit_mean: dict[str, Change]
    tolerance: float
    moved: bool

    @property
    def verdict(self) -> str:
        """What the check says, in a few words."""
        if not self.moved:
            return "poses unmoved"
        turned, upright = self.pose_accuracy.delta, self.identity_rate.delta
        if max(turned, upright) > self.tolerance:
            return "poses are found better after degrading: turning leaves traces that mislead"
        if turned >= -self.tolerance:
            return "upright pictures are no longer left alone: they are known by traces of not being turned"
        if upright > turned + self.tolerance:
            return "poses are lost on turned pictures only: they are read off artefacts that turn along"
        return "poses are lost, upright too: needed detail is gone, or an artefact is wiped out"


def compare(
    name: str, before: Record, after: Record, metric: Metric, poses: Element, confidence: float
) -> Leakage:
    """Compare the records of pictures degraded after turning with those of pictures only turned.

    Args:
        name: A name in `DEGRADATIONS`.
        before: Records of ``N`` turned pictures.
        after: Records of the same pictures, degraded after turning.
        metric: The metric whose change is told, by row.
        poses: The poses, the identity first, shape ``(P,)`` with ``P`` at least 2.
        confidence: How sure a movement must be to be flagged.
    """
    found = [chose_right(record.poses, poses) for record in (before, after)]
    moves = found[1].double() - found[0].double()
    turned, alone = moves[:, 1:].mean(1), moves[:, 0]
    noise = max(standard_error(turned), standard_error(alone))
    tolerance = max(TOLERANCE, normal_quantile(confidence) * noise)
    upright = {"vanilla": Change(*(float(metric.once([record.upright])[0]) for record in (before, after)))}
    mean: dict[str, Change] = {}
    for row in after.rows:
        values = [metric.once(record.rows[row].records[0]) for record in (before, after)]
        upright[row] = Change(*(float(value[0]) for value in values))
        mean[row] = Change(*(float(value.mean()) for value in values))
    return Leakage(
        detail=DEGRADATIONS[name][0],
        pictures=len(after),
        pose_accuracy=Change(*(_share(f[:, 1:]) for f in found)),
        identity_rate=Change(*(_share(f[:, 0]) for f in found)),
        upright=upright,
        orbit_mean=mean,
        tolerance=tolerance,
        moved=max(abs(float(turned.mean())), abs(float(alone.mean()))) > tolerance,
    )


def chose_right(track: PoseTrack, poses: Element) -> Tensor:
    """Say where the true pose was chosen and no other was as likely, shape ``(N, P)``, bool."""
    allowed = tolerance(track.chosen.group, poses.group)
    return near(errors(track.chosen, poses), allowed) & ~track.tied


def _share(right: Tensor) -> float:
    return float(right.to(torch.float64).mean())
