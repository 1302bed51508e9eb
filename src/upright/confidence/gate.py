"""Gates: which inputs an adapted model leaves as they are, and which it marks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .._checks import check_choice
from ..canonicalizers.pose import Pose
from ..groups.base import FiniteGroup
from ..priors import Prior


@dataclass(frozen=True)
class Gated:
    """What a gate decided about a batch.

    Attributes:
        pose: The poses as they are used: the identity where an input is left alone.
        gated: Which inputs are left alone, shape ``(B,)``, bool.
        flagged: Which inputs are marked for a closer look, shape ``(B,)``, bool.
    """

    pose: Pose
    gated: Tensor
    flagged: Tensor


@dataclass(frozen=True)
class Gate:
    """Leaves inputs alone where their pose is not clear, or clearly upright, and flags doubtful ones.

    An input that is left alone is given to the model once, as it came: the bare model's result, bit for bit.
    What that does to equivariance: a canonicalizer without a deployment prior is as sure of a picture however
    the picture is turned, so that ``threshold`` leaves a picture alone in all its poses or in none, and what
    is not left alone stays exactly equivariant. ``upright`` above 0.5 changes no single choice; it saves
    passes. At 0.5 or below it prefers the pose given, and costs equivariance, as a deployment prior does.

    Args:
        threshold: Confidence below which a pose is not clear, in 0…1.
        below: What becomes of inputs whose pose is not clear: ``"leave"`` leaves them alone; ``"flag"`` turns
            them nevertheless, and marks them.
        upright: Probability of standing upright from which on an input is left alone; None: none is for that.
        within: Largest distance from the identity that counts as upright, in the unit of the group's
            `distance` (radians for turns); for continuous groups.
        rare: Flag an input whose likeliest pose is at most so likely, by the deployment prior, as the prior's
            likeliest pose; None: none is for that.

    Raises:
        ValueError: If a probability is out of its range, or nothing is asked for.

    Example:
        >>> import torch, upright
        >>> pose = upright.Pose(upright.Cyclic(2).element(torch.tensor([1, 1])),
        ...                     torch.tensor([[0.1, 0.9], [0.4, 0.6]]).log())
        >>> upright.Gate(threshold=0.7).decide(pose).gated
        tensor([False,  True])
    """

    threshold: float = 0.0
    below: Literal["leave", "flag"] = "leave"
    upright: float | None = None
    within: float = 0.0
    rare: float | None = None

    def __post_init__(self) -> None:
        check_choice("below", self.below, ("leave", "flag"))
        for name in ("threshold", "upright", "rare"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} must lie in 0…1, got {value}")
        if not 0 <= self.within < float("inf"):
            raise ValueError(f"within must be a distance of at least 0, got {self.within}")
        if not self.threshold and self.upright is None and self.rare is None:
            raise ValueError("a gate must do something; give threshold, upright or rare")

    def decide(self, pose: Pose, prior: Prior | None = None) -> Gated:
        """Decide about a batch.

        Args:
            pose: What the canonicalizer chose, by the deployment prior if it has one; batch shape ``(B,)``.
            prior: The deployment prior, needed with ``rare``.

        Raises:
            ValueError: If ``rare`` is asked for and there is no prior.
        """
        unsure = ~(pose.confidence.detach() >= self.threshold)  # NaN is never sure
        gated = flagged = torch.zeros_like(unsure)
        if self.below == "leave":
            gated = unsure
        else:
            flagged = unsure
        if self.upright is not None:
            gated = gated | (pose.near_identity(self.within).detach() >= self.upright)
        if self.rare is not None:
            flagged = flagged | (_rarity(pose, prior) <= self.rare)
        return Gated(pose.left_alone(gated), gated, flagged)


def _rarity(pose: Pose, prior: Prior | None) -> Tensor:
    """Return how likely the chosen poses are a priori, beside the likeliest pose; shape ``(B,)``."""
    if prior is None:
        raise ValueError(
            "rare needs a deployment prior; give the canonicalizer one: robust.with_prior(upright."
            "deployment_prior(group, upright=0.95))"
        )
    here = prior.log_density(pose.element)
    group = pose.group
    if isinstance(group, FiniteGroup):
        return (here - prior.log_density(group.elements(here.device)).max()).exp()
    usual = prior.log_density(group.identity(device=here.device))
    for listed in (pose.candidates, pose.grid):
        if listed is not None:
            usual = torch.maximum(usual, prior.log_density(listed).amax(-1))
    return (here - usual).exp()
