"""Names of the pieces in which a large file is written."""

from __future__ import annotations


def piece(name: str, number: int, of: int) -> str:
    """Return the name of a piece of a file: its own where there is only one.

    Example:
        >>> piece("train/a.tar.gz", 1, 3), piece("a.parquet", 0, 1)
        ('train/a-00001.tar.gz', 'a.parquet')
    """
    if of == 1:
        return name
    folder, slash, file = name.rpartition("/")
    stem, dot, suffix = file.partition(".")
    for known in (".parquet", ".tar.gz", ".tgz", ".tar"):
        if file.lower().endswith(known):
            stem, dot, suffix = file[: -len(known)], ".", file[len(file) - len(known) + 1 :]
            break
    return f"{folder}{slash}{stem}-{number:05d}{dot}{suffix}"
