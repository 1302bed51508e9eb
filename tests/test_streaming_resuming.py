"""Streams go on where they stopped, in parts, over full disks; what does not fit together is refused.

The canonicalizer knows where red lies, so that what has to come out is known to the last bit.
"""

import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import upright
from streaming_toys import (
    always_right,
    folder,
    lying,
    number_of,
    rows,
    stands,
    tables,
    tars,
    tree,
)
from upright.streaming import Part, items, ledger, run


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def canonicalize(source, output="out", **settings):
    return upright.canonicalize(source, output, always_right(), **settings)


def test_resumes_where_it_stopped():
    folder("in")
    canonicalize("in", "whole", shard_size=2)
    canonicalize("in", "out", shard_size=2)
    for number in (1, 2):
        Path(f"out.manifest/shard-00000{number}.parquet").unlink()
    Path("out/a/001.png").unlink()
    Path("out/a/.001.png.unfinished").write_bytes(b"half")
    summary = canonicalize("in", "out", shard_size=2, batch_size=3)
    assert (summary.shards, summary.resumed, summary.total) == (2, 4, 12)
    assert tree("out") == tree("whole")
    before, after = tree("whole.manifest"), tree("out.manifest")
    assert before.pop("_run.json") != after.pop("_run.json")  # says where to
    assert before == after


@pytest.mark.parametrize("make", [folder, tables, tars])
def test_parts_make_the_whole(make):
    make("in")
    canonicalize("in", "whole", shard_size=2)
    for part in ("2/3", "3/3", "1/3"):
        canonicalize("in", "out", shard_size=2, part=part)
    assert tree("out") == tree("whole")
    assert rows("out.manifest") == rows("whole.manifest")
    assert canonicalize("in", "out", shard_size=2, part="2/2").items == 0  # another split finds it done


def test_other_settings_and_sources_are_refused():
    folder("in")
    canonicalize("in", shard_size=5)
    for change, told in {
        "exif": {"exif": True},
        "source.shard_size": {"shard_size": 6},
        "gate.threshold": {"gate": upright.Gate(0.7)},
    }.items():
        with pytest.raises(ValueError, match=rf"other settings .*{change}: .*, now"):
            canonicalize("in", **{"shard_size": 5, **told})
    with pytest.raises(ValueError, match=r"other settings .canonicalizer: "):
        upright.canonicalize("in", "out", upright.canonicalizer("C4", "polar", size=16), shard_size=5)
    Path("in/new.png").write_bytes(lying(3))
    with pytest.raises(ValueError, match=r"over other files .12 items then, 13 now.: the source has changed"):
        canonicalize("in", shard_size=5)
    Path("in/new.png").unlink()
    assert canonicalize("in", shard_size=5).items == 0


def test_places_that_are_taken_are_refused(tmp_path):
    folder("in", 4)
    for output in ("in", "in/out", "."):
        with pytest.raises(ValueError, match="lie in one another"):
            canonicalize("in", output)
    Path("full").mkdir()
    Path("full/mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="full is not empty"):
        canonicalize("in", "full")
    with pytest.raises(FileExistsError, match="full holds files of something else"):
        canonicalize("in", "out", manifest="full")
    canonicalize("in")
    import shutil

    shutil.rmtree("out")
    with pytest.raises(FileNotFoundError, match=r"out is gone, but out.manifest says"):
        canonicalize("in")
    Path("out.manifest/_run.json").write_text("{}")
    with pytest.raises(FileExistsError, match="not of a run of this version"):
        canonicalize("in")
    with pytest.raises(ValueError, match="no output; give one"):
        canonicalize("in", None)


def test_sources_that_are_none():
    Path("empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no pictures in empty"):
        canonicalize("empty")
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        canonicalize("nowhere")
    tables("both")
    Path("both/a.png").write_bytes(lying(0))
    with pytest.raises(ValueError, match="both holds 1 pictures and 2 Parquet files"):
        canonicalize("both")
    with pytest.raises(ValueError, match="must be one folder, or files of one kind"):
        canonicalize(["both/a.png", "both/train-0.parquet"])
    with pytest.raises(ValueError, match="no column 'photo'; it has image, label, text"):
        canonicalize("both/train-0.parquet", column="photo")
    pq.write_table(pa.table({"image": ["a.png"]}), "paths.parquet")
    with pytest.raises(ValueError, match=r"'image' of .* holds paths, not pictures; give the folder"):
        canonicalize("paths.parquet")
    folder("plain", 2)
    with pytest.raises(ValueError, match="column and also are for Parquet and tar files"):
        canonicalize("plain", column="image")
    with pytest.raises(TypeError, match="must be one of planar turns and flips, such as C4, got SO3"):
        upright.canonicalize("plain", "out", upright.canonicalizer("SO3", "pca"))
    for part in ("0/2", "3/2", "one"):
        with pytest.raises(ValueError, match="part must be i/n"):
            canonicalize("plain", part=part)
    with pytest.raises(ValueError, match="limit must be at least 1, got 0"):
        canonicalize("plain", limit=0)


def test_files_by_name():
    folder("in", 8)
    files = sorted(Path("in").rglob("00*.png"))
    summary = canonicalize(files)
    assert summary.counts == {"copied": 2, "turned": 6}
    assert all(stands(Path("out", path).read_bytes(), number_of(path)) for path in files)
    tables("t")
    assert canonicalize(["t/train-1.parquet", "t/train-0.parquet"], "two").total == 10
    assert sorted(tree("two")) == ["train-0.parquet", "train-1.parquet"]


def test_one_process_a_part():
    folder("in", 4)
    Path("out.manifest").mkdir()
    record = ledger.Ledger(Path("out.manifest"), {})
    with record.locked(Part(1, 2)):
        for part in ("1/2", "1/1", "2/3"):
            with pytest.raises(ValueError, match=r"another process is at part 1/2 of out.manifest"):
                canonicalize("in", part=part)
        canonicalize("in", part="2/2", shard_size=1)
    assert canonicalize("in", shard_size=1).resumed == 3


def test_a_full_disk_loses_nothing(monkeypatch):
    folder("in")
    canonicalize("in", "whole", shard_size=4)
    sync, calls = os.fsync, []

    def full(handle):
        calls.append(handle)
        if len(calls) == 9:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        canonicalize("in", shard_size=4)
    assert not [p for p in tree("out") if p.endswith(".unfinished")]
    assert all(stands(data, number_of(path)) for path, data in tree("out").items())
    summary = canonicalize("in", shard_size=4)
    assert summary.resumed < 3
    assert tree("out") == tree("whole")


def test_memory_does_not_grow_with_the_source():
    """However many pictures there are, only so many are held at a time, on either side of the judge."""
    pace = run.Pace(batch_size=4, workers=2, ahead=8)
    most = {}
    for count in (60, 600):
        held, peak, lock = set(), [0], threading.Lock()

        class Tracked(bytes):
            def __new__(cls, number, held=held, peak=peak, lock=lock):
                made = super().__new__(cls, b"data")
                with lock:
                    held.add(number)
                    peak[0] = max(peak[0], len(held))
                made.number = number
                return made

            def __del__(self, held=held, lock=lock):
                with lock:
                    held.discard(self.number)

        class Passes(run.Job):
            columns, counted = {"path": "string", "error": "string"}, "error"
            settings = failed = None

            def see(self, data):
                return data

            def judge(self, seen):
                return list(seen)

            def finish(self, item, data, verdict):
                return run.Result({"error": None}, data)

        source = (items.Item(str(i), partial(Tracked, i)) for i in range(count))
        with ThreadPoolExecutor(pace.threads) as pool:
            paths = [item.path for item, _ in run.results(Passes(), source, pool, pace)]
        assert paths == [str(i) for i in range(count)]
        most[count] = peak[0]
    assert max(most.values()) <= 2 * pace.depth + 2 * pace.batch_size + 4
