"""The documentation site: its navigation holds every page, its links lead somewhere, its code runs."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
import yaml
from torch import nn

import upright
from upright import evaluation

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
FENCE = re.compile(r"^( *)```.*?^\1```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"!?\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^)\s]+)\)")


def load_hooks():
    spec = importlib.util.spec_from_file_location("site_hooks", DOCS / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def navigation():
    def pages(entries):
        for entry in entries:
            value = next(iter(entry.values())) if isinstance(entry, dict) else entry
            yield from pages(value) if isinstance(value, list) else [value]

    return list(pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))


def anchors(page):
    """Return the anchors of a page, as MkDocs makes them of headings."""
    text = FENCE.sub("", (DOCS / page).read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    plain = [
        re.sub(r"[^\w\s-]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", h)).strip().lower() for h in headings
    ]
    return {re.sub(r"[-\s]+", "-", h) for h in plain}


def test_navigation_holds_every_page_once():
    named = navigation()
    assert len(named) == len(set(named))
    assert set(PAGES) <= set(named), "pages that mkdocs.yml does not name"


def test_pages_that_are_missing_are_left_out(tmp_path):
    (tmp_path / "here.md").touch()
    nav = [{"Here": "here.md"}, {"Section": [{"Not": "not.md"}]}, {"Two": ["here.md", {"Not": "not.md"}]}]
    assert load_hooks().present(nav, tmp_path) == [{"Here": "here.md"}, {"Two": ["here.md"]}]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = FENCE.sub("", (DOCS / page).read_text(encoding="utf-8"))
    for target in LINK.findall(text):
        if target.startswith(("http:", "https:", "mailto:")):
            continue
        file, _, anchor = target.partition("#")
        path = (DOCS / page).parent / file if file else DOCS / page
        assert path.is_file(), target
        assert DOCS in path.resolve().parents, f"{target} leaves the site"
        assert not anchor or anchor in anchors(path.resolve().relative_to(DOCS).as_posix()), target


def test_llms_txt_names_every_page():
    text = (DOCS / "llms.txt").read_text(encoding="utf-8")
    named = LINK.findall(text)
    expected = [page for page in navigation() if not page.startswith("api/") and page != "index.md"]
    assert named == expected


def net(channels):
    return nn.Conv2d(3, channels, 3, padding=1)


def names_of(page):
    """What the blocks of a page take for granted."""
    torch.manual_seed(0)
    photos = torch.rand(4, 3, 48, 48)
    model = nn.Sequential(net(4), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(64, 3)).eval()
    points = torch.tensor([[[5.0, 5, 2], [9, 20, 2], [30, 12, 1]]])
    found = [{"keypoints": points, "scores": torch.ones(1)}] * 4
    return {
        "model": model,
        "photos": photos,
        "pictures": photos,
        "labels": torch.arange(4) % 3,
        "test_data": (photos, torch.arange(4) % 3),
        "segmenter": net(3),
        "class_maps": list(torch.randint(3, (4, 48, 48))),
        "depth_model": lambda x: 1 + x.mean(1),
        "distances": list(1 + torch.rand(4, 48, 48)),
        "pose_model": lambda pictures: found[: len(pictures)],
        "area": torch.tensor([400.0]),
        "finder": lambda x: x[:, :1, :, 0].flatten(1).argmax(1)[:, None, None] + torch.tensor([0.5, 0.5]),
        "encoder": nn.Sequential(net(4), nn.AdaptiveAvgPool2d(2), nn.Flatten()),
        "tracker": lambda x: x.mean((2, 3)).mul(360).long(),
    }


@pytest.mark.parametrize(
    "page",
    [
        "index.md", "quickstart.md", "classification.md", "segmentation.md", "keypoints.md", "retrieval.md",
        "extending.md",
    ],
)  # fmt: skip
def test_code_runs(page, tmp_path, monkeypatch):
    if page == "keypoints.md":
        pytest.importorskip("faster_coco_eval")
        monkeypatch.setattr(evaluation.AveragePrecision, "resamples", 4)  # takes seconds
    quick = {"leakage": False, "overhead": False}
    monkeypatch.setattr(
        upright, "evaluate", lambda *args, **rest: evaluation.evaluate(*args, **quick, **rest)
    )
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(
        r"^```python\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    assert blocks
    module = ModuleType("page")  # dataclasses look up where they were made
    monkeypatch.setitem(sys.modules, "page", module)
    names = vars(module)
    names.update(names_of(page))
    for block in blocks:
        exec(compile(block, page, "exec"), names)
