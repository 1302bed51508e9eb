"""Angle and scale together: poses follow turns on the grid exactly, and scales as far as content stays in
view; the density, its peaks and gradients are what arithmetic says; training and saving work by name."""

import math

import pytest
import torch
from torch import nn

import upright
from upright import ContinuousCanonicalizer, IdentityPrior, Image, Points, VonMisesPrior, act
from upright.canonicalizers.peaks import PoseGrid, hills
from upright.groups import Scale
from upright.losses import prior_loss
from upright.nets import LogPolarDensity
from upright.testing import redraw_weights
from upright.training.poses import turned_back

SMALL = {"widths": (6, 8), "rays": 32, "rings": 20}
PEAKS = {"window_degrees": 12.0}
GROUPS = ["SO2xscale", "O2xscale", "scalexSO2"]


def small(group="SO2xscale", **settings):
    settings = {"size": 40, "options": SMALL, "peaks": PEAKS if group != "scale" else {}} | settings
    made = upright.canonicalizer(group, **settings)
    return redraw_weights(made, torch.Generator().manual_seed(0)).eval()


def blobs(side=96, dtype=torch.float64):
    """Smooth pictures whose content lies well inside the disc: enlarged by √2, nothing is cut off."""
    y = torch.linspace(-1, 1, side, dtype=dtype)
    spots = [
        [(0.2, 0.1, 0.03), (-0.25, 0.2, 0.02), (0.0, -0.3, 0.05)],
        [(0.3, -0.1, 0.02), (-0.1, -0.25, 0.04), (0.15, 0.3, 0.03)],
    ]
    bell = lambda a, b, c: torch.exp(-((y - a) ** 2 + (y[:, None] - b) ** 2) / c)  # noqa: E731
    return torch.stack([torch.stack([bell(*spot) for spot in row]) for row in spots])


def element(group, *, degrees=0.0, factor=1.0, reflected=False):
    """Return one element of a product by angle and factor."""
    parsed = upright.parse_group(group)
    parts = []
    for part in getattr(parsed, "factors", (parsed,)):
        if isinstance(part, Scale):
            parts.append(part.element(factor))
        else:
            flip = {"reflected": reflected} if str(part) == "O2" else {}
            parts.append(part.element(degrees=degrees, **flip))
    return (parsed.joined(*parts) if len(parts) > 1 else parts[0]).reshape(1)


def moved(g, x):
    return act(g.expand(len(x)), Image(x, border="edge")).data


@pytest.mark.parametrize("side", [24, 25])
@pytest.mark.parametrize("group", GROUPS)
@torch.no_grad()
def test_quarter_turns_and_flips_are_exact(group, side):
    c = small(group, size=None).double()
    x = torch.rand(3, 3, side, side, dtype=torch.float64)
    still = c(x)
    for degrees in (90.0, 180.0, 270.0):
        for reflected in {False, group == "O2xscale"}:
            g = element(group, degrees=degrees, reflected=reflected)
            after = c(moved(g, x))
            assert float((g @ still.element).distance(after.element).max()) < 1e-6
            torch.testing.assert_close(after.log_probs, still.log_probs)
    values = still.element.value
    assert float((values - values[:1]).abs().max()) > 1e-3  # they do depend on the picture


@torch.no_grad()
def test_rings_are_steps_of_scale_and_rays_of_angle():
    """Features of a scaled picture are found on other rings, those of a turned one on other rays."""
    net = redraw_weights(LogPolarDensity(**SMALL), torch.Generator().manual_seed(0)).double().eval()
    x = blobs()
    before = net.features(x)
    size = float(before.std())
    for shift in (-3, 2, 3):
        after = net.features(moved(element("SO2xscale", factor=2 ** (shift / 6)), x))
        gaps = {}
        for tried in range(-4, 5):
            own, other = (
                before[:, :, max(0, -tried) : 20 - max(0, tried)],
                after[:, :, max(0, tried) : 20 + min(0, tried)],
            )
            gaps[tried] = float((own - other).abs().mean()) / size
        assert min(gaps, key=gaps.get) == shift
        assert gaps[shift] < 0.05
        assert gaps[-shift] > 4 * gaps[shift]
    after = net.features(moved(element("SO2xscale", degrees=4 * 360 / 32), x))
    assert float((before.roll(4, -1) - after).abs().mean()) / size < 0.05


@pytest.mark.parametrize("group", ["SO2xscale", "scale"])
@torch.no_grad()
def test_scores_are_the_correlation_one_by_one(group):
    """Rings beyond the template or the picture say nothing."""
    net = redraw_weights(LogPolarDensity(group, **SMALL), torch.Generator().manual_seed(0)).double().eval()
    x = torch.rand(1, 3, 24, 24, dtype=torch.float64)
    features, template = net.features(x)[0], net.template[0]
    rays = 32 if net.turns else 1
    found = net(x).view(rays, net.scales)
    assert net.bins == rays * net.scales
    for ray in {0, 5 % rays, 31 % rays}:
        for place in (0, 4, 9, 12, 18):
            shift, total = place - 9, 0.0
            for ring in range(20):
                if 0 <= ring + shift < 20:
                    total += float((template[:, ring] * features[:, ring + shift].roll(-ray, -1)).sum())
            assert float(found[ray, place]) == pytest.approx(total, abs=1e-8)


@torch.no_grad()
def test_trained_poses_follow_scale_and_angle():
    """A few steps on blobs: unseen moves are followed to 6% of scale and 3°, in the median."""
    c = upright.canonicalizer("SO2xscale", size=32, options=SMALL, peaks=PEAKS)
    x, group = blobs(32, torch.float32).repeat(8, 1, 1, 1), c.group
    optimizer = torch.optim.Adam(c.parameters(), 1e-2)
    generator = torch.Generator().manual_seed(0)
    with torch.enable_grad():
        for _ in range(25):
            g = group.sample(len(x), generator=generator)
            seen = act(g, Image(x, border="edge")).data
            loss = prior_loss(turned_back(c(seen), g))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    c.eval()
    still = c(x[:2]).element
    turns, scales = [], []
    for degrees, factor in ((10.0, 0.8), (100.0, 1.25), (217.0, 0.8), (301.0, 1.25)):
        g = element("SO2xscale", degrees=degrees, factor=factor)
        turn, scale = zip(group.parts(g @ still), group.parts(c(moved(g, x[:2])).element), strict=True)
        turns.append(turn[0].distance(turn[1]))
        scales.append(scale[0].distance(scale[1]))
    assert float(torch.rad2deg(torch.cat(turns)).median()) < 3
    assert float(torch.cat(scales).exp().median()) < 1.06
    upright_poses = [part.distance(part.group.identity()) for part in group.parts(still)]
    assert float(upright_poses[0].max()) < math.radians(10)
    assert float(upright_poses[1].max()) < math.log(1.2)


class Planted(nn.Module):
    """Returns given scores."""

    def __init__(self, scores, scales, largest):
        super().__init__()
        self.scores, self.bins, self.scales, self.largest = scores, scores.numel(), scales, largest

    def forward(self, x):
        return self.scores.flatten().expand(len(x), -1)


X = torch.rand(1, 3, 8, 8, dtype=torch.float64)


def bell(degrees, factor, tilt=0.0, rays=48, scales=19, largest=2**1.5):
    """Return log-density on the table of angles and scales, with a correlation of the two."""
    angle = torch.arange(rays, dtype=torch.float64) * (2 * math.pi / rays) - math.radians(degrees)
    log = torch.linspace(-math.log(largest), math.log(largest), scales, dtype=torch.float64) - math.log(
        factor
    )
    return 30 * (angle.cos()[:, None] - 1) - 15 * log**2 + tilt * angle.sin()[:, None] * log


def planted(scores, group="SO2xscale", **settings):
    net = Planted(scores, scores.shape[-1], 2**1.5)
    return ContinuousCanonicalizer(net, group, size=None, **settings).double().eval()


@pytest.mark.parametrize("tilt", [0.0, 25.0])
@pytest.mark.parametrize(("degrees", "factor"), [(0.0, 1.0), (91.3, 1.3), (200.01, 0.71), (359.7, 1.9)])
def test_the_peak_lies_between_cells_in_both_coordinates(degrees, factor, tilt):
    pose = planted(bell(degrees, factor, tilt))(X)
    turn, scale = pose.group.parts(pose.element)
    assert float(turn.distance(turn.group.element(degrees=degrees))) < 2e-3
    assert float(scale.distance(Scale().element(factor))) < 5e-3
    assert float(pose.confidence) > 0.99
    assert pose.grid.shape == (48 * 19,)
    assert pose.log_density.shape == (1, 48 * 19)


def test_cells_are_in_the_order_of_the_scores():
    c = planted(torch.cat([bell(30, 1.5) - 50, bell(150, 0.6)]), "O2xscale")
    cells = c.cells()
    turn, scale = c.group.parts(cells)
    best = int(c(X).log_density.argmax())
    assert c.group.factors[0].is_reflected(turn)[best]
    assert abs(float(torch.rad2deg(c.group.factors[0].angle(turn)[best])) - 150) < 4
    assert float(scale[best].distance(Scale().element(0.6))) < 0.06
    alone = planted(bell(0, 0.8)[0], "scale", window_factor=1.13)
    assert float(alone(X).element.distance(Scale().element(0.8))) < 5e-3
    swapped = planted(bell(40, 1.4), "scalexSO2")(X)
    assert torch.rad2deg(swapped.element.value[0, 1]).item() == pytest.approx(40, abs=0.2)


def test_candidates_are_hills_of_the_plane():
    both = 0.7 * bell(20, 1.6).exp() + 0.3 * bell(20, 0.5).exp()
    pose = planted(both.log(), candidates=3, window_factor=1.13)(X)
    factors = pose.group.parts(pose.candidates)[1].value.exp()[0]
    torch.testing.assert_close(pose.probs[0, :2], torch.tensor([0.7, 0.3]).double(), atol=0.02, rtol=0)
    torch.testing.assert_close(factors[:2], torch.tensor([1.6, 0.5]).double(), atol=0.02, rtol=0)


def test_hills_do_not_cross_the_ends_of_the_scales():
    height = torch.zeros(1, 1, 4, 5)
    height[0, 0, 1, 0], height[0, 0, 1, 4] = 1.0, 1.0
    masses, tops = hills(height, height, 2)
    assert sorted(tops[0].tolist()) == [5, 9]
    assert masses[0].tolist() == [1.0, 1.0]


def test_beyond_the_reach_the_end_is_given():
    pose = planted(bell(10, 5.0))(X)
    scale = pose.group.parts(pose.element)[1]
    assert 2**1.5 / 1.13 < float(scale.value.exp()) <= 2**1.5 + 1e-9


def test_gradients_reach_both_coordinates():
    c = planted(bell(0, 1.0, rays=8, scales=5), window_degrees=45.0, window_factor=1.7)
    scores = bell(60, 1.2, 10.0, 8, 5).flatten().unsqueeze(0).requires_grad_()
    value = lambda s: c.pose_of(s.log_softmax(-1)).element.value  # noqa: E731
    assert torch.autograd.gradcheck(value, (scores,), eps=1e-6, atol=1e-5)


def test_prior_loss_is_zero_where_the_density_is_the_bell():
    c = small()
    prior = IdentityPrior().log_density(c.cells()).double().log_softmax(-1)
    turn, scale = c.group.parts(c.cells())
    assert int(prior.argmax()) == int(
        (scale.value.abs() + torch.minimum(turn.value, 7 - turn.value)).argmin()
    )
    assert float(prior_loss(c.pose_of(prior.unsqueeze(0)))) == pytest.approx(0, abs=1e-6)
    for dims in (0, 1):
        other = prior.view(32, 19).roll(3, dims).reshape(1, -1)
        assert float(prior_loss(c.pose_of(other))) > 1


@torch.no_grad()
def test_von_mises_of_angles_times_normal_of_scales():
    c = small("O2xscale")
    found = VonMisesPrior(90.0, 20.0).log_density(c.cells()).double().view(2, 32, 19)
    angle = torch.arange(32, dtype=torch.float64) * (2 * math.pi / 32)
    log = torch.linspace(-1.5, 1.5, 19, dtype=torch.float64) * math.log(2)
    expected = 20 * ((angle - math.pi / 2).cos() - 1)[:, None] - 25 * log**2
    torch.testing.assert_close(found[0], expected, atol=1e-4, rtol=1e-5)
    assert (found[1] == -math.inf).all()
    told = c.with_prior(VonMisesPrior(90.0, 1e4))(torch.rand(2, 3, 40, 40)).element
    assert float(c.group.parts(told)[0].distance(c.group.factors[0].element(degrees=90.0)).max()) < 0.1


@pytest.mark.parametrize("group", ["scale", "SO2xscale", "O2xscale"])
def test_by_name_adapt_fit_save_load(group, tmp_path):
    model = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 10))
    robust = upright.adapt(model, group, canonicalizer=small(group, size=16))
    x = torch.rand(24, 3, 20, 20)
    upright.fit(robust, x, epochs=1, batch_size=12, progress=False, calibrate=False)
    robust.save_pretrained(tmp_path / "saved")
    again = upright.load(tmp_path / "saved", model=model)
    pose = robust.eval().pose(x[:4])
    assert torch.equal(again.pose(x[:4]).element.value, pose.element.value)
    seen = []
    points = lambda p: seen.append(p) or torch.full((len(p), 1, 2), 6.0)  # noqa: E731
    found = upright.adapt(points, group, canonicalizer=robust.canonicalizer, outputs="points")(x[:4])
    torch.testing.assert_close(seen[0], act(~pose.element, Image(x[:4])).data)
    wanted = act(pose.element, Points(torch.full((4, 1, 2), 6.0), size=(20, 20))).data
    torch.testing.assert_close(found, wanted)


def test_errors():
    with pytest.raises(ValueError, match="group must be one of 'scale', 'SO2xscale'"):
        LogPolarDensity("SO2")
    with pytest.raises(ValueError, match="rays must be a multiple of 4, at least 8, got 30"):
        LogPolarDensity(rays=30)
    with pytest.raises(ValueError, match="scales reach over 9 rings and need more of them, got rings=8"):
        LogPolarDensity(rings=8)
    with pytest.raises(TypeError, match="scale, or a product of the two, got hue"):
        ContinuousCanonicalizer(LogPolarDensity(**SMALL), "hue")
    with pytest.raises(ValueError, match=r"window_factor must be at least one cell, 1\.1225, got 1\.1"):
        small(peaks=PEAKS | {"window_factor": 1.1})
    with pytest.raises(ValueError, match="there is no network for SO2xhue"):
        upright.canonicalizer("SO2xhue")
    assert PoseGrid(8, 3, 1.0).step == 1.0
