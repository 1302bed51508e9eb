"""Predictors of particles, adapted: equivariant under E(3) for any number of bodies and any batch.

The wrong variants are run too: frames that do not see velocities, and predictors that are not adapted.
"""

import re
from functools import partial
from pathlib import Path

import pytest
import torch

import upright
from upright import act
from upright.canonicalizers import MinimalFrame, PCAFrame
from upright.kinds_space import Cloud, PointVectors, Vectors
from upright.nets.egnn import EGNN
from upright.nets.particles import ParticleGNN, ParticleTransformer, pair_features

PREDICTORS = {
    "GNN": partial(ParticleGNN, 8),
    "transformer": partial(ParticleTransformer, 8, heads=2),
    "EGNN": partial(EGNN, 8, 2),
}
torch.set_num_threads(1)


def lively(network):
    with torch.no_grad():
        for p in network.parameters():
            p.normal_(0, 0.5 / p.shape[-1] ** 0.5)
    return network.eval()


def systems(batch, bodies, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, v = torch.randn(2, batch, bodies, 3, generator=generator, dtype=torch.float64)
    q = torch.randint(0, 2, (batch, bodies), generator=generator).double() * 2 - 1
    return x.to(dtype), v.to(dtype), q.to(dtype)


def adapted(model, velocities="point_vectors", frame="pca", **options):
    kinds = {"positions": "cloud", "velocities": velocities, "mask": "point_mask"}
    return upright.adapt(model, "E3", canonicalizer=frame, inputs=kinds, outputs="cloud", **options)


def error(model, x, v, q, mask=None):
    """Largest distance between the two ways round, in units of the largest shift."""
    g = upright.E3().sample(len(x), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        said = model(x, v, q, mask)
        moved = model(act(g, Cloud(x)).data, act(g, Vectors(v)).data, q, mask)
    off = (moved - act(g, Cloud(said)).data).norm(dim=-1)
    off = off if mask is None else off[mask]
    assert off.isfinite().all()
    return float(off.max() / (said - x).norm(dim=-1).max())


@pytest.mark.parametrize("frame", ["pca", "minimal"])
@pytest.mark.parametrize(("batch", "bodies"), [(1, 2), (5, 3), (2, 5), (3, 12)])
@pytest.mark.parametrize("name", ["GNN", "transformer"])
def test_adapted_predictors_are_equivariant(name, batch, bodies, frame):
    torch.manual_seed(1)
    model = lively(PREDICTORS[name]())
    assert error(adapted(model, frame=frame), *systems(batch, bodies, torch.float32)) <= 1e-5
    model = model.double()
    assert error(adapted(model, frame=frame), *systems(batch, bodies)) <= 1e-9
    assert error(model, *systems(batch, bodies)) > 1e-2


@pytest.mark.parametrize("bodies", [2, 3])
def test_frames_of_positions_alone_leave_few_bodies_open(bodies):
    torch.manual_seed(1)
    model = lively(PREDICTORS["GNN"]()).double()
    system = systems(8, bodies)
    assert error(adapted(model, "vectors"), *system) > 1e-2
    assert error(adapted(model), *system) <= 1e-9
    kinds = {"positions": "cloud", "velocities": "point_vectors"}
    robust = upright.adapt(model, "E3", canonicalizer="pca", inputs=kinds, outputs="cloud")
    assert not robust.pose(*system).is_tied.any()


@pytest.mark.parametrize("name", PREDICTORS)
def test_systems_of_different_sizes_share_a_batch(name):
    torch.manual_seed(1)
    robust = adapted(lively(PREDICTORS[name]()).double())
    x, v, q = systems(4, 6)
    mask = torch.arange(6) < torch.tensor([6, 2, 4, 3])[:, None]
    x[~mask], v[~mask] = 50.0, -7.0
    together = robust(x, v, q, mask)
    for i, row in enumerate(mask):
        alone = robust(x[i : i + 1, row], v[i : i + 1, row], q[i : i + 1, row])
        torch.testing.assert_close(together[i, row], alone[0])
    assert error(robust, x, v, q, mask) <= 1e-9
    with torch.no_grad():
        order = torch.randperm(6)
        moved = robust(x[:, order], v[:, order], q[:, order], mask[:, order])
        torch.testing.assert_close(moved[mask[:, order]], together[:, order][mask[:, order]])


@pytest.mark.parametrize("name", PREDICTORS)
def test_before_training_particles_fly_straight_on(name):
    torch.manual_seed(0)
    x, v, q = systems(4, 5, torch.float32)
    for options in ({}, {"horizon": 0.3}):
        with torch.no_grad():
            said = PREDICTORS[name](**options)(x, v, q)
        straight = options.get("horizon", 1.0) * v
        assert (said - x - straight).norm() <= 0.15 * straight.norm()
    with pytest.raises(ValueError, match="horizon must be positive, got 0"):
        PREDICTORS[name](horizon=0)


@pytest.mark.parametrize("bodies", [0, 1])
def test_empty_and_lonely_systems_are_borne(bodies):
    for make in PREDICTORS.values():
        x, v, q = systems(2, bodies, torch.float32)
        assert make()(x, v, q).isfinite().all()
    assert adapted(make())(*systems(0, 5, torch.float32)).shape == (0, 5, 3)


def test_what_is_seen_of_pairs():
    """Number by number, and the same after every motion."""
    x, v, q = systems(2, 4)
    arrows, seen = pair_features(x, v, q)
    for b, i, j in ((0, 1, 3), (1, 2, 0), (1, 3, 3)):
        r, u = x[b, i] - x[b, j], v[b, i] - v[b, j]
        product, near = q[b, i] * q[b, j], 1 / (r @ r + 0.04) ** 0.5
        rate = torch.log(1 + (r @ u).abs()) * (1 if r @ u > 0 else -1)
        expected = [torch.log(1 + r @ r), torch.log(1 + u @ u), rate, near, product, product * near]
        torch.testing.assert_close(seen[b, i, j], torch.stack(expected))
        torch.testing.assert_close(arrows[b, i, j], torch.stack([r, u]))
    g = upright.E3().sample(2, generator=torch.Generator().manual_seed(0))
    turned, same = pair_features(act(g, Cloud(x)).data, act(g, Vectors(v)).data, q)
    torch.testing.assert_close(same, seen)
    torch.testing.assert_close(turned, act(g, Vectors(arrows)).data)


@pytest.mark.parametrize("frame", [PCAFrame, MinimalFrame])
def test_canonicalizers_see_tips_of_arrows(frame):
    """As a batch, padded, and as lists: the points, and then the points moved by their arrows."""
    x, v, q = systems(3, 4)
    model = lively(PREDICTORS["GNN"]()).double()
    robust = adapted(model, frame=frame("E3"))
    tips = torch.cat([x, x + v], 1)
    torch.testing.assert_close(robust.pose(x, v, q).element.value, frame("E3")(tips).element.value)
    mask = torch.arange(4) < torch.tensor([4, 2, 3])[:, None]
    expected = frame("E3")(tips, mask.repeat(1, 2)).element.value
    torch.testing.assert_close(robust.pose(x, v, q, mask).element.value, expected)
    kinds = {"points": "cloud", "normals": "point_vectors"}
    lists = upright.adapt(
        lambda points, normals: torch.stack([p[0] + n[0] for p, n in zip(points, normals, strict=True)]),
        "E3", canonicalizer=frame("E3"), inputs=kinds, outputs="vectors",
    )  # fmt: skip
    ragged = [[a[i][row] for i, row in enumerate(mask)] for a in (x, v)]
    torch.testing.assert_close(lists.pose(*ragged).element.value, expected)
    with pytest.raises(ValueError, match=r"point_vectors must have shape \(3, 4, 3\).* got \(3, 2, 3\)"):
        upright.adapt(lambda points, normals: normals, "E3", canonicalizer="pca", inputs=kinds,
                      outputs="vectors")(x, v[:, :2])  # fmt: skip


def test_arrows_of_points_move_as_vectors():
    _, v, _ = systems(3, 4)
    g = upright.E3().sample(3, generator=torch.Generator().manual_seed(0))
    moved = act(g, PointVectors(v))
    assert isinstance(moved, PointVectors)
    assert torch.equal(moved.data, act(g, Vectors(v)).data)


def test_page():
    """What ``docs/space.md`` shows of particles, on four systems."""
    page = (Path(__file__).parents[1] / "docs" / "space.md").read_text()
    section = page.split("\n## Particles\n")[1].split("\n## ")[0]
    (block,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert "make_particles(3000)" in block
    names = {"torch": torch, "upright": upright}
    exec(compile(block.replace("(3000)", "(4)"), "space.md", "exec"), names)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in names["model"].parameters())
    assert error(names["robust"], *names["data"][:4][:3]) <= 1e-5
    assert isinstance(names["ParticleTransformer"](), torch.nn.Module)
