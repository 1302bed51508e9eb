"""Kinds are values: frozen, seen through by pytrees and export, and every one is covered by the checks."""

import dataclasses
import inspect

import pytest
import torch
from torch.utils import _pytree as pytree

from cases import EXACT, GROUPS, KINDS, name
from upright import Boxes, Cyclic, Image, Invariant, Octahedral, Points, act, kinds, kinds_space
from upright.actions import registered_kinds
from upright.adapter.spec import KINDS as NAMES
from upright.testing import ARROWS, EXAMPLES, MARKS, SPACE_MARKS, example

SPACE = [kind for kind in registered_kinds(Octahedral()) if kind is not Invariant]


def test_every_kind_has_a_name_an_example_and_a_mark():
    plane, space = (
        {k for _, k in inspect.getmembers(module, inspect.isclass) if issubclass(k, kinds.Kind)}
        - {kinds.Kind}
        for module in (kinds, kinds_space)
    )
    assert plane | space == set(NAMES.values())
    assert set(KINDS) | {kinds.Logits} >= plane
    moved = {k for k in space if not issubclass(k, Invariant)}
    assert set(SPACE) == moved
    assert set(EXAMPLES) >= plane | space
    assert {k for k in plane if not issubclass(k, Invariant)} <= set(MARKS)
    assert moved == {*SPACE_MARKS, *ARROWS}


@pytest.mark.parametrize("kind", [*KINDS, *SPACE], ids=name)
def test_pytree_round_trip(kind):
    x = example(kind, Octahedral() if kind in SPACE else GROUPS[0])
    leaves, tree = pytree.tree_flatten(x)
    assert len(leaves) == 1
    assert leaves[0] is x.data
    doubled = pytree.tree_map(lambda t: t * 2, x)
    assert type(doubled) is kind
    torch.testing.assert_close(doubled.data, x.data * 2)
    constants = [f.name for f in dataclasses.fields(x) if f.metadata.get("static")]
    assert all(getattr(doubled, c) == getattr(x, c) for c in constants)
    assert pytree.tree_unflatten(leaves, tree).data is x.data


@pytest.mark.parametrize("kind", [*KINDS, *SPACE], ids=name)
def test_frozen_and_replaceable(kind):
    x = example(kind, Octahedral() if kind in SPACE else EXACT[0])
    with pytest.raises(dataclasses.FrozenInstanceError):
        x.data = None
    other = torch.zeros_like(x.data)
    assert x.replace(data=other).data is other
    assert x.data is not other


def test_compared_by_identity():
    x = Image(torch.zeros(1, 2, 2))
    assert x == x
    assert x != Image(torch.zeros(1, 2, 2))


def test_canvas_is_obligatory_where_it_matters():
    for kind in (Points, Boxes, kinds.OrientedBoxes):
        with pytest.raises(TypeError, match="size"):
            kind(torch.zeros(1, 5))


def test_export_sees_through_kinds_and_elements():
    class Turn(torch.nn.Module):
        def forward(self, image):
            return act(Cyclic(4).element(1), Image(image)).data

    x = torch.rand(2, 3, 6, 6)
    program = torch.export.export(Turn(), (x,))
    assert torch.equal(program.module()(x), torch.rot90(x, 1, (2, 3)))
