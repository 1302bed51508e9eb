"""Weighted frames: outputs change continuously where a single choice of a pose must jump."""

import math

import pytest
import torch

from adapter_toys import Classifier, Dense, small
from upright import SO2, Adapted, Cyclic, Image, Pose
from upright.adapter import passes
from upright.adapter.passes import continuous_weights
from upright.canonicalizers import Canonicalizer
from upright.testing import assert_adapted


def test_weights_vanish_at_the_cut_and_know_no_order():
    probs = torch.tensor([[0.5, 0.3, 0.15, 0.05]], dtype=torch.float64)
    assert continuous_weights(probs, 0.2).tolist()[0] == pytest.approx([0.4, 0.2, 0.05, 0.0])
    assert continuous_weights(probs, 0.2, top_k=2).tolist()[0] == pytest.approx([0.35, 0.15, 0.0, 0.0])
    assert continuous_weights(probs, 1.0).tolist() == [[1.0, 0.0, 0.0, 0.0]]
    assert continuous_weights(torch.full((1, 4), 0.25), 0.2).tolist()[0] == pytest.approx([0.2] * 4)
    ties = continuous_weights(torch.tensor([[0.4, 0.4, 0.2]]), 0.5, top_k=1)
    assert ties.tolist() == [[1.0, 0.0, 0.0]]  # no way through: the first


def jumps(adapted, x0, x1, steps=24):
    """The largest jump of the output at a change of the decision along a path, and how many there are.

    Changes are found by bisection, all at once.
    """

    def at(t):
        t = t.view(-1, 1, 1, 1)
        with torch.no_grad():
            run = adapted.run((1 - t) * x0 + t * x1)
        pose = run.pose.element.value.double()
        if adapted.group == SO2():
            pose = (pose > math.pi / 2).double()  # which of two hills
        return run.output.flatten(1), torch.stack([pose, run.passes.double()], 1)

    grid = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    decisions = at(grid)[1]
    change = (decisions[1:] != decisions[:-1]).any(1)
    low, high = grid[:-1][change], grid[1:][change]
    for _ in range(40):
        middle = (low + high) / 2
        same = (at(middle)[1] == at(low)[1]).all(1)
        low, high = torch.where(same, middle, low), torch.where(same, high, middle)
    return float((at(low)[0] - at(high)[0]).abs().max()) if len(low) else 0.0, len(low)


def path():
    """Two pictures that a canonicalizer sees differently, and the canonicalizer, in float64."""
    c = small("C4").double()
    c.temperature.fill_(0.05)
    x = torch.rand(12, 3, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    values = c(x).element.value
    other = int((values != values[0]).nonzero()[0])
    return c, x[0], x[other]


CASES = [("logits", {}), ("logits", {"cut": 0.6}), ("logits", {"top_k": 2}), ("logits", {"evidence": 2.0})]
CASES += [("mask", {}), ("mask", {"top_k": 2})]


@pytest.mark.parametrize(("outputs", "settings"), CASES, ids=str)
def test_outputs_are_continuous_through_ties(outputs, settings):
    model = (Classifier() if outputs == "logits" else Dense()).double().eval()
    c, x0, x1 = path()
    hard, found = jumps(Adapted(model, c, outputs=outputs), x0, x1)
    assert found
    assert hard > 1e-2
    soft, found = jumps(Adapted(model, c, outputs=outputs, mode="weighted", **settings), x0, x1)
    assert found
    assert soft < 1e-6


@pytest.mark.parametrize("mutant", ["cover", "hard top_k", "hard cut"])
def test_weights_that_jump_are_caught(mutant, monkeypatch):
    model = Classifier().double().eval()
    c, x0, x1 = path()
    settings = {"mode": "weighted"}
    if mutant == "cover":
        settings = {"mode": "top_k", "cover": 0.6}
    elif mutant == "hard top_k":
        settings = {"mode": "top_k", "top_k": 1}
    else:
        monkeypatch.setattr(
            passes, "continuous_weights", lambda p, cut, k: p * (p >= cut * p.amax(1, keepdim=True))
        )
    jump, found = jumps(Adapted(model, c, **settings), x0, x1)
    assert found
    assert jump > 1e-4


def test_weighted_outputs_stay_equivariant():
    def pictures(batch, generator):
        return Image(torch.rand(batch, 3, 12, 12, generator=generator))

    assert_adapted(Classifier(), small("D4"), pictures, mode="weighted", tolerance=1e-4, trials=2)


class TwoAngles(Canonicalizer):
    """Two angles far apart that change with the picture's brightness, and trade places."""

    def __init__(self):
        super().__init__("SO2")

    def forward(self, x):
        t = x.mean((1, 2, 3)).double()
        first, second = 20 + 30 * t, 200 - 10 * t
        sure = torch.sigmoid(40 * (t - 0.5))
        probs = torch.stack([1 - sure, sure], 1)
        degrees = torch.stack([first, second], 1)
        order = probs.argsort(1, descending=True)
        listed = SO2().element(degrees=degrees.gather(1, order))
        return Pose(listed[:, 0], probs.gather(1, order).log(), candidates=listed)


def test_angles_are_averaged_continuously():
    model = Classifier().double().eval()
    x0, x1 = torch.rand(3, 12, 12).double() * 0.6, 0.4 + torch.rand(3, 12, 12).double() * 0.6

    hard, found = jumps(Adapted(model, TwoAngles()), x0, x1, steps=1)
    assert found
    assert hard > 1e-3
    soft, found = jumps(Adapted(model, TwoAngles(), mode="weighted"), x0, x1, steps=1)
    assert found
    assert soft < 1e-6


def test_impossible_classes_stay_impossible():
    """Averages of class scores keep minus infinity, and change continuously below any floor."""

    def model(x):
        return torch.cat([torch.full((len(x), 1), -math.inf), 200 * x.mean((2, 3))], 1)

    pose = Pose(Cyclic(4).element(torch.tensor([0])), torch.tensor([[0.6, 0.3, 0.05, 0.05]]).log())

    class Chosen(Canonicalizer):
        def forward(self, x):
            return pose

    out = Adapted(model, Chosen("C4"), mode="top_k", top_k=2)(torch.rand(1, 3, 8, 8))
    assert out[0, 0] == -math.inf
    assert out[0, 1:].isfinite().all()
