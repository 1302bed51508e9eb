"""Any model, random and not equivariant, becomes equivariant bit for bit; the identity changes no bit."""

import copy
import pickle
from collections import OrderedDict, namedtuple
from dataclasses import dataclass, field
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import upright
from cases import name
from upright import (
    Adapted,
    Boxes,
    IdentityCanonicalizer,
    Image,
    Mask,
    OrientedBoxes,
    Points,
    Pose,
    act,
    parse_group,
)
from upright.adapter.canvas import CANVASES
from upright.canonicalizers import Canonicalizer
from upright.testing import assert_adapted, redraw_weights

GROUPS = ["C4", "D4"]
SHAPES = [(12, 12), (13, 13), (10, 16)]


def small(group, network="group_cnn"):
    options = {"orbit": {"widths": (6, 8), "strides": (2, 2)}, "group_cnn": {"widths": (3, 4)}}[network]
    made = upright.canonicalizer(group, network, size=16, options=options)
    return redraw_weights(made, torch.Generator().manual_seed(0)).eval()


def pictures(*size):
    return lambda batch, generator: Image(torch.rand(batch, 3, *size, generator=generator))


class Known(Canonicalizer):
    """Poses that the test chooses."""

    def __init__(self, group, poses, log_probs=None):
        super().__init__(group)
        self.poses, self.log_probs = torch.as_tensor(poses), log_probs

    def forward(self, x):
        return Pose(self.group.element(self.poses[: len(x)]), self.log_probs)


class Classifier(nn.Module):
    """Features of any canvas, one number a place, so that nothing is equivariant."""

    def __init__(self, outputs=7):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.head = nn.Linear(6 * 25, outputs)

    def forward(self, x):
        features = F.adaptive_avg_pool2d(F.relu(self.norm(self.conv(x))), 5)
        return self.head(features.flatten(1))


class Dense(nn.Module):
    """A map of the size of the picture."""

    def __init__(self, channels=2, stride=1):
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 3, stride, padding=1)

    def forward(self, x):
        return self.conv(x)


class Localizer(nn.Module):
    """Coordinates in pixels: ``columns`` for each of two things."""

    def __init__(self, columns):
        super().__init__()
        self.base, self.columns = Classifier(2 * columns), columns

    def forward(self, x):
        out = self.base(x).sigmoid().view(-1, 2, self.columns)
        sides = out.new_tensor([x.shape[-1], x.shape[-2]])
        head = out[..., :2] * sides
        if self.columns == 4:
            return torch.cat([head * 0.5, head * 0.5 + out[..., 2:] * 4], -1)
        return torch.cat([head, out[..., 2:]], -1)


@pytest.mark.parametrize("size", SHAPES, ids=name)
@pytest.mark.parametrize("network", ["group_cnn", "orbit"])
@pytest.mark.parametrize("group", GROUPS)
def test_class_scores_are_invariant_bit_for_bit(group, network, size):
    assert_adapted(Classifier(), small(group, network), pictures(*size), batch=12, trials=5)


@pytest.mark.parametrize("canvas", CANVASES)
@pytest.mark.parametrize("group", GROUPS)
def test_non_square_pictures_with_every_canvas_policy(group, canvas):
    """With one picture a batch no policy has anything to do; mixed batches follow what it says."""
    assert_adapted(Classifier(), small(group), pictures(10, 16), canvas=canvas, batch=1, trials=4)
    tolerance = 1e-5 if canvas == "bucket" else 1e9
    c = small(group)
    adapted = Adapted(Classifier().eval(), c, canvas=canvas)
    x = torch.rand(6, 3, 10, 16)
    swaps = c.group.quarter_turns(c(x).element) % 2 == 1
    assert swaps.any()
    assert not swaps.all()  # the batch does mix
    together = adapted(x)
    alone = torch.cat([adapted(p[None]) for p in x])
    assert (together - alone).abs().max() <= tolerance


@pytest.mark.parametrize("canvas", CANVASES)
def test_canvas_policies_do_what_they_say(canvas):
    seen = []

    def model(x):
        seen.append(x.clone())
        return x.mean(1)

    x = torch.rand(3, 3, 4, 6)
    adapted = Adapted(model, Known("C4", [0, 1, 2]), canvas=canvas, outputs="mask")
    out = adapted(x)
    back = torch.rot90(x[1], -1, (1, 2))  # 6×4, upright
    if canvas == "bucket":
        assert [tuple(s.shape) for s in seen] == [(2, 3, 4, 6), (1, 3, 6, 4)]
        assert torch.equal(seen[1][0], back)
    else:
        assert [tuple(s.shape) for s in seen] == [(3, 3, 6, 6)]
        if canvas == "pad":
            assert torch.equal(seen[0][0, :, :4], x[0])
            assert seen[0][0, :, 4:].abs().max() == 0
            assert torch.equal(seen[0][2, :, :, :4], back)
        else:
            expected = F.interpolate(back[None], (6, 6), mode="bilinear", antialias=True)
            torch.testing.assert_close(seen[0][2:], expected)
    expected = x.mean(1)  # the model is equivariant: whatever the pose, the mask lies on the picture
    assert out.shape == expected.shape
    torch.testing.assert_close(out, expected, atol=1e-6 if canvas != "stretch" else 0.5, rtol=0)


@pytest.mark.parametrize("kind", ["mask", "image", "vector_field"])
@pytest.mark.parametrize("size", SHAPES, ids=name)
@pytest.mark.parametrize("group", GROUPS)
def test_dense_outputs(group, size, kind):
    assert_adapted(Dense(), small(group), pictures(*size), outputs=kind)


@pytest.mark.parametrize("canvas", ["bucket", "pad"])
@pytest.mark.parametrize("size", [(8, 12), (9, 15)], ids=name)
def test_dense_outputs_of_mixed_non_square_batches(canvas, size):
    x = torch.rand(4, 3, *size)
    adapted = Adapted(lambda p: p[:, :1] * 2, Known("D4", [0, 3, 6, 5]), canvas=canvas, outputs="image")
    assert torch.equal(adapted(x), x[:, :1] * 2)
    labels = Adapted(lambda p: p[:, 0] > 0.5, Known("D4", [0, 3, 6, 5]), canvas=canvas, outputs="mask")
    assert torch.equal(labels(x), x[:, 0] > 0.5)


def test_coarse_feature_maps_move_too():
    adapted = Adapted(lambda p: F.avg_pool2d(p, 2), Known("C4", [0, 1, 2, 3]), outputs="image")
    x = torch.rand(4, 3, 8, 8)
    torch.testing.assert_close(adapted(x), F.avg_pool2d(x, 2))


@pytest.mark.parametrize("size", SHAPES, ids=name)
@pytest.mark.parametrize(("kind", "columns"), [("boxes", 4), ("points", 2), ("points", 3)])
@pytest.mark.parametrize("group", GROUPS)
def test_coordinates(group, kind, columns, size):
    assert_adapted(Localizer(columns), small(group), pictures(*size), outputs=kind, tolerance=1e-4)


OTHER_FORMATS = {
    "cxcywh": partial(Boxes, format="cxcywh", normalized=True),
    "xywh": partial(Boxes, format="xywh"),
    "fractions": partial(Points, normalized=True),
}


@pytest.mark.parametrize("kind", OTHER_FORMATS.values(), ids=OTHER_FORMATS)
def test_coordinates_in_other_formats(kind):
    columns = 2 if kind.func is Points else 4
    model = nn.Sequential(Classifier(2 * columns), nn.Sigmoid(), nn.Unflatten(1, (2, columns)))
    assert_adapted(model, small("D4"), pictures(12, 12), outputs=kind, tolerance=1e-4)


def spot_finder(x):
    """Find the brightest pixel: its point, its box and its mask, in the frame that is seen."""
    grey = x.mean(1)
    at = grey.flatten(1).argmax(1)
    row, column = at // grey.shape[-1], at % grey.shape[-1]
    low = torch.stack([column, row], -1).float()
    return {
        "scores": grey.mean((1, 2))[:, None],
        "point": (low + 0.5)[:, None],
        "box": torch.cat([low, low + 1], -1)[:, None],
        "mask": grey == grey.amax((1, 2), keepdim=True),
        "name": "spot",
    }


@pytest.mark.parametrize("canvas", ["bucket", "pad"])
@pytest.mark.parametrize("size", SHAPES, ids=name)
def test_all_kinds_land_on_the_spot_of_the_users_picture(size, canvas):
    kinds = {"point": "points", "box": Boxes, "mask": "mask", "scores": "logits"}
    x = torch.rand(8, 3, *size)
    out = Adapted(spot_finder, Known("D4", torch.arange(8)), outputs=kinds, canvas=canvas)(x)
    expected = spot_finder(x)
    assert out["name"] == "spot"
    for key in ("point", "box", "mask"):
        assert torch.equal(out[key], expected[key]), key


@pytest.mark.parametrize("canvas", ["bucket", "pad"])
def test_oriented_boxes_come_back(canvas):
    seen = []

    def model(x):
        seen.extend(tuple(p.shape[-2:]) for p in x)
        return torch.tensor([[[3.0, 2.0, 4.0, 1.0, 0.3]]]).expand(len(x), 1, 5)

    out = Adapted(model, Known("C4", [0, 1]), outputs="oriented_boxes", canvas=canvas)(
        torch.rand(2, 3, 6, 10)
    )
    g = parse_group("C4").element(1)
    expected = act(g, OrientedBoxes(torch.tensor([[3.0, 2.0, 4.0, 1.0, 0.3]]), size=(10, 6)))
    torch.testing.assert_close(out[1], expected.data)
    assert out[0].tolist() == [pytest.approx([3.0, 2.0, 4.0, 1.0, 0.3])]


@dataclass
class Output:
    logits: torch.Tensor
    mask: torch.Tensor
    note: str = "kept"
    extra: tuple = ()
    made: int = field(default=3, init=False)


Named = namedtuple("Named", ["logits", "mask"])


class Many(nn.Module):
    def __init__(self, build):
        super().__init__()
        self.classifier, self.dense, self.build = Classifier(), Dense(), build

    def forward(self, x):
        return self.build(self.classifier(x), self.dense(x))


BUILDS = {
    "tuple": (lambda a, b: (a, b), {0: "logits", 1: "image"}),
    "named tuple": (Named, {0: "logits", 1: "image"}),
    "dict": (lambda a, b: {"logits": a, "mask": b}, {"logits": "logits", "mask": "image"}),
    "ordered dict": (lambda a, b: OrderedDict(logits=a, mask=b), {"mask": "image"}),
    "dataclass": (lambda a, b: Output(a, b, extra=(a, {"deep": [a]})), {"mask": "image"}),
    "nested": (lambda a, b: {"logits": a, "maps": [b, {"half": b[..., ::1]}]}, {"maps": "image"}),
}


@pytest.mark.parametrize("size", [(12, 12), (10, 16)], ids=name)
@pytest.mark.parametrize("structure", BUILDS)
def test_structures_are_the_models_own(structure, size):
    build, outputs = BUILDS[structure]
    assert_adapted(Many(build), small("D4"), pictures(*size), outputs=outputs, trials=2)


def test_dataclasses_keep_their_other_fields():
    build, outputs = BUILDS["dataclass"]
    model = Many(build).eval()
    out = Adapted(model, Known("C4", [0, 1, 0]), outputs=outputs)(torch.rand(3, 3, 8, 12))
    assert isinstance(out, Output)
    assert (out.note, out.made) == ("kept", 3)
    assert torch.equal(out.extra[1]["deep"][0], out.extra[0])  # tensors of all buckets, also in depth
    assert out.extra[0].shape[0] == 3


def test_transformers_outputs():
    outputs = pytest.importorskip("transformers.modeling_outputs")

    def model(pixel_values, **kwargs):
        grey = pixel_values.mean((1, 2, 3))[:, None]
        return outputs.ImageClassifierOutput(
            logits=grey * torch.arange(1.0, 4), hidden_states=(pixel_values,)
        )

    adapted = Adapted(model, Known("C4", [1, 2]))
    out = adapted(pixel_values=torch.rand(2, 3, 6, 6), return_dict=True)
    assert isinstance(out, outputs.ImageClassifierOutput)
    assert out.logits.shape == (2, 3)
    assert out.loss is None
    assert out.hidden_states[0].shape == (2, 3, 6, 6)


def detector(pictures):
    found = []
    for i, p in enumerate(pictures):
        one = spot_finder(p[None])
        count = 1 + i % 2  # as many boxes as it likes
        found.append({
            "boxes": one["box"][0].expand(count, 4), "labels": torch.full((count,), 3), "masks": one["mask"],
        })  # fmt: skip
    return found


@pytest.mark.parametrize("as_list", [False, True])
@pytest.mark.parametrize("canvas", ["bucket", "pad"])
@pytest.mark.parametrize("size", SHAPES, ids=name)
def test_detectors_return_a_list_of_dicts(size, canvas, as_list):
    x = torch.rand(5, 3, *size)
    adapted = Adapted(
        detector, Known("D4", [0, 1, 5, 2, 3]), outputs={"boxes": "boxes", "masks": "mask"}, canvas=canvas
    )
    out = adapted(list(x) if as_list else x)
    assert isinstance(out, list)
    assert len(out) == 5
    for found, p in zip(out, x, strict=True):
        expected = spot_finder(p[None])
        assert torch.equal(found["boxes"][0], expected["box"][0, 0])
        assert torch.equal(found["masks"], expected["mask"])
        assert (found["labels"] == 3).all()


def test_stretched_detections_come_back_to_the_canvas():
    def model(x):
        height, width = x.shape[-2:]
        box = torch.tensor([[0.0, 0, width, height]])
        return [{"boxes": box, "masks": torch.ones(height, width)} for _ in x]

    outputs = {"boxes": "boxes", "masks": "mask"}
    out = Adapted(model, Known("C4", [0, 1]), outputs=outputs, canvas="stretch")(torch.rand(2, 3, 6, 10))
    for entry in out:
        torch.testing.assert_close(entry["boxes"], torch.tensor([[0.0, 0, 10, 6]]))
        assert entry["masks"].shape == (6, 10)


def test_pictures_of_different_sizes():
    x = [torch.rand(3, 4, 6), torch.rand(3, 7, 5), torch.rand(3, 5, 5)]
    adapted = Adapted(detector, Known("D4", [1, 4, 6]), outputs={"boxes": "boxes", "masks": "mask"})
    for found, p in zip(adapted(x), x, strict=True):
        assert torch.equal(found["boxes"][0], spot_finder(p[None])["box"][0, 0])

    def stacked(pictures):  # boxes of all pictures in one tensor, each on the canvas of its own
        return torch.cat([spot_finder(p[None])["box"] for p in pictures])

    found = Adapted(stacked, Known("D4", [1, 4, 6]), outputs="boxes")(x)
    assert torch.equal(found, stacked(x))


def test_prompts_move_with_the_picture():
    """A model with point and box prompts: it must see them where they are on its upright picture."""

    def model(image, points, box=None, *, threshold=0.0, labels=None):
        batch = torch.arange(len(image))
        column, row = (points[:, 0, 0] - 0.5).long(), (points[:, 0, 1] - 0.5).long()
        assert threshold == 0.7
        assert labels == ["a", "b", "c", "d"][: len(image)] or len(labels) < 4
        value = image[batch, :, row, column]
        return value if box is None else (value, box)

    x = torch.rand(4, 3, 6, 6)
    at = torch.tensor([[[1.5, 2.5]], [[0.5, 5.5]], [[3.5, 3.5]], [[5.5, 0.5]]])
    expected = model(x, at, threshold=0.7, labels=["a", "b", "c", "d"])
    c = Known("D4", [0, 1, 6, 3])
    settings = {"threshold": 0.7, "labels": ["a", "b", "c", "d"]}
    inputs = {"image": "image", "points": "points", "box": "boxes"}
    adapted = Adapted(model, c, inputs=inputs)
    assert torch.equal(adapted(x, at, **settings), expected)
    assert torch.equal(adapted(x, points=at, **settings), expected)
    boxes = torch.tensor([[[1.0, 2, 3, 3]]]).expand(4, 1, 4)
    out = Adapted(model, c, inputs=inputs, outputs={1: "boxes"})(x, at, boxes, **settings)
    assert torch.equal(out[0], expected)
    assert torch.equal(out[1], boxes)  # there and back
    wide = torch.rand(4, 3, 6, 9)
    found = Adapted(model, c, inputs=inputs)(wide, at, **settings)
    assert torch.equal(found, model(wide, at, **settings))
    for canvas in ("pad", "stretch"):
        with pytest.raises(ValueError, match=f"canvas='{canvas}' moves pictures only; use canvas='bucket'"):
            Adapted(model, c, inputs=inputs, canvas=canvas)(wide, at, **settings)


def test_arguments_pass_through_untouched():
    seen = {}

    def model(x, extra, *, flag, nothing=None):
        seen.update(extra=extra, flag=flag, nothing=nothing)
        return x.flatten(1)

    extra = {"some": object()}
    Adapted(model, Known("C4", [1, 2]))(torch.rand(2, 1, 3, 3), extra, flag="yes")
    assert seen["extra"]["some"] is extra["some"]
    assert (seen["flag"], seen["nothing"]) == ("yes", None)


BLACK_BOXES = {
    "method": lambda: Classifier().eval().forward,
    "partial": lambda: partial(Classifier().eval()),
    "traced": lambda: torch.jit.trace(Classifier().eval(), torch.rand(2, 3, 12, 12)),
}


@pytest.mark.parametrize("make", BLACK_BOXES.values(), ids=BLACK_BOXES)
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_black_boxes(make):
    assert_adapted(make(), small("D4"), pictures(12, 12), trials=1)


def test_models_that_return_text():
    adapted = Adapted(lambda x: ["upright"] * len(x), Known("C4", [0, 1]))
    assert adapted(torch.rand(2, 3, 4, 4)) == ["upright"] * 2
    assert Adapted(lambda x: "one answer", Known("C4", [0, 1]))(torch.rand(2, 3, 4, 4)) == "one answer"


@pytest.mark.parametrize("canvas", CANVASES)
@pytest.mark.parametrize("mode", ["canonical", "top_k"])
@pytest.mark.parametrize("size", SHAPES, ids=name)
def test_the_identity_changes_no_bit(size, mode, canvas):
    model = Classifier().eval()
    x = torch.rand(5, 3, *size)
    run = Adapted(model, IdentityCanonicalizer("D4"), mode=mode, canvas=canvas).run(x)
    assert torch.equal(run.output, model(x))
    assert run.passes.tolist() == [1] * 5
    still = Known("D4", [0] * 5, torch.eye(8)[:1].clamp(min=1e-3).log_softmax(-1).expand(5, 8))
    assert torch.equal(Adapted(model, still, mode=mode, top_k=1 if mode == "top_k" else None)(x), model(x))


@pytest.mark.parametrize("mode", ["canonical", "top_k", "average"])
@pytest.mark.parametrize("size", SHAPES, ids=name)
def test_batches_of_none_and_of_one(size, mode):
    model = Classifier().eval()
    adapted = Adapted(model, small("D4"), mode=mode)
    assert adapted(torch.rand(0, 3, *size)).shape == (0, 7)
    run = adapted.run(torch.rand(1, 3, *size))
    assert run.output.shape == (1, 7)
    assert run.passes.shape == (1,)


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


def test_run_pose_and_canonicalize_agree():
    c = small("D4")
    model = Classifier().eval()
    adapted = Adapted(model, c)
    for x in (
        torch.rand(5, 3, 12, 12),
        torch.rand(5, 3, 10, 16),
        [torch.rand(3, 9, 12), torch.rand(3, 8, 8)],
    ):
        ready, pose = adapted.canonicalize(x)
        assert pose.element.equals(adapted.pose(x).element).all()
        for p, q, g in zip(ready, x, pose.element, strict=True):
            assert torch.equal(act(g, Image(p)).data, q)
    x = torch.rand(5, 3, 12, 12)
    ready, _ = adapted.canonicalize(x)
    run = adapted.run(x)
    assert torch.equal(run.output, model(ready))
    assert run.passes.tolist() == [1] * 5
    assert torch.equal(adapted(x), run.output)
    half = F.interpolate(x, 7)
    assert adapted.canonicalize(half)[0].shape == (5, 3, 7, 7)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float64, torch.bfloat16], ids=name)
def test_pictures_of_any_dtype_reach_the_model_as_they_are(dtype):
    seen = []
    x = (torch.rand(4, 3, 8, 8) * 200).to(dtype)
    out = Adapted(lambda p: seen.append(p.dtype) or p, small("D4"), outputs="image")(x)
    assert seen == [dtype]
    assert torch.equal(out, x)


def test_finer_groups():
    """Under C8 quarter turns stay exact; others resample, once there and once back."""
    c = upright.canonicalizer("C8", "polar", size=16, options={"widths": (4,), "rays": 16, "rings": 5}).eval()
    redraw_weights(c, torch.Generator().manual_seed(0))
    assert_adapted(Classifier(), c, pictures(13, 13), share=0.0)
    adapted = Adapted(Classifier().eval(), c)
    x = torch.rand(6, 3, 13, 13)
    quarter = parse_group("C4").element(1)
    ready, moved = adapted.canonicalize(x)[0], adapted.canonicalize(act(quarter, Image(x)).data)[0]
    torch.testing.assert_close(ready, moved, atol=1e-5, rtol=0)
    with pytest.raises(
        ValueError, match=r"C8 turns by more than quarter turns and needs square pictures, got 8×9"
    ):
        adapted(torch.rand(2, 3, 8, 9))


def test_copies_and_state():
    adapted = Adapted(Classifier().eval(), small("D4")).eval()
    x = torch.rand(3, 3, 12, 12)
    adapted(x).sum().backward()
    for twin in (copy.deepcopy(adapted), pickle.loads(pickle.dumps(adapted))):
        assert torch.equal(twin(x), adapted(x))
    assert {k.partition(".")[0] for k in adapted.state_dict()} == {"model", "canonicalizer"}
    assert "group=D4, mode='canonical', canvas='bucket'" in repr(adapted)


def test_gradients_pass_through_to_the_picture_and_the_model():
    model = Classifier().eval()
    adapted = Adapted(model, Known("D4", [1, 6]))
    x = torch.rand(2, 3, 12, 12, requires_grad=True)
    adapted(x).square().sum().backward()
    ready = torch.stack(
        [act(~g, Image(p)).data for g, p in zip(Known("D4", [1, 6])(x).element, x.detach(), strict=True)]
    )
    ready.requires_grad_()
    model(ready).square().sum().backward()
    expected = torch.stack(
        [act(g, Image(p)).data for g, p in zip(Known("D4", [1, 6])(x).element, ready.grad, strict=True)]
    )
    torch.testing.assert_close(x.grad, expected)


def test_mode_average_of_masks_is_the_mean_of_the_moved_masks():
    model, x = Dense().eval(), torch.rand(2, 3, 8, 8)
    group = parse_group("C4")
    moved = [act(g, Mask(model(act(~g, Image(x)).data))).data for g in group.elements()]
    found = Adapted(model, IdentityCanonicalizer("C4"), mode="average", outputs="mask")(x)
    torch.testing.assert_close(found, torch.stack(moved).mean(0))


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"mode": "best"}, ValueError, "mode must be one of 'canonical', 'top_k', 'average', got 'best'"),
        ({"canvas": "crop"}, ValueError, "canvas must be one of 'bucket', 'pad', 'stretch', got 'crop'"),
        ({"top_k": 2}, ValueError, "need mode='top_k', got mode='canonical'"),
        ({"mode": "top_k", "top_k": 0}, ValueError, "top_k must be positive, got 0"),
        ({"mode": "top_k", "cover": 1.5}, ValueError, r"cover must lie in \(0, 1\], got 1.5"),
        ({"outputs": "polygon"}, ValueError, "unknown kind 'polygon'; expected one of boxes, image"),
        ({"inputs": {"x": "polygon"}}, ValueError, "unknown kind 'polygon'"),
    ],
)
def test_settings_errors(settings, error, match):
    with pytest.raises(error, match=match):
        Adapted(Classifier(), small("C4"), **settings)


def test_construction_errors():
    with pytest.raises(TypeError, match="model must be callable, got int"):
        Adapted(3, small("C4"))
    with pytest.raises(TypeError, match="canonicalizer must be a Canonicalizer, got str"):
        Adapted(Classifier(), "C4")


def test_call_errors():
    adapted = Adapted(Classifier(), small("C4"))
    with pytest.raises(
        ValueError, match=r"pictures must have shape \(B, C, H, W\), got \(3, 8, 8\); add a batch axis"
    ):
        adapted(torch.rand(3, 8, 8))
    with pytest.raises(TypeError, match=r"must be a tensor \(B, C, H, W\) or a list of \(C, H, W\), got str"):
        adapted("photo.jpg")
    with pytest.raises(ValueError, match=r"picture 1 of the list must be a tensor \(C, H, W\), got \(8, 8\)"):
        adapted([torch.rand(3, 8, 8), torch.rand(8, 8)])
    with pytest.raises(TypeError, match=r"no picture among the arguments \['photo'\]; name it with adapt"):
        adapted(photo=torch.rand(2, 3, 8, 8))
    with pytest.raises(TypeError, match="inputs must name a picture"):
        Adapted(Classifier(), small("C4"), inputs={"boxes": "boxes"})(torch.rand(2, 3, 8, 8))


def test_output_errors():
    x, c = torch.rand(2, 3, 8, 8), Known("C4", [0, 1])
    with pytest.raises(TypeError, match=r"names entries .*, but the model returned one tensor"):
        Adapted(Classifier(), c, outputs={"logits": "logits"})(x)
    with pytest.raises(KeyError, match="which the model did not return; it returned"):
        Adapted(lambda x: {"a": x}, c, outputs={"b": "image"})(x)
    with pytest.raises(KeyError, match="which the model did not return"):
        Adapted(lambda x: (x,), c, outputs={1: "image"})(x)
    with pytest.raises(ValueError, match="returned a list of 3 entries for 2 pictures"):
        Adapted(lambda x: [1, 2, 3], c)(x)
    with pytest.raises(
        TypeError, match="needs a tensor, tuple, dict or dataclass, but the model returned object"
    ):
        Adapted(lambda x: object(), c, outputs="mask")(x)
    wide = torch.rand(2, 3, 6, 9)
    for kind, shape in (("oriented_boxes", (2, 1, 5)), ("vector_field", (2, 2, 9, 9))):
        with pytest.raises(ValueError, match="canvas='stretch' cannot take"):
            Adapted(lambda x, shape=shape: torch.zeros(shape), c, outputs=kind, canvas="stretch")(wide)
