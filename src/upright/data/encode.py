"""Through a file and back: what compression leaves of pixels."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image


def through_file(pixels: Any, format: str, **options: Any) -> Any:
    """Encode a picture and decode it again.

    Args:
        pixels: Array ``(H, W, C)`` of 1 or 3 channels, uint8.
        format: The file format by its name in Pillow, such as ``"JPEG"``.
        **options: Of the encoder, such as ``quality``.

    Returns:
        What the file holds: an array of its own, shape of ``pixels``, uint8.
    """
    picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    file = io.BytesIO()
    picture.save(file, format, **options)
    with Image.open(file) as decoded:
        return np.array(decoded.convert(picture.mode)).reshape(pixels.shape)
