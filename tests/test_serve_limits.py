"""The application refuses what is too much and what is no picture, and says why.

Each check of a limit was seen to fail with that limit taken out.
"""

import struct
import zlib

import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="needs the extra [serve]")
pytest.importorskip("httpx", reason="the client of Starlette's tests needs httpx")

from starlette.testclient import TestClient

from serve_toys import encoded, photo, service
from upright.serve import Limits, create_app
from upright.serve.body import file_of_form
from upright.serve.pictures import decoded
from upright.serve.refused import RefusedError

SMALL = Limits(max_bytes=200_000, max_pixels=10_000, workers=1)


@pytest.fixture(name="client", scope="module")
def _client():
    with TestClient(create_app(service(limits=SMALL))) as made:
        yield made


def ask(client, data, status=200, **query):
    response = client.post("/api/predict", params=query, content=data)
    assert response.status_code == status, response.text
    return response.json()


def refused(client, data, status, **query):
    return ask(client, data, status, **query)["error"]


def png(width, height, *chunks):
    """A PNG whose header says that it is large, in a few bytes."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", head), *chunks, (b"IDAT", zlib.compress(b"\0" * 64)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + body


def test_bombs_are_refused_before_they_are_decoded(client, monkeypatch):
    monkeypatch.setattr("upright.serve.pictures.read_picture", lambda data: pytest.fail("decoded"))
    for size in ((101, 100), (30_000, 30_000), (2**31 - 1, 2**31 - 1)):
        error = refused(client, png(*size), 413)
        assert error["code"] == "too_many_pixels"
    assert refused(client, encoded(photo(101, 100), "GIF"), 413)["code"] == "too_many_pixels"


def test_frames_that_outgrow_their_canvas_count(client):
    gif = bytearray(encoded(Image.new("P", (8, 8)), "GIF"))
    place = gif.index(b"\x2c")  # the first frame: left, top, width, height
    gif[place + 5 : place + 9] = struct.pack("<HH", 60_000, 60_000)
    assert refused(client, bytes(gif), 413)["code"] == "too_many_pixels"


def test_scans_are_counted(client):
    jpeg = encoded(photo(), "JPEG", progressive=True)
    assert jpeg.count(b"\xff\xda") > 4
    assert ask(client, jpeg)
    place = jpeg.index(b"\xff\xda")
    assert refused(client, jpeg[:place] + jpeg[place:-2] * 40, 413)["code"] == "too_many_scans"


def test_bytes_are_counted(client):
    exactly = encoded(photo())
    exactly += b"\0" * (SMALL.max_bytes - len(exactly))
    assert ask(client, exactly)
    error = refused(client, exactly + b"\0", 413)
    assert error["code"] == "too_many_bytes"
    assert "0.190735 MiB" in error["message"]
    chunks = client.post("/api/predict", content=iter([b"\0" * 50_000] * 9))  # no length is announced
    assert (chunks.status_code, chunks.headers["connection"]) == (413, "close")
    form = client.post("/api/predict", files={"picture": exactly + b"\0"})
    assert form.status_code == 413


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"", 422, "no_picture"),
        (b"hello", 415, "unknown_format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "unknown_format"),
        (encoded(photo(), "TIFF"), 415, "unknown_format"),
        (encoded(photo(), "ICO"), 415, "unknown_format"),
        (encoded(photo(), "PNG")[:-300], 422, "damaged_picture"),
        (encoded(photo(), "JPEG")[:200], 415, "unknown_format"),
        (png(10, 10), 422, "damaged_picture"),
        (b"\xff\xd8\xff\xe0" * 40, 415, "unknown_format"),
    ],
)
def test_what_is_no_picture(client, data, status, code):
    assert refused(client, data, status)["code"] == code


@pytest.mark.parametrize(
    "query",
    [
        {"degrees": "nan"}, {"degrees": "inf"}, {"degrees": 361}, {"degrees": "x"}, {"top": 0}, {"top": 21},
        {"top": "1e9"}, {"flip": "perhaps"}, {"square": 7},
    ],
)  # fmt: skip
def test_parameters_out_of_range(client, query):
    error = refused(client, encoded(photo()), 422, **query)
    assert error["code"] == "bad_parameter"
    assert error["message"].startswith(f"{next(iter(query))}: ")


@pytest.mark.parametrize(
    ("value", "body"),
    [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=", b"x"),
        ("multipart/form-data; boundary=b", b"no form at all"),
        (
            "multipart/form-data; boundary=b",
            b"--b\r\nContent-Disposition: form-data; name=text\r\n\r\nx\r\n--b--",
        ),
        ("multipart/form-data; boundary=b", b"--b\r\n\r\nx\r\n" * 50 + b"--b--"),
        ("multipart/form-data; boundary=" + "b" * 5000, b"x"),
    ],
)
def test_forms_that_are_none(client, value, body):
    response = client.post("/api/predict", content=body, headers={"Content-Type": value})
    assert response.status_code in (400, 422)
    assert response.json()["error"]["code"] in ("bad_form", "no_picture")


def test_the_first_file_of_a_form_counts():
    parts = ["name=a; filename=x\r\n\r\nfirst", "name=picture; filename=y\r\n\r\nsecond"]
    body = "".join(f"--b\r\nContent-Disposition: form-data; {part}\r\n" for part in parts) + "--b--\r\n"
    assert file_of_form("multipart/form-data; boundary=b", body.encode()) == b"first"


def test_limits_are_judged():
    for wrong in ({"workers": 0}, {"max_bytes": 2.5}, {"max_seconds": float("nan")}, {"queue": -1}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
            Limits(**wrong)
    assert Limits(queue=0).queue == 0


def test_refusals_of_decoding_name_the_limit():
    with pytest.raises(RefusedError, match=r"0\.01 megapixels, this one has 200×100"):
        decoded(encoded(photo(200, 100)), SMALL)
