"""What a run over many pictures is made of: items, shards of items, and stores that read and write them."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True)
class Item:
    """A picture of a source.

    Attributes:
        path: Its name, unique in the source: the path in a folder, ``file#row`` or ``file#sample``.
        load: Reads the encoded picture; called in a thread. None: no picture, but something that stays as it
            is.
        origin: What the store needs to write it again.
        also: Encoded pictures that move along, such as masks; None where one is missing.
    """

    path: str
    load: Callable[[], bytes] | None
    origin: Any = None
    also: tuple[bytes | None, ...] = ()


@dataclass(frozen=True)
class Shard:
    """Items that are finished together: the unit in which a run is resumed and shared out.

    Attributes:
        number: Place in the plan of the whole source.
        count: How many items it has; None if that is not known before they are read.
        where: What the store needs to read it.
    """

    number: int
    count: int | None
    where: Any


class Sink(ABC):
    """Where the items of a shard are written, in their order."""

    @abstractmethod
    def put(self, item: Item, data: bytes | None, also: tuple[bytes | None, ...] = ()) -> None:
        """Write an item.

        Args:
            item: The item as it was read.
            data: The encoded picture; None: as it was.
            also: What moves along, likewise.
        """


class Store(ABC):
    """A source of pictures that is planned in shards, read item by item and written in the same layout.

    Attributes:
        kind: Name of the layout.
        digest: What tells one source from another: names, sizes and counts, as they were planned.
        count: How many pictures it has; None if that is not known before they are read.
        left_out: How many files of the source are no pictures.
        asked: How the plan was asked for, as plain data.
    """

    kind: str
    digest: str
    count: int | None
    left_out: int = 0
    asked: Mapping[str, Any] = MappingProxyType({})

    @abstractmethod
    def shards(self) -> Iterator[Shard]:
        """Plan the source: the same shards in the same order, whoever asks."""

    @abstractmethod
    def read(self, shard: Shard) -> Iterator[Item]:
        """Read the items of a shard, one by one."""

    @abstractmethod
    def write(self, shard: Shard, output: Path, pool: Executor) -> AbstractContextManager[Sink]:
        """Open the output of a shard; when the block ends well, all of it is on the disk under its name."""


@dataclass(frozen=True)
class Part:
    """One of several disjoint parts of a run, such as one a machine: every ``of``-th shard.

    Args:
        number: Which part, from 1.
        of: How many there are.
    """

    number: int = 1
    of: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            raise ValueError(f"part must be i/n with 1 ≤ i ≤ n, such as 2/4, got {self.number}/{self.of}")

    @classmethod
    def parse(cls, text: str) -> Part:
        """Read ``"2/4"``."""
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        if found is None:
            raise ValueError(f"part must be i/n with 1 ≤ i ≤ n, such as 2/4, got {text!r}")
        return cls(int(found[1]), int(found[2]))

    def holds(self, shard: Shard) -> bool:
        """Say whether a shard belongs to this part."""
        return shard.number % self.of == self.number - 1


def unreadable(path: str, reason: str) -> Item:
    """Return an item that stands for what could not be read, so that it is counted."""
    from ..data import UnreadablePictureError

    def load() -> bytes:
        raise UnreadablePictureError(reason)

    return Item(path, load)
