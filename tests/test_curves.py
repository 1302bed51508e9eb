"""Evaluation off the grid gives the numbers that a clock face tells, whatever group the model was made for.

The toy: a picture holds one bright dot, whose place tells its angle (or its distance from the centre, or its
hue). The model is right where that is within 30° of its place. So accuracy is known at every angle.
"""

import json
import math

import pytest
import torch
from torch import nn

import mutants_evaluation
import upright
from upright import evaluation
from upright.canonicalizers import Pose
from upright.evaluation import leakage, poses, summary
from upright.evaluation.measures import Measured
from upright.evaluation.metrics import resamples
from upright.groups import O2, Scale
from upright.groups.colour import Hue

SIDE = 33


def dots(count=2):
    """A dot above the centre, with brightness 1 for class 0 and 0.5 for class 1."""
    y, x = torch.meshgrid(*[torch.arange(SIDE) - SIDE // 2] * 2, indexing="ij")
    dot = torch.exp(-((x**2 + (y + 10) ** 2) / 8.0))
    labels = torch.arange(count) % 2
    return dot * (1 - labels.view(-1, 1, 1, 1) / 2), labels


def clock(x):
    """The angle of the dot, counter-clockwise from above, in degrees, and its distance from the centre."""
    weight = x[:, 0] * (x[:, 0] > 0.5 * x[:, 0].amax((1, 2), keepdim=True))
    axis = torch.arange(SIDE) - SIDE // 2
    total = weight.sum((1, 2))
    right, down = (weight.sum(1) @ axis.float()) / total, (weight.sum(2) @ axis.float()) / total
    return torch.rad2deg(torch.atan2(-right, -down)) % 360, torch.hypot(right, down)


class Near(nn.Module):
    """Right where the dot is within 30° of above, and 8 to 12 pixels away; counts what it saw."""

    def __init__(self):
        super().__init__()
        self.seen = 0

    def forward(self, x):
        self.seen += len(x)
        angle, distance = clock(x)
        off = torch.minimum(angle, 360 - angle)
        good = (off < 31) & (distance > 8) & (distance < 12)
        label = (x[:, 0].amax((1, 2)) < 0.8).long()
        return 4.0 * nn.functional.one_hot(torch.where(good, label, 1 - label), 2).float()


class Reads(upright.Canonicalizer):
    """Reads the clock: the nearest element of C_n, or the angle itself; ``off`` degrees wrong."""

    def __init__(self, group, off=0.0):
        super().__init__(group)
        self.off = off

    def forward(self, x):
        angle = (clock(x)[0] + self.off) % 360
        if isinstance(self.group, upright.Cyclic):
            index = (angle * self.group.n / 360).round().long() % self.group.n
            scores = 9.0 * nn.functional.one_hot(index, self.group.n)
            return Pose(self.group.element(index), scores.float().log_softmax(-1))
        return Pose(self.group.element(degrees=angle))


def curve(group="C4", values=range(0, 360, 10), off=0.0, **settings):
    robust = upright.adapt(Near(), group, canonicalizer=Reads(group, off))
    return upright.evaluate_curve(robust, dots(), "rotation", values, **{"overhead": False, **settings})


def right(row):
    return {round(pose.degrees): pose.accuracy.value for pose in row.poses}


def check_curve():
    """What a model made for quarter turns is worth at every tenth degree, by hand."""
    report = curve()
    by_hand = {d: float(min(d, 360 - d) < 31) for d in range(0, 360, 10)}
    assert right(report.rows["vanilla"]) == by_hand
    # quarter turns leave at most 45° (of which 10° steps reach 40°), of which 30° are allowed
    rest = {d: float(min(d % 90, 90 - d % 90) < 31) for d in range(0, 360, 10)}
    assert right(report.rows["adapted"]) == rest
    assert right(report.rows["oracle"]) == dict.fromkeys(range(0, 360, 10), 1.0)
    for name, expected in (("vanilla", by_hand), ("adapted", rest)):
        row = report.rows[name]
        assert row.worst_case.value == row.worst.accuracy.value == min(expected.values()) == 0
        assert row.orbit_mean.value == pytest.approx(sum(expected.values()) / 36)
    chosen = report.canonicalizer
    assert chosen.pose_accuracy.value == chosen.equivariance == 1  # the nearest quarter turn is right
    assert chosen.tolerance == pytest.approx(math.pi / 4)
    assert report.setting.group == "C4"
    assert report.setting.poses == "SO2"


def check_continuous():
    """A model made for all angles; its canonicalizer is off by 20 degrees, which does not count as near."""
    report = curve("SO2", values=range(0, 360, 45), off=20.0)
    chosen = report.canonicalizer
    assert right(report.rows["adapted"]) == dict.fromkeys(range(0, 360, 45), 1.0)
    assert math.degrees(chosen.pose_error) == pytest.approx(20, abs=1.5)
    assert math.degrees(chosen.equivariance_error) == pytest.approx(0, abs=1.5)
    assert chosen.pose_accuracy.value == chosen.identity_rate.value == 0
    assert chosen.equivariance == 1


def check_direction():
    """At a quarter turn counter-clockwise the dot lies left."""
    sides = lambda x: torch.stack([x[:, 0, :, :9].sum((1, 2)), x[:, 0, :, -9:].sum((1, 2))], 1)  # noqa: E731
    robust = upright.adapt(sides, "C4", canonicalizer="identity")
    x, _ = dots(1)
    report = upright.evaluate_curve(robust, (x, torch.zeros(1).long()), values=[80, 280], overhead=False)
    assert right(report.rows["vanilla"])[80] == 1
    assert right(report.rows["vanilla"])[280] == 0


CHECKS = [check_curve, check_continuous, check_direction]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_curves(check):
    check()


@pytest.mark.parametrize("name", mutants_evaluation.CURVES)
def test_mutants_are_caught(name, monkeypatch):
    where, attribute, mutant = mutants_evaluation.CURVES[name]
    for module in (where, leakage, summary) if where is poses else (where,):
        monkeypatch.setattr(module, attribute, mutant, raising=False)
    caught = 0
    for check in CHECKS:
        try:
            check()
        except AssertionError:
            caught += 1
    assert caught, f"no check tells {name!r}"


def test_poses_default_to_a_grid_of_a_continuous_group():
    robust = upright.adapt(Near(), "SO2", canonicalizer=Reads("SO2"))
    report = upright.evaluate(robust, dots(), leakage=False, overhead=False)
    poses_ = report.rows["adapted"].poses
    assert [pose.degrees for pose in poses_] == [15.0 * i for i in range(24)]
    assert poses_[3].label == "45°"
    assert list(report.rows) == ["vanilla", "adapted", "oracle"]
    assert report.canonicalizer.identity_rate.value == 1
    flips = poses.chosen_poses(O2(), None)
    assert len(flips) == 24
    assert flips[0].is_identity()
    assert int(O2().is_reflected(flips).sum()) == 12
    assert len(poses.chosen_poses(upright.parse_group("affine"), None)) == 24
    text = str(report)
    assert "median distance from the true pose" in text
    assert evaluation.Report.from_dict(json.loads(report.to_json())) == report


def test_scale():
    robust = upright.adapt(Near(), "C4", canonicalizer="identity")
    report = upright.evaluate_curve(robust, dots(), "scale", [0.5, 0.75, 1.1, 1.5], overhead=False)
    row = report.rows["vanilla"]
    assert [pose.label for pose in row.poses] == ["×1", "×0.5", "×0.75", "×1.1", "×1.5"]
    assert [pose.accuracy.value for pose in row.poses] == [1, 0, 0, 1, 0]  # 10, 5, 7.5, 11 and 15 pixels
    assert [pose.value for pose in row.poses] == pytest.approx([1, 0.5, 0.75, 1.1, 1.5])
    assert report.canonicalizer.pose_accuracy.value == 1  # scales are nothing that C4 could find
    adapted = upright.adapt(Near(), Scale(), canonicalizer=Enlarges())
    report = upright.evaluate_curve(adapted, dots(), "scale", [0.75, 1.25], overhead=False)
    assert [pose.accuracy.value for pose in report.rows["adapted"].poses] == [1, 1, 1]
    assert report.canonicalizer.pose_accuracy.value == 1


class Enlarges(upright.Canonicalizer):
    def __init__(self):
        super().__init__(Scale())

    def forward(self, x):
        return Pose(Scale().element((clock(x)[1] / 10).double()))


@pytest.mark.parametrize(("mean", "std"), [(None, None), ([0.5, 0.4, 0.3], [0.2, 0.3, 0.4])])
def test_hue_of_pictures_as_they_were_normalised(mean, std):
    x = torch.zeros(3, 3, 8, 8)
    x[:, 0], x[:, 1] = 0.9, 0.1  # red
    shift = torch.tensor(mean or [0.0] * 3).view(-1, 1, 1)
    scale = torch.tensor(std or [1.0] * 3).view(-1, 1, 1)
    model = lambda seen: (seen * scale + shift).mean((2, 3))  # the most of R, G, B  # noqa: E731
    robust = upright.adapt(model, "C4", canonicalizer="identity")
    data = ((x - shift) / scale, torch.zeros(3).long())
    report = upright.evaluate_curve(
        robust, data, "hue", [0, 30, 90, 120, 240], mean=mean, std=std, overhead=False
    )
    row = report.rows["vanilla"]
    assert [pose.accuracy.value for pose in row.poses] == [1, 1, 0, 0, 0]
    assert row.poses[3].label == "120°"
    assert right_of(report.rows["oracle"]) == [1] * 5
    assert isinstance(poses.chosen_poses(Hue(), None).group, Hue)


def test_hues_of_a_finite_group_are_compared_with_any_hue():
    class Reddest(upright.Canonicalizer):
        """The channel that is brightest is red."""

        def forward(self, x):
            return Pose(self.group.element(x.mean((2, 3)).argmax(1)))

    x = torch.zeros(2, 3, 8, 8)
    x[:, 0], x[:, 1:] = 0.9, 0.1
    model = lambda seen: seen.mean((2, 3))  # noqa: E731
    robust = upright.adapt(model, "hue3", canonicalizer=Reddest("hue3"))
    report = upright.evaluate_curve(
        robust, (x, torch.zeros(2).long()), "hue", [0, 50, 70, 240], overhead=False
    )
    assert report.canonicalizer.pose_accuracy.value == report.canonicalizer.equivariance == 1
    assert right_of(report.rows["adapted"]) == [1] * 4
    assert right_of(report.rows["vanilla"]) == [1, 1, 0, 0]
    own = upright.evaluate(robust, (x, torch.zeros(2).long()), overhead=False, leakage=False)
    assert [pose.label for pose in own.rows["adapted"].poses] == ["0°", "120°", "240°"]


def right_of(row):
    return [pose.accuracy.value for pose in row.poses]


@pytest.mark.parametrize("lower", [False, True])
def test_the_worst_case_is_resampled_with_its_pose(lower):
    found = torch.rand(60, 5, generator=torch.Generator().manual_seed(1)) < torch.tensor(
        [0.9, 0.5, 0.6, 0.9, 0.5]
    )
    measured = Measured.of(found)
    worst = measured.worst(0.9, lower_is_better=lower)
    pick = torch.amax if lower else torch.amin
    assert worst.value == pytest.approx(float(pick(found.double().mean(0), 0)))
    by_hand = []
    for weights in resamples(60):
        index = torch.arange(60).repeat_interleave(weights.long())
        by_hand.append(float(pick(found[index].double().mean(0), 0)))
    low, high = torch.tensor(by_hand).double().quantile(torch.tensor([0.05, 0.95]).double()).tolist()
    assert worst.low <= min(low, worst.value) + 1e-9
    assert worst.high >= max(high, worst.value) - 1e-9
    if not lower:  # two poses are equally bad: the smaller of two means lies lower than each
        assert worst.low == pytest.approx(low)


def test_figure(tmp_path):
    report = curve(values=range(0, 360, 45), rows=("vanilla", "adapted", "average", "oracle"))
    assert report.plot_curve(tmp_path / "rotation.png").stat().st_size > 20_000
    robust = upright.adapt(Near(), "C4", canonicalizer="identity")
    scaled = upright.evaluate_curve(robust, dots(), "scale", overhead=False)
    assert scaled.plot_curve(tmp_path / "scale.svg").stat().st_size > 5_000
    with pytest.raises(ValueError, match="rows must name rows"):
        evaluation.plot_curve(report, tmp_path / "x.png", rows=["bare"])
    flips = upright.evaluate(upright.adapt(Near(), "D4", canonicalizer="identity"), dots(), leakage=False,
                             overhead=False)  # fmt: skip
    with pytest.raises(ValueError, match="one number tells apart"):
        flips.plot_curve(tmp_path / "x.png")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["rotation.png", "scale.svg"]


def test_a_transformation_of_ones_own_and_sets():
    robust = upright.adapt(Near(), "C4", canonicalizer="identity")
    tenth = evaluation.Transformation(
        "tilt",
        upright.SO2(),
        lambda group, x: group.element(degrees=10 * x),
        lambda g: g.value,
        (0.0, 1.0),
        "tilt",
    )
    report = upright.evaluate_curve(robust, dots(), tenth, [0, 2, 9], overhead=False)
    assert [pose.degrees for pose in report.rows["vanilla"].poses] == [0, 20, 90]
    listed = upright.SO2().element(degrees=torch.tensor([20.0, 50.0]))
    assert right(upright.evaluate_curve(robust, dots(), listed, overhead=False).rows["vanilla"]) == {
        0: 1,
        20: 1,
        50: 0,
    }


def test_mistakes():
    robust = upright.adapt(Near(), "C4", canonicalizer="identity")
    with pytest.raises(ValueError, match="transformation must be one of 'rotation', 'scale', 'hue'"):
        upright.evaluate_curve(robust, dots(), "shear")
    with pytest.raises(ValueError, match="values of rotation must be finite numbers, at least one"):
        upright.evaluate_curve(robust, dots(), "rotation", [])
    with pytest.raises(ValueError, match="factor must be positive"):
        upright.evaluate_curve(robust, dots(), "scale", [0.0])
    with pytest.raises(TypeError, match="leave them out where elements are given"):
        upright.evaluate_curve(robust, dots(), upright.Cyclic(8).elements(), [1])
    with pytest.raises(ValueError, match="mean and std must be given together"):
        upright.evaluate_curve(robust, dots(), "hue", mean=[0.5] * 3)
    with pytest.raises(ValueError, match="SO2 turns by more than quarter turns and needs square pictures"):
        upright.evaluate_curve(robust, torch.rand(2, 1, SIDE, 20), "rotation")
    with pytest.raises(TypeError, match="poses of SO2 must be elements"):
        upright.evaluate(upright.adapt(Near(), "SO2", canonicalizer=Reads("SO2")), dots(), poses=[1])


def test_every_picture_is_turned_once_a_value():
    robust = upright.adapt(Near(), "C4", canonicalizer=Reads("C4"))
    upright.evaluate_curve(robust, dots(), values=[0, 10, 20], rows=("vanilla", "adapted"), overhead=False)
    assert robust.model.seen == 2 * (3 + 3)
