"""Canonicalizers bring moved copies to one form, remember nothing, score in float32, carry true gradients."""

import copy
import io
import pickle
import threading

import pytest
import torch
from torch import nn

import upright
from cases import EXACT, name
from upright import (
    Cyclic,
    Dihedral,
    DiscreteCanonicalizer,
    IdentityCanonicalizer,
    Image,
    Pose,
    UniformPrior,
    act,
)
from upright.actions import act_mixed
from upright.canonicalizers import ESTIMATORS
from upright.losses import moved_log_probs, score_function_loss
from upright.nets import GroupCNN, OrbitScorer
from upright.testing import assert_canonical, redraw_weights

OPTIONS = {
    "orbit": {"widths": (6, 8), "strides": (2, 2)},
    "group_cnn": {"widths": (3, 4)},
    "polar": {"widths": (4, 6), "rays": 16, "rings": 5},
}


def small(group="C4", network="group_cnn", **settings):
    made = upright.canonicalizer(group, network, **{"size": 16, "options": OPTIONS[network]} | settings)
    return redraw_weights(made, torch.Generator().manual_seed(0)).eval()


def pictures(*size, dtype=torch.float64):
    def make(batch, generator):
        return Image(torch.rand(batch, 3, *size, generator=generator, dtype=dtype))

    return make


@pytest.mark.parametrize("size", [(24, 24), (17, 17), (16, 16)], ids=name)
@pytest.mark.parametrize("network", OPTIONS)
@pytest.mark.parametrize("group", [g for g in EXACT if g.order > 1], ids=name)
def test_canonical_on_quarter_turns_and_flips(group, network, size):
    assert_canonical(small(group, network), make_x=pictures(*size))


@pytest.mark.parametrize("network", ["orbit", "polar"])
@pytest.mark.parametrize("group", ["C8", "D8"])
def test_finer_groups_follow_their_quarter_turns_exactly(group, network):
    c = small(group, network).double()
    fine = c.group
    kept = fine.element((fine.quarter_turns(fine.elements()) >= 0).nonzero().flatten())
    x = torch.rand(6, 3, 24, 24, dtype=torch.float64)
    pose = c(x)
    for g in kept:
        after = c(act(g, Image(x)).data)
        expected = moved_log_probs(pose.log_probs, g.expand(6))
        torch.testing.assert_close(after.log_probs, expected, rtol=1e-5, atol=1e-5)
        assert (after.element.equals(g.expand(6) @ pose.element) | pose.is_tied).all()


def test_polar_follows_resampled_turns_of_smooth_pictures():
    c = small("C8", "polar", size=32)
    assert_canonical(c, tolerance=None, share=0.7)


@pytest.mark.parametrize("group", [Cyclic(4), Dihedral(4)], ids=name)
def test_non_square_pictures(group):
    c = small(group).double()
    x = torch.rand(5, 3, 20, 31, dtype=torch.float64)
    pose = c(x)
    for g in group.elements():
        after = c(act(g, Image(x)).data)
        assert after.element.equals(g.expand(5) @ pose.element).all()


def test_one_canonicalizer_for_every_way_of_handing_pictures_over():
    c = small()
    x = torch.rand(3, 3, 20, 20)
    expected = c(x)
    listed = c(list(x))
    assert listed.element.equals(expected.element).all()
    torch.testing.assert_close(listed.log_probs, expected.log_probs, atol=1e-5, rtol=1e-5)
    mixed = c([x[0], torch.rand(3, 40, 25)])
    torch.testing.assert_close(mixed.log_probs[0], expected.log_probs[0], atol=1e-5, rtol=1e-5)
    assert c(x[:0]).element.shape == (0,)
    assert c([]).log_probs.shape == (0, 4)


def test_greyscale_is_expanded_and_other_channels_are_refused():
    c = small()
    grey = torch.rand(4, 1, 20, 20)
    torch.testing.assert_close(c(grey).log_probs, c(grey.expand(-1, 3, -1, -1)).log_probs)
    with pytest.raises(
        ValueError, match=r"x must have 3 channels \(or 1, which is expanded\), got \(4, 5, 20, 20\)"
    ):
        c(torch.rand(4, 5, 20, 20))
    with pytest.raises(ValueError, match=r"x must have shape \(B, C, H, W\)"):
        c(torch.rand(3, 20, 20))


def test_uint8_and_normalised_pictures_have_the_pose_of_their_content():
    c = small()
    counts = torch.randint(0, 256, (8, 3, 20, 20), dtype=torch.uint8)
    expected = c(counts).element
    for x in (
        counts / 255,
        (counts / 255 - 0.45) / 0.22,
        counts.half(),
        counts.to(torch.bfloat16),
        counts.double(),
    ):
        assert c(x).element.equals(expected).all()


@pytest.mark.parametrize("network", OPTIONS)
def test_scores_are_float32_whatever_the_precision(network):
    c = small(network=network)
    x = torch.rand(16, 3, 20, 20)
    expected = c(x).log_probs
    assert expected.dtype == torch.float32
    for dtype in (torch.float16, torch.bfloat16):
        with torch.autocast("cpu", dtype=dtype):
            found = c(x).log_probs
        assert torch.equal(found, expected)
        assert torch.equal(copy.deepcopy(c).to(dtype)(x).log_probs, expected)
    for lowered in (copy.deepcopy(c).half(), nn.Sequential(copy.deepcopy(c)).bfloat16()[0]):
        assert {p.dtype for p in lowered.parameters()} == {torch.float32}
        assert torch.equal(lowered(x).log_probs, expected)
    assert copy.deepcopy(c).double()(x).log_probs.dtype == torch.float64


def test_training_may_follow_autocast():
    c = small().train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pose = c(torch.rand(4, 3, 20, 20))
    assert pose.log_probs.dtype == torch.float32
    pose.log_probs.sum().backward()
    assert all(p.grad.isfinite().all() for p in c.parameters())


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_evaluation_is_deterministic(estimator):
    c = small(estimator=estimator)
    x = torch.rand(32, 3, 20, 20)
    first, second = c(x), c(x)
    assert first.element.equals(second.element).all()
    assert first.weights is None
    assert first.element.value.tolist() == first.log_probs.argmax(-1).tolist()
    c.train()
    with torch.no_grad():  # validation inside a training loop
        assert c(x).weights is None


@pytest.mark.parametrize("estimator", ["gumbel", "score_function"])
def test_stochastic_estimators_draw_from_the_posterior(estimator, generator):
    log_probs = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().expand(20000, 4)
    drawn, _ = ESTIMATORS[estimator](log_probs, 1.0, generator)
    shares = drawn.bincount(minlength=4) / 20000
    torch.testing.assert_close(shares, torch.tensor([0.5, 0.3, 0.15, 0.05]), atol=0.015, rtol=0)
    c = small(estimator=estimator).train()
    x = torch.rand(8, 3, 20, 20)
    seeded = [c(x, generator=torch.Generator().manual_seed(5)).element.value for _ in range(2)]
    assert torch.equal(*seeded)


@pytest.mark.parametrize("estimator", ["straight_through", "gumbel", "soft"])
def test_weights_and_their_gradients(estimator):
    scores = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    costs = torch.rand(3, 4, dtype=torch.float64)
    log_probs = torch.log_softmax(scores, -1)
    index, weights = ESTIMATORS[estimator](log_probs, 1.0, torch.Generator().manual_seed(1))
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, dtype=torch.float64))
    (found,) = torch.autograd.grad((weights * costs).sum(), scores, retain_graph=True)
    if estimator == "gumbel":
        assert torch.equal(weights.argmax(-1), index)
        assert set(weights.flatten().tolist()) == {0.0, 1.0}
        uniform = torch.rand(3, 4, generator=torch.Generator().manual_seed(1)).clamp(min=1e-20)
        relaxed = torch.softmax(log_probs - (-uniform.log()).log(), -1)
    else:
        assert torch.equal(index, log_probs.argmax(-1))
        relaxed = log_probs.exp()
        if estimator == "straight_through":
            assert set(weights.flatten().tolist()) == {0.0, 1.0}
    (expected,) = torch.autograd.grad((relaxed * costs).sum(), scores)
    torch.testing.assert_close(found, expected)
    assert found.abs().max() > 1e-3


def test_gradients_of_the_soft_estimator_are_those_of_finite_differences():
    x = torch.rand(2, 1, 5, 5, dtype=torch.float64)
    scores = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)

    def blended(scores):
        index, weights = ESTIMATORS["soft"](torch.log_softmax(scores, -1), 0.7, None)
        return act_mixed(Cyclic(4).element(index), weights, Image(x), inverse=True).data

    torch.autograd.gradcheck(blended, (scores,))


@pytest.mark.parametrize("estimator", ["straight_through", "gumbel", "soft"])
def test_gradients_reach_every_weight_through_the_adapted_model(estimator):
    c = small(estimator=estimator).train()
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 20 * 20, 5))
    upright.Adapted(model, c)(torch.rand(6, 3, 20, 20)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in c.network.head.parameters())
    assert all(p.grad.isfinite().all() for p in c.parameters())


def test_the_score_function_reaches_the_weights_by_its_loss():
    c = small(estimator="score_function").train()
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 20 * 20, 5))
    run = upright.Adapted(model, c).run(torch.rand(6, 3, 20, 20))
    assert run.pose.weights is None
    score_function_loss(run.output.square().sum(-1), run.pose).backward()
    assert all(p.grad.abs().max() > 0 for p in c.network.head.parameters())


def test_training_by_the_task_loss_turns_pictures_upright():
    """A picture known only one way up, and a posterior over its four poses: gradients find it."""
    for estimator in ("straight_through", "gumbel", "soft"):
        torch.manual_seed(0)
        upright_picture = torch.rand(1, 1, 8, 8)
        scores = nn.Parameter(torch.zeros(1, 4))
        optimizer = torch.optim.Adam([scores], 0.2)
        lying = Image(act(Cyclic(4).element(3), Image(upright_picture[0])).data[None])
        for _ in range(60):
            index, weights = ESTIMATORS[estimator](torch.log_softmax(scores, -1), 1.0, None)
            seen = act_mixed(Cyclic(4).element(index), weights, lying, inverse=True).data
            loss = (seen - upright_picture).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert scores.argmax().item() == 3, estimator


def test_ties_are_reported_and_harmless():
    c = small("D4")
    flat = c(torch.full((2, 3, 20, 20), 0.4))
    assert flat.is_tied.all()
    symmetric = torch.rand(1, 3, 20, 20)
    symmetric = (symmetric + symmetric.rot90(2, (2, 3))) / 2
    pose = small("C4")(symmetric)
    assert pose.is_tied.all()
    still = act(~pose.element, Image(symmetric)).data
    other = act(~(Cyclic(4).element(2) @ pose.element), Image(symmetric)).data
    torch.testing.assert_close(still, other)  # the stabiliser: either choice gives the same canonical form
    assert not small("C4")(torch.rand(16, 3, 20, 20)).is_tied.any()


def test_threads_share_one_canonicalizer():
    c = small("D4")
    batches = [torch.rand(4, 3, 18 + i, 18 + i) for i in range(6)]
    expected = [c(x).log_probs for x in batches]
    wrong = []

    def work(i):
        for _ in range(10):
            with torch.no_grad():
                if not torch.allclose(c(batches[i]).log_probs, expected[i], atol=1e-6):
                    wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("network", OPTIONS)
def test_copies_after_a_forward_with_gradients(network):
    c = small(network=network).train()
    x = torch.rand(2, 3, 20, 20)
    c(x).log_probs.sum().backward()
    c.eval()
    expected = c(x).log_probs
    stored = io.BytesIO()
    torch.save(c, stored)
    stored.seek(0)
    twins = [copy.deepcopy(c), pickle.loads(pickle.dumps(c)), torch.load(stored, weights_only=False)]
    for twin in twins:
        assert torch.equal(twin(x).log_probs, expected)
        assert twin.group == c.group


def test_forward_stores_nothing():
    c = small()
    before = {path: dict(vars(part)) for path, part in c.named_modules()}
    c(torch.rand(2, 3, 20, 20))
    for path, part in c.named_modules():
        assert vars(part).keys() == before[path].keys()
        assert all(vars(part)[key] is value for key, value in before[path].items())


def test_identity():
    c = IdentityCanonicalizer("D4")
    assert c(torch.rand(3, 3, 5, 5)).element.is_identity().all()
    assert c([torch.rand(3, 5, 5)] * 2).element.shape == (2,)
    assert c(torch.rand(0, 3, 5, 5)).element.shape == (0,)
    assert c(torch.rand(2, 3, 5, 5)).log_probs is None
    meta = c(torch.rand(0, 3, 5, 5, device="meta"))
    assert meta.element.device.type == "meta"


def test_deployment_prior_shifts_the_posterior():
    c = small()
    x = torch.rand(32, 3, 20, 20)
    plain = c(x)
    c.deployment_prior = UniformPrior(max_degrees=90)
    found = c(x)
    assert (found.element.value != 2).all()
    expected = plain.probs * torch.tensor([1.0, 1, 0, 1])
    torch.testing.assert_close(found.probs, expected / expected.sum(-1, keepdim=True))


def test_calibration_minimises_cross_entropy():
    c = small()
    batches = [torch.rand(16, 3, 20, 20) for _ in range(2)]
    scores = torch.cat([c.scores(b)[0] for b in batches]).double()
    found = c.calibrate(batches)
    assert c.temperature.item() == pytest.approx(found)

    def loss(t):
        return -torch.log_softmax(scores / t, -1)[:, 0].mean().item()

    assert all(loss(found) <= loss(t) + 1e-9 for t in (0.1, 0.3, 1.0, 3.0, 10.0))
    torch.testing.assert_close(
        c(batches[0]).log_probs.double(), torch.log_softmax(scores[:16] / found, -1), atol=1e-5, rtol=1e-5
    )
    assert "temperature" in c.state_dict()


def test_pose_is_a_value_with_its_statistics():
    probs = torch.tensor([[0.7, 0.1, 0.15, 0.05], [0.25, 0.25, 0.25, 0.25]])
    pose = Pose(Cyclic(4).element(torch.tensor([0, 0])), probs.log())
    torch.testing.assert_close(pose.probs, probs)
    torch.testing.assert_close(pose.confidence, probs[:, 0])
    torch.testing.assert_close(pose.entropy, -(probs * probs.log()).sum(-1))
    assert pose.is_tied.tolist() == [False, True]
    elements, weights = pose.top_k(3)
    assert elements.value[0].tolist() == [0, 2, 1]
    torch.testing.assert_close(weights[0], torch.tensor([0.7, 0.15, 0.1]))
    assert pose.top_k(99)[0].shape == (2, 4)
    drawn = Pose(Cyclic(4).element(torch.tensor([3, 1])), probs.log())
    assert drawn.top_k(2)[0].value[:, 0].tolist() == [3, 1]  # the chosen one comes first
    bare = Pose(Cyclic(4).element(torch.tensor([2])))
    assert bare.probs.tolist() == [[0, 0, 1, 0]]
    assert bare.confidence.tolist() == [1]
    assert not bare.is_tied.any()
    assert bare.entropy.tolist() == [0]


def test_features_are_handed_on():
    made = upright.canonicalizer("C4", size=16, options=OPTIONS["orbit"] | {"vector": 5})
    assert made(torch.rand(2, 3, 20, 20)).features.shape == (2, 4, 5)


def test_errors():
    with pytest.raises(ValueError, match=r"estimator must be one of 'straight_through', .* got 'hope'"):
        DiscreteCanonicalizer(nn.Identity(), "C4", estimator="hope")
    with pytest.raises(ValueError, match="size must be positive, got 0"):
        DiscreteCanonicalizer(nn.Identity(), "C4", size=0)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 5))
    with pytest.raises(ValueError, match=r"scores of shape \(2, 4\) for C4, got \(2, 5\)"):
        DiscreteCanonicalizer(flat, "C4", size=8)(torch.rand(2, 3, 9, 9))
    with pytest.raises(ValueError, match="unknown group"):
        DiscreteCanonicalizer(nn.Identity(), "Q4")


def test_an_untrained_network_of_ones_own():
    scorer = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1)
    )
    assert_canonical(
        DiscreteCanonicalizer(OrbitScorer(scorer, "D4"), "D4", size=None), make_x=pictures(15, 15)
    )
    assert_canonical(
        DiscreteCanonicalizer(GroupCNN("C4"), "C4", size=20, standardize=False), make_x=pictures(15, 15)
    )


def test_compiles_into_one_graph():
    c = small("C4")
    x = torch.rand(2, 3, 20, 20)
    compiled = torch.compile(lambda x: c(x).log_probs, fullgraph=True, backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), c(x).log_probs)
