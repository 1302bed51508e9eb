"""Metrics put records together as they say, whole and over resamples, by whatever they are made of."""

from __future__ import annotations

import pytest
import torch
import torchmetrics

from upright.evaluation import Mean, Ratio, Torchmetric
from upright.evaluation.measures import Measured, as_metric, gap_closed
from upright.evaluation.metrics import clustered, resamples, wilson


def recorded(metric, table):
    """Records of predictions ``table[p][i]`` against targets 0, 1, …."""
    return [[metric.record(x, float(i)) for i, x in enumerate(column)] for column in table]


def test_shares_of_pictures_have_a_closed_form():
    metric = Mean("right", lambda x, t: x == t)
    measured = metric.measure(recorded(metric, [[0, 1, 2, 3], [0, 1, 5, 5]]))
    assert measured.values.tolist() == [1, 0.5]
    assert measured.draws is None
    assert measured.at(1, 0.95) == wilson(0.5, 4)
    assert measured.mean(0.95) == clustered(torch.tensor([[1, 1], [1, 1], [1, 0], [1, 0]]).bool())
    assert measured.mean(0.95, 1).value == 0.5


def test_means_of_numbers_leave_out_what_is_not_defined():
    metric = Mean("error", lambda x, t: torch.tensor(x), lower_is_better=True)
    records = recorded(metric, [[1.0, 3.0, torch.nan], [0.0, 4.0, 5.0]])
    assert metric.measure(records).values.tolist() == [2, 3]
    weights = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 2.0]], dtype=torch.float64)
    assert metric.values(records, weights).tolist() == [[pytest.approx(5 / 3), 4 / 3], [3, 14 / 3]]
    with pytest.raises(ValueError, match="error is not defined on these pictures"):
        metric.measure([[torch.nan, torch.nan]])


def test_ratios_of_sums_are_no_means_of_ratios():
    metric = Ratio("share", lambda x, t: x)
    records = [[metric.record(x, None) for x in [(1, 2), (8, 8)]]]
    assert metric.measure(records).values.tolist() == [0.9]
    several = [[metric.record((torch.tensor(a), torch.tensor(b)), None)
                for a, b in [([1, 0], [2, 4]), ([1, 0, 0], [2, 0, 0])]]]  # fmt: skip
    assert metric.measure(several).values.tolist() == [0.25]  # 2/4 and 0/4; the third has nothing to find


def test_intervals_are_those_of_resampled_pictures():
    metric, generator = Mean("number", lambda x, t: x), torch.Generator().manual_seed(0)
    table = torch.randn(2, 300, generator=generator).double()
    estimate = metric.measure(table.tolist()).at(0, 0.95)
    half = 1.96 * float(table[0].std()) / 300**0.5  # the normal interval of a mean
    assert estimate.value == pytest.approx(float(table[0].mean()))
    assert estimate.high - estimate.value == pytest.approx(half, rel=0.3)
    assert estimate.value - estimate.low == pytest.approx(half, rel=0.3)


@pytest.mark.filterwarnings("ignore:.*buffer")
@pytest.mark.parametrize("name", ["MeanSquaredError", "KendallRankCorrCoef"])
def test_torchmetrics(name):
    make = getattr(torchmetrics, name)
    theirs = make()
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(3, 40, generator=generator), torch.rand(3, 40, generator=generator)
    metric = as_metric(theirs)
    assert isinstance(metric, Torchmetric)
    assert metric.lower_is_better == (name == "MeanSquaredError")
    records = [[metric.record(a, b) for a, b in zip(x[p], y[p], strict=True)] for p in range(3)]
    weights = resamples(40, 3)
    found = metric.values(records, weights)
    for r in range(3):
        drawn = torch.arange(40).repeat_interleave(weights[r].long())
        for p in range(3):
            expected = make()(x[p][drawn], y[p][drawn])
            assert found[r, p].item() == pytest.approx(float(expected), rel=1e-4)


def test_what_can_be_a_metric():
    def absolute_error(x, t):
        return abs(x - t)

    assert as_metric(absolute_error).name == "absolute error"
    assert as_metric(metric := Mean("m", absolute_error)) is metric
    with pytest.raises(TypeError, match="the state 'mean_x' of PearsonCorrCoef is neither a sum nor"):
        as_metric(torchmetrics.PearsonCorrCoef())
    with pytest.raises(TypeError, match=r"metrics must be functions of \(prediction, target\)"):
        as_metric("accuracy")


def test_gap_closed():
    vanilla = Measured.of(torch.tensor([[True, False]] * 10))
    adapted = Measured.of(torch.tensor([[True, True]] * 5 + [[True, False]] * 5))
    oracle, nothing = (Measured.of(torch.full((10, 2), value)) for value in (True, False))
    assert gap_closed(vanilla, adapted, oracle) == pytest.approx(0.5)
    assert gap_closed(vanilla, oracle, oracle) == pytest.approx(1)
    assert gap_closed(vanilla, nothing, oracle) == pytest.approx(-1)
    assert gap_closed(vanilla, adapted, nothing) is None


def test_no_share_of_a_gap_that_is_none_or_noise():
    same = torch.tensor([[True, False]] * 10)
    noisy = same.clone()
    noisy[0, 1] = True  # the oracle is better on a single picture of ten
    of = Measured.of
    assert gap_closed(of(same), of(~same), of(same)) is None
    assert gap_closed(of(same), of(noisy), of(noisy)) is None
    assert gap_closed(of(noisy), of(same), of(same)) is None
    assert gap_closed(of(same[:1]), of(noisy[:1]), of(noisy[:1])) is None


def test_gap_of_errors_and_of_resampled_metrics():
    better = Mean("error", lambda x, t: x, lower_is_better=True)
    values = torch.rand(3, 30, generator=torch.Generator().manual_seed(0)).double()

    def measured(offset, noise=0.1):
        return better.measure([[offset + noise * float(x) for x in column] for column in values])

    closed = gap_closed(measured(1.0), measured(0.75), measured(0.0), lower_is_better=True)
    assert closed == pytest.approx(0.25)
    assert gap_closed(measured(1.0), measured(0.75), measured(0.0)) is None  # a share that falls: no gap
    assert gap_closed(measured(0.0), measured(0.75), measured(1.0)) == pytest.approx(0.75)
    assert gap_closed(measured(0.0), measured(0.0), measured(0.0), lower_is_better=True) is None
    noisy = better.measure((2 * torch.rand(3, 30, generator=torch.Generator().manual_seed(1))).tolist())
    assert gap_closed(measured(1.0), noisy, noisy, lower_is_better=True) is None
