"""Encoded pictures move as they are seen; what surrounds the pixels goes along, or says what is so now."""

import io
import itertools
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps
from PIL.PngImagePlugin import PngInfo

import upright
from upright.streaming.encoded import AS_STORED, Turn, UnturnableError, compose, moved, turned
from upright.streaming.metadata import (
    EXIF,
    MetadataError,
    oriented_jpeg,
    oriented_tiff,
    settled_tiff,
    thumbnail_of,
)

ORIENTATION, MODEL, EXIF_IFD, WIDTH, HEIGHT = 0x0112, 0x0110, 0x8769, 0xA002, 0xA003


def picture(width=48, height=32):
    rng = np.random.default_rng(0)
    colours = rng.random((height // 8, width // 8, 3))
    return Image.fromarray((np.kron(colours, np.ones((8, 8, 1))) * 255).astype(np.uint8))


def encoded(form, image=None, **settings):
    file = io.BytesIO()
    (image or picture()).save(file, form, **settings)
    return file.getvalue()


def opened(data):
    return Image.open(io.BytesIO(data))


def seen(data):
    image = opened(data)
    image.load()
    return ImageOps.exif_transpose(image)


def exif(orientation=None, sides=None):
    tags = Image.Exif()
    tags[MODEL] = "camera"
    if orientation is not None:
        tags[ORIENTATION] = orientation
    if sides:
        tags.get_ifd(EXIF_IFD).update({WIDTH: sides[0], HEIGHT: sides[1]})
    return tags


def with_thumbnail(block, thumbnail):
    """Append a second directory with a thumbnail to a TIFF block, by hand."""
    order = "<" if block[:2] == b"II" else ">"
    (first,) = struct.unpack_from(f"{order}I", block, 4)
    (count,) = struct.unpack_from(f"{order}H", block, first)
    data = bytearray(block + b"\0" * (len(block) % 2))
    struct.pack_into(f"{order}I", data, first + 2 + 12 * count, len(data))
    at = len(data) + 2 + 3 * 12 + 4
    entries = [(0x0112, 3, 6 << 16 if order == ">" else 6), (0x0201, 4, at), (0x0202, 4, len(thumbnail))]
    data += struct.pack(f"{order}H", 3)
    for tag, kind, number in entries:
        data += struct.pack(f"{order}HHII", tag, kind, 1, number)
    return bytes(data + struct.pack(f"{order}I", 0) + thumbnail)


def test_the_numbers_are_those_of_the_group():
    group = upright.Dihedral(4)
    for g, h in itertools.product(range(8), range(8)):
        assert compose(g, h) == int((group.element(g) @ group.element(h)).value)
    x = np.arange(24).reshape(4, 6).astype(np.uint8)
    for g in range(8):
        expected = upright.turn(group.element(g), x)
        assert np.array_equal(np.array(moved(Image.fromarray(x), g)), expected)
    for orientation, number in AS_STORED.items():
        stored = opened(encoded("PNG", exif=exif(orientation)))
        assert np.array_equal(np.array(ImageOps.exif_transpose(stored)), np.array(moved(picture(), number)))


FORMATS = {
    "jpeg 4:4:4": ("JPEG", {"quality": 95, "subsampling": 0}, 0),
    "jpeg progressive": ("JPEG", {"quality": 80, "subsampling": 0, "progressive": True}, 2),
    "jpeg 4:2:2": ("JPEG", {"quality": 95, "subsampling": 1}, 30),
    "jpeg 4:2:0": ("JPEG", {"quality": 95}, 40),
    "png": ("PNG", {}, 0),
    "webp lossless": ("WEBP", {"lossless": True}, 0),
    "webp": ("WEBP", {"quality": 95}, 60),
    "tiff": ("TIFF", {}, 0),
    "tiff lzw": ("TIFF", {"compression": "tiff_lzw"}, 0),
    "bmp": ("BMP", {}, 0),
    "gif": ("GIF", {}, 0),
    "ppm": ("PPM", {}, 0),
}
EXACT = {0: ("turned", "recoded")}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("by_tag", [False, True])
def test_every_orientation_and_every_turn(name, by_tag):
    form, settings, tolerance = FORMATS[name]
    has_exif = form in ("JPEG", "PNG", "WEBP", "TIFF")
    for orientation in range(1, 9) if has_exif else (1,):
        tags = {"tiffinfo": {ORIENTATION: orientation}} if form == "TIFF" else {"exif": exif(orientation)}
        data = encoded(form, **settings, **(tags if has_exif else {}))
        for move in range(8):
            new, action = turned(data, Turn(move), exif=by_tag)
            expected = np.array(moved(seen(data), move).convert("RGB")).astype(int)
            got = np.array(seen(new).convert("RGB")).astype(int)
            assert got.shape == expected.shape
            tagged = by_tag and form in ("JPEG", "TIFF")
            assert np.abs(got - expected).max() <= (0 if tagged else tolerance)
            if move == 0:
                assert (action, new) == ("copied", data)
            elif tagged:
                assert action == "tagged"
            else:
                lossless = form not in ("JPEG", "WEBP") or "lossless" in settings
                assert action == ("turned" if lossless else "recoded")
                assert opened(new).getexif().get(ORIENTATION, 1) == 1
            assert opened(new).format == form
            if form == "JPEG":
                assert opened(new).getexif()[MODEL] == "camera"


def test_a_turned_jpeg_keeps_its_tables():
    """Transposed with the picture, so that blocks that were quantized once stay as they are."""
    data = encoded("JPEG", quality=71)
    new, _ = turned(data, Turn(1))
    for old, table in zip(opened(data).quantization.values(), opened(new).quantization.values(), strict=True):
        assert np.array_equal(np.reshape(table, (8, 8)), np.reshape(old, (8, 8)).T)
    assert opened(turned(data, Turn(1), quality=10)[0]).quantization[0][0] > 50
    grey = encoded("JPEG", picture().convert("L"), quality=80)
    assert opened(turned(grey, Turn(3))[0]).mode == "L"
    cmyk = encoded("JPEG", picture().convert("CMYK"), quality=95)
    moved_back = np.array(opened(turned(cmyk, Turn(2))[0]).convert("RGB").rotate(180)).astype(int)
    assert np.abs(moved_back - np.array(opened(cmyk).convert("RGB"))).max() < 20


def test_noise_of_the_best_quality():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (333, 257, 3), np.uint8))
    assert seen(turned(encoded("JPEG", noise, quality=100, subsampling=0), Turn(1))[0]).size == (333, 257)
    data = encoded("JPEG", noise, quality=94, subsampling=2, progressive=True)
    assert opened(data).info["progressive"]
    assert seen(turned(data, Turn(1))[0]).size == (333, 257)


def all_metadata(orientation=6):
    """Return a JPEG file with everything around its pixels, and what that is."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    small = encoded("JPEG", picture(16, 8), quality=90)
    block = exif(orientation, (48, 32)).tobytes()
    block = EXIF + with_thumbnail(block.removeprefix(EXIF), small)
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6" dc:title="t"/></x:xmpmeta>'
    data = encoded(
        "JPEG", quality=90, exif=block, icc_profile=profile, comment=b"hello", xmp=xmp, dpi=(72, 144)
    )
    iptc = b"Photoshop 3.0\0" + b"8BIM\4\4\0\0" + struct.pack(">I", 4) + b"iptc"
    iptc = b"\xff\xed" + struct.pack(">H", 2 + len(iptc)) + iptc
    return data[:2] + data[2:20] + iptc + data[20:], profile, small


@pytest.mark.parametrize("by_tag", [False, True])
def test_what_surrounds_the_pixels_stays(by_tag):
    data, profile, small = all_metadata()
    new, action = turned(data, Turn(1), exif=by_tag)
    before, after = opened(data), opened(new)
    assert after.info["icc_profile"] == profile
    assert after.info["comment"] == b"hello"
    assert b"Photoshop 3.0" in new
    tags = after.getexif()
    assert tags[MODEL] == "camera"
    block = after.info["exif"].removeprefix(EXIF)
    if by_tag:  # 6 is three quarter turns; one more and it stands as it is stored
        assert action == "tagged"
        assert tags[ORIENTATION] == 1
        assert thumbnail_of(block) == small
        assert tags.get_ifd(EXIF_IFD)[WIDTH] == 48
        assert b'tiff:Orientation="1"' in after.info["xmp"]
        assert np.array_equal(np.array(before), np.array(after))
        changed = [i for i, (a, b) in enumerate(zip(data, new, strict=True)) if a != b]
        assert len(changed) == 3  # the picture's, the thumbnail's, the XMP's: nothing else
        return
    assert tags[ORIENTATION] == 1
    assert b'tiff:Orientation="1"' in after.info["xmp"]
    assert b'dc:title="t"' in after.info["xmp"]
    assert after.info["dpi"] == (72, 144)  # 6, then one turn: the axes are where they were
    assert seen(new).size == (48, 32)
    other, _ = turned(data, Turn(0 + 2))
    assert seen(other).size == (32, 48)
    sides = opened(other).getexif().get_ifd(EXIF_IFD)
    assert (sides[WIDTH], sides[HEIGHT]) == (32, 48)
    assert opened(other).info["dpi"] == (144, 72)
    thumbnail = opened(thumbnail_of(opened(other).info["exif"].removeprefix(EXIF)))
    expected = np.array(moved(opened(small), compose(2, AS_STORED[6]))).astype(int)
    assert np.abs(np.array(thumbnail).astype(int) - expected).max() < 40


def test_an_orientation_where_there_was_none():
    for settings in ({}, {"exif": exif()}):
        data = encoded("JPEG", quality=90, **settings)
        new, action = turned(data, Turn(1), exif=True)
        assert action == "tagged"
        assert opened(new).getexif()[ORIENTATION] == 8
        assert np.array_equal(np.array(seen(new)), np.array(moved(opened(data), 1)))
        assert opened(new).getexif().get(MODEL) == ("camera" if settings else None)
        assert turned(new, Turn(3), exif=True)[0] == oriented_jpeg(new, 1)  # and back


def test_other_formats_keep_theirs():
    texts = PngInfo()
    texts.add_text("Title", "a photo")
    texts.add_itxt("Author", "Änne", "de", "Autorin")
    data = encoded("PNG", pnginfo=texts, dpi=(72, 144), exif=exif(6))
    new = opened(turned(data, Turn(2))[0])
    new.load()
    assert (new.text["Title"], new.text["Author"], new.text["Author"].lang) == ("a photo", "Änne", "de")
    assert [round(x) for x in new.info["dpi"]] == [144, 72]
    assert new.getexif()[MODEL] == "camera"
    for mode in ("1", "L", "P", "LA", "RGBA", "I;16"):
        pixels = picture().convert("L" if mode == "I;16" else mode)
        source = Image.fromarray(np.array(pixels).astype(np.uint16) * 257) if mode == "I;16" else pixels
        data = encoded("PNG", source)
        after = opened(turned(data, Turn(1))[0])
        assert after.mode == opened(data).mode
        assert np.array_equal(np.array(after), np.array(moved(opened(data), 1)))
    palette = picture().quantize(7)
    palette.info["transparency"] = 3
    after = opened(turned(encoded("PNG", palette), Turn(1))[0])
    assert after.info["transparency"] == 3


def test_what_would_lose_something_is_refused():
    frames = [picture(), picture().rotate(180)]
    for form in ("GIF", "TIFF", "WEBP", "PNG"):
        data = encoded(form, frames[0], save_all=True, append_images=frames[1:])
        with pytest.raises(UnturnableError, match="holds 2 pictures; only single ones"):
            turned(data, Turn(1))
        assert turned(data, Turn(0))[0] == data
    pixels = zlib.compress(b"".join(b"\0" + bytes(6 * 4) for _ in range(3)))
    chunks = {b"IHDR": struct.pack(">IIBBBBB", 4, 3, 16, 2, 0, 0, 0), b"IDAT": pixels, b"IEND": b""}
    deep = b"\x89PNG\r\n\x1a\n"
    for name, content in chunks.items():
        deep += struct.pack(">I", len(content)) + name + content
        deep += struct.pack(">I", zlib.crc32(name + content))
    with pytest.raises(UnturnableError, match="16 bits a channel"):
        turned(deep, Turn(1))
    with pytest.raises(UnturnableError, match="of the format ICO cannot be written"):
        turned(encoded("ICO"), Turn(1))


def test_any_angle():
    data = encoded("JPEG", quality=95, exif=exif(3))
    new, action = turned(data, Turn(-1, 30.0), exif=True)
    assert action == "recoded"
    expected = seen(data).rotate(30.0, resample=Image.Resampling.BICUBIC, expand=True)
    assert seen(new).size == expected.size
    assert np.abs(np.array(seen(new)).astype(int) - np.array(expected).astype(int)).mean() < 6
    mirrored, _ = turned(encoded("PNG"), Turn(-1, 30.0, True))
    flipped = picture().transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    assert np.array_equal(
        np.array(opened(mirrored)), np.array(flipped.rotate(30.0, Image.Resampling.BICUBIC, expand=True))
    )


def test_a_motion_picture_file_is_a_jpeg():
    data = encoded("MPO", picture(), save_all=True, append_images=[picture().rotate(180)])
    assert opened(data).format == "MPO"
    new, action = turned(data, Turn(1))
    assert (opened(new).format, action) == ("JPEG", "recoded")
    assert np.array_equal(np.array(seen(new)).shape, (48, 32, 3))
    both, action = turned(data, Turn(1), exif=True)
    assert action == "tagged"
    assert opened(both).n_frames == 2 or b"MPF" in both


@pytest.mark.filterwarnings("ignore")
def test_damaged_metadata_harm_nobody():
    """Whatever is broken in them: a picture comes out that lies as it should, or an error of ours."""
    data, *_ = all_metadata()
    expected = np.array(moved(seen(data), 1)).shape
    rng = random.Random(0)
    start, end = data.index(EXIF) + 6, data.index(b"Photoshop")
    start, end = min(start, end), max(start, end) + 600
    good = 0
    for _ in range(150):
        broken = bytearray(data)
        for _ in range(rng.choice((1, 3, 30))):
            broken[rng.randrange(start, end)] = rng.randrange(256)
        for by_tag in (False, True):
            try:
                new, _ = turned(bytes(broken), Turn(1), exif=by_tag)
                good += seen(new).size[::-1] == expected[:2]
            except (OSError, ValueError, SyntaxError, EOFError, TypeError):
                continue
    assert good > 100


@pytest.mark.parametrize(
    "block", [b"", b"II*\0", b"MM\0*\0\0\0\x08\xff\xff", b"II*\0\xff\xff\xff\xff", b"II+\0" + 8 * b"\0"]
)
def test_damaged_blocks_are_told(block):
    with pytest.raises(MetadataError):
        oriented_tiff(block, 1)
    with pytest.raises(MetadataError):
        settled_tiff(block, False, lambda data: data)


def test_damaged_segments_are_told():
    data = encoded("JPEG")
    for broken in (b"", data[:2], data[:8], data[:4] + b"\0\0" + data[6:], data[:2] + b"\0" + data[3:]):
        with pytest.raises(MetadataError):
            oriented_jpeg(broken, 1)
