"""Save and load adapted models: safetensors and JSON, of the canonicalizer only."""

from __future__ import annotations

from typing import Any

from .canonicalizers import Canonicalizer

READY_MADE: dict[str, str] = {}
"""Canonicalizers that ship with the package, by group."""


def load_canonicalizer(name: Any) -> Canonicalizer:
    """(under construction)."""
    raise NotImplementedError


def load(folder: Any, model: Any = None) -> Any:
    """(under construction)."""
    raise NotImplementedError


def save(adapted: Any, folder: Any, **kwargs: Any) -> None:
    """(under construction)."""
    raise NotImplementedError
