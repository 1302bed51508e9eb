"""The canonicalizer of continuous rotations: a density over the group, and its refined peaks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .._checks import check_positive
from ..groups.base import Element, Group
from ..groups.parse import parse_group
from ..groups.rotations import O2, SO2, wrapped
from ..priors import Prior
from .network import NetworkCanonicalizer
from .pose import Pose

STEPS = 8
"""Newton steps to a top; from half a cell away four are enough, the others are for hills with flat tops."""


class ContinuousCanonicalizer(NetworkCanonicalizer):
    """Finds the angle, and the handedness, of pictures: the peak of a density over SO(2) or O(2).

    The network scores equally spaced angles. The density is smoothed over the circle; its hills are found by
    climbing, ranked by the probability in their basins, and the top of each is found between the cells by
    Newton's method, through which gradients flow. No state, no randomness.

    Args:
        network: Maps thumbnails ``(B, C, size, size)`` to scores ``(B, network.bins)``: of the rotations by
            ``i · 360° / n``; for O(2), then of the reflections ``R^(i · 360° / n) F``. When the picture turns
            by a cell, they shift by one. See `upright.nets.PolarDensity`.
        group: ``"SO2"`` or ``"O2"``.
        size: Side of the thumbnail in pixels; None hands the picture over as it is (it must be square).
        channels: Channels that the network expects; greyscale pictures are expanded to them.
        standardize: Shift and scale each channel of each thumbnail to mean 0 and variance 1.
        candidates: How many hills a pose lists.
        window_degrees: Standard deviation of the smoothing; at least one cell, so that
            tops between cells are where they are on the cells.
        deployment_prior: What is known of the poses met in use; it multiplies the posterior in evaluation.

    Example:
        >>> import torch, upright
        >>> c = upright.canonicalizer("SO2")
        >>> c(torch.rand(2, 3, 50, 50)).element.shape
        torch.Size([2])
    """

    def __init__(
        self,
        network: nn.Module,
        group: Group | str = "SO2",
        *,
        size: int | None = 48,
        channels: int = 3,
        standardize: bool = True,
        candidates: int = 8,
        window_degrees: float = 8.0,
        deployment_prior: Prior | None = None,
    ) -> None:
        parsed = parse_group(group)
        if not isinstance(parsed, (SO2, O2)):
            raise TypeError(f"group must be SO2 or O2, got {parsed}; finite groups: DiscreteCanonicalizer")
        super().__init__(
            network, parsed, size=size, channels=channels, standardize=standardize,
            deployment_prior=deployment_prior,
        )  # fmt: skip
        bins = getattr(network, "bins", None)
        sheets = 2 if isinstance(parsed, O2) else 1
        if not isinstance(bins, int) or bins % sheets or bins < 4 * sheets:
            raise TypeError(
                f"network.bins must be the number of scores, a multiple of {sheets}, got {bins!r}; "
                "see upright.nets.PolarDensity"
            )
        check_positive("candidates", candidates)
        self.bins, self.sheets = bins, sheets
        self.rays = bins // sheets
        self.candidates = min(candidates, bins)
        if window_degrees * self.rays < 360:
            raise ValueError(
                f"window_degrees must be at least one cell, {360 / self.rays:.2f}, got {window_degrees}"
            )
        self.window_degrees = window_degrees

    def cells(self, device: Any = None) -> Element:
        """Return the elements that the network scores, shape ``(bins,)``, the identity first."""
        angle = torch.arange(self.rays, dtype=torch.float64, device=device) * (2 * math.pi / self.rays)
        if isinstance(self.group, O2):
            reflected = torch.arange(2, device=device).repeat_interleave(self.rays)
            return self.group.element(angle.repeat(2), reflected=reflected)
        assert isinstance(self.group, SO2)
        return self.group.element(angle)

    def forward(self, x: Tensor | Sequence[Tensor]) -> Pose:
        """Choose the poses.

        Args:
            x: Pictures, shape ``(B, C, H, W)``, any dtype (integers count to 255), or a sequence of
                ``(C, H_i, W_i)``.

        Returns:
            Poses of batch shape ``(B,)``, with candidates and density; deterministic.
        """
        log_probs, features = self.log_posterior(x)
        return self.pose_of(log_probs, features)

    def pose_of(self, log_probs: Tensor, features: Tensor | None = None) -> Pose:
        """Return the pose of a density over the cells, given by its log-probabilities ``(B, bins)``."""
        density = log_probs.double().exp().view(-1, self.sheets, self.rays)
        smooth = density @ self._kernel(density)
        masses, tops = hills(smooth.detach(), density.detach(), self.candidates)
        sheet, ray = tops // self.rays, tops % self.rays
        own = density.gather(1, sheet.unsqueeze(-1).expand(-1, -1, self.rays))  # (B, K, rays)
        angle = self._refined(own, ray)
        total = masses.sum(-1, keepdim=True)
        listed = self._elements(angle, sheet)
        return Pose(
            listed[:, 0],
            (masses / total).log().to(log_probs.dtype),
            features=features,
            candidates=listed,
            grid=self.cells(log_probs.device),
            log_density=log_probs,
        )

    def _elements(self, angle: Tensor, sheet: Tensor) -> Element:
        if isinstance(self.group, O2):
            return Element(self.group, torch.stack([angle, sheet.to(angle)], -1))
        return Element(self.group, angle)

    def _concentration(self) -> float:
        return float(math.radians(self.window_degrees) ** -2)

    def _kernel(self, like: Tensor) -> Tensor:
        """Return the circulant matrix that smooths, shape ``(rays, rays)``."""
        step = torch.arange(self.rays, device=like.device)
        angle = (step[:, None] - step[None, :]).to(like) * (2 * math.pi / self.rays)
        return torch.exp(self._concentration() * (angle.cos() - 1))

    def _refined(self, density: Tensor, ray: Tensor) -> Tensor:
        """Climb to the tops of the smoothed density, from cells beside them, by Newton's method.

        The last step carries the gradient; at the top it is that of the implicit function theorem.

        Args:
            density: Probabilities over angles, shape ``(B, K, rays)``.
            ray: Where to start, shape ``(B, K)``.

        Returns:
            Angles in ``[0, 2π)``, shape ``(B, K)``; gradients flow into the density.
        """
        cells = torch.arange(self.rays, device=density.device).to(density) * (2 * math.pi / self.rays)
        angle = start = cells[ray]
        for step in range(STEPS):
            last = step == STEPS - 1
            moved = angle + self._step(density if last else density.detach(), angle, cells)
            angle = moved if last else start + (moved - start).clamp(-cells[1], cells[1])
        return wrapped(angle)

    def _step(self, density: Tensor, angle: Tensor, cells: Tensor) -> Tensor:
        """Return a Newton step towards the top of the smoothed density, shape ``(B, K)``."""
        concentration = self._concentration()
        away = cells - angle.unsqueeze(-1)  # (B, K, rays)
        weight = density * torch.exp(concentration * (away.cos() - 1))
        height = weight.sum(-1).clamp(min=1e-300)
        slope = (weight * away.sin()).sum(-1) / height
        bend = (weight * (away.cos() - concentration * away.sin() ** 2)).sum(-1) / height
        return slope / bend.abs().clamp(min=1e-9)  # uphill even where the hill is not yet convex


def hills(height: Tensor, density: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Find the hills of functions on circles.

    Every cell belongs to the top that is reached by climbing to the higher neighbour.

    Args:
        height: What is climbed, shape ``(B, sheets, rays)``: circles that do not touch.
        density: What is summed over each basin, of the same shape.
        count: How many hills are returned; where there are fewer, the others have no mass.

    Returns:
        Masses and tops (numbers of cells, counted over all sheets), shape ``(B, count)``, largest first.
    """
    batch, sheets, rays = height.shape
    around = torch.stack([height, height.roll(1, -1), height.roll(-1, -1)])
    step = torch.tensor([0, -1, 1], device=height.device)[around.argmax(0)]
    cell = torch.arange(rays, device=height.device)
    top = (cell + step) % rays  # (B, sheets, rays)
    for _ in range(rays.bit_length()):
        top = top.gather(-1, top)
    top = top + rays * torch.arange(sheets, device=height.device)[:, None]
    masses = torch.zeros(batch, sheets * rays, dtype=density.dtype, device=density.device)
    masses = masses.scatter_add(1, top.flatten(1), density.flatten(1))
    best = masses.topk(count, -1)
    return best.values, best.indices
