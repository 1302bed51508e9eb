"""Every mistake on the command line is one line on stderr, exit code 2, and leaves no file."""

import re
from pathlib import Path

import pytest

import upright
from cli_work import files, lines, photo, work_folder  # noqa: F401
from upright import hub
from upright.cli import main

RUN = ["predict", "saved", "--trust-code"]
ADAPT = ["adapt", "--model", "my_code:make", "-o", "robust"]
TRAIN = [*ADAPT, "--train", "classes", "--epochs", "1", "--thumbnail", "16"]
EVALUATE = ["evaluate", "saved", "--trust-code", "--data", "classes"]
MISTAKES = {
    "unknown verb": (["fly"], "unknown verb 'fly'; verbs: adapt"),
    "flag before the verb": (["--debug-not", "info"], "unrecognized arguments: --debug-not"),
    "unknown flag": (["predict", "--speed", "3"], "unrecognized arguments: --speed"),
    "flag of another type": (["adapt", "--epochs", "many"], "--epochs: invalid"),
    "zero epochs": (["adapt", "--epochs", "0"], "must be at least 1"),
    "nothing given": (["predict"], "nothing to do: give a folder"),
    "no pictures given": (["predict", "saved"], "no pictures; give files"),
    "missing picture": ([*RUN, "nowhere.jpg"], "nowhere.jpg does not exist; give pictures"),
    "nothing readable": ([*RUN, "my_code.py"], "none of the 1 pictures can be read"),
    "empty folder": ([*RUN, "empty"], "no pictures in empty"),
    "missing saved folder": (
        ["predict", "nowhere", "photos"],
        "no saved canonicalizer 'nowhere'; give a folder",
    ),
    "pictures first": (
        ["predict", "photos"],
        "photos was not saved by upright; give a folder that 'upright adapt'",
    ),
    "code that is not trusted": (["predict", "saved", "photos"], "give --trust-code to run it, or --model"),
    "damaged folder": (["predict", "damaged", "photos", "--trust-code"], "is damaged"),
    "json folder": ([*RUN, "photos", "--json", "photos"], "--json photos is a folder"),
    "json nowhere": (
        [*RUN, "photos", "--json", "no/out.json"],
        "the folder no does not exist; make it first",
    ),
    "csv nowhere": ([*RUN, "photos", "--csv", "no/out.csv"], "the folder no does not exist"),
    "pictures over pictures": (
        [*RUN, "photos", "--save-upright", "photos"],
        "is not empty; give a new folder",
    ),
    "two terminals": ([*RUN, "photos", "--json", "-", "--csv", "-"], "cannot both go to the terminal"),
    "bad device": ([*RUN, "photos", "--device", "abacus"], "--device abacus is not usable here"),
    "wrong group": ([*RUN, "photos", "--group", "D4"], "saved is of C4, but --group is D4"),
    "unknown group": ([*ADAPT, "--group", "X9"], "unknown group 'X9'; expected 'C<n>'"),
    "no ready-made": ([*ADAPT, "--group", "C8"], "no ready-made canonicalizer for C8 .*--train DATA"),
    "no output": (["adapt", "--model", "my_code:make"], "--output is missing"),
    "no model": (["adapt", "-o", "robust"], "--model is missing"),
    "output is a file": (
        ["adapt", "--model", "my_code:make", "-o", "my_code.py"],
        "is a file; give a folder",
    ),
    "output is foreign": (
        ["adapt", "--model", "my_code:make", "-o", "photos"],
        "files that upright did not write",
    ),
    "output nowhere": (["adapt", "--model", "my_code:make", "-o", "a/b/c"], "the folder a/b does not exist"),
    "unknown model": (["adapt", "--model", "./net", "-o", "robust"], "no model './net'"),
    "unknown module": (["adapt", "--model", "no_code:make", "-o", "robust"], "No module named 'no_code'"),
    "unknown function": (
        ["adapt", "--model", "my_code:fake", "-o", "robust"],
        "name a function of that module",
    ),
    "wrong shape": (
        ["adapt", "--model", "my_code:wrong_shape", "-o", "robust", "--train", "classes"],
        r"does not take pictures of shape \(3, 224, 224\): .*; set --size",
    ),
    "no scores": (
        ["adapt", "--model", "my_code:no_scores", "-o", "robust", "--train", "classes"],
        "class scores",
    ),
    "dense scores": (
        ["adapt", "--model", "my_code:pixels", "-o", "robust", "--train", "classes"],
        r"shape \(1, K\)",
    ),
    "unknown network": ([*TRAIN, "--network", "magic"], "network must be one of 'orbit'"),
    "network without training": ([*ADAPT, "--network", "polar"], "needs training; give --train DATA"),
    "training data missing": ([*ADAPT, "--train", "./nowhere"], "nowhere does not exist"),
    "training data unreadable": ([*ADAPT, "--train", "my_code.py"], "neither a folder nor a .parquet file"),
    "mode without top_k": ([*TRAIN, "--mode", "average", "--top-k", "2"], "needs mode='top_k'"),
    "cover out of range": ([*TRAIN, "--cover", "1.5"], r"cover must lie in \(0, 1\], got 1.5"),
    "mean without std": ([*ADAPT, "--mean", "0", "0", "0"], "--mean and --std go together"),
    "resume nowhere": ([*TRAIN, "--resume"], "--resume needs --checkpoints"),
    "no data": (["evaluate", "saved"], "--data is missing"),
    "evaluation data missing": ([*EVALUATE[:3], "--data", "./nowhere"], "nowhere does not exist"),
    "figures are a file": ([*EVALUATE, "--figures", "my_code.py"], "is a file; give a folder"),
    "other classes": ([*EVALUATE[:3], "--data", "animals"], "class 'cat' is none of the model's 2 classes"),
    "missing config": ([*ADAPT, "--config", "no.yaml"], "--config no.yaml does not exist"),
    "config without file": ([*ADAPT, "--config"], "--config needs a file"),
    "config is code": ([*ADAPT, "--config", "broken.yaml"], "no readable YAML"),
    "config is a list": ([*ADAPT, "--config", "list.yaml"], "must hold keys and values"),
    "config key": ([*ADAPT, "--config", "key.yaml"], "unknown key 'epoch'; known keys: .*epochs"),
    "config type": ([*ADAPT, "--config", "type.yaml"], "epochs must be of type positive, got 'many'"),
    "config choice": ([*ADAPT, "--config", "choice.yaml"], "mode must be one of canonical, top_k, weighted"),
    "config flag": ([*ADAPT, "--config", "flag.yaml"], "half must be true or false, got 3"),
    "info of nothing": (["info", "nowhere"], "no saved canonicalizer 'nowhere'"),
}
CONFIGS = {
    "broken": "group: [C4",
    "list": "- C4",
    "key": "epoch: 3",
    "type": "epochs: many",
    "choice": "mode: best",
    "flag": "half: 3",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(work, capsys, monkeypatch, mistake):
    argv, message = MISTAKES[mistake]
    monkeypatch.setattr(hub, "READY_MADE", {})
    for name, text in CONFIGS.items():
        Path(f"{name}.yaml").write_text(text)
    Path("empty").mkdir()
    for name in ("cat", "dog", "owl"):
        Path("animals", name).mkdir(parents=True)
        photo().save(Path("animals", name, "1.png"))
    hub.save(upright.canonicalizer("C4", size=16), "damaged", "my_code:make")
    Path("damaged", hub.WEIGHTS).write_bytes(b"\0" * 20)
    before = files()
    assert main(argv) == 2
    out, err = lines(capsys)
    assert len(err) == 1, err
    assert err[0].startswith("upright: error: ")
    assert re.search(message, err[0]), err[0]
    assert files() == before
    assert out == ""


def test_debug_shows_where(work):
    with pytest.raises(hub.LoadError):
        main(["info", "nowhere", "--debug"])
