"""Model cards: the hub's client reads the heads, tables say what reports say; ``docs/hub.md`` runs."""

import re
from pathlib import Path

import huggingface_hub
import pytest
import torch
import yaml
from huggingface_hub import ModelCard

import upright
from test_hub import adapted, small
from upright import hub
from upright.evaluation.tables import percent

PAGE = Path(__file__).parents[1] / "docs" / "hub.md"


def data(n=12):
    return torch.rand(n, 3, 20, 20, generator=torch.Generator().manual_seed(2)), torch.arange(n) % 5


@pytest.fixture(scope="module")
def measured():
    """An adapted model and what was found about it."""
    robust = adapted()
    return robust, upright.evaluate(robust, data(), leakage_limit=None, overhead=False, progress=False)


def card_of(folder):
    return ModelCard((folder / hub.CARD).read_text())


def test_the_head_says_what_was_measured(tmp_path, measured):
    robust, report = measured
    hub.save(robust, tmp_path / "s", "google/vit-base", report={"owner/pictures": report})
    card, row = card_of(tmp_path / "s"), report.rows["adapted"]
    assert card.data.library_name == "upright"
    assert card.data.base_model == "google/vit-base"
    assert card.data.pipeline_tag == "image-classification"
    assert card.data.metrics == ["accuracy"]
    assert card.data.datasets == ["owner/pictures"]
    assert card.data.tags == ["equivariance", "canonicalization", "C4"]
    found = {r.metric_name: r.metric_value for r in card.data.eval_results}
    expected = {
        "accuracy, upright": row.upright.value,
        "accuracy, mean over poses of C4": row.orbit_mean.value,
        "accuracy, worst pose": row.worst.accuracy.value,
    }
    assert found == pytest.approx(expected, abs=1e-6)
    for result in card.data.eval_results:
        assert (result.dataset_type, result.dataset_name) == ("owner/pictures", "owner/pictures")
        assert (result.task_type, result.metric_type) == ("image-classification", "accuracy")


def test_the_tables_say_what_the_report_says(tmp_path, measured):
    robust, report = measured
    hub.save(robust, tmp_path / "s", report={"toys": report}, card="## By hand\n\nMine.")
    text = (tmp_path / "s" / hub.CARD).read_text()
    assert text.index("## Measured on toys") < text.index("## By hand")
    for name, row in report.rows.items():
        (line,) = (one for one in text.splitlines() if one.strip("| *").startswith(row.label) and "(" in one)
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[1].startswith(f"{percent(row.upright.value)} ({percent(row.upright.low)}–")
        assert cells[2].startswith(percent(row.orbit_mean.value))
        assert cells[3] == f"{percent(row.worst.accuracy.value)} at {row.worst.label}"
        assert cells[4:] == [percent(row.changed), f"{row.passes:.2f}"]
        assert (cells[0] == f"**{row.label}**") == (name == "adapted")
    for i, pose in enumerate(report.canonicalizer.poses):
        values = [percent(row.poses[i].accuracy.value) for row in report.rows.values()]
        line = " | ".join([pose.label, *values, percent(pose.accuracy.value)])
        assert f"| {line} |" in text
    rate = percent(report.canonicalizer.identity_rate.value)
    assert f"Upright pictures left alone: {rate}%" in text
    for table in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        assert len({re.sub(r"\\\|", "", line).count("|") for line in table.splitlines()}) == 1


def test_several_reports_and_none(tmp_path, measured):
    robust, report = measured
    hub.save(robust, tmp_path / "two", report={"a": report, "b": report})
    text = (tmp_path / "two" / hub.CARD).read_text()
    assert "## Measured on a" in text
    assert "## Measured on b" in text
    assert len(card_of(tmp_path / "two").data.eval_results) == 6
    hub.save(robust, tmp_path / "one", report=report)
    assert {r.dataset_name for r in card_of(tmp_path / "one").data.eval_results} == {"12 pictures"}
    hub.save(robust, tmp_path / "none")
    assert card_of(tmp_path / "none").data.eval_results is None
    assert "Measured" not in (tmp_path / "none" / hub.CARD).read_text()


def test_the_head_is_plain_yaml(tmp_path, measured):
    robust, report = measured
    odd = "data: with | signs\n---\n# and lines"
    hub.save(robust, tmp_path / "s", report={odd: report})
    head = (tmp_path / "s" / hub.CARD).read_text().split("\n---\n")[0].removeprefix("---\n")
    results = yaml.safe_load(head)["model-index"][0]["results"]
    assert {one["dataset"]["name"] for one in results} == {"data: with | signs --- # and lines"}


def test_several_canonicalizers_are_listed(tmp_path):
    robust = adapted().with_canonicalizer("flips", small("D4"), mode="average")
    hub.save(robust, tmp_path / "s")
    text = (tmp_path / "s" / hub.CARD).read_text()
    assert re.search(r"\| flips \| D4 \| orbit \| \d+ KiB \| average \|", text)
    assert card_of(tmp_path / "s").data.tags == ["equivariance", "canonicalization", "C4", "D4"]
    assert 'robust.choose("flips")' in text


def test_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    robust = adapted()
    names = {
        "upright": upright, "torch": torch, "huggingface_hub": huggingface_hub, "model": robust.model,
        "canonicalizer": robust.canonicalizer, "flips": small("D4"), "data": data(), "x": data()[0],
    }  # fmt: skip
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(compile(block, PAGE.name, "exec"), names)
    assert names["same"]
    assert names["worst"].metric_value == round(names["report"].rows["adapted"].worst.accuracy.value, 6)
    assert names["groups"] == ["C4", "D4", "C8"]
    assert torch.equal(names["answers"], names["in_block"])
    assert names["nothing_moved"]
    assert torch.equal(names["bare"], robust.model(names["x"]))
    kept = upright.load("robust/", robust.model)
    assert (kept.name, list(kept.canonicalizers)) == ("eighths", ["eighths", "flips"])
    assert torch.equal(kept(names["x"]), names["robust"](names["x"]))


def test_links_of_the_page():
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE.read_text()):
        assert (PAGE.parent / target).exists()
