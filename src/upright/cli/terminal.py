"""How verbs print: plain text, as wide as the terminal, or wide enough to search where there is none."""

from __future__ import annotations

from typing import Any


def console(*, markup: bool = False, width: int = 120) -> Any:
    """Return a `rich` console; without markup, so that paths and names may hold brackets."""
    from rich.console import Console

    made = Console(markup=markup, highlight=False)
    return made if made.is_terminal else Console(markup=markup, highlight=False, width=width)


def plural(count: int, noun: str) -> str:
    """Return a count with its noun."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
