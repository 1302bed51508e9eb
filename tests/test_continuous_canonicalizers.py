"""Continuous canonicalizers: poses follow turns and flips, on the grid exactly; the density, its peaks and
their gradients are what arithmetic says; training, saving and adapting work by name."""

import math

import pytest
import torch
from torch import nn

import upright
from upright import ContinuousCanonicalizer, IdentityPrior, Image, Points, VectorField, act
from upright.canonicalizers.peaks import hills
from upright.losses import prior_loss
from upright.nets import PolarDensity, SteerableNet
from upright.nets.polar import polar_grid
from upright.testing import assert_canonical, assert_equivariant, redraw_weights

SMALL = {"widths": (6, 8, 8), "rays": 32, "rings": 8}
NETS = {"polar": PolarDensity, "steerable": SteerableNet}


def small(group="SO2", network="polar", **settings):
    settings = {"size": 32, "options": SMALL, "peaks": {"window_degrees": 12.0}} | settings
    made = upright.canonicalizer(group, network, **settings)
    return redraw_weights(made, torch.Generator().manual_seed(0)).eval()


def pictures(side):
    def make(batch, generator):
        return Image(torch.rand(batch, 3, side, side, generator=generator, dtype=torch.float64))

    return make


@pytest.mark.parametrize("network", NETS)
@pytest.mark.parametrize("group", ["SO2", "O2"])
def test_canonical(group, network):
    # random densities have rival peaks: a few drawn angles jump, quarter turns never do
    assert_canonical(small(group, network), trials=1, degrees=(2.0, 180.0))


@pytest.mark.parametrize("side", [16, 17])
@pytest.mark.parametrize("network", NETS)
@pytest.mark.parametrize("group", ["SO2", "O2"])
def test_networks_follow_quarter_turns_and_flips(group, network, side):
    """Scores permute: the cell of h goes to that of g @ h."""
    net = NETS[network](group, **SMALL)
    cells = ContinuousCanonicalizer(net, group, window_degrees=12.0).cells()
    elements = cells[torch.arange(8, net.bins, 8)]  # quarter turns, and all flips

    def shifted(g, y):
        source = g.inverse().reshape(-1, 1).compose(cells.reshape(1, -1))
        index = source.reshape(len(g), -1, 1).distance(cells.reshape(1, 1, -1)).argmin(-1)
        return y.gather(1, index)

    assert_equivariant(net, group, pictures(side), outputs=shifted, elements=elements, trials=1)


def shift(group, degrees, reflected=False):
    parsed = upright.parse_group(group)
    return (
        parsed.element(degrees=degrees, reflected=reflected)
        if group == "O2"
        else parsed.element(degrees=degrees)
    )


@pytest.mark.parametrize("side", [16, 17])
@pytest.mark.parametrize("turn", range(4))
def test_polar_grid_permutes_bit_for_bit(side, turn):
    x = torch.rand(2, 3, side, side)
    turned = polar_grid(torch.rot90(x, turn, (2, 3)), 24, 5)
    assert torch.equal(turned, polar_grid(x, 24, 5).roll(turn * 6, -1))


def test_polar_grid_looks_where_it_says():
    """A picture that is linear in x and y is read off exactly: an independent route to every ray and ring."""
    side, rays, rings = 21, 16, 4
    centre = (torch.arange(side, dtype=torch.float64) + 0.5) / side * 2 - 1
    x = torch.stack([centre.expand(side, side), centre[:, None].expand(side, side)]).unsqueeze(0)
    for inner, radii in (
        (None, [0.1, 0.3, 0.5, 0.7]),
        (0.05, [0.8 * (0.05 / 0.8) ** (1 - (i + 0.5) / 4) for i in range(4)]),
    ):
        seen = polar_grid(x, rays, rings, reach=0.8, inner=inner)
        for i in range(rays):
            angle = 2 * math.pi * (i + 0.5) / rays
            for j, radius in enumerate(radii):
                wanted = torch.tensor(
                    [radius * math.cos(angle), -radius * math.sin(angle)], dtype=torch.float64
                )
                torch.testing.assert_close(seen[0, :, j, i], wanted, atol=1e-9, rtol=0)
    with pytest.raises(
        ValueError, match="rays must be a multiple of 4, so that quarter turns are exact, got 18"
    ):
        polar_grid(x, 18, 3)


class Planted(nn.Module):
    """Returns given scores."""

    def __init__(self, scores):
        super().__init__()
        self.scores, self.bins = scores, scores.shape[-1]

    def forward(self, x):
        return self.scores.expand(len(x), -1)


def planted(scores, group="SO2", **settings):
    return ContinuousCanonicalizer(Planted(scores), group, size=None, **settings).double().eval()


X = torch.rand(1, 3, 8, 8, dtype=torch.float64)


@pytest.mark.parametrize("degrees", [0.0, 90.0, 91.3, 200.01, 359.7])
@pytest.mark.parametrize("rays", [32, 96])
def test_the_peak_is_where_the_density_says(rays, degrees):
    cells = torch.arange(rays, dtype=torch.float64) * (2 * math.pi / rays)
    c = planted(40 * (cells - math.radians(degrees)).cos(), window_degrees=400 / rays)
    pose = c(X)
    limit = 1e-3 if rays == 32 else 2e-5  # coarse cells alias a little
    assert float(pose.element.distance(shift("SO2", degrees))) < limit
    assert torch.equal(pose.grid.value, cells)
    assert float(pose.confidence) > 0.99


@pytest.mark.parametrize("reflected", [False, True])
@pytest.mark.parametrize("degrees", [10.0, 301.5])
def test_the_peak_of_a_reflection(degrees, reflected):
    cells = torch.arange(48, dtype=torch.float64) * (2 * math.pi / 48)
    hill = 40 * (cells - math.radians(degrees)).cos()
    scores = torch.cat([hill - 1e3, hill] if reflected else [hill, hill - 1e3])
    pose = planted(scores, "O2")(X)
    assert float(pose.element.distance(shift("O2", degrees, reflected))) < 2e-5


def test_candidates_are_hills_with_the_mass_of_their_basins():
    cells = torch.arange(96, dtype=torch.float64) * (2 * math.pi / 96)
    density = 0.7 * torch.exp(60 * ((cells - 0.5).cos() - 1)) + 0.3 * torch.exp(
        60 * ((cells - 3.0).cos() - 1)
    )
    pose = planted(density.log(), candidates=4)(X)
    torch.testing.assert_close(
        pose.candidates.value[0, :2], torch.tensor([0.5, 3.0]).double(), atol=1e-3, rtol=0
    )
    torch.testing.assert_close(pose.probs[0], torch.tensor([0.7, 0.3, 0, 0]).double(), atol=1e-5, rtol=0)
    assert torch.equal(pose.candidates.value[:, 0], pose.element.value)
    ranked, probs = pose.top_k(2)
    assert torch.equal(ranked.value, pose.candidates.value[:, :2])
    torch.testing.assert_close(probs.sum(), torch.tensor(1.0).double())


def test_hills_against_climbing_by_hand():
    generator = torch.Generator().manual_seed(3)
    height = torch.rand(4, 2, 20, generator=generator)
    masses, tops = hills(height.unsqueeze(-1), height.unsqueeze(-1), 40)
    for b in range(4):
        wanted = {}
        for s in range(2):
            for start in range(20):
                i = start
                while True:
                    best = max((i, (i + 1) % 20, (i - 1) % 20), key=lambda j: float(height[b, s, j]))
                    if best == i:
                        break
                    i = best
                wanted[s * 20 + i] = wanted.get(s * 20 + i, 0) + float(height[b, s, start])
        found = {int(t): float(m) for t, m in zip(tops[b], masses[b], strict=True) if m > 0}
        assert found == pytest.approx(wanted)


def test_flat_density_ties():
    assert planted(torch.zeros(48, dtype=torch.float64))(X).is_tied.all()


def test_gradients_reach_the_angle():
    """The slope of the angle in the scores is that of finite differences."""
    cells = torch.arange(32, dtype=torch.float64) * (2 * math.pi / 32)
    c = planted(torch.zeros(32, dtype=torch.float64), window_degrees=12.0)
    scores = (8 * (cells - 1.0).cos() + 0.3 * (3 * cells).sin()).unsqueeze(0).requires_grad_()
    angle = lambda s: c.pose_of(s.log_softmax(-1)).element.value  # noqa: E731
    assert torch.autograd.gradcheck(angle, (scores,), eps=1e-6, atol=1e-5)


def test_gradients_reach_the_network_through_the_resampling():
    c = small(size=16).train()
    robust = upright.adapt(nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 5)), "SO2", canonicalizer=c)
    robust.canonicalizer.train()
    robust(torch.rand(2, 3, 16, 16)).square().sum().backward()
    slopes = [p.grad for p in c.parameters()]
    assert all(s is not None and bool(s.isfinite().all()) for s in slopes)
    assert any(float(s.abs().max()) > 0 for s in slopes)


def test_vectors_turn_with_the_picture_and_state_the_density():
    net = redraw_weights(SteerableNet("SO2", **SMALL).double().eval(), torch.Generator().manual_seed(1))
    x = torch.rand(3, 3, 17, 17, dtype=torch.float64)
    vectors, _ = net.vectors(x)
    turned, _ = net.vectors(torch.rot90(x, 1, (2, 3)))
    torch.testing.assert_close(turned, torch.stack([-vectors[:, 1], vectors[:, 0]], -1))
    c = ContinuousCanonicalizer(net, "SO2", size=None, standardize=False, window_degrees=12.0).double()
    angle = torch.atan2(vectors[:, 1], vectors[:, 0])
    assert float(c(x).element.distance(c.group.element(angle)).max().detach()) < 1e-4


@pytest.mark.parametrize(("group", "network"), [("SO2", "polar"), ("O2", "steerable")])
def test_by_name_adapt_fit_save_load(group, network, tmp_path):
    model = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 10))
    robust = upright.adapt(model, group, canonicalizer=small(group, network, size=16))
    x, y = torch.rand(352, 3, 20, 20), torch.randint(10, (352,))
    before = [p.detach().clone() for p in robust.canonicalizer.parameters()]
    result = upright.fit(robust, x, epochs=1, batch_size=160, progress=False)
    assert result.temperature is not None
    assert all(math.isfinite(v) for row in result.history for v in row.values())
    upright.fit(robust, (x[:24], y[:24]), epochs=1, batch_size=12, progress=False, setup="joint")
    assert any(not torch.equal(a, b) for a, b in zip(before, robust.canonicalizer.parameters(), strict=True))
    robust.save_pretrained(tmp_path / "saved")
    again = upright.load(tmp_path / "saved", model=model)
    x = x[:8]
    assert torch.equal(again.pose(x).element.value, robust.eval().pose(x).element.value)
    assert again.canonicalizer.window_degrees == 12.0
    assert robust(x).shape == (8, 10)


def test_every_kind_comes_back():
    """What a model finds in the canonical frame is moved to the user's frame, reflections included."""
    c = small("O2", size=24)
    seen = []

    def model(x):
        seen.append(x)
        return {"points": torch.full((len(x), 1, 2), 3.0), "flow": torch.ones(len(x), 2, 24, 24)}

    robust = upright.adapt(model, "O2", canonicalizer=c, outputs={"points": "points", "flow": "vector_field"})
    x = torch.rand(6, 3, 24, 24)
    run = robust.run(x)
    g = run.pose.element
    torch.testing.assert_close(seen[0], act(~g, Image(x)).data)
    points = act(g, Points(torch.full((6, 1, 2), 3.0), size=(24, 24))).data
    torch.testing.assert_close(run.output["points"], points)
    torch.testing.assert_close(run.output["flow"], act(g, VectorField(torch.ones(6, 2, 24, 24))).data)


def test_errors():
    with pytest.raises(TypeError, match="group must be SO2 or O2, scale, or a product of the two, got C4"):
        ContinuousCanonicalizer(PolarDensity("SO2", **SMALL), "C4")
    with pytest.raises(TypeError, match=r"network\.bins must be the number of scores"):
        ContinuousCanonicalizer(nn.Flatten(), "SO2")
    with pytest.raises(ValueError, match=r"at least one cell, 11\.25, got 8"):
        ContinuousCanonicalizer(PolarDensity("SO2", **SMALL), "SO2", window_degrees=8)
    with pytest.raises(ValueError, match="rays must be a multiple of 4, at least 8, got 30"):
        PolarDensity("SO2", rays=30)
    with pytest.raises(ValueError, match="group must be one of"):
        SteerableNet("C4")
    with pytest.raises(ValueError, match="network must be one of 'polar', 'steerable'"):
        upright.canonicalizer("SO2", "orbit")
    robust = upright.adapt(lambda x: x, "SO2", canonicalizer=small())
    with pytest.raises(ValueError, match="needs square pictures, got 20×30; set canvas='pad'"):
        robust(torch.rand(1, 3, 20, 30))
    with pytest.raises(ValueError, match="consistency_weight needs a finite group, got SO2"):
        upright.fit(small(), torch.rand(4, 3, 32, 32), consistency_weight=1.0, progress=False)


def test_prior_loss_is_zero_where_the_density_is_the_prior():
    c = small()
    cells = c.cells()
    exact = c.pose_of(IdentityPrior().log_density(cells).double().log_softmax(-1).unsqueeze(0))
    assert float(prior_loss(exact)) == pytest.approx(0, abs=1e-6)
    other = c.pose_of(IdentityPrior().log_density(cells).double().log_softmax(-1).roll(4).unsqueeze(0))
    assert float(prior_loss(other)) > 1


@pytest.mark.parametrize("group", ["SO2", "O2"])
def test_looking_several_times_follows_too(group):
    options = SMALL | {"twice": True} | ({"mirror": True} if group == "SO2" else {})
    assert_canonical(small(group, options=options), trials=1, degrees=(2.0, 30.0))


def test_looks_agree_where_nothing_is_resampled():
    """A picture that is the same turned by 45° scores as by one look."""
    net = redraw_weights(PolarDensity("SO2", **SMALL), torch.Generator().manual_seed(2)).double().eval()
    centre = torch.arange(32, dtype=torch.float64) - 15.5
    rings = (-((centre[:, None] ** 2 + centre**2) / 80)).exp().expand(1, 3, 32, 32)
    one = net(rings).detach()
    net.twice = net.mirror = True
    torch.testing.assert_close(net(rings).detach(), one, atol=0.02 * float(one.abs().max()), rtol=0)
    with pytest.raises(ValueError, match="mirror=True makes the reflections of O2 tie"):
        PolarDensity("O2", mirror=True)
