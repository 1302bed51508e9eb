"""Groups of space obey their laws; quaternions, rotation vectors, Euler angles and logarithms are SciPy's."""

import copy
import itertools
import math
import pickle

import numpy as np
import pytest
import torch
from scipy import linalg
from scipy.spatial.transform import Rotation

import space_mutants
from cases import name
from upright import (
    E3,
    O3,
    SE3,
    SO3,
    Affine,
    Brightness,
    CyclicHue,
    Element,
    FullOctahedral,
    Hue,
    Members,
    Octahedral,
    Product,
    Translation,
    Window,
    parse_group,
)
from upright.groups import parse_finite_group
from upright.testing import assert_group

CONTINUOUS = [SO3(), O3(), SE3(), E3()]
CUBE = [Octahedral(), FullOctahedral()]
GROUPS = [*CONTINUOUS, *CUBE]
PRODUCTS = [
    Product(SO3(), Hue()), Product(E3(), CyclicHue(3)), Product(Octahedral(), CyclicHue(3), Brightness()),
    Product(Octahedral(), CyclicHue(2)), Product(Affine(), Hue()),
]  # fmt: skip
ANGLES = [0.0, 1e-12, 1e-9, 1e-7, 1e-3, 0.0999, 0.1001, 1.0, 3.0, math.pi - 1e-7, math.pi - 1e-12]


def axes(count=20, seed=0):
    drawn = np.random.default_rng(seed).normal(size=(count, 3))
    drawn = np.concatenate([drawn, np.eye(3), -np.eye(3), [[1, 1, 0], [0, -1, 1], [1, 1, 1]]])
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def close(found, expected, atol):
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("group", [*GROUPS, *PRODUCTS], ids=name)
def test_laws(group):
    assert_group(group)


@pytest.mark.parametrize("group", space_mutants.GROUPS, ids=lambda group: type(group).__name__)
def test_mutants(group):
    with pytest.raises(AssertionError):
        assert_group(group)


@pytest.mark.parametrize("group", GROUPS, ids=name)
def test_names_copies_and_pickles(group):
    assert parse_group(str(group)) == group == parse_group(str(group).lower())
    assert pickle.loads(pickle.dumps(group)) == group == copy.copy(group)
    assert parse_group(f"{group}xhue3") == Product(group, CyclicHue(3))
    g = group.sample(3)
    assert pickle.loads(pickle.dumps(g)).equals(g).all()


def test_short_names_and_errors_of_names():
    assert parse_group("O") == Octahedral()
    assert parse_finite_group("Oh") == FullOctahedral()
    with pytest.raises(ValueError, match="'SE3', 'E3', 'octahedral', 'full octahedral'"):
        parse_group("SE4")
    with pytest.raises(ValueError, match="not known to commute"):
        Product(SO3(), Translation())
    with pytest.raises(ValueError, match="not known to commute"):
        Product(SO3(), Octahedral())


# Against SciPy


def test_quaternions_are_scipys():
    expected = Rotation.random(200, rng=0)
    g = SO3().from_quaternion(3.0 * expected.as_quat())  # any length
    close(g.matrix(), expected.as_matrix(), atol=1e-14)
    close(SO3().quaternion(g), expected.as_quat(canonical=True), atol=1e-14)


def test_quaternions_are_precise_where_each_component_is_the_largest():
    corners = np.array(list(itertools.product([-1.0, 0.0, 1e-9, 1.0], repeat=4)))
    corners = corners[np.abs(corners).max(1) > 0]
    expected = Rotation.from_quat(corners)
    q = SO3().quaternion(SO3().from_quaternion(corners)).numpy()
    same = np.abs((q * expected.as_quat()).sum(1))  # up to sign, which is free at half turns
    close(same, 1, atol=1e-15)
    close(Rotation.from_quat(q).as_matrix(), expected.as_matrix(), atol=1e-15)


@pytest.mark.parametrize("angle", [*ANGLES, math.pi, 4.0, 2 * math.pi, 50.0])
def test_rotation_vectors_are_scipys(angle):
    rotvec = angle * axes()
    expected = Rotation.from_rotvec(rotvec)
    g = SO3().from_rotvec(rotvec)
    atol = 1e-14 * max(angle, 1)
    close(g.matrix(), expected.as_matrix(), atol=atol)
    found = SO3().rotvec(g).numpy()
    if abs(angle - math.pi) > 1e-10:  # at half turns the axis may point either way
        close(found, expected.as_rotvec(), atol=1e-13 * max(angle, 1))
    close(Rotation.from_rotvec(found).as_matrix(), expected.as_matrix(), atol=atol)
    close(g.group.angle(g), expected.magnitude(), atol=1e-13 * max(angle, 1))


@pytest.mark.parametrize("sequence", ["zyx", "ZYX", "xyz", "XYZ", "zxz", "YZY", "y", "xz"])
def test_euler_angles_are_scipys(sequence):
    angles = np.random.default_rng(1).uniform(-4, 4, (30, len(sequence)))
    expected = Rotation.from_euler(sequence, angles).as_matrix()
    close(SO3().from_euler(sequence, angles).matrix(), expected, atol=1e-14)
    degrees = SO3().from_euler(sequence, np.rad2deg(angles), degrees=True)
    close(degrees.matrix(), expected, atol=1e-14)


@pytest.mark.parametrize("angle", ANGLES)
def test_exp_and_log_of_motions_are_scipys(angle):
    shifts = np.random.default_rng(2).normal(size=(len(axes()), 3))
    c = np.concatenate([shifts, angle * axes()], 1)
    g = SE3().exp(torch.from_numpy(c))
    expected = np.stack([linalg.expm(np.tensordot(row, SE3().generators().numpy(), 1)) for row in c])
    close(g.matrix(), expected, atol=1e-13)
    close(SE3().log(g), c, atol=1e-11 if angle > 3.1 else 1e-13)


def test_rotations_of_scipy_are_taken_as_they_are():
    found = Rotation.random(7, random_state=0)
    g = SO3().element(found)
    np.testing.assert_allclose(Rotation.from_matrix(g.matrix()).as_matrix(), found.as_matrix(), atol=1e-15)
    assert SO3().element(found[0]).equals(g[0])
    assert E3().element(found, torch.ones(7, 3)).equals(E3().element(g.matrix(), torch.ones(3))).all()


def test_lists_of_numbers_keep_their_digits():
    third = Rotation.from_rotvec([0.1, 0.2, 0.3])
    matrix = third.as_matrix()
    for g in (
        SO3().from_rotvec([0.1, 0.2, 0.3]),
        SO3().from_quaternion(third.as_quat().tolist()),
        SO3().from_euler("zyx", third.as_euler("zyx").tolist()),
        SO3().element(matrix.tolist()),
    ):
        close(g.matrix(), matrix, atol=1e-15)
    assert SE3().translation(SE3().element(translation=[0.1, 0.2, 0.3])).tolist() == [0.1, 0.2, 0.3]


def test_composition_is_scipys():
    a, b = Rotation.random(50, rng=3), Rotation.random(50, rng=4)
    g, h = (SO3().from_quaternion(r.as_quat()) for r in (a, b))
    close(SO3().quaternion(g @ h), (a * b).as_quat(canonical=True), atol=1e-14)
    close(g.distance(h), (a.inv() * b).magnitude(), atol=1e-13)
    points = np.random.default_rng(5).normal(size=(50, 3))
    moved = ((g @ h).matrix() @ torch.from_numpy(points)[..., None]).squeeze(-1)
    close(moved, a.apply(b.apply(points)), atol=1e-14)


# Numbers that do not hold up


@pytest.mark.parametrize("group", CONTINUOUS, ids=name)
def test_rounding_does_not_build_up(group, generator):
    steps = group.sample(1000, generator=generator)
    walk = group.identity()
    for step in steps:
        walk = walk @ step
    turn = group.rotation(walk)
    torch.testing.assert_close(turn.mT @ turn, torch.eye(3).double(), atol=1e-12, rtol=0)


@pytest.mark.parametrize("group", CONTINUOUS, ids=name)
def test_matrices_of_float32_become_orthogonal(group, generator):
    g = group.sample(100, generator=generator)
    rotation = group.rotation(g).float()
    made = group.element(rotation)
    turn = group.rotation(made)
    torch.testing.assert_close(turn.mT @ turn, torch.eye(3).double().expand(100, 3, 3), atol=1e-15, rtol=0)
    torch.testing.assert_close(turn, rotation.double(), atol=1e-6, rtol=0)
    exact = FullOctahedral().elements().matrix()
    assert torch.equal(O3().element(exact).value, exact)


def test_gradients_pass_and_are_finite_at_the_identity_and_at_half_turns():
    for coordinates in (torch.zeros(6), torch.tensor([1.0, 2, 3, math.pi, 0, 0]), torch.ones(6)):
        c = coordinates.double().requires_grad_()
        g = SE3().exp(c)
        for out in (g.value, g.matrix(), SE3().log(g), g.distance(SE3().identity()), SE3().quaternion(g)):
            (slope,) = torch.autograd.grad(out.sum(), c, retain_graph=True)
            assert slope.isfinite().all()
    c = torch.tensor([[0.3, -0.2, 0.1, 0.5, 1.0, -0.7], [1, 1, 1, 0, 1e-3, 0]]).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda c: SE3().exp(c).value, c)
    assert torch.autograd.gradcheck(lambda c: SE3().log(SE3().exp(c)), c)
    q = torch.tensor([[0.1, 0.2, -0.3, 0.9]]).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda q: SO3().from_quaternion(q).value, q)
    assert torch.autograd.gradcheck(lambda q: SO3().quaternion(SO3().from_quaternion(q)), q)


@pytest.mark.parametrize("group", GROUPS, ids=name)
def test_samples_are_uniform(group, generator):
    """The moments of the Haar measure, by Schur orthogonality; E (tr R)³ is 1 on rotations, by (1, 1, 1)."""
    count = 40_000
    turn = group.rotation(group.sample(count, generator=generator))
    limit = 5 / math.sqrt(count)
    assert turn.mean(0).abs().max() < limit
    flat = turn.flatten(1)
    assert (flat.mT @ flat / count - torch.eye(9).double() / 3).abs().max() < limit
    signs = group.determinant(group.sample(count, generator=generator))
    assert abs(signs.mean() - float(group.is_proper)) < limit
    trace = turn.diagonal(dim1=-2, dim2=-1).sum(-1)
    assert abs(trace.square().mean() - 1) < 2 * limit
    assert abs((trace**3).mean() - float(group.is_proper)) < 6 * limit
    if (
        group in CONTINUOUS
    ):  # the angle θ has density (1 - cos θ) / π; those of the cube, 4th moments of its own
        theta = group.angle(Element(group, group.sample(count, generator=generator).value))
        grid = torch.linspace(0, math.pi, 13).double()
        expected = (grid - grid.sin()) / math.pi
        found = torch.stack([(theta <= edge).double().mean() for edge in grid])
        assert (found - expected).abs().max() < limit
    else:
        assert group.sample(count, generator=generator).value.bincount().min() > 0.8 * count / group.order


@pytest.mark.parametrize("group", [SE3(), E3()], ids=name)
def test_shifts_are_drawn_from_the_window(group, generator):
    shift = group.translation(group.sample(20_000, generator=generator))
    assert 0.999 < shift.abs().max() <= group.window
    assert shift.mean(0).abs().max() < 0.02
    assert (shift.mT @ shift / len(shift) - torch.eye(3).double() / 3).abs().max() < 0.02


# Handedness and errors


def test_reflections_are_no_rotations(generator):
    reflection = -SO3().sample(5, generator=generator).value
    for group, wider in ((SO3(), "O3"), (SE3(), "E3")):
        with pytest.raises(ValueError, match=rf"determinant \+1 in {group}, got -1.*use {wider}\(\)"):
            group.element(reflection)
    for group in (O3(), E3()):
        g = group.element(reflection)
        assert group.determinant(g).tolist() == [-1.0] * 5
        for ask in (group.log, group.quaternion, group.rotvec):
            with pytest.raises(ValueError, match="reflects is no rotation"):
                ask(g)
        assert g.distance(group.identity()).tolist() == [math.pi] * 5
    with pytest.raises(ValueError, match="determinant"):
        Octahedral().nearest(reflection)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SO3().element(torch.eye(4)), r"rotation must have shape \(…, 3, 3\), got \(4, 4\)"),
        (lambda: SO3().element(1.1 * torch.eye(3)), r"orthogonal, but RᵀR differs .* by 0.21"),
        (lambda: O3().element(torch.full((3, 3), torch.nan)), "orthogonal"),
        (lambda: SO3().from_quaternion([0.0, 0.0, 1.0]), r"quaternion must have shape \(…, 4\), got \(3,\)"),
        (lambda: SO3().from_quaternion(torch.zeros(2, 4)), "quaternion must not be 0"),
        (lambda: SO3().from_rotvec(1.0), r"rotvec must have shape \(…, 3\), got \(\)"),
        (lambda: SO3().from_euler("zyq", [0, 0, 0]), "axes must be some of 'xyz'"),
        (lambda: SO3().from_euler("zYx", [0, 0, 0]), "axes must be some of 'xyz'"),
        (lambda: SO3().from_euler("zyx", [0.0]), r"angles must have shape \(…, 3\), got \(1,\)"),
        (lambda: SE3().element(translation=[1.0]), r"translation must have shape \(…, 3\), got \(1,\)"),
        (lambda: Octahedral().nearest(torch.eye(2)), r"rotation must have shape \(…, 3, 3\)"),
        (lambda: Octahedral().element(24), r"\[-24, 24\)"),
    ],
)
def test_errors_say_what_is_wrong(call, message):
    with pytest.raises((ValueError, IndexError), match=message):
        call()


def test_batches_broadcast_and_may_be_empty():
    g = SE3().element(torch.eye(3).expand(4, 1, 3, 3), torch.zeros(5, 3))
    assert g.shape == (4, 5)
    assert SE3().element(translation=[1.0, 2.0, 3.0]).shape == ()
    assert SE3().from_rotvec(torch.zeros(0, 3)).shape == (0,)
    for group in CONTINUOUS:
        assert group.log(group.identity(0)).shape == (0, group.coordinates)
        assert group.element(torch.zeros(0, 3, 3)).shape == (0,)
        assert group.quaternion(group.identity(2, 0)).shape == (2, 0, 4)
    assert FullOctahedral().nearest(torch.zeros(0, 3, 3)).shape == (0,)


# The cube


@pytest.mark.parametrize("group", CUBE, ids=name)
def test_matrices_are_all_signed_permutations(group):
    found = {tuple(m.flatten().tolist()) for m in group.elements().matrix()}
    expected = set()
    for order in itertools.permutations(range(3)):
        for signs in itertools.product([1.0, -1.0], repeat=3):
            matrix = np.diag(signs)[list(order)]
            if not group.is_proper or np.linalg.det(matrix) > 0:
                expected.add(tuple(matrix.flatten().tolist()))
    assert found == expected
    assert len(found) == group.order
    assert group.is_exact_on_grid


@pytest.mark.parametrize("group", CUBE, ids=name)
def test_table_is_that_of_the_matrices(group):
    g = group.elements()
    product = (g.reshape(-1, 1) @ g.reshape(1, -1)).matrix()
    assert torch.equal(product, g.matrix()[:, None] @ g.matrix()[None])
    assert torch.equal((~g).matrix(), g.matrix().mT)


def test_numbers_are_as_documented():
    quarter = Rotation.from_euler("z", 90, degrees=True).as_matrix()
    faces = [(0, 0, 1), (1, 0, 0), (0, 0, -1), (-1, 0, 0), (0, -1, 0), (0, 1, 0)]
    turns = [("y", 0), ("y", 90), ("y", 180), ("y", 270), ("x", 90), ("x", -90)]
    for f, (face, (axis, degrees)) in enumerate(zip(faces, turns, strict=True)):
        carry = Rotation.from_euler(axis, degrees, degrees=True).as_matrix()
        for q in range(4):
            found = Octahedral().element(4 * f + q).matrix().numpy()
            close(found, carry @ np.linalg.matrix_power(quarter, q), atol=1e-15)
            close(found @ [0, 0, 1], face, atol=1e-15)
            whole = FullOctahedral().element(torch.tensor([4 * f + q, 4 * f + q + 24])).matrix()
            np.testing.assert_array_equal(whole, [found, -found])


@pytest.mark.parametrize("group", CUBE, ids=name)
def test_axes_say_where_each_component_comes_from(group, generator):
    g = group.elements()
    v = torch.randn(group.order, 3, generator=generator, dtype=torch.float64)
    source, sign = group.axes(g)
    assert torch.equal(sign * v.gather(-1, source), (g.matrix() @ v[..., None]).squeeze(-1))


@pytest.mark.parametrize("group", CUBE, ids=name)
def test_nearest_is_the_nearest(group, generator):
    wide = SO3() if group.is_proper else O3()
    drawn = wide.sample(200, generator=generator)
    every = group.elements().matrix()
    found = group.nearest(drawn.value)
    gaps = (drawn.value[:, None] - every).flatten(-2).norm(dim=-1)
    gaps[torch.linalg.det(drawn.value)[:, None] * torch.linalg.det(every) < 0] = math.inf  # keeps handedness
    assert torch.equal(found.value, gaps.argmin(-1))
    assert torch.equal(group.nearest(every.float()).value, torch.arange(group.order))


def test_subsets_of_groups_of_space(generator):
    assert Members.of(Octahedral().element(torch.arange(4))).is_group
    assert not Members.of(Octahedral().element(torch.tensor([0, 1]))).is_group
    near = Window(SE3(), 0.3)
    assert near.contains(near.sample(20, generator=generator)).all()


@pytest.mark.slow
def test_compiles_into_one_graph(generator):
    def walk(value, turn):
        g = Element(FullOctahedral(), value)
        h = Element(SE3(), turn)
        there, back = g.compose(g.inverse()).compose(g), h.compose(h.inverse()).compose(h)
        return there.matrix(), back.matrix(), g.distance(g.compose(g)), SE3().log(h)

    given = FullOctahedral().elements().value, SE3().sample(48, generator=generator).value
    compiled = torch.compile(walk, backend="eager", fullgraph=True)(*given)
    for found, expected in zip(compiled, walk(*given), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-13, rtol=0)
