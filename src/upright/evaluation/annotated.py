"""Pictures with maps, boxes, masks, key points or texts, from folders, Parquet files and COCO's JSON.

What is read, by task:

* maps (``segmentation``, ``depth``): ``images/`` beside ``masks/`` or ``depth/``, files of the same stem; or
  a Parquet file with a column ``image`` and one of that name;
* things (``detection``, ``instances``, ``keypoints``): a folder of pictures and a JSON file in COCO's layout;
  or ``images/`` beside ``instances/``, or a Parquet file with those columns: maps with 0 for the background
  and a number a thing;
* ``text``: every picture beside a ``.txt`` file of the same stem; or columns ``image`` and ``text``;
* ``retrieval``: as for classification, a folder a class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from .._checks import check_choice
from ..data.decode import check_picture, read_picture, to_tensor
from ..data.sources import SUFFIXES, open_data, spread
from .annotations import MAPS, Read, read_coco, read_instances, read_text
from .framing import Frame, frame_of, framed

_COLUMNS = {"segmentation": ("mask", "masks"), "depth": ("depth",), "text": ("text", "texts")}
_FOLDERS = {"segmentation": ("masks", "mask"), "depth": ("depth", "depths")}
_THINGS = ("detection", "instances", "keypoints")


class Annotated(Dataset[tuple[Tensor, Any]]):
    """Encoded pictures with targets, decoded when they are asked for; the target follows the preprocessing.

    Args:
        sources: A path or the bytes of every picture.
        raw: What every target is made of.
        read: Makes the target of a picture: ``read(raw, size)``, size ``(height, width)``.
        preprocess: What makes a tensor ``(C, H, W)`` of an RGB picture; None: values in 0…1.

    Attributes:
        skipped: (path, reason) of pictures that could not be read and were left out.
    """

    def __init__(
        self,
        sources: Sequence[Any],
        raw: Sequence[Any],
        read: Read,
        preprocess: Callable[[Any], Tensor] | None = None,
    ) -> None:
        reasons = [check_picture(source) for source in sources]
        kept = [i for i, reason in enumerate(reasons) if reason is None]
        self.sources, self.raw = [sources[i] for i in kept], [raw[i] for i in kept]
        self.read, self.preprocess = read, preprocess
        self.skipped = [
            (str(source) if isinstance(source, Path) else f"picture {i}", reason)
            for i, (source, reason) in enumerate(zip(sources, reasons, strict=True))
            if reason is not None
        ]
        if not kept:
            raise ValueError(
                f"none of the {len(sources)} pictures can be read; the first: {self.skipped[0][1]}"
            )

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        picture = read_picture(self.sources[index])
        size = (picture.height, picture.width)
        target = self.read(self.raw[index], size)
        x = (self.preprocess or to_tensor)(picture)
        frame: Frame = frame_of(self.preprocess, size, tuple(x.shape))
        return x, framed(frame, target)


def open_annotated(
    task: str,
    source: Any,
    *,
    annotations: Any = None,
    preprocess: Callable[[Any], Tensor] | None = None,
    split: str | None = None,
    limit: int | None = None,
) -> Any:
    """Open data of a task, to be given to `upright.evaluate`; the module says what is read.

    Args:
        task: A name in `upright.evaluation.TASKS`.
        source: A folder or a Parquet file.
        annotations: A JSON file in COCO's layout, for things; None: the one ``.json`` file of the folder.
        preprocess: What makes a tensor ``(C, H, W)`` of an RGB picture; targets follow if it keeps the
            picture's size, or is a `upright.integrations.SquarePreprocess`.
        split: A sub-folder, or the start of a Parquet file's name.
        limit: At most so many pictures, spread evenly.

    Returns:
        A data set of (picture, target).

    Raises:
        FileNotFoundError: If the source, or what belongs to a picture, does not exist.
        ValueError: If nothing in it can be read as data of the task.
    """
    from .tasks import TASKS

    check_choice("task", task, TASKS)
    if task in ("classification", "retrieval"):
        return open_data(source, transform=preprocess, split=split, limit=limit)
    if annotations is not None and task not in _THINGS:
        raise ValueError(f"annotations belong to {', '.join(_THINGS)}, not to {task}; leave them out")
    path = Path(source).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"{source} does not exist; pass a folder or a .parquet file")
    tables = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if annotations is None and tables:
        pictures, raw, read = _from_table(task, _table_of(path, tables, split))
    else:
        root = path if split is None else path / split
        if not root.is_dir():
            raise FileNotFoundError(f"{root} is no folder; pass the folder that the pictures lie in")
        pictures, raw, read = _from_folder(task, root, annotations)
    chosen = spread(len(pictures), limit)
    return Annotated([pictures[i] for i in chosen], [raw[i] for i in chosen], read, preprocess)


def _table_of(path: Path, tables: list[Path], split: str | None) -> Path:
    chosen = [t for t in tables if split is None or t.name.startswith(split)]
    if len(chosen) != 1 or chosen[0].suffix != ".parquet":
        names = ", ".join(t.name for t in tables)
        raise ValueError(f"{path} must be, or hold, one .parquet file, or a folder of pictures; got {names}")
    return chosen[0]


def _from_table(task: str, path: Path) -> tuple[list[Any], list[Any], Read]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    wanted = _COLUMNS.get(task, ("instances",))
    try:
        names = pq.read_schema(path).names
        target = next((name for name in wanted if name in names), None)
        if task == "keypoints" or "image" not in names or target is None:
            needed = (
                "a folder with COCO's JSON" if task == "keypoints" else f"columns 'image' and {wanted[0]!r}"
            )
            raise ValueError(f"{path} must have {needed} for task {task!r}, got the columns {names}")
        table = pq.read_table(path, columns=["image", target])
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no readable Parquet file: {str(error).splitlines()[0]}") from error
    pictures, raw = (
        [_cell(cell, path.parent) for cell in table.column(n).to_pylist()] for n in ("image", target)
    )
    read = read_text if task == "text" else MAPS.get(task, read_instances)
    return pictures, raw, read


def _cell(cell: Any, folder: Path) -> Any:
    if isinstance(cell, dict):
        return cell["bytes"] if cell.get("bytes") is not None else folder / str(cell.get("path"))
    return cell


def _from_folder(task: str, root: Path, annotations: Any) -> tuple[list[Any], list[Any], Read]:
    if task == "text":
        pictures = _pictures(root)
        return list(pictures), [_beside(p, p.with_suffix(".txt")) for p in pictures], read_text
    names = _FOLDERS.get(task, ("instances",))
    beside = next((root / name for name in names if (root / name).is_dir()), None)
    if task in _THINGS and (annotations is not None or beside is None):
        return read_coco(root, _json_of(root, annotations), task)
    if beside is None or not (root / "images").is_dir():
        raise FileNotFoundError(f"{root} must hold the folders 'images' and {names[0]!r} for task {task!r}")
    if task == "keypoints":
        raise ValueError("keypoints are read from COCO's JSON; name the file with annotations=…")
    pictures = _pictures(root / "images")
    files = {p.stem: p for p in sorted(beside.iterdir()) if p.suffix.lower() in {*SUFFIXES, ".npy"}}
    raw = [_beside(p, files.get(p.stem, beside / f"{p.stem}.png")) for p in pictures]
    return list(pictures), raw, MAPS.get(task, read_instances)


def _pictures(root: Path) -> list[Path]:
    found = sorted(p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not found:
        raise FileNotFoundError(f"no pictures in {root}; expected files such as .jpg or .png")
    return found


def _beside(picture: Path, target: Path) -> Path:
    if not target.is_file():
        raise FileNotFoundError(f"{picture} has no target: {target} does not exist")
    return target


def _json_of(root: Path, annotations: Any) -> Path:
    if annotations is not None:
        path = Path(annotations).expanduser()
        if not path.is_file():
            raise FileNotFoundError(
                f"annotations {annotations} do not exist; pass a JSON file in COCO's layout"
            )
        return path
    found = sorted(root.glob("*.json"))
    if len(found) != 1:
        got = ", ".join(p.name for p in found) or "none"
        raise ValueError(
            f"{root} must hold one .json file in COCO's layout, got {got}; name it: annotations=…"
        )
    return found[0]
