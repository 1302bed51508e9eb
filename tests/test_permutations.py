"""Permutations: laws, actions row by row, the sorted order, and models that read members in order."""

import itertools
import re
from pathlib import Path

import pytest
import torch
from torch import nn

import upright
from cases import name
from upright import Cloud, Element, Image, Pairs, Permutations, Rows, Vectors, act
from upright.actions import registered_kinds
from upright.actions.permutations import reorder
from upright.canonicalizers import SortedOrder
from upright.kinds import Invariant
from upright.testing import assert_action, assert_group, assert_round_trip

KINDS = [kind for kind in registered_kinds(Permutations(5)) if kind is not Invariant]


class Backwards(Permutations):
    """First g, then h."""

    def compose(self, g, h):
        return super().compose(h, g)


class KeepsInverse(Permutations):
    """No permutation is undone."""

    def inverse(self, g):
        return g


class Transposed(Permutations):
    """Rows move instead of columns."""

    def matrix(self, g, dtype=torch.float64):
        return super().matrix(g, dtype).mT


class NeverMoves(Permutations):
    """The sampler draws the identity only."""

    def sample(self, *shape, generator=None, device=None):
        return self.identity(*shape, device=device)


class CountsPairs(Permutations):
    """No metric: half of the distance is lost where the second is the identity."""

    def distance(self, g, h):
        return super().distance(g, h) * (1 + (h.value == torch.arange(self.n)).all(-1))


@pytest.mark.parametrize("n", [2, 3, 5, 30])
def test_laws_of_the_group(n):
    assert_group(Permutations(n))


@pytest.mark.parametrize("wrong", [Backwards, KeepsInverse, Transposed, NeverMoves, CountsPairs])
def test_wrong_groups_are_caught(wrong):
    with pytest.raises(AssertionError):
        assert_group(wrong(4))


@pytest.mark.parametrize("kind", KINDS, ids=name)
def test_laws_of_the_actions(kind):
    assert_action(Permutations(5), kind, samples=16)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (Rows, lambda g, x: reorder(~g, x, -2)),
        (Pairs, lambda g, x: reorder(g, x, -2)),  # obeys the laws of an action: caught by the graph below
        (Cloud, lambda g, x: x.replace(data=x.data.gather(1, g.value[..., None].expand(x.data.shape)))),
    ],
)
def test_wrong_actions_are_caught(kind, wrong):
    def act_on(g, x):
        if isinstance(x, list):
            return [act_on(g[i], entry) for i, entry in enumerate(x)]
        if g.shape:
            return wrong(g, x)
        alone = wrong(g.reshape(1).expand(1), x.replace(data=x.data.unsqueeze(0)))
        return alone.replace(data=alone.data.squeeze(0))

    if kind is Pairs:
        with pytest.raises(AssertionError):
            check_degrees(wrong)
    else:
        with pytest.raises(AssertionError):
            assert_action(Permutations(5), kind, act=act_on, samples=16)


def check_degrees(move):
    """The degree of each node of a directed graph goes with the node, out and in."""
    generator = torch.Generator().manual_seed(0)
    edges = (torch.rand(4, 6, 6, generator=generator) < 0.4).long()
    g = Permutations(6).sample(4, generator=generator)
    moved = move(g, Pairs(edges)).data
    for axis in (1, 2):
        assert torch.equal(moved.sum(axis), act(g, Rows(edges.sum(axis))).data)


def test_rows_and_pairs_as_loops():
    check_degrees(act)
    x = torch.arange(2 * 3 * 3 * 2).view(2, 3, 3, 2)
    for places in itertools.permutations(range(3)):
        g = Permutations(3).element(places)
        pairs, rows = act(g, Pairs(x, inner=1)).data, act(g, Rows(x[..., 0], inner=1)).data
        matrix = g.matrix(torch.int64)
        for b, i in itertools.product(range(2), range(3)):
            assert torch.equal(rows[b, places[i]], x[b, i, :, 0])
            assert torch.equal(rows[b], matrix @ x[b, ..., 0])
            for j in range(3):
                assert torch.equal(pairs[b, places[i], places[j]], x[b, i, j])
    bools = act(Permutations(3).element([1, 2, 0]), Rows(torch.tensor([[True, False, False]]))).data
    assert bools.tolist() == [[False, True, False]]


def systems(batch, n, seed=0):
    return torch.randn(batch, n, 3, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("batch", "n"), [(1, 1), (4, 5), (3, 40), (0, 3)])
def test_sorted_order_is_canonical(batch, n):
    """The form is the same, bit for bit, and Python's sort."""
    x = systems(batch, n).mul(2).round()  # with many equal coordinates, and equal points
    c = SortedOrder(Permutations(n))
    g = c.group.sample(batch, generator=torch.Generator().manual_seed(1))
    form = act(~c(x).element, Cloud(x)).data
    moved = act(g, Cloud(x)).data
    assert torch.equal(act(~c(moved).element, Cloud(moved)).data, form)
    assert form.tolist() == [sorted(cloud) for cloud in x.tolist()]
    y = systems(batch, n)
    assert c(act(g, Cloud(y)).data).element.equals(g @ c(y).element).all()
    assert c([cloud for cloud in y]).element.equals(c(y).element).all()


class Ordered(nn.Module):
    """Reads members in order, their labels and their bonds; answers one arrow a member, and a number."""

    def __init__(self, n):
        super().__init__()
        self.n, self.mix = n, nn.Linear(n * (7 + n), 4 * n)

    def forward(self, positions, velocities, charges, bonds):
        rows = torch.cat([positions, velocities, charges.unsqueeze(-1), bonds], -1).flatten(1)
        forces, charges = self.mix(rows).tanh().split([3 * self.n, self.n], -1)
        energy = rows.cos() @ self.mix.weight[0]
        return {"forces": forces.unflatten(-1, (-1, 3)), "charges": charges, "energy": energy}


KINDS_OF = {"positions": "cloud", "velocities": "point_vectors", "charges": "rows", "bonds": "pairs"}
RETURNS = {"forces": "vectors", "charges": "rows", "energy": "invariant"}


@pytest.mark.parametrize("spatial", [False, True])
def test_models_that_read_in_order_are_adapted(spatial):
    torch.manual_seed(0)
    bare = Ordered(4)
    robust = upright.adapt(bare, "S4", inputs=KINDS_OF, outputs=RETURNS)
    limit = 0.0
    if spatial:
        robust = upright.adapt(robust, "E3", canonicalizer="pca", inputs=KINDS_OF, outputs=RETURNS)
        limit = 1e-5
    x, v, q, bonds = systems(6, 4), systems(6, 4, 1), systems(6, 4, 2)[..., 0], torch.randn(6, 4, 4)
    values = Cloud(x), Vectors(v), Rows(q), Pairs(bonds)
    g = Permutations(4).sample(6, generator=torch.Generator().manual_seed(3))
    there = act(g, values)
    turned = (list(k.data for k in there)) if not spatial else None
    e = upright.E3().sample(6, generator=torch.Generator().manual_seed(4)) if spatial else None
    if spatial:
        turned = [act(e, there[0]).data, act(e, there[1]).data, there[2].data, there[3].data]
    with torch.no_grad():
        before, after = robust(*(k.data for k in values)), robust(*turned)
        raw = bare(*(k.data for k in there))["energy"] - bare(*(k.data for k in values))["energy"]
    forces = act(g, Vectors(before["forces"]))
    forces = act(e, forces).data if spatial else forces.data
    assert (after["forces"] - forces).abs().max() <= limit
    assert (after["charges"] - act(g, Rows(before["charges"])).data).abs().max() <= limit
    assert (after["energy"] - before["energy"]).abs().max() <= limit
    assert raw.abs().max() > 1e-2


def test_members_at_one_place_are_told_apart_by_their_arrows():
    robust = upright.adapt(Ordered(4), "S4", inputs=KINDS_OF, outputs=RETURNS)
    x, v, q, bonds = systems(6, 4) * 0, systems(6, 4, 1).round(), torch.ones(6, 4), torch.ones(6, 4, 4)
    v[:, 1:3] = torch.tensor([[1.0, 2, 3], [1, 2, 4]])  # told apart by the last number only
    g = Permutations(4).sample(6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before, after = robust(x, v, q, bonds), robust(x, act(g, Vectors(v)).data, q, bonds)
    assert torch.equal(after["energy"], before["energy"])
    assert torch.equal(after["forces"], act(g, Vectors(before["forces"])).data)


def test_page():
    """What ``docs/space.md`` shows of order."""
    page = (Path(__file__).parents[1] / "docs" / "space.md").read_text()
    section = page.split("\n## Order\n")[1].split("\n## ")[0]
    (block,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    names = {"upright": upright, "model": Ordered(5)}
    exec(compile(block, "space.md", "exec"), names)
    x, v, q, bonds = systems(2, 5), systems(2, 5, 1), torch.ones(2, 5), torch.ones(2, 5, 5)
    assert torch.equal(names["robust"](x, v, q, bonds)["energy"],
                       names["robust"](x.flip(1), v.flip(1), q, bonds)["energy"])  # fmt: skip


def test_names_and_saving(tmp_path):
    assert upright.parse_group("s12") == Permutations(12)
    assert str(Permutations(12)) == "S12"
    c = upright.canonicalizer("S5")
    assert isinstance(c, SortedOrder)
    assert_round_trip(c, tmp_path / "order")
    assert isinstance(upright.adapt(nn.Identity(), "S5", canonicalizer="sorted").canonicalizer, SortedOrder)


def test_mistakes_are_told():
    g = Permutations(3)
    with pytest.raises(ValueError, match="n must be positive, got 0"):
        Permutations(0)
    with pytest.raises(ValueError, match=r"each of 0 … 2 once, got \[0, 0, 1\]"):
        g.element([0, 0, 1])
    with pytest.raises(TypeError, match="places must be integers"):
        g.element([0.0, 1.0, 2.0])
    with pytest.raises(ValueError, match=r"Cloud.data must have 3 members .* got shape \(1, 4, 3\)"):
        act(g.identity(1), Cloud(torch.zeros(1, 4, 3)))
    with pytest.raises(ValueError, match=r"Pairs.data must have 3 members .* got shape \(1, 3\)"):
        act(g.identity(1), Pairs(torch.zeros(1, 3)))
    with pytest.raises(TypeError, match="no action of Permutations on Image"):
        act(g.identity(1), Image(torch.zeros(1, 3, 4, 4)))
    with pytest.raises(TypeError, match="'S<n>' for SortedOrder, got SO3"):
        SortedOrder("SO3")
    with pytest.raises(ValueError, match=r"clouds must have 3 points, got shapes \[\(4, 3\)\]"):
        SortedOrder("S3")(torch.zeros(2, 4, 3))
    with pytest.raises(ValueError, match=r"got shapes \[\(4, 3\)\]"):
        SortedOrder("S3")(torch.zeros(0, 4, 3))
    with pytest.raises(ValueError, match="got nan"):
        SortedOrder("S2")(torch.full((1, 2, 3), torch.nan))
    assert Element(g, torch.tensor([0, 1, 2])).is_identity()
