"""Requests to remote models are sent with upright pictures, and the given request is kept."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image as Pillow

import upright
from picture_toys import GROUPS, canonicalizer, encoded, picture, turned
from upright.integrations.chat import adapt_chat, straighten_request


def request(x):
    data = encoded(x)
    url = f"data:image/png;base64,{data}"
    source = {"type": "base64", "media_type": "image/png", "data": data}
    return {
        "model": "any",
        "messages": [
            {"role": "system", "content": "Answer briefly."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Where?"},
                    {"type": "image_url", "image_url": {"url": url, "detail": "high"}},
                    {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
                    {"type": "input_image", "image_url": url},
                    {"type": "input_image", "file_id": "file-1"},
                    {"type": "tool_result", "content": [{"type": "image", "source": source}]},
                ],
            },
        ],
    }


def sent(made):
    content = made["messages"][1]["content"]
    texts = [
        content[1]["image_url"]["url"],
        content[3]["image_url"],
        content[5]["content"][0]["source"]["data"],
    ]
    return [np.array(Pillow.open(io.BytesIO(base64.b64decode(t.rpartition(",")[2])))) for t in texts]


@pytest.mark.parametrize("group", GROUPS)
def test_requests_are_sent_with_upright_pictures(group):
    c = canonicalizer(group)
    first = None
    for x in turned(group):
        given = request(x)
        kept = json.dumps(given)
        made, poses = straighten_request(given, group, canonicalizer=c)
        assert json.dumps(given) == kept
        pictures = sent(made)
        first = pictures[0] if first is None else first
        assert all(np.array_equal(p, first) for p in pictures)
        assert [p is None for p in poses] == [False, True, False, True, False]
        assert np.array_equal(upright.turn(poses[0].element, pictures[0]), x)
        assert poses[0].size == first.shape[:2]
        content = made["messages"][1]["content"]
        assert content[1]["image_url"]["detail"] == "high"
        assert content[2] == given["messages"][1]["content"][2]
        assert content[5]["content"][0]["source"]["media_type"] == "image/png"
        if bool(poses[0].element.is_identity()):
            assert json.dumps(made) == kept


def test_clients_are_called_with_upright_pictures_and_answers_come_back():
    seen = []

    def create(*, model, messages):
        """Answer."""
        seen.append({"model": model, "messages": messages})
        y, x = np.unravel_index(sent(seen[-1])[0].sum(-1).argmax(), sent(seen[-1])[0].shape[:2])
        return json.dumps({"point_2d": [x + 0.5, y + 0.5]})

    ask = adapt_chat(create, "D4", canonicalizer=canonicalizer("D4"))
    assert ask.__doc__ == "Answer."
    for x in turned("D4"):
        answer, poses = ask.run(**request(x))
        found = poses[0].restore({"point_2d": "points"}, json.loads(answer))["point_2d"]
        assert tuple(int(v) for v in found) == np.unravel_index(x.sum(-1).argmax(), x.shape[:2])[::-1]
        assert ask(**request(x)) == answer


def test_addresses_are_fetched_only_by_the_users_function():
    fetched = []

    def fetch(address):
        fetched.append(address)
        return base64.b64decode(encoded(picture()))

    quarter = upright.turn(upright.Cyclic(4).elements()[1], picture())
    c = canonicalizer("C4")
    made, poses = straighten_request(request(quarter), canonicalizer=c, fetch=fetch)
    assert fetched == ["https://example.org/a.png"]
    url = made["messages"][1]["content"][2]["image_url"]["url"]
    assert np.array_equal(
        np.array(Pillow.open(io.BytesIO(base64.b64decode(url.rpartition(",")[2])))), sent(made)[0]
    )
    assert poses[1] is not None
    with pytest.raises(TypeError, match="fetch must return bytes, got str"):
        straighten_request(request(quarter), canonicalizer=c, fetch=str)
    source = {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}
    made, _ = straighten_request([source], canonicalizer=c, fetch=fetch)
    assert made[0]["source"]["type"] == "base64"
    assert straighten_request([source], canonicalizer=c) == ([source], [None])


def test_jpeg_and_animations_in_requests():
    class Quarter(upright.Canonicalizer):
        def forward(self, x):
            return upright.Pose(self.group.element([1] * len(x)))

    def part(data, kind):
        return {"type": "image", "source": {"type": "base64", "media_type": f"image/{kind}", "data": data}}

    jpeg = part(encoded(picture(), "JPEG"), "jpeg")
    kinds = []
    for quality in (95, None):
        made, _ = straighten_request([jpeg], canonicalizer=Quarter("C4"), quality=quality)
        kinds.append(made[0]["source"]["media_type"])
        opened = Pillow.open(io.BytesIO(base64.b64decode(made[0]["source"]["data"])))
        assert f"image/{opened.format.lower()}" == kinds[-1]
        assert opened.size == (30, 40)
    assert kinds == ["image/jpeg", "image/png"]
    stream = io.BytesIO()
    frames = [Pillow.fromarray(picture(seed=i)) for i in range(2)]
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    gif = part(base64.b64encode(stream.getvalue()).decode(), "gif")
    assert straighten_request([gif], canonicalizer=Quarter("C4")) == ([gif], [None])
    with pytest.raises(ValueError, match="picture 0 of the request must hold a picture file"):
        straighten_request([part("aGVsbG8=", "png")], canonicalizer=Quarter("C4"))
