"""Pictures that strangers send: judged by their headers, decoded, turned, and written for a browser."""

from __future__ import annotations

import base64
import io
import warnings
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..actions import act
from ..data.decode import read_picture
from ..groups import O2
from ..integrations.preprocess import centre_square
from ..kinds import Image as Picture
from .limits import Limits
from .refused import RefusedError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
"""What is decoded; of animations, the first frame."""
_SCANS = 64
"""Most scans of a progressive JPEG: each is a pass over all pixels, and honest files have about ten."""
_RESAMPLED = 1024
"""Longest side of a picture that is turned by an angle that is no quarter turn."""


def decoded(data: bytes, limits: Limits) -> Image.Image:
    """Decode a picture that a stranger sent, EXIF orientation applied, 8 bits, RGB.

    Args:
        data: The bytes of the file.
        limits: How many pixels it may have; that is read from its header, before anything is decoded.

    Raises:
        RefusedError: If it is none of `FORMATS`, too large, or damaged.
    """
    if not data:
        raise RefusedError(422, "no_picture", "the request holds no picture; send the bytes of a file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the size is judged here, not by the library's own warning
            with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
                width, height = opened.size
    except Exception as error:  # readers of damaged headers fail in many ways
        if isinstance(error, Image.DecompressionBombError):
            raise _too_large(None, limits) from error
        raise RefusedError(
            415, "unknown_format", f"this is no picture in a known format; send {', '.join(FORMATS)}"
        ) from error
    if width * height > limits.max_pixels:
        raise _too_large((width, height), limits)
    if data.startswith(b"\xff\xd8") and data.count(b"\xff\xda") > _SCANS:
        raise RefusedError(413, "too_many_scans", f"a JPEG may have {_SCANS} scans; save it as a plain one")
    try:
        return read_picture(data)
    except Exception as error:  # so do decoders of damaged pixels
        raise RefusedError(422, "damaged_picture", "the picture is damaged or cut short") from error


def _too_large(size: tuple[int, int] | None, limits: Limits) -> RefusedError:
    got = "" if size is None else f", this one has {size[0]}×{size[1]}"
    return RefusedError(
        413,
        "too_many_pixels",
        f"a picture may have {limits.max_pixels / 1e6:g} megapixels{got}; send a smaller copy",
    )


def viewed(picture: Image.Image, degrees: float, flip: bool, square: bool) -> Image.Image:
    """Turn a picture, as `upright.O2` does: first flipped left-right, then turned counter-clockwise.

    Args:
        picture: RGB.
        degrees: The angle. Multiples of 90° are exact and keep every pixel; others are looked up once on a
            canvas of the same size, at most 1024 pixels long, mirrored beyond its border.
        flip: Whether it is flipped left-right first.
        square: Whether to show the centre square only.
    """
    quarter, rest = divmod(degrees % 360, 90)
    if not rest:
        seen = centre_square(picture) if square else picture
        seen = seen.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else seen
        steps = [Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270]
        return seen.transpose(steps[int(quarter) - 1]) if quarter % 4 else seen
    seen = reduced(picture, _RESAMPLED)
    g = O2().element(degrees=degrees % 360, reflected=flip)
    pixels = torch.from_numpy(np.array(seen)).permute(2, 0, 1)
    turned = act(g, Picture(pixels, border="reflect")).data.permute(1, 2, 0)
    made = Image.fromarray(turned.contiguous().numpy())
    return centre_square(made) if square else made


def reduced(picture: Image.Image, longest: int) -> Image.Image:
    """Return a picture with no side longer than so many pixels."""
    if max(picture.size) <= longest:
        return picture
    copy = picture.copy()
    copy.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return copy


def data_url(picture: Image.Image, form: str = "JPEG", **options: Any) -> str:
    """Write a picture as an address that holds it."""
    buffer = io.BytesIO()
    picture.save(buffer, form, **({"quality": 88} if form == "JPEG" else {}), **options)
    return f"data:image/{form.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
