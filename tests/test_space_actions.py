"""Actions in space obey their laws, and agree with NumPy, SciPy, physics and brute force."""

import itertools

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial.transform import Rotation

import space_action_mutants as mutants
from cases import DTYPES, name
from upright import (
    E3,
    O3,
    SE3,
    SO3,
    Cloud,
    Cyclic,
    CyclicHue,
    FullOctahedral,
    Hue,
    Image,
    Invariant,
    LabelVolume,
    Octahedral,
    OrientedBoxes3D,
    Product,
    PseudoVectors,
    Tensors,
    Vectors,
    Volume,
    act,
)
from upright.actions import act_mixed, registered_kinds
from upright.adapter.result import blend, merge, read_result
from upright.adapter.spec import wrap
from upright.testing import assert_action, assert_consistent, example

CUBE = [Octahedral(), FullOctahedral()]
CONTINUOUS = [SO3(), O3(), SE3(), E3()]
KINDS = [kind for kind in registered_kinds(Octahedral()) if kind is not Invariant]
GRIDS = (Volume, LabelVolume)
COMPILED = (Cloud, PseudoVectors, Tensors, Volume, LabelVolume)
SHAPES = [(4, 4, 4), (5, 5, 5), (3, 4, 5), (1, 2, 7), (1, 1, 1)]
UNEVEN = {"spacing": (3.0, 1.0, 0.5)}


@pytest.mark.parametrize("kind", KINDS, ids=name)
@pytest.mark.parametrize("group", [*CUBE, *CONTINUOUS], ids=name)
def test_laws(group, kind):
    heavy = kind in GRIDS and group in CONTINUOUS
    assert_action(group, kind, samples=3 if heavy else 32)


@pytest.mark.parametrize("kind", GRIDS, ids=name)
@pytest.mark.parametrize("group", CUBE, ids=name)
def test_laws_on_uneven_volumes(group, kind):
    def make(batch, generator):
        return example(kind, group, batch=batch, size=(3, 4, 5), generator=generator).replace(**UNEVEN)

    assert_action(group, make, samples=48, gradients=False)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (Volume, torch.uint8),
        (Volume, torch.float16),
        (LabelVolume, torch.uint8),
        (LabelVolume, torch.bool),
    ],
    ids=name,
)
def test_laws_of_resampling_in_other_precisions(kind, dtype):
    assert_action(
        E3(), lambda n, generator: example(kind, E3(), batch=n, dtype=dtype, generator=generator),
        samples=3, gradients=False,
    )  # fmt: skip


@pytest.mark.parametrize("group", [*CUBE, *CONTINUOUS, Product(Octahedral(), CyclicHue(3))], ids=name)
def test_kinds_agree(group):
    assert_consistent(group)


def test_products_with_colours_turn_space():
    group = Product(SO3(), Hue())
    assert_action(group, Cloud, samples=8)
    assert_action(group, Volume, samples=2, gradients=False)


@pytest.mark.parametrize(
    ("mutant", "group", "kind"), mutants.ACTIONS, ids=lambda v: getattr(v, "__name__", str(v))
)
def test_action_mutants(mutant, group, kind):
    with pytest.raises(AssertionError):
        assert_action(group, kind, act=mutant, samples=8)


@pytest.mark.parametrize(("mutant", "group"), mutants.FRAMES, ids=lambda v: getattr(v, "__name__", str(v)))
def test_frame_mutants(mutant, group):
    with pytest.raises(AssertionError):
        assert_consistent(group, act=mutant)


def moved_by_places(x, rotation):
    """Put every voxel where the matrix carries its centre, one by one; any dtype, by its bytes."""
    bits = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()]
    array, matrix = x.view(bits).numpy(), rotation.numpy().round().astype(int)[::-1, ::-1]  # of z, y, x
    sides = np.array(array.shape[-3:])
    moved_sides = np.abs(matrix) @ sides
    moved = np.zeros((*array.shape[:-3], *moved_sides), array.dtype)
    for index in itertools.product(*map(range, sides)):
        doubled = 2 * np.array(index) + 1 - sides  # from the middle, in half voxels
        target = (matrix @ doubled + moved_sides - 1) // 2
        moved[(..., *target)] = array[(..., *index)]
    return torch.from_numpy(moved).view(x.dtype)


def drawn(shape, dtype, generator):
    if dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(dtype)
    return torch.randint(0, 2 if dtype == torch.bool else 200, shape, generator=generator).to(dtype)


@pytest.mark.parametrize("shape", SHAPES, ids=name)
@pytest.mark.parametrize("dtype", [*DTYPES, torch.uint16, torch.int16], ids=name)
def test_48_orientations_are_exact(shape, dtype, generator):
    group = FullOctahedral()
    x = drawn((2, *shape), dtype, generator)
    for g in group.elements():
        moved = act(g, Volume(x, **UNEVEN))
        assert moved.data.dtype == dtype
        assert torch.equal(moved.data, moved_by_places(x, g.matrix()))
        axes = g.matrix().abs().flip(0, 1) @ torch.tensor(UNEVEN["spacing"]).double()
        assert moved.spacing == tuple(axes.tolist())
        assert torch.equal(act(g, LabelVolume(x, **UNEVEN)).data, moved.data)
        back = act(~g, moved)
        assert torch.equal(back.data, x)
        assert back.spacing == UNEVEN["spacing"]


@pytest.mark.parametrize("k", [1, 2, 3])
def test_turns_are_numpys(k):
    """About z from x to y, about x from y to z, about y from z to x; axes are (C, z, y, x)."""
    x = np.arange(60).reshape(1, 3, 4, 5)
    for axis, planes in (("z", (3, 2)), ("x", (2, 1)), ("y", (1, 3))):
        turn = SO3().from_euler(axis, [90.0 * k], degrees=True)
        expected = torch.from_numpy(np.rot90(x, k, planes).copy())
        assert torch.equal(act(turn, Volume(torch.from_numpy(x))).data, expected)
        assert torch.equal(
            act(Octahedral().nearest(turn.matrix()), Volume(torch.from_numpy(x))).data, expected
        )


@pytest.mark.parametrize("layout", ["plain", "channels_last", "strided", "gradient"])
def test_mixed_batches_are_moved_one_by_one(layout, generator):
    g = FullOctahedral().elements()
    x = torch.randn(48, 2, 5, 5, 5, generator=generator)
    if layout == "channels_last":
        x = x.to(memory_format=torch.channels_last_3d)
    elif layout == "strided":
        x = torch.randn(48, 2, 5, 5, 10, generator=generator)[..., ::2]
    x.requires_grad_(layout == "gradient")
    moved = act(g, Volume(x)).data
    for i in range(48):
        assert torch.equal(moved[i].detach(), moved_by_places(x[i].detach().contiguous(), g[i].matrix()))
    same = act(SO3().element(g[:24].matrix()), Volume(x[:24])).data
    assert torch.equal(same, moved[:24])


def test_batches_that_disagree_about_the_frame_are_refused():
    x = Volume(torch.zeros(2, 1, 4, 4, 4), spacing=(2.0, 1.0, 1.0))
    about_z, about_x = Octahedral().element(1), Octahedral().element(16)
    mixed = Octahedral().element(torch.tensor([int(about_z.value), int(about_x.value)]))
    assert act(about_z.expand(2), x).spacing == (2.0, 1.0, 1.0)
    assert act(about_x.expand(2), x).spacing == (1.0, 2.0, 1.0)
    with pytest.raises(ValueError, match="pass a list"):
        act(mixed, x)
    listed = act(mixed, [x.replace(data=x.data[0]), x.replace(data=x.data[1])])
    assert [entry.spacing for entry in listed] == [(2.0, 1.0, 1.0), (1.0, 2.0, 1.0)]
    tilted = SO3().element(torch.stack([about_x.matrix(), SO3().from_rotvec([0.1, 0.2, 0.3]).matrix()]))
    with pytest.raises(ValueError, match="pass a list"):
        act(tilted, x)


@pytest.mark.parametrize("border", ["edge", "reflect", "constant"])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.5, 1.0, 0.7)], ids=str)
def test_resampling_is_scipys(border, spacing, generator):
    x = torch.randn(4, 1, 7, 9, 12, generator=generator, dtype=torch.float64)
    g = E3().sample(4, generator=generator)
    moved = act(g, Volume(x, spacing=spacing, border=border)).data
    labels = act(g, LabelVolume((x[:, 0] * 10).long(), spacing=spacing, border=border)).data
    middle = (np.array(x.shape[-3:]) - 1) / 2
    for i in range(4):
        turn = E3().rotation(g)[i].numpy()[::-1, ::-1]  # of z, y, x
        shift = E3().translation(g)[i].numpy()[::-1]
        steps = np.diag(spacing)
        back = np.linalg.inv(steps) @ turn.T @ steps
        offset = middle - back @ middle - np.linalg.inv(steps) @ turn.T @ shift
        mode = {"edge": "nearest", "reflect": "reflect", "constant": "grid-constant"}[border]
        expected = ndimage.affine_transform(x[i, 0].numpy(), back, offset, order=1, mode=mode)
        np.testing.assert_allclose(moved[i, 0].numpy(), expected, atol=1e-9)
        mode = mode.removeprefix("grid-")
        chosen = ndimage.affine_transform((x[i, 0] * 10).long().numpy(), back, offset, order=0, mode=mode)
        if border == "constant":  # SciPy's constant begins at voxel centres, ours at the edge of voxels
            chosen = np.where(chosen == 0, labels[i].numpy(), chosen)
        assert (labels[i].numpy() == chosen).mean() > 0.999


def test_a_fill_lies_outside():
    g = SO3().from_rotvec([0.4, 0.3, -0.5])
    ones = torch.ones(1, 6, 6, 6)
    assert torch.allclose(act(g, Volume(ones, border="constant", fill=1.0)).data, ones)
    assert float(act(g, Volume(ones, border="constant", fill=-3.0)).data.min()) < -1
    labels = act(g, LabelVolume(ones[0].to(torch.uint16), fill=7)).data
    assert labels.dtype == torch.uint16
    assert sorted(labels.long().unique().tolist()) == [1, 7]


def test_nothing_resamples_twice(generator):
    """A quarter turn that is met on the way is exact, beside elements that are not."""
    x = torch.randn(3, 1, 5, 5, 5, generator=generator)
    turn = SE3().from_euler("z", [90.0], degrees=True)
    g = SE3().element(
        torch.stack([torch.eye(3), SE3().rotation(turn), SE3().rotation(SE3().from_rotvec([0.1, 0.0, 0.0]))])
    )
    moved = act(g, Volume(x)).data
    assert torch.equal(moved[0], x[0])
    assert torch.equal(moved[1], x[1].rot90(1, (3, 2)))
    whole = act(SE3().element(translation=[1.0, 0.0, -2.0]), Volume(x[0])).data
    assert torch.allclose(whole[:, :3, :, 1:], x[0][:, 2:, :, :-1], atol=1e-5)


def test_positions_are_scipys(generator):
    turn = Rotation.random(5, random_state=0)
    points = torch.randn(5, 7, 3, generator=generator, dtype=torch.float64)
    g = SE3().element(torch.from_numpy(turn.as_matrix()), torch.tensor([1.0, -2.0, 3.0]))
    moved = act(g, Cloud(points)).data
    for i in range(5):
        np.testing.assert_allclose(moved[i], turn[i].apply(points[i]) + np.array([1, -2, 3]), atol=1e-12)


@pytest.mark.parametrize("group", [FullOctahedral(), E3()], ids=name)
def test_physics_moves_along(group, generator):
    """What is computed of moved particles is what is computed of particles, moved."""
    g = group.sample(6, generator=generator)
    mass = torch.rand(6, 8, 1, generator=generator, dtype=torch.float64)
    r, v = torch.randn(2, 6, 8, 3, generator=generator, dtype=torch.float64)
    r = r - (mass * r).sum(1, keepdim=True) / mass.sum(1, keepdim=True)

    def physics(r, v):
        r = r - (mass * r).sum(1, keepdim=True) / mass.sum(1, keepdim=True)
        spin = (mass * torch.linalg.cross(r, v)).sum(1)
        square = r.square().sum(-1, keepdim=True).unsqueeze(-1)
        unit = torch.eye(3, dtype=r.dtype)
        inertia = (mass.unsqueeze(-1) * (square * unit - r.unsqueeze(-1) * r.unsqueeze(-2))).sum(1)
        drag = torch.einsum("bni,bnj->bij", r, v)  # not symmetric
        return PseudoVectors(spin), Tensors(inertia), Tensors(drag)

    moved = physics(act(g, Cloud(r)).data, act(g, Vectors(v)).data)
    for found, expected in zip(moved, act(g, physics(r, v)), strict=True):
        torch.testing.assert_close(found.data, expected.data)


def test_boxes_that_reflect_stay_rotations(generator):
    boxes = example(OrientedBoxes3D, O3(), batch=9, dtype=torch.float64, generator=generator)
    moved = act(O3().sample(9, generator=generator), boxes).data
    axes = moved[..., 6:].reshape(9, -1, 3, 3)
    torch.testing.assert_close(torch.linalg.det(axes), torch.ones(axes.shape[:2], dtype=torch.float64))
    assert torch.equal(moved[..., 3:6], boxes.data[..., 3:6])


def test_symmetries_of_the_cube_move_any_signed_number():
    group = FullOctahedral()
    g = group.elements()
    odd = torch.tensor([[torch.inf, torch.nan, -1.0], [0.0, 2.0, 3.0]]).expand(48, 2, 3)
    assert int(act(g, Cloud(odd)).data.isnan().sum()) == 48
    assert int(act(g, Cloud(odd)).data.isinf().sum()) == 48
    whole = torch.arange(-6, 6).view(1, 4, 3).expand(48, 4, 3)
    expected = (whole.double() @ g.matrix().mT).long()
    for kind in (Cloud, Vectors):
        assert torch.equal(act(g, kind(whole)).data, expected)
    with pytest.raises(TypeError, match="signed"):
        act(g, Cloud(whole.to(torch.uint8)))
    with pytest.raises(TypeError, match="floating-point"):
        act(SO3().identity(48), Cloud(whole))


def test_autocast_and_batches_change_no_bit(generator):
    g, x = SE3().sample(33, generator=generator), torch.randn(33, 50, 3, generator=generator)
    volume = torch.randn(33, 1, 4, 4, 4, generator=generator)
    plain, resampled = act(g, Cloud(x)).data, act(g, Volume(volume)).data
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(act(g, Cloud(x)).data, plain)
        assert torch.equal(act(g, Volume(volume)).data, resampled)
    assert all(torch.equal(act(g[i], Cloud(x[i])).data, plain[i]) for i in range(33))
    ragged = [Cloud(x[i, : i + 1]) for i in range(33)]
    assert all(torch.equal(m.data, plain[i, : i + 1]) for i, m in enumerate(act(g, ragged)))


def test_rounding_happens_once(generator):
    g = SO3().sample(5, generator=generator)
    grey = torch.full((5, 1, 6, 6, 6), 201, dtype=torch.uint8)
    assert torch.equal(act(g, Volume(grey)).data, grey)
    short = torch.randn(5, 40, 3, generator=generator).half()
    assert torch.equal(act(g, Cloud(short)).data, act(g, Cloud(short.float())).data.half())
    endless = torch.tensor([[torch.inf, 1.0, -2.0]])
    assert torch.equal(act(SE3().identity(), Cloud(endless)).data, endless)


def test_features_stay(generator):
    x = torch.randn(2, 4, 6, generator=generator)
    moved = act(SE3().sample(2, generator=generator), Cloud(x, features=3)).data
    assert torch.equal(moved[..., 3:], x[..., 3:])
    assert not torch.isclose(moved[..., :3], x[..., :3]).any()


@pytest.mark.parametrize("group", [FullOctahedral(), SE3()], ids=name)
def test_compiles_into_one_graph(group, generator):
    g = group.sample(3, generator=generator)
    kinds = tuple(example(k, group, batch=3, size=(6, 6, 6), generator=generator) for k in COMPILED)
    torch.compiler.reset()
    compiled = torch.compile(act, fullgraph=True, backend="aot_eager")
    for found, expected in zip(compiled(g, kinds), act(g, kinds), strict=True):
        torch.testing.assert_close(found.data, expected.data, rtol=1e-4, atol=1e-4)


def test_exact_moves_let_gradients_reach_the_pose(generator):
    x = torch.randn(1, 1, 6, 6, 6, generator=generator, dtype=torch.float64)
    c = torch.zeros(1, 6, dtype=torch.float64, requires_grad=True)
    moved = act(SE3().exp(c), Volume(x)).data
    assert torch.equal(moved, x)
    moved.square().sum().backward()
    assert float(c.grad.abs().min()) > 0


def test_gradients_reach_the_weights_of_orientations(generator):
    group = Octahedral()
    x = Volume(torch.randn(2, 1, 4, 4, 4, generator=generator))
    weights = torch.nn.functional.one_hot(torch.tensor([3, 20]), 24).float().requires_grad_()
    moved = act_mixed(group.element(torch.tensor([3, 20])), weights, x, inverse=True).data
    moved.square().mean().backward()
    assert int((weights.grad != 0).sum()) == 48


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (Cloud(torch.zeros(2, 3, 8)), "transpose"),
        (Cloud(torch.zeros(2, 8, 4)), r"\(…, N, 3\)"),
        (Cloud(torch.zeros(2, 8, 3), features=1), r"\(…, N, 4\)"),
        (Vectors(torch.zeros(2, 2)), r"\(…, 3\)"),
        (PseudoVectors(torch.zeros(2, 4)), r"\(…, 3\)"),
        (Tensors(torch.zeros(2, 9)), r"\(…, 3, 3\)"),
        (Volume(torch.zeros(2, 4, 4, 4)), r"\(…, C, D, H, W\)"),
        (Volume(torch.zeros(2, 1, 4, 4, 4), spacing=(1.0, 0.0, 1.0)), "spacing"),
        (LabelVolume(torch.zeros(2, 4, 4)), r"D, H, W"),
        (OrientedBoxes3D(torch.zeros(2, 3, 12)), "15"),
    ],
    ids=lambda v: type(v).__name__,
)
def test_wrong_shapes_are_named(x, message):
    for group in (Octahedral(), SO3()):
        with pytest.raises(ValueError, match=message):
            act(group.identity(2), x)


def test_the_plane_and_space_keep_apart():
    with pytest.raises(TypeError, match="no action of Cyclic on Volume"):
        act(Cyclic(4).identity(1), Volume(torch.zeros(1, 1, 2, 2, 2)))
    with pytest.raises(TypeError, match="no action of SO3 on Image"):
        act(SO3().identity(1), Image(torch.zeros(1, 3, 2, 2)))


@pytest.mark.parametrize("kind", ["cloud", "vectors", "pseudo_vectors", "tensors"])
def test_specifications_name_kinds_whose_poses_are_averaged(kind):
    shape = (2, 3, 3)
    parts = [read_result(kind, torch.full(shape, fill), (1, 1)) for fill in (0.0, 1.0)]
    index = [torch.tensor([0, 1])] * 2
    shares = [torch.tensor([0.25, 0.5]), torch.tensor([0.75, 0.5])]
    mean = blend(parts, index, shares).output()
    assert torch.allclose(mean, torch.tensor([0.75, 0.5]).view(2, 1, 1).expand(shape))
    assert torch.equal(merge([parts[0]], [torch.tensor([1, 0])]).output(), torch.zeros(shape))


def test_boxes_of_several_poses_are_not_averaged():
    parts = [read_result("oriented_boxes_3d", torch.zeros(1, 2, 15), (1, 1))] * 2
    with pytest.raises(TypeError, match="cannot be averaged"):
        blend(parts, [torch.tensor([0])] * 2, [torch.ones(1)] * 2)
    assert isinstance(wrap("label_volume", torch.zeros(1, 2, 2, 2), (1, 1)), LabelVolume)
