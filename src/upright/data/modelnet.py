"""Reads ModelNet10 and ModelNet40, as meshes (OFF) or as points (HDF5).

The two releases look like this; `open_modelnet` tells them apart:

    ModelNet40/airplane/train/airplane_0001.off                         (Wu et al., arXiv:1406.5670; z up)
    modelnet40_ply_hdf5_2048/{train_files.txt, ply_data_train0.h5, shape_names.txt}     (PointNet's; y up)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .._checks import check_choice, check_positive
from .clouds import CloudSet, normalized, upended
from .meshes import Mesh, sample_surface


def open_modelnet(
    folder: str | Path,
    split: str = "train",
    *,
    points: int = 1024,
    classes: Sequence[str] | None = None,
    up: str | None = None,
    seed: int = 0,
) -> CloudSet:
    """Read one split.

    Args:
        folder: The folder that a release unpacks to.
        split: "train" or "test".
        points: Points per cloud. On meshes they are drawn evenly from the surface; of HDF5 files the first
            are taken, as is usual.
        classes: Read these only, and number them in this order; default: all.
        up: Which axis points up in the files, "y" or "z"; default: "z" for OFF, "y" for HDF5.
        seed: Of the draws from meshes; a mesh gives the same points whatever else is read.

    Returns:
        Clouds about their centroid, of radius 1, z up, with normals where the files allow.

    Raises:
        FileNotFoundError: If the folder holds neither release.
        ValueError: If a class, the split or a file is not as it should be.
        ImportError: If HDF5 files are met without h5py.
    """
    check_choice("split", split, ("train", "test"))
    check_positive("points", points)
    root = Path(folder)
    files = hdf5_files(root, f"{split}_files.txt", f"ply_data_{split}*.h5")
    if files:
        return _from_hdf5(root, files, points, classes, up or "y")
    return _from_meshes(root, split, points, classes, up or "z", seed)


def read_off(path: str | Path) -> Mesh:
    """Read a mesh in the Object File Format.

    Comments, colours and polygons are borne (these become fans of triangles), and so is the header of some
    files of ModelNet, where ``OFF`` and the counts stand on one line without a space.

    Args:
        path: The file.

    Returns:
        The mesh.

    Raises:
        ValueError: If the file is not in that format, is cut off, or names corners that it does not have.
    """
    text = Path(path).read_bytes().decode("utf-8", "replace")
    lines = [s for line in text.splitlines() if (s := line.partition("#")[0].strip())]
    if not lines or not lines[0].startswith(("OFF", "COFF")):
        raise ValueError(f"{path} must begin with OFF, got {lines[0][:20] if lines else 'an empty file'!r}")
    counts = lines[0].removeprefix("C").removeprefix("OFF").split()
    body = lines[1:] if counts else lines[2:]
    try:
        corners, polygons = (int(n) for n in (counts or lines[1].split())[:2])
        if min(corners, polygons) < 0:
            raise ValueError
    except (ValueError, IndexError) as error:
        raise ValueError(f"{path}: the numbers of vertices and faces must follow OFF") from error
    if len(body) < corners + polygons:
        raise ValueError(f"{path} must hold {corners} vertices and {polygons} faces, got {len(body)} lines")
    try:
        vertices = np.array([line.split()[:3] for line in body[:corners]], dtype=np.float64).reshape(-1, 3)
        faces = np.array(list(_triangles(body[corners : corners + polygons])), dtype=np.int64).reshape(-1, 3)
    except (ValueError, IndexError, OverflowError) as error:
        raise ValueError(f"{path}: a vertex or a face cannot be read: {error}") from error
    if not np.isfinite(vertices).all():
        raise ValueError(f"{path}: vertices must be finite")
    if faces.size and not 0 <= faces.min() <= faces.max() < corners:
        raise ValueError(f"{path}: faces must name vertices 0 to {corners - 1}, got up to {faces.max()}")
    return Mesh(vertices, faces)


def write_off(path: str | Path, mesh: Mesh) -> None:
    """Write a mesh in the Object File Format.

    Args:
        path: The file; it is replaced if it exists.
        mesh: What is written.
    """
    head = [f"OFF\n{len(mesh.vertices)} {len(mesh.faces)} 0"]
    vertices = [" ".join(f"{x:.9g}" for x in row) for row in mesh.vertices.tolist()]
    faces = ["3 " + " ".join(map(str, row)) for row in mesh.faces.tolist()]
    Path(path).write_text("\n".join(head + vertices + faces) + "\n")


def hdf5_files(root: Path, listing: str, pattern: str) -> list[Path]:
    """Return the HDF5 files of a split: those that a list in the folder names, or all that match.

    Lists name files by paths on their authors' machines; the last part is what counts.

    Raises:
        FileNotFoundError: If a file that the list names is absent.
    """
    if not (root / listing).is_file():
        return sorted(root.glob(pattern))
    named = [
        root / Path(line.strip()).name for line in (root / listing).read_text().splitlines() if line.strip()
    ]
    absent = [file.name for file in named if not file.is_file()]
    if absent:
        raise FileNotFoundError(f"{root / listing} names {', '.join(absent)}, absent from {root}")
    return named


def read_hdf5(files: Iterable[Path], names: Sequence[str], classes: int = 2**16) -> dict[str, Any]:
    """Read arrays of all files, joined along their first axis; what a file lacks is left out.

    Args:
        files: HDF5 files.
        names: Which arrays; "data" and "label" must be there.
        classes: How many there are.

    Raises:
        ImportError: If h5py is absent.
        ValueError: If a file lacks "data" or "label", or they are not clouds and classes of these.
    """
    try:
        import h5py
    except ImportError as error:
        raise ImportError("HDF5 files need h5py: pip install 'upright[clouds]'") from error
    parts: dict[str, list[Any]] = {name: [] for name in names}
    files = list(files)
    for path in files:
        try:
            with h5py.File(path, "r") as file:
                held = {name: _array(file[name], path) for name in parts.keys() & set(file)}
        except FileNotFoundError:
            raise
        except Exception as error:  # of a damaged file any kind
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise ValueError(f"{path} is no readable HDF5 file: {reason}") from error
        if {"data", "label"} - set(held):
            raise ValueError(f"{path} must hold data and label, got {', '.join(sorted(held)) or 'nothing'}")
        _check_arrays(path, held, classes)
        for name, array in held.items():
            parts[name].append(array)
    counts = sorted({array.shape[1] for array in parts["data"]})
    if len(counts) > 1:
        raise ValueError(f"{files[0]} and the others must hold clouds of one size, got {counts} points")
    return {name: np.concatenate(found) for name, found in parts.items() if len(found) == len(files)}


def _array(dataset: Any, path: Path) -> Any:
    """Read an array, unless it claims more than its file can hold: deflate packs 1032 bytes into one."""
    if dataset.nbytes > 1032 * path.stat().st_size:
        raise ValueError(f"it claims {dataset.nbytes:,} bytes, more than it can hold")
    return dataset[:]


def _check_arrays(path: Path, held: dict[str, Any], classes: int) -> None:
    """Raise ValueError unless the arrays of a file are clouds and what belongs to them."""
    data, label = held["data"], held["label"]
    if data.ndim != 3 or data.shape[2] != 3 or not data.size or data.dtype.kind not in "fiu":
        raise ValueError(f"{path}: data must be numbers (N, P, 3), got {data.dtype} {data.shape}")
    shapes = {"normal": data.shape, "pid": data.shape[:2]}
    for name, shape in shapes.items():
        if name in held and (held[name].shape != shape or held[name].dtype.kind not in "fiu"):
            raise ValueError(f"{path}: {name} must be numbers {shape}, got {held[name].shape}")
    if label.size != len(data) or label.dtype.kind not in "iu":
        raise ValueError(f"{path}: label must be {len(data)} whole numbers, got {label.dtype} {label.shape}")
    if not 0 <= label.min() <= label.max() < classes:
        raise ValueError(f"{path}: labels must lie in 0 to {classes - 1}, got {label.min()} to {label.max()}")
    if not all(np.isfinite(array).all() for array in held.values()):
        raise ValueError(f"{path}: points must be finite")


def chosen(classes: Sequence[str] | None, names: Sequence[str]) -> list[str]:
    """Return the classes to read, checked against those that there are."""
    for name in classes or ():
        check_choice("classes", name, names)
    return list(classes or names)


def _from_hdf5(
    root: Path, files: list[Path], points: int, classes: Sequence[str] | None, up: str
) -> CloudSet:
    listing = root / "shape_names.txt"
    listed = listing.read_text(errors="replace").split() if listing.is_file() else None
    arrays = read_hdf5(files, ["data", "label", "normal"], 2**16 if listed is None else len(listed))
    data, label = arrays["data"], arrays["label"].reshape(-1).astype(np.int64)
    if points > data.shape[1]:
        raise ValueError(f"points must be at most {data.shape[1]} with the files of {root}, got {points}")
    names = [str(i) for i in range(int(label.max()) + 1)] if listed is None else listed
    kept = chosen(classes, names)
    rows = np.flatnonzero(np.isin(label, [names.index(name) for name in kept]))
    normals = None
    if "normal" in arrays:
        normals = upended(torch.from_numpy(arrays["normal"][rows, :points]).float(), up)
    return CloudSet(
        normalized(upended(torch.from_numpy(data[rows, :points]).float(), up)),
        torch.tensor([kept.index(names[i]) for i in label[rows]], dtype=torch.long),
        kept,
        normals=normals,
    )


def _from_meshes(
    root: Path, split: str, points: int, classes: Sequence[str] | None, up: str, seed: int
) -> CloudSet:
    names = sorted(p.parent.name for p in root.glob(f"*/{split}"))
    if not names:
        raise FileNotFoundError(
            f"{root} must hold folders <class>/{split} of OFF files, or ply_data_{split}*.h5; found neither"
        )
    kept = chosen(classes, names)
    clouds, normals, labels = [], [], []
    for label, name in enumerate(kept):
        for path in sorted((root / name / split).glob("*.off")):
            random = np.random.default_rng([seed, *path.stem.encode()])
            cloud, normal, _ = sample_surface(read_off(path), points, random)
            clouds.append(torch.from_numpy(cloud))
            normals.append(torch.from_numpy(normal))
            labels.append(label)
    if not clouds:
        raise FileNotFoundError(f"{root} must hold files *.off in <class>/{split}, found none")
    return CloudSet(
        normalized(upended(torch.stack(clouds), up)).float(),
        torch.tensor(labels),
        kept,
        normals=upended(torch.stack(normals), up).float(),
    )


def _triangles(lines: Iterable[str]) -> Iterable[list[int]]:
    for line in lines:
        count, *rest = line.split()
        corners = [int(c) for c in rest[: int(count)]]
        if not 0 <= int(count) <= len(corners):
            raise ValueError(f"a face of {count} corners names {len(corners)}")
        for k in range(1, len(corners) - 1):
            yield [corners[0], corners[k], corners[k + 1]]
