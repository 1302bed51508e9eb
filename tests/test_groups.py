"""Groups obey their laws; their matrices are those of rotations and reflections, found independently."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from torch.utils import _pytree as pytree

from cases import GROUPS, name
from upright import Cyclic, Dihedral, Element, parse_group
from upright.testing import assert_group


@pytest.mark.parametrize("group", GROUPS, ids=name)
def test_laws(group):
    assert_group(group)


@pytest.mark.parametrize(
    "group", [Cyclic(1), Cyclic(8), Cyclic(5), Dihedral(1), Dihedral(4), Dihedral(7)], ids=name
)
def test_matrices_flip_first_and_turn_counter_clockwise_on_a_canvas_with_y_down(group):
    for i in range(group.order):
        angle, flipped = 2 * math.pi * (i % group.n) / group.n, i >= group.n
        turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        expected = turn @ np.diag([-1.0 if flipped else 1.0, 1.0])
        np.testing.assert_allclose(group.element(i).matrix().numpy(), expected, atol=1e-15)
        assert group.is_reflected(group.element(i)).item() == (np.linalg.det(expected) < 0)


@pytest.mark.parametrize("group", [Cyclic(6), Dihedral(3), Dihedral(4)], ids=name)
def test_composition_table_is_that_of_the_matrices(group):
    matrices = [group.element(i).matrix().numpy() for i in range(group.order)]
    for i, a in enumerate(matrices):
        for j, b in enumerate(matrices):
            gaps = [np.abs(a @ b - c).max() for c in matrices]
            assert (group.element(i) @ group.element(j)).value.item() == int(np.argmin(gaps))
        inverse = [np.abs(np.linalg.inv(a) - c).max() for c in matrices]
        assert (~group.element(i)).value.item() == int(np.argmin(inverse))


def test_quarter_turns_have_exact_matrices():
    for group in (Cyclic(4), Dihedral(8)):
        g = group.elements()
        exact = group.quarter_turns(g) >= 0
        entries = g.matrix()[exact].flatten().tolist()
        assert set(entries) <= {0.0, 1.0, -1.0}
        assert int(exact.sum()) == 4 * group.order // group.n


@pytest.mark.parametrize(
    ("group", "exact"), [("C1", True), ("C2", True), ("C3", False), ("D4", True), ("D8", False)]
)
def test_exactness_is_a_fact_of_the_group(group, exact):
    assert parse_group(group).is_exact_on_grid is exact


def test_distance_is_the_angle_between():
    g = Cyclic(8).elements()
    expected = torch.tensor([0, 45, 90, 135, 180, 135, 90, 45.0], dtype=torch.float64).deg2rad()
    torch.testing.assert_close(g.distance(Cyclic(8).identity()), expected)
    assert Dihedral(4).element(0).distance(Dihedral(4).element(4)).item() == math.pi


def test_elements_index_iterate_and_reshape():
    g = Dihedral(4).elements()
    assert len(g) == 8
    assert [int(e.value) for e in g] == list(range(8))
    assert g[2:4].value.tolist() == [2, 3]
    assert g.reshape(2, 4).shape == (2, 4)
    assert g[:1].expand(5).shape == (5,)
    assert Dihedral(4).element(-1).value.item() == 7
    assert repr(Cyclic(4).element(3)) == "Element(C4, 3)"
    with pytest.raises(TypeError, match="no length"):
        len(g[0])


def test_elements_are_values():
    g = Cyclic(4).elements()
    leaves, tree = pytree.tree_flatten(g)
    assert len(leaves) == 1
    assert pytree.tree_unflatten(leaves, tree).group == Cyclic(4)
    for twin in (copy.deepcopy(g), pickle.loads(pickle.dumps(g))):
        assert twin.equals(g).all()
    with pytest.raises(AttributeError):
        g.value = None


def test_algebra_compiles_into_one_graph():
    def product(g, h):
        return g.compose(h.inverse())

    g, h = Dihedral(4).elements(), Dihedral(4).element(torch.arange(8).flip(0))
    compiled = torch.compile(product, fullgraph=True, backend="eager")
    assert compiled(g, h).equals(product(g, h)).all()


@pytest.mark.parametrize("name", ["C4", "c4", " D12 "])
def test_parse(name):
    assert str(parse_group(name)) == name.strip().upper()
    assert parse_group(parse_group(name)) == parse_group(name)


@pytest.mark.parametrize("name", ["", "C", "C0", "C04", "E4", "4", "C4.5", "C-4", None, 4])
def test_parse_errors(name):
    with pytest.raises(ValueError, match=r"unknown group .*expected 'C<n>'"):
        parse_group(name)


def test_construction_errors():
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        Cyclic(0)
    with pytest.raises(TypeError, match="n must be an int, got float"):
        Dihedral(4.0)
    with pytest.raises(TypeError, match="n must be an int, got bool"):
        Cyclic(True)


def test_element_errors():
    with pytest.raises(IndexError, match=r"index must lie in \[-4, 4\) for C4, got values from 4 to 4"):
        Cyclic(4).element(4)
    with pytest.raises(TypeError, match="integer type"):
        Cyclic(4).element(torch.tensor(1.0))
    with pytest.raises(ValueError, match="one group, got C4 and C8"):
        Cyclic(4).element(1) @ Cyclic(8).element(1)
    with pytest.raises(TypeError, match="expected an Element of C4, got int"):
        Cyclic(4).element(1) @ 1


def test_groups_are_hashable_values():
    assert len({Cyclic(4), Cyclic(4), Dihedral(4), parse_group("C4")}) == 2
    assert Cyclic(4) != Dihedral(4)
    with pytest.raises(AttributeError):
        Cyclic(4).n = 8


def test_sampling_follows_generator_and_shape():
    a = Dihedral(4).sample(3, 2, generator=torch.Generator().manual_seed(3))
    b = Dihedral(4).sample(3, 2, generator=torch.Generator().manual_seed(3))
    assert a.shape == (3, 2)
    assert isinstance(a, Element)
    assert a.equals(b).all()
