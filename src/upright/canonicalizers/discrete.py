"""The canonicalizer of finite planar groups: a thumbnail, a small network, a posterior over the group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._checks import check_choice, check_positive, check_tensor
from ..groups.base import Element, FiniteGroup
from ..groups.parse import parse_finite_group
from ..nets.thumbnail import standardized, thumbnail
from ..priors import Prior
from .base import Canonicalizer
from .estimators import ESTIMATORS
from .pose import Pose


class DiscreteCanonicalizer(Canonicalizer):
    """Chooses among the elements of a finite group by the scores of an equivariant network.

    The network sees a square thumbnail of the centre of each picture, always in float32 (rounded scores tie,
    and a tie would pick the identity), and its cost but for one reading of the
    pixels does not grow with the picture.

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
    temperature: Tensor

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
        super().__init__(parse_finite_group(group))
        check_choice("estimator", estimator, ESTIMATORS)
        if size is not None:
            check_positive("size", size)
        self.network = network
        self.size = size
        self.channels = channels
        self.standardize = standardize
        self.estimator = estimator
        self.deployment_prior = deployment_prior
        self.relaxation = 1.0  # temperature of the estimators
        self.is_exact_on_grid = bool(getattr(network, "is_exact_on_grid", False))
        self.register_buffer("temperature", torch.ones(()))

    def forward(self, x: Tensor | Sequence[Tensor], generator: torch.Generator | None = None) -> Pose:
        """Choose the poses.

        Args:
            x: Pictures, shape ``(B, C, H, W)``, any dtype (integers count to 255), or a sequence of
                ``(C, H_i, W_i)``.
            generator: Source of the draws of stochastic estimators while training.

        Returns:
            Poses of batch shape ``(B,)``; deterministic in evaluation.
        """
        scores, features = self.scores(x)
        log_probs = F.log_softmax(scores / self.temperature, dim=-1)
        if self.training and torch.is_grad_enabled():
            index, weights = ESTIMATORS[self.estimator](log_probs, self.relaxation, generator)
            return Pose(Element(self.group, index), log_probs, weights, features)
        if self.deployment_prior is not None:
            log_probs = F.log_softmax(
                log_probs + self.deployment_prior.log_probs(self.group).to(log_probs), dim=-1
            )
        return Pose(Element(self.group, log_probs.argmax(-1)), log_probs, None, features)

    def scores(self, x: Tensor | Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Return the raw scores ``(B, |G|)`` in float32, and the network's features if it gives any."""
        device = self.temperature.device.type
        with torch.autocast(device, enabled=self._trains_in_low_precision(device)):
            seen = self._thumbnails(x)
            if seen.shape[0] == 0:
                return seen.new_zeros(0, self.group.order), None
            out = self.network(seen)
        scores, features = out if isinstance(out, tuple) else (out, None)
        if scores.shape != (seen.shape[0], self.group.order):
            raise ValueError(
                f"the network must return scores of shape ({seen.shape[0]}, {self.group.order}) for "
                f"{self.group}, "
                f"got {tuple(scores.shape)}"
            )
        return scores.to(self.temperature.dtype), features

    @torch.no_grad()
    def calibrate(self, pictures: Sequence[Tensor] | Any) -> float:
        """Fit the temperature on batches of upright pictures that were not trained on.

        Minimises the cross-entropy of the identity over the temperature (Guo et al. 2017, arXiv 1706.04599).

        Args:
            pictures: Batches of pictures, each ``(B, C, H, W)``.

        Returns:
            The temperature, which is also stored with the weights.
        """
        scores = torch.cat([self.scores(batch)[0] for batch in pictures]).double()
        candidates = torch.logspace(-1, 1, 201, dtype=torch.float64)
        losses = torch.stack([-F.log_softmax(scores / t, -1)[:, 0].mean() for t in candidates])
        best = float(candidates[losses.argmin()])
        self.temperature.fill_(best)
        return best

    def _thumbnails(self, x: Tensor | Sequence[Tensor]) -> Tensor:
        if not isinstance(x, Tensor):
            if not len(x):
                return self.temperature.new_zeros(0, self.channels, self.size or 1, self.size or 1)
            return torch.cat([self._thumbnails(picture.unsqueeze(0)) for picture in x])
        check_tensor("x", x, "(B, C, H, W)", 4)
        if x.shape[1] not in (1, self.channels):
            raise ValueError(
                f"x must have {self.channels} channels (or 1, which is expanded), got {tuple(x.shape)}; "
                "build the canonicalizer with channels=…"
            )
        dtype = self.temperature.dtype
        seen = x.to(dtype) if self.size is None else thumbnail(x, self.size, dtype)
        if self.standardize:
            seen = standardized(seen)
        elif not x.is_floating_point():
            seen = seen / 255
        return seen.expand(-1, self.channels, -1, -1)

    def _trains_in_low_precision(self, device: str) -> bool:
        """Let convolutions follow an autocast while training; evaluation is float32 throughout."""
        return self.training and torch.is_grad_enabled() and torch.is_autocast_enabled(device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Follow moves to devices and to float64, but keep float32 under ``.half()`` and ``.bfloat16()``."""

        def keep_precision(t: Tensor) -> Tensor:
            moved = fn(t)
            lowered = moved.is_floating_point() and moved.dtype in (torch.float16, torch.bfloat16)
            return t.to(moved.device) if lowered and t.dtype in (torch.float32, torch.float64) else moved

        return super()._apply(keep_precision, recurse)  # type: ignore[no-untyped-call]
