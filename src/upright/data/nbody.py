"""Charged particles that attract and repel each other: any number of bodies, simulated here.

The system of Kipf et al. (arXiv:1802.04687), in space as in Fuchs et al. (arXiv:2006.10503) and Satorras et
al. (arXiv:2102.09844): charges of ±1, positions of standard deviation 1, speeds of 1/2, forces of Coulomb, no
walls, no noise, leapfrog steps of 0.001. From 5 bodies after 3000 steps, say where they are 1000 steps later.

One thing differs: their code cuts off large forces in each coordinate apart, and so the laws of motion there
depend on the axes. Here the force of each pair is cut off by its length: turned and mirrored systems evolve
alike, and the momentum stays.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.utils.data import Dataset

from .._checks import check_positive


class ParticleSet(Dataset[tuple[Tensor, Tensor, Tensor, Tensor]]):
    """Systems of charged particles, and where they are later.

    Items are (positions, velocities, charges, targets).

    Args:
        positions: Shape ``(M, N, 3)``.
        velocities: Shape ``(M, N, 3)``.
        charges: Shape ``(M, N)``.
        targets: Positions later, shape ``(M, N, 3)``.
    """

    def __init__(self, positions: Tensor, velocities: Tensor, charges: Tensor, targets: Tensor) -> None:
        for name, got, shape in (
            ("velocities", velocities, positions.shape),
            ("charges", charges, positions.shape[:-1]),
            ("targets", targets, positions.shape),
        ):
            if got.shape != shape:
                raise ValueError(
                    f"{name} must have shape {tuple(shape)} to match positions, got {tuple(got.shape)}"
                )
        self.positions, self.velocities, self.charges = positions, velocities, charges
        self.targets = targets

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.positions[index], self.velocities[index], self.charges[index], self.targets[index]


def make_particles(
    systems: int,
    bodies: int = 5,
    *,
    warmup: int = 3000,
    horizon: int = 1000,
    step: float = 0.001,
    seed: int = 0,
) -> ParticleSet:
    """Simulate systems from random starts.

    Args:
        systems: How many, M; 0 makes an empty set.
        bodies: Particles in each, N.
        warmup: Steps before the positions and velocities that are given.
        horizon: Steps from these to the targets.
        step: Length of a step.
        seed: Of the starts. 3000 systems of 5 bodies take a few seconds on one core.

    Returns:
        The systems, float32; simulated in float64.

    Raises:
        ValueError: If a number is out of range.
    """
    check_positive("bodies", bodies)
    if min(systems, warmup, horizon) < 0:
        raise ValueError(
            f"systems, warmup and horizon must be at least 0, got {systems}, {warmup} and {horizon}"
        )
    x, v, q = random_systems(systems, bodies, torch.Generator().manual_seed(seed))
    x, v = simulate(x, v, q, warmup, step=step)
    later, _ = simulate(x, v, q, horizon, step=step)
    return ParticleSet(x.float(), v.float(), q.float(), later.float())


def random_systems(
    systems: int, bodies: int, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw starts: normal positions, speeds of 1/2 in any direction, charges of 1 or -1.

    Args:
        systems: How many, M.
        bodies: Particles in each, N.
        generator: Where draws come from.

    Returns:
        Positions ``(M, N, 3)``, velocities ``(M, N, 3)`` and charges ``(M, N)``, float64.
    """
    x, v = torch.randn(2, systems, bodies, 3, dtype=torch.float64, generator=generator)
    charges = torch.randint(0, 2, (systems, bodies), generator=generator).double() * 2 - 1
    return x, v / v.norm(dim=-1, keepdim=True) / 2, charges


def simulate(
    positions: Tensor,
    velocities: Tensor,
    charges: Tensor,
    steps: int,
    *,
    step: float = 0.001,
    strength: float = 1.0,
    limit: float = 100.0,
) -> tuple[Tensor, Tensor]:
    """Follow particles of mass 1 under Coulomb forces, by leapfrog.

    Args:
        positions: Shape ``(…, N, 3)``.
        velocities: Shape ``(…, N, 3)``, at the same time as the positions.
        charges: Shape ``(…, N)``; a particle of charge 0 flies straight on and moves no other (padding).
        steps: How many; 0 changes nothing.
        step: Length of a step; a negative one goes back in time.
        strength: Force between unit charges at distance 1.
        limit: No pair's force is larger.

    Returns:
        Positions and velocities later, with the shapes and dtype of those given.

    Raises:
        ValueError: If shapes differ.
    """
    if positions.shape != velocities.shape or positions.shape[-1:] != (3,):
        raise ValueError(
            "positions and velocities must have one shape (…, N, 3), "
            f"got {tuple(positions.shape)} and {tuple(velocities.shape)}"
        )
    if charges.shape != positions.shape[:-1]:
        raise ValueError(
            f"charges must have shape {tuple(positions.shape[:-1])} to match positions, "
            f"got {tuple(charges.shape)}"
        )
    check_positive("limit", limit)
    x, v = _systems_last(positions), _systems_last(velocities)
    pulls = _Pulls(charges, strength, limit)
    if steps:
        v = v + step / 2 * pulls(x)
    for i in range(steps):
        x = x + step * v
        last = 0.5 if i == steps - 1 else 1.0
        v = v + last * step * pulls(x)
    return _systems_first(x, positions), _systems_first(v, positions)


def forces(positions: Tensor, charges: Tensor, *, strength: float = 1.0, limit: float = math.inf) -> Tensor:
    """Return Coulomb forces: like charges repel, by ``strength q_i q_j / r²``.

    Args:
        positions: Shape ``(…, N, 3)``.
        charges: Shape ``(…, N)``.
        strength: Force between unit charges at distance 1.
        limit: No pair's force is larger. Particles at one place exert none on each other.

    Returns:
        Forces, ``(…, N, 3)``.
    """
    return _systems_first(_Pulls(charges, strength, limit)(_systems_last(positions)), positions)


class _Pulls:
    """Forces of systems that lie along the last axis, which is several times as fast as along the first."""

    def __init__(self, charges: Tensor, strength: float, limit: float) -> None:
        q = charges.flatten(0, -2).mT if charges.ndim > 1 else charges.unsqueeze(-1)  # (N, M)
        self.i, self.j = torch.triu_indices(len(q), len(q), 1, device=q.device).unbind()
        self.products = strength * q[self.i] * q[self.j]
        self.limit = limit

    def __call__(self, x: Tensor) -> Tensor:
        """Return forces on particles ``(N, 3, M)``."""
        apart = x[self.i] - x[self.j]  # (pairs, 3, M), from j to i
        square = apart.square().sum(1)
        together = square == 0
        square = square.masked_fill(together, 1.0)
        size = (self.products / square).clamp(-self.limit, self.limit) / square.sqrt()
        pulls = apart * size.masked_fill(together, 0.0).unsqueeze(1)
        return torch.zeros_like(x).index_add(0, self.i, pulls).index_add(0, self.j, pulls, alpha=-1)


def _systems_last(x: Tensor) -> Tensor:
    """Return ``(…, N, 3)`` as ``(N, 3, M)``."""
    systems = x.flatten(0, -3) if x.ndim > 2 else x.unsqueeze(0)
    return systems.permute(1, 2, 0).contiguous()


def _systems_first(x: Tensor, like: Tensor) -> Tensor:
    """Return ``(N, 3, M)`` in the shape of ``like``, ``(…, N, 3)``."""
    return x.permute(2, 0, 1).reshape(like.shape)


def energy(positions: Tensor, velocities: Tensor, charges: Tensor, *, strength: float = 1.0) -> Tensor:
    """Return kinetic and potential energy, which leapfrog keeps nearly while no force is cut off.

    Args:
        positions: Shape ``(…, N, 3)``.
        velocities: Shape ``(…, N, 3)``.
        charges: Shape ``(…, N)``.
        strength: As in `forces`.

    Returns:
        Energies, shape ``(…,)``.
    """
    bodies = charges.shape[-1]
    i, j = torch.triu_indices(bodies, bodies, 1, device=positions.device).unbind()
    distance = (positions[..., i, :] - positions[..., j, :]).norm(dim=-1)
    potential: Tensor = strength * (charges[..., i] * charges[..., j] / distance).sum(-1)
    return potential + velocities.square().sum((-2, -1)) / 2
