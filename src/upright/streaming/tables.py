"""Parquet files to Parquet files of the same names, with all columns kept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .._files import staged, sync_folder
from ..data.columns import read_columns
from ..data.sources import _IMAGE_COLUMNS
from .items import Item, Shard, Sink, Store, unreadable
from .naming import piece

_ROWS = 64
"""Rows that are read at a time."""
_HELD = 64 << 20
"""Bytes of pictures after which a row group is written."""


@dataclass(frozen=True)
class Rows:
    """Where the rows of a shard lie.

    Attributes:
        file: The Parquet file.
        source: Its name, relative.
        name: Name of the output, relative.
        start: The first row.
        stop: The row after the last one.
        error: Why the file cannot be read.
    """

    file: Path
    source: str
    name: str
    start: int
    stop: int
    error: str | None = None


class TableStore(Store):
    """Pictures in a column of Parquet files, ``{bytes, path}`` or plain bytes.

    Args:
        files: The files.
        root: The folder to which their names are relative.
        column: The column of the pictures; default: found by name or type.
        also: Columns of pictures that move along.
        shard_size: Rows a shard and an output file; default: a whole file, under its own name.
        limit: At most so many rows, the first ones.
    """

    kind = "parquet"

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
        self.column, self.also = column, tuple(also)
        self.plan = list(self._plan(sorted(files), root, shard_size, limit))
        self.count = sum(rows.stop - rows.start for rows in self.plan)
        told = [f"{rows.name} {rows.start} {rows.stop} {rows.error is None}" for rows in self.plan]
        self.digest = hashlib.sha256("\n".join(told).encode()).hexdigest()

    def shards(self) -> Iterator[Shard]:
        """Plan files, or pieces of them."""
        for number, rows in enumerate(self.plan):
            yield Shard(number, rows.stop - rows.start, rows)

    def read(self, shard: Shard) -> Iterator[Item]:
        """Read rows in small batches; a file that breaks off gives one unreadable item for its rest."""
        rows: Rows = shard.where
        if rows.error is not None:
            yield unreadable(rows.source, rows.error)
            return
        done = rows.start
        try:
            with _opened(rows.file) as file:
                image = self._image(rows.file, file.schema_arrow)
                for group, batch, first in _batches(file, rows.start, rows.stop):
                    for i in range(batch.num_rows):
                        yield self._item(rows, image, batch, i, first + i, group)
                        done = first + i + 1
        except (pa.ArrowException, OSError) as error:
            reason = f"row {done} and what follows cannot be read: {_first(error)}"
            yield unreadable(rows.source, reason)

    @contextmanager
    def write(self, shard: Shard, output: Path, pool: Executor) -> Iterator[Sink]:
        """Write a Parquet file with the schema, the codecs and about the row groups of the source."""
        rows: Rows = shard.where
        if rows.error is not None:
            yield _Nothing()
            return
        with _opened(rows.file) as file:
            schema, codecs = file.schema_arrow, _codecs(file)
        target = output / rows.name
        with staged(target) as new:
            with pq.ParquetWriter(new, schema, compression=codecs) as writer:
                sink = _Table(writer, [self._image(rows.file, schema), *self.also])
                yield sink
                sink.flush()
        sync_folder(target.parent)

    def _plan(
        self, files: Sequence[Path], root: Path, shard_size: int | None, limit: int | None
    ) -> Iterator[Rows]:
        left = limit
        for file in files:
            if left == 0:
                return
            name = file.relative_to(root).as_posix()
            try:
                with _opened(file) as opened:
                    total = opened.metadata.num_rows
                    self._check(file, opened.schema_arrow)
            except (pa.ArrowException, OSError) as error:
                yield Rows(file, name, name, 0, 0, f"no readable Parquet file: {_first(error)}")
                continue
            total = total if left is None else min(total, left)
            left = None if left is None else left - total
            size = shard_size or max(total, 1)
            pieces = max(-(-total // size), 1)
            for k in range(pieces):
                yield Rows(file, name, piece(name, k, pieces), k * size, min((k + 1) * size, total))

    def _check(self, file: Path, schema: Any) -> None:
        image = self._image(file, schema)
        for name in (image, *self.also):
            if name not in schema.names:
                raise ValueError(f"{file} has no column {name!r}; it has {', '.join(schema.names)}")
            if pa.types.is_string(schema.field(name).type):
                raise ValueError(
                    f"column {name!r} of {file} holds paths, not pictures; give the folder of the pictures"
                )

    def _image(self, file: Path, schema: Any) -> str:
        return self.column or read_columns(file, schema, _IMAGE_COLUMNS, ())[0].name

    def _item(self, rows: Rows, image: str, batch: Any, i: int, number: int, group: int) -> Item:
        cell = batch.column(image)[i].as_py()
        told = cell.get("path") if isinstance(cell, dict) else None
        also = tuple(_bytes_of(batch.column(name)[i].as_py()) for name in self.also)

        def load() -> bytes:
            data = _bytes_of(cell)
            if data is not None:
                return data
            if told:
                path = rows.file.parent / str(told)
                if path.exists() and not path.is_file():
                    raise ValueError(f"the cell names {told}, which is no file")
                return path.read_bytes()
            raise ValueError("the cell is empty")

        return Item(f"{rows.source}#{number}", load, (batch, i, group), also)


class _Table(Sink):
    def __init__(self, writer: Any, names: list[str]) -> None:
        self.writer, self.names = writer, names
        self.rows: list[tuple[Any, int, tuple[bytes | None, ...]]] = []
        self.held = self.group = 0

    def put(self, item: Item, data: bytes | None, also: tuple[bytes | None, ...] = ()) -> None:
        batch, i, group = item.origin
        if self.rows and (group != self.group or self.held > _HELD):
            self.flush()
        self.group = group
        new = (data, *(also or (None,) * (len(self.names) - 1)))
        self.rows.append((batch, i, new))
        self.held += sum(map(len, filter(None, new))) + batch.nbytes // max(batch.num_rows, 1)

    def flush(self) -> None:
        if not self.rows:
            return
        parts = []
        for _, same in groupby(self.rows, key=lambda row: id(row[0])):
            rows = list(same)
            taken = rows[0][0].take(pa.array([i for _, i, _ in rows], pa.int64()))
            for k, name in enumerate(self.names):
                taken = _replaced(taken, name, [new[k] for _, _, new in rows])
            parts.append(taken)
        table = pa.Table.from_batches(parts)
        self.writer.write_table(table, row_group_size=table.num_rows)
        self.rows, self.held = [], 0


class _Nothing(Sink):
    def put(self, item: Item, data: bytes | None, also: tuple[bytes | None, ...] = ()) -> None:
        """Leave it: there is nothing to be written."""


def _opened(path: Path) -> Any:
    """Open a file so that a column is read as it is needed, not whole."""
    return pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)


def _batches(file: Any, start: int, stop: int) -> Iterator[tuple[int, Any, int]]:
    """Return the row groups' numbers, batches of rows from ``start`` to ``stop``, and their first rows."""
    first = 0
    for group in range(file.metadata.num_row_groups):
        after = first + file.metadata.row_group(group).num_rows
        if first < stop and after > start:
            row = first
            for batch in file.iter_batches(_ROWS, row_groups=[group], use_threads=False):
                low, high = max(start - row, 0), min(stop - row, batch.num_rows)
                if low < high:
                    yield group, batch.slice(low, high - low), row + low
                row += batch.num_rows
                if row >= stop:
                    break
        first = after


def _codecs(file: Any) -> dict[str, str] | str:
    if not file.metadata.num_row_groups:
        return "snappy"
    group = file.metadata.row_group(0)
    columns = [group.column(i) for i in range(group.num_columns)]
    return {
        c.path_in_schema: "none" if c.compression == "UNCOMPRESSED" else c.compression.lower()
        for c in columns
    }


def _replaced(batch: Any, name: str, new: list[bytes | None]) -> Any:
    """Return a batch with other pictures in a column where there are new ones."""
    if all(data is None for data in new):
        return batch
    at, field = batch.schema.get_field_index(name), batch.schema.field(name)
    cells = batch.column(at).to_pylist()
    for i, data in enumerate(new):
        if data is not None:
            cells[i] = {**(cells[i] or {}), "bytes": data} if pa.types.is_struct(field.type) else data
    return batch.set_column(at, field, pa.array(cells, field.type))


def _bytes_of(cell: Any) -> bytes | None:
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    return data if isinstance(data, bytes) else None


def _first(error: Exception) -> str:
    """Return the first sentence of an error."""
    return (str(error).splitlines() or [type(error).__name__])[0].partition(". ")[0]
