"""Streams: pictures a second against what decoding alone allows, and memory against the number of pictures.

    python -m benchmarks.streaming speed
    python -m benchmarks.streaming memory

``speed``: photos of a few megapixels, made up, as JPEG files in a folder. The limit is decoding them whole,
in as many threads, and nothing else. ``memory``: the peak of the resident set of a process that streams so
many small pictures, less what it was before, for every layout; a process each.
"""

from __future__ import annotations

import argparse
import io
import os
import resource
import tarfile
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

import upright
from benchmarks.record import parser, start, write
from upright.data import read_picture


def photo(seed: int, width: int, height: int, quality: int = 88) -> bytes:
    """Return a JPEG file of smooth colours and some noise, of about the bytes that photos have."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (height // 40, width // 40, 3), np.uint8))
    pixels = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    pixels = (pixels + rng.integers(-12, 13, (height, width, 1))).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return file.getvalue()


def speed(options: argparse.Namespace, root: Path) -> dict[str, Any]:
    sides = (160, 120) if options.smoke else (options.width, options.width * 3 // 4)
    count = 8 if options.smoke else options.count
    photos = [photo(i, *sides) for i in range(min(count, 16))]
    source = root / "in"
    source.mkdir()
    for i in range(count):
        (source / f"{i:06d}.jpg").write_bytes(photos[i % len(photos)])
    paths = sorted(source.iterdir())
    canonicalizer = upright.load_canonicalizer("photo-c4")
    upright_prior = upright.deployment_prior("C4", upright=1.0)
    aside = upright.CategoricalPrior([0.0, 1.0, 0.0, 0.0])

    def decode() -> None:
        with ThreadPoolExecutor(options.threads) as pool:
            list(pool.map(lambda path: read_picture(path.read_bytes()), paths))

    def stream(name: str, to: str | None, **settings: Any) -> None:
        target = root / f"{name}-{time.perf_counter_ns()}"
        upright.canonicalize(
            source, None if to is None else target, canonicalizer, manifest=f"{target}.manifest",
            workers=options.threads, **settings,
        )  # fmt: skip

    runs = {
        "decoding alone": decode,
        "poses alone": lambda: stream("poses", None),
        "all copied": lambda: stream("copied", "out", deployment_prior=upright_prior),
        "all tagged": lambda: stream("tagged", "out", deployment_prior=aside, exif=True),
        "all recoded": lambda: stream("recoded", "out", deployment_prior=aside),
    }
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(1 if options.smoke else options.repeats):
        for name, f in runs.items():  # in turn, so that a busy machine is busy for all
            began = time.perf_counter()
            f()
            rates[name].append(count / (time.perf_counter() - began))
    best = {name: max(found) for name, found in rates.items()}
    limit = best["decoding alone"]
    return {
        "pictures": {"count": count, "sides": sides, "bytes": len(photos[0])},
        **{name: {"pictures_per_second": rate, "of_limit": rate / limit} for name, rate in best.items()},
    }


def memory(options: argparse.Namespace, root: Path) -> dict[str, Any]:
    counts = (40, 120) if options.smoke else (options.count, 4 * options.count, 16 * options.count)
    small = [photo(i, 160, 120) for i in range(16)]
    canonicalizer = upright.canonicalizer("C4", "polar", size=16).eval()
    figures: dict[str, Any] = {}
    for kind, make in {"folder": folder, "parquet": table, "tar": tar}.items():
        figures[kind] = {}
        for count in counts:
            source = root / f"{kind}-{count}"
            source.mkdir()
            make(source, small, count)
            figures[kind][str(count)] = {
                "megabytes": in_its_own_process(partial(streamed, source, canonicalizer))
            }
        peaks = [figures[kind][str(count)]["megabytes"] for count in counts]
        figures[kind]["growth_megabytes"] = peaks[-1] - peaks[0]
    return figures


def folder(root: Path, photos: list[bytes], count: int) -> None:
    for i in range(count):
        (root / f"{i:06d}.jpg").write_bytes(photos[i % len(photos)])


def table(root: Path, photos: list[bytes], count: int) -> None:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    with pq.ParquetWriter(root / "a.parquet", pa.schema([("image", kind)])) as writer:
        for first in range(0, count, 100):
            numbers = range(first, min(first + 100, count))
            cells = [{"bytes": photos[i % len(photos)], "path": f"{i}.jpg"} for i in numbers]
            writer.write_table(pa.table({"image": pa.array(cells, kind)}))


def tar(root: Path, photos: list[bytes], count: int) -> None:
    with tarfile.open(root / "a.tar", "w") as archive:
        for i in range(count):
            info = tarfile.TarInfo(f"{i:06d}.jpg")
            info.size = len(photos[i % len(photos)])
            archive.addfile(info, io.BytesIO(photos[i % len(photos)]))


def streamed(source: Path, canonicalizer: upright.Canonicalizer) -> None:
    torch.set_num_threads(1)
    upright.canonicalize(source, f"{source}-out", canonicalizer, workers=2)


def in_its_own_process(f: Any) -> float:
    """Run ``f`` in a fork; return by how many megabytes its peak of memory exceeds what it began with."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            before = resident()
            f()
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            os.write(writer, f"{peak - before:.1f}".encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    with open(reader, "rb") as file:
        told = file.read()
    _, status = os.waitpid(pid, 0)
    if status:
        raise RuntimeError("the process that streams has failed")
    return float(told)


def resident() -> float:
    """Return the resident set in megabytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("what", choices=["speed", "memory"])
    options.add_argument("--count", type=int, default=250, help="pictures; memory: the least of three counts")
    options.add_argument("--width", type=int, default=2000)
    options.add_argument("--repeats", type=int, default=3)
    chosen = options.parse_args()
    if chosen.what == "speed":
        start(chosen)  # not before a fork: threads do not survive it
    with tempfile.TemporaryDirectory() as root:
        figures = (speed if chosen.what == "speed" else memory)(chosen, Path(root))
    write(f"streaming-{chosen.what}", figures, chosen)


if __name__ == "__main__":
    main()
