"""Trained canonicalizers of space: vector neurons for clouds, orbit scores for volumes; their priors."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import upright
from upright.actions import act
from upright.canonicalizers import VectorNeuronCanonicalizer, VolumeCanonicalizer
from upright.canonicalizers.vector import nearest_orthogonal, spread_rotations
from upright.groups import SO3, FullOctahedral, Octahedral
from upright.kinds_space import Cloud, Vectors, Volume
from upright.nets import VectorNeurons
from upright.nets.volume import small_volume
from upright.priors import IdentityPrior, MatrixFisherPrior

GROUPS = ("SO3", "O3", "SE3", "E3")


def clouds(batch: int = 16, points: int = 40, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, points, 3, generator=generator) * torch.tensor([1.0, 0.8, 0.6]) + 0.2


def random(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", GROUPS)
def test_poses_follow(name: str) -> None:
    torch.manual_seed(0)
    c = VectorNeuronCanonicalizer(name, channels=6, points=24).eval()
    x = clouds(64)
    g = c.group.sample(64, generator=random(1))
    with torch.no_grad():
        pose, after = c(x), c(act(g, Cloud(x)).data)
        canonical = [
            act(p.element.inverse(), Cloud(y)).data for p, y in ((pose, x), (after, act(g, Cloud(x)).data))
        ]
    off = (canonical[0] - canonical[1]).abs().amax((1, 2))
    assert float(off.median()) <= 1e-5
    assert float(off.max()) <= 1e-3
    assert torch.allclose((g @ pose.element).value, after.element.value, atol=1e-3)
    determinant = c.group.determinant(pose.element)
    assert set(determinant.tolist()) == ({1.0} if c.group.is_proper else {1.0, -1.0})


@pytest.mark.parametrize("reflects", [False, True])
def test_the_matrix_turns_with_the_cloud(reflects: bool) -> None:
    """``M(R x) = R M(x)`` in float64, with weights and points drawn anew."""
    for seed in range(3):
        torch.manual_seed(seed)
        net = VectorNeurons(reflects=reflects, channels=5).double()
        x = clouds(4, 12, seed).double()
        present, count = torch.ones(4, 12, dtype=torch.bool), torch.full((4,), 12)
        g = (upright.groups.O3() if reflects else SO3()).sample(4, generator=random(seed))
        with torch.no_grad():
            m, gm = (net(y, present, y, count) for y in (x, x @ g.value.mT))
        assert float(m.abs().max()) > 0.01
        assert torch.allclose(g.value @ m, gm, atol=1e-10)
        assert not torch.allclose(m, gm, atol=0.01)


def test_a_mirror_image_has_the_mirrored_matrix_in_o3_only() -> None:
    torch.manual_seed(0)
    x = clouds(2, 12).double()
    present, count = torch.ones(2, 12, dtype=torch.bool), torch.full((2,), 12)
    for reflects in (True, False):
        net = VectorNeurons(reflects=reflects, channels=5).double()
        with torch.no_grad():
            m, mirrored = net(x, present, x, count), net(-x, present, -x, count)
        assert torch.allclose(-m, mirrored, atol=1e-10) == reflects


def test_clouds_with_two_mirror_planes_follow_by_their_axes() -> None:
    """A table looks alike after half a turn, so no arrow tells its sides apart; its principal axes do."""
    torch.manual_seed(0)
    c = VectorNeuronCanonicalizer("SE3", channels=6).eval()
    top = torch.tensor([[x, y, 1.0] for x in (-2.0, 2.0) for y in (-1.0, 1.0)])
    table = torch.cat([top, top - torch.tensor([0.0, 0.0, 1.0]), top * torch.tensor([0.5, 0.5, 1.0])])
    x = table.expand(8, -1, -1)
    g = c.group.sample(8, generator=random(3))
    with torch.no_grad():
        pose, after = c(x), c(act(g, Cloud(x)).data)
        canonical = act(pose.element.inverse(), Cloud(x)).data[0]
        for i in range(8):
            turned = act(after.element.inverse(), Cloud(act(g, Cloud(x)).data)).data[i]
            assert float(torch.cdist(canonical, turned).amin(1).max()) <= 1e-4


def test_nearest_rotations_agree_with_scipy() -> None:
    spatial = pytest.importorskip("scipy.spatial.transform")
    matrices = torch.randn(20, 3, 3, dtype=torch.float64, generator=random(0))
    nearest = nearest_orthogonal(matrices, reflects=False)
    for matrix, found in zip(matrices, nearest, strict=True):
        best, _ = spatial.Rotation.align_vectors(matrix.mT.numpy(), torch.eye(3).numpy())
        assert torch.allclose(found, torch.from_numpy(best.as_matrix()), atol=1e-9)
    assert set(torch.linalg.det(nearest_orthogonal(matrices, reflects=True)).round().tolist()) == {1.0, -1.0}


def test_cells_are_rotations_that_fill_space_evenly() -> None:
    cells = spread_rotations(576)
    assert torch.allclose(cells[0], torch.eye(3).double())
    assert torch.allclose(torch.linalg.det(cells), torch.ones(576).double())
    anywhere = SO3().sample(200, generator=random(0)).value
    cosine = (torch.einsum("bij,nij->bn", anywhere, cells) - 1) / 2
    assert float(torch.rad2deg(cosine.amax(1).clamp(max=1).acos()).max()) < 30


def test_padding_and_order_of_thinning() -> None:
    torch.manual_seed(0)
    c = VectorNeuronCanonicalizer("SE3", channels=4, points=8).eval()
    ragged = [cloud[:n] for cloud, n in zip(clouds(3, 30), (30, 12, 5), strict=True)]
    with torch.no_grad():
        together = c(ragged)
        for i, cloud in enumerate(ragged):
            assert torch.allclose(c(cloud[None]).element.value[0], together.element.value[i], atol=1e-9)
        assert c([]).element.shape == (0,)
        assert c(torch.zeros(2, 1, 3)).element.value.isfinite().all()


def lopsided(count: int, seed: int) -> Tensor:
    """Upright clouds that any eye could bring upright: long in x, heavy at the top and in front."""
    x = torch.rand(count, 48, 3, generator=random(seed)) ** torch.tensor([1.0, 2.0, 3.0])
    x = x * torch.tensor([3.0, 2.0, 1.5])
    return x - x.mean(1, keepdim=True)


def test_training_on_upright_clouds_finds_upright() -> None:
    torch.manual_seed(0)
    c = upright.canonicalizer("SE3", "vector_neurons", options={"channels": 8, "layers": 1, "cells": 128})
    x = lopsided(32, 1)
    g = c.group.sample(32, generator=random(2))

    def tilt() -> float:
        with torch.no_grad():
            pose = c.eval()(act(g, Cloud(x)).data)
        back = (g.inverse() @ pose.element).value[..., :3]
        return math.degrees(float(SO3().angle(upright.groups.Element(SO3(), back)).median()))

    before = tilt()
    data = torch.utils.data.TensorDataset(lopsided(128, 0))
    result = upright.fit(c, data, epochs=6, batch_size=32, learning_rate=5e-2, augment=False, progress=False)
    assert result.history[-1]["loss"] < 0.8 * result.history[0]["loss"]
    assert tilt() < min(45.0, 0.5 * before)


def test_adapted_with_an_untrained_network() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(60, 3))
    robust = upright.adapt(model, "SE3", canonicalizer="vector_neurons", outputs="vectors")
    assert isinstance(robust.canonicalizer, VectorNeuronCanonicalizer)
    x = clouds(8, 20)
    g = robust.group.sample(8, generator=random(0))
    with torch.no_grad():
        before, after = robust(x), robust(act(g, Cloud(x)).data)
    assert torch.allclose(act(g, Vectors(before)).data, after, atol=1e-4)


def test_priors_over_rotations() -> None:
    group = SO3()
    about = group.from_euler("z", torch.linspace(0, 6, 7).unsqueeze(-1))
    tilted = group.from_euler("x", torch.tensor([[0.5]]))
    upright_z = MatrixFisherPrior(10.0, upright=(0.0, 0.0, 2.0))
    assert torch.allclose(upright_z.log_density(about), torch.zeros(7), atol=1e-6)
    assert float(upright_z.log_density(tilted)) == pytest.approx(10 * (math.cos(0.5) - 1), abs=1e-6)
    assert float(MatrixFisherPrior(10.0).log_density(about)[1]) == pytest.approx(
        10 * (math.cos(1) - 1), abs=1e-6
    )
    same = IdentityPrior().log_density(tilted)
    assert torch.equal(same, MatrixFisherPrior().log_density(tilted))
    shifted = upright.groups.SE3().element([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]], [5.0, 0.0, 0.0])
    assert float(IdentityPrior().log_density(shifted)) == 0.0
    full = MatrixFisherPrior(3.0).log_probs(FullOctahedral())
    assert float(full.exp().sum()) == pytest.approx(1.0, abs=1e-6)
    assert bool((full[24:] == -math.inf).all())
    for settings, match in (
        ({"concentration": -1.0}, "at least 0"),
        ({"upright": (0.0, 0.0, 0.0)}, "an axis"),
    ):
        with pytest.raises(ValueError, match=match):
            MatrixFisherPrior(**settings)
    with pytest.raises(TypeError, match="rotations of space"):
        MatrixFisherPrior().log_density(upright.groups.parse_group("SO2").identity(1))


@pytest.mark.parametrize("group", [Octahedral(), FullOctahedral()])
@pytest.mark.parametrize("shape", [(8, 8, 8), (6, 9, 12)])
def test_volumes_are_exact(group: Any, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    c = VolumeCanonicalizer(group, size=8).eval()
    x = torch.rand(1, 1, *shape, generator=random(0))
    with torch.no_grad():
        pose = c(x)
        canonical = act(pose.element.inverse(), Volume(x)).data
        for g in group.elements():
            gx = act(g.reshape(1), Volume(x)).data
            after = c(gx)
            assert torch.equal(after.element.value, (g.reshape(1) @ pose.element).value)
            assert torch.equal(act(after.element.inverse(), Volume(gx)).data, canonical)


def test_adapted_volumes_of_two_upright_shapes_are_exact() -> None:
    torch.manual_seed(0)
    judge = nn.Conv3d(1, 1, 3, padding=1)
    robust = upright.adapt(
        lambda volume: judge(volume)[:, 0], "full octahedral",
        canonicalizer=VolumeCanonicalizer("full octahedral", size=6).eval(), outputs="label_volume",
    )  # fmt: skip
    x = torch.rand(6, 1, 4, 6, 8, generator=random(1))
    with torch.no_grad():
        before = robust(x)
        for number in (5, 17, 30, 47):
            g = robust.group.element(torch.tensor([number]))
            gx = torch.cat([act(g, Volume(row[None])).data for row in x])
            moved = torch.cat([act(g, upright.LabelVolume(row[None])).data for row in before])
            assert torch.allclose(robust(gx), moved, atol=1e-6)
    upright_ones, _ = robust.canonicalize(x)
    assert len({tuple(v.shape) for v in upright_ones}) > 1


@pytest.mark.parametrize("shape", [(5, 8, 16), (16, 16, 16), (3, 40, 7)])
def test_small_cubes_permute(shape: tuple[int, ...]) -> None:
    x = torch.rand(1, 2, *shape, generator=random(0))
    small = small_volume(x, 8)
    assert small.shape == (1, 2, 8, 8, 8)
    for g in FullOctahedral().elements():
        moved = small_volume(act(g.reshape(1), Volume(x)).data, 8)
        assert torch.allclose(moved, act(g.reshape(1), Volume(small)).data, atol=1e-6)


def test_training_on_upright_volumes() -> None:
    torch.manual_seed(0)
    ramp = torch.stack(torch.meshgrid(*[torch.linspace(0, 1, 8)] * 3, indexing="ij")).mul(
        torch.tensor([1.0, 2.0, 4.0]).view(3, 1, 1, 1)
    ).sum(0)  # fmt: skip
    x = ramp + 0.3 * torch.rand(96, 1, 8, 8, 8, generator=random(0))
    c = upright.canonicalizer("octahedral", size=8, options={"width": 4, "layers": 2})
    data = torch.utils.data.TensorDataset(x[:64])
    upright.fit(c, data, epochs=6, batch_size=16, learning_rate=2e-2, progress=False)
    g = c.group.sample(32, generator=random(1))
    with torch.no_grad():
        pose = c.eval()(act(g, Volume(x[64:])).data)
    assert float((pose.element.value == g.value).float().mean()) > 0.9


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: VolumeCanonicalizer("C4"), TypeError, "octahedral"),
        (lambda: VolumeCanonicalizer()(torch.rand(2, 3, 4, 4, 4)), ValueError, r"\(B, 1, D, H, W\)"),
        (lambda: VolumeCanonicalizer()(torch.rand(2, 1, 0, 4, 4)), ValueError, "must have voxels"),
        (lambda: VectorNeuronCanonicalizer("octahedral"), TypeError, "VolumeCanonicalizer"),
        (lambda: upright.canonicalizer("SO3", "polar"), ValueError, "network"),
    ],
)
def test_mistakes(make: Any, error: Any, match: str) -> None:
    with pytest.raises(error, match=match):
        make()


@pytest.mark.parametrize("name", ["SO3", "E3", "octahedral"])
def test_saved_canonicalizers_come_back(name: str, tmp_path: Any) -> None:
    c = upright.canonicalizer(name, None if name == "octahedral" else "vector_neurons").eval()
    kind = "volume" if name == "octahedral" else "cloud"
    robust = upright.adapt(nn.Identity(), name, canonicalizer=c, outputs=kind)
    robust.save_pretrained(tmp_path)
    again = upright.load(tmp_path, model=nn.Identity()).canonicalizer
    x = torch.rand(2, 1, 6, 6, 6) if kind == "volume" else clouds(2)
    with torch.no_grad():
        assert torch.equal(c(x).element.value, again(x).element.value)
