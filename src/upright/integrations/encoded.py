"""Pictures in a file format, as bytes, base64 or data URLs: opened, and written again as they came."""

from __future__ import annotations

import base64
import binascii
import io
import re
from dataclasses import dataclass
from typing import Any, Literal

from .._checks import check_choice

Form = Literal["bytes", "base64", "url"]
_URL = re.compile(r"data:(?P<type>image/[\w.+-]+)(?P<options>(?:;[\w=.+-]+)*);base64,", re.IGNORECASE)
_LOSSLESS = {"PNG": {}, "WEBP": {"lossless": True, "exact": True}, "GIF": {}, "BMP": {}, "TIFF": {}}


@dataclass(frozen=True)
class Encoded:
    """A picture that came in a file format.

    Attributes:
        picture: The opened picture, a PIL image.
        form: How it came: ``"bytes"``, ``"base64"`` text, or a data ``"url"``.
        format: The file format by its name in Pillow, such as ``"PNG"``.
    """

    picture: Any
    form: Form
    format: str

    @property
    def media_type(self) -> str:
        """The media type of what `write` returns for lossless formats and JPEG, such as ``"image/png"``."""
        return _media_type(self.format)

    @property
    def is_still(self) -> bool:
        """Whether it is one picture, no animation."""
        return int(getattr(self.picture, "n_frames", 1)) == 1

    @property
    def is_stored_as_seen(self) -> bool:
        """Whether no EXIF entry says that it is to be shown turned."""
        return self.picture.getexif().get(0x0112, 1) in (0, 1)

    def write(self, picture: Any, quality: int | None = 95) -> tuple[bytes | str, str]:
        """Write another picture as this one came.

        Args:
            picture: A PIL image.
            quality: For JPEG, the only lossy format that is written: 1 to 100. None: PNG instead.

        Returns:
            The bytes or text, and the media type. Lossless formats and WebP are written without loss, formats
            other than PNG, WebP, GIF, BMP, TIFF and JPEG as PNG; colour profiles are kept.
        """
        lossy = self.format in ("JPEG", "MPO") and quality is not None
        kind = "JPEG" if lossy else self.format if self.format in _LOSSLESS else "PNG"
        options: dict[str, Any] = {"quality": quality, "subsampling": 0} if lossy else _LOSSLESS[kind]
        profile = picture.info.get("icc_profile")
        stream = io.BytesIO()
        picture.save(stream, kind, **options, **({"icc_profile": profile} if profile else {}))
        data, media_type = stream.getvalue(), _media_type(kind)
        if self.form == "bytes":
            return data, media_type
        text = base64.b64encode(data).decode()
        return (f"data:{media_type};base64,{text}" if self.form == "url" else text), media_type


def read_encoded(data: bytes | str, name: str = "picture") -> Encoded:
    """Open an encoded picture.

    Args:
        data: The bytes of a picture file, the same in base64, or a data URL with base64.
        name: What the data is called in messages.

    Raises:
        ValueError: If it is none of these.
    """
    form: Form = "bytes"
    content = data if isinstance(data, bytes) else b""
    if isinstance(data, str):
        url = _URL.match(data)
        form = "url" if url else "base64"
        try:
            content = base64.b64decode("".join(data[url.end() if url else 0 :].split()), validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError(
                f"{name} must be base64 or a data URL of a picture, got {data[:40]!r}; "
                "open files and addresses first"
            ) from error
    from ..data.decode import UnreadablePictureError, open_picture

    try:
        picture = open_picture(content)
        picture.load()
    except UnreadablePictureError as error:
        raise ValueError(f"{name} holds a picture that is too large: {error}") from error
    except Exception as error:  # decoders of damaged files raise any kind
        raise ValueError(
            f"{name} must hold a picture file, got {len(content)} bytes that begin with {content[:8]!r}"
        ) from error
    return Encoded(picture, form, str(picture.format))


def check_quality(quality: int | None) -> None:
    """Raise ValueError unless ``quality`` is None or one that JPEG knows."""
    if quality is not None:
        check_choice("quality", quality, range(1, 101))


def _media_type(kind: str) -> str:
    from PIL import Image

    return str(Image.MIME.get(kind, "image/png"))
