"""`evaluate` gives exactly the numbers that can be computed by hand, and cannot be fooled."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import upright
from evaluation_toys import CLASSES, OnlyUpright, marked, quick, toy, values


@pytest.mark.parametrize(("group", "order"), [("C4", 4), ("D4", 8), ("C2", 2)])
def test_a_model_that_is_right_only_upright(group, order):
    report = quick(toy(group), marked(20), batch_size=7)
    vanilla, average, adapted, oracle = (report.rows[n] for n in ("vanilla", "average", "adapted", "oracle"))
    assert values(vanilla) == [1.0] + [0.0] * (order - 1)
    assert vanilla.upright.value == 1
    assert vanilla.orbit_mean.value == pytest.approx(1 / order)
    assert vanilla.turned_mean.value == 0
    assert vanilla.worst.accuracy.value == 0
    assert vanilla.worst.element != 0
    assert vanilla.changed == 1
    assert vanilla.largest_difference == pytest.approx(5)
    assert vanilla.mean_difference == pytest.approx(2 * 5 / CLASSES)
    assert values(adapted) == values(oracle) == [1.0] * order
    assert adapted.changed == adapted.largest_difference == 0
    assert report.gap_closed == pytest.approx(1)
    outvoted = 0.0 if order > 2 else values(average)[0]  # one right vote among the others
    assert values(average) == [outvoted] * order
    assert average.changed == 0
    assert [row.passes for row in (vanilla, average, adapted, oracle)] == [1, order, 1, 1]
    assert report.setting.pictures == 20
    assert report.setting.reference == "labels"


def test_poses_are_named_by_angle_and_reflection():
    poses = quick(toy("D4"), marked(4)).rows["vanilla"].poses
    assert [(p.degrees, p.reflected) for p in poses] == [(90.0 * (i % 4), i >= 4) for i in range(8)]
    assert poses[6].label == "flip 180°"


def test_a_canonicalizer_that_is_off_on_half_of_the_pictures_yet_equivariant():
    off = lambda number, x: number + (x[:, 0, 4, 4] > 0.22).long()  # classes 5 to 9  # noqa: E731
    report = quick(toy(spoil=off), marked(20))
    assert values(report.rows["adapted"]) == [0.5] * 4
    assert report.rows["adapted"].changed == 0
    assert report.gap_closed == pytest.approx((0.5 - 0.25) / (1 - 0.25))
    chosen = report.canonicalizer
    assert chosen.identity_rate.value == chosen.pose_accuracy.value == 0.5
    assert chosen.equivariance == 1
    assert chosen.equivariance_at == (1, 1, 1, 1)
    confidence = np.exp(20) / (np.exp(20) + 3)
    assert chosen.confidence == pytest.approx(confidence)
    assert chosen.calibration_error == pytest.approx(confidence - 0.5, abs=1e-5)


def test_a_canonicalizer_that_never_turns_looks_good_only_upright():
    never = upright.canonicalizer("C4", "identity")
    report = quick(upright.adapt(OnlyUpright(), "C4", canonicalizer=never), marked(20))
    chosen = report.canonicalizer
    assert chosen.identity_rate.value == 1
    assert chosen.pose_accuracy.value == chosen.equivariance == 0
    assert chosen.equivariance_at == (1, 0, 0, 0)
    assert [p.accuracy.value for p in chosen.poses] == [1, 0, 0, 0]
    assert report.rows["adapted"] == report.rows["vanilla"]
    assert report.gap_closed == 0


def test_pose_accuracy_is_told_apart_pose_by_pose():
    misses = lambda number, x: torch.where(number == 2, 1, number)  # noqa: E731
    chosen = quick(toy(spoil=misses), marked(10)).canonicalizer
    assert [p.accuracy.value for p in chosen.poses] == [1, 1, 0, 1]
    assert chosen.equivariance_at == (1, 1, 0, 1)
    assert chosen.pose_accuracy.value == pytest.approx(2 / 3)


def test_ties_are_never_right_and_never_the_identity():
    report = quick(toy(spoil=lambda number, x: number * 0, certainty=0.0), marked(20))
    chosen = report.canonicalizer
    assert chosen.identity_rate.value == 0
    assert chosen.pose_accuracy.value == 0
    assert chosen.tied == chosen.tied_upright == 1
    assert "100.0 / 100.0" in str(report)


def test_scores_that_are_no_numbers_are_wrong_changed_and_reported():
    def broken(scores):
        scores[scores[:, 3] > 0] = torch.nan
        return scores

    report = quick(toy(wrap=broken), marked(20))
    adapted = report.rows["adapted"]
    assert values(adapted) == [0.9] * 4
    assert adapted.changed == pytest.approx(0.1)
    assert adapted.invalid == 2 * 4
    assert adapted.largest_difference == 0
    assert "not numbers" in str(report)
    json.loads(report.to_json())


def test_masked_classes_do_not_hide_differences():
    def masked(scores):
        scores[:, 9] = -torch.inf
        return scores

    x, labels = marked(8)
    vanilla = quick(toy(wrap=masked), (x, labels)).rows["vanilla"]
    assert vanilla.largest_difference == pytest.approx(5)
    assert vanilla.mean_difference == pytest.approx(1)
    assert vanilla.invalid == 0

    def sure_where_right(scores):
        return torch.where(scores[:, :1] > 0, torch.inf, scores)

    report = quick(toy(wrap=sure_where_right), (x[:1], labels[:1]))
    assert report.rows["vanilla"].largest_difference == 0  # infinite ones are left out
    json.loads(report.to_json())


def test_exact_poses_cost_the_oracle_and_the_average_nothing_extra():
    robust = toy()
    quick(robust, marked(6))
    assert robust.model.seen == 6 * (4 + 4 + 4)  # vanilla, average once, adapted; the oracle is upright


def test_the_oracle_of_c8_runs_on_pictures_resampled_twice():
    robust = toy("C8")
    report = quick(robust, marked(6), rows=("vanilla", "oracle"))
    assert robust.model.seen == 6 * (8 + 4)
    assert values(report.rows["oracle"])[::2] == [1.0] * 4
    average = toy("C8")
    quick(average, marked(2), rows=("average",))
    assert average.model.seen == 2 * (8 * 8 + 1)  # an average at every pose, and upright for reference


@pytest.mark.parametrize(("border", "corner"), [("edge", 1.0), ("constant", 0.0)])
def test_the_border_is_the_callers_choice(border, corner):
    class Corner(nn.Module):
        def forward(self, x):
            return torch.stack([x[:, 0, 0, 0], torch.full((len(x),), 0.5)], 1)

    robust = upright.adapt(Corner(), "C8", canonicalizer="identity")
    report = quick(robust, torch.ones(2, 1, 8, 8), rows=("vanilla",), border=border)
    eighth = report.rows["vanilla"].poses[1]
    assert eighth.accuracy.value == corner  # at 45° the corner lies outside of the picture
    assert report.setting.border == border


def test_missing_labels_become_agreement_and_the_report_says_so():
    labelled, bare = quick(toy(), marked(20)), quick(toy(), marked(20)[0])
    assert bare.setting.reference == "bare model upright"
    assert bare.rows == labelled.rows
    assert "no labels" in str(bare)
    assert "no labels" not in str(labelled)
    shifted = quick(toy(), (marked(20)[0], (marked(20)[1] + 1) % CLASSES))
    assert shifted.rows["oracle"].orbit_mean.value == 0


def test_pictures_of_different_shapes_that_are_not_square():
    shapes = [(8, 12), (12, 8), (8, 12), (9, 9), (8, 13)]
    pictures = [marked(i + 1, *shape)[0][i] for i, shape in enumerate(shapes)]
    report = quick(toy("D4"), (pictures, torch.arange(5)), batch_size=4)
    assert values(report.rows["adapted"]) == [1.0] * 8
    assert values(report.rows["vanilla"]) == [1.0] + [0.0] * 7
    assert report.setting.size == "mixed sizes"
    assert quick(toy(), marked(3, 8, 12)).setting.size == "8×12"
    with pytest.raises(ValueError, match=r"needs square pictures, got 8×12"):
        quick(toy("C8"), marked(3, 8, 12))


def test_only_some_classes_may_be_predicted():
    x, labels = marked(20)
    few = labels < 2
    subset = quick(toy(), (x[few], labels[few]), classes=torch.tensor([1, 0]))
    assert values(subset.rows["vanilla"]) == [
        1,
        0.5,
        0.5,
        0.5,
    ]  # 0 is taken for 1; 1 for 2, which is not there
    assert subset.setting.classes == 2
    with pytest.raises(ValueError, match=r"labels must be among the 2 numbers in classes, got \[2, 3"):
        quick(toy(), (x, labels), classes=[0, 1])
    with pytest.raises(ValueError, match="classes must lie below 10"):
        quick(toy(), x, classes=[0, 10])
    with pytest.raises(ValueError, match="occur twice"):
        quick(toy(), x, classes=[1, 1])


class Output(dict):
    """Looks like a ModelOutput: a mapping built from keywords, with attributes."""

    def __init__(self, **entries):
        super().__init__(**entries)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"hidden": s[:, :3], "logits": s},
        lambda s: Output(logits=s, hidden=s[:, :3]),
        lambda s: (s, s[:, :3]),
        lambda s: s.half(),
    ],
)
def test_whatever_a_classifier_returns(wrap):
    assert quick(toy(wrap=wrap), marked(10)).rows == quick(toy(), marked(10)).rows


@pytest.mark.parametrize(
    "data",
    [
        lambda x, y: TensorDataset(x, y),
        lambda x, y: DataLoader(TensorDataset(x, y), batch_size=3),
        lambda x, y: DataLoader([{"pixel_values": a, "labels": b} for a, b in zip(x, y, strict=True)], 4),
    ],
)
def test_whatever_the_data_comes_in(data):
    assert quick(toy(), data(*marked(10))).rows == quick(toy(), marked(10)).rows


def test_limit_also_cuts_a_loader():
    assert quick(toy(), DataLoader(TensorDataset(*marked(20)), batch_size=6), limit=8).setting.pictures == 8
    assert quick(toy(), marked(20), limit=8).setting.pictures == 8


def test_poses_and_rows_can_be_chosen():
    report = quick(toy(), marked(10), poses=[2], rows=["vanilla"])
    assert [p.element for p in report.rows["vanilla"].poses] == [0, 2]
    assert list(report.rows) == ["vanilla"]
    assert report.gap_closed is None
    assert report.canonicalizer.pose_accuracy.value == 1
    alone = upright.evaluate(toy(), marked(10), poses=[0], overhead=False)
    assert alone.rows["vanilla"].turned_mean is None
    assert alone.canonicalizer.pose_accuracy is None
    assert alone.leakage == {}
    str(alone)


def test_modes_of_the_adapter_are_stated_with_their_passes():
    report = quick(toy(mode="top_k", top_k=3), marked(10), rows=("adapted",))
    assert report.rows["adapted"].passes == 3
    assert report.setting.mode == "top_k, top_k=3"


def test_training_mode_is_restored():
    robust = toy()
    robust.train()
    robust.canonicalizer.eval()
    quick(robust, marked(4))
    assert robust.model.training
    assert not robust.canonicalizer.training


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"rows": ("vanilla", "bare")},
            "rows must be a non-empty sequence of 'vanilla', .* got 'bare'",
        ),
        ({"rows": ()}, "rows must be a non-empty"),
        ({"rows": "vanilla"}, "rows must be a non-empty"),
        ({"border": "wrap"}, "border must be one of"),
        ({"confidence": 95}, "confidence must lie between 0 and 1, got 95"),
        ({"limit": 0}, "limit must be positive"),
    ],
)
def test_arguments_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        quick(toy(), marked(4), **settings)


def test_clear_errors():
    with pytest.raises(TypeError, match=r"robust must be an adapted model, got OnlyUpright; make one with"):
        upright.evaluate(OnlyUpright(), marked(4))
    for empty in (
        [],
        (torch.zeros(0, 1, 8, 8), torch.zeros(0).long()),
        DataLoader(TensorDataset(marked(0)[0])),
    ):
        with pytest.raises(ValueError, match=r"at least one picture|empty|no pictures"):
            quick(toy(), empty)
    with pytest.raises(ValueError, match=r"labels must be among 0…9, got \[12\]"):
        quick(toy(), (marked(2)[0], torch.tensor([1, 12])))
    with pytest.raises(ValueError, match=r"class scores of shape \(4, K\), got \(4,\)"):
        quick(toy(wrap=lambda s: s[:, 0]), marked(4))
    with pytest.raises(TypeError, match="must return class scores"):
        quick(toy(wrap=lambda s: "a cat"), marked(4), rows=("vanilla",))
