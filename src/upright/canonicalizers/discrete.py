"""The canonicalizer of finite planar groups: a thumbnail, a small network, a posterior over the group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .._checks import check_choice
from ..groups.base import Element, FiniteGroup
from ..groups.parse import parse_finite_group
from ..priors import Prior
from .estimators import ESTIMATORS
from .network import NetworkCanonicalizer
from .pose import Pose


class DiscreteCanonicalizer(NetworkCanonicalizer):
    """Chooses among the elements of a finite group by the scores of an equivariant network.

    The network sees a square thumbnail of the centre of each picture, always in float32 (rounded scores tie,
    and a tie would pick the identity), and its cost but for one reading of the pixels does not grow with the
    picture.

    Args:
        network: Maps thumbnails ``(B, C, size, size)`` to scores ``(B, |G|)``, or to a pair of scores and
            features ``(B, |G|, D)``; when the picture moves by ``g``, the score of ``h`` moves to ``g @ h``.
            See `upright.nets`.
        group: The group, or its name.
        size: Side of the thumbnail in pixels; None hands the picture over as it is (it must be square).
        channels: Channels that the network expects; greyscale pictures are expanded to them.
        standardize: Shift and scale each channel of each thumbnail to mean 0 and variance 1, so that the pose
            does not depend on how the predictor's input is normalised.
        estimator: How gradients reach the pose while training: a name in `ESTIMATORS`.
        deployment_prior: What is known of the poses met in use (say, that 95% are upright); it multiplies the
            posterior in evaluation. A prior that is not uniform trades equivariance for upright accuracy.

    Example:
        >>> import torch, upright
        >>> c = upright.canonicalizer("C4")
        >>> c(torch.rand(2, 3, 50, 40)).element.shape
        torch.Size([2])
    """

    group: FiniteGroup

    def __init__(
        self,
        network: nn.Module,
        group: FiniteGroup | str,
        *,
        size: int | None = 64,
        channels: int = 3,
        standardize: bool = True,
        estimator: str = "straight_through",
        deployment_prior: Prior | None = None,
    ) -> None:
        super().__init__(
            network, parse_finite_group(group), size=size, channels=channels, standardize=standardize,
            deployment_prior=deployment_prior,
        )  # fmt: skip
        check_choice("estimator", estimator, ESTIMATORS)
        self.estimator = estimator
        self.relaxation = 1.0  # temperature of the estimators

    def cells(self, device: Any = None) -> Element:
        """Return all elements of the group, shape ``(|G|,)``."""
        return self.group.elements(device)

    def forward(self, x: Tensor | Sequence[Tensor], generator: torch.Generator | None = None) -> Pose:
        """Choose the poses.

        Args:
            x: Pictures, shape ``(B, C, H, W)``, any dtype (integers count to 255), or a sequence of
                ``(C, H_i, W_i)``.
            generator: Source of the draws of stochastic estimators while training.

        Returns:
            Poses of batch shape ``(B,)``; deterministic in evaluation.
        """
        log_probs, features = self.log_posterior(x)
        if self.is_drawing:
            index, weights = ESTIMATORS[self.estimator](log_probs, self.relaxation, generator)
            return Pose(Element(self.group, index), log_probs, weights, features)
        return Pose(Element(self.group, log_probs.argmax(-1)), log_probs, None, features)
