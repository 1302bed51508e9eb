"""Depth: a distance at every pixel; relative and squared error."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from ..._checks import check_choice
from ...adapter.spec import Size
from ...kinds import Mask
from ..measures import Mean
from .base import Read, Task
from .segmentation import read_maps

Align = Literal["median", "affine"]


def depth(*, align: Align | None = None, read: Read | None = None) -> Task:
    """Return the task of telling the distance of every pixel; depths do not change as pictures turn.

    The model returns depths ``(B, h, w)`` or ``(B, 1, h, w)``; another resolution is resized to the
    picture's. Targets are depths ``(H, W)``, float; what is not positive or not finite does not count, nor
    does what lies outside of a turned picture. Errors are means over pictures, in the unit of the targets.

    Args:
        align: What predictions are fitted by, picture by picture, for models without a scale: ``"median"``
            (a factor, so that the medians agree) or ``"affine"`` (a factor and an offset, least squares).
        read: Makes depths ``(B, H, W)`` of the whole output, if it is none of the above; see `Task`.

    Reference:
        Eigen et al. 2014, arXiv 1406.2283, section 4.2: AbsRel, RMSE and δ.
    """
    if align is not None:
        check_choice("align", align, ("median", "affine"))
    errors: list[tuple[str, Callable[[Tensor, Tensor], Tensor], bool]] = [
        ("AbsRel", lambda found, true: ((found - true).abs() / true).mean(), True),
        ("RMSE", lambda found, true: (found - true).square().mean().sqrt(), True),
        ("δ < 1.25", lambda found, true: _within(found, true).double().mean(), False),
    ]
    return Task(
        name="depth",
        metrics=[
            Mean(name, partial(_compared, error, align), lower_is_better=lower, is_share=not lower)
            for name, error, lower in errors
        ],
        target={"depth": Mask, "counts": Mask},
        entry=Mask if read is None else None,
        read=read or read_maps,
        decide=lambda maps: maps.detach().double().cpu(),
        prepare=_prepare,
        refer=lambda prediction: prediction,
        moves=Mask,
    )


def _within(found: Tensor, true: Tensor) -> Tensor:
    return torch.maximum(found / true, true / found) < 1.25


def _compared(error: Any, align: Align | None, found: Tensor, target: dict[str, Tensor]) -> Tensor:
    counts = target["counts"] > 0.999  # interpolation mixes in what does not count
    if not bool(counts.any()):
        return torch.tensor(torch.nan)
    found, true = found[counts], target["depth"][counts]
    if align == "median":
        found = found * (true.median() / found.median())
    elif align == "affine":
        columns = torch.stack([found, torch.ones_like(found)], 1)
        found = columns @ torch.linalg.lstsq(columns, true[:, None]).solution[:, 0]
    result: Tensor = error(found, true)
    return result


def _prepare(target: Any, size: Size) -> dict[str, Tensor]:
    true = torch.as_tensor(target).cpu()
    true = true[0] if true.ndim == 3 and true.shape[0] == 1 else true
    if tuple(true.shape) != size or not true.is_floating_point():
        raise ValueError(
            f"targets of depth must be depths of shape {size}, as the picture, float, got "
            f"{tuple(true.shape)} {true.dtype}"
        )
    counts = true.isfinite() & (true > 0)
    return {"depth": torch.where(counts, true, 0.0).double(), "counts": counts.double()}
