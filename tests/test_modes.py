"""One pose, several or all: the weighted averages that the modes say, and what they cost."""

import pytest
import torch

from adapter_toys import SHAPES, Classifier, Dense, Known, Localizer, detector, pictures, small
from cases import name
from upright import Adapted, IdentityCanonicalizer, Image, Mask, act, parse_group
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
