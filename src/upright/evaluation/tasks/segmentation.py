"""Semantic segmentation: a class at every pixel; mean intersection over union."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...adapter.spec import Size
from ...kinds import Mask
from ..measures import Ratio
from ..metrics import INVALID
from .base import Read, Task


def segmentation(
    *, ignore: int = 255, background: bool = True, threshold: float = 0.5, read: Read | None = None
) -> Task:
    """Return the task of naming the class of every pixel.

    The model returns class scores ``(B, K, h, w)``, scores of the foreground ``(B, h, w)`` or ``(B, 1, h,
    w)``, or class numbers ``(B, h, w)``; another resolution is resized to the picture's. Targets are class
    numbers, shape ``(H, W)``, bool or integers. Intersections and unions are summed over all pictures.

    Args:
        ignore: The class number that does not count; so does what lies outside of a turned picture.
        background: Whether class 0 counts in the mean.
        threshold: From which score on a pixel belongs to the foreground.
        read: Makes class scores or numbers of the whole output, if it is none of the above; see `Task`.
    """
    if not 0 <= ignore <= 2**31:
        raise ValueError(f"ignore must be a class number that fits an int32, got {ignore}; 255 is usual")
    return Task(
        name="segmentation",
        metrics=[
            Ratio("mIoU", partial(overlaps, ignore=ignore, first=0 if background else 1)),
            Ratio("pixel accuracy", partial(right_pixels, ignore=ignore)),
        ],
        target=partial(Mask, fill=float(ignore)),
        entry=Mask if read is None else None,
        read=read or read_maps,
        decide=partial(_decide, threshold=threshold),
        prepare=_prepare,
        refer=_as_target,
        valid=lambda prediction: not bool((prediction == INVALID).any()),
        check=partial(_check, ignore=ignore),
        outputs=lambda scores: scores.shape[1] if isinstance(scores, Tensor) and scores.ndim == 4 else None,
        moves=Mask,
    )


def read_maps(output: Any, sizes: list[Size]) -> Tensor:
    """Return maps at the resolution of the pictures, shape ``(B, K, H, W)`` or ``(B, H, W)``."""
    if not isinstance(output, Tensor) or output.ndim not in (3, 4):
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"the model must return maps of shape (B, K, h, w) or (B, h, w), got {got}")
    maps = output.detach()
    maps = maps[:, 0] if maps.ndim == 4 and maps.shape[1] == 1 else maps
    if tuple(maps.shape[-2:]) == sizes[0]:
        return maps
    stacked = maps if maps.ndim == 4 else maps[:, None]
    if maps.is_floating_point():
        resized = F.interpolate(stacked, sizes[0], mode="bilinear", align_corners=False)
    else:
        resized = F.interpolate(stacked.double(), sizes[0], mode="nearest-exact").to(maps.dtype)
    return resized if maps.ndim == 4 else resized[:, 0]


def overlaps(predicted: Tensor, target: Tensor, *, ignore: int, first: int = 0) -> tuple[Tensor, Tensor]:
    """Return intersections and unions of the classes from ``first`` on, each of shape ``(K,)``."""
    counted = target != ignore
    found, true = predicted[counted].long(), target[counted].long()
    classes = max([0, *(int(x.max()) + 1 for x in (found, true) if x.numel())])
    count = partial(torch.bincount, minlength=classes)
    both = count(found[found == true])
    union = count(found[found >= 0]) + count(true) - both
    return both[first:], union[first:]


def right_pixels(predicted: Tensor, target: Tensor, *, ignore: int) -> tuple[Tensor, Tensor]:
    """Return how many pixels are right, and how many count."""
    counted = target != ignore
    return ((predicted == target) & counted).sum(), counted.sum()


def _decide(maps: Tensor, *, threshold: float) -> Tensor:
    """Return class numbers, shape ``(B, H, W)``, int64, on the CPU; `INVALID` where scores are no numbers."""
    if maps.ndim == 4:
        return torch.where(maps.isnan().any(1), INVALID, maps.argmax(1)).cpu()
    if maps.is_floating_point():
        return torch.where(maps.isnan(), INVALID, (maps >= threshold).long()).cpu()
    return maps.long().cpu()


def _prepare(target: Any, size: Size) -> Tensor:
    labels = torch.as_tensor(target).cpu()
    labels = labels[0] if labels.ndim == 3 and labels.shape[0] == 1 else labels
    if tuple(labels.shape) != size or labels.is_floating_point():
        raise ValueError(
            f"targets of segmentation must be class numbers of shape {size}, as the picture, got "
            f"{tuple(labels.shape)} {labels.dtype}"
        )
    return labels.long()


def _check(targets: Any, maps: Tensor, *, ignore: int) -> None:
    if not isinstance(maps, Tensor):
        return
    classes = maps.shape[1] if maps.ndim == 4 else 2 if maps.is_floating_point() else None
    for target in targets if classes is not None else ():
        numbers = torch.unique(torch.as_tensor(target).long()).tolist()
        wrong = [n for n in numbers if n != ignore and not 0 <= n < (classes or 0)]
        if wrong:
            raise ValueError(
                f"targets of segmentation must be class numbers 0…{(classes or 0) - 1} or {ignore} (ignore), "
                f"got {wrong[:5]}"
            )


def _as_target(prediction: Tensor) -> Tensor:
    return prediction
