"""Follow the gradient of the energy over Lie-algebra coordinates, from several starts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..energies.base import Energy
from ..energies.orbit import CHUNK, energies_at
from ..groups.base import Element, Group
from ..kinds import Border
from .base import Found, Search, best, found_at, joined, lie_group, nudged, spread


@dataclass(frozen=True)
class GradientSearch(Search):
    """Adam over coordinates ξ of ``g @ exp(ξ)``; the energy and its models must be differentiable.

    Every step runs the models once forward, which is counted, and once backward, which is not.

    Attributes:
        grid: Poses of the first look over the group.
        starts: How many of the best of them are followed.
        steps: Gradient steps.
        learning_rate: Size of the first steps in Lie coordinates; it falls to zero along a cosine.
        seed: Decides the draws, where the group has no grid.

    Reference:
        Shumaylov et al. 2024, "Lie algebra canonicalization", arXiv 2410.02698.
    """

    grid: int = 16
    starts: int = 2
    steps: int = 10
    learning_rate: float = 0.1
    seed: int = 0

    def find(
        self, energy: Energy, pictures: Tensor, group: Group, *, chunk: int = CHUNK, border: Border = "edge"
    ) -> Found:
        """Return all poses that were looked at."""
        lie = lie_group(group, "GradientSearch")
        poses = spread(group, self.grid, None, pictures.device, self.seed)
        every = poses.reshape(1, -1).expand(len(pictures), len(poses))
        found = found_at(energy, pictures, every, chunk=chunk, border=border)
        start = best(found, self.starts)
        # off the poses that move by index: there no gradient flows
        at = torch.full((*start.shape, lie.coordinates), 1e-4, dtype=torch.float64, device=pictures.device)
        moments = torch.zeros_like(at), torch.zeros_like(at)
        for step in range(self.steps):
            moved, energies, slope = self._slope(energy, pictures, start, at, chunk, border)
            visits = torch.full((len(pictures),), start.shape[1], device=pictures.device)
            found = joined(found, Found(moved, energies, visits))
            at, moments = self._stepped(at, slope, moments, step)
        last = nudged(start, at)
        return joined(found, found_at(energy, pictures, last, chunk=chunk, border=border))

    def _slope(
        self, energy: Energy, pictures: Tensor, start: Element, at: Tensor, chunk: int, border: Border
    ) -> tuple[Element, Tensor, Tensor]:
        """Return the poses, their energies and the gradients in the coordinates, a chunk at a time."""
        pairs = start.shape[1]
        rows = max(1, chunk // pairs)
        poses, energies, slopes = [], [], []
        for i in range(0, len(pictures), rows):
            with torch.enable_grad():
                here = at[i : i + rows].detach().requires_grad_()
                moved = nudged(start[i : i + rows], here)
                found = energies_at(energy, pictures[i : i + rows], moved, chunk=chunk, border=border)
                if not found.requires_grad:
                    raise TypeError(
                        "GradientSearch needs an energy that gradients flow through, from floating-point "
                        "pictures; use RandomSearch or BayesianSearch"
                    )
                slopes.append(torch.autograd.grad(found.sum(), here)[0])
            poses.append(moved.value.detach())
            energies.append(found.detach())
        return Element(start.group, torch.cat(poses)), torch.cat(energies), torch.cat(slopes)

    def _stepped(
        self, at: Tensor, slope: Tensor, moments: tuple[Tensor, Tensor], step: int
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the coordinates after a step of Adam (Kingma and Ba 2014), and its moments."""
        slope = torch.nan_to_num(slope)
        first = 0.9 * moments[0] + 0.1 * slope
        second = 0.99 * moments[1] + 0.01 * slope**2
        mean, square = first / (1 - 0.9 ** (step + 1)), second / (1 - 0.99 ** (step + 1))
        rate = 0.5 * self.learning_rate * (1 + torch.cos(torch.tensor(torch.pi * step / self.steps)))
        return at - rate.to(at) * mean / (square.sqrt() + 1e-12), (first, second)
