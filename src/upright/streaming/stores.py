"""What a source is: a folder of pictures, Parquet files or tar files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..data.sources import SUFFIXES
from .folders import FileStore, FolderStore
from .items import Store
from .listing import TABLES, TARS, Listing
from .tars import TarStore

Source = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def open_store(
    source: Source,
    *,
    column: str | None = None,
    also: Sequence[str] = (),
    shard_size: int | None = None,
    limit: int | None = None,
) -> Store:
    """Plan a source.

    Args:
        source: A folder with pictures, Parquet files or tar files in it, at any depth; or files, of one kind.
        column: Which column of a table, or extension in a sample, holds the picture.
        also: Which columns or extensions hold pictures that move along.
        shard_size: How many items are finished together, and lie in an output file.
        limit: At most so many items, the first ones.

    Raises:
        FileNotFoundError: If the source does not exist, or holds no pictures.
        ValueError: If it is of several kinds, or ``column`` and ``also`` do not fit it.
    """
    for name, value in (("shard_size", shard_size), ("limit", limit)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    given = [source] if isinstance(source, (str, os.PathLike)) else list(source)
    paths = [Path(p).expanduser() for p in given]
    if not paths:
        raise ValueError("no source; give a folder, or files")
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist; give a folder, a .parquet or a .tar file")
    settings: dict[str, Any] = {"shard_size": shard_size, "limit": limit}
    cells: dict[str, Any] = {"column": column, "also": list(also), **settings}
    store = _open(paths, settings, cells)
    store.asked = {name: value for name, value in cells.items() if value}
    return store


def check_apart(source: Source, written: Path) -> None:
    """Raise ValueError if a folder that is written to lies in a source folder, or the source in it."""
    given = [source] if isinstance(source, (str, os.PathLike)) else list(source)
    for path in (Path(p).expanduser().resolve() for p in given):
        inside = written.resolve() == path or path in written.resolve().parents
        if inside or (path.is_dir() and written.resolve() in path.parents):
            raise ValueError(f"{written} and the source {path} lie in one another; give a folder beside it")


def _open(paths: list[Path], settings: dict[str, Any], cells: dict[str, Any]) -> Store:
    if len(paths) == 1 and paths[0].is_dir():
        return _folder(paths[0], settings, cells)
    suffixes = {_kind(path) for path in paths}
    if len(suffixes) > 1 or None in suffixes:
        raise ValueError(
            "a source must be one folder, or files of one kind (pictures, .parquet, .tar), got "
            f"{', '.join(map(str, paths[:4]))}{', …' if len(paths) > 4 else ''}"
        )
    root = Path(os.path.commonpath([path.absolute().parent for path in paths]))
    files = [path.absolute() for path in paths]
    if suffixes == {"picture"}:
        _check_plain(cells)
        return FileStore(paths, **settings)
    return _tables(files, root, **cells) if suffixes == {"table"} else TarStore(files, root, **cells)


def _folder(root: Path, settings: dict[str, Any], cells: dict[str, Any]) -> Store:
    listing = Listing(root)
    found = {"pictures": listing.count, "Parquet files": len(listing.tables), "tar files": len(listing.tars)}
    kinds = [kind for kind, count in found.items() if count]
    if not kinds:
        raise FileNotFoundError(
            f"no pictures in {root}; expected files such as .jpg, .png, .parquet or .tar, in it or below"
        )
    if len(kinds) > 1:
        told = " and ".join(f"{found[kind]:,} {kind}" for kind in kinds)
        raise ValueError(f"{root} holds {told}; give the folder or the files of one kind")
    if listing.tables:
        return _tables(listing.tables, root, **cells)
    if listing.tars:
        return TarStore(listing.tars, root, **cells)
    _check_plain(cells)
    return FolderStore(root, listing, **settings)


def _tables(files: Sequence[Path], root: Path, **cells: Any) -> Store:
    from .tables import TableStore  # pyarrow takes its time

    return TableStore(files, root, **cells)


def _check_plain(cells: dict[str, Any]) -> None:
    if cells["column"] is not None or cells["also"]:
        raise ValueError("column and also are for Parquet and tar files; files of pictures have none")


def _kind(path: Path) -> str | None:
    name = path.name.lower()
    if name.endswith(TABLES):
        return "table"
    if name.endswith(TARS):
        return "tar"
    return "picture" if path.suffix.lower() in SUFFIXES else None
