"""Made-up shapes are seeded, upright, closed where they should be, evenly sampled, and really differ.

Areas and volumes are those of geometry books; parts are told apart by where their points lie.
"""

import math
import time

import numpy as np
import pytest
import torch

from upright.data import CloudSet, make_shapes
from upright.data.clouds import normalized, upended
from upright.data.meshes import Mesh, box, ellipsoid, frustum, joined, ring, sample_surface, turn
from upright.data.shapes import SHAPES, make_mesh

SOLIDS = {
    "box": (box((1, 2, 3), (5, -1, 2)), 6, 22),
    "cylinder": (frustum(1, 1, 2, base=7, sides=400), 2 * math.pi, 6 * math.pi),
    "cone": (frustum(3, 0, 4, sides=400), 12 * math.pi, 24 * math.pi),
    "pyramid": (frustum(math.sqrt(2), 0, 3, sides=4), 4, 4 + 4 * math.sqrt(10)),
    "torus": (ring(3, 1, steps=400), 6 * math.pi**2, 12 * math.pi**2),
    "ball": (ellipsoid((2, 2, 2), (1, 1, 1)), 32 / 3 * math.pi, 16 * math.pi),
}


def volume(mesh):
    """Signed, by the divergence theorem: positive where faces look outward."""
    a, b, c = mesh.vertices[mesh.faces].swapaxes(0, 1)
    return float((a * np.cross(b, c)).sum() / 6)


def area(mesh):
    return float(np.linalg.norm(mesh.crossed(), axis=1).sum() / 2)


@pytest.fixture(scope="module")
def shapes():
    return make_shapes(6, 512)


@pytest.mark.parametrize("name", SOLIDS)
def test_solids_have_the_volume_and_area_of_geometry_books(name):
    mesh, expected, surface = SOLIDS[name]
    near = 0.11 if name in ("ball", "torus") else 1e-3  # few facets around
    assert volume(mesh) == pytest.approx(expected, rel=near)
    assert area(mesh) == pytest.approx(surface, rel=near)


@pytest.mark.parametrize("name", SOLIDS)
def test_solids_are_closed(name):
    mesh, *_ = SOLIDS[name]
    real = mesh.faces[np.linalg.norm(mesh.crossed(), axis=1) > 1e-9]
    _, alike = np.unique(mesh.vertices.round(9), axis=0, return_inverse=True)  # seams meet
    edges = np.concatenate([alike.reshape(-1)[real][:, [i, (i + 1) % 3]] for i in range(3)])
    edges = edges[edges[:, 0] != edges[:, 1]]
    assert sorted(map(tuple, edges.tolist())) == sorted(map(tuple, edges[:, ::-1].tolist()))


@pytest.mark.parametrize("axis", "xyz")
def test_turns_are_right_handed(axis):
    k = "xyz".index(axis)
    e = np.eye(3)
    np.testing.assert_allclose(turn(axis, math.pi / 2) @ e[(k + 1) % 3], e[(k + 2) % 3], atol=1e-15)
    assert np.linalg.det(turn(axis, 0.3)) == pytest.approx(1)


def test_points_lie_evenly_on_the_surface():
    mesh = joined([box((1, 1, 1)), box((3, 3, 3), (10, 0, 0))])
    points, normals, face = sample_surface(mesh, 20000, np.random.default_rng(0))
    large = points[:, 0] > 5
    assert large.mean() == pytest.approx(0.9, abs=0.01)
    assert (large == (face >= 12)).all()
    inside = (points - [10, 0, 0])[large] / 1.5
    np.testing.assert_allclose(np.abs(inside).max(1), 1, atol=1e-12)
    np.testing.assert_allclose((normals[large] * inside).sum(1), 1, atol=1e-12)  # outward, of length 1
    on_top = inside[inside[:, 2] > 1 - 1e-9]
    assert np.abs(np.histogram2d(*on_top[:, :2].T, bins=4)[0] / len(on_top) - 1 / 16).max() < 0.012


def test_a_mesh_without_area_is_refused():
    flat = Mesh(np.zeros((3, 3)), np.array([[0, 1, 2]]))
    with pytest.raises(ValueError, match="positive area, got 1 faces"):
        sample_surface(flat, 4, np.random.default_rng(0))


def test_faces_without_area_get_no_points():
    mesh = Mesh(np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]), np.array([[0, 0, 1], [0, 1, 2], [2, 2, 2]]))
    _, normals, face = sample_surface(mesh, 100, np.random.default_rng(0))
    assert set(face) == {1}
    assert np.isfinite(normals).all()


def test_there_are_enough_classes_with_parts(shapes):
    assert len(shapes.class_names) >= 12
    assert len(shapes) == 6 * len(shapes.class_names) == 6 * len(SHAPES)
    assert all(len(parts) >= 2 for parts in shapes.parts_of.values())
    assert sorted(p for parts in shapes.parts_of.values() for p in parts) == list(
        range(len(shapes.part_names))
    )
    assert shapes.points.dtype == torch.float32
    assert shapes.points.isfinite().all()


def test_clouds_are_centred_and_of_radius_one(shapes):
    torch.testing.assert_close(shapes.points.mean(1), torch.zeros(len(shapes), 3), atol=1e-6, rtol=0)
    torch.testing.assert_close(shapes.points.norm(dim=-1).amax(1), torch.ones(len(shapes)))
    torch.testing.assert_close(shapes.normals.norm(dim=-1), torch.ones(len(shapes), 512))


@pytest.mark.parametrize("name", SHAPES)
def test_points_bear_parts_of_their_class_and_every_part_occurs(name):
    shapes = make_shapes(12, 1024, classes=[name])
    assert set(shapes.parts.unique().tolist()) == set(shapes.parts_of[name])
    assert [n.removeprefix(f"{name} ") for n in shapes.part_names] == list(SHAPES[name][1])


@pytest.mark.parametrize(
    ("name", "upper", "lower"),
    [
        ("table", "top", "legs"),
        ("chair", "back", "legs"),
        ("bottle", "cap", "body"),
        ("tree", "crown", "trunk"),
        ("rocket", "nose", "fins"),
        ("house", "roof", "walls"),
        ("car", "cabin", "wheels"),
        ("lamp", "shade", "foot"),
        ("hammer", "head", "handle"),
        ("guitar", "head", "body"),
        ("monitor", "screen", "stand"),
        ("bed", "headboard", "legs"),
        ("bench", "back", "legs"),
    ],
)
def test_shapes_stand_upright_and_parts_are_where_they_belong(name, upper, lower):
    shapes = make_shapes(5, 1024, classes=[name])
    names, z = list(SHAPES[name][1]), shapes.points[..., 2]
    for i in range(5):
        high, low = (z[i][shapes.parts[i] == names.index(part)].mean() for part in (upper, lower))
        assert high > low + 0.1


def test_normals_look_outward():
    mug = make_shapes(4, 2048, classes=["mug", "rocket", "table"])
    towards = (mug.normals * mug.points).sum(-1)
    hull = mug.points[4:8][mug.parts[4:8] == mug.parts_of["rocket"][0]]
    normals = mug.normals[4:8][mug.parts[4:8] == mug.parts_of["rocket"][0]]
    side = normals[:, 2].abs() < 0.3
    assert ((normals * hull)[side][:, :2].sum(-1) > 0).all()
    assert towards[8:].mean() > 0  # a table's top and underside
    inner = (mug.points[:4, :, :2] * mug.normals[:4, :, :2]).sum(-1) < -1e-3
    assert 0.2 < inner.float().mean() < 0.6  # a mug is hollow: its inner wall looks to the axis


def test_objects_depend_on_seed_split_and_number_alone():
    few, many = (make_shapes(n, 64, classes=["chair", "mug"]) for n in (2, 3))
    assert torch.equal(few.points, many.points[[0, 1, 3, 4]])
    assert torch.equal(few.points[2:], make_shapes(2, 64, classes=["mug"]).points)
    for other in (
        make_shapes(2, 64, classes=["chair", "mug"], **k) for k in ({"seed": 1}, {"split": "test"})
    ):
        assert (few.points - other.points).abs().amax((1, 2)).min() > 0.05


def test_objects_of_a_class_really_differ(shapes):
    extents = shapes.points.amax(1) - shapes.points.amin(1)
    for own in extents.reshape(len(SHAPES), 6, 3):
        assert own.std(0).max() > 0.04


def test_the_stair_differs_from_its_mirror_image():
    """Along the way up, steps turn from x to y: their angle grows with height."""
    random = np.random.default_rng(0)
    mesh, part = make_mesh("spiral stair", random)
    steps = mesh.vertices[np.unique(mesh.faces[part == 1])].reshape(-1, 8, 3).mean(1)
    steps = steps[np.argsort(steps[:, 2])][:, :2]
    crossed = steps[:-1, 0] * steps[1:, 1] - steps[:-1, 1] * steps[1:, 0]
    assert (crossed > 0).all()


def test_noise_has_the_size_asked_for():
    still, noisy = (make_shapes(1, 4096, classes=["car"], noise=n) for n in (0.0, 0.02))
    shift = noisy.points - still.points
    assert shift.std() == pytest.approx(0.02, rel=0.03)


def test_hundreds_are_made_in_seconds():
    began = time.process_time()
    make_shapes(15, 1024)
    assert time.process_time() - began < 10


def test_mistakes_are_told():
    with pytest.raises(ValueError, match=r"classes must be one of 'airplane', .* got 'sofa'"):
        make_shapes(classes=["sofa"])
    with pytest.raises(ValueError, match="split must be one of 'train', 'test', got 'val'"):
        make_shapes(split="val")
    with pytest.raises(ValueError, match="per_class must be positive"):
        make_shapes(0)
    with pytest.raises(ValueError, match=r"parts must have shape \(2, 5\) to match points, got \(2, 4\)"):
        CloudSet(torch.zeros(2, 5, 3), torch.zeros(2), ["a"], parts=torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"points must have shape \(M, N, 3\), got \(5, 3\)"):
        CloudSet(torch.zeros(5, 3), torch.zeros(5), ["a"])


def test_normalizing_bears_with_points_that_coincide_and_none():
    assert torch.equal(normalized(torch.ones(2, 4, 3)), torch.zeros(2, 4, 3))
    assert normalized(torch.zeros(2, 0, 3)).shape == (2, 0, 3)


def test_y_is_turned_up_by_a_rotation():
    matrix = upended(torch.eye(3), "y").T
    assert torch.linalg.det(matrix) == 1
    assert torch.equal(matrix @ torch.tensor([0.0, 1, 0]), torch.tensor([0.0, 0, 1]))
    with pytest.raises(ValueError, match="up must be one of 'y', 'z'"):
        upended(torch.eye(3), "x")


def test_items_are_points_and_labels(shapes):
    points, label = shapes[7]
    assert points.shape == (512, 3)
    assert label == 1
    assert shapes.class_names[label] == list(SHAPES)[1]
