"""Whatever is sent, the endpoint answers with JSON in the form that it describes, and goes on answering."""

import json
from urllib.parse import quote

import pytest

pytest.importorskip("fastapi", reason="needs the extra [serve]")
pytest.importorskip("httpx", reason="the client of Starlette's tests needs httpx")
pytest.importorskip("hypothesis", reason="inputs are made up by hypothesis")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from starlette.testclient import TestClient

from serve_toys import encoded, photo, service
from upright.serve import Limits, create_app
from upright.serve.schema import Answer, Failure

LIMITS = Limits(max_bytes=40_000, max_pixels=5_000, workers=1, max_seconds=10)
SETTINGS = settings(
    max_examples=70,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
FILES = [encoded(photo(), form) for form in ("JPEG", "PNG", "GIF", "BMP", "WEBP")]
FILES.append(encoded(photo(), "JPEG", progressive=True))
FORMS = [
    b"--b\r\nContent-Disposition: form-data; name=picture; filename=a\r\n\r\n" + FILES[1] + b"\r\n--b--\r\n"
]
KNOWN = {200, 400, 408, 413, 415, 422}


@pytest.fixture(name="client", scope="module")
def _client():
    with TestClient(create_app(service(limits=LIMITS))) as made:
        yield made


def check(response):
    """An answer is what the schema says, or a failure that names no insides."""
    assert response.status_code in KNOWN, response.text
    assert response.headers["x-content-type-options"] == "nosniff"
    value = json.loads(response.text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    if response.status_code == 200:
        TypeAdapter(Answer).validate_python(value)
    else:
        error = TypeAdapter(Failure).validate_python(value).error
        assert error.message
        assert "Traceback" not in error.message
        assert "site-packages" not in error.message


@st.composite
def damaged(draw, files):
    """A picture file with some bytes changed, cut, doubled or put in."""
    data = bytearray(draw(st.sampled_from(files)))
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, max(0, len(data) - 1)) | st.integers(0, min(64, max(0, len(data) - 1))))
        match draw(st.sampled_from(["set", "cut", "double", "insert"])):
            case "set":
                data[place : place + 4] = draw(st.binary(min_size=1, max_size=4))
            case "cut":
                del data[place : place + draw(st.integers(1, 400))]
            case "double":
                data[place:place] = data[place : place + draw(st.integers(1, 2000))]
            case "insert":
                data[place:place] = draw(st.binary(max_size=32))
    return bytes(data)


@SETTINGS
@given(data=damaged(FILES) | st.binary(max_size=200))
def test_bodies(client, data):
    check(client.post("/api/predict", content=data))


@SETTINGS
@given(
    data=damaged(FORMS) | st.binary(max_size=200),
    kind=st.sampled_from(["multipart/form-data; boundary=b", "multipart/form-data"])
    | st.text("abc=;/ \"'-", max_size=30).map(lambda text: "multipart/form-data" + text),
)  # fmt: skip
def test_forms(client, data, kind):
    check(client.post("/api/predict", content=data, headers={"Content-Type": kind}))


ODD = st.text(max_size=12) | st.integers().map(str) | st.floats().map(str) | st.booleans().map(str)
NAMES = st.sampled_from(["degrees", "flip", "square", "top", "bare", "canonical", "picture", ""])


@SETTINGS
@given(query=st.lists(st.tuples(NAMES, ODD), max_size=6))
def test_parameters(client, query):
    check(client.post("/api/predict", params=query, content=FILES[1]))


STEPS = ["..", ".", "%2e%2e", "static", "api", "examples", "app.py", "etc", "passwd", "\\", "%00"]


@settings(SETTINGS, max_examples=40)
@given(
    path=st.text(st.characters(codec="utf-8"), max_size=30)
    | st.lists(st.sampled_from(STEPS), max_size=6).map("/".join)
)
def test_paths(client, path):
    for asked in (quote(path), quote(path, safe="/%.\\")):
        for folder in ("", "static/", "api/examples/"):
            response = client.get(f"/{folder}{asked}")
            assert response.status_code in (200, 400, 404, 405), asked
            if response.status_code == 200:
                kinds = ("text/html", "text/javascript", "text/css", "image/", "application/json")
                assert response.headers["content-type"].startswith(kinds)
                assert b"import annotations" not in response.content
                assert b"root:" not in response.content


def test_it_still_answers(client):
    assert client.post("/api/predict", content=FILES[1]).json()["adapted"]["top"][0]["label"] == "sky"
