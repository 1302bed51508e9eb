"""The numbers under the report: intervals, accuracies and calibration agree with independent routes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from upright.evaluation.metrics import clustered, quantiles, reliability, resamples, wilson


@pytest.mark.parametrize(("right", "count"), [(0, 7), (3, 7), (7, 7), (450, 500), (1, 1)])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_wilson_agrees_with_scipy(right, count, confidence):
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(right, count).proportion_ci(confidence, method="wilson")
    found = wilson(right / count, count, confidence)
    assert found.value == right / count
    assert found.low == pytest.approx(expected.low, abs=1e-9)
    assert found.high == pytest.approx(expected.high, abs=1e-9)


def test_poses_of_one_picture_that_always_agree_add_no_evidence():
    pictures = torch.rand(200, generator=torch.Generator().manual_seed(0)) < 0.7
    alone = wilson(float(pictures.double().mean()), 199, 0.95)
    repeated = clustered(pictures[:, None].expand(-1, 8))
    assert repeated.low == pytest.approx(alone.low, abs=1e-9)
    assert repeated.high == pytest.approx(alone.high, abs=1e-9)


def test_independent_poses_count_as_so_many_pictures():
    right = torch.rand(2000, 8, generator=torch.Generator().manual_seed(0)) < 0.7
    found, expected = clustered(right), wilson(float(right.double().mean()), 16000)
    assert found.high - found.low == pytest.approx(expected.high - expected.low, rel=0.05)


def test_clustered_interval_agrees_with_the_bootstrap_over_pictures():
    generator = np.random.default_rng(0)
    easy = generator.random((400, 1))
    right = generator.random((400, 4)) < easy
    means = right.mean(1)
    draws = means[generator.integers(0, 400, (4000, 400))].mean(1)
    low, high = np.quantile(draws, [0.025, 0.975])
    found = clustered(torch.tensor(right))
    assert found.low == pytest.approx(low, abs=0.006)
    assert found.high == pytest.approx(high, abs=0.006)


@pytest.mark.parametrize("value", [True, False])
def test_interval_of_a_perfect_score_has_a_width(value):
    found = clustered(torch.full((50, 4), value))
    assert found.high - found.low > 0.05
    assert (found.value, found.value) == ((found.high, 1.0) if value else (found.low, 0.0))


def test_calibration_error_by_hand():
    confidence = torch.tensor([0.95, 0.95, 0.95, 0.95, 0.25, 0.25])
    right = torch.tensor([True, True, True, False, False, True])
    error, bins = reliability(confidence, right, bins=10)
    assert error == pytest.approx(4 / 6 * abs(0.75 - 0.95) + 2 / 6 * abs(0.5 - 0.25), abs=1e-6)
    assert [(round(b.confidence, 3), b.accuracy) for b in bins] == [(0.25, 0.5), (0.95, 0.75)]
    assert sum(b.share for b in bins) == pytest.approx(1)


def test_bins_and_error_tell_the_same_story():
    generator = torch.Generator().manual_seed(0)
    confidence = torch.rand(500, 4, generator=generator)
    right = torch.rand(500, 4, generator=generator) < confidence**2
    error, bins = reliability(confidence, right)
    assert error == pytest.approx(sum(b.share * abs(b.accuracy - b.confidence) for b in bins), abs=1e-4)


def test_resamples_draw_as_many_pictures_with_replacement():
    weights = resamples(50, 300)
    assert weights.shape == (300, 50)
    assert torch.equal(weights.sum(1), torch.full((300,), 50.0, dtype=torch.float64))
    assert weights.var(correction=0).item() == pytest.approx(1 - 1 / 50, rel=0.05)  # binomial(50, 1/50)
    assert torch.equal(weights, resamples(50, 300))


def test_quantiles_hold_the_value():
    draws = torch.arange(101).double() / 100
    found = quantiles(0.5, draws, 0.9)
    assert (found.low, found.high) == (pytest.approx(0.05), pytest.approx(0.95))
    assert quantiles(0.99, draws, 0.9).high == 0.99
    assert quantiles(0.01, torch.cat([draws, draws[:1] * torch.nan]), 0.9).low == 0.01
