"""Every task gives the numbers that can be computed by hand, pose by pose, in the frame of the picture.

The toys: a picture's second channel is marked in the top left corner, from which its pose ``p`` (quarter
turns) is known. Models read what they find off the first channel, and make mistakes that grow with ``p``. So
the bare model's numbers are known and different at every pose, and those of the adapted model and of the
oracle are perfect, if and only if targets and outputs move as pictures do.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

import upright
from upright import evaluation
from upright.canonicalizers import Pose
from upright.evaluation import Task
from upright.evaluation.tasks import TASKS

HEIGHT, WIDTH = 8, 12


def standing(x):
    """By how many quarter turns pictures are turned, shape ``(B,)``: where the mark is."""
    corners = [x[:, 1, 0, 0], x[:, 1, -1, 0], x[:, 1, -1, -1], x[:, 1, 0, -1]]
    return torch.stack(corners, 1).argmax(1)


class ReadsMark(upright.Canonicalizer):
    def forward(self, x):
        whole = isinstance(x, torch.Tensor)
        number = standing(x) if whole else torch.cat([standing(picture[None]) for picture in x])
        return Pose(upright.Element(self.group, number))


def marked(content):
    """Pictures (B, 2, H, W) with the given first channel."""
    x = torch.zeros(len(content), 2, *content.shape[1:])
    x[:, 0], x[:, 1, 0, 0] = content, 1.0
    return x


def evaluated(model, data, task, outputs="invariant", group="C4", **settings):
    robust = upright.adapt(model, group, canonicalizer=ReadsMark(group), outputs=outputs)
    quick = {"overhead": False, "leakage": False, **settings}
    return upright.evaluate(robust, data, task=task, **quick)


def values(row, metric=None):
    poses = row.poses if metric is None else row.further[metric].poses
    return [pose.accuracy.value for pose in poses]


def check_rows(report, expected, perfect=1.0):
    """The bare model is as wrong as it is made to be; the others are not."""
    assert values(report.rows["vanilla"]) == pytest.approx(expected)
    for name in ("adapted", "oracle"):
        assert values(report.rows[name]) == pytest.approx([perfect] * 4)
        assert report.rows[name].changed == 0
        assert report.rows[name].largest_difference == pytest.approx(0, abs=1e-4)
    assert report.rows["vanilla"].changed == 1
    assert report.gap_closed == pytest.approx(1)
    worst = report.rows["vanilla"].worst
    assert worst.accuracy.value == pytest.approx(
        max(expected) if report.setting.lower_is_better else min(expected)
    )
    assert report.canonicalizer.pose_accuracy.value == report.canonicalizer.identity_rate.value == 1
    assert evaluation.Report.from_dict(report.to_dict()) == report
    assert report.setting.metric.lower() in str(report).lower()


# --- segmentation ---


def labels(count=6, classes=4, height=HEIGHT, width=WIDTH):
    return torch.randint(classes, (count, height, width), generator=torch.Generator().manual_seed(0))


def segments(x, classes=4):
    """Scores of the true classes, but for the first ``p`` of every four columns."""
    found = (x[:, 0] * 10).round().long().clamp(0, classes - 1)
    columns = torch.arange(x.shape[3]) % 4
    wrong = columns[None, None] < standing(x)[:, None, None]
    found = torch.where(wrong, (found + 1) % classes, found)
    return torch.nn.functional.one_hot(found, classes).permute(0, 3, 1, 2).float()


def test_segmentation():
    true = labels()
    x = marked(true / 10)
    report = evaluated(segments, (x, true), "segmentation", outputs="mask", batch_size=4)
    jaccard = pytest.importorskip("torchmetrics").JaccardIndex("multiclass", num_classes=4)
    expected = []
    for p in range(4):  # by NumPy and torchmetrics alone
        turned = torch.from_numpy(np.rot90(x.numpy(), p, (2, 3)).copy())
        target = torch.from_numpy(np.rot90(true.numpy(), p, (1, 2)).copy())
        expected.append(float(jaccard(segments(turned).argmax(1), target)))
    check_rows(report, expected)
    assert values(report.rows["vanilla"], "pixel accuracy") == [1, 0.75, 0.5, 0.25]
    assert values(report.rows["oracle"], "pixel accuracy") == [1] * 4
    assert (report.setting.task, report.setting.classes) == ("segmentation", 4)
    assert "average" in report.rows
    estimate = report.rows["vanilla"].poses[1].accuracy
    assert estimate.low < estimate.value < estimate.high


def test_segmentation_ignores_what_is_not_labelled():
    true = labels()
    x = marked(true / 10)
    true[:, :, 3] = 255
    numbers = segments(x).argmax(1)
    numbers[0, 0, 0] = (numbers[0, 0, 0] + 1) % 4
    wrong = evaluated(
        lambda x: numbers, (x, true), "segmentation", outputs="mask", poses=[0], rows=("vanilla",)
    )
    assert wrong.rows["vanilla"].further["pixel accuracy"].upright.value == 1 - 1 / (6 * HEIGHT * 11)


def test_segmentation_of_a_foreground_of_any_size_at_another_resolution():
    sizes = [(8, 12), (16, 8), (8, 8)]
    pictures, true = [], []
    for height, width in sizes:
        coarse = labels(1, 2, height // 2, width // 2)[0]
        fine = coarse.repeat_interleave(2, 0).repeat_interleave(2, 1)
        pictures.append(marked(fine[None] / 10)[0])
        true.append(fine.bool())

    def half(x):
        """Half the resolution, and nothing found where the picture is turned."""
        found = (x[:, :1, ::2, ::2] * 10).round()
        return 4 * found * (standing(x) == 0)[:, None, None, None] - 2

    task = evaluation.segmentation(background=False, threshold=0.0)
    data = list(zip(pictures, true, strict=True))
    report = evaluated(half, data, task, outputs="mask")
    found = [
        torch.nn.functional.interpolate(half(x[None]), x.shape[1:], mode="bilinear")[0, 0] >= 0
        for x in pictures
    ]
    both = sum(int((f & t).sum()) for f, t in zip(found, true, strict=True))
    either = sum(int((f | t).sum()) for f, t in zip(found, true, strict=True))
    check_rows(report, [both / either, 0, 0, 0], both / either)
    assert report.setting.size == "mixed sizes"


def test_segmentation_outside_of_a_turned_picture_does_not_count():
    x, true = marked(torch.full((3, 9, 9), 0.1)), torch.ones(3, 9, 9).long()
    robust = upright.adapt(lambda x: 1 + x[:, 0].long() * 0, "C8", canonicalizer="identity", outputs="mask")
    report = upright.evaluate(
        robust, (x, true), task="segmentation", overhead=False, leakage=False, rows=("vanilla",)
    )
    assert values(report.rows["vanilla"]) == [1] * 8


# --- depth ---


def test_depth():
    true = 1 + torch.rand(5, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    true[:, 0, :] = 0  # not measured
    x = marked(true)
    model = lambda x: x[:, :1] * (1 + 0.1 * standing(x)).view(-1, 1, 1, 1)  # noqa: E731
    report = evaluated(model, (x, true), "depth", outputs="mask")
    check_rows(report, [0, 0.1, 0.2, 0.3], 0)
    scale = true[:, 1:].square().mean((1, 2)).sqrt().mean().item()
    assert values(report.rows["vanilla"], "RMSE") == pytest.approx(
        [0.1 * p * scale for p in range(4)], abs=1e-5
    )
    assert values(report.rows["vanilla"], "δ < 1.25") == [1, 1, 1, 0]
    assert report.setting.lower_is_better
    text = str(report)
    assert "AbsRel, lower is better" in text
    assert "0.3 at 270°" in text


@pytest.mark.parametrize(("align", "offset"), [("median", 0.0), ("affine", 2.0)])
def test_depth_up_to_scale(align, offset):
    true = 1 + torch.rand(3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    model = lambda x: 7 * x[:, 0] + offset  # noqa: E731
    for task, error in ((evaluation.depth(align=align), 0.0), (evaluation.depth(), None)):
        row = evaluated(model, (marked(true), true), task, outputs="mask", rows=("vanilla",)).rows["vanilla"]
        assert (
            row.orbit_mean.value == pytest.approx(error, abs=1e-5)
            if error is not None
            else row.upright.value > 1
        )


# --- text ---


def test_text():
    model = lambda pictures: ["upright  \n 0123"[p:] for p in map(int, [standing(x[None]) for x in pictures])]  # noqa: E731
    data = [(x, "upright 0123") for x in marked(torch.rand(4, HEIGHT, WIDTH))]
    report = evaluated(model, data, "text")
    check_rows(report, [1, 11 / 12, 10 / 12, 9 / 12])
    assert values(report.rows["vanilla"], "characters in any order") == pytest.approx(
        [1 - p / 11 for p in range(4)]
    )
    assert "average" not in report.rows  # texts have none
    backwards = evaluated(lambda x: [["3210"]] * len(x), [(p, "0123") for p, _ in data], "text", poses=[0])
    assert backwards.rows["vanilla"].further["characters in any order"].upright.value == 1
    assert backwards.rows["vanilla"].upright.value < 0.5
    long = evaluated(lambda x: ["0123" * 9] * len(x), [(p, "0123") for p, _ in data], "text", poses=[0])
    assert long.rows["vanilla"].upright.value == 0  # not below


# --- retrieval ---


def embeddings(x):
    """The direction of the class; of the next one for classes below ``p``."""
    number = (x[:, 0, 2, 2] * 10).round().long()
    number = torch.where(number < standing(x), (number + 1) % 4, number)
    return 3.0 * torch.nn.functional.one_hot(number, 4).float() + 0.1 * x[:, 0, 3, 3:4]


def test_retrieval():
    classes = torch.arange(4).repeat(3)
    content = (classes / 10).view(-1, 1, 1).expand(-1, HEIGHT, WIDTH).clone()
    content[:, 3, 3] = torch.rand(12)
    content[:, -4, -4] = content[:, 3, 3]
    x = marked(content)
    report = evaluated(embeddings, (x, classes), evaluation.retrieval(at=(1, 3)))
    vanilla = report.rows["vanilla"]
    assert values(vanilla) == [1, 0.75, 0.5, 0.25]
    assert values(report.rows["adapted"]) == values(report.rows["oracle"]) == [1] * 4
    assert list(vanilla.further) == ["recall@3"]
    lonely = torch.cat([classes[:-1], torch.tensor([9])])  # has no other of its kind: does not look
    assert (
        evaluated(embeddings, (x, lonely), evaluation.retrieval(at=[2]), poses=[0])
        .rows["vanilla"]
        .upright.value
        == 1
    )
    with pytest.raises(ValueError, match="recall@1 is not defined on these pictures"):
        evaluated(embeddings, (x[:4], torch.arange(4)), "retrieval")


def test_retrieval_of_oneself():
    content = torch.rand(10, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    flat = lambda x: x[:, 0].flatten(1)  # noqa: E731
    report = evaluated(flat, marked(content), "retrieval")
    assert values(report.rows["adapted"]) == [1] * 4
    assert report.rows["vanilla"].upright.value == 1
    assert report.rows["vanilla"].turned_mean.value < 0.6
    assert report.setting.reference == "bare model upright"


# --- what all tasks share ---


def test_without_targets_it_is_agreement_with_the_bare_model_upright():
    x = marked(labels() / 10)
    with_targets = evaluated(segments, (x, labels()), "segmentation", outputs="mask")
    without = evaluated(segments, x, "segmentation", outputs="mask")
    assert without.rows == with_targets.rows  # upright, the toy is right
    assert "Agreement with the bare model on upright pictures (mIoU)" in str(without)


class Pairs(Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, i):
        return marked(labels() / 10)[i], labels()[i]


@pytest.mark.parametrize(
    "data",
    [
        Pairs(),
        list(Pairs()[i] for i in range(6)),
        (Pairs()[i] for i in range(6)),
        DataLoader(Pairs(), batch_size=4),
        [{"image": Pairs()[i][0], "label": Pairs()[i][1][None]} for i in range(6)],
        ([Pairs()[i][0] for i in range(6)], [Pairs()[i][1] for i in range(6)]),
        [(marked(labels() / 10)[:5], labels()[:5]), (marked(labels() / 10)[5:], [labels()[5]])],
    ],
)
def test_whatever_the_data_comes_in(data):
    report = evaluated(segments, data, "segmentation", outputs="mask", rows=("vanilla",))
    assert values(report.rows["vanilla"], "pixel accuracy") == [1, 0.75, 0.5, 0.25]
    assert report.setting.pictures == 6


def test_limit_and_leakage_and_cost():
    settings = {"leakage": True, "overhead": True, "limit": 3, "rows": ("vanilla", "adapted", "oracle")}
    report = evaluated(segments, Pairs(), "segmentation", outputs="mask", batch_size=2, **settings)
    assert report.setting.pictures == 3
    assert {check.pictures for check in report.leakage.values()} == {3}
    assert report.overhead.batch == (2, 2, HEIGHT, WIDTH)
    assert "share" not in report.leakage["re-encoded"].verdict


def test_a_task_of_ones_own(tmp_path):
    """Find the brightest pixel; off by ``p`` pixels."""

    def brightest(x):
        at = x[:, 0].flatten(1).argmax(1)
        spot = torch.stack([at % x.shape[3], at // x.shape[3]], 1) + 0.5
        return (spot + standing(x)[:, None] * torch.tensor([0.0, 1.0]))[:, None]

    content = torch.rand(8, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    at = content.flatten(1).argmax(1)
    true = torch.stack([at % WIDTH, at // WIDTH], 1)[:, None] + 0.5
    distance = lambda found, target: (found - target).norm(dim=-1).mean()  # noqa: E731
    task = Task(name="finding", target="points", metrics=[evaluation.Mean("pixels", distance, True, False)])
    report = evaluated(brightest, (marked(content), true), task, outputs="points")
    check_rows(report, [0, 1, 2, 3], 0)
    assert report.plot_angles(tmp_path / "angles.png").stat().st_size > 10_000


@pytest.mark.parametrize("name", TASKS)
def test_tasks_know_their_names(name):
    assert TASKS[name]().name == name


def test_clear_errors():
    x, true = marked(labels() / 10), labels()
    with pytest.raises(ValueError, match=r"task 'segmentation' needs .* moves as Mask, .* outputs='mask'"):
        evaluated(segments, (x, true), "segmentation", outputs="logits")
    with pytest.raises(
        ValueError, match=r"task must be one of 'classification', 'segmentation'.*got 'segment'"
    ):
        evaluated(segments, (x, true), "segment", outputs="mask")
    with pytest.raises(ValueError, match=r"class numbers of shape \(8, 12\), as the picture, got \(8, 11\)"):
        evaluated(segments, (x, true[..., :11]), "segmentation", outputs="mask")
    with pytest.raises(ValueError, match=r"class numbers 0…3 or 255 \(ignore\), got \[9, 10\]"):
        evaluated(segments, (x, true.clamp(min=1) * 9 % 17), "segmentation", outputs="mask")
    with pytest.raises(ValueError, match="targets must be one a picture, 6, got 5"):
        evaluated(segments, (x, true[:5]), "segmentation", outputs="mask")
    with pytest.raises(ValueError, match="some without"):
        evaluated(segments, [(x[0], true[0]), (x[1], None)], "segmentation", outputs="mask")
    with pytest.raises(ValueError, match=r"maps of shape \(B, K, h, w\)"):
        evaluated(lambda x: x.mean((2, 3)), (x, true), "segmentation", outputs="mask", rows=("vanilla",))
    with pytest.raises(TypeError, match="data must be pairs"):
        evaluated(segments, "photos/", "segmentation", outputs="mask")
    with pytest.raises(ValueError, match="classes goes with classification"):
        evaluated(segments, (x, true), "segmentation", outputs="mask", classes=[1])
    with pytest.raises(ValueError, match="embeddings of shape"):
        evaluated(segments, (x, torch.arange(6)), "retrieval", rows=("vanilla",))
    with pytest.raises(TypeError, match="list of 6 texts, got Tensor"):
        evaluated(segments, (x, ["a"] * 6), "text", rows=("vanilla",))
    with pytest.raises(ValueError, match="metrics must hold at least one"):
        Task(name="nothing", metrics=[])
