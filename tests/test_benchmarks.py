"""Every benchmark is in the list of `make bench`, has a smoke run and a line in the README of the folder."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from benchmarks import smoke
from benchmarks.bench import BENCHES, chosen_names, run

FOLDER = Path(__file__).parents[1] / "benchmarks"
HELPERS = {"__init__", "bench", "models", "pictures", "record", "smoke", "turns"}
HELPERS |= {"table", "table_space", "table_studies"}
SCRIPTS = {path.stem for path in FOLDER.glob("*.py")} - HELPERS
COMMANDS = [command for commands in BENCHES.values() for command in commands]


def test_every_script_is_run_by_make_bench():
    assert {shlex.split(command)[0] for command in COMMANDS} == SCRIPTS


def test_every_script_has_a_smoke_run():
    beside_the_peer = {"peer_cifar"}
    assert {name.split()[0] for name in smoke.ANYWHERE + smoke.ON_DATA} | beside_the_peer == SCRIPTS


def test_every_script_is_described():
    described = set(re.findall(r"^\| `(\w+)`", (FOLDER / "README.md").read_text(), re.M))
    assert described == SCRIPTS


def test_results_come_from_listed_scripts_and_name_no_path_of_a_machine():
    for path in (FOLDER / "results").glob("*.json"):
        words = json.loads(path.read_text())["command"].split()
        assert words[2].removeprefix("benchmarks.") in SCRIPTS, path.name
        assert not any(word.startswith("/") for word in words), path.name


def test_names_are_checked_before_anything_runs():
    assert chosen_names(["cifar"]) == ["cifar-c4", "cifar-c8"]
    with pytest.raises(SystemExit, match="no benchmark begins with nothing-such"):
        chosen_names(["nothing-such"])


def test_what_needs_the_peer_is_skipped_without_it():
    assert run("peer_cifar --peer {peer}", None) == "skipped: no --peer"
