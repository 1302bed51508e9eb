"""Killed at every step of a save, a disk that is full: what was saved before, or what is saved now, is whole.

The process is really killed (SIGKILL), in a fork of one that has the library loaded already.
"""

import errno
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

import upright
from cli_work import work_folder  # noqa: F401
from test_hub import adapted, model, picture, small
from upright import _files, hub
from upright.cli import main

posix = pytest.mark.skipif(os.name != "posix", reason="kills and limits are those of POSIX")

KILLS = """
    import json, os, random, signal, sys, time
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    import torch
    torch.set_num_threads(1)
    import upright
    from test_hub import adapted, model, picture, small
    from upright import _files, hub

    root = Path({root!r})
    old, new = adapted(), adapted(mode="average").with_canonicalizer("more", small("D4"))
    scores = old.canonicalizer(picture()).log_probs
    found = []

    def state(folder):
        try:
            again = upright.load(folder, old.model)
        except Exception as error:
            return repr(error)
        same = torch.equal(again.canonicalizer(picture()).log_probs, scores)
        kept = (folder / "report.json").is_file() and (folder / "runs" / "a.txt").is_file()
        return [again.mode, list(again.canonicalizers), same, kept]

    def fresh(name):
        hub.save(old, root / name)
        (root / name / "report.json").write_text("mine")
        (root / name / "runs").mkdir()
        (root / name / "runs" / "a.txt").write_text("mine")
        return root / name

    def killed(folder, prepare, seconds=None):
        child = os.fork()
        if child == 0:
            prepare()
            while True:
                hub.save(new, folder)
                if seconds is None:
                    os._exit(0)
        if seconds is not None:
            time.sleep(seconds)
            os.kill(child, signal.SIGKILL)
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])

    def dies_at(where, function, call):
        def prepare():
            real, left = getattr(where, function), [call]
            def dying(*args, **kwargs):
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1
                return real(*args, **kwargs)
            setattr(where, function, dying)
        return prepare

    steps = [(os, name) for name in ("fsync", "rename", "replace", "link", "mkdir")]
    for where, function in (*steps, (_files, "_exchange"), (_files.shutil, "rmtree")):
        for call in range(8):
            folder = fresh(f"{{function}}{{call}}")
            died = killed(folder, dies_at(where, function, call))
            found.append([f"{{function}} {{call}}", died, state(folder)])
            if not died:
                break
    random.seed(0)
    folder = fresh("random")
    for i in range(25):
        died = killed(folder, lambda: None, seconds=random.uniform(0.0, 0.04))
        found.append([f"random {{i}}", died, state(folder)])
    print(json.dumps(found))
"""


@posix
def test_killed_at_every_step_of_a_save(tmp_path):
    code = textwrap.dedent(KILLS).format(tests=str(Path(__file__).parent), root=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    whole = (["canonical", ["default"], True, True], ["average", ["default", "more"], True, True])
    assert [one for one in found if one[2] not in whole] == []
    kills = [name for name, died, _ in found if died]
    assert {name.split()[0] for name in kills} >= {"fsync", "replace", "link", "_exchange", "rmtree", "mkdir"}
    assert sum(name.startswith("random") for name in kills) == 25
    assert {state[0] for name, died, state in found if died} == {"canonical", "average"}


@posix
def test_systems_that_cannot_exchange_folders(tmp_path, monkeypatch):
    monkeypatch.setattr(_files, "_exchange", lambda one, other: False)
    hub.save(adapted(), tmp_path / "s")
    (tmp_path / "s" / "notes").mkdir()
    (tmp_path / "s" / "notes" / "a.txt").write_text("mine")
    hub.save(adapted(mode="average"), tmp_path / "s")
    assert upright.load(tmp_path / "s", model()).mode == "average"
    assert (tmp_path / "s" / "notes" / "a.txt").read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


@pytest.fixture
def limited():
    """Set the largest file that this process may write, in bytes; a disk that is full says no alike."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@posix
@pytest.mark.parametrize("size", [0, 100, 3000])
def test_a_full_disk_leaves_what_was_saved(tmp_path, limited, size):
    old = adapted()
    hub.save(old, tmp_path / "s")
    (tmp_path / "s" / "report.json").write_text("mine")
    new = adapted(mode="average").with_canonicalizer("more", small("D4"))
    limited(size)
    with pytest.raises(OSError, match=r"too large|No space") as caught:
        hub.save(new, tmp_path / "s")
    assert caught.value.errno in (errno.EFBIG, errno.ENOSPC)
    with pytest.raises(OSError, match=r"too large|No space"):
        hub.save(new, tmp_path / "t")
    assert [p.name for p in tmp_path.iterdir()] == ["s"]
    assert (tmp_path / "s" / "report.json").read_text() == "mine"
    again = upright.load(tmp_path / "s", old.model)
    assert torch.equal(again(picture()), old(picture()))


@posix
def test_the_command_line_on_a_full_disk(work, capsys, limited):
    command = ["evaluate", "saved", "--trust-code", "--data", "classes", "--no-overhead", "--no-leakage"]
    command += ["--report", "page", "--json", "report.json"]
    assert main(command) == 0
    capsys.readouterr()

    def tree():
        return {p: p.read_bytes() for p in (*Path("page").iterdir(), Path("report.json"))}

    before = tree()
    limited(3000)
    assert main(command) == 2
    expected = "report.json: File too large; what was there is kept: make room, and run it again"
    assert expected in capsys.readouterr().err
    assert tree() == before


@posix
def test_a_full_disk_leaves_reports_and_checkpoints(tmp_path, limited):
    from upright.training.callbacks import AtomicCheckpoints

    _files.write_file(tmp_path / "report.json", "x" * 50)
    checkpoints = AtomicCheckpoints()
    checkpoints.save_checkpoint({"weights": torch.ones(4)}, tmp_path / "last.ckpt")
    limited(200)
    with pytest.raises(OSError, match=r"too large|No space"):
        _files.write_file(tmp_path / "report.json", "y" * 500)
    with pytest.raises(OSError, match=r"too large|No space"):
        checkpoints.save_checkpoint({"weights": torch.zeros(4000)}, tmp_path / "last.ckpt")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.ckpt", "report.json"]
    assert (tmp_path / "report.json").read_text() == "x" * 50
    assert torch.equal(checkpoints.load_checkpoint(tmp_path / "last.ckpt")["weights"], torch.ones(4))
