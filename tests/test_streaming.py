"""Sources are set upright in their own layout: nothing is lost, nothing comes twice, whatever happens.

The canonicalizer knows where red lies, so that what has to come out is known to the last bit.
"""

import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import upright
from streaming_toys import (
    always_right,
    contents,
    folder,
    lying,
    member,
    number_of,
    rows,
    stands,
    table,
    tables,
    tars,
    tree,
)
from upright.streaming import listing, open_store
from upright.streaming.naming import piece


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def canonicalize(source, output="out", **settings):
    return upright.canonicalize(source, output, always_right(), **settings)


def test_folder():
    summary = canonicalize(folder("in"), workers=2, batch_size=3)
    written = tree("out")
    assert len(written) == 10
    assert all(stands(data, number_of(path)) for path, data in written.items())
    before = tree("in")
    assert all(written[p] == before[p] for p in written if number_of(p) % 4 == 0)  # byte for byte
    assert summary.counts == {"copied": 3, "turned": 7, "bad": 2}
    assert (summary.total, summary.bad, summary.items, summary.left_out) == (12, 2, 12, 1)
    found = {row["path"]: row for row in rows("out.manifest")}
    assert found.keys() == written.keys() | {"a/cut.png", "none.jpg"}
    for path in written:
        row = found[path]
        assert row["degrees"] == 90 * (number_of(path) % 4)
        assert row["confidence"] == pytest.approx(max(row["probabilities"]))
        assert row["upright"] == pytest.approx(row["probabilities"][0])
        assert (row["action"] == "copied") == (row["degrees"] == 0)
    bad = {"a/cut.png": "truncated", "none.jpg": "not an image that can be identified"}
    assert all(reason in found[path]["error"] for path, reason in bad.items())
    assert [path for path, _ in summary.examples] == sorted(bad)
    lines = Path("out.manifest/_bad-000000.jsonl").read_text().splitlines()
    assert [json.loads(line)["path"] for line in lines] == sorted(bad)


def test_bad_items_are_kept_if_asked_to_and_done_again():
    folder("in", 4)
    canonicalize("in", keep_bad=True, shard_size=3)
    assert tree("out").keys() == {p for p in tree("in") if not p.endswith((".csv", ".hidden.png"))}
    assert tree("out")["a/cut.png"] == tree("in")["a/cut.png"]
    Path("in/a/cut.png").write_bytes(lying(3))
    assert canonicalize("in", keep_bad=True, shard_size=3).items == 0
    again = canonicalize("in", keep_bad=True, shard_size=3, retry_bad=True)
    assert (again.bad, again.total) == (1, 6)
    assert 0 < again.items < 6 or again.resumed == 0
    assert stands(tree("out")["a/cut.png"], 3)


@pytest.mark.parametrize("shard_size", [None, 2])
def test_tables(shard_size):
    summary = canonicalize(tables("in"), shard_size=shard_size)
    names = ["train-0.parquet", "train-1.parquet"]
    if shard_size:
        names = [f"train-0-0000{i}.parquet" for i in range(4)] + [
            f"train-1-0000{i}.parquet" for i in range(2)
        ]
    assert sorted(tree("out")) == names
    before, after = pq.read_table("in"), pq.read_table("out")
    assert after.schema.equals(before.schema, check_metadata=True)
    assert after.drop(["image"]).equals(before.drop(["image"]))
    for i, (old, new) in enumerate(
        zip(*(t.column("image").to_pylist() for t in (before, after)), strict=True)
    ):
        assert new["path"] == old["path"]
        assert stands(new["bytes"], i)
        assert i % 4 or new["bytes"] == old["bytes"]
    if shard_size is None:
        for name in names:
            shape = [pq.ParquetFile(Path(p, name)).metadata for p in ("in", "out")]
            groups = [[m.row_group(i).num_rows for i in range(m.num_row_groups)] for m in shape]
            assert groups[0] == groups[1]
            assert {m.row_group(0).column(0).compression for m in shape} == {"ZSTD"}
    assert summary.counts == {"copied": 3, "turned": 7}
    assert [row["path"] for row in rows("out.manifest")] == [
        f"train-{f}.parquet#{i}" for f, count in ((0, 7), (1, 3)) for i in range(count)
    ]


def test_tables_with_bad_cells_and_damaged_files():
    tables("in", (6,))
    image = pq.read_table("in/train-0.parquet").column("image").to_pylist()
    image[2]["bytes"] = b"none"
    image[4]["bytes"] = None
    broken = table(6).set_column(0, "image", pa.array(image, table(1).schema.field("image").type))
    pq.write_table(broken, "in/train-0.parquet")
    whole = Path("in/train-0.parquet").read_bytes()
    Path("in/train-1.parquet").write_bytes(whole[: len(whole) // 2])
    pages = bytearray(whole)
    pages[40:3000] = os.urandom(2960)
    Path("in/train-2.parquet").write_bytes(pages)
    summary = canonicalize("in")
    found = {row["path"]: row["error"] for row in rows("out.manifest") if row["error"]}
    assert found["train-0.parquet#2"] == "not an image that can be identified"
    assert "4.png" in found["train-0.parquet#4"] or "No such file" in found["train-0.parquet#4"]
    assert "no readable Parquet file" in found["train-1.parquet"]
    assert any(path.startswith("train-2.parquet") for path in found)
    assert summary.bad == len(found)
    after = pq.read_table("out/train-0.parquet")
    assert after.column("text").to_pylist() == [None, "photo 1", "photo 3", "photo 5"]
    assert [
        stands(cell["bytes"], i)
        for cell, i in zip(after.column("image").to_pylist(), (0, 1, 3, 5), strict=True)
    ]
    kept = canonicalize("in/train-0.parquet", "kept", keep_bad=True)
    assert kept.bad == 2
    column = pq.read_table("kept/train-0.parquet").column("image").to_pylist()
    assert (column[2]["bytes"], column[4]["bytes"]) == (b"none", None)


def test_what_moves_along():
    Path("in").mkdir()
    pq.write_table(table(6, masks=True), "in/a.parquet")
    canonicalize("in", also=["mask"], column="image")
    after = pq.read_table("out/a.parquet").column("mask").to_pylist()
    assert after[1] is None
    assert all(stands(data, i) for i, data in enumerate(after) if i != 1)
    tars("tars", (6,), masks=True)
    canonicalize("tars", "out2", also=["seg.png"])
    members = contents("out2/0.tar")
    moved = [(name, data) for name, *_, data in members if name.endswith(".seg.png")]
    assert all(stands(data, int(name[2:5])) for name, data in moved)
    canonicalize("tars", "out3")
    kept = [data for name, *_, data in contents("out3/0.tar") if name.endswith(".seg.png")]
    assert kept == [lying(i) for i in range(6)]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("shard_size", [None, 2])
def test_tars(packed, shard_size):
    summary = canonicalize(tars("in", packed=packed), shard_size=shard_size)
    suffix = "tar.gz" if packed else "tar"
    assert summary.counts == {"copied": 3, "turned": 6}
    if shard_size is None:
        assert sorted(tree("out")) == [f"0.{suffix}", f"1.{suffix}"]
    for number in (0, 1):
        pieces = sorted(Path("out").glob(f"{number}[.-]*"))
        after = [entry for piece in pieces for entry in contents(piece)]
        before = contents(f"in/{number}.{suffix}")
        assert [entry[:4] for entry in after] == [entry[:4] for entry in before]
        for (name, *_, old), (*_, new) in zip(before, after, strict=True):
            assert stands(new, number_of(name)) if name.endswith(".png") else new == old
    assert [row["path"] for row in rows("out.manifest")] == [
        f"{int(i > 4)}.{suffix}#x/{i:03d}" for i in range(9)
    ]


@pytest.mark.parametrize("shard_size", [None, 2])
@pytest.mark.parametrize("cut", [20000, 20480, 20992])
def test_a_tar_file_that_breaks_off_keeps_its_beginning(shard_size, cut):
    """Within a picture, between two blocks of one, or between two members."""
    tars("in", (6,))
    Path("in/0.tar").write_bytes(Path("in/0.tar").read_bytes()[:cut])
    summary = canonicalize("in", shard_size=shard_size)
    assert summary.bad == 1
    assert "cannot be read: " in summary.examples[0][1]
    pictures = [e for p in sorted(Path("out").iterdir()) for e in contents(p) if e[0].endswith(".png")]
    assert 2 <= len(pictures) < 6
    assert all(stands(data, number_of(name)) for name, *_, data in pictures)


def test_limits_and_pieces():
    tars("tars")
    tables("tables")
    folder("folder")
    for source in ("tars", "tables", "folder"):
        summary = canonicalize(source, f"{source}-out", limit=6, shard_size=4)
        assert summary.total == 6 - (source == "tars")  # a sample without a picture counts, too
        assert summary.planned == 6
        assert summary.shards == 2
    assert piece("a/b.tar.gz", 2, 4) == "a/b-00002.tar.gz"


def test_poses_alone():
    folder("in")
    summary = canonicalize("in", None, manifest="poses")
    assert summary.output is None
    assert summary.counts == {"copied": 3, "turned": 7, "bad": 2}
    assert sorted(p.name for p in Path().iterdir()) == ["in", "poses"]


def test_a_dry_run_writes_nothing():
    folder("in")
    before = tree(".")
    summary = canonicalize("in", dry_run=True, shard_size=5)
    assert tree(".") == before
    assert (summary.planned, summary.pending, summary.items, summary.dry) == (12, 3, 12, True)
    assert summary.counts == {"copied": 3, "turned": 7, "bad": 2}
    canonicalize("in", shard_size=5)
    assert canonicalize("in", dry_run=True, shard_size=5).pending == 0


def test_gates_priors_and_tolerances():
    folder("in", 8)
    gate = upright.Gate(threshold=1.0)
    assert canonicalize("in", gate=gate).counts["copied"] == 8
    assert all(
        row["gated"] and row["degrees"] is not None for row in rows("out.manifest") if not row["error"]
    )
    prior = upright.deployment_prior("C4", upright=1.0)
    assert canonicalize("in", "two", deployment_prior=prior).counts["copied"] == 8
    assert canonicalize("in", "three", within_degrees=100.0).counts["copied"] == 6
    flagged = upright.Gate(threshold=1.0, below="flag")
    assert canonicalize("in", "four", gate=flagged).counts["turned"] == 6
    assert all(row["flagged"] for row in rows("four.manifest") if not row["error"])


def test_the_same_poses_as_straighten():
    folder("in", 8)
    from PIL import Image

    canonicalizer = upright.load_canonicalizer("photo-c4")
    upright.canonicalize("in", "out", "photo-c4")
    found = [row for row in rows("out.manifest") if not row["error"]]
    _, pose = upright.straighten([Image.open(Path("in", row["path"])) for row in found], canonicalizer)
    assert torch.allclose(pose.probs, torch.tensor([r["probabilities"] for r in found]), atol=1e-5)


def test_any_angle_is_turned_on_a_larger_canvas():
    class Slanted(upright.Canonicalizer):
        def forward(self, x):
            return upright.Pose(self.group.element(degrees=torch.full((len(x),), 30.0)))

    folder("in", 4)
    summary = upright.canonicalize("in", "out", Slanted("SO2"))
    assert summary.counts == {"recoded": 4, "bad": 2}
    from PIL import Image

    seen, new = (np.array(Image.open(Path(p, "000.png"))) for p in ("in", "out"))
    assert new.shape[0] > seen.shape[0]
    expected = np.array(Image.fromarray(seen).rotate(-30, resample=Image.Resampling.BICUBIC, expand=True))
    assert np.array_equal(new, expected)
    with pytest.raises(ValueError, match="also needs turns that move pixels exactly, got SO2"):
        upright.canonicalize("in", "b", Slanted("SO2"), also=["mask"])


def test_listings_are_sorted_on_the_disk():
    folder("in", 10)
    few, many = (listing.Listing(Path("in"), chunk) for chunk in (3, 1000))
    assert few.digest == many.digest
    assert few.count == many.count == 12
    paths = [p for offset, count in few.offsets(5, None) for p in few.paths(offset, count)]
    assert sorted(paths) == sorted(p for p in tree("in") if p.endswith(("png", "jpg")) and p[0] != ".")
    assert [p for offset, count in many.offsets(12, None) for p in many.paths(offset, count)] == paths


def test_names_that_are_no_text():
    Path("in").mkdir()
    name = b"in/\xff\xfe.png"
    try:
        with open(name, "wb") as file:
            file.write(lying(1))
    except OSError:
        pytest.skip("this file system takes no such names")
    canonicalize("in")
    assert os.listdir(b"out") == [b"\xff\xfe.png"]
    assert rows("out.manifest")[0]["path"] == "\\xff\\xfe.png"


def test_samples_may_be_odd():
    import io
    import tarfile

    Path("in").mkdir()
    with tarfile.open("in/0.tar", "w") as archive:
        made = [
            member("folder", b"", type=tarfile.DIRTYPE),
            member("readme", b"no extension"),
            member("a.b/001.jpg", lying(1, "JPEG", quality=90)),
            member("a.b/001.cls", b"7"),
            member("long/" + 30 * "name" + "/002.PNG", lying(2)),
            member("003.png", lying(3), pax_headers={"size": str(len(lying(3))), "note": "kept"}),
            member("link.txt", b"", type=tarfile.SYMTYPE, linkname="readme"),
        ]
        for info, data in made:
            archive.addfile(info, io.BytesIO(data) if data else None)
    assert canonicalize("in").counts == {"recoded": 1, "turned": 2}
    with tarfile.open("out/0.tar") as archive:
        after = archive.getmembers()
        assert [info.name for info in after] == [info.name for info, _ in made]
        assert [info.type for info in after] == [info.type for info, _ in made]
        assert after[-2].pax_headers["note"] == "kept"
        assert stands(archive.extractfile(after[-2]).read(), 3)
        assert stands(archive.extractfile(after[-3]).read(), 2)
        assert archive.extractfile("a.b/001.cls").read() == b"7"


def test_stores_tell_what_they_are():
    assert open_store(folder("in")).kind == "folder"
    assert open_store(tables("t")).kind == "parquet"
    assert open_store(tars("w")).kind == "tar"
