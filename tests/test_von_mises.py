"""Priors on continuous groups: densities that arithmetic gives, and estimates that find what was drawn."""

import math

import pytest
import torch

from upright import (
    O2,
    SO2,
    CategoricalPrior,
    Cyclic,
    Dihedral,
    Element,
    IdentityPrior,
    Pose,
    UniformPrior,
    VonMisesPrior,
)
from upright.losses import prior_loss

CELLS = SO2().element(degrees=torch.arange(0, 360, 5))


def probabilities(prior, elements=CELLS):
    return torch.softmax(prior.log_density(elements).double(), -1)


def test_density_against_scipy():
    stats = pytest.importorskip("scipy.stats")
    found = probabilities(VonMisesPrior(30.0, 7.0))
    wanted = torch.tensor(stats.vonmises.pdf(CELLS.value.numpy(), 7.0, loc=math.radians(30.0)))
    torch.testing.assert_close(found, wanted / wanted.sum(), atol=1e-6, rtol=0)


def test_on_finite_groups_it_is_the_density_at_their_elements():
    log_probs = VonMisesPrior(90.0, 2.0).log_probs(Cyclic(4))
    wanted = torch.log_softmax(torch.tensor([0.0, 2.0, 0.0, -2.0]), -1)
    torch.testing.assert_close(log_probs, wanted)
    assert torch.isneginf(VonMisesPrior().log_probs(Dihedral(4))[4:]).all()


def test_no_reflection_is_likely():
    elements = O2().element(degrees=torch.tensor([0.0, 0.0, 180.0]), reflected=torch.tensor([0, 1, 0]))
    assert probabilities(VonMisesPrior(0.0, 1.0), elements)[1] == 0
    assert probabilities(IdentityPrior(), elements).tolist() == pytest.approx([1, 0, 0], abs=1e-6)


@pytest.mark.parametrize(("mean", "concentration"), [(0.0, 0.5), (200.0, 5.0), (-20.0, 100.0)])
def test_estimates_find_what_was_drawn(mean, concentration):
    torch.manual_seed(0)
    drawn = torch.distributions.VonMises(
        torch.tensor(math.radians(mean)), torch.tensor(concentration)
    ).sample((20000,))
    found = VonMisesPrior.estimate(SO2().element(drawn.double()))
    away = (found.mean_degrees - mean + 180) % 360 - 180
    assert abs(away) < 4 * math.degrees(1 / math.sqrt(20000 * concentration)) * 2
    assert found.concentration == pytest.approx(concentration, rel=0.06)


def test_estimates_from_poses_count_candidates_by_their_probability():
    listed = SO2().element(degrees=torch.tensor([[10.0, 100.0]]))
    pose = Pose(listed[:, 0], torch.tensor([[0.5, 0.5]]).log(), candidates=listed)
    assert VonMisesPrior.estimate([pose]).mean_degrees == pytest.approx(55.0)


def test_estimates_ignore_reflections_and_stay_finite():
    elements = O2().element(degrees=torch.tensor([15.0, 15.0, 170.0]), reflected=torch.tensor([0, 0, 1]))
    found = VonMisesPrior.estimate(elements)
    assert found.mean_degrees == pytest.approx(15.0)
    assert 9_000 < found.concentration <= 10_000
    with pytest.raises(ValueError, match="poses must hold at least one rotation"):
        VonMisesPrior.estimate(elements[2:])


def test_an_arc():
    inside = probabilities(UniformPrior(max_degrees=90)) > 0
    degrees = torch.arange(0, 360, 5)
    assert torch.equal(inside, (degrees <= 90) | (degrees >= 270))
    assert not bool(
        (
            probabilities(UniformPrior(max_degrees=90), O2().element(degrees=0.0, reflected=True).expand(1))
            > 0
        ).any()
    )


def test_prior_loss_is_the_divergence():
    """On the grid of the density; also where each picture has a grid of its own."""
    log_q = torch.log_softmax(torch.randn(3, 72), -1)
    pose = Pose(CELLS[:3], None, grid=CELLS, log_density=log_q)
    p = probabilities(VonMisesPrior(40.0, 9.0))
    wanted = (p * (p.log() - log_q.double())).sum(-1).mean()
    torch.testing.assert_close(prior_loss(pose, VonMisesPrior(40.0, 9.0)).double(), wanted, atol=1e-4, rtol=0)
    moved = Pose(CELLS[:3], None, grid=SO2().element(degrees=40.0) @ CELLS.expand(3, 72), log_density=log_q)
    torch.testing.assert_close(
        prior_loss(moved, VonMisesPrior(80.0, 9.0)).double(), wanted, atol=1e-4, rtol=0
    )


@pytest.mark.parametrize(
    ("arguments", "match"),
    [((0.0, -1.0), "concentration must be at least 0"), ((math.nan, 1.0), "mean_degrees must be finite")],
)
def test_errors(arguments, match):
    with pytest.raises(ValueError, match=match):
        VonMisesPrior(*arguments)


def test_priors_that_have_no_density_say_so():
    with pytest.raises(TypeError, match="CategoricalPrior has no density on SO2"):
        CategoricalPrior([1, 1]).log_density(CELLS)
    with pytest.raises(TypeError, match="indices need a finite group, got SO2; use max_degrees"):
        UniformPrior(indices=(0,)).log_density(CELLS)
    assert isinstance(CELLS, Element)
