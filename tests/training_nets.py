"""Small networks and data for the tests of training; importable from other processes."""

import pytest
import torch
from torch import nn

import upright
from upright.training import DestroyArtefacts


class Plain(nn.Module):
    """Scores pictures, without batch statistics and without a constant, whose gradient is rounding only."""

    def __init__(self, group=None, *, channels=1):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 12, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2),
            nn.Conv2d(12, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 1, bias=False),
        )  # fmt: skip

    def forward(self, x):
        return self.layers(x)


def orbit(group, *, channels=1):
    return upright.nets.OrbitScorer(Plain(channels=channels), group)


class Classifier(nn.Module):
    def __init__(self, classes=3, dropout=0.2):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.dropout, self.head = nn.Dropout(dropout), nn.Linear(8 * 36, classes)

    def forward(self, x):
        x = nn.functional.avg_pool2d(torch.relu(self.norm(self.conv(x))), 2)
        return self.head(self.dropout(x.flatten(1)))


class Raises(nn.Module):
    """A predictor that must not be run."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x):
        raise AssertionError("the frozen predictor was run")


def shapes(count=384, seed=0):
    """Return pictures (N, 1, 12, 12) that have an upright direction (L, T, F in noise) and their classes."""
    generator = torch.Generator().manual_seed(seed)
    drawn = (
        "#.... #.... #.... #.... #####",
        "##### ..#.. ..#.. ..#.. ..#..",
        "##### #.... ###.. #.... #....",
    )
    stencils = torch.stack(
        [
            torch.tensor([[c == "#" for c in row] for row in rows.split()], dtype=torch.float32)
            for rows in drawn
        ]
    )
    labels = torch.randint(3, (count,), generator=generator)
    x = 0.3 * torch.rand(count, 1, 12, 12, generator=generator)
    place = torch.randint(2, 6, (count, 2), generator=generator).tolist()
    for i, (row, column) in enumerate(place):
        x[i, 0, row : row + 5, column : column + 5] += stencils[labels[i]]
    return x, labels


def adapted(model=Raises, group="C4", seed=0, network="training_nets:orbit", **settings):
    """Return an adapted model whose weights are drawn from ``seed``; ``model`` is a class or a function."""
    torch.manual_seed(seed)
    model = model() if isinstance(model, type) else model
    c = upright.canonicalizer(group, network, size=12, channels=1, **settings)
    return upright.adapt(model, group, canonicalizer=c)


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(one, other, tolerance=None):
    if one.keys() != other.keys():
        return False
    close = (
        torch.equal
        if tolerance is None
        else lambda a, b: torch.allclose(a, b, atol=tolerance, rtol=tolerance)
    )
    return all(close(one[name], other[name]) for name in one)


NO_FLIP = DestroyArtefacts(encode=0.1)  # the letters are not symmetric


@pytest.fixture(autouse=True)
def one_thread():
    """Train on one thread: small networks are slower on more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", name="data")
def letters():
    """Pictures and labels to train on."""
    return shapes(512)


def quick(robust, data, **options):
    settings = {"epochs": 2, "batch_size": 32, "progress": False, "accelerator": "cpu", "augment": NO_FLIP,
                "learning_rate": 1e-2}  # fmt: skip
    return upright.fit(robust, data, **{**settings, **options})
