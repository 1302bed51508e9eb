"""Charged particles obey mechanics: laws of conservation, symmetry, orbits that are known in closed form."""

import math

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from upright.data.nbody import ParticleSet, energy, forces, make_particles, random_systems, simulate


def rotation(sign):
    q = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    return q * torch.sign(torch.linalg.det(q)) * sign


def plain(x, v, q, steps, step=0.001, limit=100.0):
    """Velocity Verlet, pair by pair, in NumPy."""

    def pull(x):
        f = np.zeros_like(x)
        for i in range(len(x)):
            for j in range(len(x)):
                if i != j:
                    r = np.linalg.norm(x[i] - x[j])
                    f[i] += np.clip(q[i] * q[j] / r**2, -limit, limit) * (x[i] - x[j]) / r
        return f

    for _ in range(steps):
        half = v + step / 2 * pull(x)
        x = x + step * half
        v = half + step / 2 * pull(x)
    return x, v


def test_as_a_plain_simulation_in_numpy():
    x, v, q = random_systems(2, 4, torch.Generator().manual_seed(1))
    x[:, 1] = x[:, 0] + 0.03  # forces that are cut off
    q[:, :2] = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    got = simulate(x, v, q, 30)
    for i in range(2):
        expected = plain(x[i].numpy(), v[i].numpy(), q[i].numpy(), 30)
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_allclose(a[i].numpy(), b, atol=1e-10)


def test_opposite_charges_circle_each_other():
    """At distance r = 1, each of mass 1: v²/(1/2) = 1/r², so v = sqrt(1/2); a turn takes 2π (1/2) / v."""
    speed = math.sqrt(0.5)
    x = torch.tensor([[0.5, 0, 0], [-0.5, 0, 0]], dtype=torch.float64)
    v = torch.tensor([[0, speed, 0], [0, -speed, 0]], dtype=torch.float64)
    quarter = math.pi / speed / 4
    later, _ = simulate(x, v, torch.tensor([1.0, -1.0]).double(), 300, step=quarter / 300)
    expected = torch.tensor([[0, 0.5, 0], [0, -0.5, 0]], dtype=torch.float64)
    torch.testing.assert_close(later, expected, atol=1e-5, rtol=0)


def test_like_charges_repel_and_unlike_attract():
    x = torch.tensor([[0.0, 0, 0], [2, 0, 0]])
    like = forces(x, torch.tensor([1.0, 1.0]))
    torch.testing.assert_close(like, torch.tensor([[-0.25, 0, 0], [0.25, 0, 0]]))
    torch.testing.assert_close(forces(x, torch.tensor([1.0, -1.0]), strength=3.0), -3 * like)
    assert forces(x / 1e3, torch.tensor([1.0, 1.0]), limit=7.0).tolist() == [[-7, 0, 0], [7, 0, 0]]


def test_momentum_and_energy_stay():
    x, v, q = random_systems(20, 5, torch.Generator().manual_seed(0))
    moved = simulate(x, v, q, 400)
    close = torch.cdist(torch.cat([x, moved[0]]), torch.cat([x, moved[0]]))
    torch.testing.assert_close(moved[1].sum(1), v.sum(1), atol=1e-10, rtol=0)
    turning = [torch.linalg.cross(a, b).sum(1) for a, b in ((x, v), moved)]
    torch.testing.assert_close(turning[1], turning[0], atol=1e-10, rtol=0)
    drift = (energy(*moved, q) - energy(x, v, q)).abs()
    assert drift.median() < 1e-4
    assert (moved[0] - x).norm(dim=-1).mean() > 0.1
    assert close.isfinite().all()


def test_time_can_be_turned_back():
    x, v, q = random_systems(3, 5, torch.Generator().manual_seed(0))
    there = simulate(x, v, q, 300)
    back = simulate(*there, q, 300, step=-0.001)
    torch.testing.assert_close(back, (x, v), atol=1e-7, rtol=0)


@pytest.mark.parametrize("sign", [1, -1])
def test_turned_mirrored_and_shifted_systems_evolve_alike(sign):
    x, v, q = random_systems(4, 5, torch.Generator().manual_seed(0))
    x[:, 1] = x[:, 0] + 0.05  # with forces that are cut off
    turn, shift = rotation(sign), torch.randn(3, dtype=torch.float64)
    plain_x, plain_v = simulate(x, v, q, 100)
    moved = simulate(x @ turn.T + shift, v @ turn.T, q, 100)
    torch.testing.assert_close(moved, (plain_x @ turn.T + shift, plain_v @ turn.T), atol=1e-6, rtol=0)


@pytest.mark.parametrize("bodies", [1, 2, 5, 20])
def test_any_number_of_bodies_and_any_batch(bodies):
    x, v, q = random_systems(3, bodies, torch.Generator().manual_seed(0))
    together = simulate(x, v, q, 20)
    for i in range(3):
        alone = simulate(x[i], v[i], q[i], 20)
        torch.testing.assert_close((together[0][i], together[1][i]), alone)
    assert simulate(x[:0], v[:0], q[:0], 5)[0].shape == (0, bodies, 3)


def test_padding_of_charge_zero_moves_no_other():
    x, v, q = random_systems(2, 4, torch.Generator().manual_seed(0))
    zeros = torch.zeros(2, 3, 3, dtype=torch.float64)  # all at one place
    padded = simulate(
        torch.cat([x, zeros], 1), torch.cat([v, zeros], 1), torch.cat([q, zeros[..., 0]], 1), 50
    )
    expected = simulate(x, v, q, 50)
    torch.testing.assert_close((padded[0][:, :4], padded[1][:, :4]), expected)
    assert torch.equal(padded[0][:, 4:], zeros)
    together = zeros.clone().requires_grad_()
    (slope,) = torch.autograd.grad(forces(together, torch.ones(2, 3).double()).sum(), together)
    assert slope.isfinite().all()


def test_starts_are_those_of_the_literature():
    x, v, q = random_systems(4000, 5, torch.Generator().manual_seed(0))
    assert x.std() == pytest.approx(1, abs=0.02)
    torch.testing.assert_close(v.norm(dim=-1), torch.full((4000, 5), 0.5, dtype=torch.float64))
    assert v.mean((0, 1)).abs().max() < 0.01
    assert sorted(q.unique().tolist()) == [-1, 1]
    assert q.mean().abs() < 0.02


def test_sets_hold_both_times_and_follow_the_seed():
    data = make_particles(4, 3, warmup=20, horizon=10, seed=7)
    assert data.positions.dtype == torch.float32
    x, v, q = random_systems(4, 3, torch.Generator().manual_seed(7))
    at, speed = simulate(x, v, q, 20)
    torch.testing.assert_close(data.positions, at.float())
    torch.testing.assert_close(data.velocities, speed.float())
    torch.testing.assert_close(data.targets, simulate(x, v, q, 30)[0].float())
    assert torch.equal(data.targets, make_particles(4, 3, warmup=20, horizon=10, seed=7).targets)
    assert not torch.equal(data.targets, make_particles(4, 3, warmup=20, horizon=10, seed=8).targets)
    batches = [tuple(b.shape) for b in next(iter(DataLoader(data, 3)))]
    assert batches == [(3, 3, 3), (3, 3, 3), (3, 3), (3, 3, 3)]
    assert len(make_particles(0, 3, warmup=1, horizon=1)) == 0


def test_mistakes_are_told():
    x = torch.zeros(2, 4, 3)
    with pytest.raises(ValueError, match=r"one shape \(…, N, 3\), got \(2, 4, 3\) and \(2, 3, 3\)"):
        simulate(x, x[:, :3], x[..., 0], 1)
    with pytest.raises(
        ValueError, match=r"charges must have shape \(2, 4\) to match positions, got \(2, 4, 1\)"
    ):
        simulate(x, x, x[..., :1], 1)
    with pytest.raises(ValueError, match="bodies must be positive, got 0"):
        make_particles(1, 0)
    with pytest.raises(ValueError, match="at least 0, got 2, -1 and 1000"):
        make_particles(2, warmup=-1)
    with pytest.raises(ValueError, match=r"targets must have shape \(2, 4, 3\) to match positions"):
        ParticleSet(x, x, x[..., 0], x[:1])
