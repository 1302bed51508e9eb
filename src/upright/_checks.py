"""The only place that formats errors about shapes, dtypes and choices."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor


def check_choice(name: str, got: Any, choices: Iterable[Any]) -> None:
    """Raise ValueError unless ``got`` is one of ``choices``."""
    choices = list(choices)
    if got not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {got!r}")


def check_tensor(name: str, x: Any, shape: str, ndim: int) -> None:
    """Raise unless ``x`` is a tensor with at least ``ndim`` axes; ``shape`` names them for the message."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a tensor of shape {shape}, got {type(x).__name__}")
    if x.ndim < ndim:
        raise ValueError(f"{name} must have shape {shape}, got {tuple(x.shape)}")


def check_axis(name: str, x: Tensor, axis: int, length: int, shape: str) -> None:
    """Raise ValueError unless axis ``axis`` of ``x`` has the given length."""
    if x.shape[axis] != length:
        raise ValueError(
            f"{name} must have shape {shape}, got {tuple(x.shape)} (axis {axis} must be {length})"
        )


def check_batch(name: str, got: int, batch: int, of: str) -> None:
    """Raise ValueError unless two batch sizes agree."""
    if got != batch:
        raise ValueError(f"{name} must have batch size {batch} to match {of}, got {got}")


def check_fraction(name: str, got: float) -> None:
    """Raise ValueError unless ``0 < got <= 1``."""
    if not 0 < got <= 1:
        raise ValueError(f"{name} must lie in (0, 1], got {got}")


def check_positive(name: str, got: float) -> None:
    """Raise ValueError unless ``got > 0``."""
    if not got > 0:
        raise ValueError(f"{name} must be positive, got {got}")
