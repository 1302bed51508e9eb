"""Which canonicalizer a model uses in the present context: a choice by thread and task, not by module."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

OFF = None
"""The choice of no canonicalizer: the bare model."""

_CHOICES: ContextVar[tuple[tuple[Switch, str | None], ...]] = ContextVar("upright_choices", default=())
_LOCK = threading.Lock()


class Switch:
    """What all views of one adapted model share, so that a choice holds for every one of them.

    Choices live in a context variable: blocks nest, exceptions undo them, and no other thread or task sees
    them. A copy, and what comes out of a pickle, is a switch of its own.

    Attributes:
        open: Whether a block that chooses is open in any thread; where none is, there is nothing to look up.
            Compiled code is guarded by it and is left where it is true.
    """

    def __init__(self) -> None:
        self.open = False
        self._blocks = 0

    def __reduce__(self) -> tuple[type[Switch], tuple[()]]:
        return Switch, ()

    @contextmanager
    def to(self, choice: str | None) -> Iterator[None]:
        """Choose by name, or `OFF`, until the block ends."""
        self._count(1)
        token = _CHOICES.set((*_CHOICES.get(), (self, choice)))
        try:
            yield
        finally:
            _CHOICES.reset(token)
            self._count(-1)

    def choice(self, default: str) -> str | None:
        """Return what the innermost block of this context chose, or the default where there is none."""
        return next((choice for switch, choice in reversed(_CHOICES.get()) if switch is self), default)

    def _count(self, step: int) -> None:
        with _LOCK:
            self._blocks += step
            self.open = self._blocks > 0

    def __deepcopy__(self, memo: Any) -> Switch:
        return Switch()
