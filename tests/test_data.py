"""Proves: whatever the source, pictures come as RGB tensors that stand as their maker meant them to."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from upright.data import (
    NO_LABEL,
    UnreadablePictureError,
    loader,
    open_data,
    read_picture,
    split_batch,
    to_tensor,
)

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def halves(width=24, height=16, top=RED, bottom=BLUE):
    values = np.empty((height, width, 3), np.uint8)
    values[: height // 2], values[height // 2 :] = top, bottom
    return Image.fromarray(values)


def encoded(picture, kind="PNG", **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def near(pixel, expected, tolerance=12):
    return all(abs(int(a) - int(b)) <= tolerance for a, b in zip(pixel, expected, strict=True))


@pytest.fixture
def folder(tmp_path):
    for name, colour in (("zebra", RED), ("ant", GREEN)):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.new("RGB", (8, 8), colour).save(tmp_path / name / f"{i}.png")
    (tmp_path / "notes.txt").write_text("no picture, not meant to be one")
    (tmp_path / ".hidden").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / ".hidden" / "x.png")
    return tmp_path


def parquet(path, cells, labels=None, names=None):
    columns = {"image": [{"bytes": c, "path": None} for c in cells]}
    features = {"image": {"_type": "Image"}}
    if labels is not None:
        columns["label"] = labels
        features["label"] = {"names": names, "_type": "ClassLabel"}
    table = pa.table(columns)
    meta = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(meta), path)
    return path


# How single pictures are read


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    upright = np.asarray(halves())
    stored = {
        1: upright, 2: upright[:, ::-1], 3: np.rot90(upright, 2), 4: upright[::-1],
        5: upright.transpose(1, 0, 2), 6: np.rot90(upright), 7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = read_picture(
        encoded(Image.fromarray(np.ascontiguousarray(stored)), "JPEG", exif=exif, subsampling=0)
    )
    assert picture.size == (24, 16)
    assert near(picture.getpixel((12, 2)), RED)
    assert near(picture.getpixel((12, 13)), BLUE)


def test_cmyk_grey_and_palette_become_rgb():
    cmyk = read_picture(encoded(halves().convert("CMYK"), "JPEG", subsampling=0, quality=95))
    assert cmyk.mode == "RGB"
    assert near(cmyk.getpixel((12, 2)), RED, 40)
    grey = read_picture(encoded(Image.new("L", (4, 4), 77)))
    assert grey.getpixel((0, 0)) == (77, 77, 77)
    palette = read_picture(encoded(halves().convert("P", palette=Image.Palette.ADAPTIVE, colors=8)))
    assert near(palette.getpixel((12, 2)), RED)


def test_transparency_is_laid_over_white():
    layered = Image.new("RGBA", (4, 4), (*RED, 255))
    layered.putpixel((0, 0), (0, 0, 0, 0))
    assert read_picture(encoded(layered)).getpixel((0, 0)) == (255, 255, 255)
    assert read_picture(encoded(layered)).getpixel((1, 1)) == RED
    palette = halves().convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    data = encoded(palette, transparency=palette.getpixel((0, 0)))
    assert read_picture(data).getpixel((0, 0)) == (255, 255, 255)
    assert near(read_picture(data).getpixel((0, 15)), BLUE)


def test_sixteen_bits_are_scaled_not_cut():
    deep = Image.fromarray(np.array([[0, 32896, 65535]], np.uint16))
    assert [read_picture(encoded(deep)).getpixel((x, 0))[0] for x in range(3)] == [0, 128, 255]


def test_to_tensor_is_channels_first_in_0_to_1():
    tensor = to_tensor(halves())
    assert tensor.shape == (3, 16, 24)
    assert tensor.dtype == torch.float32
    assert tensor[:, 0, 0].tolist() == [1, 0, 0]
    assert tensor[:, -1, 0].tolist() == [0, 0, 1]


# Folders


def test_folder_has_sorted_classes(folder):
    data = open_data(folder)
    assert data.class_names == ["ant", "zebra"]
    assert [y for _, y in data] == [0, 0, 0, 1, 1, 1]
    assert data[0][0][:, 0, 0].tolist() == [0, 1, 0]
    assert data.skipped == []
    assert len(data.paths) == 6
    assert data.has_labels
    assert [y for _, y in open_data(folder, labels=False)] == [NO_LABEL] * 6
    assert [y for _, y in open_data(folder, limit=2)] == [0, 1]


def test_flat_folder_has_no_labels(folder):
    data = open_data(str(folder / "ant"))
    assert data.class_names == []
    assert [y for _, y in data] == [NO_LABEL] * 3
    assert next(iter(loader(data, 2)))[1] is None


def test_split_is_a_sub_folder(folder):
    assert len(open_data(folder, split="ant")) == 3
    with pytest.raises(FileNotFoundError, match="no sub-folder 'val'"):
        open_data(folder, split="val")


def test_unreadable_files_are_reported_and_skipped(folder):
    (folder / "ant" / "text.jpg").write_text("hello")
    (folder / "ant" / "empty.png").write_bytes(b"")
    for kind in ("JPEG", "PNG", "WEBP"):
        noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
        (folder / "ant" / f"cut.{kind.lower()}").write_bytes(encoded(noise, kind)[:-500])
    Image.new("RGB", (8, 8)).save(folder / "loose.png")
    data = open_data(folder)
    assert len(data) == 6
    reasons = {path.rpartition("/")[2]: reason for path, reason in data.skipped}
    assert set(reasons) == {"text.jpg", "empty.png", "cut.jpeg", "cut.png", "cut.webp", "loose.png"}
    assert "identified" in reasons["text.jpg"]
    assert "empty" in reasons["empty.png"]
    assert "beside the class folders" in reasons["loose.png"]


def test_picture_damaged_inside_is_left_out_by_the_loader(folder):
    whole = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)))
    (folder / "ant" / "0.png").write_bytes(whole[:200] + bytes(200) + whole[400:])  # both ends are intact
    data = open_data(folder)
    assert len(data) == 6
    with pytest.raises(UnreadablePictureError, match=r"0\.png"):
        data[0]
    with pytest.warns(UserWarning, match="skipped an unreadable picture"):
        batches = list(loader(data, 4))
    assert [len(x) for x, _ in batches] == [3, 2]
    assert [path.rpartition("/")[2] for path, _ in data.skipped] == ["0.png"]


def test_folder_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist; pass a folder"):
        open_data(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match="no pictures in"):
        open_data(tmp_path)
    (tmp_path / "a.jpg").write_text("hello")
    with pytest.raises(ValueError, match=r"none of the 1 pictures .* can be read; the first, .*a.jpg"):
        open_data(tmp_path)
    with pytest.raises(ValueError, match=r"neither a folder nor a .parquet file"):
        open_data(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match="limit must be at least 1"):
        open_data(tmp_path, limit=0)


# Parquet and the hub


def test_parquet_reads_bytes_labels_and_class_names(tmp_path):
    cells = [encoded(Image.new("RGB", (8, 8), c)) for c in (RED, GREEN, BLUE)] + [b"rubbish"]
    path = parquet(tmp_path / "train-00000-of-00001.parquet", cells, [2, 0, 1, 1], ["a", "b", "c"])
    data = open_data(path)
    assert data.class_names == ["a", "b", "c"]
    assert [y for _, y in data] == [2, 0, 1]
    assert data[1][0][:, 0, 0].tolist() == [0, 1, 0]
    assert data.skipped == [("train-00000-of-00001.parquet#3", "not an image that can be identified")]
    assert len(open_data(tmp_path)) == len(open_data(tmp_path, split="train")) == 3


def test_parquet_without_labels_and_with_words(tmp_path):
    cells = [encoded(halves())] * 2
    assert [y for _, y in open_data(parquet(tmp_path / "a.parquet", cells))] == [NO_LABEL] * 2
    words = open_data(parquet(tmp_path / "b.parquet", cells, ["dog", "cat"]))
    assert words.class_names == ["cat", "dog"]
    assert [y for _, y in words] == [1, 0]
    with pytest.raises(ValueError, match=r"several Parquet files \(a.parquet, b.parquet\); .*split='a'"):
        open_data(tmp_path)
    with pytest.raises(ValueError, match="no Parquet file of split 'test'"):
        open_data(tmp_path, split="test")


def test_parquet_errors(tmp_path):
    pq.write_table(pa.table({"text": ["a"], "label": [0]}), tmp_path / "text.parquet")
    with pytest.raises(ValueError, match=r"must have a column 'image'.*got columns text, label"):
        open_data(tmp_path / "text.parquet")
    (tmp_path / "broken.parquet").write_text("hello")
    with pytest.raises(ValueError, match="not a readable Parquet file"):
        open_data(tmp_path / "broken.parquet")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        open_data("absent.parquet")


def test_hub_names(monkeypatch, tmp_path):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr("upright.data.sources.hub_answers", lambda name, kind: True)
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    rows = {"img": [{"bytes": encoded(Image.new("RGB", (8, 8), c)), "path": None} for c in (RED, BLUE)]}
    opened = datasets.Dataset.from_dict({**rows, "label": [1, 0]}, features=features)
    parts = datasets.DatasetDict({"train": opened, "test": opened})
    monkeypatch.setattr(
        datasets, "load_dataset", lambda name, split=None: parts if split is None else parts[split]
    )
    data = open_data("owner/name", split="test")
    assert data.class_names == ["a", "b"]
    assert [y for _, y in data] == [1, 0]
    assert data[1][0][:, 0, 0].tolist() == [0, 0, 1]
    assert len(open_data(opened)) == 2
    with pytest.raises(ValueError, match="has the splits train, test; choose one"):
        open_data("owner/name")

    def fail(name, split=None):
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(ValueError, match=r"no folder or file 'nowhere' exists here, .*no network"):
        open_data("nowhere")
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(ImportError, match="pip install"):
        open_data("owner/name")


# Tensors and data sets


def test_tensors():
    x, y = torch.rand(10, 3, 4, 4), torch.arange(10)
    data = open_data((x, y))
    assert torch.equal(data[3][0], x[3])
    assert data[3][1] == 3
    assert [y for _, y in open_data(x, limit=3)] == [NO_LABEL] * 3
    assert torch.equal(open_data((x, y), limit=5)[1][0], x[2])
    assert torch.equal(open_data((x, y), transform=lambda p: 1 - p)[0][0], 1 - x[0])
    assert len(open_data([torch.rand(3, 4, 5), torch.rand(3, 5, 4)])) == 2
    with pytest.raises(ValueError, match=r"labels must have shape \(10,\), got \(9,\)"):
        open_data((x, y[:9]))
    with pytest.raises(ValueError, match=r"must have shape \(N, C, H, W\), got \(3, 4, 4\)"):
        open_data(x[0])
    with pytest.raises(TypeError, match="source must be a folder"):
        open_data(3)


def test_data_sets_and_loaders_pass_through():
    pairs = TensorDataset(torch.rand(6, 3, 4, 4), torch.arange(6))
    assert open_data(pairs) is pairs
    batches = DataLoader(pairs, batch_size=4)
    assert open_data(batches) is batches
    assert [len(x) for x, _ in loader(batches)] == [4, 2]


# Batches


def test_loader_gives_pictures_and_labels_or_none():
    x, y = torch.rand(10, 3, 4, 4), torch.arange(10)
    got = list(loader((x, y), 4))
    assert torch.equal(torch.cat([a for a, _ in got]), x)
    assert torch.equal(torch.cat([b for _, b in got]), y)
    assert all(b is None for _, b in loader(x, 4))
    assert len(list(loader((x, y), 4, drop_last=True))) == 2
    one, two = (torch.cat([b for _, b in loader((x, y), 4, True, generator=torch.Generator().manual_seed(3))])
                for _ in range(2))  # fmt: skip
    assert torch.equal(one, two)
    assert not torch.equal(one, y)
    assert torch.equal(one.sort().values, y)


def test_pictures_of_different_shapes_come_as_a_list():
    batch, labels = next(iter(loader(([torch.rand(3, 4, 5), torch.rand(3, 5, 4)], [1, 0]), 2)))
    assert [tuple(p.shape) for p in batch] == [(3, 4, 5), (3, 5, 4)]
    assert labels.tolist() == [1, 0]


@pytest.mark.parametrize("workers", [0, 1])
def test_loader_reads_foreign_data_sets(folder, workers):
    class Dicts(torch.utils.data.Dataset):
        def __len__(self):
            return 3

        def __getitem__(self, i):
            return {"pixel_values": halves(), "labels": i}

    x, y = next(iter(loader(Dicts(), 3, num_workers=workers)))
    assert x.shape == (3, 3, 16, 24)
    assert y.tolist() == [0, 1, 2]


def test_split_batch():
    x, y = torch.rand(2, 3, 4, 4), torch.tensor([0, 1])
    assert split_batch(x) == (x, None)
    assert split_batch([x, y])[1].tolist() == [0, 1]
    assert split_batch({"image": x, "label": y})[0] is x
    assert split_batch([x[0], x[1]])[0][1] is not None
    assert split_batch([x[0], x[1]])[1] is None
    assert split_batch((x, torch.tensor([-1, -1])))[1] is None
    with pytest.raises(TypeError, match="a dict with \\['text'\\]"):
        split_batch({"text": "a"})
