"""Folders of pictures, however deep, to folders of the same layout."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from pathlib import Path

from .._files import staged, sync_folder
from .items import Item, Shard, Sink, Store
from .listing import Listing

SHARD = 1000
"""Pictures a shard: so many at most are done again after a kill."""


class FolderStore(Store):
    """Pictures below a folder.

    Args:
        root: The folder.
        listing: What lies in it.
        shard_size: Pictures a shard; default: 1,000.
        limit: At most so many pictures, the first ones.
    """

    kind = "folder"

    def __init__(
        self, root: Path, listing: Listing, *, shard_size: int | None = None, limit: int | None = None
    ) -> None:
        self.root, self.listing = root, listing
        self.shard_size, self.limit = shard_size or SHARD, limit
        self.count = listing.count if limit is None else min(limit, listing.count)
        self.digest = listing.digest
        self.left_out = listing.others

    def shards(self) -> Iterator[Shard]:
        """Plan shards of consecutive paths."""
        for number, (offset, count) in enumerate(self.listing.offsets(self.shard_size, self.limit)):
            yield Shard(number, count, offset)

    def read(self, shard: Shard) -> Iterator[Item]:
        """Name the pictures; they are read when they are loaded."""
        for path in self.listing.paths(shard.where, shard.count or 0):
            yield Item(path, (self.root / path).read_bytes, self.root / path)

    @contextmanager
    def write(self, shard: Shard, output: Path, pool: Executor) -> Iterator[Sink]:
        """Write files of the same names; each appears whole."""
        sink = _Files(output, pool)
        yield sink
        sink.finish()


class FileStore(FolderStore):
    """Picture files that were named one by one.

    Args:
        files: The files.
        shard_size: Pictures a shard; default: 1,000.
        limit: At most so many pictures, the first ones.
    """

    def __init__(
        self, files: Sequence[Path], *, shard_size: int | None = None, limit: int | None = None
    ) -> None:
        self.files = list(files)[:limit]
        self.shard_size, self.count = shard_size or SHARD, len(self.files)
        self.digest = hashlib.sha256(b"\0".join(map(os.fsencode, self.files))).hexdigest()

    def shards(self) -> Iterator[Shard]:
        """Plan shards of consecutive files."""
        for number, start in enumerate(range(0, len(self.files), self.shard_size)):
            yield Shard(number, min(self.shard_size, len(self.files) - start), start)

    def read(self, shard: Shard) -> Iterator[Item]:
        """Name the pictures; they are read when they are loaded."""
        for path in self.files[shard.where : shard.where + (shard.count or 0)]:
            yield Item(str(path), path.read_bytes, path)


class _Files(Sink):
    """Writes files in threads, a bounded number at a time."""

    _AHEAD = 32

    def __init__(self, output: Path, pool: Executor) -> None:
        self.output, self.pool = output, pool
        self.pending: deque[Future[None]] = deque()
        self.folders: set[Path] = set()

    def put(self, item: Item, data: bytes | None, also: tuple[bytes | None, ...] = ()) -> None:
        target = self.output / item.path
        self.folders.add(target.parent)
        self.pending.append(self.pool.submit(_write, target, item.origin, data))
        if len(self.pending) >= self._AHEAD:
            self.pending.popleft().result()

    def finish(self) -> None:
        while self.pending:
            self.pending.popleft().result()
        for folder in self.folders:
            sync_folder(folder)


def _write(target: Path, origin: Path, data: bytes | None) -> None:
    with staged(target) as new:
        if data is None:
            shutil.copyfile(origin, new)
        else:
            new.write_bytes(data)
