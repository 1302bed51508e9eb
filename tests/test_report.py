"""A report states costs and setting, survives saving, and prints what matters."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from torch import nn

import upright
from evaluation_toys import marked, quick, toy
from upright.evaluation import Report


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
    assert data["schema_version"] == 4
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
    with pytest.raises(ValueError, match=r"schema_version 4, got 99; .* evaluate again"):
        Report.from_dict({**data, "schema_version": 99})
    path.write_text("[1, 2]")
    with pytest.raises(ValueError, match="schema_version 4, got None"):
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
        "20 pictures of 8×8", "OnlyUpright, D4, canonical · classification",
    ):  # fmt: skip
        assert words in text
    assert max(map(len, text.splitlines())) <= 120


def test_progress_bar_shows_and_changes_nothing(capsys):
    assert quick(toy(), marked(10), progress=True).rows == quick(toy(), marked(10)).rows
    assert "evaluating" in capsys.readouterr().out
