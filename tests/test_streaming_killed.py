"""A run that is killed at any moment and started again ends as one that nobody disturbed: the same bytes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("streaming_killed.py")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_nothing_is_lost_and_nothing_comes_twice(tmp_path):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path), "7"],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    kills = 0
    for line in done.stdout.splitlines():
        *_, count, outcome, same = line.split()
        assert (outcome, same) == ("finished", "True"), line
        kills += int(count)
    assert len(done.stdout.splitlines()) == 9
    assert kills >= 15
