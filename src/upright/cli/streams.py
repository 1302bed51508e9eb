"""Flags and messages that verbs share which stream a source: shards, parts, what came of it."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from .errors import UserError
from .sources import positive

if TYPE_CHECKING:
    from ..streaming import Summary

FINISHED_WITH_BAD = 3
"""Exit code of a run that finished, but could not use some items."""


def add_stream_flags(parser: argparse.ArgumentParser, column: str) -> None:
    """Add how a source is streamed."""
    group = parser.add_argument_group(
        "streaming",
        "the same command again goes on where a killed one stopped; exit code 3: some items are bad",
    )
    group.add_argument(
        "--shard-size", type=positive, metavar="N",
        help="pictures that are finished together; default: 1,000 of a folder, else a file",
    )  # fmt: skip
    group.add_argument("--part", default="1/1", metavar="I/N", help="only that part, for N machines")
    group.add_argument(
        "--workers", type=positive, metavar="N", help="threads that decode; default: one a core"
    )
    group.add_argument("--retry-bad", action="store_true", help="do shards with bad items again")
    group.add_argument("--column", metavar="NAME", help=column)
    group.add_argument(
        "--dry-run", action="store_true", help="write nothing; say what would be done, judging by 64 pictures"
    )
    group.add_argument("--quiet", action="store_true", help="show no progress")


def report(summary: Summary, verb: str) -> int:
    """Say what a run came to.

    Args:
        summary: What it came to.
        verb: What was done to the pictures.

    Returns:
        The exit code.
    """
    told = ", ".join(f"{count:,} {name}" for name, count in sorted(summary.counts.items()) if count)
    pace = f"{summary.items / summary.seconds:,.0f} a second" if summary.items else "nothing was left to do"
    if summary.dry:
        whole = "an unknown number of" if summary.planned is None else f"{summary.planned:,}"
        print(f"{whole} pictures; {summary.pending:,} shards are left, {summary.resumed:,} are finished")
        print(f"of the first {summary.items}: {told or 'none'} ({pace})")
        if summary.output is not None:
            print(f"would write {summary.output}")
        print(f"would write {summary.record}")
    else:
        resumed = f"; {summary.resumed:,} shards were finished before" if summary.resumed else ""
        print(f"{summary.total:,} pictures {verb}: {told or 'none'} ({pace}{resumed})")
        if summary.output is not None:
            print(f"pictures: {summary.output}")
        print(f"{'manifest' if summary.output is not None else 'rows'}: {summary.record}")
    if summary.left_out:
        print(f"upright: {summary.left_out:,} files that are no pictures were left out", file=sys.stderr)
    if summary.bad:
        print(f"upright: {summary.bad:,} could not be used:", file=sys.stderr)
        for path, error in summary.examples:
            print(f"  {path}: {error}", file=sys.stderr)
        if not summary.dry:
            print(f"  all of them, and why: {summary.record}/_bad-*.jsonl", file=sys.stderr)
        return FINISHED_WITH_BAD
    return 0


def one_or_many(paths: list[str]) -> Any:
    """Return a source: one path, or several files."""
    if not paths:
        raise UserError("no source; give a folder, or files of one kind")
    return paths[0] if len(paths) == 1 else paths
