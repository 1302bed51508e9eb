"""Energies have the values of their definitions, computed in NumPy; models are asked once and not changed."""

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import nn

from upright.energies import (
    Discriminant,
    Energy,
    Entropy,
    Layers,
    LogitEnergy,
    Mahalanobis,
    MaxLogit,
    NearestFeatures,
    Similarity,
    as_energy,
    combined,
    discriminant,
    relative,
)
from upright.energies.combine import fitted_weights
from upright.energies.features import shrunk


class Counting(nn.Module):
    """Counts the pictures that it is asked about."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.dropout, self.head = nn.Dropout(0.5), nn.Linear(4, 5)
        self.asked = []

    def forward(self, x):
        self.asked.append(len(x))
        features = self.norm(self.first(x)).relu()
        return self.head(self.dropout(features.mean((2, 3))))


@dataclass
class Output:
    loss: torch.Tensor | None
    logits: torch.Tensor


def vectors(x):
    return x.flatten(1)


def as_pictures(values):
    return torch.as_tensor(values).float().view(len(values), -1, 1, 1)


@pytest.fixture(name="scores")
def some_scores():
    return torch.randn(6, 5, generator=torch.Generator().manual_seed(1))


def test_energies_of_scores(scores):
    x, s = as_pictures(scores), scores.double().numpy()
    probs = np.exp(s) / np.exp(s).sum(1, keepdims=True)
    expected = {
        LogitEnergy(vectors): -np.log(np.exp(s).sum(1)),
        LogitEnergy(vectors, temperature=2.0): -2 * np.log(np.exp(s / 2).sum(1)),
        Entropy(vectors): -(probs * np.log(probs)).sum(1),
        MaxLogit(vectors): -s.max(1),
    }
    for energy, values in expected.items():
        np.testing.assert_allclose(energy(x).numpy(), values, rtol=1e-5)


def test_entropy_of_certain_scores_is_zero_and_has_a_gradient():
    x = as_pictures([[1e4, 0.0, -1e4]]).requires_grad_()
    energy = Entropy(vectors)(x)
    energy.sum().backward()
    assert float(energy.detach()) == 0
    assert bool(torch.isfinite(x.grad).all())


def test_scores_over_places_are_averaged(scores):
    dense = torch.randn(2, 4, 3, 3)
    expected = -dense.logsumexp(1).mean((1, 2))
    found = LogitEnergy(lambda x: x, axis=1)(dense)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: (s, "rest"),
        lambda s: {"loss": s.sum(), "logits": s},
        lambda s: OrderedDict(first=s),
        lambda s: Output(None, s),
    ],
)
def test_outputs_are_read_like_the_adapter_reads_them(wrap, scores):
    found = MaxLogit(lambda x: wrap(vectors(x)))(as_pictures(scores))
    torch.testing.assert_close(found, -scores.amax(1))


def test_outputs_that_hold_no_tensor_are_refused(scores):
    with pytest.raises(TypeError, match="wrap the model in a function that returns"):
        MaxLogit(lambda x: "a cat")(as_pictures(scores))
    with pytest.raises(TypeError, match="energy must be an Energy or a callable"):
        as_energy(3)
    with pytest.raises(ValueError, match="must be one number a picture"):
        as_energy(lambda x: x.sum())(as_pictures(scores))


def test_nearest_features_by_brute_force(scores):
    references = torch.randn(9, 5, generator=torch.Generator().manual_seed(2))
    unit = lambda v: v / np.linalg.norm(v, axis=1, keepdims=True)  # noqa: E731
    a, b = unit(scores.double().numpy()), unit(references.double().numpy())
    away = np.sort(np.linalg.norm(a[:, None] - b[None], axis=2), axis=1)
    for count in (1, 3, 50):
        found = NearestFeatures(vectors, references, count)(as_pictures(scores))
        np.testing.assert_allclose(found.numpy(), away[:, :count].mean(1), atol=1e-3)
    same = NearestFeatures(vectors, references)(as_pictures(references))
    assert float(same.abs().max()) < 2e-3


def test_mahalanobis_in_numpy(scores):
    rng = np.random.default_rng(0)
    references, labels = rng.normal(size=(40, 5)), rng.integers(0, 3, 40)
    for classes in (np.zeros(40, dtype=int), labels):
        means = np.stack([references[classes == k].mean(0) for k in range(classes.max() + 1)])
        centred = references - means[classes]
        covariance = centred.T @ centred / 40
        covariance = 0.7 * covariance + 0.3 * np.trace(covariance) / 5 * np.eye(5)
        apart = scores.double().numpy()[:, None] - means[None]
        expected = 0.5 * np.einsum("nki,ij,nkj->nk", apart, np.linalg.inv(covariance), apart).min(1)
        found = Mahalanobis(vectors, torch.tensor(references), torch.tensor(classes), shrinkage=0.3)
        np.testing.assert_allclose(found(as_pictures(scores)).numpy(), expected, rtol=1e-3)


def test_shrinkage_is_that_of_chen_et_al():
    x = torch.randn(12, 20, dtype=torch.float64)
    s = (x.T @ x / 12).numpy()
    square, trace = (s**2).sum(), np.trace(s)
    rho = ((1 - 2 / 20) * square + trace**2) / ((12 + 1 - 2 / 20) * (square - trace**2 / 20))
    expected = (1 - rho) * s + rho * trace / 20 * np.eye(20)
    assert 0 < rho < 1
    np.testing.assert_allclose(shrunk(x, None).numpy(), expected, atol=1e-5)
    with pytest.raises(ValueError, match="shrinkage must lie in"):
        shrunk(x, 1.5)


def test_references_may_be_pictures():
    x, model = torch.rand(7, 3, 6, 6), Counting().eval()
    with torch.no_grad():
        known = model(x)
    by_pictures, by_features = NearestFeatures(model, x), NearestFeatures(model, known)
    torch.testing.assert_close(by_pictures.references, by_features.references)
    with pytest.raises(ValueError, match="references must be features"):
        NearestFeatures(model, torch.rand(3))


def test_similarity_is_the_largest_cosine(scores):
    targets = torch.stack([scores[0] * 3, -scores[1]])
    found = Similarity(lambda x: {"image_embeds": vectors(x)}, targets)(as_pictures(scores))
    cosine = torch.nn.functional.cosine_similarity(scores[:, None], targets[None], dim=-1)
    torch.testing.assert_close(found, -cosine.amax(1))
    assert float(found[0]) == pytest.approx(-1, abs=1e-5)


def test_sums_ask_each_model_once():
    model, x = Counting().eval(), torch.rand(3, 3, 6, 6)
    readers = Layers(model, ["first"], 2), Layers(model, ["norm", "head"])
    energy = (
        Entropy(model)
        + 0.5 * LogitEnergy(model)
        - NearestFeatures(readers[0], torch.rand(4, 16))
        + NearestFeatures(readers[1], torch.rand(4, 9))
    )
    model.asked.clear()
    with torch.no_grad():
        found = energy(x)
    assert model.asked == [3]
    assert energy.calls == 1
    assert (energy + (lambda x: x.mean((1, 2, 3)))).calls == 2
    with torch.no_grad():
        parts = [Entropy(model)(x), LogitEnergy(model)(x)]
        parts += [NearestFeatures(r, term[1].references)(x) for r, term in
                  zip(readers, energy.terms[2:], strict=True)]  # fmt: skip
    torch.testing.assert_close(found, parts[0] + 0.5 * parts[1] - parts[2] + parts[3])
    assert all(not m._forward_hooks for m in model.modules())


def test_layers_keep_the_layout():
    reader = Layers(nn.Sequential(nn.Identity()), ["0"], 2)
    x = torch.zeros(1, 1, 4, 4)
    x[..., :2, 2:] = 1
    assert reader(x).tolist() == [[0, 1, 0, 0]]
    with pytest.raises(AttributeError, match="no attribute"):
        Layers(nn.Sequential(), ["missing"])(x)


def test_models_are_not_changed():
    model = Counting().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.norm.eval()
    energy = Entropy(model) + NearestFeatures(model, torch.rand(6, 3, 6, 6))
    x = torch.rand(3, 3, 6, 6)
    torch.testing.assert_close(energy(x), energy(x))  # no dropout
    assert model.training
    assert model.dropout.training
    assert not model.norm.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_relative_distances_forget_what_moving_does_not_change():
    x = torch.rand(60, 1, 4, 4)
    x[:, :, 0] += 1.0  # bright on top
    energy = relative(Mahalanobis, vectors, x, "C4")
    other = torch.rand(20, 1, 4, 4)
    other[:, :, 0] += 1.0
    turned = [energy(other.rot90(k, (2, 3))) for k in range(4)]
    assert bool((torch.stack(turned).argmin(0) == 0).all())
    with pytest.raises(ValueError, match="must have elements that move"):
        relative(Mahalanobis, vectors, x, "C1")


def test_discriminants_in_numpy(scores):
    rng = np.random.default_rng(0)
    differences = rng.normal(size=(40, 5)) + np.arange(5)
    centred = differences - differences.mean(0)
    covariance = centred.T @ centred / 40
    covariance = 0.8 * covariance + 0.2 * np.trace(covariance) / 5 * np.eye(5)
    direction = 2 * np.linalg.solve(covariance, differences.mean(0))
    energy = Discriminant(vectors, torch.tensor(differences), shrinkage=0.2)
    np.testing.assert_allclose(energy(as_pictures(scores)), -scores.double().numpy() @ direction, rtol=1e-4)
    for wrong in (torch.rand(3), torch.rand(0, 5)):
        with pytest.raises(ValueError, match="differences must have shape"):
            Discriminant(vectors, wrong)


def test_discriminants_give_log_odds_where_differences_are_gaussian():
    rng = torch.Generator().manual_seed(0)
    away = torch.randn(20_000, 3, generator=rng, dtype=torch.float64) * torch.tensor([1.0, 2.0, 0.5])
    mean = torch.tensor([0.5, -0.4, 0.1], dtype=torch.float64)
    energy = Discriminant(vectors, mean + away, shrinkage=0.0)
    d = torch.tensor([[0.3, -1.0, 0.2]], dtype=torch.float64)  # of one order; the other has -d
    precision = 1 / torch.tensor([1.0, 4.0, 0.25], dtype=torch.float64)
    odds = 0.5 * ((d + mean) ** 2 * precision - (d - mean) ** 2 * precision).sum()
    assert float(energy(as_pictures(-d)) - energy(as_pictures(d))) / 2 == pytest.approx(float(odds), abs=0.03)


def test_a_discriminant_sees_poses_through_what_tells_pictures_apart():
    rng = torch.Generator().manual_seed(0)

    def draw(count):
        x = torch.rand(count, 1, 4, 4, generator=rng) + 50 * torch.rand(count, 1, 1, 1, generator=rng)
        x[:, :, 0] += 1.0  # bright on top, by far less than pictures differ
        return x

    energy, other = discriminant(vectors, draw(60), "C4", shrinkage=0.05), draw(20)
    turned = [energy(other.rot90(k, (2, 3))) for k in range(4)]
    assert bool((torch.stack(turned).argmin(0) == 0).all())
    assert len(energy.differences) == 0
    with pytest.raises(ValueError, match="must have elements that move"):
        discriminant(vectors, draw(3), "C1")


def test_weights_minimise_the_cross_entropy_of_the_identity():
    energies = torch.randn(300, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    energies[:, 0] -= torch.tensor([1.0, 0.5, 0.0])
    e = energies.numpy()

    def loss(w):
        scores = -(e @ w)
        return float(np.mean(np.log(np.exp(scores).sum(1)) - scores[:, 0]))

    expected = minimize(loss, np.zeros(3), method="BFGS").x
    np.testing.assert_allclose(fitted_weights(energies, 0.0).numpy(), expected, atol=1e-3)
    clear = energies.clone()
    clear[:, 0] -= 100
    assert bool(torch.isfinite(fitted_weights(clear)).all())


def test_combined_sums_weigh_what_helps():
    top = lambda x: -x[:, :, : x.shape[2] // 2].mean((1, 2, 3))  # noqa: E731
    noise = lambda x: (x[:, 0, 0, 0] * 1e4).sin()  # noqa: E731
    x = torch.rand(40, 1, 6, 6)
    x[:, :, :3] += 0.3
    found = combined([as_energy(top), as_energy(noise)], x, "C4")
    assert isinstance(found, Energy)
    (first, _), (second, _) = found.terms
    spread = [as_energy(f)(x).std() for f in (top, noise)]
    assert first * spread[0] > 5 * abs(second * spread[1])
    even = torch.cat([torch.rand(40, 4, 1), torch.rand(40, 1, 1).expand(-1, 4, -1)], -1)
    assert abs(float(fitted_weights(even)[1])) < 1e-3
