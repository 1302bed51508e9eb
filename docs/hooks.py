"""Hooks of MkDocs: pages of the navigation that are not there are left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def on_config(config: Any) -> Any:
    """Leave out what does not exist, and sections that are empty then."""
    config.nav = present(config.nav, Path(config.docs_dir))
    return config


def present(entries: list[Any], docs: Path) -> list[Any]:
    """Return the entries of a navigation whose pages exist."""
    kept: list[Any] = []
    for entry in entries:
        if isinstance(entry, str):
            kept += [entry] if (docs / entry).exists() else []
            continue
        ((title, value),) = entry.items()
        found = (
            present(value, docs) if isinstance(value, list) else value if (docs / value).exists() else None
        )
        kept += [{title: found}] if found else []
    return kept
