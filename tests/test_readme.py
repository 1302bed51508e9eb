"""What the README shows runs: its Python, its commands' verbs and flags, its files."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    names = {
        "model": nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(64, 5)),
        "test_data": (torch.rand(6, 3, 64, 64), torch.arange(6) % 5),
        "my_pictures": torch.rand(8, 3, 64, 64),
    }
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert (tmp_path / "robust" / "upright.json").exists()
    assert names["report"].rows["adapted"].poses


@pytest.mark.parametrize("line", re.findall(r"^    upright (\S.*)$", README, re.MULTILINE))
def test_commands_exist(line, capsys):
    from upright.cli import main

    verb, *rest = line.split()
    assert main([verb, "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(flag in shown for flag in rest if flag.startswith("--"))


def test_links_lead_somewhere():
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    missing = [t for t in targets if not t.startswith("http") and not (ROOT / t).exists()]
    assert targets
    assert not missing
