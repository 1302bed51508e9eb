"""The files of a folder in order, however many: sorted on the disk, not in memory."""

from __future__ import annotations

import hashlib
import heapq
import json
import os
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ..data.sources import SUFFIXES

TABLES = (".parquet",)
TARS = (".tar", ".tar.gz", ".tgz")
_CHUNK = 100_000


class Listing:
    """Paths of pictures below a folder, in a file that has no name and goes with the process.

    Hidden files and folders are left out; links to folders are not followed.

    Args:
        root: The folder.
        chunk: How many paths are sorted in memory at a time.

    Attributes:
        count: How many pictures there are.
        others: How many other files there are.
        tables: Parquet files.
        tars: Tar files.
        digest: A hash of the paths.
    """

    def __init__(self, root: Path, chunk: int = _CHUNK) -> None:
        self.count = self.others = 0
        self.tables: list[Path] = []
        self.tars: list[Path] = []
        self._file = self._sorted(self._pictures(root), chunk)
        weakref.finalize(self, self._file.close)

    def offsets(self, size: int, limit: int | None) -> Iterator[tuple[int, int]]:
        """Return where runs of ``size`` paths begin in the file, and how many paths they have."""
        total = self.count if limit is None else min(limit, self.count)
        self._file.seek(0)
        offset = 0
        for start in range(0, total, size):
            taken = min(size, total - start)
            yield offset, taken
            self._file.seek(offset)
            for _ in range(taken):
                offset += len(self._file.readline())

    def paths(self, offset: int, count: int) -> list[str]:
        """Return so many paths from there on, relative to the folder."""
        self._file.seek(offset)
        return [json.loads(self._file.readline()) for _ in range(count)]

    def _pictures(self, root: Path) -> Iterator[bytes]:
        waiting = [""]
        while waiting:
            folder = waiting.pop()
            with os.scandir(root / folder) as entries:
                for entry in entries:
                    path = f"{folder}{entry.name}"
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(f"{path}/")
                    elif entry.is_file():
                        yield from self._sort_out(root, path)

    def _sort_out(self, root: Path, path: str) -> Iterator[bytes]:
        lower = path.lower()
        if os.path.splitext(lower)[1] in SUFFIXES:
            yield json.dumps(path).encode() + b"\n"
        elif lower.endswith(TABLES):
            self.tables.append(root / path)
        elif lower.endswith(TARS):
            self.tars.append(root / path)
        else:
            self.others += 1

    def _sorted(self, lines: Iterator[bytes], chunk: int) -> IO[bytes]:
        runs: list[IO[bytes]] = []
        held: list[bytes] = []
        for line in lines:
            held.append(line)
            if len(held) == chunk:
                runs.append(_written(sorted(held)))
                held = []
        digest = hashlib.sha256()
        merged = tempfile.TemporaryFile()
        for line in heapq.merge(*runs, sorted(held)):
            merged.write(line)
            digest.update(line)
            self.count += 1
        for run in runs:
            run.close()
        self.digest = digest.hexdigest()
        return merged


def _written(lines: list[bytes]) -> IO[bytes]:
    file = tempfile.TemporaryFile()
    file.writelines(lines)
    file.seek(0)
    return file
