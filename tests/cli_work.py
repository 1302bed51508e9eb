"""A folder of code, pictures and saved models in which verbs of the command line run."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import upright
from upright import hub

CODE = """
import torch
from torch import nn
from upright.integrations import LoadedModel, SquarePreprocess

class Corners(nn.Module):
    # knows where red lies: not equivariant
    def forward(self, x):
        return 50 * torch.stack([x[:, 0, :4].mean((1, 2)), x[:, 0, -4:].mean((1, 2))], 1)

def make():
    return LoadedModel(Corners(), SquarePreprocess(16, (0.0,) * 3, (1.0,) * 3), ("sky", "ground"))

def bare():
    return Corners()

def wrong_shape():
    return nn.Linear(7, 2)

def no_scores():
    return LoadedModel(lambda x: "a cat", SquarePreprocess(16))

def pixels():
    return LoadedModel(lambda x: x, SquarePreprocess(16))
"""


def photo(seed=0, width=40, height=30):
    """Red above, blue below, with noise."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 60, (height, width, 3))
    pixels[: height // 2, :, 0] += 180
    pixels[height // 2 :, :, 2] += 180
    return Image.fromarray(pixels.astype(np.uint8))


class Toward(torch.nn.Module):
    """Scores quarter turns by where red lies; exact and trained by nobody."""

    def __init__(self, group, channels=3):
        super().__init__()

    def forward(self, x):
        red = x[:, 0]
        up, down = red[:, :4].mean((1, 2)), red[:, -4:].mean((1, 2))
        left, right = red[:, :, :4].mean((1, 2)), red[:, :, -4:].mean((1, 2))
        return torch.stack([up, left, down, right], 1)


@pytest.fixture(name="work")
def work_folder(tmp_path, monkeypatch):
    """A working directory with code, pictures and an adapted model that is always right."""
    (tmp_path / "my_code.py").write_text(CODE)
    (tmp_path / "photos").mkdir()
    for i in range(4):
        photo(i).rotate(90 * i, expand=True).save(tmp_path / "photos" / f"{i}.png")
    for name in ("sky", "ground"):
        (tmp_path / "classes" / name).mkdir(parents=True)
        for i in range(3):
            photo(i).save(tmp_path / "classes" / name / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(Path(__file__).parent)
    made = upright.canonicalizer("C4", "cli_work:Toward", size=16, standardize=False)
    hub.save(upright.adapt(torch.nn.Identity(), "C4", canonicalizer=made), "saved", "my_code:make")
    yield tmp_path
    sys.modules.pop("my_code", None)


def lines(capsys):
    captured = capsys.readouterr()
    return captured.out, [line for line in captured.err.splitlines() if line]


def files(folder="."):
    return sorted(str(p) for p in Path(folder).rglob("*") if "__pycache__" not in p.parts)
