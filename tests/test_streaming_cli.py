"""``upright canonicalize`` and ``upright predict --out``: what a person types, sees and finds."""

import csv
import json
import os
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

import upright
from cli_work import lines, work_folder  # noqa: F401
from streaming_toys import always_right, folder, number_of, rows, stands, tables, tars, tree
from upright import hub
from upright.cli import main
from upright.integrations import SquarePreprocess
from upright.streaming import predict

OUR = ["--canonicalizer", "ours", "--trust-code", "--quiet"]


@pytest.fixture(name="here")
def here_folder(work):
    hub.save(always_right(), "ours")
    folder("in")
    return work


def test_canonicalize(here, capsys):
    assert main(["canonicalize", "in", "--out", "out", *OUR]) == 3
    out, err = lines(capsys)
    assert out.startswith("12 pictures written: 2 bad, 3 copied, 7 turned (")
    assert "pictures: out\nmanifest: out.manifest\n" in out
    assert err[0] == "upright: 1 files that are no pictures were left out"
    assert err[1] == "upright: 2 could not be used:"
    assert err[2].startswith("  a/cut.png: ")
    assert err[-1] == "  all of them, and why: out.manifest/_bad-*.jsonl"
    assert all(stands(data, number_of(path)) for path, data in tree("out").items())
    assert main(["canonicalize", "in", "--out", "out", *OUR]) == 3
    assert "nothing was left to do; 1 shards were finished before" in lines(capsys)[0]
    assert main(["canonicalize", "in", "--out", "out", *OUR, "--retry-bad"]) == 3
    assert main(["canonicalize", "in", "--out", "out", *OUR, "--exif"]) == 2
    assert "other settings (exif: false, now true); run it with those, or give a new" in lines(capsys)[1][-1]


def test_canonicalize_without_bad_items(here, capsys):
    assert (
        main(["canonicalize", str(tables("t")), "-o", "out", *OUR, "--shard-size", "4", "--part", "1/2"]) == 0
    )
    assert main(["canonicalize", "t", "-o", "out", *OUR, "--shard-size", "4", "--part", "2/2"]) == 0
    assert len(rows("out.manifest")) == 10
    out, err = lines(capsys)
    assert err == []
    assert out.count("pictures written") == 2


def test_canonicalize_dry_and_poses_alone(here, capsys):
    before = tree(".")
    assert main(["canonicalize", "in", "--out", "out", *OUR, "--dry-run", "--shard-size", "5"]) == 3
    out, _ = lines(capsys)
    assert out.splitlines()[0] == "12 pictures; 3 shards are left, 0 are finished"
    assert "of the first 12: 2 bad, 3 copied, 7 turned (" in out
    assert "would write out\nwould write out.manifest" in out
    assert tree(".") == before
    assert main(["canonicalize", "in", "--manifest-only", "--manifest", "poses", *OUR]) == 3
    assert main(["canonicalize", "in", "--manifest-only", "--out", "poses2", *OUR]) == 3
    assert rows("poses") == rows("poses2")
    assert not Path("out").exists()


def test_canonicalize_decides_as_told(here, capsys):
    files = sorted(map(str, Path("in").rglob("00*.png")))

    def counts(output, *flags):
        assert main(["canonicalize", *files, "--out", output, *OUR, *flags]) == 0
        return lines(capsys)[0].partition(": ")[2].partition(" (")[0]

    assert counts("a") == "3 copied, 7 turned"
    assert counts("b", "--min-confidence", "1") == counts("c", "--gate", "1") == "10 copied"
    assert counts("d", "--deployment-prior", "1") == counts("e", "--upright-share", "1.0") == "10 copied"
    assert counts("f", "--deployment-prior", "0,1,0,0") == "10 turned"
    assert counts("g", "--flag", "1", "--limit", "4") == "3 copied, 1 turned"
    assert all(row["flagged"] for row in rows("g.manifest"))
    assert counts("h", "--within-degrees", "90") == "8 copied, 2 turned"


def test_canonicalize_from_a_configuration(here):
    Path("run.yaml").write_text(
        "sources: in\nout: out\ncanonicalizer: ours\ntrust-code: true\nkeep-bad: true\n"
    )
    assert main(["canonicalize", "--config", "run.yaml"]) == 3
    assert len(tree("out")) == 12


MISTAKES = {
    "no source": ([*OUR, "--out", "o"], "no source; give a folder, or files of one kind"),
    "no output": (["in", *OUR], "--out is missing; say where to: --out upright-photos"),
    "no place": (["in", "--manifest-only", *OUR], "--manifest-only needs a place"),
    "no such source": (["nothing", "--out", "o", *OUR], "nothing does not exist; give a folder"),
    "both gates": (["in", "--out", "o", "--gate", "0.5", "--flag", "0.5", *OUR], "say different things"),
    "a prior of three": (["in", "--out", "o", "--deployment-prior", "0.9,0.1,0", *OUR], "4"),
    "a part": (["in", "--out", "o", "--part", "5/4", *OUR], "part must be i/n with 1 ≤ i ≤ n, such as 2/4"),
    "code": (["in", "--out", "o", "--canonicalizer", "ours"], "pass trust_code=True"),
    "a device": (["in", "--out", "o", *OUR, "--device", "abacus"], "--device abacus is not usable here"),
    "quality": (["in", "--out", "o", *OUR, "--quality", "200"], "quality must lie in 1…100, got 200"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_canonicalize_mistakes(here, capsys, name):
    argv, told = MISTAKES[name]
    assert main(["canonicalize", *argv]) == 2
    out, err = lines(capsys)
    assert (out, len(err)) == ("", 1)
    assert told in err[0]
    assert not Path("o").exists()


@pytest.mark.parametrize("form", ["parquet", "jsonl", "csv"])
def test_predict_streams(here, capsys, form):
    command = ["predict", "saved", "in", "--trust-code", "--out", "answers", "--format", form, "--quiet"]
    assert main([*command, "--shard-size", "5"]) == 3
    out, err = lines(capsys)
    assert out.startswith("12 pictures classified: 2 bad, 10 ok (")
    assert "rows: answers" in out
    assert len(err) == 5
    found = read("answers", form)
    assert len(found) == 12
    for row in found:
        if row["status"] == "ok":
            assert row["prediction"] == "sky"
            assert float(row["degrees"]) == 90 * (number_of(row["path"]) % 4)
            assert float(row["confidence"]) > 0.9
    assert [row["path"] for row in found if row["error"]] == ["a/cut.png", "none.jpg"]
    before = tree("answers")
    Path(f"answers/shard-000001.{form}").unlink()
    assert main([*command, "--shard-size", "5"]) == 3
    assert "2 shards were finished before" in lines(capsys)[0]
    assert tree("answers") == before
    assert main([*command, "--shard-size", "5", "--mode", "average"]) == 2
    assert 'mode: "canonical", now "average"' in lines(capsys)[1][0]


def read(where, form):
    if form == "parquet":
        return rows(where)
    paths = sorted(Path(where).glob(f"shard-*.{form}"))
    if form == "jsonl":
        return [json.loads(line) for path in paths for line in path.read_text().splitlines()]
    return [row for path in paths for row in csv.DictReader(path.read_text().splitlines())]


def test_predict_streams_tables_and_tars(here, capsys):
    for source in (str(tables("t")), str(tars("w"))):
        assert main(["predict", "saved", source, "--trust-code", "--out", f"{source}-answers"]) == 0
        assert {row["prediction"] for row in rows(f"{source}-answers")} == {"sky"}


def test_predict_mistakes(here, capsys):
    run = ["predict", "saved", "in", "--trust-code"]
    assert main([*run, "--out", "o", "--json", "a.json"]) == 2
    assert "--json is for pictures that fit into memory" in lines(capsys)[1][0]
    assert main([*run, "--shard-size", "5"]) == 2
    assert "--shard-size is for streams; give --out, too" in lines(capsys)[1][0]
    assert main([*run, "--out", "in/answers"]) == 2
    assert "lie in one another" in lines(capsys)[1][0]


def test_predictions_of_another_model_are_refused(here):
    sys.path.insert(0, os.getcwd())
    try:
        robust = upright.load("saved", trust_code=True)
    finally:
        sys.path.pop(0)
    preprocess = SquarePreprocess(16, (0.0,) * 3, (1.0,) * 3)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 2))
    other = upright.adapt(model, "C4", canonicalizer=robust.canonicalizer)
    predict(other, "in", "answers", preprocess, names=("a", "b"))
    assert predict(other, "in", "answers", preprocess, names=("a", "b")).items == 0
    with torch.no_grad():
        model[1].bias += 1
    with pytest.raises(ValueError, match=r"other settings .model: "):
        predict(other, "in", "answers", preprocess, names=("a", "b"))
    with pytest.raises(ValueError, match=r"preprocess\.size: 16, now 12"):
        predict(other, "in", "answers", SquarePreprocess(12, (0.0,) * 3, (1.0,) * 3), names=("a", "b"))


def test_a_bar_is_shown_on_a_terminal(here, monkeypatch, capsys):
    from rich.console import Console

    monkeypatch.setattr(Console, "is_terminal", True)
    assert main(["canonicalize", "in", "--out", "out", *OUR[:-1]]) == 3
    assert "pictures" in capsys.readouterr().err


def test_the_manifest_is_one_table(here):
    main(["canonicalize", "in", "--out", "out", *OUR, "--shard-size", "3"])
    table = pq.read_table("out.manifest")
    assert table.num_rows == 12
    assert pq.read_schema("out.manifest/shard-000000.parquet").names == table.schema.names
