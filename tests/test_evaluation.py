"""`evaluate` gives exactly the numbers that can be computed by hand, and cannot be fooled.

The toy: pictures whose top left corner is marked, of one brightness a class. The model is right if and
only if the mark is where it belongs, and says the next class otherwise. The canonicalizer reads the mark.
"""

from __future__ import annotations

import dataclasses
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image as Picture
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import upright
from upright.actions import act
from upright.canonicalizers import Pose
from upright.evaluation import Report
from upright.evaluation.degrade import reencoded, resampled
from upright.groups import Element

CLASSES = 10


def marked(count, height=8, width=8):
    """Pictures of class 0, 1, …: brightness class/20, a mark of 1 in the corner and 0.75 to its right."""
    labels = torch.arange(count) % CLASSES
    x = (labels / 20).view(-1, 1, 1, 1).expand(-1, 1, height, width).clone()
    x[..., 0, 0], x[..., 0, 1] = 1.0, 0.75
    return x, labels


def is_upright(x):
    return (x[:, 0, 0, 0] > 0.9) & ((x[:, 0, 0, 1] - 0.75).abs() < 0.1)


class OnlyUpright(nn.Module):
    """Right where the mark is in its place, otherwise the next class; counts the pictures that it saw."""

    def __init__(self, wrap=lambda scores: scores):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))
        self.wrap, self.seen = wrap, 0

    def forward(self, x):
        self.seen += len(x)
        number = (x[:, 0, x.shape[2] // 2, x.shape[3] // 2] * 20).round().long()
        number = torch.where(is_upright(x), number, number + 1) % CLASSES
        return self.wrap(5.0 * nn.functional.one_hot(number, CLASSES).float())


class ReadsMark(upright.Canonicalizer):
    """Turns back until the mark is in its place; ``spoil`` changes what it finds."""

    def __init__(self, group="C4", spoil=lambda number, x: number, certainty=20.0):
        super().__init__(group)
        self.spoil, self.certainty = spoil, certainty

    def forward(self, x):
        if not isinstance(x, torch.Tensor):
            poses = [self(picture[None]) for picture in x]
            return Pose(
                Element(self.group, torch.cat([p.element.value for p in poses])),
                torch.cat([p.log_probs for p in poses]),
            )
        fits = [is_upright(act(g.inverse().reshape(1), upright.Image(x)).data) for g in self.group.elements()]
        number = self.spoil(torch.stack(fits, 1).float().argmax(1), x) % self.group.order
        scores = self.certainty * nn.functional.one_hot(number, self.group.order).float()
        return Pose(Element(self.group, number), scores.log_softmax(-1))


def toy(group="C4", spoil=lambda number, x: number, wrap=lambda scores: scores, certainty=20.0, **settings):
    return upright.adapt(
        OnlyUpright(wrap), group, canonicalizer=ReadsMark(group, spoil, certainty), **settings
    )


def quick(robust, data, **settings):
    return upright.evaluate(robust, data, **{"leakage": False, "overhead": False, **settings})


def values(row):
    return [pose.accuracy.value for pose in row.poses]


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
            "rows must be one of 'vanilla', 'average', 'adapted', 'oracle', got 'bare'",
        ),
        ({"rows": ()}, "rows must be a non-empty"),
        ({"rows": "vanilla"}, "rows must be a non-empty"),
        ({"border": "wrap"}, "border must be one of"),
        ({"confidence": 95}, "confidence must lie between 0 and 1, got 95"),
        ({"limit": 0}, "limit must be positive"),
        ({"poses": upright.Cyclic(8).elements()}, "poses must be elements of C4"),
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


# --- leakage ---


def textured(count, side=40):
    """Smooth random pictures, bright in the top left quarter: content that says how they stand."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 5, 5, generator=generator)
    x = 0.6 * nn.functional.interpolate(coarse, side, mode="bilinear")
    x[..., : side // 2, : side // 2] += 0.4
    return x


class Reads(upright.Canonicalizer):
    """Scores every way to stand by a function of the picture turned back."""

    def __init__(self, score):
        super().__init__("C4")
        self.score = score

    def forward(self, x):
        scores = [
            self.score(act(g.inverse().reshape(1), upright.Image(x)).data) for g in self.group.elements()
        ]
        log_probs = torch.stack(scores, 1).log_softmax(-1)
        return Pose(Element(self.group, log_probs.argmax(-1)), log_probs)


def brightness(x):
    half = x.shape[-1] // 2
    return 20 * x[..., :half, :half].mean((1, 2, 3))


def speck(x):
    """Read one pixel that stands out of its neighbours by 1%: an artefact that turns with the picture."""
    return 2000 * (x[..., 0, 0] - x[..., 0:2, 1:3].mean((-1, -2))).mean(1)


def compression_grid(x):
    """Read the steps between 8×8 blocks: largest where the grid lies as the encoder laid it."""
    across, down = (x.diff(dim=-1).abs(), x.diff(dim=-2).abs())
    return 3e3 * (across[..., 7::8].mean((1, 2, 3)) + down[..., 7::8, :].mean((1, 2, 3)))


def with_specks(x):
    x = x.clone()
    x[..., 0, 0] = x[..., 0:2, 1:3].mean((-1, -2)) + 0.01
    return x


def from_jpeg(x, quality=75):
    pictures = []
    for picture in (x * 255).round().clamp(0, 255).byte():
        file = io.BytesIO()
        Picture.fromarray(picture.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality)
        pictures.append(torch.tensor(np.asarray(Picture.open(file))).permute(2, 0, 1) / 255)
    return torch.stack(pictures)


def checked(score, pictures, **settings):
    model = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 5))
    robust = upright.adapt(model, "C4", canonicalizer=Reads(score))
    return upright.evaluate(robust, pictures, overhead=False, **settings)


@pytest.mark.parametrize("scale", [lambda x: x, lambda x: 4 * x - 2, lambda x: (x * 255).round()])
def test_a_canonicalizer_that_reads_content_is_not_moved(scale):
    for pictures in (textured(60), from_jpeg(textured(60, 36))):
        report = checked(brightness, scale(pictures))
        assert report.canonicalizer.pose_accuracy.value > 0.95
        assert list(report.leakage) == ["re-encoded", "resampled"]
        for check in report.leakage.values():
            assert not check.moved
            assert abs(check.pose_accuracy.delta) <= check.tolerance
            assert check.verdict == "poses unmoved"
        assert "MOVED" not in str(report)


def test_a_canonicalizer_that_reads_a_speck_is_flagged():
    report = checked(speck, with_specks(textured(60)))
    assert report.canonicalizer.pose_accuracy.value > 0.95
    assert report.canonicalizer.equivariance > 0.95
    check = report.leakage["re-encoded"]
    assert check.moved
    assert check.pose_accuracy.delta < -0.2
    assert "MOVED" in str(report)


def test_a_canonicalizer_that_reads_interpolation_blur_is_flagged():
    class SharpIsUpright(upright.Canonicalizer):
        def forward(self, x):
            sharp = x.diff(dim=-1).abs().mean((1, 2, 3)) > 0.25
            return Pose(Element(self.group, torch.where(sharp, 0, 1)))

    robust = upright.adapt(
        nn.Sequential(nn.Flatten(), nn.Linear(768, 5)), "C8", canonicalizer=SharpIsUpright("C8")
    )
    noise = torch.rand(60, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    report = upright.evaluate(robust, noise, poses=[1], overhead=False, rows=("adapted",))
    assert report.canonicalizer.identity_rate.value == 1
    assert report.canonicalizer.pose_accuracy.value > 0.9  # as good as it gets, and worth nothing
    check = report.leakage["resampled"]
    assert check.moved
    assert check.identity_rate.delta < -0.9
    assert "traces of not being turned" in check.verdict


def test_a_canonicalizer_that_reads_the_compression_grid_is_flagged():
    report = checked(
        compression_grid, from_jpeg(textured(60, 36))
    )  # 36 is no multiple of 8: the grid has a top left
    assert report.canonicalizer.identity_rate.value > 0.9
    assert report.canonicalizer.pose_accuracy.value > 0.9
    check = report.leakage["re-encoded"]
    assert check.moved
    assert check.pose_accuracy.delta < -0.1
    assert check.identity_rate.delta > -0.05  # re-encoding upright pictures lays the same grid again
    assert "artefacts that turn along" in check.verdict


def test_the_models_own_loss_is_told_apart():
    report = quick(toy(), marked(20), leakage=True)  # the mark does not survive, for the model neither
    check = report.leakage["resampled"]
    assert check.upright["vanilla"].delta == -1
    assert check.orbit_mean["oracle"].delta == -1
    assert list(check.orbit_mean) == ["adapted", "oracle"]
    assert check.identity_rate.before == 1


def test_leakage_on_some_of_the_pictures():
    report = quick(toy(), marked(20), leakage=True, leakage_limit=7, batch_size=4)
    assert {check.pictures for check in report.leakage.values()} == {7}


@pytest.mark.parametrize("degrade", [reencoded, resampled])
def test_degrading_does_not_depend_on_the_range_of_values(degrade):
    x = textured(3, 20)
    expected = 6 * degrade(x) - 3
    assert torch.allclose(degrade(6 * x - 3), expected, atol=6 * 1.5 / 255)
    assert not torch.equal(degrade(x), x)
    assert degrade(x.half()).dtype == torch.float16


@pytest.mark.parametrize("degrade", [reencoded, resampled])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_degrading_integers_and_any_number_of_channels(degrade, channels):
    x = (torch.rand(2, channels, 9, 13) * 255).byte()
    assert degrade(x).dtype == torch.uint8
    assert degrade(x).shape == x.shape
    assert degrade(x[:0]).shape == x[:0].shape
    flat = torch.full((1, channels, 8, 8), 7.0)
    assert torch.allclose(degrade(flat), flat)


# --- overhead and report ---


def test_overhead():
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))
    robust = upright.adapt(model, "C4", canonicalizer=upright.canonicalizer("C4", size=34))
    cost = upright.evaluate(robust, torch.rand(20, 3, 34, 34), leakage=False).overhead
    assert cost.batch == (8, 3, 34, 34)
    assert cost.parameters_model == 16 * 28 + 17 * 4
    assert cost.parameters_added == sum(p.numel() for p in robust.canonicalizer.parameters())
    assert cost.parameters_share == cost.parameters_added / cost.parameters_model
    assert cost.runs >= 3
    assert cost.time_ratio_low <= cost.time_ratio <= cost.time_ratio_high
    assert cost.seconds_adapted > 0
    activations = 8 * 16 * 32 * 32 * 4
    assert activations <= cost.peak_bytes_model <= 2 * activations
    assert cost.peak_bytes_adapted > cost.peak_bytes_model
    assert cost.time_ratio > 1  # the canonicalizer is many times the size of this model
    assert cost.passes == 1


@pytest.fixture(scope="module")
def full_report():
    return upright.evaluate(toy("D4"), marked(20))


def test_report_survives_saving(full_report, tmp_path):
    path = tmp_path / "new folder" / "report.json"
    assert full_report.save(path) == path
    assert Report.load(path) == full_report
    assert str(Report.load(path)) == str(full_report)
    assert [p.name for p in path.parent.iterdir()] == ["report.json"]
    data = json.loads(path.read_text())
    assert data["schema_version"] == 1
    assert data["library_version"] == upright.__version__
    setting = data["setting"]
    assert setting["torch"] == torch.__version__
    assert setting["threads"] == torch.get_num_threads()
    assert (setting["border"], setting["interpolation"], setting["size"]) == ("edge", "bilinear", "8×8")
    assert setting["machine"]


def test_a_failed_save_leaves_the_old_report(full_report, tmp_path):
    path = full_report.save(tmp_path / "report.json")
    with pytest.raises(ValueError, match="JSON compliant"):
        dataclasses.replace(full_report, gap_closed=float("nan")).save(path)
    assert Report.load(path) == full_report
    assert len(list(tmp_path.iterdir())) == 1


def test_foreign_and_damaged_reports(full_report, tmp_path):
    path = tmp_path / "report.json"
    data = full_report.to_dict()
    with pytest.raises(ValueError, match=r"schema_version 1, got 99; .* evaluate again"):
        Report.from_dict({**data, "schema_version": 99})
    path.write_text("[1, 2]")
    with pytest.raises(ValueError, match="schema_version 1, got None"):
        Report.load(path)
    path.write_text(full_report.to_json()[:1000])
    with pytest.raises(ValueError, match="no valid JSON"):
        Report.load(path)
    with pytest.raises(ValueError, match=r"report must have .* unknown: \['colour'\]"):
        Report.from_dict({**data, "colour": "red"})
    with pytest.raises(ValueError, match=r"report.gap_closed must be of type float, got str"):
        Report.from_dict({**data, "gap_closed": "all"})
    with pytest.raises(FileNotFoundError):
        Report.load(tmp_path / "none.json")


def test_printing_shows_what_matters(full_report):
    text = str(full_report)
    for words in (
        "bare model", "adapted", "oracle", "orbit mean", "worst pose", "identity rate", "true pose found",
        "share of the gap", "100.0%", "flip 270°", "re-encoded (JPEG, quality 80)", "peak memory",
        "border edge",
        "20 pictures of 8×8", "OnlyUpright, D4, canonical",
    ):  # fmt: skip
        assert words in text
    assert max(map(len, text.splitlines())) <= 120


def test_progress_bar_shows_and_changes_nothing(capsys):
    assert quick(toy(), marked(10), progress=True).rows == quick(toy(), marked(10)).rows
    assert "evaluating" in capsys.readouterr().out
