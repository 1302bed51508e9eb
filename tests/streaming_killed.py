"""Kill runs at many moments, and run them again each time: ``streaming_killed.py FOLDER SEED``.

The parent imports everything once and forks a child for each run, so that a kill costs little. A child
dies by SIGKILL: after a random while, or just before or after it renames its n-th file.
"""

import os
import random
import signal
import sys
import time
from functools import partial
from pathlib import Path

import torch

import upright
from streaming_toys import always_right, folder, tables, tars, tree

MAKE = {
    "folder": lambda: folder("in", 6),
    "tables": lambda: tables("in", (5,)),
    "tars": lambda: tars("in", (5,)),
}


def run(source, output):
    torch.set_num_threads(1)
    upright.canonicalize(source, output, always_right(), shard_size=2, batch_size=2, workers=2)


def child(source, output, renames=None, after=False):
    """Run in a process of its own, that kills itself at a certain rename; return its process number."""
    pid = os.fork()
    if pid:
        return pid
    replace, count = os.replace, [0]

    def replacing(old, new):
        count[0] += 1
        if count[0] == renames and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(old, new)
        if count[0] == renames:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = replacing
    try:
        run(source, output)
        os._exit(0)
    except BaseException as error:
        print(f"failed: {error!r}", flush=True)
        os._exit(1)


def ended(pid):
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return "killed"
    return "finished" if os.WEXITSTATUS(status) == 0 else "failed"


def kill_until_finished(start):
    """Run and kill until a run comes through; return how often it was killed."""
    kills = 0
    while True:
        outcome = ended(start(kills))
        if outcome != "killed":
            return kills, outcome
        kills += 1


def main(root, seed):
    rng = random.Random(seed)
    for kind, make in MAKE.items():
        folder = Path(root, kind)
        folder.mkdir()
        os.chdir(folder)
        make()
        began = time.perf_counter()
        assert ended(child("in", "whole")) == "finished"
        took = time.perf_counter() - began
        moments = [rng.uniform(0.0, took) for _ in range(3)]
        for output, start in {
            "before": lambda n: child("in", "before", renames=3 + n % 3),
            "after": lambda n: child("in", "after", renames=3 + n % 3, after=True),
            "random": partial(killed_at, moments, "random"),
        }.items():
            kills, outcome = kill_until_finished(start)
            same = tree(output) == tree("whole")
            records = [tree(f"{name}.manifest") for name in (output, "whole")]
            heads = [record.pop("_run.json").decode().replace(output, "whole") for record in records]
            same = same and records[0] == records[1] and heads[0] == heads[1]
            print(kind, output, kills, outcome, same, flush=True)


def killed_at(moments, output, number):
    """Start a run and kill it after a while; let the one after the last moment come through."""
    pid = child("in", output)
    if number < len(moments):
        time.sleep(moments[number])
        os.kill(pid, signal.SIGKILL)
    return pid


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
