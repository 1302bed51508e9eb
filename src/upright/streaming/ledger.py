"""What is known of a run on the disk: its settings, and a file of rows for every shard that is finished.

A folder holds ``_run.json`` (the settings), ``shard-000000.parquet`` … (or .jsonl, .csv) and, for shards with
items that could not be used, ``_bad-000000.jsonl``. A shard is finished when its file of rows is there: it is
written last, under a temporary name, synced and renamed.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from .._checks import check_choice
from .._files import staged, sync_folder
from .._version import __version__
from .items import Part, Shard

Format = Literal["parquet", "jsonl", "csv"]
RUN = "_run.json"
_SCHEMA = 1
_FLUSH = 1000


class Ledger:
    """The record of a run.

    Args:
        folder: Where it is kept.
        columns: The columns of a row and their types, ``path`` and ``error`` among them.
        format: How rows are written.
    """

    def __init__(self, folder: Path, columns: Mapping[str, str], format: Format = "parquet") -> None:
        check_choice("format", format, ["parquet", "jsonl", "csv"])
        self.folder, self.columns, self.format = folder, columns, format

    def check(self, settings: Mapping[str, Any]) -> bool:
        """Say whether a run with these settings was begun here.

        Raises:
            ValueError: If one with other settings was.
            FileExistsError: If the folder holds something else.
        """
        path = self.folder / RUN
        if not path.exists():
            if self.folder.exists() and (not self.folder.is_dir() or any(self._foreign())):
                raise FileExistsError(f"{self.folder} holds files of something else; give a new folder")
            return False
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            before = stored["settings"]
            if stored["library"] != "upright" or stored["schema_version"] != _SCHEMA:
                raise KeyError
        except (OSError, ValueError, KeyError, TypeError):
            raise FileExistsError(f"{path} is not of a run of this version; give a new folder") from None
        before, given = _flat(before), _flat(json.loads(json.dumps(settings)))
        other = [name for name in sorted({*before, *given}) if before.get(name) != given.get(name)]
        if other:
            told = "; ".join(
                f"{name}: {_short(before.get(name))}, now {_short(given.get(name))}" for name in other
            )
            if all(name in ("source.digest", "source.items") for name in other):
                counts = f"{before.get('source.items')} items then, {given.get('source.items')} now"
                raise ValueError(
                    f"{self.folder} is of a run over other files ({counts}): the source has changed since; "
                    "give a new folder"
                )
            raise ValueError(
                f"{self.folder} is of a run with other settings ({told}); "
                "run it with those, or give a new folder"
            )
        return True

    def begin(self, settings: Mapping[str, Any], notes: Mapping[str, Any]) -> None:
        """Keep the settings of a new run.

        Args:
            settings: What a resumed run must share.
            notes: What may be another one.
        """
        if self.check(settings):
            return
        head = {"library": "upright", "schema_version": _SCHEMA, "library_version": __version__}
        document = {**head, "settings": dict(settings), **notes}
        _write(self.folder / RUN, json.dumps(document, indent=2, ensure_ascii=False) + "\n")

    @contextmanager
    def locked(self, part: Part) -> Iterator[None]:
        """Keep other processes from the same part, and from parts of another split.

        Raises:
            ValueError: If another process is at work.
        """
        from filelock import FileLock, Timeout

        self.folder.mkdir(parents=True, exist_ok=True)
        own = self.folder / f"_lock-{part.number}-of-{part.of}"
        with contextlib.ExitStack() as stack:
            others = sorted(self.folder.glob("_lock-*-of-*"))
            for path in [own, *(p for p in others if not p.name.endswith(f"-of-{part.of}"))]:
                lock = FileLock(path, timeout=0)
                try:
                    lock.acquire()
                except Timeout:
                    which = path.name.removeprefix("_lock-").replace("-of-", "/")
                    raise ValueError(
                        f"another process is at part {which} of {self.folder}; wait for it, or give parts "
                        "of one split to all"
                    ) from None
                if path == own:
                    stack.callback(lock.release)
                else:
                    lock.release()
            yield

    def done(self) -> set[int]:
        """Return the numbers of the finished shards."""
        if not self.folder.is_dir():
            return set()
        names = (re.fullmatch(rf"shard-(\d+)\.{self.format}", name) for name in os.listdir(self.folder))
        return {int(found[1]) for found in names if found}

    def forget_bad(self, part: Part) -> None:
        """Let the shards of a part that hold bad items be done again."""
        for path in self.folder.glob("_bad-*.jsonl"):
            number = int(path.stem[5:])
            if part.holds(Shard(number, None, None)):
                self.path(number).unlink(missing_ok=True)

    @contextmanager
    def rows(self, shard: Shard) -> Iterator[Rows]:
        """Take the rows of a shard; when the block ends well, the shard is finished."""
        bad = self.folder / f"_bad-{shard.number:06d}.jsonl"
        with staged(self.path(shard.number)) as new:
            with _writer(new, self.columns, self.format) as write:
                taken = Rows(write)
                yield taken
                taken.flush()
            if taken.bad:
                lines = (json.dumps({"path": path, "error": error}) for path, error in taken.bad)
                _write(bad, "\n".join(lines) + "\n")
            else:
                bad.unlink(missing_ok=True)
        sync_folder(self.folder)

    def path(self, number: int) -> Path:
        """Return the file of a shard's rows."""
        return self.folder / f"shard-{number:06d}.{self.format}"

    def counts(self, column: str, numbers: set[int]) -> Counter[str]:
        """Count the values of a column over finished shards, one file at a time."""
        counts: Counter[str] = Counter()
        for number in sorted(numbers):
            counts.update(_column(self.path(number), column, self.format))
        return counts

    def bad(self, numbers: set[int], limit: int) -> list[tuple[str, str]]:
        """Return the first items that could not be used, and why."""
        found: list[tuple[str, str]] = []
        for path in sorted(self.folder.glob("_bad-*.jsonl")):
            if int(path.stem[5:]) in numbers and len(found) < limit:
                rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
                found += [(row["path"], row["error"]) for row in rows]
        return found[:limit]

    def _foreign(self) -> Iterator[str]:
        return (name for name in os.listdir(self.folder) if not name.startswith((f".{RUN}", "_lock-")))


class Rows:
    """Rows of a shard on their way to the file.

    Args:
        write: Writes some of them.
    """

    def __init__(self, write: Any) -> None:
        self.write = write
        self.held: list[dict[str, Any]] = []
        self.bad: list[tuple[str, str]] = []

    def add(self, row: dict[str, Any]) -> None:
        """Take a row."""
        self.held.append(row)
        if row.get("error") is not None:
            self.bad.append((row["path"], row["error"]))
        if len(self.held) == _FLUSH:
            self.flush()

    def flush(self) -> None:
        """Write what was taken."""
        if self.held:
            self.write(self.held)
        self.held = []


def _write(path: Path, text: str) -> None:
    with staged(path) as new:
        new.write_text(text, encoding="utf-8")


@contextmanager
def _writer(path: Path, columns: Mapping[str, str], format: Format) -> Iterator[Any]:
    if format == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        types = {"list<float>": pa.list_(pa.float32())}
        schema = pa.schema({n: types.get(t) or pa.type_for_alias(t) for n, t in columns.items()}.items())
        with pq.ParquetWriter(path, schema) as writer:
            yield lambda rows: writer.write_table(pa.Table.from_pylist(rows, schema=schema))
        return
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        if format == "jsonl":
            yield lambda rows: file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        else:
            table = csv.DictWriter(file, list(columns))
            table.writeheader()
            yield table.writerows


def _column(path: Path, column: str, format: Format) -> Iterator[str]:
    if format == "parquet":
        import pyarrow.parquet as pq

        for batch in pq.ParquetFile(path).iter_batches(columns=[column]):
            yield from batch.column(0).to_pylist()
        return
    with path.open(encoding="utf-8", newline="") as file:
        rows = map(json.loads, file) if format == "jsonl" else csv.DictReader(file)
        yield from (row[column] for row in rows)


def _flat(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Return nested settings by their names with dots."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{above}{name}.") if isinstance(value, dict) else {f"{above}{name}": value}
    return flat


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:56]} …"
