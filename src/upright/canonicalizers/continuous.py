"""The canonicalizer of continuous turns and scales: a density over the group, and its refined peaks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .._checks import check_positive
from ..groups.base import Element, Group
from ..groups.parse import parse_group
from ..groups.product import Product, factors_of
from ..groups.projective import Scale
from ..groups.rotations import O2, SO2
from ..priors import Prior
from .network import NetworkCanonicalizer
from .peaks import PoseGrid, hills
from .pose import Pose


class ContinuousCanonicalizer(NetworkCanonicalizer):
    """Finds the angle, the handedness and the scale of pictures: the peak of a density over a group.

    The network scores equally spaced angles, logarithms of scales, or pairs of both. The density is smoothed;
    its hills are found by climbing, ranked by the probability in their basins, and the top of each is found
    between the cells by Newton's method, in all coordinates together, through which gradients flow. No state,
    no randomness.

    Scales form no circle: a picture beyond ``network.largest`` gets a scale within it, and near the ends tops
    are drawn inward, by less than a cell.

    Args:
        network: Maps thumbnails ``(B, C, size, size)`` to scores ``(B, network.bins)``: of the rotations by
            ``i · 360° / n``; for O(2), then of the reflections ``R^(i · 360° / n) F``. When the picture turns
            by a cell, they shift by one. See `upright.nets.PolarDensity`. With scales, ``network.scales``
            scores stand in the place of each: of the factors from ``1 / network.largest`` to
            ``network.largest``, their logarithms equally spaced. See `upright.nets.LogPolarDensity`.
        group: ``"SO2"``, ``"O2"``, ``"scale"``, ``"SO2xscale"`` or ``"O2xscale"``.
        size: Side of the thumbnail in pixels; None hands the picture over as it is (it must be square).
        channels: Channels that the network expects; greyscale pictures are expanded to them.
        standardize: Shift and scale each channel of each thumbnail to mean 0 and variance 1.
        candidates: How many hills a pose lists.
        window_degrees: Standard deviation of the smoothing over angles; at least one cell, so that
            tops between cells are where they are on the cells.
        window_factor: The same over scales, as a factor.
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
        window_factor: float = 1.15,
        deployment_prior: Prior | None = None,
    ) -> None:
        parsed = parse_group(group)
        turning, scaling = _coordinates(parsed)
        super().__init__(
            network, parsed, size=size, channels=channels, standardize=standardize,
            deployment_prior=deployment_prior,
        )  # fmt: skip
        self.turning, self.scaling = turning, scaling
        bins, scales = getattr(network, "bins", None), getattr(network, "scales", 1) if self.scaling else 1
        sheets = 2 if isinstance(self.turning, O2) else 1
        least = (4 if self.turning else 1) * (3 if self.scaling else 1)
        if not isinstance(bins, int) or bins % (sheets * scales) or bins < least * sheets:
            raise TypeError(
                f"network.bins must be the number of scores, a multiple of {sheets * scales}, got {bins!r}; "
                "see upright.nets.PolarDensity and LogPolarDensity"
            )
        check_positive("candidates", candidates)
        self.bins, self.sheets, self.scales = bins, sheets, scales
        self.rays = bins // sheets // scales
        self.largest = float(getattr(network, "largest", 1.0)) if self.scaling else 1.0
        if self.scaling and (self.largest <= 1 or scales % 2 == 0 or (not self.turning and self.rays > 1)):
            raise TypeError(
                f"network must score an odd number of scales up to a factor above 1, for {parsed}; got "
                f"bins={bins}, scales={scales}, largest={self.largest}; see upright.nets.LogPolarDensity"
            )
        self.candidates = min(candidates, bins)
        if self.turning and window_degrees * self.rays < 360:
            raise ValueError(
                f"window_degrees must be at least one cell, {360 / self.rays:.2f}, got {window_degrees}"
            )
        self.window_degrees, self.window_factor = window_degrees, window_factor
        cell = math.exp(self._grid().step)
        if self.scaling and window_factor < cell * (1 - 1e-9):
            raise ValueError(f"window_factor must be at least one cell, {cell:.4f}, got {window_factor}")

    def _grid(self) -> PoseGrid:
        """Return the cells of one handedness."""
        window = math.log(self.window_factor) if self.scaling else 1.0
        return PoseGrid(
            self.rays, self.scales, math.log(self.largest), math.radians(self.window_degrees), window
        )

    def cells(self, device: Any = None) -> Element:
        """Return the elements that the network scores, shape ``(bins,)``, in the order of its scores."""
        like = torch.zeros((), dtype=torch.float64, device=device)
        grid, sheet = self._grid(), torch.arange(self.sheets, device=device).to(like)
        table = torch.meshgrid(sheet, grid.angles(like), grid.logs(like), indexing="ij")
        sheet, angle, log = (part.flatten() for part in table)
        return self._elements(angle, sheet, log)

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
        density = log_probs.double().exp().view(-1, self.sheets, self.rays, self.scales)
        grid, one = self._grid(), self.rays * self.scales
        masses, tops = hills(grid.smoothed(density).detach(), density.detach(), self.candidates)
        sheet = tops // one
        rows = torch.arange(density.shape[0], device=density.device).unsqueeze(1)
        angle, log = grid.refined(density[rows, sheet], tops % one)
        unknown = log_probs.isnan().any(1, keepdim=True)  # a picture that is not finite is left as it is
        angle, log, sheet = (part.masked_fill(unknown, 0) for part in (angle, log, sheet))
        total = masses.sum(-1, keepdim=True)
        listed = self._elements(angle, sheet, log)
        return Pose(
            listed[:, 0],
            (masses / total).log().to(log_probs.dtype),
            features=features,
            candidates=listed,
            grid=self.cells(log_probs.device),
            log_density=log_probs,
        )

    def _elements(self, angle: Tensor, sheet: Tensor, log: Tensor) -> Element:
        """Return elements by angle, handedness (0 or 1) and logarithm of the scale."""
        parts = []
        for factor in factors_of(self.group):
            if isinstance(factor, Scale):
                parts.append(Element(factor, log))
            else:
                reflects = isinstance(factor, O2)
                parts.append(
                    Element(factor, torch.stack([angle, sheet.to(angle)], -1) if reflects else angle)
                )
        return self.group.joined(*parts) if isinstance(self.group, Product) else parts[0]


def _coordinates(group: Group) -> tuple[SO2 | O2 | None, Scale | None]:
    """Return what of a group turns and what scales.

    Raises:
        TypeError: If there is anything else to it, or neither.
    """
    turning = [f for f in factors_of(group) if isinstance(f, (SO2, O2))]
    scaling = [f for f in factors_of(group) if isinstance(f, Scale)]
    if len(turning) > 1 or len(scaling) > 1 or len(turning) + len(scaling) < len(factors_of(group)):
        raise TypeError(
            f"group must be SO2 or O2, scale, or a product of the two, got {group}; finite groups: "
            "DiscreteCanonicalizer"
        )
    return next(iter(turning), None), next(iter(scaling), None)
