"""Priors are distributions, with the probabilities that arithmetic gives."""

import math

import pytest
import torch

from upright import CategoricalPrior, Cyclic, Dihedral, IdentityPrior, Pose, UniformPrior


@pytest.mark.parametrize("group", [Cyclic(1), Cyclic(4), Dihedral(4)], ids=str)
@pytest.mark.parametrize(
    "prior", [IdentityPrior(), UniformPrior(), UniformPrior(max_degrees=90), UniformPrior(indices=(0,))]
)
def test_probabilities_sum_to_one(prior, group):
    log_probs = prior.log_probs(group)
    assert log_probs.shape == (group.order,)
    assert log_probs.dtype == torch.float32
    torch.testing.assert_close(log_probs.exp().sum(), torch.tensor(1.0))


def test_identity():
    assert IdentityPrior().log_probs(Cyclic(3)).tolist() == [0.0, -math.inf, -math.inf]


def test_categorical_is_normalised():
    prior = CategoricalPrior([9, 1, 0, 0])
    assert prior.probs == (0.9, 0.1, 0.0, 0.0)
    torch.testing.assert_close(prior.log_probs(Cyclic(4)).exp(), torch.tensor([0.9, 0.1, 0, 0]))
    assert hash(prior) == hash(CategoricalPrior([0.9, 0.1, 0.0, 0.0]))


@pytest.mark.parametrize("probs", [[], [-1, 2], [0, 0], [float("nan"), 1], [float("inf"), 1]])
def test_categorical_errors(probs):
    with pytest.raises(ValueError, match="probs must be non-negative, finite and not all zero"):
        CategoricalPrior(probs)


def test_categorical_of_another_order():
    with pytest.raises(ValueError, match="must have 4 entries for C4, got 2"):
        CategoricalPrior([1, 1]).log_probs(Cyclic(4))


def test_estimate_counts_with_smoothing():
    poses = Cyclic(4).element(torch.tensor([0, 0, 0, 1, 0, 3]))
    assert CategoricalPrior.estimate(poses, smoothing=0.0).probs == pytest.approx((4 / 6, 1 / 6, 0, 1 / 6))
    assert CategoricalPrior.estimate(poses).probs == pytest.approx((5 / 10, 2 / 10, 1 / 10, 2 / 10))


def test_estimate_averages_posteriors():
    probs = torch.tensor([[0.7, 0.1, 0.1, 0.1], [0.1, 0.7, 0.1, 0.1]])
    poses = [Pose(Cyclic(4).element(torch.tensor([0, 1])), probs.log())] * 2
    found = CategoricalPrior.estimate(poses, smoothing=0.0).probs
    assert found == pytest.approx((0.4, 0.4, 0.1, 0.1), abs=1e-6)
    with pytest.raises(ValueError, match="must not be empty"):
        CategoricalPrior.estimate([])


@pytest.mark.parametrize(
    ("group", "degrees", "inside"),
    [
        (Cyclic(4), 90, [0, 1, 3]),
        (Cyclic(4), 89, [0]),
        (Cyclic(8), 45, [0, 1, 7]),
        (Cyclic(4), 180, [0, 1, 2, 3]),
        (Dihedral(4), 180, [0, 1, 2, 3]),
    ],
)
def test_uniform_range_is_a_partial_range_of_angles(group, degrees, inside):
    log_probs = UniformPrior(max_degrees=degrees).log_probs(group)
    assert (log_probs > -math.inf).nonzero().flatten().tolist() == inside
    torch.testing.assert_close(log_probs[inside], torch.full((len(inside),), -math.log(len(inside))))


def test_uniform_subset():
    log_probs = UniformPrior(indices=(0, -1)).log_probs(Dihedral(2))
    assert (log_probs > -math.inf).tolist() == [True, False, False, True]
    with pytest.raises(ValueError, match="must not be empty"):
        UniformPrior(max_degrees=10, indices=(2,)).log_probs(Cyclic(4))
    with pytest.raises(IndexError, match="for C4"):
        UniformPrior(indices=(4,)).log_probs(Cyclic(4))
