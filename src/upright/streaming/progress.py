"""A progress bar on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Advance = Callable[[int], None]
"""Told how many pictures were finished since the last time."""


@contextmanager
def advancing(shown: bool, total: int | None) -> Iterator[Advance]:
    """Show a bar on stderr while the block runs, where that is a terminal.

    Args:
        shown: Whether to.
        total: How many pictures there are; None if that is not known.
    """
    if not shown:
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = [
        BarColumn(), MofNCompleteColumn(), TextColumn("pictures"), TaskProgressColumn(show_speed=True),
        TimeRemainingColumn(),
    ]  # fmt: skip
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=total)
        yield lambda count: progress.advance(task, count)
