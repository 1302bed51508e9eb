"""Targets from files: maps, numbered things, texts, and COCO's annotations."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..adapter.spec import Size
from ..data.decode import open_picture

Read = Callable[[Any, Size], Any]
"""Makes a target of what stands for it, given the (height, width) of its picture."""


def read_map(raw: Any, size: Size) -> Tensor:
    """Return the numbers of a map, shape ``size``, int64; colours of palettes are the numbers.

    Raises:
        ValueError: If it is no map of one number a pixel, or of another size than the picture.
    """
    return torch.from_numpy(_values(raw, size)).long()


def read_depth(raw: Any, size: Size) -> Tensor:
    """Return the distances of a map, shape ``size``, float32, in the unit of the file."""
    return torch.from_numpy(_values(raw, size).astype(np.float32))


MAPS: dict[str, Read] = {"segmentation": read_map, "depth": read_depth}
"""How maps are read, by task."""


def _values(raw: Any, size: Size) -> np.ndarray:
    try:
        if isinstance(raw, Path) and raw.suffix == ".npy":
            values = np.load(raw, allow_pickle=False)
        else:
            with open_picture(raw) as opened:
                values = np.array(opened)
    except Exception as error:  # readers of damaged files raise any kind
        raise ValueError(f"the map {_name(raw)} cannot be read: {_first_line(error)}") from error
    if values.dtype.kind not in "biuf":
        raise ValueError(f"the map {_name(raw)} must hold numbers, got {values.dtype}")
    if values.ndim != 2 or values.shape != size:
        raise ValueError(
            f"the map {_name(raw)} must hold one number a pixel, {size[0]}×{size[1]} as its picture, got "
            f"shape {values.shape}"
        )
    return np.asarray(values, np.float64 if values.dtype.kind == "f" else np.int64)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _name(raw: Any) -> str:
    return str(raw) if isinstance(raw, Path) else "of a picture"


def read_instances(raw: Any, size: Size) -> dict[str, Tensor]:
    """Return the things of a map that numbers them from 1: masks, the boxes around them, label 1."""
    numbers = read_map(raw, size)
    found = torch.unique(numbers[numbers > 0])  # as many as there are, however large
    masks = numbers == found.view(-1, 1, 1)
    return {
        "masks": masks,
        "boxes": boxes_around(masks),
        "labels": torch.ones(len(masks), dtype=torch.long),
    }


def boxes_around(masks: Tensor) -> Tensor:
    """Return the boxes around masks ``(N, H, W)``, xyxy in pixels, shape ``(N, 4)``, float32."""
    ends = []
    for axis in (1, 2):  # along y, then along x
        hit = masks.any(axis)  # (N, W), then (N, H)
        first = hit.long().argmax(1)
        last = hit.shape[1] - hit.flip(1).long().argmax(1)
        ends.append((first, last))
    (left, right), (top, bottom) = ends
    return torch.stack([left, top, right, bottom], 1).float()


def read_text(raw: Any, size: Size) -> str:
    """Return a text, given as such or as a file."""
    return raw.read_text(encoding="utf-8") if isinstance(raw, Path) else str(raw)


def read_coco(root: Path, path: Path, task: str) -> tuple[list[Any], list[Any], Read]:
    """Return the pictures of a JSON file in COCO's layout, their annotations, and how these are read.

    Raises:
        FileNotFoundError: If a picture does not exist.
        ValueError: If the file is in another layout.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        images = {image["id"]: image for image in data["images"]}
        names = [str(image["file_name"]) for image in images.values()]
        things: dict[Any, list[Any]] = {number: [] for number in images}
        for thing in data["annotations"]:
            things[thing["image_id"]].append(thing)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path} must be JSON in COCO's layout, with 'images' and 'annotations': {type(error).__name__}: "
            f"{error}"
        ) from error
    folders = [folder for folder in (root, root / "images") if folder.is_dir()]
    pictures = []
    for name in names:
        found = next((f / name for f in folders if "\0" not in name and (f / name).is_file()), None)
        if found is None:
            raise FileNotFoundError(f"{path} names {name!r}, which is not in {root}")
        pictures.append(found)
    raw = [(images[number], things[number]) for number in images]
    return pictures, raw, lambda one, size: _checked_things(one, size, task, path)


def _checked_things(raw: Any, size: Size, task: str, path: Path) -> dict[str, Tensor]:
    """Return the things of a picture; raises ValueError, which names the file, if they cannot be read."""
    try:
        return _things(raw, size, task)
    except ImportError:
        raise
    except Exception as error:  # what stands in the file may be anything
        what = f"lacks {error}" if isinstance(error, KeyError) else _first_line(error)
        raise ValueError(
            f"{path}: the annotations of {raw[0]['file_name']!r} cannot be read: {what}"
        ) from error


def _things(raw: tuple[Mapping[str, Any], list[Any]], size: Size, task: str) -> dict[str, Tensor]:
    image, things = raw
    stated = (image.get("height", size[0]), image.get("width", size[1]))
    if stated != size:
        raise ValueError(
            f"{image.get('file_name')} is {size[0]}×{size[1]} upright, but its annotations are of "
            f"{stated[0]}×{stated[1]}; take the EXIF orientation out of the file"
        )
    if task == "keypoints":
        things = [thing for thing in things if thing.get("keypoints")]
    boxes = torch.tensor([thing["bbox"] for thing in things], dtype=torch.float32).view(-1, 4)
    if not bool(boxes.isfinite().all()):
        raise ValueError(f"boxes must be finite numbers, got {boxes[~boxes.isfinite().all(1)][0].tolist()}")
    boxes[:, 2:] += boxes[:, :2]  # x, y, width, height before
    made = {
        "boxes": boxes,
        "labels": torch.tensor([int(thing["category_id"]) for thing in things], dtype=torch.long),
        "iscrowd": torch.tensor([int(thing.get("iscrowd", 0)) for thing in things], dtype=torch.long),
    }
    if task == "instances":
        masks = [_mask(thing["segmentation"], size) for thing in things]
        made["masks"] = torch.stack(masks) if masks else torch.zeros(0, *size, dtype=torch.bool)
    if task == "keypoints":
        points = [torch.tensor(thing["keypoints"], dtype=torch.float32).view(-1, 3) for thing in things]
        made["keypoints"] = torch.stack(points) if points else torch.zeros(0, 17, 3)
        areas = [float(thing.get("area", 0.53 * thing["bbox"][2] * thing["bbox"][3])) for thing in things]
        made["area"] = torch.tensor(areas, dtype=torch.float32)
    return made


def _mask(segmentation: Any, size: Size) -> Tensor:
    """Return a mask, shape ``size``, bool, of polygons or of run lengths.

    What stands in a file is checked first: the decoder, written in C++, takes it at its word.

    Raises:
        ValueError: If polygons lie far off the picture, or run lengths do not fill it.
    """
    try:
        from faster_coco_eval.core import mask as coder
    except ImportError as error:
        raise ImportError("masks of COCO need faster-coco-eval; pip install 'upright[metrics]'") from error
    if isinstance(segmentation, list):
        coded = coder.merge(coder.frPyObjects(_polygons(segmentation, size), *size))
    else:
        if list(segmentation["size"]) != list(size):
            got = segmentation["size"]
            raise ValueError(f"run lengths must be of {size[0]}×{size[1]} as the picture, got {got!r:.40}")
        coded = coder.frPyObjects({"size": list(size), "counts": _runs(segmentation["counts"], size)}, *size)
    return torch.from_numpy(np.ascontiguousarray(coder.decode(coded))).bool()


def _polygons(polygons: list[Any], size: Size) -> list[list[float]]:
    """Return polygons as lists of numbers: x and y of one corner after the other."""
    reach = 4.0 * max(size)
    made = [[float(v) for v in polygon] for polygon in polygons]
    for polygon in made:
        if len(polygon) < 6 or len(polygon) % 2 or not all(abs(v) <= reach for v in polygon):
            raise ValueError(
                f"a polygon must be three or more pairs x, y on the picture or near it, got {polygon!r:.60}"
            )
    if not made:
        raise ValueError("a segmentation must hold a polygon, got none")
    return made


def _runs(counts: Any, size: Size) -> list[int]:
    """Return run lengths as numbers, also those packed as text, six bits a character with differences."""
    runs = list(counts) if isinstance(counts, list) else []
    at, data = 0, b"" if isinstance(counts, list) else counts.encode() if isinstance(counts, str) else counts
    while at < len(data):
        value, shift, more = 0, 0, True
        while more and shift < 60:
            bits = data[at] - 48
            value |= (bits & 0x1F) << shift
            more, shift, at = bool(bits & 0x20), shift + 5, at + 1
        if bits & 0x10:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
    if not all(type(run) is int and run >= 0 for run in runs) or sum(runs) != size[0] * size[1]:
        raise ValueError(f"run lengths must be whole numbers that fill {size[0]}×{size[1]}, got {runs!r:.60}")
    return runs
