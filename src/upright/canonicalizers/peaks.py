"""Peaks of densities over angles and logarithms of scales: hills on the grid, tops between its cells."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..groups.rotations import wrapped

STEPS = 8
"""Newton steps to a top; from half a cell away four are enough, the others are for hills with flat tops."""


@dataclass(frozen=True)
class PoseGrid:
    """A grid of angles (a circle) and logarithms of scales (a line), and a smoothing of densities on it.

    Attributes:
        rays: Number of equally spaced angles, from 0; 1: the angle is no coordinate.
        scales: Odd number of logarithms from ``-largest`` to ``largest``; 1: the scale is no coordinate.
        largest: Last logarithm.
        angle_window: Standard deviation of the smoothing in radians.
        scale_window: The same in logarithms.
    """

    rays: int
    scales: int = 1
    largest: float = 0.0
    angle_window: float = 1.0
    scale_window: float = 1.0

    def angles(self, like: Tensor) -> Tensor:
        """Return the angles, shape ``(rays,)``."""
        return torch.arange(self.rays, device=like.device).to(like) * (2 * math.pi / self.rays)

    def logs(self, like: Tensor) -> Tensor:
        """Return the logarithms of the scales, shape ``(scales,)``."""
        steps = torch.arange(self.scales, device=like.device) - self.scales // 2
        return steps.to(like) * self.step

    @property
    def step(self) -> float:
        """Distance of neighbouring scales' logarithms; 0 where there is only one."""
        return 2 * self.largest / max(self.scales - 1, 1)

    def smoothed(self, density: Tensor) -> Tensor:
        """Smooth densities ``(…, rays, scales)``; what lies beyond the scales counts as nothing."""
        angles, logs = self.angles(density), self.logs(density)
        around = torch.exp(self.angle_window**-2 * ((angles[:, None] - angles).cos() - 1))
        along = torch.exp(-0.5 * ((logs[:, None] - logs) / self.scale_window) ** 2)
        return around @ density @ along

    def refined(self, density: Tensor, top: Tensor) -> tuple[Tensor, Tensor]:
        """Climb to the tops of the smoothed density, from cells beside them, by Newton's method.

        The last step carries the gradient; at the top it is that of the implicit function theorem.

        Args:
            density: Probabilities, shape ``(B, K, rays, scales)``.
            top: Where to start, cells counted row by row, shape ``(B, K)``.

        Returns:
            Angles in ``[0, 2π)`` and logarithms of scales, shape ``(B, K)``; gradients flow into the density.
        """
        angle = start = self.angles(density)[top // self.scales]
        log = first = self.logs(density)[top % self.scales]
        cell = 2 * math.pi / self.rays
        for step in range(STEPS):
            last = step == STEPS - 1
            turn, zoom = self._step(density if last else density.detach(), angle, log)
            angle = angle + turn if last else start + (angle + turn - start).clamp(-cell, cell)
            log = log + zoom if last else first + (log + zoom - first).clamp(-self.step, self.step)
        return wrapped(angle), log.clamp(-self.largest, self.largest)

    def _step(self, density: Tensor, angle: Tensor, log: Tensor) -> tuple[Tensor, Tensor]:
        """Return Newton steps towards the tops of the smoothed density, each ``(B, K)``."""
        sharp = self.angle_window**-2
        away = self.angles(density) - angle.unsqueeze(-1)  # (B, K, rays)
        kernel, slope = torch.exp(sharp * (away.cos() - 1)), sharp * away.sin()
        around = torch.stack([kernel, kernel * slope, kernel * (slope**2 - sharp * away.cos())], -2)
        along = torch.ones_like(log)[..., None, None] * torch.eye(3, 1).to(log)  # no coordinate: no slope
        if self.scales > 1:
            sharp = self.scale_window**-2
            slope = sharp * (self.logs(density) - log.unsqueeze(-1))
            kernel = torch.exp(-0.5 * slope**2 / sharp)
            along = torch.stack([kernel, kernel * slope, kernel * (slope**2 - sharp)], -2)
        moments = around @ density @ along.mT  # (B, K, 3, 3): derivatives by angle, by logarithm
        moments = moments / moments[..., :1, :1].clamp(min=1e-300)
        by_angle, by_log, mixed = moments[..., 1, 0], moments[..., 0, 1], moments[..., 1, 1]
        bends = [
            moments[..., 2, 0] if self.rays > 1 else -torch.ones_like(by_angle),
            moments[..., 0, 2] if self.scales > 1 else -torch.ones_like(by_log),
        ]
        volume = bends[0] * bends[1] - mixed**2
        convex = (bends[0] < 0) & (volume > 1e-9 * bends[0] * bends[1])
        volume = torch.where(convex, volume, 1.0)
        newton = (mixed * by_log - bends[1] * by_angle, mixed * by_angle - bends[0] * by_log)
        plain = (
            slope / bend.abs().clamp(min=1e-9) for slope, bend in zip((by_angle, by_log), bends, strict=True)
        )
        turn, zoom = (
            torch.where(convex, full / volume, along_axis)  # uphill even where the hill is not yet convex
            for full, along_axis in zip(newton, plain, strict=True)
        )
        return turn, zoom


def hills(height: Tensor, density: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Find the hills of functions of an angle and a scale.

    Every cell belongs to the top that is reached by climbing to the highest neighbour, of up to eight.

    Args:
        height: What is climbed, shape ``(B, sheets, rays, scales)``: sheets that do not touch, on which rays
            are next to each other around the circle, and scales along a line.
        density: What is summed over each basin, of the same shape.
        count: How many hills are returned; where there are fewer, the others have no mass.

    Returns:
        Masses and tops (numbers of cells, counted over all sheets), shape ``(B, count)``, largest first.
    """
    batch, _, rays, scales = height.shape
    moves = [(0, 0), *((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j)]
    moves = [(i, j) for i, j in moves if (rays > 1 or not i) and (scales > 1 or not j)]
    fenced = torch.nn.functional.pad(height, (1, 1), value=-math.inf)
    around = [fenced.roll(-i, -2)[..., 1 + j : 1 + j + scales] for i, j in moves]
    around[0] = height * (1 + 1e-12)  # what is flat but for rounding is no slope
    best = torch.stack(around).argmax(0)
    step = torch.tensor(moves, device=height.device)[best]  # (B, sheets, rays, scales, 2)
    ray = (torch.arange(rays, device=height.device)[:, None] + step[..., 0]) % rays
    scale = torch.arange(scales, device=height.device) + step[..., 1]
    top = (ray * scales + scale).flatten(2)  # (B, sheets, rays · scales)
    for _ in range((rays * scales).bit_length()):
        top = top.gather(-1, top)
    sheets = torch.arange(top.shape[1], device=height.device)[:, None]
    top = (top + rays * scales * sheets).flatten(1)
    masses = torch.zeros(batch, top.shape[1], dtype=density.dtype, device=density.device)
    largest = masses.scatter_add(1, top, density.flatten(1)).topk(count, -1)
    return largest.values, largest.indices
