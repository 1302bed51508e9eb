"""The one way in which a source is run through: in shards, in order, a bounded number of items at a time."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

from .items import Item, Part, Shard, Sink, Store
from .ledger import Ledger
from .progress import Advance, advancing

A = TypeVar("A")
B = TypeVar("B")
V = TypeVar("V")

_SAMPLE = 64
"""Pictures that a dry run looks at."""


@dataclass(frozen=True)
class Result:
    """What became of one picture.

    Attributes:
        row: Its row in the record.
        data: The encoded picture to be written; None: as it was.
        also: What moves along, likewise.
    """

    row: dict[str, Any]
    data: bytes | None = None
    also: tuple[bytes | None, ...] = ()


class Job(ABC, Generic[V]):
    """What is done to every picture, in three steps: the middle one in the calling thread, batch by batch.

    Attributes:
        columns: The columns of a row and their types, ``path`` and ``error`` among them.
        counted: The column whose values are counted in the end.
    """

    columns: Mapping[str, str]
    counted: str

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return what a resumed run must share, as plain data: fingerprints, too."""

    @abstractmethod
    def see(self, data: bytes) -> Any:
        """Decode a picture; in a thread. Whatever is raised makes it a bad item."""

    @abstractmethod
    def judge(self, seen: list[Any]) -> list[V]:
        """Look at a batch, in the calling thread."""

    @abstractmethod
    def finish(self, item: Item, data: bytes, verdict: V) -> Result:
        """Make the row and the picture to be written; in a thread."""

    @abstractmethod
    def failed(self, item: Item, error: str) -> dict[str, Any]:
        """Return the row of a bad item."""


@dataclass(frozen=True)
class Summary:
    """What a run came to.

    Attributes:
        record: The folder of the rows.
        output: Where the pictures were written; None: nowhere.
        counts: How many items, of all finished shards of the part, became what.
        bad: How many of them could not be used.
        examples: The first of those, and why.
        items: How many pictures this call looked at.
        shards: How many shards this call finished.
        resumed: How many shards were finished before.
        seconds: How long this call took.
        left_out: Files of the source that are no pictures.
        planned: How many pictures the whole source has; None if that is not known before they are read.
        pending: How many shards of the part are left.
        dry: Whether nothing was written, and the counts are of a sample.
    """

    record: Path
    output: Path | None
    counts: Mapping[str, int] = field(default_factory=dict)
    bad: int = 0
    examples: Sequence[tuple[str, str]] = ()
    items: int = 0
    shards: int = 0
    resumed: int = 0
    seconds: float = 0.0
    left_out: int = 0
    planned: int | None = None
    pending: int = 0
    dry: bool = False

    @property
    def total(self) -> int:
        """How many items all finished shards of the part hold."""
        return sum(self.counts.values())


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How a run shares out its work; results do not depend on it, but for ``batch_size``, in the last bits.

    Args:
        batch_size: Pictures that are judged together.
        workers: Threads that decode and write; default: one a core, at most 16.
        ahead: Pictures that may be in memory, before and after they are judged; default: enough for
            two batches and all workers.
    """

    batch_size: int = 32
    workers: int | None = None
    ahead: int | None = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "workers", "ahead"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")

    @property
    def threads(self) -> int:
        """How many threads there are."""
        return self.workers or min(os.cpu_count() or 1, 16)

    @property
    def depth(self) -> int:
        """How many pictures may be in memory on either side of the judge."""
        return self.ahead or max(2 * self.batch_size, 2 * self.threads)


def run(
    job: Job[Any],
    store: Store,
    ledger: Ledger,
    output: Path | None,
    *,
    part: Part,
    pace: Pace,
    keep_bad: bool = False,
    retry_bad: bool = False,
    notes: Mapping[str, Any] | None = None,
    progress: bool = False,
    dry_run: bool = False,
) -> Summary:
    """Run a source through a job, from where an earlier call stopped.

    Args:
        job: What is done.
        store: The source.
        ledger: The record.
        output: Where pictures are written, in the layout of the source; None: nowhere.
        part: Which of several parts.
        pace: How the work is shared out.
        keep_bad: Write items that could not be used as they are, instead of leaving them out.
        retry_bad: Do shards with bad items again.
        notes: What is kept beside the settings.
        progress: Show a progress bar.
        dry_run: Only look at the first pictures; write nothing.

    Raises:
        FileExistsError: If the output or the record holds something else.
        ValueError: If a run with other settings was begun there, or another process is at work.
    """
    source = {"kind": store.kind, "digest": store.digest, "items": store.count, **store.asked}
    settings = {"source": source, **job.settings()}
    begun = ledger.check(settings)
    done = ledger.done() if begun else set[int]()
    _check_output(output, ledger, begun, done)
    began = time.perf_counter()
    known = Summary(ledger.folder, output, left_out=store.left_out, planned=store.count)
    if dry_run:
        pending = [shard for shard in store.shards() if part.holds(shard) and shard.number not in done]
        return _sample(job, store, pending, pace, replace(known, resumed=len(done), dry=True))
    mine, items = set[int](), 0
    with ledger.locked(part), ThreadPoolExecutor(pace.threads, "upright") as pool:
        ledger.begin(settings, notes or {})
        if retry_bad:
            ledger.forget_bad(part)
        done = ledger.done()
        try:
            with advancing(progress, store.count if part.of == 1 else None) as advance:
                for shard in filter(part.holds, store.shards()):
                    mine.add(shard.number)
                    if shard.number in done:
                        advance(shard.count or 0)
                    else:
                        items += _shard(job, store, shard, ledger, output, pool, pace, keep_bad, advance)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    counts = ledger.counts(job.counted, mine)
    return replace(
        known, counts=dict(counts), bad=counts.get(BAD, 0), examples=ledger.bad(mine, 5), items=items,
        shards=len(mine - done), resumed=len(mine & done), seconds=time.perf_counter() - began,
    )  # fmt: skip


def _sample(job: Job[Any], store: Store, pending: list[Shard], pace: Pace, summary: Summary) -> Summary:
    """Look at the first pictures that are left, and say how they fared."""
    counts: Counter[str] = Counter()
    examples = []
    began = time.perf_counter()
    found = (item for shard in pending for item in store.read(shard) if item.load is not None)
    with ThreadPoolExecutor(pace.threads, "upright") as pool:
        for item, result in results(job, islice(found, _SAMPLE), pool, pace):
            if result is not None:
                counts[str(result.row[job.counted])] += 1
                if result.row["error"] is not None:
                    examples.append((printable(item.path), str(result.row["error"])))
    return replace(
        summary, counts=dict(counts), bad=counts.get(BAD, 0), examples=examples[:5], items=counts.total(),
        pending=len(pending), seconds=time.perf_counter() - began,
    )  # fmt: skip


def _check_output(output: Path | None, ledger: Ledger, begun: bool, done: set[int]) -> None:
    if output is None:
        return
    if output.exists() and not output.is_dir():
        raise FileExistsError(f"{output} is a file; give a folder")
    if done and not output.exists():
        raise FileNotFoundError(
            f"{output} is gone, but {ledger.folder} says that it was written; remove that folder, too"
        )
    if not begun and output.exists() and any(output.iterdir()):
        raise FileExistsError(
            f"{output} is not empty, and {ledger.folder} tells of no run that wrote it; give a new folder"
        )


BAD = "bad"
"""What a bad item is counted as."""


def _shard(
    job: Job[Any],
    store: Store,
    shard: Shard,
    ledger: Ledger,
    output: Path | None,
    pool: Executor,
    pace: Pace,
    keep_bad: bool,
    advance: Advance,
) -> int:
    """Finish a shard: its pictures first, then its rows, which say that it is finished."""
    count = 0
    with ledger.rows(shard) as rows:
        target: AbstractContextManager[Sink | None]
        target = nullcontext() if output is None else store.write(shard, output, pool)
        with target as sink:
            for item, result in results(job, store.read(shard), pool, pace):
                if result is not None:
                    rows.add({**result.row, "path": printable(item.path)})
                    count += 1
                advance(1)
                failed = result is not None and result.row["error"] is not None
                if sink is not None and item.origin is not None and (keep_bad or not failed):
                    sink.put(item, *((None,) if result is None else (result.data, result.also)))
    return count


def results(
    job: Job[Any], items: Iterable[Item], pool: Executor, pace: Pace
) -> Iterator[tuple[Item, Result | None]]:
    """Return what becomes of items, in their order; None for what is no picture."""

    def judged() -> Iterator[tuple[_Looked, Any]]:
        for batch in batched(
            in_order(pool, lambda item: _look(job, item), items, pace.depth), pace.batch_size
        ):
            good = [looked for looked in batch if looked.error is None and looked.data is not None]
            verdicts = iter(job.judge([looked.seen for looked in good]) if good else [])
            for looked in batch:
                usable = looked.error is None and looked.data is not None
                yield looked, next(verdicts) if usable else None

    yield from in_order(pool, lambda pair: _finish(job, *pair), judged(), pace.depth)


@dataclass(frozen=True)
class _Looked:
    item: Item
    data: bytes | None = None
    seen: Any = None
    error: str | None = None


def _look(job: Job[Any], item: Item) -> _Looked:
    if item.load is None:
        return _Looked(item)
    try:
        data = item.load()
        return _Looked(item, data, job.see(data))
    except Exception as error:  # decoders raise of everything
        return _Looked(item, error=_reason(error))


def _finish(job: Job[Any], looked: _Looked, verdict: Any) -> tuple[Item, Result | None]:
    item = looked.item
    if item.load is None:
        return item, None
    error = looked.error
    if error is None:
        assert looked.data is not None
        try:
            return item, job.finish(item, looked.data, verdict)
        except Exception as problem:  # encoders, too
            error = _reason(problem)
    return item, Result(job.failed(item, error))


def in_order(pool: Executor, work: Callable[[A], B], items: Iterable[A], depth: int) -> Iterator[B]:
    """Apply ``work`` to items in threads; give the results in order, with at most ``depth`` under way."""
    pending: deque[Future[B]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) >= depth:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


def batched(items: Iterable[A], size: int) -> Iterator[list[A]]:
    """Return lists of ``size`` items; the last may be shorter."""
    batch: list[A] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def printable(path: str) -> str:
    """Return a path that any file can hold: bytes of a name that are no UTF-8 are written as escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _reason(error: Exception) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "not an image that can be identified"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
