"""Orbit evaluation."""

from typing import Any


class Report:
    """(under construction)."""


def evaluate(*args: Any, **kwargs: Any) -> Any:
    """(under construction)."""
    raise NotImplementedError
