"""Whatever a picture file holds: a picture, or one clear error; and a few bytes never take gigabytes."""

import io
import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from damage import attempt, bounded, damaged, odd_json
from upright.data import decode
from upright.data.decode import UnreadablePictureError, check_picture, open_picture, read_picture
from upright.evaluation.annotated import open_annotated
from upright.evaluation.annotations import _mask, read_instances, read_map
from upright.integrations.encoded import read_encoded

PIXELS = (np.random.default_rng(0).random((24, 32, 3)) * 255).astype(np.uint8)


def encoded(form, picture=None, **options):
    file = io.BytesIO()
    (picture or Image.fromarray(PIXELS)).save(file, form, **options)
    return file.getvalue()


def exif():
    made = Image.Exif()
    made[0x0112], made[0x010E] = 6, "a note"
    return made


GREY = Image.fromarray(PIXELS[..., 0])
DEEP = Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 200)
FILES = [
    encoded("JPEG", exif=exif()), encoded("PNG"), encoded("PNG", exif=exif()), encoded("GIF"), encoded("BMP"),
    encoded("TIFF"), encoded("TIFF", compression="tiff_lzw"), encoded("WEBP"), encoded("PPM"),
    encoded("PNG", Image.fromarray(PIXELS).convert("P")), encoded("PNG", DEEP),
    encoded("TIFF", Image.fromarray(PIXELS[..., 0].astype(np.float32))),
]  # fmt: skip


@bounded(400)
@given(data=damaged(*FILES))
def test_damaged_pictures_are_read_or_refused(data):
    reason = check_picture(data)
    assert reason is None or (reason and "\n" not in reason)
    picture = attempt(lambda: read_picture(data), UnreadablePictureError)
    if picture is not None:
        assert picture.mode == "RGB"
        assert picture.width * picture.height <= decode.MAX_PIXELS


@bounded(100)
@given(data=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data):
    assert check_picture(data)
    with pytest.raises(UnreadablePictureError):
        read_picture(data)


@bounded(100)
@given(data=damaged(FILES[0], FILES[1]))
def test_pictures_in_requests(data):
    attempt(lambda: read_encoded(data), ValueError, says=["picture must hold", "picture holds"])


def bomb(width, height):
    """A PNG file of a few hundred bytes that says how large it is, and holds next to nothing."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.fixture
def unlimited(monkeypatch):
    """Pillow's own limit is off, as many programs set it."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)


@pytest.fixture
def undecoded(monkeypatch):
    """Decoding would take the memory that is claimed."""

    def load(self):
        raise AssertionError("it was decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)


@pytest.mark.parametrize("size", [(2**16, 2**16), (2**31 - 1, 1), (decode.MAX_PIXELS + 1, 1)])
def test_bombs_are_refused_before_they_are_decoded(size, unlimited, undecoded):
    data = bomb(*size)
    assert len(data) < 200
    message = rf"claims {size[0]}×{size[1]} pixels, more than the 178,956,970 that are decoded"
    with pytest.raises(UnreadablePictureError, match=message):
        read_picture(data)
    with pytest.raises(ValueError, match=message):
        read_map(data, (size[1], size[0]))
    with pytest.raises(ValueError, match=f"too large: it {message}"):
        read_encoded(data)
    with pytest.raises(UnreadablePictureError, match=message):
        open_picture(data)


def test_the_limit_itself_is_decoded(unlimited, monkeypatch):
    monkeypatch.setattr(decode, "MAX_PIXELS", 24 * 32)
    assert read_picture(FILES[1]).size == (32, 24)
    with pytest.raises(UnreadablePictureError, match="claims 32×25"):
        read_picture(encoded("PNG", Image.new("RGB", (32, 25))))


@bounded(150)
@given(data=damaged(encoded("PNG", GREY), encoded("TIFF", GREY)))
def test_damaged_maps(data):
    values = attempt(lambda: read_map(data, (24, 32)), ValueError, says=["the map of a picture"])
    assert values is None or values.shape == (24, 32)


@bounded(150)
@given(data=st.data())
def test_damaged_arrays(tmp_path, data):
    file = io.BytesIO()
    np.save(file, np.arange(24 * 32).reshape(24, 32))
    (tmp_path / "map.npy").write_bytes(data.draw(damaged(file.getvalue())))
    values = attempt(lambda: read_map(tmp_path / "map.npy", (24, 32)), ValueError, says=["map.npy"])
    assert values is None or values.shape == (24, 32)


def test_things_with_huge_numbers_take_no_memory(tmp_path):
    numbers = np.zeros((24, 32), np.int64)
    numbers[:4], numbers[8:10, :5] = 2**62, 7
    np.save(tmp_path / "map.npy", numbers)
    found = read_instances(tmp_path / "map.npy", (24, 32))
    assert found["boxes"].tolist() == [[0, 8, 5, 10], [0, 0, 32, 4]]
    assert found["masks"].shape == (2, 24, 32)


THING = {"id": 1, "image_id": 1, "bbox": [1, 2, 3, 4], "category_id": 1, "area": 4, "iscrowd": 0}
COCO = {
    "images": [{"id": 1, "file_name": "a.png", "height": 24, "width": 32}],
    "annotations": [
        {**THING, "segmentation": [[1, 1, 5, 1, 5, 5]], "keypoints": [1, 2, 2]},
        {
            **THING,
            "id": 2,
            "keypoints": [3, 2, 2],
            "segmentation": {"size": [24, 32], "counts": [100, 20, 648]},
        },
    ],
}


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    pytest.importorskip("faster_coco_eval")
    folder = tmp_path_factory.mktemp("coco")
    (folder / "a.png").write_bytes(FILES[1])
    return folder


def read_all(folder, text):
    (folder / "a.json").write_text(text)
    for task in ("detection", "keypoints", "instances"):
        said = ["a.json", "a.png", "none of the"]
        found = attempt(lambda: targets(task, folder), ValueError, FileNotFoundError, says=said)  # noqa: B023
        for one in found or ():
            assert bool(one["boxes"].isfinite().all())
            assert one["boxes"].shape == (len(one["labels"]), 4)


def targets(task, folder):
    data = open_annotated(task, folder)
    return [data[i][1] for i in range(len(data))]


def test_what_is_damaged_here_can_be_read(coco):
    (coco / "a.json").write_text(json.dumps(COCO))
    assert open_annotated("instances", coco)[0][1]["masks"].sum((1, 2)).tolist() == [6, 20]


@bounded(150)
@given(tree=odd_json(COCO))
def test_odd_annotations(coco, tree):
    read_all(coco, json.dumps(tree))


@bounded(60)
@given(data=damaged(json.dumps(COCO).encode()))
def test_damaged_annotations(coco, data):
    read_all(coco, data.decode("latin-1"))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_run_lengths_packed_as_text(share):
    coder = pytest.importorskip("faster_coco_eval.core").mask
    mask = np.random.default_rng(0).random((24, 32)) < share
    packed = coder.encode(np.asfortranarray(mask.astype(np.uint8)))
    for counts in (packed["counts"], bytes(packed["counts"]).decode()):
        assert np.array_equal(_mask({"size": [24, 32], "counts": counts}, (24, 32)).numpy(), mask)
    with pytest.raises(ValueError, match="run lengths must be of 24×33"):
        _mask(packed, (24, 33))
    with pytest.raises(ValueError, match="whole numbers that fill 24×32"):
        _mask({"size": [24, 32], "counts": [2**40]}, (24, 32))
    with pytest.raises((ValueError, IndexError)):
        _mask({"size": [24, 32], "counts": "o" * 10_000}, (24, 32))


def test_deeply_nested_annotations(coco):
    read_all(coco, "[" * 100_000)
    read_all(coco, '{"images": ' * 50_000)


def test_programs_devices_and_pipes_are_not_read(tmp_path):
    data = encoded("EPS")
    with pytest.raises(UnreadablePictureError, match="PostScript: a program, which is not run"):
        read_picture(data)
    assert check_picture(data) == "it is PostScript: a program, which is not run"
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "a.png")
        for path in (tmp_path / "a.png", Path("/dev/zero"), tmp_path):
            assert check_picture(path) == "it is no file, but a folder, a device or a pipe"
