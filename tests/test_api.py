"""The public surface is frozen, typed and documented, and importing it is quick and touches nothing.

After an intended change: ``python tests/test_api.py`` writes ``tests/api_surface.json`` anew.
"""

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

import upright
import upright.testing

SURFACE = Path(__file__).with_name("api_surface.json")
MODULES = [upright, upright.testing]
HEAVY = [
    "lightning",
    "pytorch_lightning",
    "matplotlib",
    "transformers",
    "datasets",
    "torchvision",
    "pandas",
    "sklearn",
]


def surface():
    """Return every public name, with the parameters of what can be called."""
    found = {}
    for module in MODULES:
        for name, entry in sorted(vars(module).items()):
            if (name.startswith("_") and name != "__version__") or inspect.ismodule(entry):
                continue
            found[f"{module.__name__}.{name}"] = described(entry)
    return found


def described(entry):
    if inspect.isclass(entry):
        own = [base for base in entry.__mro__ if base.__module__.startswith("upright")]
        members = {n for base in own for n in vars(base) if not n.startswith("_")}
        return {"parameters": parameters(entry), "members": sorted(members)}
    return {"parameters": parameters(entry)} if callable(entry) else {"type": type(entry).__name__}


def parameters(entry):
    try:
        return [
            ("*" * (p.kind == p.KEYWORD_ONLY)) + p.name for p in inspect.signature(entry).parameters.values()
        ]
    except (TypeError, ValueError):
        return []


def test_surface_is_frozen():
    frozen, found = json.loads(SURFACE.read_text()), surface()
    changed = sorted(k for k in frozen.keys() | found.keys() if frozen.get(k) != found.get(k))
    assert not changed, f"{changed} changed; if that is intended, run: python tests/test_api.py"


def test_everything_public_is_documented():
    for module in MODULES:
        for name, entry in vars(module).items():
            if not name.startswith("_") and (inspect.isclass(entry) or inspect.isfunction(entry)):
                assert inspect.getdoc(entry), f"{module.__name__}.{name}"


def run_alone(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_import_loads_nothing_heavy():
    code = f"import sys, upright; print(*[m for m in {HEAVY} if m in sys.modules])"
    assert run_alone(code).split() == []


def test_import_touches_no_randomness_network_or_gpu():
    code = """
import random, socket, sys
import numpy, torch
def refuse(*args, **kwargs):
    raise RuntimeError("importing upright opened a socket")
socket.socket.connect = refuse
before = torch.get_rng_state(), random.getstate(), numpy.random.get_state()[1].copy()
import upright
assert torch.equal(before[0], torch.get_rng_state())
assert before[1] == random.getstate()
assert (before[2] == numpy.random.get_state()[1]).all()
assert not torch.cuda.is_initialized()
print("quiet")
"""
    assert run_alone(code).strip() == "quiet"


def test_import_adds_little_to_that_of_torch():
    code = """
import time
import torch, torch.utils._pytree, PIL.Image, numpy
start = time.process_time()
import upright
print(time.process_time() - start)
"""
    assert float(run_alone(code)) < 2.5


def test_the_package_is_typed():
    assert (Path(upright.__file__).parent / "py.typed").is_file()


@pytest.mark.parametrize("name", ["adapt", "fit", "evaluate", "load", "canonicalizer", "act"])
def test_the_one_liners_exist(name):
    assert callable(getattr(upright, name))


if __name__ == "__main__":
    SURFACE.write_text(json.dumps(surface(), indent=1) + "\n")
