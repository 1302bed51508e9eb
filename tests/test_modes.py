"""One pose, several or all: the weighted averages that the modes say, and what they cost."""

import pytest
import torch

from adapter_toys import SHAPES, Classifier, Dense, Known, Localizer, detector, pictures, small
from cases import name
from upright import Adapted, IdentityCanonicalizer, Image, Mask, Pose, act, parse_group
from upright.testing import assert_adapted


@pytest.mark.parametrize(
    "settings", [{}, {"top_k": 2}, {"cover": 0.8}, {"top_k": 3, "evidence": 2.0}], ids=str
)
@pytest.mark.parametrize("size", SHAPES, ids=name)
def test_top_k_stays_equivariant(size, settings):
    assert_adapted(
        Classifier(), small("D4"), pictures(*size), mode="top_k", tolerance=1e-4, trials=2, **settings
    )


def test_average_is_invariant():
    assert_adapted(Classifier(), small("D4"), pictures(12, 12), mode="average", tolerance=1e-4, trials=2)
    assert_adapted(
        Dense(), small("C4"), pictures(12, 12), mode="average", outputs="image", tolerance=1e-4, trials=2
    )


def brute_force(model, x, group, weights):
    """Average the probabilities of all poses, one by one."""
    total = 0
    for i, g in enumerate(group.elements()):
        back = act(~g, Image(x)).data
        total = total + weights[:, i : i + 1] * torch.softmax(model(back), -1)
    return total / weights.sum(1, keepdim=True)


def test_modes_are_the_weighted_averages_that_they_say():
    model, c, x = Classifier().eval(), small("D4"), torch.rand(6, 3, 12, 12)
    group, pose = c.group, c(torch.rand(6, 3, 12, 12))
    pose = c(x)
    with torch.no_grad():
        average = Adapted(model, c, mode="average").run(x)
        expected = brute_force(model, x, group, torch.ones(6, 8))
        torch.testing.assert_close(torch.softmax(average.output, -1), expected)
        assert average.passes.tolist() == [8] * 6
        top = Adapted(model, c, mode="top_k").run(x)
        torch.testing.assert_close(torch.softmax(top.output, -1), brute_force(model, x, group, pose.probs))
        some = Adapted(model, c, mode="top_k", top_k=3).run(x)
        kept = pose.probs >= pose.probs.topk(3).values[:, -1:]
        expected = brute_force(model, x, group, pose.probs * kept)
        torch.testing.assert_close(torch.softmax(some.output, -1), expected)
        assert some.passes.tolist() == [3] * 6
        evidence = torch.zeros(6, 8)
        for i, g in enumerate(group.elements()):
            p = torch.softmax(model(act(~g, Image(x)).data), -1)
            evidence[:, i] = torch.exp(2.0 * (p * p.log()).sum(-1))
        sure = Adapted(model, c, mode="top_k", evidence=2.0)(x)
        torch.testing.assert_close(
            torch.softmax(sure, -1), brute_force(model, x, group, pose.probs * evidence)
        )


def test_cover_spends_passes_on_doubtful_pictures_only():
    log_probs = torch.tensor([[0.9, 0.05, 0.03, 0.02], [0.4, 0.35, 0.2, 0.05], [0.5, 0.25, 0.15, 0.1]]).log()
    adapted = Adapted(Classifier().eval(), Known("C4", [0, 0, 0], log_probs), mode="top_k", cover=0.8)
    x = torch.rand(3, 3, 12, 12)
    run = adapted.run(x)
    assert run.passes.tolist() == [1, 3, 3]
    assert torch.equal(run.output[:1], adapted.model(x)[:1])  # one pose: the model's own bits
    assert (
        Adapted(adapted.model, adapted.canonicalizer, mode="top_k", cover=0.8, top_k=2).run(x).passes.max()
        == 2
    )


def test_poses_of_no_probability_cost_nothing():
    log_probs = torch.tensor([[1.0, 0, 0, 0], [0.5, 0.5, 0, 0]]).log()
    run = Adapted(Classifier().eval(), Known("C4", [0, 0], log_probs), mode="top_k").run(
        torch.rand(2, 3, 8, 8)
    )
    assert run.passes.tolist() == [1, 2]


def test_what_cannot_be_averaged_is_refused():
    x, log_probs = torch.rand(2, 3, 6, 6), torch.full((2, 4), 0.25).log()
    c = Known("C4", [0, 1], log_probs)
    with pytest.raises(TypeError, match="Boxes of several poses cannot be averaged"):
        Adapted(Localizer(4), c, mode="top_k", outputs="boxes")(x)
    with pytest.raises(TypeError, match="one entry a picture cannot be averaged"):
        Adapted(detector, c, mode="top_k", outputs={"boxes": "boxes"})(x)
    with pytest.raises(TypeError, match=r"dtype torch\.bool cannot be averaged"):
        Adapted(lambda p: p[:, 0] > 0.5, c, mode="average", outputs="mask")(x)
    with pytest.raises(TypeError, match="evidence needs class scores"):
        Adapted(Dense(), c, mode="top_k", outputs="image", evidence=1.0)(x)


def test_scalars_such_as_losses_are_weighted_by_their_part():
    adapted = Adapted(
        lambda x: (x.flatten(1)[:, :2], x.mean()), Known("C4", [0, 1, 0]), outputs={0: "logits"}
    )
    x = torch.rand(3, 3, 4, 6)
    torch.testing.assert_close(adapted(x)[1], x.mean())


def test_mode_average_of_masks_is_the_mean_of_the_moved_masks():
    model, x = Dense().eval(), torch.rand(2, 3, 8, 8)
    group = parse_group("C4")
    moved = [act(g, Mask(model(act(~g, Image(x)).data))).data for g in group.elements()]
    found = Adapted(model, IdentityCanonicalizer("C4"), mode="average", outputs="mask")(x)
    torch.testing.assert_close(found, torch.stack(moved).mean(0))


def turns_of_blobs(*degrees):
    """Return a smooth picture, small in the inscribed disc, turned by angles: nothing is cut off."""
    y = torch.linspace(-1, 1, 24)
    spots = [(0.3, 0.1, 0.03), (-0.2, 0.3, 0.06), (0.0, -0.35, 0.04)]
    x = torch.stack([torch.exp(-((y - a) ** 2 + (y[:, None] - b) ** 2) / c) for a, b, c in spots])
    g = parse_group("SO2").element(degrees=list(degrees))
    return act(g, Image(x.expand(len(degrees), 3, 24, 24), border="constant")).data


@pytest.mark.parametrize(("group", "top_k", "passes"), [("SO2", None, 24), ("SO2", 5, 5), ("O2", 6, 6)])
def test_average_over_a_grid_of_a_continuous_group(group, top_k, passes):
    """The mean over equally spaced elements, one by one; in O2 one half of them is reflected."""
    model, x = Classifier().eval(), turns_of_blobs(0, 20)
    run = Adapted(model, IdentityCanonicalizer(group), mode="average", top_k=top_k).run(x)
    assert run.passes.tolist() == [passes] * 2
    total, flips = 0, 2 if group == "O2" else 1
    for i in range(passes // flips):
        for flip in range(flips):
            angle = {"degrees": 360 * i * flips / passes} | ({"reflected": bool(flip)} if flips == 2 else {})
            g = parse_group(group).element(**angle).expand(2)
            total = total + torch.softmax(model(act(~g, Image(x)).data), -1)
    torch.testing.assert_close(torch.softmax(run.output, -1), total / passes)


def reader():
    """A model that minds every pixel, so that every angle tells."""
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 24 * 24, 4))
    torch.nn.init.normal_(model[1].weight, std=0.3)
    return model.requires_grad_(False)


class Turned(IdentityCanonicalizer):
    def forward(self, x):
        return Pose(self.group.element(degrees=[0.0, 17.0]))


def test_average_over_a_grid_is_invariant_under_it_and_follows_the_pose():
    model = reader()

    def gap(canonicalizer, top_k, degrees):
        found = Adapted(model, canonicalizer, mode="average", top_k=top_k)(turns_of_blobs(0, degrees))
        return float((found.softmax(-1)[0] - found.softmax(-1)[1]).abs().max())

    fixed = IdentityCanonicalizer("SO2")
    unlike = gap(fixed, 4, 17)
    assert gap(fixed, 4, 90) < 1e-5
    assert gap(fixed, 8, 45) < 0.2 * unlike  # the grid of eight holds it, but it resamples
    assert gap(Turned("SO2"), 4, 17) < 0.5 * unlike


def test_which_averages_over_continuous_groups_there_are():
    model = Classifier().eval()
    with pytest.raises(TypeError, match="mode='average' needs a finite group, SO2 or O2, got scale"):
        Adapted(model, IdentityCanonicalizer("scale"), mode="average")
    with pytest.raises(ValueError, match="top_k must be even for O2, one half of it being reflected, got 5"):
        Adapted(model, IdentityCanonicalizer("O2"), mode="average", top_k=5)
    with pytest.raises(ValueError, match="top_k needs mode='top_k' or 'weighted', got mode='average'"):
        Adapted(model, IdentityCanonicalizer("C8"), mode="average", top_k=5)
    several = Adapted(model, IdentityCanonicalizer("SO2"), mode="top_k", top_k=3)
    assert several.replace(mode="average").top_k is None  # 3 likely poses are no grid of 3
    assert several.replace(mode="weighted").top_k == 3
