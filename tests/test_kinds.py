"""Kinds are values: frozen, seen through by pytrees and export, and every one is covered by the checks."""

import dataclasses
import inspect

import pytest
import torch
from torch.utils import _pytree as pytree

from cases import EXACT, GROUPS, KINDS, name
from upright import Boxes, Cyclic, Image, Invariant, Points, act, kinds
from upright.adapter.spec import KINDS as NAMES
from upright.testing import EXAMPLES, MARKS, example


def test_every_kind_has_a_name_an_example_and_a_mark():
    defined = {k for _, k in inspect.getmembers(kinds, inspect.isclass) if issubclass(k, kinds.Kind)} - {
        kinds.Kind
    }
    assert defined == set(NAMES.values())
    assert set(KINDS) | {kinds.Logits} >= defined
    assert set(EXAMPLES) >= defined
    assert {k for k in defined if not issubclass(k, Invariant)} <= set(MARKS)


@pytest.mark.parametrize("kind", KINDS, ids=name)
def test_pytree_round_trip(kind):
    x = example(kind, GROUPS[0])
    leaves, tree = pytree.tree_flatten(x)
    assert len(leaves) == 1
    assert leaves[0] is x.data
    doubled = pytree.tree_map(lambda t: t * 2, x)
    assert type(doubled) is kind
    torch.testing.assert_close(doubled.data, x.data * 2)
    constants = [f.name for f in dataclasses.fields(x) if f.metadata.get("static")]
    assert all(getattr(doubled, c) == getattr(x, c) for c in constants)
    assert pytree.tree_unflatten(leaves, tree).data is x.data


@pytest.mark.parametrize("kind", KINDS, ids=name)
def test_frozen_and_replaceable(kind):
    x = example(kind, EXACT[0])
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
