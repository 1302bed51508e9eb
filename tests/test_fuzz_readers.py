"""Whatever tables, archives, meshes, scans and checkpoints hold: read, left out, or refused in a line."""

import copy
import gzip
import io
import json
import tarfile

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import upright
from damage import ODD_VALUES, attempt, bounded, damaged, places
from streaming_toys import always_right, lying, table
from test_hub import adapted
from upright.cli.app import VERBS, build_parser
from upright.cli.config import apply_config
from upright.cli.errors import UserError
from upright.data.modelnet import open_modelnet, read_off
from upright.data.shapenet import open_shapenet_parts


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def peak():
    """The most memory that this process held so far, in bytes."""
    resource = pytest.importorskip("resource")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# Tables and archives


def parquet(rows=4):
    pq = pytest.importorskip("pyarrow.parquet")
    file = io.BytesIO()
    pq.write_table(table(rows), file, row_group_size=2, compression="none")
    return file.getvalue()


@bounded(80)
@given(data=st.data())
def test_damaged_tables_as_data(folder, data):
    path = folder / "x.parquet"
    path.write_bytes(data.draw(damaged(parquet())))
    found = attempt(lambda: upright.data.open_data(path), ValueError, FileNotFoundError, says=["x.parquet"])
    if found is not None:
        assert all(0 <= label < 10**9 or label == -1 for label in found.labels if isinstance(label, int))
        for i in range(len(found)):
            attempt(lambda: found[i], ValueError)  # noqa: B023


def streamed(folder, name, content):
    source, output = folder / "in", folder / "out"
    for place in (source, output, folder / "out.manifest"):
        if place.exists():
            for path in sorted(place.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
    source.mkdir(exist_ok=True)
    (source / name).write_bytes(content)
    run = lambda: upright.canonicalize(source, output, always_right(), workers=1, batch_size=2)  # noqa: E731
    summary = attempt(run, ValueError, FileNotFoundError, FileExistsError)
    if summary is not None:
        assert run().items == 0  # it is finished, whatever was in it
        assert summary.total == sum(summary.counts.values())
    return summary


def archive():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as made:
        for i in range(3):
            for name, content in ((f"{i}.png", lying(i)), (f"{i}.json", b"{}")):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                made.addfile(info, io.BytesIO(content))
    return file.getvalue()


@bounded(40)
@given(data=st.data())
def test_damaged_tables_in_streams(folder, data):
    streamed(folder, "x.parquet", data.draw(damaged(parquet())))


@bounded(40)
@given(data=st.data())
def test_damaged_archives_in_streams(folder, data):
    streamed(folder, "x.tar", data.draw(damaged(archive())))


@bounded(20)
@given(data=st.data())
def test_damaged_packed_archives_in_streams(folder, data):
    streamed(folder, "x.tar.gz", data.draw(damaged(gzip.compress(archive(), mtime=0))))


@pytest.mark.parametrize("sparse", [True, False])
def test_archives_of_a_few_bytes_take_no_memory(folder, sparse):
    """A member that claims gigabytes: of holes, which take no room, or packed."""
    size = 3 << 30
    info = tarfile.TarInfo("1.png")
    info.size = size
    if sparse:  # as GNU tar writes files with holes
        info.size = 512
        info.pax_headers = {
            "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "1.png",
            "GNU.sparse.realsize": str(size),
        }  # fmt: skip
        content = info.tobuf(tarfile.PAX_FORMAT) + b"1\n0\n0\n".ljust(512, b"\0") + bytes(1024)
        packed = gzip.compress(content)
    else:
        packed = gzip.compress(info.tobuf(tarfile.PAX_FORMAT) + bytes(1 << 20))
    before = peak()
    summary = streamed(folder, "x.tar.gz", packed)
    assert summary.bad == 1
    assert "more than" in summary.examples[0][1]
    assert peak() - before < 300 << 20


def test_cells_that_name_devices_are_not_read(folder):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cells = [{"bytes": None, "path": path} for path in ("/dev/zero", "/dev/random", "gone.png", ".")]
    file = io.BytesIO()
    pq.write_table(pa.table({"image": pa.array(cells, kind)}), file)
    summary = streamed(folder, "x.parquet", file.getvalue())
    assert summary.bad == 4
    (folder / "x.parquet").write_bytes(file.getvalue())
    with pytest.raises(ValueError, match=r"x\.parquet"):
        upright.data.open_data(folder / "x.parquet")


# Meshes and clouds

OFF = b"OFF # a comment\n4 2 0\n0 0 0\n2 0 0\n2 2 0\n0 2 0\n3 0 1 2\n4 0 1 2 3 0.5 0 0\n"


@bounded(80)
@given(data=damaged(OFF, OFF.replace(b" # a comment\n", b"")))
def test_damaged_meshes(folder, data):
    path = folder / "x.off"
    path.write_bytes(data)
    mesh = attempt(lambda: read_off(path), ValueError, says=["x.off"])
    if mesh is not None:
        assert np.isfinite(mesh.vertices).all()
        assert mesh.faces.size == 0 or 0 <= mesh.faces.min() <= mesh.faces.max() < len(mesh.vertices)


@pytest.fixture(scope="module")
def modelnet(tmp_path_factory):
    h5py = pytest.importorskip("h5py")
    root = tmp_path_factory.mktemp("modelnet")
    (root / "shape_names.txt").write_text("airplane\nbed\n")
    random = np.random.default_rng(0)
    with h5py.File(root / "ply_data_train0.h5", "w") as file:
        file["data"] = random.random((3, 8, 3)).astype(np.float32)
        file["label"] = np.array([[0], [1], [1]], np.uint8)
    return root, (root / "ply_data_train0.h5").read_bytes()


def is_good(clouds):
    return bool(clouds.points.isfinite().all()) and len(clouds.points) == len(clouds.labels)


@bounded(80)
@given(data=st.data())
def test_damaged_hdf5(modelnet, data):
    root, whole = modelnet
    (root / "ply_data_train0.h5").write_bytes(data.draw(damaged(whole)))
    clouds = attempt(lambda: open_modelnet(root, points=8), ValueError, says=["ply_data", str(root)])
    assert clouds is None or is_good(clouds)


ARRAYS = {
    "no points": {"data": (3, 0, 3)}, "flat": {"data": (3, 24)}, "planar": {"data": (3, 8, 2)},
    "other count": {"label": (2, 1)}, "many labels": {"label": (3, 2)},
    "empty": {"data": (0, 8, 3), "label": (0,)},
    "huge": {"data": (10**5, 2048, 3)}, "normals of others": {"normal": (1, 8, 3)},
}  # fmt: skip


@pytest.mark.parametrize("shapes", ARRAYS)
def test_hdf5_of_other_shapes(tmp_path, modelnet, shapes):
    h5py = pytest.importorskip("h5py")
    (tmp_path / "shape_names.txt").write_text("airplane\nbed\n")
    given_ = {"data": (3, 8, 3), "label": (3, 1), **ARRAYS[shapes]}
    with h5py.File(tmp_path / "ply_data_train0.h5", "w") as file:
        for name, shape in given_.items():
            dtype = "u1" if name == "label" else "f4"
            chunks = tuple(min(n, 64) for n in shape) if all(shape) else None
            file.create_dataset(name, shape, dtype, chunks=chunks)
    before = peak()
    with pytest.raises(ValueError, match=r"ply_data_train0\.h5"):
        open_modelnet(tmp_path, points=4)
    assert peak() - before < 300 << 20


@pytest.mark.parametrize("label", [2, -1, "bed", np.nan])
def test_labels_that_name_no_class(tmp_path, modelnet, label):
    h5py = pytest.importorskip("h5py")
    (tmp_path / "shape_names.txt").write_text("airplane\nbed\n")
    with h5py.File(tmp_path / "ply_data_train0.h5", "w") as file:
        file["data"] = np.ones((2, 8, 3), np.float32)
        file["label"] = [label, label]
    with pytest.raises(ValueError, match=r"ply_data_train0\.h5"):
        open_modelnet(tmp_path, points=4)


OBJECT = "\n".join(f"{i} {i * i % 7} 0.5 0 1 0 {i % 2}" for i in range(6)).encode()
LISTS = {
    "synsetoffset2category.txt": b"Airplane\t02691156\n",
    "train_test_split/shuffled_train_file_list.json": json.dumps(["shape_data/02691156/a"]).encode(),
    "02691156/a.txt": OBJECT,
}


@bounded(80)
@given(name=st.sampled_from(sorted(LISTS)), data=st.data())
def test_damaged_parts(folder, name, data):
    root = folder / "parts"
    for path, content in LISTS.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content if path != name else data.draw(damaged(content)))
    says = [str(root), "classes must"]
    found = attempt(lambda: open_shapenet_parts(root, points=4), ValueError, FileNotFoundError, says=says)
    assert found is None or is_good(found)


# Scans


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    nib = pytest.importorskip("nibabel")
    folder = tmp_path_factory.mktemp("scans")
    image = nib.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.diag([-1.0, 1, 3, 1]))
    nib.save(image, folder / "x.nii")
    nib.save(nib.Nifti2Image(image.dataobj, image.affine), folder / "y.nii")
    return folder, (folder / "x.nii").read_bytes(), (folder / "y.nii").read_bytes()


@bounded(80)
@given(packed=st.booleans(), data=st.data())
def test_damaged_scans(scans, packed, data):
    from upright.integrations.nifti import read_scan

    folder, *whole = scans
    path = folder / ("z.nii.gz" if packed else "z.nii")
    content = data.draw(damaged(*whole))
    path.write_bytes(gzip.compress(content, 1) if packed else content)
    scan = attempt(lambda: read_scan(path), ValueError, says=["z.nii"])
    if scan is not None:
        assert bool(scan.affine.isfinite().all())
        attempt(lambda: scan.pose, ValueError)


@pytest.mark.parametrize("packed", [True, False])
def test_scans_that_claim_much_take_no_memory(scans, packed):
    from upright.integrations.nifti import read_scan

    folder, whole, _ = scans
    header = bytearray(whole[:352])
    header[40:56] = np.array([3, 20_000, 20_000, 100, 1, 1, 1, 1], "<i2").tobytes()
    path = folder / ("big.nii.gz" if packed else "big.nii")
    path.write_bytes(gzip.compress(bytes(header) + bytes(10**6)) if packed else bytes(header))
    before = peak()
    with pytest.raises(ValueError, match=r"big\.nii"):
        read_scan(path)
    assert peak() - before < 300 << 20


def test_scans_that_are_flat_are_named(scans):
    from upright.integrations.nifti import read_scan

    folder, whole, _ = scans
    flat = bytearray(whole)
    flat[40:42] = b"\x02\0"  # two axes
    (folder / "flat.nii").write_bytes(bytes(flat))
    with pytest.raises(ValueError, match=r"flat\.nii is no readable scan: a scan must have shape"):
        read_scan(folder / "flat.nii")


# Checkpoints and settings


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A training that goes on from a folder, and what its checkpoint holds."""
    folder = tmp_path_factory.mktemp("run")
    options = {"batch_size": 4, "progress": False, "calibrate": False, "output": folder}

    def train(epochs, **more):
        return upright.fit(adapted(), torch.rand(8, 3, 20, 20), epochs=epochs, **options, **more)

    train(1)
    path = folder / "last.ckpt"
    return lambda: train(2, resume=True), path, path.read_bytes(), torch.load(path, weights_only=True)


ODD = [None, -1, "x", [], {}, torch.ones(3), 2**70, ...]


@bounded(25)
@given(data=st.data())
def test_odd_checkpoints(checkpoint, data):
    resume, path, _, content = checkpoint
    *above, last = data.draw(st.sampled_from([p for p in places(content) if len(p) <= 3]))
    content = holder = copy.deepcopy(content)
    for key in above:
        holder = holder[key]
    odd = data.draw(st.sampled_from(ODD))
    if odd is ...:
        del holder[last]
    else:
        holder[last] = odd
    torch.save(content, path)
    attempt(resume, ValueError, says=["last.ckpt", "the checkpoint must be one of"])


@bounded(80)
@given(data=st.data())
def test_damaged_checkpoints(checkpoint, data):
    from upright.training.callbacks import AtomicCheckpoints

    _, path, whole, _ = checkpoint
    path.write_bytes(data.draw(damaged(whole)))
    attempt(lambda: AtomicCheckpoints().load_checkpoint(path), ValueError, says=["last.ckpt"])


def test_what_is_damaged_here_can_be_resumed(checkpoint):
    resume, path, whole, _ = checkpoint
    path.write_bytes(whole)
    assert [row["step"] for row in resume().history] == [2, 4]


@bounded(150)
@given(verb=st.sampled_from(sorted(VERBS)), odd=st.sampled_from(ODD_VALUES), data=st.data())
def test_odd_settings(folder, verb, odd, data):
    """Whatever value stands in a file of settings: taken as if it stood on the line, or one line says no."""
    _, parser, _ = build_parser(verb)
    name = data.draw(st.sampled_from([action.dest for action in parser._actions]))
    path = folder / "c.json"  # JSON is YAML
    path.write_text(json.dumps({name: odd}))
    attempt(lambda: apply_config(parser, [verb, "--config", str(path)]), UserError, says=[str(path)])
