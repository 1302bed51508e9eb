"""Tar files of samples (WebDataset) to tar files of the same names, with the other members kept."""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from .._files import staged, sync_folder
from ..data.sources import SUFFIXES
from .items import Item, Shard, Sink, Store, unreadable
from .naming import piece

_NAME = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$")
_BLOCK = tarfile.BLOCKSIZE
_MOST = 1 << 30
"""Bytes of the largest member that is read: a few may claim any number of them."""
_DAMAGE = (tarfile.TarError, OSError, EOFError, zlib.error)


@dataclass(frozen=True)
class Stretch:
    """Where the samples of a shard lie.

    Attributes:
        file: The tar file.
        source: Its name, relative.
        name: Name of the output, relative.
        first: Number of the first sample in the file.
        offset: Where it begins in the file, unpacked.
        count: How many samples; None: that is not known.
        to_end: Whether all that is left is read, for it ends in something that cannot be.
    """

    file: Path
    source: str
    name: str
    first: int = 0
    offset: int = 0
    count: int | None = None
    to_end: bool = False


@dataclass(frozen=True)
class Sample:
    """Members of a tar file that share a key, with their contents."""

    key: str
    members: list[tuple[Any, bytes]]


class TarStore(Store):
    """Pictures in samples of tar files: members ``key.jpg``, ``key.json``, … one after the other.

    Args:
        files: The files.
        root: The folder to which their names are relative.
        column: The picture's extension, such as ``"jpg"``; default: the first that is a picture's.
        also: Extensions of pictures that move along, such as ``"seg.png"``.
        shard_size: Samples a shard and an output file; default: a whole file, under its own name.
        limit: At most so many samples, the first ones.
    """

    kind = "tar"

    def __init__(
        self,
        files: Sequence[Path],
        root: Path,
        *,
        column: str | None = None,
        also: Sequence[str] = (),
        shard_size: int | None = None,
        limit: int | None = None,
    ) -> None:
        self.column = column.lower().lstrip(".") if column else None
        self.also = tuple(name.lower().lstrip(".") for name in also)
        self.plan = list(_plan(sorted(files), root, shard_size, limit))
        counts = [stretch.count for stretch in self.plan]
        self.count = None if None in counts else sum(cast("list[int]", counts))
        told = [f"{s.name} {s.first} {s.count} {s.file.stat().st_size}" for s in self.plan]
        self.digest = hashlib.sha256("\n".join(told).encode(errors="surrogateescape")).hexdigest()

    def shards(self) -> Iterator[Shard]:
        """Plan files, or pieces of them."""
        for number, stretch in enumerate(self.plan):
            yield Shard(number, stretch.count, stretch)

    def read(self, shard: Shard) -> Iterator[Item]:
        """Read samples one by one; a file that breaks off gives one unreadable item for its rest."""
        stretch: Stretch = shard.where
        number = stretch.first
        stop = None if stretch.count is None or stretch.to_end else number + stretch.count
        try:
            for sample in _samples(stretch.file, stretch.offset):
                if number == stop:
                    return
                yield self._item(stretch, sample)
                number += 1
        except _DAMAGE as error:
            yield unreadable(stretch.source, f"what follows sample {number} cannot be read: {error}")

    @contextmanager
    def write(self, shard: Shard, output: Path, pool: Executor) -> Iterator[Sink]:
        """Write a tar file, packed as the source is."""
        stretch: Stretch = shard.where
        target = output / stretch.name
        with staged(target) as new:
            with ExitStack() as stack:
                file: Any = stack.enter_context(open(new, "wb"))
                if _is_packed(stretch.file):
                    file = stack.enter_context(gzip.GzipFile("", "wb", fileobj=file, mtime=0))
                archive = stack.enter_context(
                    tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape")
                )
                yield _Archive(archive, self.also)
        sync_folder(target.parent)

    def _item(self, stretch: Stretch, sample: Sample) -> Item:
        names = [_extension(info.name) for info, _ in sample.members]
        wanted = [self.column] if self.column else [n for n in names if f".{n}" in SUFFIXES]
        path = f"{stretch.source}#{sample.key}"
        at = names.index(wanted[0]) if wanted and wanted[0] in names else None
        if at is None:
            return Item(path, None, (sample, None))
        picture = sample.members[at][1]
        also = tuple(sample.members[names.index(n)][1] if n in names else None for n in self.also)
        return Item(path, lambda: picture, (sample, at), also)


class _Archive(Sink):
    def __init__(self, archive: tarfile.TarFile, also: tuple[str, ...]) -> None:
        self.archive, self.also = archive, also

    def put(self, item: Item, data: bytes | None, also: tuple[bytes | None, ...] = ()) -> None:
        sample, picture = item.origin
        new = dict(zip(self.also, also, strict=True)) if also else {}
        for i, (info, content) in enumerate(sample.members):
            moved = data if i == picture else new.get(_extension(info.name))
            content = content if moved is None else moved
            if info.isreg():
                info.size = len(content)
                info.pax_headers = {k: v for k, v in info.pax_headers.items() if k != "size"}
            self.archive.addfile(info, io.BytesIO(content) if info.isreg() else None)
        self.archive.members.clear()  # type: ignore[attr-defined]  # they would pile up


def _plan(files: Sequence[Path], root: Path, shard_size: int | None, limit: int | None) -> Iterator[Stretch]:
    left = limit
    for file in files:
        name = file.relative_to(root).as_posix()
        if shard_size is None and limit is None:
            yield Stretch(file, name, name)
            continue
        if left == 0:
            return
        starts, total, is_whole = _starts(file, shard_size, left)
        left = None if left is None else left - total
        for k, (offset, first) in enumerate(starts):
            count = min(shard_size or total, total - first)
            to_end = not is_whole and k == len(starts) - 1
            yield Stretch(file, name, piece(name, k, len(starts)), first, offset, count, to_end)


def _starts(file: Path, size: int | None, limit: int | None) -> tuple[list[tuple[int, int]], int, bool]:
    """Return where every ``size``-th sample begins, and its number; how many; whether the file is whole."""
    found, number = [(0, 0)], 0
    try:
        for offset in _sample_offsets(file):
            if number == limit:
                break
            if size and number and number % size == 0:
                found.append((offset, number))
            number += 1
    except _DAMAGE:
        return found, number, False
    return found, number, True


def _sample_offsets(file: Path) -> Iterator[int]:
    key: str | None = None
    for _, info in _members(file, 0):
        if key is None or _key(info.name) != key:
            key = _key(info.name)
            yield info.offset


def _samples(file: Path, offset: int) -> Iterator[Sample]:
    sample: Sample | None = None
    for archive, info in _members(file, offset):
        key = _key(info.name)
        if sample is None or key != sample.key:
            if sample is not None:
                yield sample
            sample = Sample(key, [])
        held = archive.extractfile(info) if info.isreg() else None
        sample.members.append((info, held.read() if held is not None else b""))
    if sample is not None:
        yield sample


def _members(file: Path, offset: int) -> Iterator[tuple[tarfile.TarFile, Any]]:
    """Return the archive and its members from there on."""
    with ExitStack() as stack:
        opened: Any = stack.enter_context(open(file, "rb"))
        if _is_packed(file):
            opened = stack.enter_context(gzip.GzipFile(fileobj=opened))
        opened.seek(offset)
        archive = stack.enter_context(tarfile.open(fileobj=opened, mode="r:", errors="surrogateescape"))
        while (info := archive.next()) is not None:
            if info.size > _MOST:
                raise tarfile.ReadError(f"{info.name} claims {info.size:,} bytes, more than {_MOST:,}")
            yield archive, info
            archive.members.clear()  # type: ignore[attr-defined]  # they would pile up
        opened.seek(archive.offset)
        if len(opened.read(_BLOCK)) < _BLOCK:
            raise tarfile.ReadError("the mark of the end is missing, so it may be cut off")


def _key(name: str) -> str:
    found = _NAME.match(name)
    return found[1] if found else name


def _extension(name: str) -> str:
    found = _NAME.match(name)
    return found[2].lower() if found else ""


def _is_packed(file: Path) -> bool:
    return file.name.lower().endswith("gz")
