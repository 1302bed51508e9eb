"""From the bytes of an image file to an RGB picture that stands as its maker meant it to."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

MAX_PIXELS = 178_956_970
"""Pictures of more pixels are not decoded: a file of a few bytes may claim any number of them."""
_TAIL = 4096


class UnreadablePictureError(ValueError):
    """A picture that cannot be decoded; loaders skip and report it."""


def read_picture(source: str | Path | bytes, least: int | None = None) -> Image.Image:
    """Decode a picture: EXIF orientation applied, first frame, transparency over white, 8 bits, RGB.

    Args:
        source: A path, or the bytes of a file.
        least: JPEG files may be decoded at 1/2, 1/4 or 1/8 of their sides, where that is faster and no side
            becomes shorter than so many pixels.

    Raises:
        UnreadablePictureError: If it is no image, or a damaged one.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd metadata does not matter here
            with open_picture(source) as opened:
                if least is not None:
                    opened.draft(None, (least, least))
                opened.load()
                return as_rgb(ImageOps.exif_transpose(opened))
    except UnreadablePictureError:
        raise
    except Exception as error:  # decoders of damaged files raise any kind
        raise UnreadablePictureError(_reason(error)) from error


def open_picture(source: str | Path | bytes) -> Image.Image:
    """Open a picture without decoding it, whatever limit of pixels Pillow itself is set to.

    Raises:
        UnreadablePictureError: If it has more than `MAX_PIXELS`, or is a program that would have to be run.
        OSError: If it is no image; damaged files raise other kinds, too.
    """
    opened = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
    if opened.format == "EPS":
        opened.close()
        raise UnreadablePictureError("it is PostScript: a program, which is not run")
    if opened.width * opened.height > MAX_PIXELS:
        opened.close()
        raise UnreadablePictureError(
            f"it claims {opened.width}×{opened.height} pixels, more than the {MAX_PIXELS:,} that are decoded"
        )
    return opened


def as_rgb(picture: Image.Image) -> Image.Image:
    """Convert any mode to RGB: deep greyscale is scaled to 8 bits, transparency is laid over white."""
    if picture.mode == "RGB" and "transparency" not in picture.info:
        return picture
    if picture.mode.startswith(("I", "F")):
        values = np.asarray(picture).astype(np.float64)
        top = float(values.max(initial=0.0))
        scale = 255.0 if top <= 1.0 and picture.mode == "F" else 1.0 if top <= 255 else 1 / 257
        return Image.fromarray((values * scale).round().clip(0, 255).astype(np.uint8), "L").convert("RGB")
    if picture.has_transparency_data:
        layered = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered).convert("RGB")
    return picture.convert("RGB")


def to_tensor(picture: Any) -> Tensor:
    """Turn an RGB picture into a float32 tensor ``(3, H, W)`` with values in 0…1; keep tensors."""
    if isinstance(picture, Tensor):
        return picture
    values = np.array(picture if picture.mode == "RGB" else as_rgb(picture))
    return torch.from_numpy(values).permute(2, 0, 1).contiguous().float().div_(255)


def check_picture(source: Path | bytes) -> str | None:
    """Return why a picture is unreadable, or None. Complete common files are recognised without decoding."""
    try:
        head, tail, length = _ends(source)
    except OSError as error:
        return _reason(error)
    if length == 0:
        return "the file is empty"
    if _looks_complete(head, tail, length):
        return None
    try:
        read_picture(source)
    except UnreadablePictureError as error:
        return str(error)
    return None


def _ends(source: Path | bytes) -> tuple[bytes, bytes, int]:
    if isinstance(source, bytes):
        return source[:16], source[-_TAIL:], len(source)
    if source.exists() and not source.is_file():
        raise OSError("it is no file, but a folder, a device or a pipe")
    with source.open("rb") as file:
        head = file.read(16)
        length = file.seek(0, 2)
        file.seek(max(0, length - _TAIL))
        return head, file.read(), length


def _looks_complete(head: bytes, tail: bytes, length: int) -> bool:
    if head.startswith(b"\xff\xd8\xff"):  # JPEG
        return length > 100 and tail.rstrip(b"\0").endswith(b"\xff\xd9")
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return tail[-8:-4] == b"IEND"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return int.from_bytes(head[4:8], "little") + 8 <= length
    return False


def _reason(error: BaseException) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image that can be identified"
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__
