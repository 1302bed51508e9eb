"""Whether a confidence means what it says: reliability, calibration error, the temperature refitted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..canonicalizers import Canonicalizer, Pose
from ..confidence.deployment import batches_of
from ..groups.base import FiniteGroup
from .metrics import Bin, Estimate, reliability, wilson


@dataclass(frozen=True)
class Calibration:
    """How well the confidence in poses is calibrated.

    Attributes:
        pictures: Number of pictures.
        accuracy: Share of poses that are right.
        confidence: Mean confidence.
        error: Expected calibration error.
        bins: The reliability diagram.
        loss: Mean negative log-likelihood, in nats: of the right pose for finite groups, else of being right.
        temperature: The temperature that would minimise the loss, to be compared with ``present``.
        present: The canonicalizer's temperature; 1 if it has none.
        refitted_error: Expected calibration error with a refitted temperature, each half of the pictures
            judged by the temperature of the other half.
    """

    pictures: int
    accuracy: Estimate
    confidence: float
    error: float
    bins: tuple[Bin, ...]
    loss: float
    temperature: float
    present: float
    refitted_error: float

    def __str__(self) -> str:
        return (
            f"{self.pictures} pictures: {self.accuracy.value:.1%} of poses right, mean confidence "
            f"{self.confidence:.1%}; calibration error {self.error:.1%}, with the temperature refitted "
            f"({self.present:.3g} to {self.temperature:.3g}) {self.refitted_error:.1%}"
        )


@torch.no_grad()
def calibration(
    canonicalizer: Any, pictures: Any, *, within: float | None = None, bins: int = 15
) -> Calibration:
    """Measure how well the confidence of a canonicalizer is calibrated, on upright pictures.

    Nothing is changed; ``canonicalizer.calibrate(batches)`` sets the temperature. A deployment prior is left
    out of account: pictures in all poses are meant alike.

    Args:
        canonicalizer: A canonicalizer, or an adapted model, whose canonicalizer is taken.
        pictures: Upright pictures that were not trained on: a tensor ``(N, C, H, W)``, or batches of them
            (tensors, lists of ``(C, H_i, W_i)``, or tuples that begin with one).
        within: Largest distance from upright that counts as right, in the unit of the group's `distance`
            (radians for turns); needed for groups that are not finite.
        bins: Bins of the reliability diagram.

    Raises:
        TypeError: If there is no canonicalizer, or ``within`` is missing.
        ValueError: If there are fewer than two pictures.

    Reference:
        Guo et al. 2017, arXiv 1706.04599.

    Example:
        >>> import upright
        >>> report = calibration(upright.canonicalizer("C4"), torch.rand(8, 3, 32, 32))
        >>> report.pictures
        8
    """
    chosen = getattr(canonicalizer, "canonicalizer", canonicalizer)
    if not isinstance(chosen, Canonicalizer):
        raise TypeError(f"canonicalizer must be a Canonicalizer, got {type(canonicalizer).__name__}")
    if chosen.deployment_prior is not None:
        chosen = chosen.with_prior(None)
    if within is None and not isinstance(chosen.group, FiniteGroup):
        raise TypeError(f"no pose of {chosen.group} is exactly right; give within, the distance that counts")
    was_training = chosen.training
    try:
        chosen.eval()
        poses = [chosen(batch) for batch in batches_of(pictures)]
    finally:
        chosen.train(was_training)
    right = torch.cat([_right(pose, within) for pose in poses])
    if len(right) < 2:
        raise ValueError(f"calibration needs at least two pictures, got {len(right)}")
    tempered = _tempered(poses, right, within is None)
    confidence, _ = tempered(1.0)
    error, diagram = reliability(confidence, right, bins)
    best = _fit(tempered, torch.ones_like(right))
    even = torch.arange(len(right)) % 2 == 0
    crossed = torch.where(even, tempered(_fit(tempered, ~even))[0], tempered(_fit(tempered, even))[0])
    temperature = getattr(chosen, "temperature", None)
    present = float(temperature) if isinstance(temperature, Tensor) else 1.0
    return Calibration(
        pictures=len(right),
        accuracy=wilson(float(right.double().mean()), len(right)),
        confidence=float(confidence.mean()),
        error=error,
        bins=diagram,
        loss=float(tempered(1.0)[1].mean()),
        temperature=present * best,
        present=present,
        refitted_error=reliability(crossed, right, bins)[0],
    )


Tempered = Callable[[float], tuple[Tensor, Tensor]]


def _right(pose: Pose, within: float | None) -> Tensor:
    """Say which poses are right of pictures that stand upright, shape ``(B,)``."""
    if within is None:
        return (pose.element.is_identity() & ~pose.is_tied).cpu()
    return (pose.element.distance(pose.group.identity(device=pose.element.device)) <= within).cpu()


def _tempered(poses: list[Pose], right: Tensor, by_class: bool) -> Tempered:
    """Return what gives confidence and loss of every picture, ``(N,)`` both, at a relative temperature."""
    # the chosen pose first, so that lists of candidates and whole groups are read alike
    ranked = [pose.top_k()[1].double().cpu() for pose in poses]
    if len({part.shape[1] for part in ranked}) > 1:
        width = max(part.shape[1] for part in ranked)
        ranked = [F.pad(part, (0, width - part.shape[1])) for part in ranked]
    log_probs = torch.cat(ranked).log()
    listed = all(pose.candidates is None and isinstance(pose.group, FiniteGroup) for pose in poses)
    upright = torch.cat([pose.probs[:, 0].double().cpu() for pose in poses]).log() if listed else None

    def at(temperature: float) -> tuple[Tensor, Tensor]:
        scaled = log_probs / temperature
        total = scaled.logsumexp(-1)
        confidence = (scaled[:, 0] - total).exp().clamp(max=1.0)
        if by_class and upright is not None:
            return confidence, total - upright / temperature
        sure = torch.where(right, confidence, 1 - confidence)
        return confidence, -sure.clamp(min=1e-12).log()

    return at


def _fit(tempered: Tempered, which: Tensor) -> float:
    """Return the relative temperature of least loss over some of the pictures."""
    candidates = torch.logspace(-1, 1, 201, dtype=torch.float64).tolist()
    losses = torch.stack([tempered(t)[1][which.bool()].mean() for t in candidates])
    return float(candidates[int(losses.argmin())])
