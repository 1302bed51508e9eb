"""Every verb works on real files."""

import csv
import json
import logging
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import upright
from cli_work import files, lines, photo, work_folder  # noqa: F401
from upright import hub
from upright.cli import main
from upright.cli.app import VERBS
from upright.cli.errors import UserError
from upright.cli.evaluate import matched
from upright.cli.predict import uprighted


def test_predict(work, capsys):
    assert main(["predict", "saved", "photos", "--trust-code", "--json", "out.json", "--csv", "out.csv"]) == 0
    out, err = lines(capsys)
    assert err == []
    assert re.search(r"picture in photos +prediction", out)
    assert re.search(r"1.png +sky +[01.9]*\d.\d% +90° +\d", out)
    rows = json.loads(Path("out.json").read_text())["predictions"]
    assert [row["degrees"] for row in rows] == [0, 90, 180, 270]
    assert {row["prediction"] for row in rows} == {"sky"}
    assert all(0 < row["pose_confidence"] <= 1 and row["confidence"] > 0.9 for row in rows)
    with open("out.csv", newline="") as file:
        assert [row["degrees"] for row in csv.DictReader(file)] == ["0.0", "90.0", "180.0", "270.0"]


def test_predict_to_the_terminal(work, capsys):
    assert main(["predict", "saved", "photos/1.png", "--trust-code", "--json", "-"]) == 0
    out, _ = lines(capsys)
    assert json.loads(out)["predictions"][0]["degrees"] == 90


def test_pictures_from_everywhere(work, capsys):
    given = ["photos/0.png", str(work / "photos" / "1.png"), "classes/sky"]
    assert main(["predict", "saved", *given, "--trust-code"]) == 0
    assert "classes/sky/2.png" in lines(capsys)[0]
    assert main(["predict", "saved", "photos/0.png", "classes/sky/0.png", "--trust-code"]) == 0
    assert "classes/sky/0.png" in lines(capsys)[0]


def test_save_upright(work, capsys):
    assert main(["predict", "saved", "photos", "photos/1.png", "--trust-code", "--save-upright", "flat"]) == 0
    assert files("flat") == ["flat/0.png", "flat/1-2.png", "flat/1.png", "flat/2.png", "flat/3.png"]
    for i in range(4):
        assert np.array_equal(np.array(Image.open(f"flat/{i}.png")), np.array(photo(i)))


@pytest.mark.parametrize("reflected", [False, True])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_uprighted_inverts_the_action(degrees, reflected):
    group = upright.Dihedral(4)
    g = group.element(degrees // 90 + 4 * reflected)
    x = torch.from_numpy(np.array(photo())).permute(2, 0, 1)
    turned = upright.act(g, upright.Image(x)).data
    back = uprighted(Image.fromarray(turned.permute(1, 2, 0).numpy()), degrees, reflected)
    assert np.array_equal(np.array(back), np.array(photo()))


def test_uprighted_at_other_angles():
    picture = Image.new("RGB", (40, 40), "red")
    assert uprighted(picture, 45, False).size[0] > 40


def test_exif_orientation_is_applied(work, capsys):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side
    photo(0).rotate(90, expand=True).save("side.jpg", exif=exif, quality=95)
    assert main(["predict", "saved", "side.jpg", "--trust-code", "--json", "-"]) == 0
    assert json.loads(lines(capsys)[0])["predictions"][0]["degrees"] == 0


def test_unreadable_pictures_are_reported_and_skipped(work, capsys):
    Path("photos/notes.png").write_text("no picture")
    data = Path("photos/0.png").read_bytes()
    Path("photos/cut.png").write_bytes(data[: len(data) // 2])
    assert main(["predict", "saved", "photos", "--trust-code", "--json", "out.json"]) == 0
    _, err = lines(capsys)
    assert err[0] == "upright: skipped 2 unreadable pictures:"
    document = json.loads(Path("out.json").read_text())
    assert len(document["predictions"]) == 4
    assert {Path(s["path"]).name for s in document["skipped"]} == {"notes.png", "cut.png"}


def test_evaluate(work, capsys):
    command = ["evaluate", "saved", "--trust-code", "--data", "classes", "--no-overhead"]
    assert main([*command, "--json", "report.json", "--figures", "figures", "--limit", "4"]) == 0
    out, err = lines(capsys)
    assert err == []
    assert "adapted" in out
    assert "[/" not in out
    report = upright.Report.load("report.json")
    assert report.rows["adapted"].orbit_mean.value == report.rows["oracle"].orbit_mean.value
    assert files("figures") == [f"figures/{n}.png" for n in ("angles", "gallery", "reliability")]


def test_evaluate_without_labels(work, capsys):
    assert (
        main(["evaluate", "saved", "--trust-code", "--data", "photos", "--no-overhead", "--no-leakage"]) == 0
    )


def test_evaluate_prints_json(work, capsys):
    command = ["evaluate", "saved", "--trust-code", "--data", "classes", "--no-overhead", "--no-leakage"]
    assert main([*command, "--mode", "average", "--json", "-"]) == 0
    assert "adapted" in json.loads(lines(capsys)[0])["rows"]


def test_adapt_trains_and_saves(work, capsys):
    Path("settings.yaml").write_text(
        "group: D4\nepochs: 1\nthumbnail: 16\nbatch-size: 2\ntop_k: 2\nhalf: true\n"
    )
    command = [
        "adapt",
        "--config",
        "settings.yaml",
        "--model",
        "my_code:make",
        "--train",
        "classes",
        "-o",
        "robust",
    ]
    assert main([*command, "--group", "C4", "--checkpoints", "runs"]) == 0
    out, _ = lines(capsys)
    assert "equivariant to C4" in out
    manifest = hub.read_manifest("robust")
    assert (manifest.group, manifest.canonicalizer["size"]) == ("C4", 16)
    assert (manifest.adapter["mode"], manifest.adapter["top_k"]) == ("top_k", 2)
    assert "Trained on 6 pictures of `classes` for 1 epoch in" in Path("robust/README.md").read_text()
    assert (work / "runs").is_dir()
    assert main(["predict", "robust", "photos", "--trust-code"]) == 0
    assert main(["info", "robust"]) == 0
    assert "my_code:make" in lines(capsys)[0]


def test_positions_may_come_from_the_configuration(work, capsys):
    Path("settings.yaml").write_text("saved: saved\ndata: classes\ntrust-code: true\nno-overhead: true\n")
    assert main(["evaluate", "--config=settings.yaml", "--no-leakage", "--json", "-"]) == 0
    Path("settings.yaml").write_text("paths: [saved, photos]\ntrust-code: true\n")
    assert main(["predict", "--config", "settings.yaml"]) == 0


def test_adapt_without_training_uses_a_saved_canonicalizer(work, capsys):
    hub.save(upright.canonicalizer("C4", "polar", size=16), "plain")
    assert (
        main(["adapt", "--model", "my_code:bare", "--size", "16", "--canonicalizer", "plain", "-o", "robust"])
        == 0
    )
    assert main(["predict", "robust", "photos", "--model", "my_code:bare", "--size", "16"]) == 0
    assert main(["predict", "photos", "--model", "my_code:make", "--canonicalizer", "plain"]) == 0


def test_how_pictures_are_made_is_kept_in_the_saved_folder(work, capsys):
    hub.save(upright.canonicalizer("C4", "polar", size=16), "plain")
    flags = ["--size", "12", "--mean", "0.5", "0.4", "0.3", "--std", "0.2", "0.25", "0.5"]
    adapt = ["adapt", "--model", "my_code:bare", "--canonicalizer", "plain", "-o", "robust"]
    assert main([*adapt, *flags]) == 0
    kept = {"size": 12, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.5]}
    assert hub.read_manifest("robust").model["preprocess"] == kept
    capsys.readouterr()
    assert main(["info", "robust"]) == 0
    assert re.search(r"its mean +\[0.5, 0.4, 0.3\]", lines(capsys)[0])

    def said(*words):
        assert main(["predict", "robust", "photos", "--json", "-", *words]) == 0
        rows = json.loads(lines(capsys)[0])["predictions"]
        return [(row["prediction"], row["confidence"]) for row in rows]

    of_the_folder = said("--trust-code")
    assert of_the_folder == said("--model", "my_code:bare") == said("--model", "my_code:bare", *flags)
    assert of_the_folder != said("--trust-code", "--mean", "0.5", "0.5", "0.3", "--std", "2", "1", "1")
    assert said("--model", "my_code:make")  # another model brings its own
    manifest = json.loads(Path("robust", hub.MANIFEST).read_text())
    manifest["model"]["preprocess"]["crop"] = 0.5
    Path("robust", hub.MANIFEST).write_text(json.dumps(manifest))
    assert main(["predict", "robust", "photos", "--trust-code"]) == 2
    assert "unknown key 'model.preprocess.crop'; known keys: mean, size, std" in lines(capsys)[1][0]


def test_ready_made_canonicalizers(work, capsys, monkeypatch):
    hub.save(
        upright.canonicalizer("C4", size=16),
        "weights/photo-c4",
        card="## Measured\n\n```\ncode\n```\n\nWell.",
    )
    monkeypatch.setattr(hub, "READY_MADE", {"C4": "photo-c4"})
    monkeypatch.setattr(hub, "_packaged", lambda name: work / "weights" / name)
    assert main(["adapt", "--model", "my_code:make", "-o", "robust", "--cover", "0.9"]) == 0
    assert hub.read_manifest("robust").adapter["mode"] == "top_k"
    assert main(["predict", "--model", "my_code:make", "photos"]) == 0
    assert main(["predict", "photo-c4", "photos", "--model", "my_code:make"]) == 0
    capsys.readouterr()
    for command in (["info"], ["info", "photo-c4"]):
        assert main(command) == 0
        out = lines(capsys)[0]
        assert "photo-c4" in out
        assert "Measured" in out
        assert "Well." in out
    assert main(["predict", "photo-c4", "photos"]) == 2
    assert lines(capsys)[1] == [
        "upright: error: photo-c4 does not say which model it belongs to; give --model"
    ]


def test_info(capsys):
    assert main(["info"]) == 0
    out, err = lines(capsys)
    assert upright.__version__ in out
    assert "group_cnn" in out
    assert "extra [hf]" in out
    assert err == []


def test_version_and_help(capsys):
    assert main(["--version"]) == 0
    assert lines(capsys)[0] == f"upright {upright.__version__}\n"
    assert main([]) == 0
    assert main(["--help"]) == 0
    out = lines(capsys)[0]
    assert all(verb in out for verb in VERBS)
    for verb in ("adapt", "evaluate", "predict", "info"):
        assert main([verb, "--help"]) == 0
        assert "--config" in lines(capsys)[0]


def test_names_may_hold_brackets(work, capsys):
    photo().save("photos/a [bold]b[x].png")
    assert main(["predict", "saved", "photos", "--trust-code"]) == 0
    assert "a [bold]b[x].png" in lines(capsys)[0]


def test_log_lines_of_libraries_stay_off_the_terminal(work, capsys, monkeypatch):
    import huggingface_hub

    def offline(*args, **kwargs):
        logging.getLogger("huggingface_hub").warning("Retrying in 1s")
        raise OSError("no connection")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    assert main(["info", "someone/something"]) == 2
    assert len(lines(capsys)[1]) == 1
    assert logging.root.manager.disable == 0


def test_bugs_are_told_from_mistakes(work, capsys, monkeypatch):
    import upright.cli.info

    def fails(args):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(upright.cli.info, "run", fails)
    assert main(["info"]) == 1
    assert lines(capsys)[1] == ["upright: internal error: RuntimeError: two lines; --debug shows where"]

    def stopped(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(upright.cli.info, "run", stopped)
    assert main(["info"]) == 130


def test_labels_are_matched_by_name():
    model = ("tench", "great white shark", "crane", "crane")
    assert matched([0, 1], ["Great_White-Shark", "tench"], model) == [1, 0]
    assert matched([0], ["crane"], model) == [2]
    assert matched([0, 1], ["3", "0"], model) == [3, 0]
    assert matched([2, 0], ["a", "b", "c", "d"], model) == [2, 0]
    assert matched([5], [], model) == [5]
    assert matched([0, 1], ["dog", "cat"], ("cat, house cat", "dog, hound")) == [1, 0]
    assert matched([2, 3], ["tench", "great white shark", "crane", "crane"], model) == [2, 3]
    with pytest.raises(
        UserError, match="class 'owl' is none of the model's 4 classes; name the class folders"
    ):
        matched([0], ["owl", "tench"], model)


def test_as_a_program(work):
    run = subprocess.run(
        [sys.executable, "-m", "upright.cli", "predict", "nowhere", "x.png"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.count("\n") == 1


def test_importing_stays_light():
    heavy = ("lightning", "transformers", "matplotlib", "rich", "datasets", "pyarrow")
    code = f"import sys, upright; print([name for name in {heavy} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
