"""Continuous groups obey their laws; matrices and logarithms are SciPy's; sets that are no group say so."""

import copy
import math
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import linalg

import plane_mutants
from cases import name
from upright import (
    O2,
    SO2,
    Affine,
    Arc,
    Cyclic,
    Dihedral,
    Homography,
    Ladder,
    Members,
    Scale,
    Translation,
    Window,
    parse_group,
)
from upright.groups import Hue, LieGroup, PlaneMap, plane_homography
from upright.groups.projective import is_similarity
from upright.testing import assert_group

GROUPS = [SO2(), O2(), Scale(), Translation(), Affine(), Homography()]
MAPS = [group for group in GROUPS if isinstance(group, PlaneMap)]
SETS = [
    Arc(90), Arc(30, O2()), Arc(180), Arc(0), Ladder(0.5, 2.0, 5), Window(Scale(), 0.4), Window(SO2(), 0.3),
    Window(Translation(), (0.2, 0.1)), Window(Affine(), 0.2), Window(Homography(), 0.05),
    Members.of(Cyclic(8).element(torch.tensor([0, 1, 7]))), Members.of(SO2().element(degrees=[-30.0, 0, 30])),
    Members.of(Affine().sample(4, generator=torch.Generator().manual_seed(3))),
]  # fmt: skip


@pytest.mark.parametrize("group", GROUPS, ids=name)
def test_laws(group):
    assert_group(group)


@pytest.mark.parametrize("group", plane_mutants.GROUPS, ids=lambda group: type(group).__name__)
def test_mutants(group):
    with pytest.raises(AssertionError):
        assert_group(group)


@pytest.mark.parametrize("group", MAPS, ids=name)
def test_exp_and_log_are_scipys(group, generator):
    g = group.sample(40, generator=generator)
    c = group.log(g)
    for row, matrix in zip(c.numpy(), g.matrix().numpy(), strict=True):
        algebra = np.einsum("k,kij->ij", row, group.generators().numpy())
        np.testing.assert_allclose(linalg.expm(algebra), matrix, atol=1e-12)
        np.testing.assert_allclose(linalg.logm(matrix), algebra, atol=1e-10)
    window = torch.tensor(group.window)
    assert (c.abs() <= window + 1e-9).all()
    assert (c.abs().amax(0) > 0.6 * window).all()  # the window is used


def test_what_coordinates_mean():
    c = torch.diag(torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64))
    shift_right, shift_down, larger, turned = Affine().exp(torch.nn.functional.pad(c, (0, 2))).value.unbind(0)
    np.testing.assert_allclose(shift_right, [[1, 0, 0.1], [0, 1, 0]])
    np.testing.assert_allclose(shift_down, [[1, 0, 0], [0, 1, 0.2]])
    np.testing.assert_allclose(larger, math.exp(0.3) * np.eye(2, 3))
    np.testing.assert_allclose(turned[:, :2], SO2().element(0.4).matrix(), atol=1e-15)


def test_homographies_that_differ_by_a_factor_are_one():
    matrix = torch.randn(5, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    g = Homography().element(matrix)
    assert g.equals(Homography().element(-3 * matrix)).all()
    np.testing.assert_allclose(torch.linalg.det(g.value), np.ones(5), rtol=1e-12)
    assert (g @ Homography().element(torch.linalg.inv(matrix))).is_identity().all()


def test_left_invariant_distance_is_the_length_of_the_logarithm_nearby():
    c = torch.tensor([[0.001, -0.002, 0.001, 0.003, 0.0, 0.001]], dtype=torch.float64)
    expected = np.linalg.norm(np.einsum("k,kij->ij", c[0].numpy(), Affine().generators().numpy()))
    g = Affine().sample(1)
    assert float(g.distance(g @ Affine().exp(c))) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("group", [Affine(), Homography()], ids=name)
def test_logarithms_out_of_reach_are_refused(group):
    flipped = torch.diag(torch.tensor([-1.0, 1.0, 1.0]))[: group.identity().value.shape[0]]
    with pytest.raises(ValueError, match="has no logarithm"):
        group.log(group.element(flipped))


def test_elements_in_pixels_factors_and_matrices():
    shift = Translation().from_pixels(3, -1, size=(8, 20))
    assert shift.value.tolist() == [0.75, -0.25]
    assert Scale().factor(Scale().element([0.5, 2.0])).tolist() == [0.5, 2.0]
    with pytest.raises(ValueError, match="factor must be positive, got 0"):
        Scale().element(0.0)
    with pytest.raises(ValueError, match=r"matrix must have shape \(…, 2, 3\), got \(3, 3\)"):
        Affine().element(torch.eye(3))
    with pytest.raises(ValueError, match="must be invertible"):
        Homography().element(torch.ones(3, 3))


@pytest.mark.parametrize("group", GROUPS, ids=name)
def test_names_and_values(group):
    assert parse_group(str(group)) == parse_group(str(group).upper()) == group
    g = group.sample(3)
    for twin in (copy.deepcopy(g), pickle.loads(pickle.dumps(g))):
        assert twin.equals(g).all()
    assert g[1].equals(g)[1]
    assert group.identity(2, 3).reshape(6).is_identity().all()


def test_unknown_names_list_the_known():
    with pytest.raises(ValueError, match="one of 'SO2', 'O2', 'scale', 'translation', 'affine', 'homogra"):
        parse_group("skew")


def test_planar_groups_have_homographies_too():
    g = Dihedral(8).elements()
    matrix = plane_homography(g)
    torch.testing.assert_close(matrix[:, :2, :2], g.matrix())
    assert (matrix[:, 2] == torch.tensor([0.0, 0, 1])).all()
    assert is_similarity(matrix).all()
    with pytest.raises(TypeError, match="group of the plane"):
        plane_homography(Hue().identity(1))


def test_which_maps_keep_shapes():
    turned = plane_homography(SO2().element(0.3)) @ plane_homography(Scale().element(1.7))
    stretched = torch.diag(torch.tensor([1.0, 1.001, 1.0], dtype=torch.float64))
    bent = Homography().exp(torch.tensor([0.0] * 6 + [0.01, 0.0])).matrix()
    assert is_similarity(torch.stack([turned, 5 * turned, stretched, bent])).tolist() == [
        True,
        True,
        False,
        False,
    ]


# --- sets


@pytest.mark.parametrize("members", SETS, ids=str)
def test_sets_contain_what_they_name_and_project_onto_it(members, generator):
    assert members == copy.deepcopy(members)
    assert hash(members) == hash(copy.deepcopy(members))
    grid, drawn = members.grid(), members.sample(50, generator=generator)
    again = members.sample(50, generator=torch.Generator().manual_seed(generator.initial_seed()))
    assert drawn.shape == again.shape == (50,)
    for g in (grid, drawn):
        assert g.group == members.group
        assert members.contains(g).all()
        assert torch.equal(members.project(g).value, g.value)
    anything = members.group.sample(50, generator=generator)
    nearest = members.project(anything)
    assert members.contains(nearest).all()
    inside = members.contains(anything)
    assert nearest.equals(anything)[inside].all()
    if members.group.is_bi_invariant and not isinstance(members, Window):
        reach = anything.distance(nearest)
        near = anything.reshape(-1, 1).distance(drawn.reshape(1, -1)).amin(1)
        assert (reach <= near + 1e-9).all()


@pytest.mark.parametrize("members", SETS, ids=str)
def test_closure_is_what_brute_force_finds(members):
    g = members.sample(300, generator=torch.Generator().manual_seed(0))
    h = members.sample(300, generator=torch.Generator().manual_seed(1))
    assert bool(members.contains(g @ h).all()) == members.is_group


@pytest.mark.parametrize(
    ("chosen", "closed"),
    [([0, 2, 4, 6], True), ([0, 4], True), ([0], True), ([2, 6], False), ([0, 2, 4], False)],
)
def test_closure_of_lists(chosen, closed):
    assert Members.of(Cyclic(8).element(torch.tensor(chosen))).is_group is closed
    angles = SO2().element(degrees=[45.0 * i for i in chosen])
    assert Members.of(angles).is_group is closed


def test_grids():
    assert Arc(90).grid(3).value.tolist() == pytest.approx([3 * math.pi / 2, 0, math.pi / 2])
    full = Arc(180).grid(8)
    assert len(Members.of(full).values) == 8  # the ends of the circle are one
    assert Members.of(full).is_group
    assert len(Arc(20, O2()).grid(5)) == 10
    assert len(Arc(90).grid()) == 37
    assert len(Arc(180).grid()) == 72
    assert Window(Affine(), (0.1, 0.1, 0.2, 0.3, 0.0, 0.0)).grid(3).shape == (81,)
    assert Window(Translation(), 0.2).grid(3)[4].is_identity()
    assert Ladder(0.25, 4.0, 9).grid(3).value.exp().tolist() == pytest.approx([0.25, 1.0, 4.0])
    assert Ladder(1.0, 1.0, 1).is_group


def test_lists_count_equal_elements_once():
    members = Members.of(SO2().element(degrees=[0.0, 360.0, 90.0, -270.0, 10.0]))
    assert [round(math.degrees(v)) for v in members.values] == [0, 90, 10]


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: Arc(200), ValueError, r"degrees must lie in \[0, 180\], got 200"),
        (lambda: Arc(90, Cyclic(8)), TypeError, "list elements of a finite group with Members"),
        (lambda: Ladder(2.0, 1.0, 3), ValueError, "smallest <= largest, got 2.0 and 1.0"),
        (lambda: Ladder(1.0, 2.0, 0), ValueError, "steps must be at least 1, got 0"),
        (lambda: Window(Cyclic(4), 1.0), TypeError, "list elements with Members"),
        (lambda: Window(Translation(), (1.0,)), ValueError, "reach must be one number or 2 for translation"),
        (lambda: Window(Scale(), -1.0), ValueError, "must not be negative"),
        (lambda: Members.of(Cyclic(4).identity(0)), ValueError, "at least one element"),
        (
            lambda: Arc(90).contains(Cyclic(4).elements()),
            ValueError,
            "g must be an element of SO2, got one of C4",
        ),
        (lambda: Arc(90).grid(0), ValueError, "n must be at least 1, got 0"),
    ],
)
def test_errors(make, error, match):
    with pytest.raises(error, match=match):
        make()


def test_the_page_runs():
    page = (Path(__file__).parents[1] / "docs" / "groups.md").read_text().partition("## Add a group")[0]
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names = {}
    for block in blocks:
        exec(compile(block, "groups.md", "exec"), names)
    assert len(blocks) == 5
    assert (names["coordinates"].grad != 0).all()


def test_exp_is_differentiable_where_it_matters():
    for group in GROUPS:
        assert isinstance(group, LieGroup)
        c = torch.zeros(3, group.coordinates, requires_grad=True)  # float32 is taken too
        group.exp(c).matrix().square().sum().backward()
        assert c.grad.isfinite().all()
