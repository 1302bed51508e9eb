"""A network that names the angle of a look follows quarter turns, with one look or four, for SO2 and C_n."""

import math

import pytest
import torch
from torch import nn

import upright
from cases import name
from upright import Cyclic, Image
from upright.nets import Glance
from upright.testing import assert_equivariant


class Guess(nn.Module):
    """Judges a picture by all of its pixels, and counts the pictures that it is asked about."""

    def __init__(self, outputs, side):
        super().__init__()
        weight = torch.randn(3 * side * side, outputs, generator=torch.Generator().manual_seed(0))
        self.register_buffer("weight", weight.double())
        self.asked = 0

    def forward(self, x):
        self.asked += len(x)
        return (x.flatten(1).double() @ self.weight / 9).to(x)


class Compass(nn.Module):
    """Reads the angle of a bright spot off its position."""

    def __init__(self, rays):
        super().__init__()
        self.rays = rays

    def forward(self, x):
        axis = torch.linspace(-1, 1, x.shape[-1], dtype=x.dtype)
        light = x.mean(1)
        angle = torch.atan2(-(light * axis[:, None]).sum((1, 2)), (light * axis).sum((1, 2)))
        ray = torch.arange(self.rays, dtype=x.dtype) * (2 * math.pi / self.rays)
        return 30 * (ray - angle.unsqueeze(1)).cos()


def noise(side, batch=None):
    def draw(count, generator):
        return Image(torch.randn(count, 3, side, side, generator=generator, dtype=torch.float64))

    return draw(batch, torch.Generator().manual_seed(3)).data if batch else draw


def spots(angles, side=33):
    axis = torch.linspace(-1, 1, side, dtype=torch.float64)
    rows = [
        torch.exp(-20 * ((axis - 0.6 * math.cos(a)) ** 2 + (axis[:, None] + 0.6 * math.sin(a)) ** 2))
        for a in angles.tolist()
    ]
    return torch.stack(rows).unsqueeze(1).expand(-1, 3, -1, -1)


@pytest.mark.parametrize("side", [9, 10])
@pytest.mark.parametrize("looks", [1, 4])
@pytest.mark.parametrize("group", ["SO2", "C8", "C4"])
def test_answers_follow_quarter_turns(group, looks, side):
    net = Glance(Guess(16, side), group, rays=16, looks=looks)
    count = 16 if group == "SO2" else Cyclic(int(group[1:])).n

    def rolled(g, scores):
        steps = g.value * (count // 4)
        index = (torch.arange(count) - steps.unsqueeze(1)) % count
        return scores.gather(1, index)

    assert_equivariant(net, "C4", noise(side), outputs=rolled, trials=2, tolerance=1e-9)
    net.network.asked = 0
    assert net(noise(side, 5)).std() > 0.1
    assert net.network.asked == 5 * looks


@pytest.mark.parametrize("looks", [1, 4])
def test_angles_are_those_of_the_network(looks):
    angles = torch.rand(20, generator=torch.Generator().manual_seed(1)).double() * (2 * math.pi)
    x = spots(angles)
    c = upright.ContinuousCanonicalizer(
        Glance(Compass(32), rays=32, looks=looks), "SO2", size=None, standardize=False, window_degrees=12.0
    )
    found = c.double().eval()(x).element
    assert float(torch.rad2deg(found.distance(upright.SO2().element(angle=angles))).max()) < 0.5
    eighths = Glance(Compass(32), "C8", rays=32, looks=looks)(x).argmax(-1)
    nearest = (angles / (math.pi / 4)).round().long() % 8
    away = ((angles / (math.pi / 4)) % 1 - 0.5).abs()
    assert torch.equal(eighths[away > 0.05], nearest[away > 0.05])


def test_probability_near_an_element_counts():
    logits = torch.full((1, 16), -20.0)
    logits[0, 1], logits[0, 15], logits[0, 8] = 0.0, 0.0, 0.1  # two beside 0°, the tallest at 180°

    class Said(nn.Module):
        def forward(self, x):
            return torch.cat([logits.roll(-4 * k, 1).expand(len(x) // 4, 16) for k in range(4)])

    wide = Glance(Said(), "C4", rays=16, window_degrees=22.5)(torch.rand(1, 3, 8, 8))
    assert wide.argmax().item() == 0
    narrow = Glance(Said(), "C4", rays=16, window_degrees=5.0)(torch.rand(1, 3, 8, 8))
    assert narrow.argmax().item() == 2


def test_only_the_disc_is_looked_at():
    net, x = Glance(Guess(16, 10), rays=16), noise(10, 2)
    other = x.clone()
    other[:, :, 0, 0] = 100.0
    assert torch.equal(net(other), net(x))


@pytest.mark.parametrize("group", ["SO2", "C8"], ids=name)
def test_built_by_name_and_saved(group, tmp_path):
    options = {"rays": 16, "outputs": 8, "deep": 4, "looks": 1}
    c = upright.canonicalizer(
        group,
        "lite",
        size=32,
        options=options,
        **({"peaks": {"window_degrees": 30.0}} if group == "SO2" else {}),
    ).eval()
    upright.hub.save(c, tmp_path / "saved")
    again = upright.load_canonicalizer(tmp_path / "saved")
    x = torch.rand(3, 3, 40, 40)
    assert isinstance(again.network, Glance)
    assert again.network.looks == 1
    assert torch.equal(again(x).element.value, c(x).element.value)


@pytest.mark.parametrize("looks", [1, 4])
def test_exported_as_one_graph(looks):
    judge = nn.Sequential(nn.Flatten(), nn.Linear(192, 16)).double()
    net, x = Glance(judge, "C8", rays=16, looks=looks), noise(8, 6)
    program = torch.export.export(net, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.testing.assert_close(program.module()(x[:5]), net(x[:5]))


def test_errors():
    with pytest.raises(ValueError, match="group must be SO2 or a group of rotations C<n>, got D4"):
        Glance(nn.Identity(), "D4")
    with pytest.raises(ValueError, match="rays must be a multiple of 4, at least 8, got 18"):
        Glance(nn.Identity(), rays=18)
    with pytest.raises(ValueError, match="looks must be 1 or 4, got 2"):
        Glance(nn.Identity(), looks=2)
    with pytest.raises(ValueError, match=r"one logit per angle, shape \(8, 16\), got \(8, 12\)"):
        Glance(Guess(12, 8), rays=16)(noise(8, 2))
