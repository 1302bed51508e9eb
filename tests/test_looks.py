"""Few looks are enough to follow turns; mirror images are tied."""

import pytest
import torch
from torch import nn

import upright
from cases import name
from upright import Cyclic, Dihedral, Image, act
from upright.losses import moved_log_probs
from upright.nets import MirrorTied, OrbitComparer, OrbitVoter
from upright.nets.voting import rough_pose
from upright.testing import assert_equivariant


class Guess(nn.Module):
    """Judges a picture by some of its pixels, and counts the pictures that it is asked about."""

    def __init__(self, outputs, side):
        super().__init__()
        weight = torch.randn(3 * side * side, outputs, generator=torch.Generator().manual_seed(0))
        self.register_buffer("weight", weight.double())
        self.asked = 0

    def forward(self, x):
        self.asked += len(x)
        return (x.flatten(1).double() @ self.weight / 9).to(x)


def noise(batch, side):
    def draw(count, generator):
        return Image(torch.randn(count, 3, side, side, generator=generator, dtype=torch.float64))

    return draw(batch, torch.Generator().manual_seed(3)) if batch else draw


@pytest.mark.parametrize("side", [9, 10])
@pytest.mark.parametrize("looks", [1, 2])
@pytest.mark.parametrize("group", [Cyclic(2), Cyclic(4), Dihedral(4)], ids=name)
def test_few_looks_follow_the_group(group, looks, side):
    net = OrbitVoter(Guess(group.order, side), group, looks=looks)
    assert_equivariant(
        net, group, noise(0, side), outputs=lambda g, y: moved_log_probs(y, g), trials=2, tolerance=1e-9
    )
    net.network.asked = 0
    assert net(noise(5, side).data).std() > 0.1
    assert net.network.asked == 5 * looks


def test_one_look_is_what_the_network_says_of_the_picture_in_its_own_place():
    x = noise(7, 8).data
    net = OrbitVoter(Guess(4, 8), "C4", looks=1)
    for one, scores, k in zip(x, net(x), rough_pose(x, Cyclic(4)).tolist(), strict=True):
        said = net.network(torch.rot90(one[None], -k, (2, 3))).log_softmax(-1)[0]
        torch.testing.assert_close(scores, said.roll(k))
    every = OrbitVoter(net.network, "C4", looks=4)
    torch.testing.assert_close(every(x), OrbitVoter(net.network, "C4")(x))


@pytest.mark.parametrize("group", [Cyclic(4), Dihedral(4)], ids=name)
def test_rough_poses_follow_to_the_last_bit(group):
    x = torch.rand(200, 1, 13, 13, generator=torch.Generator().manual_seed(0))
    x[::2] = 0.0
    x[::2, :, 0, 5] = 1.0  # one dot: all other cells are equal
    x[::2] = act(group.element(torch.arange(100) % group.order), Image(x[::2])).data
    still = group.element(rough_pose(x, group))
    assert len(still.value.unique()) == group.order
    for g in group.elements():
        moved = act(g.expand(200), Image(x)).data
        noisy = moved + 1e-9 * torch.randn(moved.shape)  # as rounding would
        assert torch.equal(rough_pose(noisy, group), (g.expand(200) @ still).value)
    flat = torch.ones(2, 1, 13, 13)
    assert rough_pose(flat, group).tolist() == [0, 0]


def tied(side):
    comparer = OrbitComparer(Guess(6, side), "C4", outputs=6, hidden=5).double().eval()
    return MirrorTied(comparer, "D4")


@pytest.mark.parametrize("side", [9, 10])
def test_tied_mirror_images_follow_turns_and_flips(side):
    net = tied(side)
    assert_equivariant(
        net, "D4", noise(0, side), outputs=lambda g, y: moved_log_probs(y, g), trials=2, tolerance=1e-9
    )


@torch.no_grad()
def test_mirror_images_tie_but_for_a_hair_and_share_a_canonical_form():
    net, x = tied(8), noise(40, 8).data
    c = upright.DiscreteCanonicalizer(net, "D4", size=None, standardize=False).eval()
    pose = c(x)
    assert not bool(pose.is_tied.any())
    assert 0 < int((pose.element.value >= 4).sum()) < 40
    flip = Dihedral(4).element(torch.full((40,), 4))
    partner = (pose.element @ flip).value  # the other mirror image, just as upright
    rows = torch.arange(40)
    hair = pose.log_probs[rows, pose.element.value] - pose.log_probs[rows, partner]
    assert float(hair.min()) > 0.005
    assert float(hair.max()) < 0.02
    canonical = act(~pose.element, Image(x)).data
    mirrored = act(flip, Image(x)).data
    assert torch.equal(act(~c(mirrored).element, Image(mirrored)).data, canonical)


def test_the_network_of_turns_decides_which_turn():
    net, x = tied(8), noise(40, 8).data
    alone = upright.DiscreteCanonicalizer(net.network, "C4", size=None, standardize=False).eval()
    canonical = act(~upright.DiscreteCanonicalizer(net, "D4", size=None, standardize=False).eval()(x).element,
                    Image(x)).data  # fmt: skip
    assert alone(canonical).element.value.tolist() == [0] * 40


def test_tied_mirror_images_can_be_exported():
    judge = nn.Sequential(nn.Flatten(), nn.Linear(192, 6)).double()
    net = MirrorTied(OrbitComparer(judge, "C4", outputs=6, hidden=5).double().eval(), "D4")
    x = noise(6, 8).data
    program = torch.export.export(net, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.testing.assert_close(program.module()(x[:5]), net(x[:5]))


def test_errors():
    for looks in (0, 3, 5):
        with pytest.raises(ValueError, match=f"looks must divide the order .* got {looks} for C4"):
            OrbitVoter(nn.Identity(), "C4", looks=looks)
    with pytest.raises(ValueError, match="got 1 for C8"):
        OrbitVoter(nn.Identity(), "C8", looks=1)
    with pytest.raises(ValueError, match="tied in D4, got C4"):
        MirrorTied(nn.Identity(), "C4")
    with pytest.raises(ValueError, match="network must score C4, got one of D4"):
        MirrorTied(OrbitComparer(nn.Identity(), "D4"), "D4")
