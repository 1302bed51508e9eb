"""The page of a report says what the report says, escapes what it is given, and looks right in a browser."""

from __future__ import annotations

import dataclasses
import html.parser
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

import upright
from cli_work import lines, work_folder  # noqa: F401
from evaluation_toys import CLASSES, marked, quick, toy
from upright import evaluation
from upright.cli import main
from upright.evaluation import Report, coco, samples, write_page
from upright.evaluation.html import charts, words
from upright.evaluation.html.page import _confusion, page

HOSTILE = '<script>alert("x")</script><img src=http://evil.example/a onerror=alert(1)> & [red]\'"[/b]'
PHOTOS = torch.rand(6, 3, 24, 32, generator=torch.Generator().manual_seed(3))
MASKS = torch.zeros(2, 24, 32, dtype=torch.bool)
MASKS[0, 4:12, 4:20] = MASKS[1, 14:22, 8:30] = True
BOXES = torch.tensor([[4.0, 4, 20, 12], [8, 14, 30, 22]])
THINGS = {"boxes": BOXES, "labels": torch.tensor([1, 2]), "masks": MASKS}
POINTS = torch.tensor([[[5.0, 5, 2], [9, 20, 2], [30, 12, 1]]])


class Page(html.parser.HTMLParser):
    """What a reader of the page sees, and where it points."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.outside, self.words, self.ids, self.hidden = [], [], [], set(), 0
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.hidden += tag == "style"
        for name, value in attrs:
            if name == "id":
                self.ids.add(value)
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "action", "srcset") and not value.startswith(("data:", "#")):
                self.outside.append(value)

    def handle_endtag(self, tag):
        self.hidden -= tag == "style"

    def handle_data(self, data):
        if not self.hidden:
            self.words.append(data)


def corner(pictures):
    """Finds the same things on every picture that stands as it should."""
    return [{**THINGS, "masks": MASKS[:, None].float(), "scores": torch.ones(2)} for _ in pictures]


def evaluated(model, data, outputs="invariant", group="C4", **settings):
    robust = upright.adapt(model, group, canonicalizer=upright.canonicalizer(group, size=16), outputs=outputs)
    shown = samples(robust, data, **{k: v for k, v in settings.items() if k in ("task", "poses")}, count=3)
    return quick(robust, data, **settings), shown


def of_classes(group="C4", **settings):
    robust, data = toy(group), marked(12)
    names = [f"{HOSTILE}{i}" for i in range(CLASSES)]
    return quick(robust, data, **settings), samples(robust, data, class_names=names, count=4)


def of_a_curve(over="hue"):
    robust = upright.adapt(lambda x: x.mean((2, 3)), "C4", canonicalizer=upright.canonicalizer("C4", size=16))
    data = (PHOTOS, torch.zeros(6).long())
    report = upright.evaluate_curve(robust, data, over, overhead=False)
    return report, samples(robust, data, poses=evaluation.TRANSFORMATIONS[over].elements(), count=2)


def of_depth():
    return evaluated(lambda x: 1 + x.mean(1), [(x, 1 + x.mean(0)) for x in PHOTOS], "mask", task="depth")


MADE = {
    "classes, quarter turns": of_classes,
    "classes, turns and flips": lambda: of_classes("D4"),
    "classes, flips": lambda: of_classes("D1"),
    "hues": of_a_curve,
    "scales": lambda: of_a_curve("scale"),
    "masks": lambda: evaluated(lambda x: x, [(x, x.argmax(0)) for x in PHOTOS], "mask", task="segmentation"),
    "boxes": lambda: evaluated(
        corner, [(x, THINGS) for x in PHOTOS], {"boxes": "boxes", "masks": "mask"}, task="detection"
    ),
    "instances": lambda: evaluated(
        corner, [(x, THINGS) for x in PHOTOS], {"boxes": "boxes", "masks": "mask"}, task="instances"
    ),
    "key points": lambda: evaluated(
        lambda x: [{"keypoints": POINTS, "scores": torch.ones(1)}] * len(x),
        [(x, {"keypoints": POINTS, "area": torch.tensor([400.0])}) for x in PHOTOS],
        {"keypoints": "points"},
        task=evaluation.keypoints(sigmas=[0.1] * 3),
    ),
    "text": lambda: evaluated(
        lambda x: [f"{HOSTILE} {float(one[0, 0, 0]):.3f}" for one in x],
        [(x, f"{HOSTILE} {float(x[0, 0, 0]):.3f}") for x in PHOTOS],
        task="text",
    ),
    "depth": of_depth,
    "retrieval": lambda: evaluated(
        lambda x: x.mean((2, 3)), [(x, i // 2) for i, x in enumerate(PHOTOS)], task="retrieval"
    ),
}


@pytest.fixture(scope="module")
def made():
    """Every report with its pictures, made when it is first asked for."""
    for needed in ("faster_coco_eval", "rapidfuzz"):
        pytest.importorskip(needed)
    before, coco.AveragePrecision.resamples = coco.AveragePrecision.resamples, 4  # takes seconds
    kept = {}

    def make(name):
        if name not in kept:
            kept[name] = MADE[name]()
        return kept[name]

    yield make
    coco.AveragePrecision.resamples = before


@pytest.mark.parametrize("name", MADE)
def test_page_of_every_task(made, name, tmp_path):
    report, shown = made(name)
    path = report.to_html(tmp_path / "new" / "index.html", shown)
    assert [p.name for p in path.parent.iterdir()] == ["index.html"]
    text = path.read_text(encoding="utf-8")
    seen = Page(text)
    assert seen.outside == []
    assert {"script", "link"} & set(seen.tags) <= {"link"}
    assert "default-src 'none'" in text
    assert seen.ids >= {"poses", "gallery", "found", "setting"}
    s = report.setting
    for row in report.rows.values():
        assert words.value(row.orbit_mean.value, s.is_share) in seen.text
    assert words.headline(report) in seen.text
    assert text.count("<img ") == sum(
        2 + (one.bare.map is not None or bool(one.bare.boxes or one.bare.points)) for one in shown
    )
    assert seen.tags.count("svg") >= 2
    data = re.search(r'href="data:application/json;base64,([^"]+)"', text).group(1)
    import base64

    assert Report.from_dict(json.loads(base64.b64decode(data))) == report
    assert page(Report.from_dict(report.to_dict()), shown) == text  # a loaded one looks the same


def test_names_from_outside_stay_text(made, tmp_path):
    report, shown = made("classes, quarter turns")
    assert HOSTILE[:8] in shown[0].bare.text
    setting = dataclasses.replace(
        report.setting, model=HOSTILE, group=HOSTILE, mode=HOSTILE, machine=HOSTILE, command=HOSTILE,
        metric=HOSTILE, task=HOSTILE, poses=HOSTILE, size=HOSTILE,
    )  # fmt: skip
    rows = {HOSTILE + name: dataclasses.replace(row, label=HOSTILE) for name, row in report.rows.items()}
    hostile = dataclasses.replace(report, setting=setting, rows={**report.rows, **rows})
    seen = Page(page(hostile, shown))
    assert seen.outside == []
    assert "script" not in seen.tags
    assert seen.tags.count("img") == 2 * len(shown)
    assert seen.text.count(HOSTILE) > 12  # shown as it was written, markup of the terminal's too
    assert HOSTILE.split()[0][:20] in str(hostile)


def test_headline_says_what_the_numbers_say(made):
    better, _ = made("classes, quarter turns")
    assert words.headline(better) == (
        "Adapted, OnlyUpright holds 100% accuracy however pictures are turned; alone 25%"
    )
    assert words.compare(better) == "better"
    swapped = {**better.rows, "vanilla": better.rows["adapted"], "adapted": better.rows["vanilla"]}
    worse = dataclasses.replace(better, rows=swapped)
    assert "does worse however pictures are turned: 25% accuracy, alone 100%" in words.headline(worse)
    lower = dataclasses.replace(worse.setting, lower_is_better=True, is_share=False, metric="error")
    lower = dataclasses.replace(worse, setting=lower)
    assert "OnlyUpright has error 0.25" in words.headline(lower)
    equal = dataclasses.replace(better, rows={**better.rows, "vanilla": better.rows["adapted"]})
    assert words.headline(equal).startswith(
        "However pictures are turned, adapting OnlyUpright changes nothing"
    )
    near, far = (evaluation.Estimate(0.25, 0.2, high) for high in (0.31, 0.29))
    up = evaluation.Estimate(0.3, 0.26, 0.4)
    wide = evaluation.Estimate(0.3, 0.24, 0.4)
    cases = ((near, up, "same"), (far, wide, "same"), (far, up, "better"), (up, far, "worse"))
    for bare, adapted, verdict in cases:
        rows = {
            "vanilla": dataclasses.replace(better.rows["vanilla"], orbit_mean=bare),
            "adapted": dataclasses.replace(better.rows["adapted"], orbit_mean=adapted),
        }
        assert words.compare(dataclasses.replace(better, rows=rows)) == verdict
    alone = dataclasses.replace(better, rows={"vanilla": better.rows["vanilla"]})
    assert words.headline(alone) == "OnlyUpright, bare model: 25% accuracy however pictures are turned"
    assert "turned or flipped" in words.headline(made("classes, turns and flips")[0])
    assert "pictures are flipped" in words.headline(made("classes, flips")[0])
    assert "At every hue" in words.headline(made("hues")[0])


def test_tiles_flag_what_is_wrong():
    report = upright.evaluate(toy(), marked(12))
    kinds = {tile.name: tile for tile in words.tiles(report)}
    assert kinds["leakage check"].tone == ("bad" if any(c.moved for c in report.leakage.values()) else "good")
    check = next(iter(report.leakage.values()))
    for moved in (True, False):
        leakage = {"re-encoded": dataclasses.replace(check, moved=moved)}
        tile = {t.name: t for t in words.tiles(dataclasses.replace(report, leakage=leakage))}["leakage check"]
        assert (tile.value, tile.tone) == (("flagged", "bad") if moved else ("passed", "good"))
    assert kinds["time of the bare model"].value == words.times(report.overhead.time_ratio)
    seen = Page(page(report))
    assert seen.ids >= {"leakage", "cost"}
    assert "gallery" not in seen.ids


def test_polar_plot_puts_poses_where_they_are(made):
    report, _ = made("classes, quarter turns")  # the bare model: right upright, wrong at every other pose
    drawn = str(charts.polar(report, reflected=False))
    bare = re.search(r'<g class="row-vanilla">(.*?)</g>', drawn, re.DOTALL).group(1)
    places = re.findall(r'cx="([\d.]+)" cy="([\d.]+)" r="4.4"><title>[^,]*, (\d+)°', bare)
    (x, y), r = charts._MIDDLE, charts._RADIUS
    assert [(float(a), float(b)) for a, b, _ in places] == [(x, y - r), (x, y), (x, y), (x, y)]
    assert charts._around(90.0, 10.0) == pytest.approx((x - 10, y))  # counter-clockwise


def test_confusion_is_counted(made):
    def slips(number, x):  # takes 90° for 180° of class 3
        return torch.where((number == 1) & (x[:, 0, 4, 4] * 20).round().eq(3), 2, number)

    report = quick(toy(spoil=slips), marked(20))
    found = report.canonicalizer.confusion
    assert found.chosen == ("0°", "90°", "180°", "270°")
    assert found.counts == ((20, 0, 0, 0), (0, 18, 2, 0), (0, 0, 20, 0), (0, 0, 0, 20))
    cells = _confusion(found, report)["rows"][1]["cells"]
    assert [cell["text"] for cell in cells] == ["", "90", "10", ""]
    assert cells[2]["said"] == "90° taken for 180°: 2 of 20"
    assert [cell["right"] for cell in cells] == [False, True, False, False]


def test_confusion_of_ties_continuous_groups_and_foreign_poses():
    blank = (torch.full((4, 3, 16, 16), 0.5), torch.zeros(4).long())
    robust = upright.adapt(lambda x: x.mean((2, 3)), "C4", canonicalizer=upright.canonicalizer("C4", size=16))
    found = quick(robust, blank).canonicalizer.confusion
    assert found.chosen[-1] == "tied"
    assert [row[-1] for row in found.counts] == [4] * 4
    spinner = upright.adapt(lambda x: x.mean((2, 3)), "SO2", canonicalizer="identity")
    square = (PHOTOS[..., :24], torch.zeros(6).long())
    found = quick(spinner, square, rows=["adapted"]).canonicalizer.confusion
    assert len(found.chosen) == len(found.counts) == 24
    assert all(row[0] == 6 and sum(row) == 6 for row in found.counts)  # it always says upright
    assert found.right == tuple((i,) for i in range(24))
    between = quick(
        robust,
        square,
        rows=["adapted"],
        poses=upright.groups.SO2().element(degrees=torch.arange(0, 90, 15.0)),
    )
    assert between.canonicalizer.confusion.right == ((0,), (0,), (0,), (0, 1), (1,), (1,))
    hues = evaluation.TRANSFORMATIONS["hue"].elements()
    assert quick(robust, square, rows=["adapted"], poses=hues).canonicalizer.confusion is None
    assert quick(spinner, square, rows=["adapted"], poses=hues).canonicalizer.confusion is None


def test_samples_judge_as_evaluate_does(made):
    _, shown = made("classes, quarter turns")
    assert [one.turned for one in shown] == ["90°", "180°", "270°", "0°"]
    assert all(one.found and one.chosen == one.turned for one in shown)
    assert [one.bare.right for one in shown] == [False, False, False, True]
    assert all(one.adapted.right for one in shown)
    _, boxes = made("boxes")
    upright_again = boxes[0].canonical if boxes[0].chosen == "90°" else None
    if upright_again is not None:
        assert upright_again == pytest.approx(PHOTOS[0].permute(1, 2, 0).double().numpy())
    assert boxes[0].bare.boxes == tuple(tuple(box) for box in BOXES.tolist())
    assert boxes[0].given.shape == (32, 24, 3)
    _, texts = made("text")
    assert texts[0].bare.score is not None
    _, maps = made("masks")
    assert np.array_equal(maps[0].bare.map, maps[0].adapted.map)  # takes each pixel by itself
    assert maps[0].adapted.score == 1


def test_from_the_shell(work, capsys):
    command = ["evaluate", "saved", "--trust-code", "--data", "classes", "--no-overhead", "--no-leakage"]
    command += ["--report", "out here"]
    assert main(command) == 0
    out, err = lines(capsys)
    assert err == []
    assert out.splitlines()[-2:] == ["report: out here/index.html", "report: out here/report.json"]
    report = Report.load("out here/report.json")
    assert shlex.split(report.setting.command) == ["upright", *command]
    text = Path("out here/index.html").read_text(encoding="utf-8")
    assert "upright evaluate saved --trust-code --data classes" in Page(text).text
    assert text.count("<img ") == 2 * 6  # every picture, and two of each
    assert main([*command[:-1], "curve", "--over", "rotation", "--values", "0:270:90"]) == 0
    assert "However pictures are turned" in Path("curve/index.html").read_text(encoding="utf-8")
    Path("file").touch()
    assert main([*command[:-1], "file"]) == 2
    assert "--report file is a file; give a folder" in capsys.readouterr().err


def test_in_a_browser(made, browser, tmp_path):
    said, asked = [], []
    for width in (390, 1280):
        tab = browser.new_page(viewport={"width": width, "height": 900})
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("dialog", lambda dialog: said.append(dialog.message))
        tab.on("request", lambda request: asked.append(request.url))
        for name in ("classes, turns and flips", "hues", "boxes", "text"):
            path = write_page(made(name)[0], tmp_path / "index.html", made(name)[1])
            tab.goto(path.as_uri())
            assert tab.evaluate("document.documentElement.scrollWidth") == width, name
            assert tab.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
            box = tab.locator("figure.chart svg").first.bounding_box()
            assert min(box["width"], width) > 250
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width
        colours = []
        for theme in ("light", "dark"):
            tab.locator(f"#{theme}").check(force=True)
            colours.append(tab.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert colours == ["rgb(245, 246, 248)", "rgb(20, 23, 28)"]
        tab.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("data:", tmp_path.as_uri()))] == []
