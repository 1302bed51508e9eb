"""One table of tolerances, and the one comparison that all checks use."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

TOLERANCES: dict[torch.dtype, float] = {
    torch.float64: 1e-11,
    torch.float32: 1e-5,
    torch.float16: 4e-3,
    torch.bfloat16: 3e-2,
}
"""Allowed rounding error by dtype, relative to the largest value; integers and bools must be equal."""

RESAMPLING = 0.03
"""Allowed error of resampled pictures whose values span 0…1 and whose details are 10 pixels wide or more."""

RESAMPLING_WAVES = 0.01
"""The same where details are 60 pixels long: the examples for groups that scale or shift (three times what is
seen)."""


def tolerance(dtype: torch.dtype, scale: float = 1.0) -> float:
    """Return the allowed absolute error of values of a dtype whose largest magnitude is ``scale``."""
    return TOLERANCES.get(dtype, 0.0) * max(scale, 1.0)


def errors(a: Tensor, b: Tensor) -> Tensor:
    """Return the largest absolute difference of each entry of a batch, shape ``(B,)``, float64.

    NaN where either holds NaN (equal infinities agree); infinite everywhere if the shapes differ.
    """
    if a.shape != b.shape:
        return torch.full((max(a.shape[0] if a.ndim else 1, 1),), math.inf, dtype=torch.float64)
    if a.numel() == 0:
        return torch.zeros(a.shape[0] if a.ndim else 1, dtype=torch.float64)
    a, b = a.detach().cpu(), b.detach().cpu()
    batch = a.shape[0] if a.ndim else 1
    if torch.equal(a, b):
        return torch.zeros(batch, dtype=torch.float64)
    equal = a == b
    difference = (a.double() - b.double()).abs().masked_fill_(equal, 0.0)  # infinities of one sign are equal
    difference.masked_fill_(~equal & (difference == 0), 1.0)  # integers beyond 2**53
    return difference.reshape(batch, -1).amax(1)


def require(law: str, error: Tensor, limit: float, on: Any = "") -> None:
    """Raise AssertionError unless every error is at most the limit; NaN is not.

    Args:
        law: What was checked, as a sentence.
        error: Errors, shape ``(B,)``.
        limit: The largest that is allowed.
        on: What the errors belong to: one thing, or an indexable with one entry per error.
    """
    failed = ~(error <= limit)
    if not bool(failed.any()):
        return
    worst = int(torch.where(failed, error.nan_to_num(math.inf, math.inf), -1.0).argmax())
    place = on if isinstance(on, str) else repr(on[worst])
    raise AssertionError(
        f"{law}, but the error is {float(error[worst]):.3g}, more than {limit:.3g}"
        + (f", on {place}" if place else "")
        + f" ({int(failed.sum())} of {failed.numel()} cases fail)"
    )


def require_true(law: str, holds: bool, found: str = "") -> None:
    """Raise AssertionError unless a statement holds."""
    if not holds:
        raise AssertionError(law + (f", but {found}" if found else ""))
