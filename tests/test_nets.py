"""The networks inside canonicalizers are equivariant on random weights, in float64, at odd and even sizes."""

import pytest
import torch
from torch import nn

from cases import EXACT, name
from upright import Cyclic, Dihedral, Image, act, parse_group
from upright.losses import moved_log_probs
from upright.nets import GroupCNN, OrbitScorer, PolarNet, ResidualBackbone, thumbnail
from upright.nets.group_cnn import halve
from upright.nets.orbit import turned_copies
from upright.nets.thumbnail import disc, standardized, triangle_filter
from upright.testing import assert_equivariant, redraw_weights


def pictures(side):
    def make(batch, generator):
        return Image(torch.rand(batch, 3, side, side, generator=generator, dtype=torch.float64))

    return make


def permuted(g, y):
    return moved_log_probs(y, g)


def small_backbone(**options):
    return ResidualBackbone(**{"widths": (6, 8, 10), "strides": (2, 2, 1)} | options)


@pytest.mark.parametrize("side", [16, 17, 22], ids=name)  # 22 is odd after one halving
@pytest.mark.parametrize("group", EXACT, ids=name)
def test_group_cnn(group, side):
    assert_equivariant(
        GroupCNN(group, widths=(3, 4, 5)), group, pictures(side), outputs=permuted, tolerance=1e-9
    )


@pytest.mark.parametrize("side", [16, 17], ids=name)
@pytest.mark.parametrize("group", EXACT, ids=name)
def test_orbit_scorer(group, side):
    net = OrbitScorer(small_backbone(), group)
    assert net.is_exact_on_grid
    assert_equivariant(net, group, pictures(side), outputs=permuted, tolerance=1e-9)


def test_orbit_scorer_with_vectors():
    net = OrbitScorer(small_backbone(outputs=5), "D4", vector=5)
    assert_equivariant(lambda x: net.double().eval()(x)[0], "D4", pictures(16), outputs=permuted, trials=1)
    scores, vectors = net(torch.rand(2, 3, 16, 16, dtype=torch.float64))
    assert scores.shape == (2, 8)
    assert vectors.shape == (2, 8, 5)
    torch.testing.assert_close(scores, vectors @ net.reference)


@pytest.mark.parametrize("side", [16, 17], ids=name)
@pytest.mark.parametrize("group", EXACT, ids=name)
def test_polar_net_on_quarter_turns(group, side):
    net = PolarNet(group, widths=(4, 6), rays=16, rings=5)
    assert_equivariant(net, group, pictures(side), outputs=permuted, tolerance=1e-9)


@pytest.mark.parametrize("group", [Cyclic(8), Cyclic(3), Dihedral(8), Dihedral(3)], ids=name)
def test_polar_net_turns_as_its_polar_grid(group):
    """On the polar grid itself a turn is a shift, and every C_n is exact."""
    net = redraw_weights(PolarNet(group, widths=(4, 6), rays=24, rings=5).double().eval())
    polar = torch.rand(2, 3, 5, net.rays, dtype=torch.float64)
    scores = net._score(polar)
    assert scores.std() > 1e-3
    for r in range(group.n):
        turned = net._score(polar.roll(r * net.rays // group.n, -1))
        torch.testing.assert_close(turned, scores.roll(r, -1), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("group", [Cyclic(8), Dihedral(8)], ids=name)
def test_quarter_turns_of_finer_groups(group):
    """C_8 and D_8 nets follow their quarter turns and flips up to float32 rounding of the disc."""
    kept = group.element((group.quarter_turns(group.elements()) >= 0).nonzero().flatten())
    x = torch.rand(len(kept), 3, 24, 24, dtype=torch.float64)
    nets = [OrbitScorer(small_backbone(), group), PolarNet(group, widths=(4, 6), rays=16, rings=5)]
    for net in nets:
        net = redraw_weights(net.double().eval())
        assert net.is_exact_on_grid == isinstance(net, PolarNet)
        expected = moved_log_probs(net(x), kept)
        assert expected.std() > 1e-3
        torch.testing.assert_close(net(act(kept, Image(x)).data), expected, rtol=1e-6, atol=1e-6)


def test_an_offset_resamples_every_copy_alike():
    group = Cyclic(8)
    copies = turned_copies(torch.rand(1, 3, 24, 24), group, 22.5)
    rough = (copies[..., 1:] - copies[..., :-1]).square().mean((1, 2, 3, 4))
    assert rough.max() / rough.min() < 1.1
    plain = turned_copies(torch.rand(1, 3, 24, 24), group)
    rough = (plain[..., 1:] - plain[..., :-1]).square().mean((1, 2, 3, 4))
    assert rough.max() / rough.min() > 1.3  # quarter turns stay sharp: what the offset is for


def test_bicubic_copies_of_a_turned_picture_are_nearer():
    group = Cyclic(8)
    g = group.element(torch.tensor([1]))
    x = torch.nn.functional.avg_pool2d(torch.rand(1, 3, 26, 26), 3, 1)
    x_turned = act(g, Image(x)).data
    errors = []
    for interpolation in ("bilinear", "bicubic"):
        copies, of_turned = (turned_copies(p, group, interpolation=interpolation) for p in (x, x_turned))
        errors.append((of_turned[1] - copies[0]).square().mean())
    assert errors[1] < 0.8 * errors[0]


@pytest.mark.parametrize("group", [Cyclic(4), Cyclic(8)], ids=name)
def test_mirrored_orbit_scorer(group):
    net = redraw_weights(OrbitScorer(small_backbone(), group, mirror=True).double().eval())
    plain = OrbitScorer(net.network, group).eval()
    x = torch.rand(3, 3, 24, 24, dtype=torch.float64)
    scores, inverses = net(x), group.elements().inverse().value
    assert scores.std() > 1e-3
    torch.testing.assert_close(scores, (plain(x) + plain(x.flip(-1))[:, inverses]) / 2)
    torch.testing.assert_close(net(x.flip(-1)), scores[:, inverses])
    quarter = group.element(torch.full((3,), group.order // 4))
    torch.testing.assert_close(
        net(act(quarter, Image(x)).data), moved_log_probs(scores, quarter), rtol=1e-6, atol=1e-6
    )
    net.train(), plain.train()
    torch.testing.assert_close(net(x), plain(x))


@pytest.mark.parametrize("group", [Cyclic(8), Dihedral(6)], ids=name)
def test_a_second_look_at_a_turned_copy_steadies_scores(group):
    net = redraw_weights(OrbitScorer(small_backbone(), group, twice=True).double().eval())
    plain = OrbitScorer(net.network, group).eval()
    x = torch.rand(8, 3, 24, 24, dtype=torch.float64)
    step = group.element(torch.ones(8, dtype=torch.int64))
    moved = act(step, Image(x)).data
    scores = net(x)
    assert scores.std() > 1e-3
    torch.testing.assert_close(scores, (plain(x) + moved_log_probs(plain(moved), step.inverse())) / 2)
    gaps = [(moved_log_probs(s(x), step) - s(moved)).square().mean() for s in (net, plain)]
    assert gaps[0] < 0.8 * gaps[1]
    net.train(), plain.train()
    torch.testing.assert_close(net(x), plain(x))


def test_turned_copies_undo_every_element():
    x = torch.rand(2, 3, 9, 9)
    for group in EXACT:
        expected = torch.stack([act(~g, Image(x)).data for g in group.elements()])
        assert torch.equal(turned_copies(x, group), expected)


@pytest.mark.parametrize("net", ["orbit", "group_cnn", "polar"])
def test_scores_are_float32_under_autocast(net):
    made = {
        "orbit": lambda: OrbitScorer(small_backbone(), "C4"),
        "group_cnn": lambda: GroupCNN("C4", widths=(3, 4)),
        "polar": lambda: PolarNet("C4", widths=(4, 6), rays=16, rings=5),
    }[net]()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert made(torch.rand(2, 3, 16, 16)).dtype == torch.float32


def test_construction_errors():
    with pytest.raises(ValueError, match="twice=True needs a group that resamples"):
        OrbitScorer(small_backbone(), "C4", twice=True)
    with pytest.raises(ValueError, match="mirror=True makes the reflections of D4 tie"):
        OrbitScorer(small_backbone(), "D4", mirror=True)
    with pytest.raises(ValueError, match=r"quarter turns and flips .*got C8; use PolarNet or OrbitScorer"):
        GroupCNN("C8")
    with pytest.raises(ValueError, match=r"one score per picture, got shape \(8, 5\); pass vector=D"):
        OrbitScorer(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 5)), "C4")(
            torch.rand(2, 3, 8, 8)
        )
    with pytest.raises(ValueError, match=r"must return vectors \(N, 4\), got \(8, 5\)"):
        OrbitScorer(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 5)), "C4", vector=4)(
            torch.rand(2, 3, 8, 8)
        )


@pytest.mark.parametrize("size", [8, 9, 16])
@pytest.mark.parametrize(
    "canvas", [(8, 8), (9, 9), (12, 20), (13, 20), (20, 13), (33, 47), (160, 170), (161, 171)], ids=name
)
def test_thumbnails_move_with_the_picture(canvas, size):
    x = torch.rand(1, 3, *canvas, dtype=torch.float64)
    small = thumbnail(x, size)
    assert small.shape == (1, 3, size, size)
    for g in parse_group("D4").elements():
        moved = thumbnail(act(g, Image(x)).data, size)
        torch.testing.assert_close(moved, act(g, Image(small)).data, rtol=0, atol=1e-6)


def test_thumbnails_keep_constants_and_means():
    flat = thumbnail(torch.full((1, 1, 50, 37), 0.25), 16)
    torch.testing.assert_close(flat, torch.full((1, 1, 16, 16), 0.25))
    for length, window, size in [(32, 32, 8), (31, 31, 8), (40, 32, 16), (9, 9, 20)]:
        weights = triangle_filter(length, window, size)
        torch.testing.assert_close(weights.sum(1), torch.ones(size))
        torch.testing.assert_close(weights, weights.flip(0, 1), rtol=0, atol=1e-6)
    middle = (triangle_filter(40, 32, 16) @ torch.arange(40.0)).mean()
    torch.testing.assert_close(middle, torch.tensor(19.5))


def test_thumbnails_do_not_alias():
    """A checkerboard finer than the thumbnail becomes grey."""
    board = torch.ones(1, 1, 64, 64)
    board[..., ::2, ::2] = board[..., 1::2, 1::2] = 0
    torch.testing.assert_close(thumbnail(board, 8), torch.full((1, 1, 8, 8), 0.5), atol=0.02, rtol=0)


def test_standardized_undoes_affine_changes():
    x = torch.rand(2, 3, 16, 16)
    expected = standardized(x)
    for changed in (
        x * 255,
        0.1 * x - 0.3,
        (x - 0.485) / 0.229,
        x * torch.tensor([1.0, 2, 3]).view(3, 1, 1) + 5,
    ):
        torch.testing.assert_close(standardized(changed), expected, atol=3e-2, rtol=0)
    inside = disc(16, x).bool()
    torch.testing.assert_close(expected[..., inside].mean(-1), torch.zeros(2, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        expected[..., inside].std(-1, correction=0), torch.ones(2, 3), atol=2e-3, rtol=0
    )
    assert standardized(torch.full((1, 3, 16, 16), 0.5)).abs().max() < 1e-2


def test_the_disc_has_the_symmetry_of_the_square():
    for size in range(1, 130):
        mask = disc(size, torch.zeros(1))
        for moved in (mask.rot90(1), mask.flip(0), mask.T):
            assert torch.equal(moved, mask), size


@pytest.mark.parametrize("size", [(6, 6), (7, 7), (6, 7), (7, 6), (5, 8)], ids=name)
def test_halving_has_the_symmetry_of_the_square(size):
    x = torch.rand(1, 2, *size, dtype=torch.float64)
    for g in parse_group("D4").elements():
        torch.testing.assert_close(halve(act(g, Image(x)).data), act(g, Image(halve(x))).data)
