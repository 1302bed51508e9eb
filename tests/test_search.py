"""Searches find the pose of least energy, within bounds of memory, and count what they cost.

References: brute force over the group, and pictures whose pose is known.
"""

import math

import pytest
import torch
from torch import nn

import upright
from upright.canonicalizers import EnergyCanonicalizer
from upright.energies import Entropy, LogitEnergy, energies_at
from upright.groups.subset import Arc
from upright.search import BayesianSearch, GradientSearch, Grid, RandomSearch
from upright.testing import assert_adapted, assert_canonical

SO2 = upright.SO2()


def bright_on_top(x):
    """Energy whose least value is where the picture's brightness lies straight above the centre."""
    height, width = x.shape[-2:]
    rows = torch.arange(height) - (height - 1) / 2
    columns = torch.arange(width) - (width - 1) / 2
    mass = x.mean(1)
    right, down = (mass * columns).mean((1, 2)), (mass * rows[:, None]).mean((1, 2))
    return down / (right**2 + down**2).sqrt().clamp(min=1e-9)  # minus the cosine to "up"


def blobs(degrees, side=25):
    """Pictures of a soft spot above the centre, turned by angles."""
    rows = torch.arange(side) - (side - 1) / 2
    angle = torch.deg2rad(torch.as_tensor(degrees).double())[:, None, None]
    x, y = -7 * angle.sin(), -7 * angle.cos()
    return torch.exp(-((rows - x) ** 2 + (rows[:, None] - y) ** 2) / 8).unsqueeze(1).float()


def pictures(batch, generator):
    return upright.Image(torch.rand(batch, 1, 9, 9, generator=generator))


class Scorer(nn.Module):
    """A model without any symmetry that counts what it is asked."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(1, 4, 3)
        self.asked = []

    def forward(self, x):
        self.asked.append(len(x))
        features = self.layer(x.to(self.layer.weight.dtype)).tanh()
        weight = (
            torch.linspace(0.5, 1.5, features.shape[-1]) * torch.linspace(-1, 2, features.shape[-2])[:, None]
        )
        return 5 * (features * weight).mean((2, 3))


@pytest.fixture(name="model")
def scorer():
    return Scorer().eval()


@pytest.mark.parametrize("group", ["C4", "D4", "C8"])
def test_chooses_the_least_energy_of_the_pictures_turned_back(group, model):
    x, energy = torch.rand(4, 1, 9, 9), LogitEnergy(model)
    pose = EnergyCanonicalizer(energy, group)(x)
    with torch.no_grad():
        brute = torch.stack(
            [energy(upright.act(~g, upright.Image(x)).data) for g in pose.group.elements()], 1
        )
    assert torch.equal(pose.element.value, brute.argmin(1))
    torch.testing.assert_close(pose.log_probs, torch.log_softmax(-brute, 1), atol=1e-5, rtol=1e-4)
    assert pose.candidates is None


@pytest.mark.parametrize("group", ["C4", "D4"])
def test_equivariance_is_exact_on_the_grid(group, model):
    c = EnergyCanonicalizer(Entropy(model), group)
    assert_canonical(c, group, pictures)
    x = torch.rand(3, 1, 8, 11)
    first = c(x)
    for g in c.group.elements():
        moved = c(upright.act(g, upright.Image(x)).data)
        assert bool(moved.element.equals(g.compose(first.element)).all())
    lists = c([x[0], x[1].rot90(1, (1, 2))])
    assert bool(lists.element.equals(c.group.element(torch.tensor([0, 1])) @ first.element[:2]).all())


def test_adapted_by_name_and_saved(model, tmp_path):
    robust = upright.adapt(model, "C4", canonicalizer="energy")
    x = torch.rand(3, 1, 9, 9)
    assert torch.equal(robust(x), robust(x.rot90(1, (2, 3))))
    robust.canonicalizer.calibrate([x])
    robust.save_pretrained(tmp_path / "a")
    loaded = upright.load(tmp_path / "a", model=model)
    torch.testing.assert_close(loaded.pose(x).log_probs, robust.pose(x).log_probs)
    assert not list(robust.canonicalizer.parameters())  # the model is no part of it
    by_hand = upright.adapt(model, "SO2", canonicalizer=EnergyCanonicalizer("entropy", "SO2", Grid(6)))
    by_hand.save_pretrained(tmp_path / "b")
    assert upright.load(tmp_path / "b", model=model).canonicalizer.search == Grid(6)
    own = upright.adapt(model, "C4", canonicalizer=EnergyCanonicalizer(bright_on_top, "C4"))
    own.save_pretrained(tmp_path / "c")
    with pytest.raises(upright.hub.LoadError, match="build it yourself and pass it as canonicalizer"):
        upright.load(tmp_path / "c", model=model)


def test_laws_of_the_adapted_model(model):
    assert_adapted(model, EnergyCanonicalizer(LogitEnergy(model), "C4"), pictures, redraw=False)


@pytest.mark.parametrize(
    ("search", "group"),
    [(None, "C4"), (Grid(10), "SO2"), (RandomSearch(6, 2, 3), "SO2"), (GradientSearch(6, 2, 3), "SO2")],
)
def test_calls_are_counted_and_memory_is_bounded(search, group, model):
    energy = Entropy(model) + 0.1 * LogitEnergy(model)
    c = EnergyCanonicalizer(energy, group, search, chunk=5)
    pose = c(torch.rand(3, 1, 9, 9))
    assert int(pose.calls.sum()) == sum(model.asked) > 0
    assert len(set(pose.calls.tolist())) == 1
    assert pose.calls.dtype == torch.int64
    assert max(model.asked) <= 5
    twice = EnergyCanonicalizer(energy + Entropy(Scorer()), group, search)(torch.rand(3, 1, 9, 9))
    assert torch.equal(twice.calls, 2 * pose.calls)


SEARCHES = [
    (Grid(36), 5.1),
    (RandomSearch(12, 4, 8), 2.0),
    (GradientSearch(8, 2, 12, learning_rate=0.15), 2.0),
]


@pytest.mark.parametrize(("search", "tolerance"), SEARCHES)
def test_finds_the_angle(search, tolerance):
    degrees = torch.tensor([0.0, 33.0, 170.0, 289.0])
    c = EnergyCanonicalizer(bright_on_top, "SO2", search, temperature=0.01)
    pose, again = c(blobs(degrees)), c(blobs(degrees))
    away = torch.rad2deg(pose.element.distance(SO2.element(degrees=degrees)))
    assert float(away.max()) < tolerance
    assert torch.equal(pose.element.value, again.element.value)
    assert torch.equal(pose.candidates[:, 0].value, pose.element.value)
    torch.testing.assert_close(pose.probs.sum(1), torch.ones(4))
    assert torch.equal(pose.log_probs.argmax(1), torch.zeros(4, dtype=torch.long))
    assert len(set(pose.candidates.value[1].tolist())) == pose.candidates.shape[1]  # none lost, none twice


def test_bayesian_search():
    pytest.importorskip("bayes_opt")
    search = BayesianSearch(starts=6, steps=2)
    c = EnergyCanonicalizer(bright_on_top, "SO2", search)
    x = blobs(torch.tensor([75.0]))
    pose = c(x)
    assert pose.calls.tolist() == [8]
    assert torch.equal(pose.element.value, c(x).element.value)
    energies = energies_at(c.energy, x, pose.candidates)
    assert float(energies[0, 0]) == float(energies.min()) < -0.7
    with pytest.raises(ValueError, match="reach must have one entry"):
        EnergyCanonicalizer(bright_on_top, "SO2", BayesianSearch(reach=(1.0, 2.0)))(x)


def test_gradients_beat_the_grid_they_start_from():
    x = blobs(torch.tensor([50.0, 130.0]))
    grid = EnergyCanonicalizer(bright_on_top, "SO2", Grid(8))(x)
    followed = EnergyCanonicalizer(bright_on_top, "SO2", GradientSearch(8, 1, 10))(x)
    true = SO2.element(degrees=torch.tensor([50.0, 130.0]))
    assert bool((followed.element.distance(true) < 0.5 * grid.element.distance(true)).all())
    with pytest.raises(TypeError, match="energy that gradients flow through"):
        EnergyCanonicalizer(lambda x: bright_on_top(x).detach(), "SO2", GradientSearch(4, 1, 1))(x)
    with pytest.raises(TypeError, match="Lie group"):
        EnergyCanonicalizer(bright_on_top, "C4", GradientSearch())(x)


def test_searches_keep_to_a_set():
    x, arc = blobs(torch.tensor([120.0])), Arc(30.0)
    for search in (Grid(7, within=arc), RandomSearch(5, 3, 6, within=arc)):
        pose = EnergyCanonicalizer(bright_on_top, "SO2", search)(x)
        assert float(pose.candidates.distance(SO2.identity()).max()) <= math.radians(30) + 1e-6
        assert float(torch.rad2deg(pose.element.value)) == pytest.approx(30, abs=1)


def test_ties_are_harmless(model):
    flat = torch.full((2, 1, 9, 9), 0.3)
    pose = EnergyCanonicalizer(LogitEnergy(model), "C4")(flat)
    assert bool(pose.is_tied.all())
    assert pose.element.value.tolist() == [0, 0]
    turning = EnergyCanonicalizer(lambda x: torch.zeros(len(x)), "SO2", RandomSearch(4, 1, 2))(flat)
    assert bool(turning.element.is_identity().all())
    assert bool(turning.is_tied.all())
    empty = EnergyCanonicalizer(LogitEnergy(model), "C4")(flat[:0])
    assert empty.element.shape == (0,)
    assert empty.log_probs.shape == (0, 4)


def test_prior_and_learned_posterior_multiply(model):
    x = torch.rand(5, 1, 12, 12)
    learned = upright.canonicalizer("C4", channels=1, size=12).eval()
    alone = EnergyCanonicalizer(Entropy(model), "C4", temperature=0.1)
    both = EnergyCanonicalizer(Entropy(model), "C4", temperature=0.1, learned=learned)
    expected = torch.log_softmax(alone(x).log_probs + learned(x).log_probs, 1)
    torch.testing.assert_close(both(x).log_probs, expected, atol=1e-5, rtol=1e-4)
    prior = upright.CategoricalPrior([0.1, 0.7, 0.1, 0.1])
    under = EnergyCanonicalizer(Entropy(model), "C4", temperature=0.1, prior=prior)
    expected = torch.log_softmax(alone(x).log_probs + prior.log_probs(alone.group), 1)
    torch.testing.assert_close(under(x).log_probs, expected, atol=1e-5, rtol=1e-4)
    assert under(x).calls.tolist() == [4] * 5


def test_calibration_fits_the_temperature():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(200, 1, 6, 6, generator=generator)
    x[:, :, :3] += 0.05
    c = EnergyCanonicalizer(lambda x: -x[:, :, : x.shape[2] // 2].mean((1, 2, 3)), "C4")
    before = -c(x).log_probs[:, 0].mean()
    fitted = c.calibrate(x.split(50))
    after = -c(x).log_probs[:, 0].mean()
    assert float(after) < float(before)
    assert fitted == pytest.approx(float(c.temperature))
    for factor in (0.8, 1.25):
        c.temperature.fill_(fitted * factor)
        assert float(-c(x).log_probs[:, 0].mean()) > float(after)


def test_mistakes_are_named(model):
    with pytest.raises(ValueError, match="there is none yet"):
        EnergyCanonicalizer("logit", "C4")(torch.rand(1, 1, 4, 4))
    with pytest.raises(ValueError, match="energy must be one of 'logit'"):
        EnergyCanonicalizer("heat", "C4")
    with pytest.raises(TypeError, match="search must be a Search"):
        EnergyCanonicalizer("logit", "C4", "grid")
    with pytest.raises(ValueError, match="learned must be a canonicalizer of C4"):
        EnergyCanonicalizer("logit", "C4", learned=upright.canonicalizer("C8"))
    with pytest.raises(ValueError, match="within must be a set of elements of"):
        EnergyCanonicalizer(bright_on_top, "C4", Grid(within=Arc(30.0)))(torch.rand(1, 1, 4, 4))
    with pytest.raises(ValueError, match="need a search"):
        upright.canonicalizer("C4", "energy", options={"count": 3})
