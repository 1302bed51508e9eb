"""Detection, instances and key points: average precision by hand, and in the frame of the picture.

The toys: four bright rectangles a picture; the model finds those that it sees exactly, but not the first
``p`` of them, where ``p`` quarter turns are read off a mark (see ``test_tasks``).
"""

from __future__ import annotations

import math

import pytest
import torch

from test_tasks import check_rows, evaluated, marked, standing, values
from upright import evaluation
from upright.evaluation.coco import AveragePrecision, similarity
from upright.evaluation.metrics import resamples

pytest.importorskip("faster_coco_eval")

THINGS = [(1, 1, 4, 3), (6, 1, 7, 4), (1, 5, 3, 7), (6, 5, 11, 7)]  # x, y, x, y
RECALL = [math.floor(100 * (4 - p) / 4 + 1) / 101 for p in range(4)]
"""Average precision where ``p`` of four are missed, nothing is wrong: recalls 0, 0.01, … up to 1 − p/4."""


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    """Intervals are tested elsewhere; matching many times takes seconds."""
    monkeypatch.setattr(AveragePrecision, "resamples", 8)


def scene(count=5, height=8, width=12):
    """Pictures with rectangles of brightness 0.2, 0.4, 0.6, 0.8, and where they are."""
    content = torch.zeros(count, height, width)
    for i, (left, top, right, bottom) in enumerate(THINGS):
        content[:, top:bottom, left:right] = 0.2 * (i + 1)
    masks = torch.stack([content[0].sub(0.2 * (i + 1)).abs() < 0.01 for i in range(4)])
    target = {"boxes": torch.tensor(THINGS).float(), "labels": torch.tensor([1, 1, 1, 1]), "masks": masks}
    return marked(content), [target] * count


def find(pictures):
    """One dict a picture, as the detectors of torchvision return them."""
    found = []
    for x in pictures:
        p = int(standing(x[None]))
        masks = torch.stack([x[0].sub(0.2 * (i + 1)).abs() < 0.01 for i in range(4)])[p:]
        rows, columns = masks.any(2).double(), masks.any(1).double()
        first, last = (lambda m: m.argmax(1)), (lambda m: m.shape[1] - m.flip(1).argmax(1))
        boxes = torch.stack([first(columns), first(rows), last(columns), last(rows)], 1).float()
        scores = torch.linspace(0.9, 0.6, len(masks))
        found.append({"boxes": boxes, "labels": torch.ones(len(masks)).long(), "scores": scores,
                      "masks": masks[:, None].float()})  # fmt: skip
    return found


OUTPUTS = {"boxes": "boxes", "masks": "mask"}


@pytest.mark.parametrize(("task", "metric"), [("detection", "AP50"), ("instances", "mask AP50")])
def test_what_is_missed_is_missed_pose_by_pose(task, metric):
    x, targets = scene()
    report = evaluated(find, list(zip(x, targets, strict=True)), task, OUTPUTS, batch_size=2)
    check_rows(report, RECALL)
    assert values(report.rows["vanilla"], metric) == pytest.approx(RECALL)
    assert list(report.rows) == ["vanilla", "adapted", "oracle"]


def test_pictures_of_many_sizes_and_more_in_their_targets():
    data = []
    for height, width in [(8, 12), (9, 16), (12, 12)]:
        x, (target,) = scene(1, height, width)
        boxes = {
            "boxes": target["boxes"],
            "labels": target["labels"],
            "image_id": 7,
            "iscrowd": torch.zeros(4),
        }
        data.append((x[0], boxes))
    found = lambda pictures: [{k: v for k, v in f.items() if k != "masks"} for f in find(pictures)]  # noqa: E731
    report = evaluated(found, data, "detection", {"boxes": "boxes"}, group="D4", poses=[0, 1, 2, 3])
    assert values(report.rows["vanilla"]) == pytest.approx(RECALL)
    assert report.setting.size == "mixed sizes"


def test_without_targets_sure_detections_are_taken():
    x, targets = scene()
    settings = {"rows": ("vanilla", "oracle")}
    report = evaluated(find, list(x), "detection", OUTPUTS, **settings)
    assert (
        report.rows
        == evaluated(find, list(zip(x, targets, strict=True)), "detection", OUTPUTS, **settings).rows
    )


def test_resampling_equals_the_library_on_pictures_that_stand_there_as_often():
    generator = torch.Generator().manual_seed(0)

    def things(count, scored):
        corner, side = (
            torch.rand(count, 2, generator=generator) * 50,
            torch.rand(count, 2, generator=generator) * 30,
        )
        made = {"boxes": torch.cat([corner, corner + side], 1), "labels": torch.arange(count) % 3}
        return {**made, "scores": torch.rand(count, generator=generator)} if scored else made

    metric, column = AveragePrecision("mAP", "bbox"), []
    for _ in range(12):
        target, found = things(6, False), things(9, True)
        found["boxes"][:6] = target["boxes"] + 2 * torch.randn(6, 4, generator=generator)
        found["labels"][:6] = target["labels"]
        column.append(metric.record(found, target))
    weights = resamples(12, 4)
    drawn = metric.values([column], weights)[:, 0]
    assert drawn.std() > 0.01
    for r in range(4):
        again = [column[i] for i in torch.arange(12).repeat_interleave(weights[r].long())]
        evaluation_ = metric._matched(again)
        evaluation_.accumulate()
        precision = evaluation_.eval["precision"]
        assert drawn[r].item() == pytest.approx(float(precision[precision > -1].mean()))


def test_a_wrong_detection_by_hand():
    """Found: one of two, a wrong one, the other: precision 1 up to recall 0.5, then 2/3."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 20, 40, 40], [50, 0, 60, 10]])
    target = {"boxes": boxes[:2], "labels": torch.zeros(2)}
    found = {"boxes": boxes[[0, 2, 1]], "labels": torch.zeros(3), "scores": torch.tensor([0.9, 0.8, 0.7])}
    metric = AveragePrecision("AP50", "bbox", 0.5)
    expected = (51 + 50 * 2 / 3) / 101
    assert metric.once([[metric.record(found, target)]]).item() == pytest.approx(expected)
    other = {**found, "labels": torch.ones(3)}  # of another class: nothing is found
    assert metric.once([[metric.record(other, target)]]).item() == 0
    crowd = {**target, "iscrowd": torch.tensor([0, 1])}  # what lies in a crowd counts neither way
    assert metric.once([[metric.record(found, crowd)]]).item() == pytest.approx(1)


# --- key points ---

SIGMAS = (0.1, 0.2, 0.3)


def brightest(x):
    """The three brightest pixels, each moved by ``p`` pixels to the right."""
    order = x[:, 0].flatten(1).topk(3).indices
    spot = torch.stack([order % x.shape[3], order // x.shape[3]], -1) + 0.5
    return spot + standing(x).view(-1, 1, 1) * torch.tensor([1.0, 0.0])


def test_key_points():
    content = torch.rand(6, 8, 12, generator=torch.Generator().manual_seed(0))
    x, area = marked(content), 150.0
    true = [
        {"keypoints": torch.cat([p, torch.ones(3, 1)], 1)[None], "area": torch.tensor([area])}
        for p in brightest(x)
    ]
    report = evaluated(brightest, (x, true), evaluation.keypoints(sigmas=SIGMAS), "points")
    mean = [sum(math.exp(-(p**2) / (2 * area * (2 * s) ** 2)) for s in SIGMAS) / 3 for p in range(4)]
    assert values(report.rows["vanilla"], "mean OKS") == pytest.approx(mean)
    found = [sum(m >= 0.5 + 0.05 * i for i in range(10)) / 10 for m in mean]  # all or none, at each threshold
    assert 0.2 < min(found) < max(found) == 1
    check_rows(report, found)
    assert values(report.rows["oracle"], "mean OKS") == pytest.approx([1] * 4)


def test_similarity_by_hand():
    true = torch.tensor([[[0.0, 0, 2], [10, 0, 1], [99, 99, 0]]])  # the third is not labelled
    found = torch.tensor([[[3.0, 4, 1], [10, 0, 1], [0, 0, 1]]])
    expected = (math.exp(-25 / (2 * 100 * 0.04)) + 1) / 2
    assert similarity(found, true, torch.tensor([100.0]), SIGMAS).item() == pytest.approx(expected)


def test_clear_errors():
    x, targets = scene(2)
    data = list(zip(x, targets, strict=True))
    settings = {"rows": ("vanilla",)}
    with pytest.raises(
        TypeError, match=r"one dict a picture, got a dict with \['boxes'\]; .*detection\(read="
    ):
        evaluated(lambda x: {"boxes": torch.zeros(2, 4)}, data, "detection", OUTPUTS, **settings)
    with pytest.raises(ValueError, match="needs a model whose output moves as Boxes"):
        evaluated(find, data, "detection", {"masks": "mask"}, **settings)
    with pytest.raises(KeyError, match=r"targets of detection must have the entries \['boxes', 'labels'\]"):
        evaluated(find, [(p, {"boxes": t["boxes"]}) for p, t in data], "detection", OUTPUTS, **settings)
    with pytest.raises(ValueError, match=r"labels in targets of detection .* N = 4, got \(3,\)"):
        evaluated(
            find, [(p, {**t, "labels": t["labels"][:3]}) for p, t in data], "detection", OUTPUTS, **settings
        )
    with pytest.raises(ValueError, match=r"masks in targets of instances must have shape \(N, 8, 12\)"):
        evaluated(
            find, [(p, {**t, "masks": t["masks"][:, 1:]}) for p, t in data], "instances", OUTPUTS, **settings
        )
    with pytest.raises(
        ValueError, match=r"keypoints in .* shape \(N, 17, 2 or 3\), got \(1, 3, 2\); .*sigmas="
    ):
        evaluated(brightest, (x, [torch.zeros(3, 2)] * 2), "keypoints", "points", **settings)
