"""Writing files and folders whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


def write_file(path: str | os.PathLike[str], content: str | bytes) -> Path:
    """Write a file by way of a temporary one beside it, so that a crash leaves the old one or the new one.

    Raises:
        OSError: If the folder does not exist or cannot be written.
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    new = _beside(path)
    try:
        with open(new, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    return path


@contextmanager
def staged(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary name beside ``path`` to write to; in the end it is on the disk and takes its name.

    The temporary name is always the same, so that the next try takes the place of one that was killed. If the
    block raises, it is removed. Folders are made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.unfinished")
    try:
        yield new
        with open(new, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def write_folder(
    folder: str | os.PathLike[str],
    files: Mapping[str, bytes],
    stale: Callable[[str], bool] = lambda name: False,
) -> Path:
    """Write a folder by way of a temporary one beside it; the old one goes only when the new one is whole.

    Files of an existing folder that are not among ``files`` are kept, unless their names are ``stale``.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = _beside(folder)
    try:
        new.mkdir()
        for name, data in files.items():
            write_file(new / name, data)
        sync_folder(new)
        _swap(new, folder, lambda name: name not in files and not stale(name))
    finally:
        shutil.rmtree(new, ignore_errors=True)
    sync_folder(folder.parent)
    return folder


def _swap(new: Path, folder: Path, keeps: Callable[[str], bool]) -> None:
    """Put ``new`` where ``folder`` is; whatever goes wrong, one of the two is there whole."""
    if not folder.exists():
        os.rename(new, folder)
        return
    old = _beside(folder)
    os.rename(folder, old)
    try:
        os.rename(new, folder)
    except BaseException:
        os.rename(old, folder)
        raise
    for entry in old.iterdir():
        if keeps(entry.name):
            os.rename(entry, folder / entry.name)
    shutil.rmtree(old, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Have the folder's entries on the disk, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _beside(path: Path) -> Path:
    """Return an unused hidden name in the same folder."""
    return path.parent / f".{path.name}.{secrets.token_hex(4)}"
