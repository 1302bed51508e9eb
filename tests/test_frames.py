"""Frames of clouds: canonical forms do not move, poses follow, symmetric and degenerate clouds are right."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import upright
from upright.actions import act
from upright.canonicalizers import MinimalFrame, PCAFrame
from upright.groups import parse_group
from upright.kinds_space import Cloud, PseudoVectors, Tensors, Vectors

GROUPS = ("SO3", "O3", "SE3", "E3")
FRAMES = (PCAFrame, MinimalFrame)


def clouds(batch: int = 32, points: int = 40, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, points, 3, generator=generator) * torch.tensor([1.0, 0.8, 0.6]) + 0.2


def moved(group: Any, x: Tensor, seed: int = 1) -> tuple[Any, Tensor]:
    g = group.sample(len(x), generator=torch.Generator().manual_seed(seed))
    return g, act(g, Cloud(x)).data


def canonical(canonicalizer: Any, x: Tensor, mask: Tensor | None = None) -> Tensor:
    return act(canonicalizer(x, mask).element.inverse(), Cloud(x)).data


def apart(a: Tensor, b: Tensor) -> float:
    """Return the largest distance of a point of one cloud to the nearest of the other."""
    between = torch.cdist(a.double(), b.double(), compute_mode="donot_use_mm_for_euclid_dist")
    return max(float(between.amin(1).max()), float(between.amin(2).max()))


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("frame", FRAMES)
def test_canonical_form_stays_and_pose_follows(frame: Any, name: str) -> None:
    c, x = frame(name), clouds(200)
    g, gx = moved(c.group, x)
    off = (canonical(c, x) - canonical(c, gx)).abs().amax((1, 2))
    assert float(off.median()) <= 1e-6
    assert float(off.max()) <= 1e-4
    pose, after = c(x), c(gx)
    assert float(((g @ pose.element).value - after.element.value).abs().max()) <= 1e-4
    assert not bool(pose.is_tied.any())
    assert torch.allclose(pose.log_probs, after.log_probs, atol=1e-3)


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("frame", FRAMES)
def test_a_rotation_is_a_rotation(frame: Any, name: str) -> None:
    c = frame(name)
    pose = c(torch.cat([clouds(64), -clouds(64)]))
    for element in (pose.element, pose.candidates):
        rotation = c.group.rotation(element)
        assert torch.allclose(rotation.mT @ rotation, torch.eye(3).double(), atol=1e-12)
        if c.group.is_proper:
            assert torch.allclose(torch.linalg.det(rotation), torch.ones(()).double())
    if not c.group.is_proper:
        assert set(c.group.determinant(pose.element).tolist()) == {-1.0, 1.0}


def test_pca_lists_all_signs_of_the_eigenvectors_of_numpy() -> None:
    np = pytest.importorskip("numpy")
    x = clouds(1)
    for name, count in (("SE3", 4), ("E3", 8)):
        frames = PCAFrame(name)(x).candidates.value[0, :, :, :3]
        _, axes = np.linalg.eigh(np.cov(x[0].double().numpy().T))
        axes = torch.from_numpy(axes[:, ::-1].copy())
        assert len(frames) == count
        inner = axes.T @ frames  # (K, 3, 3): diagonal signs
        assert torch.allclose(inner.abs(), torch.eye(3).double().expand(count, 3, 3), atol=1e-9)
        assert len({tuple(f.diagonal().sign().tolist()) for f in inner}) == count


def test_minimal_frames_of_clouds_without_symmetry() -> None:
    assert MinimalFrame("SE3")(clouds()).candidates.shape == (32, 1)
    assert MinimalFrame("E3")(clouds()).candidates.shape == (32, 2)


PHI = (1 + math.sqrt(5)) / 2
CUBE = list(itertools.product((-1.0, 1.0), repeat=3))
ICOSAHEDRON = [p for a in (-1.0, 1.0) for b in (-PHI, PHI) for p in ((0.0, a, b), (a, b, 0.0), (b, 0.0, a))]
TETRAHEDRON = [(1.0, 1.0, 1.0), (1.0, -1.0, -1.0), (-1.0, 1.0, -1.0), (-1.0, -1.0, 1.0)]
RING = [(math.cos(2 * math.pi * i / 7), math.sin(2 * math.pi * i / 7), 0.0) for i in range(7)]
BOX = [(3 * x, 2 * y, z) for x, y, z in CUBE]
SHAPE_S = [(0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (1.0, 0.7, 0.0), (-1.0, 0.0, 0.0), (-1.0, -0.7, 0.0)]
SYMMETRIC = {  # turns, and turns and reflections, that leave the shape as it is
    "cube": (CUBE, 24, 48),
    "icosahedron": (ICOSAHEDRON, 60, 120),
    "tetrahedron": (TETRAHEDRON, 12, 24),
    "ring": (RING, 14, 28),
    "box": (BOX, 4, 8),
    "S": (SHAPE_S, 2, 4),
    "cube of repeated points": (CUBE * 3, 24, 48),
}


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("shape", SYMMETRIC)
def test_frames_of_symmetric_clouds_are_cosets_of_the_stabiliser(shape: str, frame: Any, name: str) -> None:
    points, turns, all_ = SYMMETRIC[shape]
    c = frame(name)
    x = torch.tensor(points).expand(4, -1, -1)
    _, gx = moved(c.group, x)
    assert apart(canonical(c, x), canonical(c, gx)) <= 1e-5
    pose = c(gx)
    assert bool(pose.is_tied.all())
    likely = pose.probs > 0.99 * pose.probs.amax(1, keepdim=True)
    assert likely.sum(1).tolist() == [turns if c.group.is_proper else all_] * 4
    assert frame is PCAFrame or float(pose.probs[likely].sum()) == pytest.approx(4, abs=0.05)


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize(
    "points",
    [
        [(1.0, 2.0, 3.0)],
        [(0.0, 0.0, 0.0)],
        [(1.0, 2.0, 3.0)] * 5,
        [(1.0, 2.0, 3.0), (0.5, -1.0, 2.0)],
        [(t, 2 * t, 3 * t) for t in (-1.0, -0.25, 0.5, 1.25, 2.0)],
    ],
    ids=["one", "origin", "repeated", "two", "line"],
)
def test_points_and_lines(points: Any, frame: Any, name: str) -> None:
    c = frame(name)
    x = torch.tensor(points).expand(6, -1, -1)
    _, gx = moved(c.group, x)
    a, b = canonical(c, x), canonical(c, gx)
    assert bool(a.isfinite().all())
    assert apart(a, b) <= 1e-5
    if not (name == "SO3" and len(points) == 2):  # two points in general position fix a rotation
        assert bool(c(gx).is_tied.all())


def test_degenerate_and_clear_clouds_share_a_batch() -> None:
    c = PCAFrame("SE3")
    cube = torch.tensor(CUBE).unsqueeze(0)
    x = torch.cat([clouds(2, 8), cube, clouds(1, 8, seed=5)])
    pose = c(x)
    for i in range(4):
        alone = c(x[i : i + 1])
        assert torch.allclose(alone.element.value[0], pose.element.value[i], atol=1e-9)
        listed = pose.probs[i] > 0
        assert torch.allclose(alone.probs[0], pose.probs[i][listed], atol=1e-6)


@pytest.mark.parametrize("frame", FRAMES)
def test_padding_is_not_looked_at(frame: Any) -> None:
    c = frame("E3")
    ragged = [cloud[:n] for cloud, n in zip(clouds(4, 12), (12, 7, 5, 9), strict=True)]
    lengths = torch.tensor([len(cloud) for cloud in ragged])
    padded = torch.full((4, 12, 3), 77.0)
    for i, cloud in enumerate(ragged):
        padded[i, : len(cloud)] = cloud
    pose = c(padded, torch.arange(12) < lengths[:, None])
    assert torch.equal(pose.element.value, c(ragged).element.value)
    for i, cloud in enumerate(ragged):
        assert torch.allclose(c(cloud[None]).element.value[0], pose.element.value[i], atol=1e-9)


@pytest.mark.parametrize("frame", FRAMES)
def test_empty_batches(frame: Any) -> None:
    assert frame("E3")(torch.zeros(0, 5, 3)).element.shape == (0,)
    assert frame("SO3")([]).element.shape == (0,)


@pytest.mark.parametrize(
    ("x", "mask", "error", "match"),
    [
        (torch.zeros(2, 0, 3), None, ValueError, "cloud 0 has none"),
        (torch.ones(2, 4, 3), torch.tensor([[True] * 4, [False] * 4]), ValueError, "cloud 1 has none"),
        (torch.ones(2, 4), None, ValueError, r"x must have shape \(B, N, 3\)"),
        (torch.ones(2, 3, 8), None, ValueError, r"x must have shape \(B, N, 3\)"),
        (torch.ones(2, 4, 3, dtype=torch.int64), None, TypeError, "x must hold floats"),
        (torch.ones(2, 4, 3), torch.ones(2, 5), ValueError, "mask must have shape"),
        (torch.full((1, 4, 3), math.nan), None, ValueError, "those of cloud 0 are not"),
        ([torch.ones(4, 2)], None, ValueError, "cloud 0 of the list"),
        ([torch.ones(4, 3)], torch.ones(1, 4), ValueError, "mask must be None"),
    ],
)
def test_mistakes(x: Any, mask: Any, error: Any, match: str) -> None:
    with pytest.raises(error, match=match):
        PCAFrame("SE3")(x, mask)


def test_groups_of_the_plane_are_refused() -> None:
    with pytest.raises(TypeError, match="SO3, O3, SE3 or E3"):
        PCAFrame("C4")


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_units_do_not_matter(scale: float) -> None:
    for frame in FRAMES:
        c, x = frame("SO3"), clouds(8)
        assert torch.allclose(c(x).element.value, c(x * scale).element.value, atol=1e-5)


class Particles(nn.Module):
    """A random predictor that heeds no symmetry: positions and velocities in, one of everything out."""

    def __init__(self) -> None:
        super().__init__()
        self.each = nn.Sequential(nn.Linear(6, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh())
        self.last = nn.Linear(48, 24)

    def forward(self, pos: Tensor, vel: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        hidden = self.each(torch.cat([pos, vel], -1))
        hidden = hidden if mask is None else hidden * mask.unsqueeze(-1)
        mean = hidden.sum(1, keepdim=True) / (5 if mask is None else mask.sum(1).view(-1, 1, 1))
        out = self.last(torch.cat([hidden, mean.expand_as(hidden)], -1))
        stress = out[..., 6:15].reshape(*out.shape[:-1], 3, 3)
        logits = mean.squeeze(1) @ self.last.weight[:, :24].mT
        return {"pos": out[..., :3], "force": out[..., 3:6], "stress": stress, "spin": out[..., 15:18],
                "logits": logits}  # fmt: skip


OUTPUTS: dict[str, Any] = {
    "pos": Cloud, "force": Vectors, "stress": Tensors, "spin": PseudoVectors, "logits": upright.Logits
}  # fmt: skip


@pytest.mark.parametrize("mode", ["canonical", "weighted", "top_k"])
@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("frame", FRAMES)
def test_adapted_predictors_are_equivariant(frame: Any, name: str, mode: Any) -> None:
    torch.manual_seed(0)
    robust = upright.adapt(
        Particles(), name, canonicalizer=frame(name), mode=mode,
        inputs={"pos": "cloud", "vel": "vectors"}, outputs=OUTPUTS,
    )  # fmt: skip
    x, v = clouds(16, 5), clouds(16, 5, seed=9)
    g, gx = moved(robust.group, x)
    with torch.no_grad():
        before, after = robust(x, v), robust(gx, act(g, Vectors(v)).data)
        bare = robust.model(x, v)
    for key, kind in OUTPUTS.items():
        assert float((act(g, kind(before[key])).data - after[key]).abs().max()) <= 1e-5, key
        assert float((before[key] - bare[key]).abs().max()) > 1e-3  # the frame is not the identity


def test_the_mean_over_a_symmetric_cloud_has_its_symmetry() -> None:
    """What one pose cannot do: the output on a cube follows every turn, as all its 24 frames are taken."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(24, 3))
    robust = upright.adapt(
        lambda points: model(points.sort(1).values), "SO3", canonicalizer=MinimalFrame("SO3"), mode="top_k",
        inputs={"points": "cloud"}, outputs="vectors",
    )  # fmt: skip
    with torch.no_grad():
        assert float(robust(torch.tensor(CUBE).unsqueeze(0)).abs().max()) <= 1e-5


def test_masks_reach_the_canonicalizer() -> None:
    torch.manual_seed(0)
    robust = upright.adapt(
        Particles(), "SE3", canonicalizer="pca",
        inputs={"pos": "cloud", "vel": "vectors", "mask": "point_mask"}, outputs={"force": "vectors"},
    )  # fmt: skip
    x, v = clouds(8, 5), clouds(8, 5, seed=9)
    mask = torch.arange(5) < torch.tensor([5, 3, 4, 3] * 2)[:, None]
    g, gx = moved(robust.group, x)
    gx[~mask] = 1e3
    with torch.no_grad():
        before = robust(x, v, mask=mask)["force"]
        after = robust(gx, act(g, Vectors(v)).data.masked_fill(~mask.unsqueeze(-1), 0.0), mask=mask)["force"]
    off = (act(g, Vectors(before)).data - after)[mask]
    assert float(off.abs().max()) <= 1e-5


def test_lists_of_clouds_and_first_arguments_by_default() -> None:
    model = nn.Linear(3, 2)
    robust = upright.adapt(
        lambda clouds: torch.stack([model(cloud).mean(0) for cloud in clouds]), "SE3", canonicalizer="pca"
    )
    ragged = [cloud[:n] for cloud, n in zip(clouds(3, 9), (9, 5, 7), strict=True)]
    g = robust.group.sample(3, generator=torch.Generator().manual_seed(2))
    turned = [kind.data for kind in act(g, [Cloud(cloud) for cloud in ragged])]
    with torch.no_grad():
        assert torch.allclose(robust(ragged), robust(turned), atol=1e-5)
    with pytest.raises(ValueError, match=r"clouds must have shape \(B, N, 3\)"):
        robust(torch.zeros(4, 3))


def test_gradients_reach_positions() -> None:
    """Forces of an energy through the frame: against differences in float64."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(15, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    for frame in FRAMES:
        robust = upright.adapt(model, "E3", canonicalizer=frame("E3"), outputs="invariant")
        x = clouds(2, 5).double().requires_grad_()
        assert torch.autograd.gradcheck(lambda y, f=robust: f(y).sum(), (x,), atol=1e-5)


def test_names_build_and_saved_frames_come_back(tmp_path: Any) -> None:
    robust = upright.adapt(Particles(), "SE3", canonicalizer="minimal", inputs={"pos": "cloud"})
    assert isinstance(robust.canonicalizer, MinimalFrame)
    robust.save_pretrained(tmp_path)
    again = upright.load(tmp_path, model=Particles())
    assert isinstance(again.canonicalizer, MinimalFrame)
    assert again.group == parse_group("SE3")
