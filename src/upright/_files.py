"""Writing files and folders whole or not at all."""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import sys
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
        with _named(path), open(new, "xb") as file:
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
        with _named(path):
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
    """Put ``new`` where ``folder`` is; whatever goes wrong, one of the two is there whole.

    Where the system can exchange two folders there is no moment at which none is there, and what is kept is
    in both until the old one goes.
    """
    if not folder.exists():
        os.rename(new, folder)
        return
    for entry in folder.iterdir():
        if keeps(entry.name):
            _share(entry, new / entry.name)
    if _exchange(new, folder):
        return  # `new` is the old one now, which the caller removes
    old = _beside(folder)
    os.rename(folder, old)
    try:
        os.rename(new, folder)
    except BaseException:
        os.rename(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _share(entry: Path, other: Path) -> None:
    """Give a file, or all files of a folder, a second name; copy them where there are no second names."""

    def link(source: str, target: str) -> str:
        try:
            os.link(source, target, follow_symlinks=False)
        except OSError:
            shutil.copy2(source, target, follow_symlinks=False)
        return target

    if entry.is_dir() and not entry.is_symlink():
        shutil.copytree(entry, other, symlinks=True, copy_function=link)
    else:
        link(str(entry), str(other))


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step; False where the system, or the disk, cannot."""
    names = {"linux": ("renameat2", 2), "darwin": ("renameatx_np", 2)}  # RENAME_EXCHANGE, RENAME_SWAP
    if sys.platform not in names:
        return False
    name, flag = names[sys.platform]
    here = {"linux": -100, "darwin": -2}[sys.platform]  # AT_FDCWD
    try:
        call = getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):
        return False
    return int(call(here, os.fsencode(one), here, os.fsencode(other), ctypes.c_uint(flag))) == 0


def sync_folder(folder: Path) -> None:
    """Have the folder's entries on the disk, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name the file in errors that name none, such as that the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def _beside(path: Path) -> Path:
    """Return an unused hidden name in the same folder."""
    return path.parent / f".{path.name}.{secrets.token_hex(4)}"
