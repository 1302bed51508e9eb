"""Any model, random and not equivariant, becomes equivariant bit for bit; the identity changes no bit."""

import copy
import pickle
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import upright
from adapter_toys import GROUPS, SHAPES, Classifier, Dense, Known, Localizer, pictures, small
from cases import name
from upright import Adapted, Boxes, IdentityCanonicalizer, Image, Points, act, parse_group
from upright.adapter.canvas import CANVASES
from upright.testing import assert_adapted, redraw_weights


@pytest.mark.parametrize("size", SHAPES, ids=name)
@pytest.mark.parametrize("network", ["group_cnn", "orbit"])
@pytest.mark.parametrize("group", GROUPS)
def test_class_scores_are_invariant_bit_for_bit(group, network, size):
    assert_adapted(Classifier(), small(group, network), pictures(*size), batch=12, trials=5)


@pytest.mark.parametrize("kind", ["mask", "image", "vector_field"])
@pytest.mark.parametrize("size", SHAPES, ids=name)
@pytest.mark.parametrize("group", GROUPS)
def test_dense_outputs(group, size, kind):
    assert_adapted(Dense(), small(group), pictures(*size), outputs=kind)


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


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        (
            {"mode": "best"},
            ValueError,
            "mode must be one of 'canonical', 'top_k', 'weighted', 'average', got",
        ),
        ({"mode": "top_k", "cut": 0.5}, ValueError, "cut needs mode='weighted', got mode='top_k'"),
        ({"mode": "weighted", "cut": 0.0}, ValueError, r"cut must lie in \(0, 1\], got 0.0"),
        ({"mode": "weighted", "cover": 0.5}, ValueError, "cover needs mode='top_k', got mode='weighted'"),
        ({"canvas": "crop"}, ValueError, "canvas must be one of 'bucket', 'pad', 'stretch', got 'crop'"),
        ({"top_k": 2}, ValueError, "needs mode='top_k' or 'weighted', got mode='canonical'"),
        ({"mode": "top_k", "top_k": 0}, ValueError, "top_k must be positive, got 0"),
        ({"mode": "top_k", "cover": 1.5}, ValueError, r"cover must lie in \(0, 1\], got 1.5"),
        ({"outputs": "polygon"}, ValueError, "unknown kind 'polygon'; expected one of boxes, cloud"),
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
