"""Products of commuting groups obey the laws of their factors."""

import copy
import itertools
import math
import pickle

import numpy as np
import pytest
import torch

import upright
from cases import name
from test_product_canonicalizers import Classifier, oblong
from upright import Boxes, Cyclic, Dihedral, Image, Mask, Points, act
from upright.actions import registered_kinds
from upright.groups import (
    O2,
    SO2,
    Affine,
    Brightness,
    Contrast,
    CyclicHue,
    Element,
    FiniteGroup,
    FiniteProduct,
    Gamma,
    Group,
    Hue,
    LieProduct,
    Product,
    Scale,
    Translation,
    parse_group,
    register_commuting,
    register_group,
)
from upright.groups.product import planar_part
from upright.kinds import RegularField
from upright.testing import (
    assert_action,
    assert_adapted,
    assert_consistent,
    assert_group,
)

EXACT = [Product(Cyclic(4), CyclicHue(3)), Product(Dihedral(4), CyclicHue(3))]
FINITE = [*EXACT, Product(Cyclic(3), CyclicHue(2))]
OTHERS = [
    Product(SO2(), Scale()), Product(Dihedral(4), Gamma()), Product(O2(), Hue(), Contrast()),
    Product(Cyclic(4), Hue(), Brightness()), Product(CyclicHue(3), Gamma()), Product(Scale(), CyclicHue(6)),
]  # fmt: skip
SMALL = {"widths": [6, 8], "strides": [2, 2]}


@pytest.mark.parametrize("group", [*FINITE, *OTHERS], ids=name)
def test_laws(group):
    assert_group(group, samples=64)
    assert parse_group(str(group)) == group


@pytest.mark.parametrize("group", [*EXACT, *OTHERS[1:2], OTHERS[3]], ids=name)
def test_laws_of_the_action(group):
    for kind in registered_kinds(group):
        if kind is not RegularField or isinstance(group, FiniteGroup):
            assert_action(group, kind, samples=8, gradients=kind is Image)


@pytest.mark.parametrize("kind", [Image, Points, Boxes], ids=name)
def test_laws_of_turns_with_scales(kind):
    assert_action(Product(SO2(), Scale()), kind, samples=4, gradients=False, resampling=0.15)


def test_all_kinds_agree():
    assert_consistent(EXACT[0], sizes=((5, 8),))


# --- the algebra


def test_elements_are_numbered_like_the_cells_of_a_table():
    group = Product(Dihedral(4), CyclicHue(3))
    assert isinstance(group, FiniteProduct)
    assert group.orders == (8, 3)
    assert group.order == 24
    for number, (i, j) in enumerate(itertools.product(range(8), range(3))):
        turn, hue = group.parts(group.element(number))
        assert (turn.value.item(), hue.value.item()) == (i, j)
        assert group.joined(Dihedral(4).element(i), CyclicHue(3).element(j)).value.item() == number
    assert group.joined(Dihedral(4).elements().reshape(8, 1), CyclicHue(3).elements()).shape == (8, 3)


def test_parts_of_continuous_products_are_their_values():
    group = Product(Dihedral(4), Gamma(), CyclicHue(3))
    assert not group.is_finite
    g = group.joined(Dihedral(4).element(5), Gamma().element(2.2), CyclicHue(3).element(2))
    assert g.value.tolist() == [5.0, math.log(2.2), 2.0]
    turn, gamma, hue = group.parts(g)
    assert turn.value.dtype == hue.value.dtype == torch.int64
    assert (turn.value.item(), hue.value.item()) == (5, 2)
    assert gamma.value.exp().item() == pytest.approx(2.2)
    assert (g @ ~g).is_identity()
    assert not g.is_identity()


def test_lie_products_have_the_coordinates_of_their_factors(generator):
    group = Product(SO2(), Scale(), Hue())
    assert isinstance(group, LieProduct)
    c = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    g = group.exp(c)
    torch.testing.assert_close(group.log(g), c)
    torch.testing.assert_close(
        g.matrix(), torch.linalg.matrix_exp((c[..., None, None] * group.generators()).sum(1))
    )
    mixed = Product(Dihedral(4), Gamma(), CyclicHue(3))
    assert isinstance(mixed, LieProduct)
    assert mixed.coordinates == 1
    assert mixed.exp(torch.tensor([[0.3]])).value.flatten().tolist() == pytest.approx([0, 0.3, 0])
    torch.testing.assert_close(mixed.log(mixed.exp(c[:, :1])), c[:, :1])
    matrices = torch.linalg.matrix_exp(c[:, :1, None] * mixed.generators())
    torch.testing.assert_close(mixed.exp(c[:, :1]).matrix(), matrices)
    with pytest.raises(ValueError, match="elements of D4 have no logarithm"):
        mixed.log(mixed.joined(Dihedral(4).element(5), Gamma().identity(), CyclicHue(3).identity()))
    x = Image(torch.rand(5, 3, 9, 9, generator=generator, dtype=torch.float64))
    assert torch.autograd.gradcheck(
        lambda c: act(group.exp(c), x).data, (c.requires_grad_(),), fast_mode=True
    )


def test_products_are_values():
    for group in [*FINITE, *OTHERS]:
        twins = [copy.deepcopy(group), pickle.loads(pickle.dumps(group)), Product(*group.factors)]
        assert {group, *twins} == {group}
        assert {type(twin) for twin in twins} == {type(group)}
    assert Product(Product(Cyclic(4), CyclicHue(3)), Gamma()) == Product(Cyclic(4), CyclicHue(3), Gamma())
    assert repr(EXACT[0]).startswith("Product(Cyclic(n=4), CyclicHue(")
    assert EXACT[0].is_exact_on_grid
    assert not FINITE[-1].is_exact_on_grid
    assert not OTHERS[0].is_exact_on_grid


@pytest.mark.parametrize(
    "factors",
    [
        (SO2(), Translation()), (Scale(), Translation()), (Cyclic(4), Cyclic(3)), (Dihedral(4), SO2()),
        (Affine(), Scale()), (Brightness(), Contrast()), (Brightness(), Gamma()), (Hue(), Gamma()),
        (CyclicHue(12), Gamma()), (Hue(), CyclicHue(3)), (Cyclic(4), CyclicHue(3), CyclicHue(3)),
    ],
    ids=str,
)  # fmt: skip
def test_factors_that_do_not_commute_are_refused(factors):
    with pytest.raises(ValueError, match=r"not known to commute, so they make no Product; Affine\(\)"):
        Product(*factors)


def test_errors():
    with pytest.raises(ValueError, match="two factors or more, got 1"):
        Product(Cyclic(4))
    with pytest.raises(TypeError, match="a factor must be a Group, got str"):
        Product("C4", "hue3")
    with pytest.raises(ValueError, match="mean and std must be the same in all factors"):
        Product(Hue(mean=0.5), Brightness())
    with pytest.raises(ValueError, match="the parts must be elements of"):
        EXACT[0].joined(Cyclic(8).element(1), CyclicHue(3).element(1))
    with pytest.raises(ValueError, match="unknown group 'C4xfoo'"):
        parse_group("C4xfoo")
    with pytest.raises(ValueError, match="registered already"):
        register_commuting(CyclicHue, Gamma) or register_commuting(Gamma, CyclicHue)


# --- against NumPy


def check_pixels(act):
    """Flip and turn with NumPy, then roll the channels."""
    x = torch.rand(24, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    group = Product(Dihedral(4), CyclicHue(3))
    moved = act(group.elements(), Image(x)).data
    for number in range(24):
        turn, hue = divmod(number, 3)
        expected = x[number].numpy()[..., ::-1] if turn >= 4 else x[number].numpy()
        expected = np.roll(np.rot90(expected, turn % 4, axes=(-2, -1)), hue, axis=0)
        np.testing.assert_array_equal(moved[number].numpy(), expected)
    mask = (x[:, 0] * 5).long()
    np.testing.assert_array_equal(
        act(group.elements(), Mask(mask)).data.numpy(),
        act(group.parts(group.elements())[0], Mask(mask)).data.numpy(),
    )


def without_the_last_factor(g, x):
    return act(g.group.parts(g)[0], x) if isinstance(g.group, Product) else act(g, x)


def without_the_first_factor(g, x):
    return act(g.group.parts(g)[-1], x) if isinstance(g.group, Product) else act(g, x)


def numbered_the_other_way(g, x):
    if not isinstance(g.group, Product):
        return act(g, x)
    first = g.group.orders[0]
    parts = (Element(g.group.factors[0], g.value % first), Element(g.group.factors[1], g.value // first))
    return act(parts[1], act(parts[0], x))


def test_pixels_are_numpys():
    check_pixels(act)


@pytest.mark.parametrize(
    "mutant",
    [without_the_last_factor, without_the_first_factor, numbered_the_other_way],
    ids=lambda f: f.__name__,
)
def test_mutants(mutant):
    with pytest.raises(AssertionError):
        check_pixels(mutant)


class ComposedInTheWrongOrder(FiniteProduct):
    """``g @ h`` is ``h`` after ``g``: the same where factors are commutative, not for flips."""

    def compose(self, g, h):
        return super().compose(h, g)


class InverseOfOneFactor(FiniteProduct):
    """Only the last part is undone."""

    def inverse(self, g):
        *parts, last = self.parts(g)
        return self.joined(*parts, last.inverse())


class OneFactorInTheMatrix(FiniteProduct):
    """A factor is dropped from the matrices, so that they tell fewer elements apart."""

    def matrix(self, g, dtype=torch.float64):
        full = super().matrix(g, dtype).clone()
        full[..., 2:, 2:] = torch.eye(3, dtype=dtype)
        return full


@pytest.mark.parametrize("mutant", [ComposedInTheWrongOrder, InverseOfOneFactor, OneFactorInTheMatrix])
def test_group_mutants(mutant):
    assert_group(FiniteProduct(Dihedral(4), CyclicHue(3)))
    with pytest.raises(AssertionError):
        assert_group(mutant(Dihedral(4), CyclicHue(3)))


def test_the_action_catches_a_wrong_order():
    with pytest.raises(AssertionError, match="act"):
        assert_action(ComposedInTheWrongOrder(Dihedral(4), CyclicHue(3)), Image)


def test_turns_with_scales_resample_once(generator):
    """Two moves in a row would blur twice."""
    group, x = Product(SO2(), Scale()), Image(torch.rand(3, 1, 16, 16, generator=generator))
    g = group.joined(SO2().element(degrees=[20.0, 45, 70]), Scale().element([1.3, 0.8, 1.0]))
    matrix = SO2().element(degrees=[20.0, 45, 70]).matrix() * torch.tensor([1.3, 0.8, 1.0]).view(3, 1, 1)
    once = Affine().element(torch.cat([matrix, torch.zeros(3, 2, 1)], -1))
    torch.testing.assert_close(act(g, x).data, act(once, x).data, atol=1e-6, rtol=0)
    assert planar_part(g) is None
    hues = Product(Cyclic(4), CyclicHue(3))
    assert planar_part(hues.element(7)).value.item() == 2


# --- groups of one's own


class Swap(FiniteGroup):
    """Red and blue change places: a group of one's own, of which nothing is known."""

    order = 2
    dimension = 3

    def compose(self, g, h):
        return Element(self, g.value ^ h.value)

    def inverse(self, g):
        return g

    def matrix(self, g, dtype=torch.float64):
        unit = torch.eye(3, dtype=dtype)
        return torch.stack([unit, unit.flip(0)])[g.value]

    def distance(self, g, h):
        return (g.value ^ h.value).double()

    def __eq__(self, other):
        return isinstance(other, Swap)

    def __hash__(self):
        return hash("Swap")

    def __str__(self):
        return "swap"


def _per_picture(which, data):
    return which.view(-1, *[1] * (data.ndim - 1))


def test_groups_of_ones_own():
    upright.register_action(Swap, Image)(
        lambda g, x: x.replace(data=torch.where(_per_picture(g.value == 1, x.data), x.data.flip(-3), x.data))
    )
    assert_group(Swap())
    assert_action(Swap(), Image)
    with pytest.raises(ValueError, match="not known to commute"):
        Product(Cyclic(4), Swap())
    register_commuting(Group, Swap)
    register_group(Swap())
    assert str(parse_group("C4xswap")) == "C4xswap"
    with pytest.raises(ValueError, match="the name 'C4' means"):
        register_group(type("C4", (Swap,), {"__str__": lambda self: "C4"})())
    c = upright.canonicalizer("C4xswap", size=12, options=SMALL)
    assert_adapted(Classifier(), c, oblong, trials=1)
