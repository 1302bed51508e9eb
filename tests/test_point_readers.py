"""Readers of ModelNet and of the parts of ShapeNet, on files written here in the real formats.

Files are written by hand or with h5py, in the layouts of the releases, never with the readers' own code
(`write_off` is tried apart).
"""

import json

import numpy as np
import pytest
import torch

from upright.data.meshes import box, frustum
from upright.data.modelnet import open_modelnet, read_off, write_off
from upright.data.shapenet import PARTS_OF, open_shapenet_parts

SQUARE = "0 0 0\n2 0 0\n2 2 0\n0 2 0\n"
FORMS = {
    "plain": f"OFF\n4 2 0\n{SQUARE}3 0 1 2\n3 0 2 3\n",
    "header in one line": f"OFF4 2 0\n{SQUARE}3 0 1 2\n3 0 2 3\n",  # 'OFF490 518 0' of ModelNet40
    "header with a space": f"OFF 4 2 0\n{SQUARE}3 0 1 2\n3 0 2 3\n",
    "polygon": f"OFF\n4 1 0\n{SQUARE}4 0 1 2 3\n",
    "comments and blanks": f"OFF # a mesh\n\n# counts\n4 2 5\n{SQUARE}\n3 0 1 2 # one\n3 0 2 3\n",
    "colours of faces": f"OFF\n4 2 0\n{SQUARE}3 0 1 2 255 0 0\n3 0 2 3 0.1 0.2 0.3\n",
    "colours of vertices": "COFF\n4 2 0\n" + SQUARE.replace("\n", " 1 1 1 1\n") + "3 0 1 2\n3 0 2 3\n",
    "line ends of Windows": f"OFF\n4 2 0\n{SQUARE}3 0 1 2\n3 0 2 3\n".replace("\n", "\r\n"),
}


@pytest.mark.parametrize("form", FORMS)
def test_off_in_every_form(form, tmp_path):
    path = tmp_path / "square.off"
    path.write_bytes(FORMS[form].encode())
    mesh = read_off(path)
    assert mesh.vertices.tolist() == [[0, 0, 0], [2, 0, 0], [2, 2, 0], [0, 2, 0]]
    assert mesh.faces.tolist() == [[0, 1, 2], [0, 2, 3]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must begin with OFF, got 'an empty file'"),
        ("ply\nformat ascii", "must begin with OFF, got 'ply'"),
        ("OFF\nmany", "numbers of vertices and faces must follow OFF"),
        ("OFF", "numbers of vertices and faces must follow OFF"),
        (f"OFF\n4 2 0\n{SQUARE}3 0 1 2\n", "must hold 4 vertices and 2 faces, got 5 lines"),
        (f"OFF\n4 1 0\n{SQUARE}3 0 1 4\n", "faces must name vertices 0 to 3, got up to 4"),
        (f"OFF\n4 1 0\n{SQUARE}3 0 1\n", "a face of 3 corners names 2"),
        (f"OFF\n4 1 0\n{SQUARE}3 0 1 x\n", "cannot be read: invalid literal"),
        (f"OFF\n4 1 0\n{SQUARE}-1 0 1 2\n", "a face of -1 corners names"),
        (f"OFF\n4 -1 0\n{SQUARE}", "numbers of vertices and faces must follow OFF"),
        (f"OFF\n4 1 0\n{SQUARE}3 0 1 2\n".replace("2 0 0", "nan 0 0"), "vertices must be finite"),
    ],
)
def test_broken_off_is_told(text, message, tmp_path):
    path = tmp_path / "broken.off"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        read_off(path)
    assert "broken.off" in str(error.value)


def test_off_comes_back_as_written(tmp_path):
    mesh = frustum(0.3, 1, 2, sides=7)
    write_off(tmp_path / "a.off", mesh)
    back = read_off(tmp_path / "a.off")
    np.testing.assert_allclose(back.vertices, mesh.vertices, atol=1e-8)
    assert (back.faces == mesh.faces).all()


@pytest.fixture
def modelnet_off(tmp_path):
    """Folders as in ModelNet40.zip: flat boxes and tall poles, z up."""
    for name, size in (("plate", (4, 4, 0.2)), ("pole", (0.2, 0.2, 8))):
        for split, count in (("train", 2), ("test", 1)):
            folder = tmp_path / "ModelNet40" / name / split
            folder.mkdir(parents=True)
            for i in range(1, count + 1):
                write_off(folder / f"{name}_{i:04}.off", box(size, (3, 1, i)))
    (tmp_path / "ModelNet40" / "README.txt").write_text("as in the release")
    return tmp_path / "ModelNet40"


def extents(clouds):
    return clouds.points.amax(1) - clouds.points.amin(1)


def test_modelnet_as_meshes(modelnet_off):
    train, test = open_modelnet(modelnet_off, points=256), open_modelnet(modelnet_off, "test", points=256)
    assert train.class_names == ["plate", "pole"]
    assert train.labels.tolist() == [0, 0, 1, 1]
    assert test.labels.tolist() == [0, 1]
    assert train.points.dtype == torch.float32
    torch.testing.assert_close(train.points.norm(dim=-1).amax(1), torch.ones(4))
    assert (extents(train)[:2, 2] < 0.1).all()  # a plate is low
    assert (extents(train)[2:, 2] > 1.7).all()  # a pole is tall
    assert (train.normals[:2, :, 2].abs() > 0.5).float().mean() > 0.7


def test_a_mesh_gives_the_same_points_whatever_else_is_read(modelnet_off):
    every, pole = open_modelnet(modelnet_off), open_modelnet(modelnet_off, classes=["pole"])
    assert pole.class_names == ["pole"]
    assert torch.equal(pole.points, every.points[2:])
    assert not torch.equal(every.points[2], every.points[3])
    assert not torch.equal(open_modelnet(modelnet_off, seed=1).points, every.points)


def modelnet_arrays(count, points=64):
    """Poles along y, as y points up in these files."""
    random = np.random.default_rng(count)
    data = (random.random((count, points, 3)) * [0.1, 2, 0.3]).astype(np.float32)
    normal = np.broadcast_to(np.float32([0, 1, 0]), data.shape)
    return data, normal, random.integers(0, 3, (count, 1)).astype(np.uint8)


@pytest.fixture
def modelnet_hdf5(tmp_path):
    """Files as in modelnet40_ply_hdf5_2048.zip, gzipped, with lists of paths on the authors' machine."""
    h5py = pytest.importorskip("h5py")
    root = tmp_path / "modelnet40_ply_hdf5_2048"
    root.mkdir()
    (root / "shape_names.txt").write_text("airplane\nbathtub\nbed\n")
    for split, counts in (("train", (5, 3)), ("test", (2,))):
        listed = ""
        for i, count in enumerate(counts):
            data, normal, label = modelnet_arrays(count)
            with h5py.File(root / f"ply_data_{split}{i}.h5", "w") as file:
                file.create_dataset("data", data=data, compression="gzip")
                file.create_dataset("normal", data=normal, compression="gzip")
                file.create_dataset("label", data=label, compression="gzip")
                file.create_dataset("faceId", data=np.zeros(data.shape[:2], np.int32))
            listed += f"data/modelnet40_ply_hdf5_2048/ply_data_{split}{i}.h5\n"
        (root / f"{split}_files.txt").write_text(listed)
    return root


def test_modelnet_as_points(modelnet_hdf5):
    train = open_modelnet(modelnet_hdf5, points=32)
    data, _, label = (np.concatenate(a) for a in zip(modelnet_arrays(5), modelnet_arrays(3), strict=True))
    assert train.class_names == ["airplane", "bathtub", "bed"]
    assert train.labels.tolist() == label[:, 0].tolist()
    assert train.points.shape == (8, 32, 3)
    first = data[:, :32] - data[:, :32].mean(1, keepdims=True)
    first /= np.linalg.norm(first, axis=-1).max(1)[:, None, None]
    np.testing.assert_allclose(train.points.numpy(), first[..., [0, 2, 1]] * [1, -1, 1], atol=1e-6)
    assert torch.equal(train.normals, torch.tensor([0.0, 0, 1]).expand(8, 32, 3))
    assert len(open_modelnet(modelnet_hdf5, "test", points=64)) == 2


def test_modelnet_as_points_by_class_and_as_it_stands(modelnet_hdf5):
    every = open_modelnet(modelnet_hdf5, points=32)
    some = open_modelnet(modelnet_hdf5, points=32, classes=["bed", "airplane"])
    kept = every.labels != 1
    assert torch.equal(some.points, every.points[kept])
    assert torch.equal(some.labels, torch.where(every.labels[kept] == 2, 0, 1))
    lying = open_modelnet(modelnet_hdf5, points=32, up="z")
    assert (extents(lying)[:, 1] > 1).all()


def test_modelnet_without_lists_and_normals(modelnet_hdf5):
    import h5py

    for path in modelnet_hdf5.glob("*.txt"):
        path.unlink()
    with h5py.File(modelnet_hdf5 / "ply_data_train1.h5", "a") as file:
        del file["normal"]
    train = open_modelnet(modelnet_hdf5, points=64)
    assert len(train) == 8
    assert train.normals is None
    assert train.class_names == [str(i) for i in range(int(train.labels.max()) + 1)]


def test_mistakes_with_modelnet_are_told(modelnet_hdf5, modelnet_off, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"must hold folders <class>/train .* found neither"):
        open_modelnet(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="split must be one of 'train', 'test', got 'val'"):
        open_modelnet(modelnet_off, "val")
    with pytest.raises(ValueError, match="classes must be one of 'plate', 'pole', got 'bed'"):
        open_modelnet(modelnet_off, classes=["bed"])
    with pytest.raises(ValueError, match="points must be at most 64"):
        open_modelnet(modelnet_hdf5)
    (modelnet_hdf5 / "ply_data_train0.h5").unlink()
    with pytest.raises(FileNotFoundError, match=r"names ply_data_train0\.h5, absent"):
        open_modelnet(modelnet_hdf5, points=8)


def test_h5py_is_asked_for_where_it_lacks(modelnet_hdf5, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(ImportError, match=r"need h5py: pip install 'upright\[clouds\]'"):
        open_modelnet(modelnet_hdf5, points=8)


OBJECTS = {  # class: its folder, objects, points in each
    "Airplane": ("02691156", ["a1", "a2"], 90),
    "Mug": ("03797390", ["m1"], 40),
    "Table": ("04379243", ["t1"], 70),
}


def object_table(name, item):
    """Lines x y z nx ny nz part, as in the release: tall along y; parts are 36, 37 for a mug."""
    count = OBJECTS[name][2]
    random = np.random.default_rng([*item.encode()])
    points = random.random((count, 3)) * [0.2, 2, 0.2]
    first = {"Airplane": 0, "Mug": 36, "Table": 47}[name]
    part = first + (points[:, 1:2] > 1)  # the second part is the upper half
    return np.concatenate([points, np.broadcast_to([0.0, 1.0, 0.0], points.shape), part], 1)


@pytest.fixture
def shapenet_text(tmp_path):
    root = tmp_path / "shapenetcore_partanno_segmentation_benchmark_v0_normal"
    (root / "train_test_split").mkdir(parents=True)
    listing = "".join(f"{name}\t{folder}\n" for name, (folder, _, _) in OBJECTS.items())
    (root / "synsetoffset2category.txt").write_text(listing)
    split = {"train": [], "val": [], "test": []}
    for name, (folder, items, _) in OBJECTS.items():
        (root / folder).mkdir()
        for item in items:
            np.savetxt(root / folder / f"{item}.txt", object_table(name, item), fmt="%.6f")
            split["test" if item == "a2" else "train"].append(f"shape_data/{folder}/{item}")
    for key, entries in split.items():
        entries.reverse()  # the lists are shuffled
        (root / "train_test_split" / f"shuffled_{key}_file_list.json").write_text(json.dumps(entries))
    return root


def test_parts_of_shapenet_as_text(shapenet_text):
    train = open_shapenet_parts(shapenet_text, points=64)
    assert train.class_names == ["Airplane", "Mug", "Table"]
    assert train.labels.tolist() == [2, 1, 0]
    assert train.points.shape == (3, 64, 3)
    assert [sorted(set(p.tolist())) for p in train.parts] == [[47, 48], [36, 37], [0, 1]]
    assert (extents(train)[:, 2] > 1.8).all()  # y of the files points up: z here
    assert torch.equal(train.normals[..., 2], torch.ones(3, 64))
    for z, part in zip(train.points[..., 2], train.parts, strict=True):  # parts stay with their points
        upper = part == part.max()
        assert z[upper].min() > z[~upper].max()
    assert open_shapenet_parts(shapenet_text, "test", points=8).labels.tolist() == [0]


def test_points_are_drawn_once_each_while_there_are_enough(shapenet_text):
    mug = open_shapenet_parts(shapenet_text, points=40, classes=["Mug"])
    assert len(mug.points[0].unique(dim=0)) == 40
    again = open_shapenet_parts(shapenet_text, points=64, classes=["Mug"])
    assert 25 < len(again.points[0].unique(dim=0)) < 40
    assert torch.equal(again.points[0], open_shapenet_parts(shapenet_text, points=64).points[1])


def test_parts_of_shapenet_as_hdf5(tmp_path):
    h5py = pytest.importorskip("h5py")
    root = tmp_path / "hdf5_data"
    root.mkdir()
    listing = "".join(f"{name}\t{folder}\n" for name, (folder, _, _) in OBJECTS.items())
    (root / "all_object_categories.txt").write_text(listing)
    (root / "train_hdf5_file_list.txt").write_text("ply_data_train0.h5\n")
    tables = [object_table(*what)[:32] for what in (("Mug", "m1"), ("Table", "t1"), ("Airplane", "a1"))]
    with h5py.File(root / "ply_data_train0.h5", "w") as file:
        file["data"] = np.stack(tables)[..., :3].astype(np.float32)
        file["label"] = np.array([[1], [2], [0]], np.uint8)
        file["pid"] = np.stack(tables)[..., 6].astype(np.uint8)
    train = open_shapenet_parts(root, points=32)
    assert train.labels.tolist() == [1, 2, 0]
    assert torch.equal(train.parts, torch.from_numpy(np.stack(tables)[..., 6]).long())
    assert (extents(train)[:, 2] > 1.5).all()
    table = open_shapenet_parts(root, points=8, classes=["Table"])
    assert table.labels.tolist() == [0]
    assert torch.equal(table.parts[0], train.parts[1, :8])


def test_parts_are_fifty_over_sixteen_classes():
    assert len(PARTS_OF) == 16
    assert [k for own in PARTS_OF.values() for k in own] == list(range(50))
    counts = {name: len(own) for name, own in PARTS_OF.items()}
    assert counts["Motorbike"] == 6
    assert counts["Mug"] == counts["Knife"] == counts["Laptop"] == counts["Bag"] == counts["Cap"] == 2
    assert PARTS_OF["Earphone"] == [16, 17, 18]


def test_mistakes_with_shapenet_are_told(shapenet_text, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"must hold synsetoffset2category.txt .* found neither"):
        open_shapenet_parts(tmp_path)
    with pytest.raises(ValueError, match=r"must name objects of the classes .* got none"):
        open_shapenet_parts(shapenet_text, "val")
    (shapenet_text / "03797390" / "m1.txt").write_text("1 2 3 0\n")
    with pytest.raises(ValueError, match=r"m1.txt must hold lines of 7 numbers .* got \(1, 4\)"):
        open_shapenet_parts(shapenet_text)
    (shapenet_text / "03797390" / "m1.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"m1\.txt is absent, though the split names it"):
        open_shapenet_parts(shapenet_text)
