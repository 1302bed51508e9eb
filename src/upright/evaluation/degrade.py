"""Re-encoding and resampling of tensors: what destroys artefacts that a canonicalizer must not read."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.encode import through_file

JPEG_QUALITY = 80
RESAMPLING = 0.93


def reencoded(x: Tensor, quality: int = JPEG_QUALITY) -> Tensor:
    """Return pictures as they come back from a JPEG file.

    The values of the batch, whatever their range, are mapped to 0…255 by its smallest and largest value, and
    back.

    Args:
        x: Pictures, shape ``(B, C, H, W)``, any dtype; other than 1 or 3 channels are encoded one by one.
        quality: JPEG quality, 1…95.
    """
    if not x.numel():
        return x
    values = x.detach().cpu().double()
    low, high = values.amin(), values.amax()
    span = (high - low).clamp(min=1e-12)
    if not x.is_floating_point() and x.dtype == torch.uint8:
        low, span = torch.zeros((), dtype=torch.float64), torch.tensor(255.0, dtype=torch.float64)
    coded = ((values - low) / span * 255).round().to(torch.uint8)
    pictures = (coded if x.shape[1] == 3 else coded.flatten(0, 1).unsqueeze(1)).permute(0, 2, 3, 1)
    back = torch.stack([
        torch.from_numpy(through_file(p.numpy(), "JPEG", quality=quality)) for p in pictures
    ])  # fmt: skip
    return _like(x, back.permute(0, 3, 1, 2).reshape(x.shape).double() / 255 * span + low)


def resampled(x: Tensor, factor: float = RESAMPLING) -> Tensor:
    """Return pictures made smaller by a factor that is no whole number, and enlarged to their size again.

    Args:
        x: Pictures, shape ``(B, C, H, W)``, any dtype.
        factor: Size in between, as a share of the size; at least one pixel is lost.
    """
    height, width = x.shape[-2:]
    small = [max(1, min(side - 1, round(side * factor))) for side in (height, width)]
    values = x if x.dtype in (torch.float32, torch.float64) else x.float()
    shrunk = F.interpolate(values, small, mode="bilinear", align_corners=False, antialias=True)
    return _like(x, F.interpolate(shrunk, (height, width), mode="bilinear", align_corners=False))


def _like(x: Tensor, values: Tensor) -> Tensor:
    if not x.is_floating_point():
        limits = torch.iinfo(x.dtype)
        values = values.round().clamp(limits.min, limits.max)
    return values.to(device=x.device, dtype=x.dtype)
