"""Encoded pictures moved by an element: metadata kept, and as little lost as the format allows."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import ExifTags, Image, ImageOps
from PIL.JpegImagePlugin import get_sampling
from PIL.PngImagePlugin import PngInfo, iTXt

from .metadata import EXIF, MetadataError, oriented_jpeg, oriented_tiff, settled_tiff, with_metadata_of

Action = Literal["copied", "tagged", "turned", "recoded"]
"""What became of a picture: its bytes as they were; its EXIF orientation rewritten; its pixels moved without
loss; its pixels moved and compressed again."""

AS_STORED = {1: 0, 2: 4, 3: 2, 4: 6, 5: 5, 6: 3, 7: 7, 8: 1}
"""The number in D4 (``r + 4 f``) of the element by which a picture of an EXIF orientation is to be moved."""
_TAG = {number: orientation for orientation, number in AS_STORED.items()}
_QUALITY = 90
"""Of lossy formats whose files do not say theirs."""


class UnturnableError(ValueError):
    """A picture that this library cannot write again without losing some of it; it is left out."""


@dataclass(frozen=True)
class Turn:
    """How a picture, as it is seen, is moved.

    Attributes:
        move: Number in D4 (``r + 4 f``: flipped left-right if f, then turned by r quarter turns
            counter-clockwise); -1: by an angle.
        degrees: Angle counter-clockwise, for ``move`` -1.
        reflected: Whether it is flipped left-right first, for ``move`` -1.
    """

    move: int
    degrees: float = 0.0
    reflected: bool = False

    def pixels(self, picture: Any) -> Any:
        """Move a PIL picture: exactly if it can be, else bicubically, on a canvas that holds all of it."""
        if self.move >= 0:
            return moved(picture, self.move)
        keeps = picture.mode in ("L", "RGB", "RGBA", "F")
        flipped = moved(picture if keeps else picture.convert("RGB"), 4 * self.reflected)
        return flipped.rotate(self.degrees, resample=Image.Resampling.BICUBIC, expand=True)


def moved(picture: Any, move: int) -> Any:
    """Move a PIL picture by an element of D4, exactly."""
    steps = (None, Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)
    step = steps[move % 4]
    flipped = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if move >= 4 else picture
    return flipped if step is None else flipped.transpose(step)


def uprighted(picture: Any, degrees: float, reflected: bool) -> Any:
    """Turn a PIL picture back: exactly for quarter turns and flips, else bicubic on a larger canvas.

    Args:
        picture: Flipped left-right if ``reflected``, then turned counter-clockwise by ``degrees``.
        degrees: The angle.
        reflected: Whether it is mirrored.
    """
    quarter, rest = divmod(degrees, 90)
    if not reflected:
        return Turn(-1 if rest else int(-quarter) % 4, -degrees).pixels(picture)
    return Turn(-1 if rest else int(quarter) % 4 + 4, degrees, True).pixels(picture)


def compose(g: int, h: int) -> int:
    """Return the number in D4 of ``g @ h``: first h, then g."""
    turns = g % 4 + (-1 if g >= 4 else 1) * (h % 4)
    return turns % 4 + 4 * ((g >= 4) != (h >= 4))


def turned(
    data: bytes, turn: Turn, *, exif: bool = False, quality: int | None = None
) -> tuple[bytes, Action]:
    """Move an encoded picture as it is seen, its EXIF orientation applied.

    Args:
        data: The file.
        turn: The movement; one that moves nothing gives the same bytes.
        exif: Rewrite the EXIF orientation where the format has one (JPEG, TIFF) and pixels need not be
            resampled: no pixel changes.
        quality: Of lossy formats, in 1…100. Default: the quantization tables of the JPEG file, and 90 for
            others, which do not say.

    Returns:
        The file in the same format, and what became of it. Sizes, palettes, transparency, ICC profiles, XMP
        and EXIF data are kept; the latter then say that the picture is upright, in the sides that it has now,
        and their thumbnail moves along.

    Raises:
        UnturnableError: If the format cannot be written, the file holds several pictures, or 16 bits a
            channel would be lost.
    """
    if turn.move == 0:
        return data, "copied"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd metadata does not matter here
        with Image.open(io.BytesIO(data)) as opened:
            form = "JPEG" if opened.format == "MPO" else opened.format or ""
            stored = AS_STORED.get(opened.getexif().get(ExifTags.Base.Orientation, 1), 0)
            if exif and turn.move >= 0 and form in ("JPEG", "TIFF"):
                tagged = _tagged(data, form, _TAG[compose(turn.move, stored)])
                if tagged is not None:
                    return tagged, "tagged"
            _check(opened, form, data)
            opened.load()
            picture = turn.pixels(ImageOps.exif_transpose(opened))
            whole = Turn(compose(turn.move, stored)) if turn.move >= 0 else turn
            return _WRITERS[form](opened, picture, data, whole, quality)


def _tagged(data: bytes, form: str, value: int) -> bytes | None:
    """Return the file with another orientation, or None where its metadata do not allow it."""
    try:
        new = (oriented_jpeg if form == "JPEG" else oriented_tiff)(data, value)
        with Image.open(io.BytesIO(new)) as opened:
            good = opened.getexif().get(ExifTags.Base.Orientation, 1) == value
    except (MetadataError, OSError, SyntaxError, ValueError):
        return None
    return new if good else None


def _check(opened: Any, form: str, data: bytes) -> None:
    if form not in _WRITERS:
        raise UnturnableError(f"pictures of the format {form or 'unknown'} cannot be written")
    frames = 1 if form == "JPEG" else getattr(opened, "n_frames", 1)
    if frames > 1:
        raise UnturnableError(f"the file holds {frames} pictures; only single ones can be turned")
    if form == "PNG" and data[24] == 16 and not opened.mode.startswith("I"):
        raise UnturnableError("turning it would lose its 16 bits a channel")


def _jpeg(opened: Any, picture: Any, data: bytes, turn: Turn, quality: int | None) -> tuple[bytes, Action]:
    swapped = turn.move % 2 == 1
    density = opened.info.get("dpi")
    settings: dict[str, Any] = {"progressive": bool(opened.info.get("progressive"))}
    if density is not None:
        settings["dpi"] = density[::-1] if swapped else density
    if quality is not None:
        settings["quality"] = quality
    elif opened.mode == picture.mode:
        settings |= {
            "qtables": _tables(opened.quantization, swapped),
            "subsampling": _sampling(opened, swapped),
        }
    else:
        settings["quality"] = _QUALITY
    if "icc_profile" in picture.info:
        picture.info.pop("icc_profile")  # it comes with the other segments
    picture.info.pop("comment", None)
    try:
        new = _saved(picture, "JPEG", **settings)
    except OSError:  # Pillow gives the progressive coder too little room for noise
        new = _saved(picture, "JPEG", **{**settings, "progressive": False})
    return with_metadata_of(data, new, lambda block: _settled(block, turn)), "recoded"


def _tables(tables: dict[int, list[int]], swapped: bool) -> list[list[int]]:
    """Return the quantization tables, turned with the picture: what was quantized once loses little."""
    kept = [np.array(tables[i]).reshape(8, 8) for i in sorted(tables)]
    return [(t.T if swapped else t).ravel().tolist() for t in kept]


def _sampling(opened: Any, swapped: bool) -> int:
    """Return Pillow's number of the subsampling; full where the turned one has none, so that none is lost."""
    kept = int(get_sampling(opened))
    return 0 if kept < 0 or (kept == 1 and swapped) else kept


def _settled(block: bytes, turn: Turn) -> bytes:
    def smaller(thumbnail: bytes) -> bytes:
        with Image.open(io.BytesIO(thumbnail)) as opened:
            return _saved(turn.pixels(opened), "JPEG", quality=85)

    return settled_tiff(block, turn.move % 2 == 1, smaller)


def _png(opened: Any, picture: Any, data: bytes, turn: Turn, quality: int | None) -> tuple[bytes, Action]:
    texts = PngInfo()
    for key, text in getattr(opened, "text", {}).items():
        if key == "XML:com.adobe.xmp":
            texts.add_itxt(key, _upright_xmp(text))
        elif isinstance(text, iTXt):
            texts.add_itxt(key, text, text.lang or "", text.tkey or "")
        else:
            texts.add_text(key, text)
    settings = {k: opened.info[k] for k in ("dpi", "icc_profile") if k in opened.info}
    if "dpi" in settings and turn.move % 2 == 1:
        settings["dpi"] = settings["dpi"][::-1]
    resampled: Action = "turned" if turn.move >= 0 else "recoded"
    return _saved(picture, "PNG", pnginfo=texts, **settings, **_exif(opened, turn)), resampled


def _webp(opened: Any, picture: Any, data: bytes, turn: Turn, quality: int | None) -> tuple[bytes, Action]:
    lossless = b"VP8L" in (data[12:16], *_chunks(data))
    settings: dict[str, Any] = {"lossless": lossless, "exact": lossless}
    if not lossless:
        settings["quality"] = quality or _QUALITY
    settings |= {k: opened.info[k] for k in ("icc_profile", "xmp") if k in opened.info}
    if isinstance(settings.get("xmp"), bytes):
        settings["xmp"] = _upright_xmp(settings["xmp"].decode("utf-8", "replace")).encode()
    exactly = lossless and turn.move >= 0
    new = _saved(picture, "WEBP", **settings, **_exif(opened, turn))
    return new, "turned" if exactly else "recoded"


def _chunks(data: bytes) -> list[bytes]:
    names, at = [], 12
    while at + 8 <= len(data):
        names.append(data[at : at + 4])
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + length + length % 2
    return names


def _tiff(opened: Any, picture: Any, data: bytes, turn: Turn, quality: int | None) -> tuple[bytes, Action]:
    how = opened.info.get("compression", "raw")
    lossy = how in ("jpeg", "tiff_jpeg", "webp")
    settings: dict[str, Any] = {"quality": quality or _QUALITY} if lossy else {}
    settings |= {k: opened.info[k] for k in ("dpi", "icc_profile") if k in opened.info}
    new = _saved(picture, "TIFF", compression=None if how == "raw" else how, **settings)
    return new, "recoded" if lossy or turn.move < 0 else "turned"


def _plain(form: str, lossy: bool = False) -> Any:
    def write(
        opened: Any, picture: Any, data: bytes, turn: Turn, quality: int | None
    ) -> tuple[bytes, Action]:
        settings: dict[str, Any] = {"quality": quality or _QUALITY} if lossy else {}
        settings |= {k: opened.info[k] for k in ("icc_profile",) if k in opened.info and lossy}
        new = _saved(picture, form, **settings, **(_exif(opened, turn) if lossy else {}))
        return new, "recoded" if lossy or turn.move < 0 else "turned"

    return write


_Writer = Callable[[Any, Any, bytes, Turn, "int | None"], "tuple[bytes, Action]"]
_WRITERS: dict[str, _Writer] = {
    "JPEG": _jpeg,
    "PNG": _png,
    "WEBP": _webp,
    "TIFF": _tiff,
    "AVIF": _plain("AVIF", lossy=True),
    **{form: _plain(form) for form in ("BMP", "GIF", "PPM", "JPEG2000")},
}


def _exif(opened: Any, turn: Turn) -> dict[str, bytes]:
    """Return the EXIF data of formats other than JPEG, for a picture whose pixels were moved."""
    block = opened.info.get("exif")
    if not isinstance(block, bytes) or not block:
        return {"exif": b""}
    try:
        return {"exif": EXIF + _settled(block.removeprefix(EXIF), turn)}
    except MetadataError:
        return {"exif": b""}


def _upright_xmp(text: str) -> str:
    from .metadata import _oriented_xmp

    return _oriented_xmp(text.encode(), 1).decode()


def _saved(picture: Any, form: str, **settings: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **settings)
    return file.getvalue()
