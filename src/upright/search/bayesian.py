"""Bayesian optimisation over Lie-algebra coordinates, by the package ``bayesian-optimization``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..energies.base import Energy
from ..energies.orbit import CHUNK
from ..groups.base import Group
from ..groups.lie import LieGroup
from ..kinds import Border
from .base import Found, Search, found_at, joined, lie_group


@dataclass(frozen=True)
class BayesianSearch(Search):
    """A Gaussian process a picture says where to look next; all pictures are looked at together.

    Attributes:
        starts: Random poses before the process is asked; the identity comes first.
        steps: Poses that the process chooses.
        reach: Largest coordinate either way: one for all coordinates, or one for each.
        seed: Decides the draws.

    Reference:
        Used for canonicalization by Singhal et al. 2025, arXiv 2507.10375.
    """

    starts: int = 6
    steps: int = 12
    reach: float | tuple[float, ...] = math.pi
    seed: int = 0

    def find(
        self, energy: Energy, pictures: Tensor, group: Group, *, chunk: int = CHUNK, border: Border = "edge"
    ) -> Found:
        """Return all poses that were looked at."""
        lie = lie_group(group, "BayesianSearch")
        optimizers = [_Optimizer(self._reach(lie), self.seed) for _ in range(len(pictures))]
        generator = torch.Generator().manual_seed(self.seed)
        reach = torch.tensor(self._reach(lie), dtype=torch.float64)
        draws = torch.rand(self.starts - 1, lie.coordinates, generator=generator, dtype=torch.float64)
        at = torch.cat([torch.zeros(1, lie.coordinates), (2 * draws - 1) * reach])
        at = at.expand(len(pictures), -1, -1)
        found: Found | None = None
        for step in range(self.steps + 1):
            if step:
                asked = [optimizer.suggest() for optimizer in optimizers]
                at = torch.tensor(asked, dtype=torch.float64).view(len(pictures), 1, lie.coordinates)
            seen = found_at(energy, pictures, lie.exp(at.to(pictures.device)), chunk=chunk, border=border)
            found = seen if found is None else joined(found, seen)
            for optimizer, points, energies in zip(optimizers, at, seen.energies.tolist(), strict=True):
                optimizer.register(points.tolist(), energies)
        assert found is not None
        return found

    def _reach(self, group: LieGroup) -> list[float]:
        given = self.reach if isinstance(self.reach, tuple) else (self.reach,) * group.coordinates
        if len(given) != group.coordinates:
            raise ValueError(
                f"reach must have one entry for each of {group.coordinates} coordinates of {group}, got "
                f"{len(given)}"
            )
        return list(given)


class _Optimizer:
    """One picture's Gaussian process; a small search of its acquisition, as there is one for each picture."""

    def __init__(self, reach: list[float], seed: int) -> None:
        try:
            from bayes_opt import BayesianOptimization
            from bayes_opt.acquisition import ExpectedImprovement
        except ImportError as error:
            raise ImportError(
                "BayesianSearch needs one more package: pip install 'upright[search]'"
            ) from error
        self.acquisition: Any = ExpectedImprovement(xi=0.0)
        self.seed = seed
        self.worst = math.inf
        self.whole: Any = BayesianOptimization(
            f=None,
            pbounds={f"x{i:03d}": (-r, r) for i, r in enumerate(reach)},
            acquisition_function=self.acquisition,
            random_state=seed,
            verbose=0,
            allow_duplicate_points=True,
        )
        self.whole.set_gp_params(n_restarts_optimizer=0)

    def suggest(self) -> list[float]:
        point = self.acquisition.suggest(
            self.whole._gp, self.whole.space, n_random=256, n_smart=1, random_state=self.seed
        )
        return [float(x) for x in point]

    def register(self, points: list[list[float]], energies: list[float]) -> None:
        self.worst = min(self.worst, *(-energy for energy in energies if math.isfinite(energy)), math.inf)
        instead = self.worst if math.isfinite(self.worst) else 0.0  # the process takes finite numbers only
        for point, energy in zip(points, energies, strict=True):
            self.whole.register(point, -energy if math.isfinite(energy) else instead)
