"""Priors of use, given and estimated; confidence that is calibrated; accuracy over the share turned."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import upright
from adapter_toys import Classifier, small
from upright import SO2, Adapted, CategoricalPrior, DiscreteCanonicalizer, Gate, Image, Pose, act
from upright.canonicalizers import Canonicalizer
from upright.confidence import NearUprightPrior, deployment, deployment_prior, estimate_prior
from upright.evaluation.calibration import calibration
from upright.evaluation.recorded import record, recorded
from upright.evaluation.shares import accuracy_by_share, default_rows

SHARES = np.array([0.85, 0.1, 0.04, 0.01])


def observed(shares, count, spread=1.0, seed=0):
    """Poses drawn by ``shares``, and the exact posteriors, under a uniform prior, of what is seen of them."""
    rng = np.random.default_rng(seed)
    poses = rng.choice(len(shares), count, p=shares)
    seen = rng.normal(size=(count, len(shares))) + spread * np.eye(len(shares))[poses]
    scores = spread * seen  # log-likelihood ratios of unit Gaussians
    probs = np.exp(scores - scores.max(1, keepdims=True))
    return poses, probs / probs.sum(1, keepdims=True)


def as_pose(probs, group="C4"):
    log_probs = torch.tensor(probs).log()
    return Pose(upright.parse_group(group).element(log_probs.argmax(1)), log_probs)


# --- given priors


def test_given_shares():
    assert deployment_prior("C4", upright=0.94).probs == pytest.approx((0.94, 0.02, 0.02, 0.02))
    assert deployment_prior("C8", upright=0.9, within_degrees=45).probs == pytest.approx(
        (0.3, 0.3, *[0.02] * 5, 0.3)
    )
    assert deployment_prior("C1", upright=0.3).probs == (1.0,)
    found = deployment_prior("SO2", upright=0.9, within_degrees=9.0)
    assert found == NearUprightPrior(0.9, 9.0)
    density = found.log_density(SO2().element(degrees=torch.tensor([0.0, 8.0, 352.0, 10.0, 180.0]))).exp()
    assert density.tolist() == pytest.approx([18.0] * 3 + [0.1 / 0.95] * 2)
    grid = SO2().element(degrees=torch.arange(0.0, 360.0, 0.25))
    assert float(found.log_density(grid).exp().mean()) == pytest.approx(1, abs=0.02)
    both = deployment_prior("O2", upright=0.9, within_degrees=9.0)
    mirrored = upright.O2().element(degrees=torch.tensor([0.0, 0.0]), reflected=torch.tensor([False, True]))
    assert both.log_density(mirrored).exp().tolist() == pytest.approx([36.0, 0.1 / 0.975])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: deployment_prior("C4", upright=1.2), ValueError, "a share in 0…1, got 1.2"),
        (lambda: deployment_prior("SO2", upright=0.9), TypeError, "give within_degrees"),
        (lambda: NearUprightPrior(0.5, 180.0), ValueError, "within_degrees must lie between"),
        (lambda: small("C4").with_prior(CategoricalPrior([1, 1])), ValueError, "must have 4 entries for C4"),
        (lambda: small("C4").with_prior(0.95), TypeError, "prior must be a Prior or None, got float"),
        (
            lambda: upright.IdentityCanonicalizer("C4").with_prior(None), TypeError,
            "IdentityCanonicalizer has no posterior",
        ),
        (lambda: estimate_prior(small("C4")), TypeError, "pictures are needed"),
        (lambda: estimate_prior(small("C4"), torch.rand(0, 3, 16, 16)), ValueError, "at least one picture"),
        (lambda: estimate_prior([]), ValueError, "at least one picture"),
        (lambda: estimate_prior(7, torch.rand(1, 3, 8, 8)), TypeError, "source must be a canonicalizer"),
    ],
)  # fmt: skip
def test_priors_of_no_sense(make, error, message):
    with pytest.raises(error, match=message):
        make()


def check_view(view, c, x, shares):
    """The posterior times the shares, once."""
    with torch.no_grad():
        expected = c(x).probs.double().numpy() * shares
        found = view(x)
    expected /= expected.sum(1, keepdims=True)
    assert np.allclose(found.probs.numpy(), expected, atol=1e-6)
    assert found.element.value.tolist() == expected.argmax(1).tolist()


def test_views_decide_under_the_prior_and_leave_the_original_alone():
    c, x = small("C4"), torch.rand(32, 3, 16, 16)
    before = c(x).log_probs
    view = c.with_prior(CategoricalPrior(SHARES.tolist()))
    check_view(view, c, x, SHARES)
    assert type(view) is type(c)
    assert c.deployment_prior is None
    assert torch.equal(c(x).log_probs, before)
    assert [p is q for p, q in zip(view.parameters(), c.parameters(), strict=True)]
    with torch.no_grad():
        next(c.parameters()).mul_(1.5)
    c.temperature.fill_(0.8)
    check_view(view, c, x, SHARES)  # what is shared is shared
    view = view.with_prior(CategoricalPrior([1, 2, 3, 4]))
    check_view(view, c, x, np.array([1, 2, 3, 4]))  # one prior takes the place of the other
    assert torch.equal(view.with_prior(None)(x).log_probs, c(x).log_probs)


def test_priors_multiplied_twice_are_caught(monkeypatch):
    c, x = small("C4"), torch.rand(32, 3, 16, 16)
    once = CategoricalPrior.log_density
    monkeypatch.setattr(CategoricalPrior, "log_density", lambda self, g: 2 * once(self, g))
    with pytest.raises(AssertionError):
        check_view(c.with_prior(CategoricalPrior(SHARES.tolist())), c, x, SHARES)


def test_adapted_models_take_priors():
    robust = Adapted(Classifier().eval(), small("C4"), mode="top_k", top_k=2, gate=Gate(threshold=0.3))
    sure = robust.with_prior(deployment_prior("C4", upright=1.0))
    x = torch.rand(8, 3, 16, 16)
    assert torch.equal(sure(x), robust.model(x))
    assert (sure.mode, sure.top_k, sure.gate) == ("top_k", 2, robust.gate)
    assert robust.canonicalizer.deployment_prior is None


def test_the_decision_under_the_true_prior_is_the_best():
    poses, probs = observed(SHARES, 20_000)
    truth = torch.tensor(poses)

    def right(shares):
        decided = (torch.tensor(probs) * torch.tensor(shares)).argmax(1)
        return float((decided == truth).double().mean())

    best = right(SHARES)
    others = [np.ones(4), SHARES**2, SHARES**0.5, np.array([1, 1e-9, 1e-9, 1e-9])]
    assert all(best > right(other) for other in others)


# --- estimated priors


def check_estimate(found, truth, tolerance=0.03):
    assert found.converged
    assert np.abs(np.array(found.prior.probs) - truth).max() < tolerance


def test_shares_are_found_from_what_is_seen():
    poses, probs = observed(SHARES, 4000)
    truth = np.bincount(poses, minlength=4) / len(poses)
    found = estimate_prior(as_pose(probs), smoothing=0.0, draws=50)
    check_estimate(found, truth)
    assert found.upright == pytest.approx(found.prior.probs[0])
    assert found.inputs == 4000
    assert (found.low <= found.history[-1] + 1e-6).all()
    assert (found.high >= found.history[-1] - 1e-6).all()
    assert ((found.low <= torch.tensor(SHARES)) & (torch.tensor(SHARES) <= found.high)).sum() >= 3
    assert found.history[0].tolist() == [0.25] * 4
    assert (found.log_likelihood.diff() >= -1e-12).all()
    # where the likelihood is largest, the mean of the re-weighted posteriors is the prior itself
    shares = found.history[-1].numpy()
    weighted = probs * shares
    assert np.allclose((weighted / weighted.sum(1, keepdims=True)).mean(0), shares, atol=1e-5)


def test_shares_maximise_the_likelihood():
    """Against brute force over a grid of shares, for two poses."""
    _, probs = observed(np.array([0.9, 0.1]), 500, spread=1.3)
    found = estimate_prior(as_pose(probs, "C2"), smoothing=0.0, draws=5)
    grid = np.linspace(0.0005, 0.9995, 1000)
    likelihood = np.log(grid[:, None] * probs[:, 0] + (1 - grid[:, None]) * probs[:, 1]).sum(1)
    assert found.upright == pytest.approx(grid[likelihood.argmax()], abs=0.002)


def test_mean_posteriors_are_no_estimate(monkeypatch):
    """One step, that is the mean posterior, is not enough."""
    poses, probs = observed(SHARES, 4000)
    maximize = deployment._maximize
    monkeypatch.setattr(
        deployment, "_maximize", lambda *args: (maximize(*args[:5], 1, args[6])[0], True)
    )  # fmt: skip
    found = estimate_prior(as_pose(probs), draws=2)
    assert np.allclose(found.prior.probs, (probs.sum(0) + 0.1) / 4000.4)
    with pytest.raises(AssertionError):
        check_estimate(found, np.bincount(poses, minlength=4) / len(poses))


def test_intervals_cover():
    covered = []
    for seed in range(30):
        _, probs = observed(SHARES, 300, spread=2.0, seed=seed)
        found = estimate_prior(as_pose(probs), draws=100, seed=seed)
        covered.append(float(found.low[0]) <= SHARES[0] <= float(found.high[0]))
    assert sum(covered) >= 24  # 28.5 expected, sd 1.2


def test_estimates_turn_with_the_inputs():
    c, x = small("C4"), torch.rand(24, 3, 16, 16)
    first = estimate_prior(c, x, draws=2).history[-1]
    turned = estimate_prior(c, torch.rot90(x, 1, (2, 3)), draws=2).history[-1]
    assert torch.allclose(turned, first.roll(1), atol=1e-4)


def test_sources_of_estimates():
    """Tensors, batches, lists and loaders; the model's own prior and mode of training do not count."""
    c, x = small("C4").train(), torch.rand(10, 3, 16, 16)
    robust = Adapted(Classifier(), c.with_prior(deployment_prior("C4", upright=0.99)))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, torch.arange(10)), batch_size=4)
    wanted = estimate_prior(c.eval()(x), draws=2).prior.probs
    c.train()
    for source, pictures in [(c, x), (robust, x.split(3)), (robust, loader), (c, [list(x)])]:
        assert estimate_prior(source, pictures, draws=2).prior.probs == pytest.approx(wanted, abs=1e-5)
    assert c.training


def test_shares_near_upright_on_continuous_groups():
    rng = np.random.default_rng(0)
    bins, count = 72, 600
    centre = np.where(rng.random(count) < 0.8, rng.normal(0, 3, count), rng.uniform(0, 360, count))
    angles = np.arange(bins) * 360 / bins
    seen = centre + rng.normal(0, 6, count)
    scores = 90 * np.cos(np.radians(seen[:, None] - angles))
    log_density = torch.tensor(scores).log_softmax(-1)
    grid = SO2().element(degrees=torch.tensor(angles))
    pose = Pose(SO2().element(degrees=torch.tensor(seen)), log_density=log_density, grid=grid)
    found = estimate_prior(pose, within_degrees=20, draws=20)
    truth = float((np.abs((centre + 180) % 360 - 180) <= 20).mean())
    assert found.prior == NearUprightPrior(found.upright, 20)
    assert found.upright == pytest.approx(truth, abs=0.03)
    with pytest.raises(TypeError, match="give within_degrees"):
        estimate_prior(pose)


# --- calibration


class Scores(nn.Module):
    """Scores that the test chooses: pictures hold their number."""

    def __init__(self, scores):
        super().__init__()
        self.scores = scores

    def forward(self, x):
        return self.scores[x[:, 0, 0, 0].long()].float()


def scored(scores):
    c = DiscreteCanonicalizer(Scores(scores), "C4", size=None, channels=1, standardize=False).eval()
    return c, torch.arange(len(scores)).float().view(-1, 1, 1, 1).expand(-1, 1, 2, 2)


def test_calibrated_confidence_is_found_calibrated_and_sharpened_is_not():
    poses, probs = observed(np.full(4, 0.25), 3000, spread=1.5)
    moved = np.stack([np.roll(row, -pose) for row, pose in zip(probs, poses, strict=True)])  # now upright
    logits = torch.tensor(np.log(moved))
    true, sharp = (calibration(*scored(factor * logits)) for factor in (1, 3))
    assert true.pictures == 3000
    assert true.error < 0.03
    assert true.temperature == pytest.approx(1, abs=0.1)
    assert true.accuracy.value == pytest.approx((moved.argmax(1) == 0).mean())
    assert true.confidence == pytest.approx(moved.max(1).mean(), abs=1e-5)
    assert true.loss == pytest.approx(-np.log(moved[:, 0]).mean(), abs=1e-5)
    assert sharp.error > 0.1
    assert sharp.temperature == pytest.approx(3, rel=0.1)
    assert sharp.refitted_error < 0.03
    assert sharp.accuracy == true.accuracy
    assert "3000 pictures" in str(sharp)


def test_calibration_leaves_priors_out_of_account():
    c, x = scored(torch.randn(50, 4))
    report = calibration(c.with_prior(deployment_prior("C4", upright=0.99)), x)
    assert report == calibration(c, x)
    assert float(c.temperature) == 1


def test_calibration_of_angles():
    class Angles(Canonicalizer):
        def forward(self, x):
            first = torch.where(x[:, 0, 0, 0] < 6, 1.0, 90.0)
            listed = SO2().element(degrees=torch.stack([first, 180 - 0 * first], 1))
            return Pose(listed[:, 0], torch.tensor([[0.6, 0.4]]).log().expand(len(x), 2), candidates=listed)

    x = torch.arange(10).float().view(-1, 1, 1, 1)
    report = calibration(Angles("SO2"), x, within=math.radians(5))
    assert report.accuracy.value == pytest.approx(0.6)
    assert report.error == pytest.approx(0, abs=1e-6)
    with pytest.raises(TypeError, match="give within"):
        calibration(Angles("SO2"), x)


# --- shares of turned inputs


def toy_tables(count=40, seed=0):
    rng = torch.Generator().manual_seed(seed)
    log_p = (2 * torch.randn(count, 4, generator=rng) + torch.tensor([2.0, 0, 0, 0])).log_softmax(-1)
    answers = torch.randn(count, 4, 5, generator=rng)
    labels = torch.randint(5, (count,), generator=rng)
    answers[torch.arange(count), 0, labels] += 2.0
    moved = torch.stack([log_p.roll(h, 1) for h in range(4)], 1)
    return moved, answers, labels


def test_records_answer_as_the_model_does():
    model, c, x = Classifier().eval(), small("D4"), torch.rand(6, 3, 12, 12)
    robust = Adapted(model, c)
    replayed, keys = record(robust, x)
    for settings in ({}, {"mode": "weighted"}, {"gate": Gate(threshold=0.15)}, {"mode": "average"}):
        one, other = robust.replace(**settings), replayed.replace(**settings)
        for g in c.group.elements():
            found = other.run(act(g, Image(keys)).data)
            wanted = one.run(act(g, Image(x)).data)
            assert torch.equal(found.pose.element.value, wanted.pose.element.value)
            assert torch.allclose(found.output, wanted.output, atol=1e-5)
    with pytest.raises(ValueError, match="quarter turns and flips only"):
        record(Adapted(model, upright.canonicalizer("C8", size=16)), x)


def test_accuracy_by_share_is_that_of_the_mixture():
    log_p, answers, labels = toy_tables()
    base = Adapted(lambda x: x, small("C4"))
    robust, keys = recorded(base, log_p, answers)
    shares = (0.0, 0.3, 1.0)
    curve = accuracy_by_share(robust, keys, labels, turned=shares, record_first=False)
    assert set(curve.accuracy) == set(default_rows(robust))
    right = (answers.argmax(-1) == labels[:, None]).double()  # picture turned by h, as it is
    for i, t in enumerate(shares):
        mix = torch.tensor([1 - t, t / 3, t / 3, t / 3], dtype=torch.float64)
        assert curve.accuracy["bare"][i] == pytest.approx(float((right @ mix).mean()))
        prior = torch.tensor([1 - t, t / 3, t / 3, t / 3]).log()
        expected = 0.0
        for h in range(4):
            g = (log_p[:, h] + prior).argmax(-1)
            expected += float(mix[h] * right[torch.arange(40), (h - g) % 4].mean())
        assert curve.accuracy["prior given"][i] == pytest.approx(expected)
        assert curve.prior_upright["prior given"][i] == pytest.approx(1 - t)
    assert curve.accuracy["prior given"][0] == curve.accuracy["bare"][0]
    assert np.ptp(curve.accuracy["one pass"]) < 1e-12  # equivariant: the same however many are turned
    assert max(curve.gated["gate"]) > 0
    assert curve.passes["average"] == pytest.approx((4.0,) * 3)
    assert curve.best(0) in curve.accuracy
    with pytest.raises(ValueError, match="shares in 0…1"):
        accuracy_by_share(robust, keys, labels, turned=[2.0], record_first=False)
