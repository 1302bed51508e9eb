"""Losses have the values of their closed forms, computed here in NumPy or by brute force over the group."""

import math

import numpy as np
import pytest
import torch

from upright import CategoricalPrior, Cyclic, Dihedral, Pose, UniformPrior
from upright.losses import (
    consistency_loss,
    moved_log_probs,
    orthogonality_loss,
    prior_loss,
    score_function_loss,
)


def posterior(batch=5, group=None, requires_grad=False):
    group = group or Cyclic(4)
    scores = torch.randn(batch, group.order, dtype=torch.float64, requires_grad=requires_grad)
    log_probs = torch.log_softmax(scores, -1)
    return scores, Pose(group.element(log_probs.detach().argmax(-1)), log_probs)


def test_prior_loss_of_the_identity_is_cross_entropy():
    scores, pose = posterior()
    expected = torch.nn.functional.cross_entropy(scores, torch.zeros(5, dtype=torch.long))
    torch.testing.assert_close(prior_loss(pose), expected)


@pytest.mark.parametrize(
    "prior", [CategoricalPrior([7, 1, 1, 1]), UniformPrior(max_degrees=90), UniformPrior()]
)
@pytest.mark.parametrize("marginal", [False, True])
def test_prior_loss_is_the_divergence(prior, marginal):
    _, pose = posterior()
    p, q = prior.log_probs(Cyclic(4)).double().exp().numpy(), pose.log_probs.exp().numpy()
    q = q.mean(0, keepdims=True) if marginal else q
    expected = np.mean([sum(a * math.log(a / b) for a, b in zip(p, row, strict=True) if a > 0) for row in q])
    assert prior_loss(pose, prior, marginal=marginal).item() == pytest.approx(expected, rel=1e-6)


def test_prior_loss_vanishes_at_the_prior_and_has_finite_gradients():
    prior = CategoricalPrior([6, 2, 1, 1])
    log_probs = prior.log_probs(Cyclic(4)).double().expand(3, 4)
    assert prior_loss(Pose(Cyclic(4).identity(3), log_probs), prior).item() == pytest.approx(0, abs=1e-7)
    scores, pose = posterior(requires_grad=True)
    prior_loss(pose, UniformPrior(max_degrees=90)).backward()
    assert scores.grad.isfinite().all()
    q = torch.softmax(scores.detach(), -1)
    p = torch.tensor([1 / 3, 1 / 3, 0, 1 / 3])
    torch.testing.assert_close(scores.grad, (q - p) / 5, atol=1e-7, rtol=0)  # d KL / d scores = q - p


def test_prior_loss_needs_a_posterior():
    with pytest.raises(ValueError, match="pose must carry log_probs"):
        prior_loss(Pose(Cyclic(4).identity(3)))


def test_orthogonality_loss_is_the_mean_squared_cosine():
    features = torch.randn(3, 4, 6)
    array, total = features.double().numpy(), []
    for vectors in array:
        for i in range(4):
            for j in range(4):
                if i != j:
                    norms = np.linalg.norm(vectors[i]) * np.linalg.norm(vectors[j])
                    total.append((vectors[i] @ vectors[j] / norms) ** 2)
    assert orthogonality_loss(features).item() == pytest.approx(np.mean(total), rel=1e-5)


def test_orthogonality_loss_at_its_ends():
    assert orthogonality_loss(torch.eye(4)[None] * 3).item() == pytest.approx(0, abs=1e-12)
    assert orthogonality_loss(torch.ones(2, 4, 6)).item() == pytest.approx(1, rel=1e-6)
    assert orthogonality_loss(torch.zeros(2, 4, 6)).item() == 0  # a vector of zeros is orthogonal to all
    assert orthogonality_loss(torch.randn(2, 1, 6)).item() == 0
    with pytest.raises(ValueError, match="must have shape"):
        orthogonality_loss(torch.randn(4, 6))


@pytest.mark.parametrize("group", [Cyclic(4), Dihedral(4)], ids=str)
def test_moved_log_probs_permute_by_the_group(group):
    _, pose = posterior(group.order, group)
    g = group.elements()
    moved = moved_log_probs(pose.log_probs, g)
    for i in range(group.order):
        for h in group.elements():
            to = int((g[i] @ h).value)
            assert moved[i, to] == pose.log_probs[i, int(h.value)]
    best = group.element(moved.argmax(-1))
    assert best.equals(g @ pose.element).all()


def test_consistency_loss_is_jensen_shannon():
    _, first = posterior()
    _, second = posterior()
    p, q = first.log_probs.exp().numpy(), second.log_probs.exp().numpy()
    m = (p + q) / 2
    expected = 0.5 * ((p * np.log(p / m)).sum(1) + (q * np.log(q / m)).sum(1)).mean()
    assert consistency_loss(first, second).item() == pytest.approx(expected, rel=1e-6)
    assert consistency_loss(first, first).item() == pytest.approx(0, abs=1e-7)
    assert consistency_loss(first, second).item() <= math.log(2)


def test_consistency_loss_follows_the_move():
    group = Dihedral(4)
    _, pose = posterior(8, group)
    g = group.elements()
    moved = Pose(g @ pose.element, moved_log_probs(pose.log_probs, g))
    assert consistency_loss(pose, moved, g).item() == pytest.approx(0, abs=1e-7)
    assert consistency_loss(pose, moved).item() > 1e-3


def test_score_function_loss_is_unbiased_in_expectation():
    """Averaged over every pair of draws, its gradient is that of the expected loss."""
    group, count = Cyclic(4), 2
    scores = torch.randn(count, 4, dtype=torch.float64, requires_grad=True)
    costs = torch.rand(count, 4, dtype=torch.float64)
    log_probs = torch.log_softmax(scores, -1)
    (exact,) = torch.autograd.grad((log_probs.exp() * costs).sum(-1).mean(), scores, retain_graph=True)
    estimate = torch.zeros_like(scores)
    for i in range(4):
        for j in range(4):
            drawn = torch.tensor([i, j])
            chance = log_probs.detach().exp().gather(1, drawn[:, None]).prod()
            loss = score_function_loss(
                costs.gather(1, drawn[:, None]).squeeze(1), Pose(group.element(drawn), log_probs)
            )
            (gradient,) = torch.autograd.grad(loss, scores, retain_graph=True)
            estimate += chance * gradient
    torch.testing.assert_close(estimate, exact)


def test_score_function_loss_of_one_input_has_no_baseline():
    _, pose = posterior(1)
    loss = score_function_loss(torch.tensor([2.0], dtype=torch.float64), pose)
    torch.testing.assert_close(loss, 2 * pose.log_prob().squeeze())


def test_losses_are_invariant_under_moves_of_a_uniform_prior():
    group = Dihedral(4)
    _, pose = posterior(8, group)
    moved = Pose(pose.element, moved_log_probs(pose.log_probs, group.elements()))
    torch.testing.assert_close(prior_loss(pose, UniformPrior()), prior_loss(moved, UniformPrior()))
