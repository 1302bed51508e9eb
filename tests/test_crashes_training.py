"""Training that is killed at any write, or finds the disk full: run again, it ends as if nothing had been.

Processes are really killed (SIGKILL), and the disk is a real one of a few hundred kilobytes, where the
system lets a test have one.
"""

import errno
import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")

KILLS = """
    import json, os, signal, sys
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    import torch
    torch.set_num_threads(1)
    from upright import _files
    from upright.training.callbacks import AtomicCheckpoints
    from training_nets import adapted, quick, shapes, state

    data, root = shapes(32)[0], Path({root!r})

    def train(folder):
        robust = adapted()
        result = quick(robust, data, epochs=2, average=0.9, calibrate=False, output=folder, resume=True)
        whole = [name for name in os.listdir(folder) if name.endswith(".unfinished")] == []
        torch.save([state(robust), result.history, whole], root / "result.pt")

    def child(folder, prepare=lambda: None):
        pid = os.fork()
        if pid == 0:
            try:
                prepare()
                train(folder)
                os._exit(0)
            finally:
                os._exit(1)
        return os.waitpid(pid, 0)[1]

    def result():
        return torch.load(root / "result.pt", weights_only=True)

    def same(one, other):
        states = one[0].keys() == other[0].keys() and all(torch.equal(one[0][k], other[0][k]) for k in one[0])
        return states and one[1] == other[1] and other[2]

    def dies_at(function, call):
        def prepare():
            real, left = getattr(os, function), [call]
            def dying(*args, **kwargs):
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1
                return real(*args, **kwargs)
            setattr(os, function, dying)
        return prepare

    assert child(root / "whole") == 0
    expected, found = result(), []
    for function, call in (("replace", 0), ("replace", 1), ("replace", 2), ("replace", 3), ("fsync", 3)):
        folder = root / f"{{function}}{{call}}"
        died = os.WIFSIGNALED(child(folder, dies_at(function, call)))
        last, history = folder / "last.ckpt", folder / "history.json"
        epochs = AtomicCheckpoints().load_checkpoint(last)["epoch"] + 1 if last.exists() else 0
        rows = len(json.loads(history.read_text())) if history.exists() else 0
        ended = child(folder) == 0
        found.append([f"{{function}} {{call}}", died, epochs, rows, ended and same(expected, result())])
    print(json.dumps(found))
"""


def ran(code, *before, **environment):
    """Return what a script of a process of its own prints as JSON."""
    done = subprocess.run(
        [*before, sys.executable, "-c", code],
        capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


FULL = """
    import json, os, sys
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    import lightning as L
    import torch
    torch.set_num_threads(1)
    import upright
    from test_hub import adapted, model, picture, small
    from training_nets import adapted as untrained, quick, same, shapes, state
    from upright import hub

    disk, found = Path({disk!r}), {{}}

    def fill(left):
        (disk / "filler").write_bytes(b"")
        room = os.statvfs(disk)
        (disk / "filler").write_bytes(b"x" * (room.f_bavail * room.f_frsize - left))

    def refused(call):
        try:
            call()
        except OSError as error:
            return [error.errno, Path(error.filename or ".").name]
        return None

    def tree(folder):
        return {{str(p.relative_to(folder)): p.read_bytes().hex() for p in folder.rglob("*") if p.is_file()}}

    def attempt(name, call, folder, left):
        before = tree(folder) if folder.exists() else {{}}
        fill(left)
        said = refused(call)
        after = tree(folder) if folder.exists() else {{}}
        (disk / "filler").unlink()
        found[name] = [said, before == after]

    # saved folders
    old, new = adapted(), adapted(mode="average").with_canonicalizer("more", small("D4"))
    hub.save(old, disk / "s")
    for left in (0, 4096, 8192):
        attempt(f"save {{left}}", lambda: hub.save(new, disk / "s"), disk / "s", left)
    again = upright.load(disk / "s", old.model)
    found["old"] = torch.equal(again(picture()), old(picture()))
    hub.save(new, disk / "s")
    found["new"] = upright.load(disk / "s", model()).mode

    # reports
    data = torch.rand(6, 3, 20, 20), torch.arange(6) % 5
    report = upright.evaluate(old, data, leakage_limit=None, overhead=False, progress=False)
    for name, write in {{"json": report.save, "html": report.to_html, "png": report.plot_curve}}.items():
        path = disk / "reports" / f"r.{{name}}"
        write(path)
        attempt(f"report {{name}}", lambda: write(path), disk / "reports", 0)
        write(path)

    # training
    pictures, options = shapes(32)[0], {{"epochs": 2, "calibrate": False, "batch_size": 16}}
    whole = untrained()
    quick(whole, pictures, **options)

    class Fills(L.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                fill(0)

    robust = untrained()
    said = refused(lambda: quick(robust, pictures, **options, output=disk / "run", callbacks=[Fills()]))
    epochs = len(json.loads((disk / "run" / "history.json").read_text()))
    (disk / "filler").unlink()
    robust = untrained(seed=1)
    quick(robust, pictures, **options, output=disk / "run", resume=True)
    ended = same(state(robust.canonicalizer), state(whole.canonicalizer))
    found["training"] = [said, epochs, ended, sorted(os.listdir(disk / "run"))]
    print(json.dumps(found))
"""


@pytest.fixture
def disk(tmp_path):
    """Words that run a command where ``tmp_path/disk`` is a disk of its own, of 400 KiB."""
    (tmp_path / "disk").mkdir()
    mount = f'mount -t tmpfs -o size=400k tmpfs "{tmp_path}/disk" && exec "$@"'
    words = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]
    if shutil.which("unshare") is None or subprocess.run([*words, "true"], capture_output=True).returncode:
        pytest.skip("needs unshare and a mount of its own (Linux with user namespaces)")
    return words


@posix
def test_killed_at_every_write_of_training(tmp_path):
    found = ran(textwrap.dedent(KILLS).format(tests=str(TESTS), root=str(tmp_path)))
    assert [one for one in found if not one[-1]] == []
    assert all(died for _, died, *_ in found)
    assert [(epochs, rows) for name, _, epochs, rows, _ in found if "replace" in name] == [
        (0, 0), (0, 1), (1, 1), (1, 2),
    ]  # fmt: skip


def test_a_disk_that_is_full(tmp_path, disk):
    code = textwrap.dedent(FULL).format(tests=str(TESTS), disk=str(tmp_path / "disk"))
    assert ran(code, *disk) == {
        "save 0": [[errno.ENOSPC, "canonicalizer.safetensors"], True],
        "save 4096": [[errno.ENOSPC, "canonicalizer.safetensors"], True],
        "save 8192": [[errno.ENOSPC, "canonicalizer.more.safetensors"], True],
        "old": True,
        "new": "average",
        "report json": [[errno.ENOSPC, "r.json"], True],
        "report html": [[errno.ENOSPC, "r.html"], True],
        "report png": [[errno.ENOSPC, "r.png"], True],
        "training": [[errno.ENOSPC, "history.json"], 1, True, ["history.json", "last.ckpt"]],
    }
