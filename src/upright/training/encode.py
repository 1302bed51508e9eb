"""Re-encoding of batches as JPEG and WebP, in a few calls of the encoder."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.encode import through_file

_BLOCK = 16  # side of the largest block that the encoders treat as one


def reencoded(x: Tensor, probability: float, generator: torch.Generator | None) -> Tensor:
    """Encode and decode some of the pictures, each after a random quarter turn that is undone.

    Pictures of one turn are encoded as one strip. Values are mapped to 0…255 by each picture's own range.

    Args:
        x: Shape ``(B, C, H, W)``, floating point; with other than 1 or 3 channels nothing is done.
        probability: Share of the pictures that are encoded.
        generator: Source of randomness, on the device of ``x``.
    """
    if x.shape[1] not in (1, 3) or probability <= 0:
        return x
    chosen = torch.rand(len(x), generator=generator, device=x.device) < probability
    turns = torch.randint(4, (len(x),), generator=generator, device=x.device)
    codecs = torch.rand(4, 2, generator=generator, device=x.device).tolist()
    x = x.clone()
    for turn, (kind, quality) in enumerate(codecs):
        index = (chosen & (turns == turn)).nonzero().squeeze(1)
        if len(index):
            strip = torch.rot90(x[index], turn, (-2, -1))
            x[index] = torch.rot90(_through_codec(strip, kind, quality), -turn, (-2, -1))
    return x


def _through_codec(x: Tensor, kind: float, quality: float) -> Tensor:
    low, high = x.amin((1, 2, 3), keepdim=True), x.amax((1, 2, 3), keepdim=True)
    scale = (high - low).clamp(min=1e-12) / 255
    height, width = x.shape[-2:]
    whole = ((x - low) / scale).round().clamp_(0, 255)
    whole = F.pad(whole, (0, -width % _BLOCK, 0, -height % _BLOCK), mode="replicate")
    rows = whole.to(torch.uint8).permute(0, 2, 3, 1).cpu().flatten(0, 1).numpy()  # (B·H, W, C)
    decoded = torch.from_numpy(_round_trip(rows, kind, quality)).to(x.device)
    decoded = decoded.view(len(x), whole.shape[-2], whole.shape[-1], -1).permute(0, 3, 1, 2)
    return decoded[..., :height, :width].to(x.dtype) * scale + low


def _round_trip(rows: Any, kind: float, quality: float) -> Any:
    """Encode in strips that the formats' limits allow: 65,535 rows for JPEG, 16,383 for WebP."""
    if kind < 0.2:
        codec, limit, options = "WEBP", 16_383, {"quality": int(20 + 75 * quality), "method": 0}
    else:
        options = {"quality": int(25 + 70 * quality), "subsampling": int((kind - 0.2) / 0.8 * 2.999)}
        codec, limit = "JPEG", 65_535
    step = limit // _BLOCK * _BLOCK
    parts = [through_file(rows[i : i + step], codec, **options) for i in range(0, len(rows), step)]
    return np.concatenate(parts)
