"""Data of tasks from folders, Parquet files and COCO's JSON: targets lie where their pictures do."""

import io
import json
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import upright
from upright.cli.app import main
from upright.cli.errors import UserError
from upright.cli.evaluate import parsed_outputs, parsed_values
from upright.evaluation import open_annotated
from upright.integrations import SquarePreprocess

WIDTH, HEIGHT = 20, 12
CODE = """
import torch
from torch import nn
from upright.integrations import LoadedModel

class Bright(nn.Module):
    # finds the bright thing: equivariant as it is
    def forward(self, x):
        if isinstance(x, torch.Tensor):
            return (x[:, 0] > 0.5).float()
        found = []
        for picture in x:
            at = (picture[0] > 0.5).nonzero()
            box = torch.cat([at.amin(0).flip(0), at.amax(0).flip(0) + 1]).float()
            found.append({"boxes": box[None], "scores": torch.ones(1), "labels": torch.ones(1).long()})
        return found

def make():
    from upright.data.decode import to_tensor
    return LoadedModel(Bright(), to_tensor)

def read():
    from upright.data.decode import to_tensor
    return LoadedModel(lambda pictures: ["what it says"] * len(pictures), to_tensor)
"""


def mask(i=0):
    """A thing of 4×(6 + i) pixels at (x, y) = (9, 2)."""
    made = np.zeros((HEIGHT, WIDTH), np.uint8)
    made[2:6, 9 : 15 + i] = 1
    return made


def picture(i=0):
    return Image.fromarray(np.repeat(mask(i)[..., None] * 200 + 20, 3, 2).astype(np.uint8))


def png(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


COCO = {
    "images": [{"id": i, "file_name": f"{i}.png", "width": WIDTH, "height": HEIGHT} for i in range(2)],
    "annotations": [
        {"id": i, "image_id": i, "bbox": [9, 2, 6 + i, 4], "category_id": 1, "area": 4 * (6 + i),
         "segmentation": [[9, 2, 15 + i, 2, 15 + i, 6, 9, 6]], "keypoints": [9, 2, 2, 15, 6, 1]}
        for i in range(2)
    ],
    "categories": [{"id": 1, "name": "thing"}],
}  # fmt: skip


@pytest.fixture
def work(tmp_path, monkeypatch):
    for name in ("images", "masks", "depth", "instances"):
        (tmp_path / "maps" / name).mkdir(parents=True)
    for i in range(2):
        picture(i).save(tmp_path / "maps" / "images" / f"{i}.png")
        Image.fromarray(mask(i)).save(tmp_path / "maps" / "masks" / f"{i}.png")
        Image.fromarray(mask(i) * 3).save(
            tmp_path / "maps" / "instances" / f"{i}.png"
        )  # numbers may be missing
        np.save(tmp_path / "maps" / "depth" / f"{i}.npy", mask(i) + 0.25)
        (tmp_path / "pages").mkdir(exist_ok=True)
        picture(i).save(tmp_path / "pages" / f"{i}.png")
        (tmp_path / "pages" / f"{i}.txt").write_text("what it says")
    (tmp_path / "coco").mkdir()
    for i in range(2):
        picture(i).save(tmp_path / "coco" / f"{i}.png")
    (tmp_path / "coco" / "things.json").write_text(json.dumps(COCO))
    table = {
        "image": [{"bytes": png(picture(i)), "path": None} for i in range(2)],
        "mask": [{"bytes": png(Image.fromarray(mask(i))), "path": None} for i in range(2)],
        "instances": [{"bytes": png(Image.fromarray(mask(i))), "path": None} for i in range(2)],
        "text": ["what it says"] * 2,
    }
    pq.write_table(pa.table(table), tmp_path / "all.parquet")
    (tmp_path / "task_code.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("task_code", None)


@pytest.mark.parametrize("source", ["maps", "all.parquet"])
def test_maps(work, source):
    data = open_annotated("segmentation", source)
    assert len(data) == 2
    x, target = data[1]
    assert x.shape == (3, HEIGHT, WIDTH)
    assert torch.equal(target, torch.from_numpy(mask(1)).long())
    assert torch.equal(target > 0, x[0] > 0.5)
    things = open_annotated("instances", source)[1][1]
    assert things["masks"].shape == (1, HEIGHT, WIDTH)
    assert torch.equal(things["masks"][0], target > 0)
    assert things["boxes"].tolist() == [[9, 2, 16, 6]]
    if source == "maps":
        assert torch.equal(open_annotated("depth", source)[0][1], torch.from_numpy(mask() + 0.25).float())


def test_coco(work):
    for task in ("detection", "instances", "keypoints"):
        if task == "instances":
            pytest.importorskip("faster_coco_eval")
        x, target = open_annotated(task, "coco")[1]
        assert target["boxes"].tolist() == [[9, 2, 16, 6]]
        assert target["labels"].tolist() == [1]
        if task == "instances":
            assert torch.equal(target["masks"][0], x[0] > 0.5)
        if task == "keypoints":
            assert target["keypoints"].tolist() == [[[9, 2, 2], [15, 6, 1]]]
            assert target["area"].tolist() == [28]


def test_targets_follow_a_square_cut():
    """The centre square of 12 pixels, from x = 4 to 16, at twice its size."""
    from upright.evaluation.framing import frame_of, framed

    frame = frame_of(SquarePreprocess(24), (HEIGHT, WIDTH), (3, 24, 24))
    whole = torch.from_numpy(mask(1))
    resized = framed(frame, whole)
    assert torch.equal(resized, whole[:, 4:16].repeat_interleave(2, 0).repeat_interleave(2, 1))
    things = {
        "boxes": torch.tensor([[9.0, 2.0, 16.0, 6.0], [0.0, 0.0, 3.0, 3.0], [14.0, 2.0, 20.0, 6.0]]),
        "labels": torch.tensor([1, 2, 3]),
        "area": torch.tensor([28.0, 9.0, 24.0]),
        "keypoints": torch.tensor([[[9.0, 2.0, 2.0]], [[1.0, 1.0, 2.0]], [[19.0, 3.0, 2.0]]]),
    }
    moved = framed(frame, things)
    assert moved["labels"].tolist() == [1, 3]  # the second lies outside
    assert moved["boxes"].tolist() == [[10, 4, 24, 12], [20, 4, 24, 12]]
    assert moved["area"].tolist() == [112, 96]
    assert moved["keypoints"][:, 0].tolist() == [[10, 4, 2], [30, 6, 0]]  # out of sight
    assert framed(frame, "text") == "text"
    with pytest.raises(ValueError, match=r"makes 8×8 of a picture of 12×20 in a way that targets"):
        frame_of(lambda x: x, (HEIGHT, WIDTH), (3, 8, 8))


def test_pixels_and_targets_agree_after_a_square_cut(work):
    x, target = open_annotated(
        "segmentation", "maps", preprocess=SquarePreprocess(36, (0.0,) * 3, (1.0,) * 3)
    )[0]
    assert x.shape == (3, 36, 36)
    assert float(((x[0] > 0.5) != (target > 0)).float().mean()) < 0.03  # the picture's edges are smooth


@pytest.mark.parametrize("task", ["text", "retrieval"])
def test_other_tasks(work, task):
    data = open_annotated(task, "pages" if task == "text" else "maps")
    assert len(data) == (2 if task == "text" else 6)
    assert data[0][1] == ("what it says" if task == "text" else 0)
    if task == "text":
        assert open_annotated(task, "all.parquet", limit=1)[0][1] == "what it says"


def evaluated(*words):
    flags = [
        "--group",
        "C4",
        "--canonicalizer",
        "photo-c4",
        "--no-overhead",
        "--no-leakage",
        "--json",
        "r.json",
    ]
    assert main(["evaluate", "--model", *words, *flags]) == 0
    return upright.Report.load("r.json")


def test_tasks_from_the_shell(work, capsys):
    report = evaluated("task_code:make", "--data", "maps", "--task", "segmentation", "--outputs", "mask",
                       "--figures", "figures", "--rows", "vanilla,adapted")  # fmt: skip
    assert report.setting.task == "segmentation"
    assert [pose.accuracy.value for pose in report.rows["adapted"].poses] == [1, 1, 1, 1]
    assert sorted(p.name for p in (work / "figures").iterdir()) == ["angles.png", "reliability.png"]
    pytest.importorskip("faster_coco_eval")
    report = evaluated("task_code:make", "--data", "coco", "--task", "detection", "--outputs", "boxes=boxes",
                       "--rows", "vanilla,oracle")  # fmt: skip
    assert [pose.accuracy.value for pose in report.rows["oracle"].poses] == pytest.approx([1] * 4)
    assert capsys.readouterr().err == ""


def test_curves_from_the_shell(work):
    words = ["--data", "maps", "--task", "segmentation", "--outputs", "mask", "--figures", "figures"]
    over = ["--over", "scale", "--values", "1:1.5:0.25", "--rows", "vanilla"]
    report = evaluated("task_code:make", *words, *over)
    assert [pose.label for pose in report.rows["vanilla"].poses] == ["×1", "×1.25", "×1.5"]
    assert report.rows["vanilla"].poses[0].accuracy.value == 1
    assert (work / "figures" / "curve.png").is_file()


MISTAKES = {
    "--task must be one of classification": ["--task", "segmenting"],
    "--over must be one of rotation, scale": ["--over", "shear"],
    "--values needs --over": ["--values", "1,2"],
    "--values must be start:stop:step": ["--over", "rotation", "--values", "0:360"],
    "--no-labels goes with classification, not with depth": ["--task", "depth", "--no-labels"],
    "nowhere does not exist": ["--task", "depth", "--data", "nowhere"],
    "must hold the folders 'images' and 'masks'": ["--task", "segmentation", "--data", "coco"],
    "must hold one .json file in COCO's layout, got none": ["--task", "detection", "--data", "pages"],
    "annotations belong to detection": ["--task", "text", "--annotations", "coco/things.json"],
    "must have columns 'image' and 'depth'": ["--task", "depth", "--data", "all.parquet"],
    "needs a model whose output moves as Mask": ["--task", "segmentation", "--data", "maps"],
    "rows must be a non-empty sequence of 'vanilla'": [
        "--task",
        "depth",
        "--outputs",
        "mask",
        "--rows",
        "best",
    ],
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_are_told_in_one_line(work, capsys, message):
    flags = ["--group", "C4", "--canonicalizer", "photo-c4", "--data", "maps"]
    assert main(["evaluate", "--model", "task_code:make", *flags, *MISTAKES[message]]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_damaged_data(work):
    (work / "maps" / "masks" / "1.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1.png has no target: .*masks/1.png does not exist"):
        open_annotated("segmentation", "maps")
    Image.fromarray(mask()[:5]).save(work / "maps" / "masks" / "1.png")
    with pytest.raises(
        ValueError, match=r"1.png must hold one number a pixel, 12×20 as its picture, got shape \(5, 20\)"
    ):
        open_annotated("segmentation", "maps")[1]
    (work / "coco" / "things.json").write_text("{}")
    with pytest.raises(ValueError, match=r"must be JSON in COCO's layout, with 'images' and .*: KeyError"):
        open_annotated("detection", "coco")
    (work / "coco" / "things.json").write_text(
        json.dumps({**COCO, "images": [{**COCO["images"][0], "width": 12}], "annotations": []})
    )
    with pytest.raises(ValueError, match="take the EXIF orientation out"):
        open_annotated("detection", "coco")[0]
    (work / "maps" / "images" / "0.png").write_bytes(b"no picture")
    (work / "maps" / "masks" / "1.png").write_bytes(png(Image.fromarray(mask(1))))
    data = open_annotated("segmentation", "maps")
    assert len(data) == 1
    assert data.skipped[0][0].endswith("0.png")
    assert torch.equal(data[0][1], torch.from_numpy(mask(1)).long())  # what is left keeps its target


def test_flags_are_read():
    assert parsed_values("0:30:10") == [0, 10, 20, 30]
    assert parsed_values("0.5, 1,2") == [0.5, 1, 2]
    assert parsed_values("0.1:0.7:0.2") == pytest.approx([0.1, 0.3, 0.5, 0.7])
    assert parsed_outputs("boxes=boxes, masks=mask") == {"boxes": "boxes", "masks": "mask"}
    for bad in ("0:10:0", "10:0:1", "a,b", "0:1:1e-9", "0:inf:1"):
        with pytest.raises(UserError, match="--values must be"):
            parsed_values(bad)
    with pytest.raises(UserError, match="--outputs must be"):
        parsed_outputs("boxes=boxes,masks")
