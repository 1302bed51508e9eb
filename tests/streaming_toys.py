"""Sources of photos that lie in all quarter turns, and a canonicalizer that is always right about them."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

import upright
from cli_work import photo


def always_right():
    return upright.canonicalizer("C4", "cli_work:Toward", size=16, standardize=False)


def lying(number, form="PNG", **settings):
    """Return photo ``number``, turned by as many quarter turns, encoded."""
    file = io.BytesIO()
    photo(number).rotate(90 * (number % 4), expand=True).save(file, form, **settings)
    return file.getvalue()


def pixels(data):
    return np.array(Image.open(io.BytesIO(data)))


def stands(data, number):
    """Say whether an encoded picture is photo ``number``, upright, to the last bit."""
    return np.array_equal(pixels(data), np.array(photo(number)))


def folder(root, count=10):
    """Pictures in nested folders, with names as people give them, one damaged and one that is none."""
    places = ("", "a", "a/deep er", "ü [x]")
    for i in range(count):
        place = Path(root, places[i % 4])
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{i:03d}.png").write_bytes(lying(i))
    Path(root, "a", "cut.png").write_bytes(lying(1)[:900])
    Path(root, "none.jpg").write_text("no picture")
    Path(root, "a", "labels.csv").write_text("a,b")
    Path(root, ".hidden.png").write_bytes(lying(0))
    return root


def number_of(path):
    return int(Path(path).stem)


def table(count, start=0, masks=False):
    """A table as the hub has them: pictures, labels, texts, metadata."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    numbers = range(start, start + count)
    columns = {
        "image": pa.array([{"bytes": lying(i), "path": f"{i}.png"} for i in numbers], kind),
        "label": pa.array([i % 3 for i in numbers], pa.int64()),
        "text": pa.array([None if i % 4 == 0 else f"photo {i}" for i in numbers]),
    }
    if masks:
        columns["mask"] = pa.array([None if i == 1 else lying(i) for i in numbers], pa.binary())
    features = {"info": {"features": {"image": {"_type": "Image"}}}}
    return pa.table(columns).replace_schema_metadata({"huggingface": json.dumps(features)})


def tables(root, counts=(7, 3), **settings):
    Path(root).mkdir(parents=True)
    start = 0
    for i, count in enumerate(counts):
        pq.write_table(
            table(count, start), Path(root, f"train-{i}.parquet"), row_group_size=3, compression="zstd"
        )
        start += count
    return root


def member(name, data, **facts):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in facts.items():
        setattr(info, key, value)
    return info, data


def tars(root, counts=(5, 4), packed=False, masks=False):
    """Tar files of samples: a photo, a description, perhaps a mask; one sample has no picture."""
    Path(root).mkdir(parents=True)
    start = 0
    for i, count in enumerate(counts):
        name, mode = (f"{i}.tar.gz", "w:gz") if packed else (f"{i}.tar", "w")
        with tarfile.open(Path(root, name), mode) as archive:
            for n in range(start, start + count):
                members = [
                    member(f"x/{n:03d}.json", json.dumps({"n": n}).encode(), mtime=12345.5, uname="ann"),
                    member(f"x/{n:03d}.png", lying(n), mode=0o640),
                ]
                members += [member(f"x/{n:03d}.seg.png", lying(n))] if masks else []
                for info, data in members:
                    archive.addfile(info, io.BytesIO(data))
            info, data = member(f"x/{start:03d}-only.txt", b"no picture here")
            archive.addfile(info, io.BytesIO(data))
        start += count
    return root


def contents(path):
    """Return the members of a tar file: names, facts and data."""
    with tarfile.open(path) as archive:
        return [
            (info.name, info.mode, info.mtime, info.uname, archive.extractfile(info).read())
            for info in archive.getmembers()
        ]


def tree(root):
    """Return all files below a folder and their bytes, but for locks."""
    found = (p for p in Path(root).rglob("*") if p.is_file() and not p.name.startswith("_lock-"))
    return {str(p.relative_to(root)): p.read_bytes() for p in found}


def rows(manifest):
    return pq.read_table(manifest).to_pylist()
