"""The public checks in space: what is right passes, and named defects of models of clouds are caught."""

import pytest
import torch
from torch import nn

import space_canonicalizer_mutants as mutants
import upright
from cases import name
from upright import Cloud, Vectors, Volume
from upright.canonicalizers import IdentityCanonicalizer, MinimalFrame, PCAFrame, SortedOrder
from upright.canonicalizers import VectorNeuronCanonicalizer as VectorNeurons
from upright.nets.vector_neurons import VectorLinear
from upright.testing import assert_adapted, assert_canonical, assert_equivariant

SPACE = ("SO3", "O3", "SE3", "E3")


def clouds(batch, generator):
    points = torch.randn(batch, 12, 3, generator=generator, dtype=torch.float64)
    return Cloud(points * torch.tensor([1.0, 0.8, 0.6]).double())


def volumes(batch, generator):
    return Volume(torch.rand(batch, 1, 8, 8, 8, generator=generator))


@pytest.mark.parametrize("group", SPACE)
@pytest.mark.parametrize("finder", [PCAFrame, MinimalFrame, VectorNeurons, mutants.Framed], ids=name)
def test_canonicalizers_of_clouds_are_right(finder, group):
    if finder is mutants.Framed and group in ("O3", "E3"):
        group = "SO3"  # written for rotations
    assert_canonical(finder(group), make_x=clouds)


def test_what_canonicalizers_read_is_drawn_by_default():
    assert_canonical(PCAFrame("SE3"))
    assert_canonical(SortedOrder("S5"))
    assert_canonical(upright.canonicalizer("octahedral", channels=1), make_x=volumes, trials=1)


@pytest.mark.parametrize("group", ["octahedral", "Oh"])
def test_empty_batches_of_volumes_have_no_pose(group):
    assert upright.canonicalizer(group, channels=1)(torch.zeros(0, 1, 8, 8, 8)).element.shape == (0,)


@pytest.mark.parametrize("mutant", mutants.CANONICALIZERS, ids=lambda c: f"{type(c).__name__}-{c.group}")
def test_canonicalizer_mutants(mutant):
    with pytest.raises(AssertionError) as found:
        assert_canonical(mutant)
    assert len(str(found.value)) > 15


def test_inputs_that_all_stand_alike_or_tie_say_nothing():
    def same(batch, generator):
        return Cloud(torch.eye(3, dtype=torch.float64).expand(batch, 3, 3))

    with pytest.raises(AssertionError):  # an equilateral triangle: every pose ties
        assert_canonical(PCAFrame("O3"), make_x=same)


class Arrows(nn.Module):
    """Mixes the points to arrows, weighted by their lengths."""

    def __init__(self, linear):
        super().__init__()
        self.mix = linear(1, 4)

    def forward(self, x):
        return self.mix(((x * x).sum(-1, keepdim=True) * x).mean(1, keepdim=True))


def test_bias_added_to_vectors_is_caught():
    for group in ("SO3", "O3"):
        assert_equivariant(Arrows(VectorLinear), group, clouds, outputs=Vectors)
        with pytest.raises(AssertionError):
            assert_equivariant(Arrows(mutants.BiasedLinear), group, clouds, outputs=Vectors)
    with pytest.raises(AssertionError):  # arrows that are shifted
        assert_equivariant(Arrows(VectorLinear), "SE3", clouds, outputs=Cloud)


def test_order_and_volumes_are_checked():
    assert_equivariant(lambda x: x * x.sum(1, keepdim=True), "S12", clouds, outputs=Cloud)
    assert_equivariant(nn.Conv3d(1, 2, 1), "full octahedral", volumes, outputs=Volume)
    with pytest.raises(AssertionError):
        assert_equivariant(lambda x: x.cumsum(1), "S12", clouds, outputs=Cloud)
    with pytest.raises(AssertionError):
        assert_equivariant(nn.Conv3d(1, 2, 3, padding=1), "full octahedral", volumes, outputs=Volume)


class Predictor(nn.Module):
    """Knows no rotations: forces, moments of inertia, spins and an energy of points and velocities."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(6, 16)

    def forward(self, pos, vel):
        y = self.mix(torch.cat([pos, vel], -1)).tanh()
        tensors = y[..., :9].unflatten(-1, (3, 3))
        return {"forces": y[..., :3], "spins": y[..., 3:6], "tensors": tensors, "energy": y.sum((1, 2))}


KINDS = {"pos": "cloud", "vel": "vectors"}
RETURNS = {"forces": "vectors", "spins": "pseudo_vectors", "tensors": "tensors", "energy": "invariant"}


def call(batch, generator):
    return {
        "pos": clouds(batch, generator).data.float(),
        "vel": torch.randn(batch, 12, 3, generator=generator),
    }


@pytest.mark.parametrize("mode", ["canonical", "weighted"])
@pytest.mark.parametrize("group", SPACE)
def test_adapted_predictors_are_right(group, mode):
    settings = {"inputs": KINDS, "outputs": RETURNS, "tolerance": 1e-4, "trials": 2, "mode": mode}
    assert_adapted(Predictor(), PCAFrame(group), call, **settings)


class InOrder(nn.Linear):
    def forward(self, x):
        return super().forward(x.flatten(1)).tanh().unflatten(1, (-1, 3))


def test_adapted_orders_and_volumes_are_right():
    few = lambda batch, generator: Cloud(clouds(batch, generator).data[:, :4])  # noqa: E731
    assert_adapted(InOrder(12, 12), SortedOrder("S4"), few, outputs="vectors")
    finder = upright.canonicalizer("full octahedral", channels=1)
    oblong = lambda batch, generator: Volume(torch.rand(batch, 1, 8, 10, 8, generator=generator))  # noqa: E731
    for make in (volumes, oblong):
        assert_adapted(
            nn.Conv3d(1, 2, 3, padding=1), finder, make, outputs="volume", trials=1, tolerance=1e-5, batch=4
        )


@pytest.mark.parametrize("mutant", mutants.SEEN_IN_ANSWERS, ids=lambda c: f"{type(c).__name__}-{c.group}")
def test_adapted_catches_canonicalizers_that_are_wrong(mutant):
    with pytest.raises(AssertionError):
        assert_adapted(Predictor(), mutant, call, inputs=KINDS, outputs=RETURNS, tolerance=1e-4)


@pytest.mark.parametrize(("group", "kind"), [*((g, Cloud) for g in (*SPACE, "S12")), ("Oh", Volume)])
def test_the_identity_reads_what_others_read(group, kind):
    still = IdentityCanonicalizer(group)
    assert still.reads is kind
    x = clouds(2, torch.Generator()).data if kind is Cloud else volumes(2, torch.Generator()).data
    robust = upright.adapt(nn.Identity(), group, canonicalizer="identity", outputs=kind)
    assert torch.equal(robust(x), x)
