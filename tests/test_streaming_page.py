"""What ``docs/streaming.md`` shows runs, its flags exist, and its tables are those of the code."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

import upright
from streaming_toys import lying
from upright.cli import main
from upright.integrations import SquarePreprocess
from upright.streaming import canonical

PAGE = (Path(__file__).parents[1] / "docs" / "streaming.md").read_text()


def test_its_python_runs(tmp_path, monkeypatch):
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for i in range(4):
        Path("photos", f"{i}.jpg").write_bytes(lying(i, "JPEG", quality=90))
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2))
    names = {
        "robust": upright.adapt(model, "C4"),
        "preprocess": SquarePreprocess(16, (0.0,) * 3, (1.0,) * 3),
    }
    torch.manual_seed(0)
    totals = []
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(block, "streaming.md", "exec"), names)
        totals.append(names["summary"].total)
    assert totals[0] == totals[-1] == 4
    assert len(names["poses"]) == 4
    assert {p.name for p in Path().iterdir()} >= {"upright-photos.manifest", "by-parts.manifest", "answers"}


def test_its_flags_exist(capsys):
    shown = ""
    for verb in ("canonicalize", "predict"):
        assert main([verb, "--help"]) == 0
        shown += capsys.readouterr().out
    flags = set(re.findall(r"--[a-z][a-z-]+", PAGE))
    assert len(flags) > 12
    assert not [flag for flag in flags if flag not in shown]


def test_its_table_is_that_of_the_manifest():
    section = PAGE.partition("## The manifest")[2].partition("\n## ")[0]
    named = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`[^|]*) \|", section, re.MULTILINE)))
    assert named == list(canonical.COLUMNS)
