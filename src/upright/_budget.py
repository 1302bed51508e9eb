"""Building what a file describes without letting it take more memory than what the file holds can fill."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

LEAST = 2**24
"""Elements that may always be asked for: tables of angles and the like are made, not stored."""

_SIZED = {torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.full}


class Budget(TorchFunctionMode):
    """While it is open, no tensor is made of more elements than a budget.

    Args:
        elements: How many elements are stored; as many may be asked for at once, and at least `LEAST`.

    Raises:
        ValueError: When more are asked for, before any memory is taken.
    """

    def __init__(self, elements: int) -> None:
        super().__init__()
        self.elements = max(elements, LEAST)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        asked = _asked(func, args, kwargs)
        if asked > self.elements:
            raise ValueError(
                f"it asks for a tensor of {asked:,} numbers, more than the {self.elements:,} that are allowed"
            )
        return func(*args, **kwargs)


def _asked(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """Return how many elements a function is to make; 0 for one that makes none of its own."""
    if func in _SIZED:
        size = kwargs.get("size", args[0] if args and not isinstance(args[0], int) else args)
        return math.prod(size)
    if func is torch.eye:
        return math.prod(n for n in (*args, *args)[:2] if isinstance(n, int))
    if func is torch.arange:
        start, end, step = (args if len(args) == 3 else (*args, 1) if len(args) == 2 else (0, *args, 1))[:3]
        return int(abs((end - start) / step)) if args else 0
    return 0
