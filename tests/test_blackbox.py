"""Black boxes: answers in plain data come back in the user's frame.

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
from onnx_toys import session
from picture_toys import GROUPS, canonicalizer, corners, elements, encoded, marked, picture
from upright import Boxes, Points

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


def test_the_page_runs():
    page = (Path(__file__).parents[1] / "docs" / "black-boxes.md").read_text()
    x = marked()
    url = "data:image/png;base64," + encoded(x)
    chat = SimpleNamespace(completions=SimpleNamespace(create=lambda **request: request))
    names = {
        "photo": x,
        "endpoint": lambda seen: [{"box": list(corners(seen)), **outline(seen)}],
        "session": session(single=True),
        "pictures": np.random.default_rng(0).random((2, 3, 9, 11), dtype=np.float32),
        "client": SimpleNamespace(chat=chat),
        "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}],
    }
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(block, "black-boxes.md", "exec"), names)
    assert names["answer"][0]["box"] == list(corners(x))
    assert np.array_equal(names["answer"][0]["mask"], (x == 255).all(-1))
    assert names["run"].pose.size in (x.shape[:2], x.shape[1::-1])
    assert names["mask"].shape == (2, 2, 9, 11)
    assert len(names["points"][0]) == 2
