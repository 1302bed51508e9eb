"""Training of canonicalizers with Lightning."""

from typing import Any


def fit(*args: Any, **kwargs: Any) -> Any:
    """(under construction)."""
    raise NotImplementedError
