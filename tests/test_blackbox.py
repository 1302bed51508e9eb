"""Black boxes: answers in plain data come back in the user's frame; sessions of ONNX Runtime are predictors.

The reference is a box that is not equivariant at all and says where things are on the picture that it sees:
its answer about a turned picture must be the turned answer, with the structure and the types of its own.
"""

import base64
import io
import re
import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

import upright
from upright import Boxes, DiscreteCanonicalizer, Points
from upright.integrations.answers import PicturePose, move_answer
from upright.integrations.onnx import AdaptedSession, SessionModel
from upright.nets import OrbitScorer
from upright.testing import redraw_weights

GROUPS = ["C4", "D4"]


def picture(height=30, width=40, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def canonicalizer(group):
    judge = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 1))
    return redraw_weights(DiscreteCanonicalizer(OrbitScorer(judge, group), group, size=16)).eval()


def elements(group):
    return upright.parse_group(group).elements()


# A marked rectangle, found by brute force on the pixels: what any form of answer must agree with.


def marked(height=30, width=40):
    """A picture with one white rectangle of rows 3…8, columns 10…22 on darker noise."""
    x = np.minimum(picture(height, width), 250)
    x[3:8, 10:22] = 255
    return x


def corners(x):
    rows, columns = np.nonzero((x == 255).all(-1))
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


FORMS = {
    "corners": (lambda x0, y0, x1, y1: {"box": {"xmin": x0, "ymin": y0, "xmax": x1, "ymax": y1}}, "boxes"),
    "capitals": (
        lambda x0, y0, x1, y1: {"box": {"Left": x0, "Top": y0, "Width": x1 - x0, "Height": y1 - y0}},
        "boxes",
    ),
    "xywh": (
        lambda x0, y0, x1, y1: {"box": {"x": x0, "y": y0, "w": x1 - x0, "h": y1 - y0, "id": 7}},
        "boxes",
    ),
    "centre": (
        lambda x0, y0, x1, y1: {
            "box": {"x": (x0 + x1) / 2, "y": (y0 + y1) / 2, "width": x1 - x0, "height": y1 - y0}
        },
        partial(Boxes, format="cxcywh"),
    ),
    "row": (lambda *c: {"box": [*c, 0.5, "cat"]}, "boxes"),
    "tuple of floats": (lambda *c: {"box": tuple(map(float, c))}, "boxes"),
    "array": (lambda *c: {"box": np.array([c, c], dtype=np.int32)}, "boxes"),
    "tensor": (lambda *c: {"box": torch.tensor([c], dtype=torch.float32)}, "boxes"),
    "fractions": (lambda *c: {"box": {"size": None, "rows": [list(map(float, c))]}}, "boxes"),
    "none": (lambda *c: {"box": None, "other": {"box": list(c)}}, "boxes"),
}


def as_corners(name, answer):
    box = answer["other"]["box"] if name == "none" else answer["box"]
    if name == "corners":
        return [box["xmin"], box["ymin"], box["xmax"], box["ymax"]]
    if name == "capitals":
        return [box["Left"], box["Top"], box["Left"] + box["Width"], box["Top"] + box["Height"]]
    if name == "xywh":
        return [box["x"], box["y"], box["x"] + box["w"], box["y"] + box["h"]]
    if name == "centre":
        half = box["width"] / 2, box["height"] / 2
        return [box["x"] - half[0], box["y"] - half[1], box["x"] + half[0], box["y"] + half[1]]
    if name == "fractions":
        box = box["rows"][0]
    return np.asarray(box).reshape(-1)[:4].tolist() if name in ("array", "tensor") else list(box[:4])


def same_types(a, b):
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            same_types(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            same_types(x, y)
    elif isinstance(a, (np.ndarray, torch.Tensor)):
        assert a.dtype == b.dtype
        assert a.shape == b.shape


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("name", FORMS)
def test_boxes_of_every_form_land_on_the_marked_pixels(name, group):
    make, kind = FORMS[name]

    def box(x):
        return [{"label": "thing", "score": 0.9, **make(*corners(x))}]

    robust = upright.black_box(box, group, canonicalizer=canonicalizer(group), outputs={"box": kind})
    for g in elements(group):
        x = upright.turn(g, marked())
        answer = robust(x)
        assert as_corners(name, answer[0]) == list(corners(x))
        same_types(answer, box(x))
        assert answer[0]["label"] == "thing"
        assert answer[0]["score"] == 0.9


def outline(x):
    """The corners of the rectangle in one order, as pixels of the picture that is seen, and its mask."""
    x0, y0, x1, y1 = corners(x)
    flat = [x0, y0, x1, y0, x1, y1, x0, y1]
    return {
        "polygon": [flat],
        "keypoints": [x0, y0, 2, x1, y1, 1],
        "point": {"x": x0 + 0.5, "y": y0 + 0.5, "name": "first"},
        "rows": [[x0, y0], [x1, y1, 0.5]],
        "mask": (x == 255).all(-1),
        "grid": (x == 255).all(-1).astype(int).tolist(),
        "tag": [1, 2, 3],
    }


OUTLINE = {
    "polygon": "points",
    "keypoints": "keypoints",
    "point": "points",
    "rows": "points",
    "mask": "mask",
    "grid": "mask",
}


@pytest.mark.parametrize("group", GROUPS)
def test_polygons_key_points_and_masks_move_with_the_picture(group):
    robust = upright.black_box(outline, group, canonicalizer=canonicalizer(group), outputs=OUTLINE)
    for g in elements(group):
        x = upright.turn(g, marked())
        answer, x0_y0_x1_y1 = robust(x), corners(x)
        same_types(
            {k: v for k, v in answer.items() if k != "grid"},
            {k: v for k, v in outline(x).items() if k != "grid"},
        )
        mask = (x == 255).all(-1)
        assert np.array_equal(answer["mask"], mask)
        assert answer["grid"] == mask.astype(int).tolist()
        assert answer["tag"] == [1, 2, 3]
        points = np.array(answer["polygon"]).reshape(-1, 2)
        x0, y0, x1, y1 = x0_y0_x1_y1
        assert {tuple(p) for p in points.tolist()} == {(x0, y0), (x1, y0), (x1, y1), (x0, y1)}
        first, second = answer["keypoints"][:2], answer["keypoints"][3:5]
        assert answer["keypoints"][2::3] == [2, 1]
        assert answer["rows"] == [first, [*second, 0.5]]
        assert {first[0], second[0]} == {x0, x1}
        assert {first[1], second[1]} == {y0, y1}
        assert mask[int(answer["point"]["y"]), int(answer["point"]["x"])]
        assert abs(answer["point"]["x"] - first[0]) == 0.5


@pytest.mark.parametrize("group", ["C4", "D4"])
@pytest.mark.parametrize("form", ["pil", "array", "tensor", "bytes", "base64", "url", "webp"])
def test_pictures_of_every_form_reach_the_function_upright_and_as_given(form, group):
    seen = []

    def box(given):
        seen.append(given)
        return {}

    def encoded(x, kind="PNG"):
        stream = io.BytesIO()
        Pillow.fromarray(x).save(stream, kind, lossless=True)
        return stream.getvalue()

    make = {
        "pil": Pillow.fromarray,
        "array": lambda x: x,
        "tensor": lambda x: torch.from_numpy(x.copy()).permute(2, 0, 1),
        "bytes": encoded,
        "base64": lambda x: base64.b64encode(encoded(x)).decode(),
        "url": lambda x: "data:image/png;base64," + base64.b64encode(encoded(x)).decode(),
        "webp": lambda x: encoded(x, "WEBP"),
    }[form]

    def pixels(given):
        if isinstance(given, str):
            given = base64.b64decode(given.rpartition(",")[2])
        if isinstance(given, bytes):
            opened = Pillow.open(io.BytesIO(given))
            assert opened.format == ("WEBP" if form == "webp" else "PNG")
            given = opened
        return given.permute(1, 2, 0).numpy() if isinstance(given, torch.Tensor) else np.array(given)

    robust = upright.black_box(box, group, canonicalizer=canonicalizer(group))
    for g in elements(group):
        given = make(upright.turn(g, picture()))
        pose = robust.run(given).pose
        assert type(seen[-1]) is type(given) or form == "pil"
        assert np.array_equal(pixels(seen[-1]), pixels(seen[0]))
        assert pose.size == pixels(seen[-1]).shape[:2]
        if bool(pose.element.is_identity()) and form not in ("pil", "array", "tensor"):
            assert seen[-1] is given
    assert len(seen) == len(elements(group))


def test_jpeg_is_written_again_only_where_it_is_turned():
    stream = io.BytesIO()
    Pillow.fromarray(picture()).save(stream, "JPEG", quality=90)
    seen = []
    box = partial(upright.black_box, seen.append, outputs="invariant")
    box(canonicalizer=upright.canonicalizer("C4", "identity"))(stream.getvalue())
    assert seen[-1] is not None
    assert seen[-1] == stream.getvalue()
    turned = Turned(upright.Cyclic(4).elements()[1:2])
    box(canonicalizer=turned)(stream.getvalue())
    box(canonicalizer=turned, quality=None)(stream.getvalue())
    formats = [Pillow.open(io.BytesIO(x)).format for x in seen]
    assert formats == ["JPEG", "JPEG", "PNG"]
    exact = np.rot90(np.array(Pillow.open(stream)), -1)
    assert np.array_equal(np.array(Pillow.open(io.BytesIO(seen[2]))), exact)
    with pytest.raises(ValueError, match="quality must be one of"):
        box(quality=0)


class Turned(upright.Canonicalizer):
    """Says the same pose of every picture."""

    def __init__(self, element):
        super().__init__(element.group)
        self.element = element

    def forward(self, x):
        return upright.Pose(self.element.expand(len(x)))


def test_lists_of_pictures_of_many_sizes_with_prompts():
    c = canonicalizer("D4")
    calls = []

    def segment(pictures, *, points, text):
        calls.append([p.shape for p in pictures])
        return [{"point": p, "value": x[p[1], p[0]].tolist()} for x, p in zip(pictures, points, strict=True)]

    robust = upright.black_box(
        segment,
        "D4",
        canonicalizer=c,
        inputs={0: "image", "points": partial(Points)},
        outputs={"point": "points"},
    )
    group = elements("D4")
    pictures = [upright.turn(g, picture(20 + i, 31, i)) for i, g in enumerate(group)]
    centres = [[3.5 + i, 4.5] for i in range(len(group))]

    def whole(pictures, *, points, text):
        found = segment(pictures, points=[[int(v) for v in p] for p in points], text=text)
        return [{**f, "point": p} for f, p in zip(found, points, strict=True)]

    robust = upright.black_box(
        whole, "D4", canonicalizer=c, inputs={0: "image", "points": "points"}, outputs={"point": "points"}
    )
    answers = robust(pictures, points=centres, text="x")
    assert len(calls[-1]) == len(group)
    for x, centre, answer in zip(pictures, centres, answers, strict=True):
        assert answer["point"] == centre
        assert answer["value"] == x[int(centre[1]), int(centre[0])].tolist()
    with pytest.raises(ValueError, match="argument 'points' must have batch size 8"):
        robust(pictures, points=centres[:3], text="x")


def test_encoded_masks_come_back_encoded():
    def box(x):
        stream = io.BytesIO()
        Pillow.fromarray((x == 255).all(-1)).save(stream, "PNG")
        return [{"mask": base64.b64encode(stream.getvalue()).decode(), "label": "a"}]

    robust = upright.black_box(box, "C4", canonicalizer=canonicalizer("C4"), outputs={"mask": "mask"})
    for g in elements("C4"):
        x = upright.turn(g, marked())
        found = Pillow.open(io.BytesIO(base64.b64decode(robust(x)[0]["mask"])))
        assert np.array_equal(np.array(found), (x == 255).all(-1))


def test_exceptions_pass_through_and_threads_share_a_box():
    def fail(x):
        raise TimeoutError("remote")

    with pytest.raises(TimeoutError, match=r"^remote$"):
        upright.black_box(fail, canonicalizer=canonicalizer("C4"))(picture())
    robust = upright.black_box(
        lambda x: list(corners(x)), "D4", canonicalizer=canonicalizer("D4"), outputs="boxes"
    )
    pictures = [upright.turn(g, marked(24 + 2 * i, 40)) for i, g in enumerate(elements("D4"))]
    found = {}

    def work(i):
        found[i] = [robust(pictures[i]) for _ in range(3)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(pictures))]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert all(found[i] == [list(corners(x))] * 3 for i, x in enumerate(pictures))


def test_messages():
    c = canonicalizer("C4")
    box = partial(upright.black_box, group="C4", canonicalizer=c)
    with pytest.raises(KeyError, match=r"outputs names \['boxes'\].*it holds \['box', 'score'\]"):
        box(lambda x: [{"box": [1, 2, 3, 4], "score": 1}], outputs={"boxes": "boxes"})(picture())
    assert box(lambda x: {"found": []}, outputs={"box": "boxes"})(picture()) == {"found": []}
    with pytest.raises(TypeError, match=r"'box' must have at least 4 numbers in a row, got 2"):
        box(lambda x: {"box": [1, 2]}, outputs={"box": "boxes"})(picture())
    with pytest.raises(TypeError, match=r"'p' must have a multiple of 2 numbers in a row, got 5"):
        box(lambda x: {"p": [1, 2, 3, 4, 5]}, outputs={"p": "points"})(picture())
    with pytest.raises(TypeError, match="'box' must hold Boxes, 4 numbers"):
        box(lambda x: {"box": {"xmn": 3}}, outputs={"box": "boxes"})(picture())
    with pytest.raises(ValueError, match="a list of 2 pictures the function must return a list of as many"):
        box(lambda x: [1])([picture(), picture()])
    with pytest.raises(ValueError, match=r"got 'photo\.jpg'; open files"):
        box(lambda x: 1)("photo.jpg")
    with pytest.raises(ValueError, match="picture 0 must hold a picture file, got 3 bytes"):
        box(lambda x: 1)(b"abc")
    with pytest.raises(TypeError, match=r"argument 0 is missing, got \['image'\]"):
        box(lambda image: 1)(image=picture())
    with pytest.raises(ValueError, match="unknown kind 'bxs'"):
        box(lambda x: 1, outputs={"box": "bxs"})
    with pytest.raises(ValueError, match="inputs must name one argument as 'image'"):
        box(lambda x: 1, inputs={0: "points"})


# Coordinates in an answer: any unit, either order.


@pytest.mark.parametrize("group", GROUPS)
def test_units_agree_with_pixels(group):
    height, width = 30, 40
    box = np.array([4.0, 3.0, 10.0, 9.0])
    for g in elements(group):
        pose = PicturePose(g, (height, width), 1.0)
        pixels = np.array(pose.restore("boxes", box.tolist()))
        turned = (width, height) if int(g.group.grid_moves(g)) % 2 else (height, width)
        sides, own = np.array([width, height] * 2), np.array([turned[1], turned[0]] * 2)
        for scale in (1, 1000, 1024.0):
            found = pose.restore("boxes", (box / sides * scale).tolist(), scale=scale)
            assert np.allclose(found, pixels / own * scale)
        resized = pose.restore("boxes", (box * [2, 3, 2, 3]).tolist(), scale=(90, 80))
        assert np.allclose(resized, pixels)
        swapped = pose.restore("boxes", box[[1, 0, 3, 2]].tolist(), order="yx")
        assert np.allclose(np.array(swapped)[[1, 0, 3, 2]], pixels)
        whole = pose.restore({"p": "points"}, {"p": [[100, 250]]}, scale=1000)["p"][0]
        exact = pose.restore("points", [0.1, 0.25], scale=1)
        assert whole == [round(1000 * v) for v in exact]
        assert all(type(v) is int for v in whole)


def test_whole_numbers_are_rounded_not_cut():
    every = [[v, v] for v in range(1001)]
    for i, g in enumerate(elements("C4")[::2]):
        found = PicturePose(g, (37, 51), 1.0).restore("points", every, scale=1000)
        assert found == (every[::-1] if i else every)


def test_odd_angles_turn_in_pixels_whatever_the_unit():
    g = upright.Cyclic(8).elements()[1]
    pose = PicturePose(g, (50, 50), 1.0)
    exact = upright.act(g, Points(torch.tensor([[10.0, 20.0]], dtype=torch.float64), size=(50, 50))).data[0]
    assert np.allclose(pose.restore("points", [10.0, 20.0]), exact)
    assert np.allclose(np.array(pose.restore("points", [0.2, 0.4], scale=1)) * 50, exact)
    with pytest.raises(ValueError, match="not both"):
        pose.restore(partial(Points, normalized=True), [0.2, 0.4], scale=1)
    with pytest.raises(ValueError, match="oriented boxes come in pixels"):
        pose.restore("oriented_boxes", [1.0, 2.0, 3.0, 4.0, 0.0], order="yx")


def test_positions_name_entries_of_a_tuple():
    g = upright.Cyclic(4).elements()[2]
    moved = move_answer({0: "boxes"}, ([[0, 0, 2, 3]], [0.5]), g, (10, 20))
    assert moved == ([[18, 7, 20, 10]], [0.5])


# Sessions of ONNX Runtime.


def session(batch=None, size=None, dtype="FLOAT", second=True, names=("pixels", "scale"), single=False):
    """A small network, not equivariant: masks by a convolution with random weights, and scores of a batch."""
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(3)
    weights = {
        "w": rng.standard_normal((2, 3, 3, 3)).astype(np.float32),
        "v": rng.standard_normal((4, 2)).astype(np.float32).T,
        "axes": np.array([2, 3]),
    }
    pictures = helper.make_tensor_value_info(
        names[0], getattr(TensorProto, dtype), [batch or "N", 3, *(size or ("H", "W"))]
    )
    scale = helper.make_tensor_value_info(names[1], TensorProto.FLOAT, [1])
    rank4 = [batch or "N", 2, *(size or ("H", "W"))]
    made = [helper.make_tensor_value_info("mask", TensorProto.FLOAT, rank4)]
    nodes = [
        helper.make_node("Cast", [names[0]], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["cast", "w"], ["conv"], pads=[1, 1, 1, 1]),
        helper.make_node("Mul", ["conv", names[1]], ["mask"]),
    ]
    if second:
        made.append(helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch or "N", 4]))
        nodes += [
            helper.make_node("Relu", ["mask"], ["relu"]),
            helper.make_node("ReduceMean", ["relu", "axes"], ["mean"], keepdims=0),
            helper.make_node("MatMul", ["mean", "v"], ["scores"]),
        ]
    if single:
        weights[names[1]] = ONE
    graph = helper.make_graph(
        nodes,
        "g",
        [pictures] if single else [pictures, scale],
        made,
        [numpy_helper.from_array(w, n) for n, w in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    return runtime.InferenceSession(model.SerializeToString(), options)


OUTPUTS = {"mask": "mask", "scores": "logits"}
ONE = np.ones(1, np.float32)


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("size", [(12, 12), (10, 14)])
@pytest.mark.parametrize("batch", [None, 1, 3])
def test_an_adapted_session_moves_with_the_picture(group, size, batch):
    robust = upright.adapt(session(batch), group, canonicalizer=canonicalizer(group), outputs=OUTPUTS)
    x = torch.rand(5, 3, *size)
    scale = torch.from_numpy(ONE)
    bare, pose = robust(x, scale), robust.pose(x, scale)
    assert set(bare) == {"mask", "scores"}
    assert (pose.element.value != 0).any()
    for g in elements(group):
        moved = robust(upright.act(g, upright.Image(x)).data, scale)
        assert torch.equal(moved["mask"], upright.act(g, upright.Mask(bare["mask"])).data)
        assert torch.equal(moved["scores"], bare["scores"])


def test_an_identity_pose_returns_the_bits_of_the_session():
    bare = session()
    robust = upright.adapt(bare, canonicalizer="identity", outputs=OUTPUTS)
    x = np.random.default_rng(0).random((3, 3, 9, 11), dtype=np.float32)
    expected = bare.run(None, {"pixels": x, "scale": ONE})
    found = robust(x, ONE)
    assert all(type(v) is np.ndarray for v in found.values())
    for array, reference in zip(found.values(), expected, strict=True):
        assert np.array_equal(array, reference)
        assert array.dtype == reference.dtype
    tensors = robust(torch.from_numpy(x), scale=torch.from_numpy(ONE))
    assert torch.equal(tensors["mask"], torch.from_numpy(expected[0]))


@pytest.mark.parametrize("batch", [2, 3, 7])
def test_fixed_batch_sizes_split_and_fill_up(batch):
    x = np.random.default_rng(0).random((7, 3, 8, 8), dtype=np.float32)
    fixed, free = SessionModel(session(batch)), session()
    expected = free.run(None, {"pixels": x, "scale": ONE})
    for count in (0, 1, 6, 7):
        found = fixed(x[:count], ONE)
        assert found["mask"].shape == (count, 2, 8, 8)
        assert np.allclose(found["mask"], expected[0][:count], atol=1e-5)
        assert np.allclose(found["scores"], expected[1][:count], atol=1e-5)


def test_an_adapted_session_takes_the_place_of_a_session():
    robust = AdaptedSession(
        upright.adapt(session(1), "C4", canonicalizer=canonicalizer("C4"), outputs=OUTPUTS)
    )
    x = np.random.default_rng(0).random((1, 3, 9, 11), dtype=np.float32)
    mask, scores = robust.run(None, {"pixels": x, "scale": ONE})
    turned = {"pixels": np.ascontiguousarray(np.rot90(x, 1, (2, 3))), "scale": ONE}
    assert np.array_equal(robust.run(["mask"], turned)[0], np.rot90(mask, 1, (2, 3)))
    assert np.array_equal(robust.run(["scores"], turned)[0], scores)
    assert [e.name for e in robust.get_inputs()] == ["pixels", "scale"]
    assert [e.name for e in robust.get_outputs()] == ["mask", "scores"]
    with pytest.raises(
        TypeError, match=r"input_feed must hold the inputs \['pixels', 'scale'\], got \['x'\]"
    ):
        robust.run(None, {"x": x})
    with pytest.raises(ValueError, match="output_names must be among"):
        robust.run(["boxes"], turned)


def test_dtypes_and_one_output():
    model = SessionModel(session(dtype="FLOAT16", second=False))
    x = torch.rand(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    found = model(x, torch.ones(1))
    assert isinstance(found, torch.Tensor)
    assert torch.equal(found, model(x.half(), torch.ones(1)))
    assert model(torch.rand(1, 3, 4, 4).bfloat16(), torch.ones(1)).shape == (1, 2, 4, 4)
    whole = SessionModel(session(dtype="UINT8", second=False))
    assert whole(torch.ones(1, 3, 4, 4, dtype=torch.uint8), torch.ones(1)).dtype == torch.float32
    with pytest.raises(TypeError, match="input 'pixels' must be uint8, got float32"):
        whole(torch.ones(1, 3, 4, 4), torch.ones(1))
    robust = upright.adapt(session(second=False), canonicalizer=canonicalizer("C4"), outputs="mask")
    assert robust(torch.rand(2, 3, 8, 8), scale=torch.ones(1)).shape == (2, 2, 8, 8)
    assert robust(torch.rand(0, 3, 8, 8), scale=torch.ones(1)).shape == (0, 2, 8, 8)


def test_messages_of_sessions():
    model = SessionModel(session(1, (8, 12)))
    with pytest.raises(
        ValueError, match=r"'pixels' must have shape \(1, 3, 8, 12\), got \(1, 3, 12, 8\); resize"
    ):
        model(np.zeros((1, 3, 12, 8), np.float32), ONE)
    with pytest.raises(TypeError, match=r"missing: \['scale'\], unknown: \['size'\]"):
        model(np.zeros((1, 3, 8, 12), np.float32), size=ONE)
    with pytest.raises(TypeError, match="takes 2 inputs"):
        model(ONE, ONE, ONE)
    with pytest.raises(TypeError, match="adapted session, got an adapted Linear"):
        AdaptedSession(upright.adapt(torch.nn.Linear(1, 1), canonicalizer="identity"))
    robust = upright.adapt(session(), canonicalizer="identity", outputs=OUTPUTS)
    with pytest.raises(TypeError, match="must be a torch module, got SessionModel; use setup='prior'"):
        upright.fit(robust, torch.rand(8, 3, 16, 16), setup="joint", progress=False)
    awkward = session(names=("input.1", "0"))
    named = upright.adapt(awkward, canonicalizer="identity", inputs={0: "image"}, outputs=OUTPUTS)
    assert named(torch.rand(1, 3, 8, 8), torch.ones(1))["mask"].shape == (1, 2, 8, 8)


def test_a_canonicalizer_is_fitted_without_running_the_session():
    bare = session()
    runs = []

    class InferenceSession:
        def run(self, *args):
            runs.append(args)
            return bare.run(*args)

        get_inputs = bare.get_inputs
        get_outputs = bare.get_outputs

    robust = upright.adapt(InferenceSession(), canonicalizer=canonicalizer("C4"), outputs=OUTPUTS)
    before = [p.clone() for p in robust.canonicalizer.parameters()]
    upright.fit(robust, torch.rand(8, 3, 16, 16), epochs=1, batch_size=4, augment=False, progress=False)
    assert not runs
    assert any(not torch.equal(a, b) for a, b in zip(before, robust.canonicalizer.parameters(), strict=True))
    robust(torch.rand(1, 3, 8, 8), torch.ones(1))
    assert len(runs) == 1


def test_the_page_runs():
    page = (Path(__file__).parents[1] / "docs" / "black-boxes.md").read_text()
    x = marked()
    chat = SimpleNamespace(completions=SimpleNamespace(create=lambda **request: request))
    names = {
        "photo": x,
        "endpoint": lambda seen: [{"box": list(corners(seen)), **outline(seen)}],
        "session": session(single=True),
        "pictures": np.random.default_rng(0).random((2, 3, 9, 11), dtype=np.float32),
        "client": SimpleNamespace(chat=chat),
        "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": as_url(x)}}]}],
    }
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(block, "black-boxes.md", "exec"), names)
    assert names["answer"][0]["box"] == list(corners(x))
    assert np.array_equal(names["answer"][0]["mask"], (x == 255).all(-1))
    assert names["run"].pose.size in (x.shape[:2], x.shape[1::-1])
    assert names["mask"].shape == (2, 2, 9, 11)
    assert len(names["points"][0]) == 2


def as_url(x):
    stream = io.BytesIO()
    Pillow.fromarray(x).save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
