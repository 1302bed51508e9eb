"""What a canonicalizer sees of an encoded picture, made where it is decoded, so that little is kept of it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..canonicalizers import Canonicalizer
from ..canonicalizers.network import NetworkCanonicalizer
from ..data import read_picture
from ..nets.thumbnail import thumbnail

_LEAST = 4
"""Sides of a thumbnail to which a JPEG may be shrunk while it is decoded: the first step of `thumbnail`."""


def seen_by(canonicalizer: Canonicalizer, data: bytes) -> Tensor:
    """Decode a picture for a canonicalizer.

    Where that looks at a thumbnail, this is the thumbnail, float32; large JPEG files are decoded at 1/2, 1/4
    or 1/8 of their sides, no smaller than four thumbnails.

    Returns:
        Shape ``(3, size, size)`` float32, or ``(3, H, W)`` uint8 for other canonicalizers.

    Raises:
        UnreadablePictureError: If it is no image, or a damaged one.
    """
    size = canonicalizer.size if isinstance(canonicalizer, NetworkCanonicalizer) else None
    picture = read_picture(data) if size is None else read_picture(data, least=_LEAST * size)
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    if size is None:
        return pixels.contiguous()
    assert isinstance(canonicalizer, NetworkCanonicalizer)
    small = thumbnail(pixels[None], size, torch.float32)[0]
    return small if canonicalizer.standardize else small / 255
