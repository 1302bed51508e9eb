"""The spherical canonicalizer of clouds: exact whatever its weights, upright once trained, right at edges."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import upright
from upright.actions import act
from upright.canonicalizers import SphericalCanonicalizer
from upright.canonicalizers.spherical import cell_frames, turns
from upright.data import make_shapes
from upright.groups import O3, SO3
from upright.kinds_space import Cloud, Vectors
from upright.losses import prior_loss
from upright.nets.heading import Handedness, HeadingDensity
from upright.nets.points import PointNet
from upright.nets.spherical import SphericalDensity, Surface, legendre, monomials, surface_of
from upright.priors import IdentityPrior, MatrixFisherPrior
from upright.testing import assert_canonical, redraw_weights
from upright.training import JitterPoints

GROUPS = ("SO3", "O3", "SE3", "E3")
SMALL = {"channels": 4, "width": 12, "points": 24}


def random(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def clouds(batch: int = 16, points: int = 40, seed: int = 0) -> Tensor:
    stretch = torch.tensor([1.0, 0.8, 0.6])
    return torch.randn(batch, points, 3, generator=random(seed)) * stretch + 0.2


def canonical(c: Any, x: Any, mask: Tensor | None = None) -> Tensor:
    with torch.no_grad():
        return act(c(x, mask).element.inverse(), Cloud(x)).data


def apart(a: Tensor, b: Tensor) -> float:
    """Return the largest distance of a point of one cloud to the nearest of the other."""
    between = torch.cdist(a.double(), b.double(), compute_mode="donot_use_mm_for_euclid_dist")
    return max(float(between.amin(1).max()), float(between.amin(2).max()))


# Exactness


@pytest.mark.parametrize("heading", [True, False])
@pytest.mark.parametrize("name", GROUPS)
def test_canonical_form_stays_and_pose_follows(name: str, heading: bool) -> None:
    torch.manual_seed(0)
    c = redraw_weights(SphericalCanonicalizer(name, heading=heading), random(1)).eval()
    x = clouds(100)
    g = c.group.sample(100, generator=random(2))
    gx = act(g, Cloud(x)).data
    off = (canonical(c, x) - canonical(c, gx)).abs().amax((1, 2))
    assert float(off.median()) <= 1e-5
    assert float(off.max()) <= 1e-3
    with torch.no_grad():
        pose, after = c(x), c(gx)
    assert torch.allclose((g @ pose.element).value, after.element.value, atol=1e-3)
    assert torch.allclose(pose.log_probs, after.log_probs, atol=1e-3)
    assert len({tuple(row) for row in pose.element.value[:, :, 2].round(decimals=1).tolist()}) > 20
    signs = set(c.group.determinant(pose.candidates).round().flatten().tolist())
    assert signs == ({1.0} if c.group.is_proper else {1.0, -1.0})


@pytest.mark.parametrize("name", GROUPS)
def test_laws_of_canonicalizers(name: str) -> None:
    c = SphericalCanonicalizer(name, **SMALL)
    assert_canonical(c, make_x=lambda n, rng: Cloud(clouds(n, 20, 3)), trials=2)


PHI = (1 + math.sqrt(5)) / 2
CUBE = list(itertools.product((-1.0, 1.0), repeat=3))
SYMMETRIC = {
    "cube": CUBE,
    "box": [(3 * x, 2 * y, z) for x, y, z in CUBE],
    "ring": [(math.cos(2 * math.pi * i / 7), math.sin(2 * math.pi * i / 7), 0.0) for i in range(7)],
    "icosahedron": [
        p for a in (-1.0, 1.0) for b in (-PHI, PHI) for p in ((0.0, a, b), (a, b, 0.0), (b, 0.0, a))
    ],
    "S": [(0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (1.0, 0.7, 0.0), (-1.0, 0.0, 0.0), (-1.0, -0.7, 0.0)],
}


@pytest.mark.parametrize("name", ["SO3", "E3"])
@pytest.mark.parametrize("shape", SYMMETRIC)
def test_symmetric_clouds_have_one_form_and_tied_poses(shape: str, name: str) -> None:
    torch.manual_seed(3)
    c = SphericalCanonicalizer(name, **SMALL).double().eval()
    x = torch.tensor(SYMMETRIC[shape]).double().expand(8, -1, -1)
    gx = act(c.group.sample(8, generator=random(4)), Cloud(x)).data
    assert apart(canonical(c, x), canonical(c, gx)) <= 1e-5
    if name == "E3" or shape in ("cube", "ring"):
        with torch.no_grad():
            assert bool(c(gx).is_tied.all())


DEGENERATE = {
    "one": [(1.0, 2.0, 3.0)],
    "origin": [(0.0, 0.0, 0.0)],
    "repeated": [(1.0, 2.0, 3.0)] * 5,
    "two": [(1.0, 2.0, 3.0), (0.5, -1.0, 2.0)],
    "line": [(t, 2 * t, 3 * t) for t in (-1.0, -0.25, 0.5, 1.25, 2.0)],
}


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("shape", DEGENERATE)
def test_points_and_lines(shape: str, name: str) -> None:
    torch.manual_seed(0)
    c = SphericalCanonicalizer(name, **SMALL).eval()
    x = torch.tensor(DEGENERATE[shape]).expand(6, -1, -1).clone().requires_grad_()
    g = c.group.sample(6, generator=random(5))
    assert apart(canonical(c, x), canonical(c, act(g, Cloud(x)).data)) <= 1e-4
    pose = c(x)
    assert bool(pose.element.value.isfinite().all())
    pose.log_density.sum().backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in c.parameters())


def test_empty_batches_few_points_and_units() -> None:
    c = SphericalCanonicalizer("SE3", **SMALL).eval()
    assert c(torch.zeros(0, 5, 3)).element.shape == (0,)
    assert c([]).element.shape == (0,)
    x = clouds(8)
    for scale in (1e-6, 1e6):
        with torch.no_grad():
            near = c.group.rotation(c(x).element) - c.group.rotation(c(x * scale).element)
        assert float(near.abs().max()) <= 1e-4
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        again = c(x).element.value
    with torch.no_grad():
        assert torch.equal(again, c.half()(x).element.value)


def test_padding_is_not_looked_at() -> None:
    torch.manual_seed(0)
    c = SphericalCanonicalizer("E3", **SMALL).eval()
    lengths = (30, 12, 5, 24)
    ragged = [cloud[:n] for cloud, n in zip(clouds(4, 30), lengths, strict=True)]
    padded = torch.full((4, 30, 3), 77.0)
    for i, cloud in enumerate(ragged):
        padded[i, : len(cloud)] = cloud
    mask = torch.arange(30) < torch.tensor(lengths)[:, None]
    with torch.no_grad():
        together, listed = c(padded, mask), c(ragged)
        assert torch.equal(together.element.value, listed.element.value)
        for i, cloud in enumerate(ragged):
            alone = c(cloud[None])
            assert torch.allclose(alone.element.value[0], together.element.value[i], atol=1e-5)


# The networks


def seen_of(x: Tensor) -> Surface:
    there = torch.ones(x.shape[:2], dtype=torch.bool)
    return surface_of(x, there, x, there)


@pytest.mark.parametrize("seed", range(3))
def test_networks_turn_with_the_cloud(seed: int) -> None:
    """Scores of directions and headings in float64, weights drawn anew: ``s(R x, R u) = s(x, u)``."""
    x = clouds(3, 20, seed).double()
    rotation = O3().sample(1, generator=random(seed)).value[0]
    moved = x @ rotation.mT
    up = redraw_weights(SphericalDensity(channels=4, width=8), random(seed)).double()
    front = redraw_weights(HeadingDensity(channels=4, width=8), random(seed)).double()
    hand = redraw_weights(Handedness(width=8), random(seed)).double()
    frames = SO3().sample(6, generator=random(9)).value
    with torch.no_grad():
        scores, hidden, whole = up(seen_of(x), frames[..., 2])
        after, *invariant = up(seen_of(moved), frames[..., 2] @ rotation.mT)
        assert torch.allclose(scores, after, atol=1e-9)
        assert float((scores - up(seen_of(moved), frames[..., 2])[0]).abs().max()) > 1e-3
        assert torch.allclose(hidden, invariant[0], atol=1e-9)
        frames = frames.expand(3, 6, 3, 3)
        headings = front(seen_of(x), hidden, whole, frames, 12)
        after = front(seen_of(moved), hidden, whole, rotation @ frames, 12)
        assert torch.allclose(headings, after, atol=1e-9)
        further = frames @ turns(torch.tensor(math.pi / 6).double())
        assert torch.allclose(front(seen_of(x), hidden, whole, further, 12), headings.roll(-1, -1), atol=1e-9)
        assert float((headings - headings.roll(-1, -1)).abs().max()) > 1e-3
        mirror = torch.tensor([1.0, -1.0, 1.0]).double()
        logits = hand(seen_of(x), hidden, frames)
        assert torch.allclose(logits, -hand(seen_of(x), hidden, frames * mirror), atol=1e-9)
        assert float(logits.abs().max()) > 1e-3


def test_polynomials_agree_with_numpy() -> None:
    polynomial = pytest.importorskip("numpy.polynomial.legendre")
    table = legendre(7, torch.zeros((), dtype=torch.float64))
    for degree in range(7):
        expected = torch.from_numpy(polynomial.leg2poly([0] * degree + [1]))
        assert torch.allclose(table[degree, : degree + 1], expected, atol=1e-12)
    u, v = torch.randn(2, 5, 3, dtype=torch.float64, generator=random(0))
    for degree, (a, b) in enumerate(zip(monomials(u, 7), monomials(v, 7), strict=True)):
        assert torch.allclose((a * b).sum(-1), (u * v).sum(-1) ** degree, atol=1e-9)


def test_surroundings_of_planes_and_lines_are_told_apart() -> None:
    grid = torch.cartesian_prod(*[torch.linspace(-1, 1, 21)] * 2).double()
    plane = torch.cat([grid, 0 * grid[:, :1]], 1).unsqueeze(0)
    line = torch.linspace(-1, 1, 99).double().view(1, -1, 1) * torch.tensor([0.6, 0.0, 0.8]).double()
    on_plane, on_line = seen_of(plane), seen_of(line)
    middle = 220
    assert float(plane[0, middle].abs().max()) < 1e-6
    assert float(on_plane.flat[0, middle, 2, 2]) > 0.9
    assert float(on_plane.flat[0, middle, 0, 0].abs()) < 0.1
    assert float(on_line.flat[0, 49].abs().max()) < 0.1
    along = torch.tensor([0.6, 0.0, 0.8]).double()
    assert float(along @ on_line.spread[0, 49] @ along) > 0.9


def test_cells_fill_the_sphere_and_are_a_design() -> None:
    cells = cell_frames()
    assert torch.allclose(cells.mT @ cells, torch.eye(3).double(), atol=1e-12)
    assert torch.allclose(torch.linalg.det(cells), torch.ones(86).double())
    anywhere = torch.nn.functional.normalize(torch.randn(500, 3, generator=random(0)).double(), dim=1)
    cosine = anywhere @ cells[..., 2].mT
    assert float(torch.rad2deg(cosine.amax(1).acos()).max()) < 16
    for degree in (2, 4, 6):
        assert torch.allclose((cosine**degree).mean(1), torch.tensor(1 / (degree + 1)).double(), atol=1e-3)


# Training


def tilt(c: Any, x: Tensor, turns: Tensor) -> Tensor:
    with torch.no_grad():
        up = c.eval()(x @ turns.mT).element.value[..., 2].float()
    return torch.rad2deg((up * turns[..., 2]).sum(-1).clamp(-1, 1).acos())


CLASSES = ["chair", "house"]


def test_fitted_to_upright_tensors_it_finds_up_and_front() -> None:
    torch.manual_seed(0)
    data = make_shapes(24, 48, classes=CLASSES).points
    c = upright.canonicalizer("SO3", options={"channels": 8, "width": 24, "points": 48})
    assert isinstance(c, SphericalCanonicalizer)
    result = upright.fit(c, data, epochs=10, batch_size=8, learning_rate=8e-3, progress=False)
    assert result.history[-1]["loss"] < 0.7 * result.history[0]["loss"]
    test = make_shapes(15, 48, classes=CLASSES, split="test").points
    turns = SO3().sample(len(test), generator=random(1)).value.float()
    near = tilt(c, test, turns) < 20
    assert float(near[:15].float().mean()) > 0.7  # chairs; houses are nearly boxes
    assert float(near.float().mean()) > 0.6
    with torch.no_grad():
        found = c(test @ turns.mT)
        front = (found.element.value[..., 0] * turns[..., 0]).sum(-1)
    assert float((front[:15] > 0.9).float().mean()) >= 0.6
    assert float(found.confidence.mean()) > 0.3  # of 12 candidates


def test_a_gravity_prior_needs_no_heading() -> None:
    torch.manual_seed(0)
    data = make_shapes(24, 48, classes=CLASSES).points
    angle = torch.rand(len(data), 1, generator=random(3)) * 2 * math.pi
    about_z = SO3().from_euler("z", angle).value.float()
    c = SphericalCanonicalizer("SO3", heading=False, channels=8, width=24, points=48)
    upright.fit(
        c, list(data @ about_z.mT), epochs=14, batch_size=8, learning_rate=5e-3, progress=False,
        prior=MatrixFisherPrior(30.0, upright=(0, 0, 1)),
    )  # fmt: skip
    test = make_shapes(15, 48, classes=CLASSES, split="test").points
    turns = SO3().sample(len(test), generator=random(1)).value.float()
    assert float((tilt(c, test, turns)[:15] < 20).float().mean()) > 0.8


def test_density_is_a_density_and_its_loss_is_right() -> None:
    torch.manual_seed(0)
    for name, cells in (("SO3", 86 * 24), ("E3", 86 * 48)):
        c = SphericalCanonicalizer(name, **SMALL)
        pose = c(clouds(5))
        assert pose.grid.shape == pose.log_density.shape == (5, cells)
        assert torch.allclose(pose.log_density.exp().sum(1), torch.ones(5), atol=1e-4)
        nearest = pose.candidates[:, :1].reshape(5, 1).distance(pose.grid).argmin(1, keepdim=True)
        rank = (pose.log_density > pose.log_density.gather(1, nearest)).float().mean(1)
        assert float(rank.max()) < 0.25
        loss = prior_loss(pose, IdentityPrior())
        loss.backward()
        assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in c.parameters())


def test_jitter_moves_points_and_loses_some_without_turning() -> None:
    x = clouds(64, 50).double()
    y = JitterPoints(noise=0.0)(x, random(0))
    assert y.dtype == x.dtype
    assert torch.equal(y, JitterPoints(noise=0.0)(x, random(0)))
    kept = (torch.cdist(y, x).amin(2) < 1e-6).all(1)
    assert bool(kept.all())  # no point is new
    lost = [1 - len(cloud.unique(dim=0)) / 50 for cloud in y]
    assert 0.02 < sum(lost) / len(lost) < 0.2
    assert max(lost) > 0.15
    size = (x - x.mean(1, keepdim=True)).square().sum(-1).mean(1).sqrt().view(-1, 1, 1)
    off = (JitterPoints(drop=0.0)(x, random(1)) - x) / size
    assert 0.01 < float(off.std()) < 0.03
    assert float(off.mean((0, 1)).abs().max()) < 2e-3
    assert JitterPoints()(x[:0], random(0)).shape == (0, 50, 3)
    with pytest.raises(ValueError, match=r"must have shape \(B, N, 3\), got \(64, 50, 2\)"):
        JitterPoints()(x[..., :2])
    with pytest.raises(TypeError, match=r"clouds must hold floats, got torch.int64"):
        JitterPoints()(x.long())


@pytest.mark.parametrize("name", ["spherical", "vector_neurons"])
def test_trained_together_with_a_predictor(name: str) -> None:
    """Gradients of the task reach the network through the frames, and the loss falls."""
    torch.manual_seed(0)
    model = PointNet(2, width=0.125, transforms=False, dropout=0.0)
    robust = upright.adapt(model, "SO3", canonicalizer=name, inputs={"points": "cloud"}, outputs="logits")
    robust.canonicalizer.train()
    data = make_shapes(12, 48, classes=["chair", "car"])
    nn.functional.cross_entropy(robust(data.points), data.labels).backward()
    first = next(robust.canonicalizer.parameters())
    assert float(first.grad.abs().max()) > 0
    before = first.detach().clone()
    history = upright.fit(
        robust, data, setup="joint", epochs=12, batch_size=8, learning_rate=1e-2,
        predictor_learning_rate=5e-3, progress=False, val_data=data,
    ).history  # fmt: skip
    first_ones, last_ones = (sum(row["task_loss"] for row in rows) for rows in (history[:3], history[-3:]))
    assert last_ones < 0.9 * first_ones
    assert math.isfinite(history[-1]["val_loss"])
    assert not torch.equal(before, first)


@pytest.mark.parametrize("setup", ["augment", "joint_no_prior"])
def test_other_setups_run_on_clouds_and_lists(setup: Any) -> None:
    torch.manual_seed(0)
    seen = []

    class Ragged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, clouds: Any) -> Tensor:
            seen.append(torch.cat(list(clouds)).detach())
            return torch.stack([self.layer(cloud).amax(0) for cloud in clouds])

    ragged = [cloud[:n] for cloud, n in zip(clouds(8, 12), (12, 9, 7, 8) * 2, strict=True)]
    robust = upright.adapt(Ragged(), "SO3", canonicalizer="spherical", inputs={0: "cloud"}, outputs="logits")
    upright.fit(robust, (ragged, torch.arange(8) % 2), setup=setup, epochs=1, batch_size=8, progress=False)
    lengths = torch.cat(ragged).norm(dim=1).sort().values
    assert torch.allclose(seen[-1].norm(dim=1).sort().values, lengths, atol=1e-4)
    assert not torch.allclose(seen[-1].sort(0).values, torch.cat(ragged).sort(0).values, atol=0.1)


def test_adapted_by_name_and_saved(tmp_path: Any) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(60, 3))
    with pytest.warns(UserWarning, match="no ready-made canonicalizer for E3"):
        robust = upright.adapt(model, "E3", outputs="vectors")
    x = clouds(8, 20)
    g = robust.group.sample(8, generator=random(0))
    for mode in ("canonical", "top_k"):
        with torch.no_grad():
            used = robust.replace(mode=mode)
            before, after = used(x), used(act(g, Cloud(x)).data)
        assert torch.allclose(act(g, Vectors(before)).data, after, atol=1e-4)
    robust.save_pretrained(tmp_path)
    again = upright.load(tmp_path, model=model).canonicalizer
    with torch.no_grad():
        assert torch.equal(robust.canonicalizer(x).element.value, again(x).element.value)
