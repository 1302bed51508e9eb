"""Opening a source of pictures, whatever it is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from .._online import hub_answers
from .sets import NO_LABEL, PictureSet, TensorSet, Transform, is_thing

SUFFIXES = frozenset(".jpg .jpeg .jpe .png .webp .bmp .gif .tif .tiff .ppm .pgm .pbm .avif .jp2".split())
"""Files that are taken for pictures."""

_IMAGE_COLUMNS = ("image", "img", "picture", "photo")
_LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "target")


def open_data(
    source: Any,
    *,
    transform: Transform | None = None,
    labels: bool = True,
    split: str | None = None,
    limit: int | None = None,
) -> Any:
    """Open a data set of (picture, label).

    Args:
        source: A folder of images (sub-folders are the classes, in alphabetical order; a flat folder has no
            labels); a Parquet file, or a folder of them, with columns ``image`` (``{bytes, path}``) and
            ``label``; the name of a data set on the hub; a pair of tensors, a tensor, or a list of tensors
            ``(C, H, W)``, of clouds ``(N, 3)`` or of volumes ``(C, D, H, W)``; a `datasets.Dataset`. A torch
            `Dataset` or `DataLoader` is returned as it is.
        transform: What makes a tensor ``(C, H, W)`` of an RGB PIL picture, its EXIF orientation applied;
            default: float32 in 0…1. Applied to tensors too, but not to a `Dataset` that is passed through.
        labels: Whether to read labels; without them every label is -1.
        split: Name of the part: a sub-folder, the start of a Parquet file's name, or a split on the hub.
        limit: At most so many pictures, spread evenly over the source.

    Returns:
        A data set with attributes ``class_names``, ``paths``, ``labels`` and ``skipped``, the (path, reason)
        of every picture that could not be read.

    Raises:
        FileNotFoundError: If a path does not exist, or holds no pictures.
        ValueError: If nothing in it can be read, columns are missing, or a name is unknown on the hub.
        ImportError: If a hub name is given and the package ``datasets`` is not installed.

    Example:
        >>> import torch
        >>> data = open_data((torch.rand(10, 3, 8, 8), torch.arange(10)), limit=5)
        >>> [label for _, label in data]
        [0, 2, 4, 6, 8]
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}; pass limit=None for all pictures")
    if isinstance(source, (str, Path)):
        return _open_named(source, transform, labels, split, limit)
    if isinstance(source, (Tensor, np.ndarray)) or _is_pictures(source):
        return _tensors(source, None, transform, limit)
    if isinstance(source, (tuple, list)) and len(source) == 2 and _is_pictures(source[0]):
        return _tensors(source[0], source[1] if labels else None, transform, limit)
    if type(source).__module__.partition(".")[0] == "datasets":
        return _from_hub(source, "the data set", transform, labels, split, limit)
    if (
        hasattr(source, "__getitem__")
        and hasattr(source, "__len__")
        and not isinstance(source, (tuple, list))
    ):
        return (
            Subset(source, spread(len(source), limit))
            if limit is not None and limit < len(source)
            else source
        )
    if hasattr(source, "__iter__") and isinstance(getattr(source, "dataset", None), Dataset):
        return source  # a DataLoader
    raise TypeError(
        "source must be a folder, a .parquet file, a hub name, a tensor (N, C, H, W), a pair "
        f"(pictures, labels), a Dataset or a DataLoader, got {type(source).__name__}"
    )


def spread(count: int, limit: int | None) -> list[int]:
    """Return at most ``limit`` numbers below ``count``, evenly spread, so that no class is cut off."""
    if limit is None or limit >= count:
        return list(range(count))
    return [i * count // limit for i in range(limit)]


def _open_named(
    source: str | Path, transform: Transform | None, labels: bool, split: str | None, limit: int | None
) -> PictureSet:
    path = Path(source).expanduser()
    if path.is_dir():
        tables = sorted(p for p in path.glob("*.parquet") if not p.name.startswith("."))
        if tables:
            return _tables(_of_split(path, tables, split), transform, labels, limit)
        return _folder(path, transform, labels, split, limit)
    if path.is_file():
        if path.suffix.lower() == ".parquet":
            return _tables([path], transform, labels, limit)
        raise ValueError(
            f"{path} is neither a folder nor a .parquet file; pass the folder that the pictures lie in"
        )
    name = str(source)
    if isinstance(source, Path) or path.suffix == ".parquet" or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise FileNotFoundError(
            f"{source} does not exist; pass a folder of images, a .parquet file or a hub name"
        )
    if name.startswith("."):
        raise FileNotFoundError(
            f"{source} does not exist; pass a folder of images, a .parquet file or a hub name"
        )
    return _hub(name, transform, labels, split, limit)


def _folder(
    root: Path, transform: Transform | None, labels: bool, split: str | None, limit: int | None
) -> PictureSet:
    if split is not None:
        if not (root / split).is_dir():
            raise FileNotFoundError(
                f"{root} has no sub-folder {split!r} for split={split!r}; leave split out"
            )
        root = root / split
    found = sorted(
        p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file() and not _hidden(p, root)
    )
    if not found:
        raise FileNotFoundError(
            f"no pictures in {root}; expected files such as .jpg or .png, in it or in sub-folders"
        )
    classes = sorted({p.relative_to(root).parts[0] for p in found if p.parent != root}) if labels else []
    skipped = [(str(p), "lies beside the class folders") for p in found if classes and p.parent == root]
    taken = [p for p in found if not classes or p.parent != root]
    taken = [taken[i] for i in spread(len(taken), limit)]
    numbers = {name: i for i, name in enumerate(classes)}
    targets = [numbers[p.relative_to(root).parts[0]] if classes else NO_LABEL for p in taken]
    data = PictureSet(taken, targets, class_names=classes, transform=transform, skipped=skipped)
    return _checked(data, str(root))


def _hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def _of_split(folder: Path, tables: Sequence[Path], split: str | None) -> list[Path]:
    chosen = [p for p in tables if split is None or re.match(rf"{re.escape(split)}(\W|$)", p.name)]
    stems = sorted({p.stem.partition("-")[0] for p in chosen})
    if len(stems) == 1:
        return chosen
    names = ", ".join(p.name for p in tables)
    problem = (
        f"has several Parquet files ({names})"
        if chosen
        else f"has no Parquet file of split {split!r} ({names})"
    )
    raise ValueError(f"{folder} {problem}; pass one of them, or split='{tables[0].stem.partition('-')[0]}'")


def _tables(
    paths: Sequence[Path], transform: Transform | None, labels: bool, limit: int | None
) -> PictureSet:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from .columns import read_columns

    try:
        schema = pq.read_schema(paths[0])
        image, label = read_columns(paths[0], schema, _IMAGE_COLUMNS, _LABEL_COLUMNS)
        wanted = [image.name, *([label.name] if labels and label else [])]
        table = pa.concat_tables([pq.read_table(p, columns=wanted) for p in paths])
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{paths[0]} is not a readable Parquet file: {str(error).splitlines()[0]}"
        ) from error
    index = spread(table.num_rows, limit)
    if len(index) < table.num_rows:
        table = table.take(index)
    cells = table.column(image.name).to_pylist()
    sources = [cell if isinstance(cell, bytes) else _cell_source(cell, paths[0].parent) for cell in cells]
    stem = paths[0].name
    names = [_cell_path(cell) or f"{stem}#{i}" for cell, i in zip(cells, index, strict=True)]
    if not (labels and label):
        return _checked(
            PictureSet(sources, [NO_LABEL] * len(sources), paths=names, transform=transform), stem
        )
    targets, class_names = label.numbers(table.column(label.name).to_pylist())
    data = PictureSet(sources, targets, paths=names, class_names=class_names, transform=transform)
    return _checked(data, stem)


def _cell_source(cell: Any, folder: Path) -> Any:
    if isinstance(cell, dict):
        if cell.get("bytes") is not None:
            return cell["bytes"]
        return folder / cell["path"] if cell.get("path") else b""
    return folder / cell if isinstance(cell, str) else b""


def _cell_path(cell: Any) -> str | None:
    path = cell.get("path") if isinstance(cell, dict) else cell if isinstance(cell, str) else None
    return str(path) if path else None


def _hub(
    name: str, transform: Transform | None, labels: bool, split: str | None, limit: int | None
) -> PictureSet:
    try:
        import datasets
    except ImportError as error:
        raise ImportError(
            f"no folder or file {name!r} exists here; to load it from the hub: pip install 'upright[hf]'"
        ) from error
    try:
        cached = Path(datasets.config.HF_DATASETS_CACHE, name.replace("/", "___")).is_dir()
        if not hub_answers(name, "dataset") and not cached:
            raise ConnectionError("it cannot be reached; check connection and name")
        opened = datasets.load_dataset(name, split=split)
    except Exception as error:  # the hub client raises many kinds
        text = str(error).strip().splitlines()
        reason = text[0] if text else type(error).__name__
        raise ValueError(
            f"no folder or file {name!r} exists here, and the hub gave no data set of that name: {reason}"
        ) from error
    return _from_hub(opened, name, transform, labels, split, limit)


def _from_hub(
    opened: Any, name: str, transform: Transform | None, labels: bool, split: str | None, limit: int | None
) -> PictureSet:
    if isinstance(opened, dict):  # a DatasetDict
        if split is None and len(opened) > 1:
            raise ValueError(f"{name} has the splits {', '.join(opened)}; choose one with split=…")
        if split is not None and split not in opened:
            raise ValueError(f"{name} has no split {split!r}; it has {', '.join(opened)}")
        opened = opened[split] if split is not None else next(iter(opened.values()))
    import datasets

    from .columns import hub_columns

    image, label = hub_columns(name, opened.features, _IMAGE_COLUMNS, _LABEL_COLUMNS)
    index = spread(len(opened), limit)
    chosen = opened.select(index) if len(index) < len(opened) else opened
    cells = chosen.cast_column(image.name, datasets.Image(decode=False))[image.name]
    sources = [_cell_source(cell, Path(".")) for cell in cells]
    names = [_cell_path(cell) or f"{name}#{i}" for cell, i in zip(cells, index, strict=True)]
    targets, class_names = [NO_LABEL] * len(sources), list[str]()
    if labels and label:
        targets, class_names = label.numbers(list(chosen[label.name]))
    data = PictureSet(sources, targets, paths=names, class_names=class_names, transform=transform)
    return _checked(data, name)


def _tensors(pictures: Any, labels: Any, transform: Transform | None, limit: int | None) -> TensorSet:
    pictures = torch.as_tensor(pictures) if isinstance(pictures, np.ndarray) else pictures
    if not len(pictures):
        raise ValueError("pictures must not be empty; got 0 of them")
    data = TensorSet(pictures, labels, transform=transform)
    if limit is None or limit >= len(data):
        return data
    index = spread(len(data), limit)
    chosen = pictures[index] if isinstance(pictures, Tensor) else [pictures[i] for i in index]
    return TensorSet(chosen, None if data.targets is None else data.targets[index], transform=transform)


def _is_pictures(x: Any) -> bool:
    if isinstance(x, (Tensor, np.ndarray)):
        return x.ndim >= 2
    return (
        isinstance(x, (list, tuple))
        and bool(len(x))
        and all(isinstance(p, Tensor) and is_thing(p.shape) and p.ndim == x[0].ndim for p in x)
    )


def _checked(data: PictureSet, name: str) -> PictureSet:
    if not len(data):
        path, reason = data.skipped[0] if data.skipped else (name, "it is empty")
        raise ValueError(
            f"none of the {len(data.skipped)} pictures of {name} can be read; the first, {path}: {reason}"
        )
    return data
