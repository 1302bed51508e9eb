"""Reads the parts of ShapeNet: sixteen classes, fifty parts (Yi et al. 2016).

Both releases that are in use are read; `open_shapenet_parts` tells them apart:

    shapenetcore_partanno_segmentation_benchmark_v0_normal/
        synsetoffset2category.txt, train_test_split/shuffled_train_file_list.json, 02691156/<object>.txt
    hdf5_data/
        all_object_categories.txt, train_hdf5_file_list.txt, ply_data_train0.h5

In both y points up, and parts are numbered over all classes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .._checks import check_choice, check_positive
from .clouds import CloudSet, normalized, upended
from .modelnet import chosen, hdf5_files, read_hdf5

_FIRST = {
    "Airplane": 0, "Bag": 4, "Cap": 6, "Car": 8, "Chair": 12, "Earphone": 16, "Guitar": 19, "Knife": 22,
    "Lamp": 24, "Laptop": 28, "Motorbike": 30, "Mug": 36, "Pistol": 38, "Rocket": 41, "Skateboard": 44,
    "Table": 47,
}  # fmt: skip
_ENDS = [*list(_FIRST.values())[1:], 50]
PARTS_OF = {name: list(range(first, end)) for (name, first), end in zip(_FIRST.items(), _ENDS, strict=True)}
"""The parts of every class: class name to part numbers."""


def open_shapenet_parts(
    folder: str | Path,
    split: str = "train",
    *,
    points: int = 2048,
    classes: Sequence[str] | None = None,
    up: str = "y",
    seed: int = 0,
) -> CloudSet:
    """Read one split.

    Args:
        folder: The folder that a release unpacks to.
        split: "train", "val" or "test".
        points: Points per object. Text files hold different numbers: so many are drawn, again and again
            where there are fewer; of HDF5 files the first are taken.
        classes: Read these only, and number them in this order; default: all.
        up: Which axis points up in the files, "y" or "z".
        seed: Of the draws; an object gives the same points whatever else is read.

    Returns:
        Clouds about their centroid, of radius 1, z up, with parts, and normals where the files have some.

    Raises:
        FileNotFoundError: If the folder holds neither release, or lacks a file that its lists name.
        ValueError: If a class, the split or a file is not as it should be.
        ImportError: If HDF5 files are met without h5py.
    """
    check_choice("split", split, ("train", "val", "test"))
    check_positive("points", points)
    root = Path(folder)
    if (root / "synsetoffset2category.txt").is_file():
        arrays, names = _from_text(root, split, points, classes, seed)
    else:
        arrays, names = _from_hdf5(root, split, points, classes)
    normals = arrays.get("normal")
    return CloudSet(
        normalized(upended(torch.from_numpy(arrays["data"]), up)).float(),
        torch.from_numpy(arrays["label"]),
        names,
        parts=torch.from_numpy(arrays["pid"].astype(np.int64)),
        normals=None if normals is None else upended(torch.from_numpy(normals), up).float(),
        part_names=[f"{name} {k}" for name, own in PARTS_OF.items() for k in range(len(own))],
        parts_of={name: PARTS_OF[name] for name in names if name in PARTS_OF},
    )


def _categories(path: Path) -> dict[str, str]:
    """Return the folder of every class, from lines of a name and a number."""
    lines = path.read_bytes().decode("utf-8", "replace").splitlines()
    pairs = [line.split() for line in lines if line.strip()]
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"{path} must hold lines of a class and its number, as 'Airplane 02691156'")
    return {name: number for name, number in pairs}


def _from_text(
    root: Path, split: str, points: int, classes: Sequence[str] | None, seed: int
) -> tuple[dict[str, Any], list[str]]:
    folders = _categories(root / "synsetoffset2category.txt")
    names = chosen(classes, list(folders))
    listing = root / "train_test_split" / f"shuffled_{split}_file_list.json"
    if not listing.is_file():
        raise FileNotFoundError(f"{root} must hold {listing.relative_to(root)}, which says what the split is")
    label_of = {folders[name]: i for i, name in enumerate(names)}
    rows, labels = [], []
    for number, item in _listed(listing):
        if number in label_of:
            rows.append(_read_object(root / number / f"{item}.txt", points, seed))
            labels.append(label_of[number])
    if not rows:
        raise ValueError(f"{listing} must name objects of the classes {', '.join(names)}, got none")
    table = np.stack(rows)
    arrays = {"data": table[..., :3], "normal": table[..., 3:6], "pid": table[..., 6]}
    return {**arrays, "label": np.array(labels, dtype=np.int64)}, names


def _listed(listing: Path) -> list[tuple[str, str]]:
    """Return the folders and names of objects, from a list of ``"shape_data/02691156/<object>"``."""
    try:
        entries = [str(entry).split("/") for entry in json.loads(listing.read_text(encoding="utf-8"))]
        return [(number, item) for *_, number, item in entries]
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{listing} must be a list of names as 'shape_data/02691156/<object>': {error}"
        ) from error


def _read_object(path: Path, points: int, seed: int) -> Any:
    """Read lines ``x y z nx ny nz part`` and draw some."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is absent, though the split names it")
    try:
        lines = path.read_bytes().decode("utf-8", "replace").split("\n")
        table = np.array([line.split() for line in lines if line.strip()], dtype=np.float64)
    except ValueError as error:
        raise ValueError(f"{path} must hold lines of 7 numbers: {error}") from error
    if table.shape[1:] != (7,) or not len(table):
        raise ValueError(f"{path} must hold lines of 7 numbers (x y z nx ny nz part), got {table.shape}")
    if not np.isfinite(table).all() or not (np.abs(table[:, 6]) < 2**31).all():
        raise ValueError(f"{path} must hold finite numbers")
    random = np.random.default_rng([seed, *path.stem.encode()])
    return table[random.choice(len(table), points, replace=len(table) < points)]


def _from_hdf5(
    root: Path, split: str, points: int, classes: Sequence[str] | None
) -> tuple[dict[str, Any], list[str]]:
    files = hdf5_files(root, f"{split}_hdf5_file_list.txt", f"ply_data_{split}*.h5")
    if not files or not (root / "all_object_categories.txt").is_file():
        raise FileNotFoundError(
            f"{root} must hold synsetoffset2category.txt and text files, or all_object_categories.txt and "
            f"ply_data_{split}*.h5; found neither"
        )
    known = list(_categories(root / "all_object_categories.txt"))
    names = chosen(classes, known)
    arrays = read_hdf5(files, ["data", "label", "pid"], len(known))
    if "pid" not in arrays:
        raise ValueError(f"the files of {root} must hold pid, the part of every point; this is another set")
    if points > arrays["data"].shape[1]:
        raise ValueError(f"points must be at most {arrays['data'].shape[1]} with these files, got {points}")
    label = arrays["label"].reshape(-1).astype(np.int64)
    rows = np.flatnonzero(np.isin(label, [known.index(name) for name in names]))
    return {
        "data": arrays["data"][rows, :points],
        "pid": arrays["pid"][rows, :points],
        "label": np.array([names.index(known[i]) for i in label[rows]], dtype=np.int64),
    }, names
