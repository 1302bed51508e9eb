"""What canonicalizers with a network share: a thumbnail, float32, a temperature, a deployment prior."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._checks import check_positive, check_tensor
from ..groups.base import Element, Group
from ..nets.thumbnail import standardized, thumbnail
from ..priors import IdentityPrior, Prior
from .base import Canonicalizer


class NetworkCanonicalizer(Canonicalizer):
    """A canonicalizer whose network scores the elements of a list (`cells`) on a small copy of the picture.

    The network sees a square thumbnail of the centre of each picture, always in float32 (rounded scores tie),
    and its cost but for one reading of the pixels does not grow with the picture.

    Args:
        network: Maps thumbnails ``(B, C, size, size)`` to scores ``(B, N)``, one per cell, or to a pair of
            scores and features ``(B, N, D)``.
        group: The group.
        size: Side of the thumbnail in pixels; None hands the picture over as it is (it must be square).
        channels: Channels that the network expects; greyscale pictures are expanded to them.
        standardize: Shift and scale each channel of each thumbnail to mean 0 and variance 1.
        deployment_prior: What is known of the poses met in use; multiplies the posterior in evaluation.
    """

    temperature: Tensor

    def __init__(
        self,
        network: nn.Module,
        group: Group,
        *,
        size: int | None,
        channels: int,
        standardize: bool,
        deployment_prior: Prior | None,
    ) -> None:
        super().__init__(group)
        if size is not None:
            check_positive("size", size)
        self.network = network
        self.size = size
        self.channels = channels
        self.standardize = standardize
        self.deployment_prior = deployment_prior
        self.is_exact_on_grid = bool(getattr(network, "is_exact_on_grid", False))
        self.register_buffer("temperature", torch.ones(()))

    @abstractmethod
    def cells(self, device: Any = None) -> Element:
        """Return the elements that the network scores, shape ``(N,)``, in the order of its scores."""

    def scores(self, x: Tensor | Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Return the raw scores ``(B, N)`` in float32, and the network's features if it gives any."""
        device = self.temperature.device.type
        with torch.autocast(device, enabled=self._trains_in_low_precision(device)):
            seen = self._thumbnails(x)
            count = len(self.cells())
            if seen.shape[0] == 0:
                return seen.new_zeros(0, count), None
            out = self.network(seen)
        scores, features = out if isinstance(out, tuple) else (out, None)
        if scores.shape != (seen.shape[0], count):
            raise ValueError(
                f"the network must return scores of shape ({seen.shape[0]}, {count}) for {self.group}, "
                f"got {tuple(scores.shape)}"
            )
        return scores.to(self.temperature.dtype), features

    def log_posterior(self, x: Tensor | Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Return log-probabilities of the cells, ``(B, N)``, and features; with the deployment prior in use.

        While training, the deployment prior does not count.
        """
        scores, features = self.scores(x)
        log_probs = F.log_softmax(scores / self.temperature, dim=-1)
        if self.deployment_prior is not None and not self.is_drawing:
            known = self.deployment_prior.log_density(self.cells(log_probs.device))
            log_probs = F.log_softmax(log_probs + known.to(log_probs), dim=-1)
        return log_probs, features

    @property
    def is_drawing(self) -> bool:
        """Whether poses are made for training, so that gradients have to reach them."""
        return self.training and torch.is_grad_enabled()

    @torch.no_grad()
    def calibrate(self, pictures: Sequence[Tensor] | Any) -> float:
        """Fit the temperature on batches of upright pictures that were not trained on.

        Minimises the cross-entropy to the identity prior (Guo et al. 2017, arXiv 1706.04599).

        Args:
            pictures: Batches of pictures, each ``(B, C, H, W)``.

        Returns:
            The temperature, which is also stored with the weights.
        """
        scores = torch.cat([self.scores(batch)[0] for batch in pictures]).double()
        candidates = torch.logspace(-1, 1, 201, dtype=torch.float64)
        wanted = F.softmax(IdentityPrior().log_density(self.cells()).to(scores), -1)
        losses = torch.stack([-(F.log_softmax(scores / t, -1) @ wanted).mean() for t in candidates])
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
        return self.is_drawing and torch.is_autocast_enabled(device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Follow moves to devices and to float64, but keep float32 under ``.half()`` and ``.bfloat16()``."""
        return super()._apply(keeping_precision(fn), recurse)  # type: ignore[no-untyped-call]


def keeping_precision(fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Let a move of tensors leave the precision of those in float32 or float64 as it is, or raise it."""

    def keep_precision(t: Tensor) -> Tensor:
        moved = fn(t)
        lowered = moved.is_floating_point() and moved.dtype in (torch.float16, torch.bfloat16)
        return t.to(moved.device) if lowered and t.dtype in (torch.float32, torch.float64) else moved

    return keep_precision
