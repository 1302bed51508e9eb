"""What ``docs/baselines.md`` shows runs, and it names every row and every transformation."""

import re
from pathlib import Path

import torch
from torch import nn

from upright.evaluation import ROWS, TRANSFORMATIONS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "baselines.md"


def test_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photos = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 3))
    names = {"model": model, "data": (photos, torch.arange(4) % 3), "photos": photos}
    monkeypatch.setitem(ROWS, "mirrored", None)  # taken out again afterwards
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), names)
    assert [path.name for path in tmp_path.iterdir()] == ["rotation.png"]
    assert names["curve"].setting.poses.startswith("hue")
    assert list(names["report"].rows) == ["adapted", "classifier", "weights", "transformer"]


def test_the_page_names_everything():
    text = PAGE.read_text(encoding="utf-8")
    assert re.findall(r'^\| `"(\w+)"` \|', text, re.MULTILINE) == [
        "vanilla", "average", "posterior", "lambda", "equizero", "tta", "adapted", "oracle",
    ]  # fmt: skip
    assert set(re.findall(r'^\| `"(\w+)"` \|', text, re.MULTILINE)) == set(ROWS)
    assert all(f'`"{name}"`' in text for name in TRANSFORMATIONS)
