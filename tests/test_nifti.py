"""Scans: reorienting moves no voxel in the world; files keep what they say; orientations are found."""

import itertools
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import upright
from upright import Cyclic, act
from upright.data.phantoms import phantoms
from upright.groups.motions import SE3
from upright.groups.octahedral import FullOctahedral
from upright.groups.space import SO3
from upright.kinds_space import LabelVolume, Volume
from upright.losses import prior_loss

nib = pytest.importorskip("nibabel")

from upright.integrations.nifti import read_scan  # noqa: E402

GROUP = FullOctahedral()
SHAPE = (4, 5, 7)
# oblique, sheared, with three different sizes of voxels and a far origin
AFFINE = np.array([
    [-1.45, 0.21, 0.3, 91.5],
    [0.35, 0.88, -0.4, -126.0],
    [0.1, 0.25, 2.9, -72.25],
    [0, 0, 0, 1.0],
])  # fmt: skip
# every way to store three axes: their order and directions
ORIENTATIONS = [
    np.stack([order, ways], 1)
    for order in itertools.permutations(range(3))
    for ways in itertools.product([1, -1], repeat=3)
]


def numbered(shape=SHAPE, affine=AFFINE, dtype="int16", **header):
    """An image whose every voxel has a number of its own."""
    array = np.arange(np.prod(shape), dtype=dtype).reshape(shape)
    made = nib.Nifti1Header()
    for key, entry in header.items():
        made[key] = entry
    made.set_data_dtype(array.dtype)
    return nib.Nifti1Image(array, affine, made)


def places(scan):
    """Where each number lies in the world, by the scan's own affine, in the order of the numbers."""
    data = scan.volume.data[0]
    order = data.flatten().argsort()
    k, j, i = (axis[order] for axis in (a.flatten() for a in torch.meshgrid(
        *(torch.arange(n) for n in data.shape), indexing="ij")))  # fmt: skip
    index = torch.stack([i, j, k, torch.ones_like(i)], 1).double()
    return (index @ scan.affine.T)[:, :3]


@pytest.mark.parametrize("shape", [SHAPE, (6, 6, 6)])
def test_every_voxel_keeps_its_place_in_the_world_in_all_48_orientations(shape):
    scan = read_scan(numbered(shape))
    want = places(scan)
    assert (want[1] - want[0]).norm() > 1
    for g in GROUP.elements():
        moved = scan.reoriented(g)
        assert torch.equal(*(s.volume.data.flatten().sort().values for s in (moved, scan)))
        assert torch.allclose(places(moved), want, atol=1e-10, rtol=0)
        sizes = nib.affines.voxel_sizes(moved.affine.numpy())
        assert np.allclose(moved.volume.spacing[::-1], sizes, atol=1e-12)
        assert torch.allclose(moved.world(torch.tensor([1, 2, 3])), _place(moved, (1, 2, 3)), atol=1e-10)
        home = moved.reoriented(~g)
        assert torch.equal(home.volume.data, scan.volume.data)
        assert torch.allclose(home.affine, scan.affine, atol=1e-10, rtol=0)


def _place(scan, index):
    return torch.from_numpy(nib.affines.apply_affine(scan.affine.numpy(), index))


@pytest.mark.parametrize("ornt", ORIENTATIONS, ids=str)
def test_undoing_the_pose_agrees_with_nibabel(ornt):
    image = numbered(affine=np.diag([1.5, 1.0, 3.0, 1]) + np.eye(4)[:, [3]] @ [[0, 0, 0, 9]])
    image.header.set_dim_info(0, 1, 2)
    stored = image.as_reoriented(ornt)
    scan = read_scan(stored)
    want = nib.as_closest_canonical(stored)
    found = scan.reoriented(~scan.pose)
    assert "".join(nib.aff2axcodes(stored.affine)) == scan.codes
    assert found.codes == "RAS"
    assert np.array_equal(found.volume.data[0].numpy().T, np.asanyarray(want.dataobj))
    assert np.allclose(found.affine.numpy(), want.affine, atol=1e-12)
    written = found.to_image()
    assert written.header.get_dim_info() == want.header.get_dim_info()
    assert np.allclose(written.header.get_zooms(), want.header.get_zooms())
    # and the way there: the scan is its canonical form, moved by its pose
    assert torch.equal(act(scan.pose, found.volume).data, scan.volume.data)


def test_both_affines_of_a_file_follow():
    image = numbered()
    scanner = np.array([[0, -1.2, 0, 5], [1.5, 0, 0, -7], [0, 0, 3.0, 2], [0, 0, 0, 1]])
    image.set_qform(scanner, code=1)
    image.set_sform(AFFINE, code=4)
    scan = read_scan(image)
    for g in GROUP.elements()[torch.arange(0, 48, 5)]:
        moved = scan.reoriented(g).to_image()
        sform, qform = moved.get_sform(coded=True), moved.get_qform(coded=True)
        assert (int(sform[1]), int(qform[1])) == (4, 1)
        gone = np.linalg.inv(AFFINE) @ sform[0]  # from moved indices to the old ones
        assert np.allclose(gone, gone.round(), atol=1e-4)
        assert np.allclose(qform[0], scanner @ gone, atol=1e-4)
        assert np.allclose(moved.affine, scan.reoriented(g).affine, atol=1e-6)


def test_the_order_of_slices_turns_with_their_axis():
    image = numbered(slice_code=3, slice_start=1, slice_end=6)
    image.header.set_dim_info(None, None, 2)
    scan = read_scan(image)
    upside_down = GROUP.nearest(torch.diag(torch.tensor([1.0, 1.0, -1.0])))
    header = scan.reoriented(upside_down).to_image().header
    assert (int(header["slice_code"]), int(header["slice_start"]), int(header["slice_end"])) == (4, 0, 5)
    sideways = GROUP.nearest(torch.tensor([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]]))
    header = scan.reoriented(sideways).to_image().header
    assert header.get_dim_info() == (None, None, 0)
    assert (int(header["slice_code"]), int(header["slice_end"])) == (3, 6)


@pytest.mark.parametrize("dtype", ["int16", "uint8", "uint16", "float32", "float64", ">i2", ">f4"])
@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_files_come_back_bit_for_bit(tmp_path, dtype, name):
    image = numbered(dtype=dtype)
    first = tmp_path / f"first-{name}"
    nib.save(image, first)
    scan = read_scan(first)
    assert scan.volume.data.numpy().dtype == np.dtype(dtype).newbyteorder("=")
    for g in GROUP.elements()[torch.tensor([0, 7, 30])]:
        scan.reoriented(g).save(tmp_path / name)
        back = read_scan(tmp_path / name).reoriented(~g)
        assert np.array_equal(back.volume.data[0].numpy().T, np.asanyarray(image.dataobj))
        assert torch.allclose(back.affine, scan.affine, atol=1e-4)  # files hold float32
        assert back.header.get_sform(coded=True)[1] == scan.header.get_sform(coded=True)[1]


def test_series_scaled_voxels_and_segmentations(tmp_path):
    image = numbered((*SHAPE, 3), dtype="float32")
    image.header.set_zooms((1.5, 1.0, 3.0, 2.5))
    scan = read_scan(image, dtype=torch.float64)
    assert scan.volume.data.shape == (3, 7, 5, 4)
    assert scan.volume.data[2, 6, 3, 1] == image.dataobj[1, 3, 6, 2]
    assert scan.volume.data.dtype == torch.float64
    moved = scan.reoriented(GROUP.element(5)).to_image()
    assert moved.header.get_zooms()[3] == 2.5
    labels = scan.with_data(scan.volume.data[0] > 40)
    assert act(GROUP.element(5), labels.labels()).data.dtype == torch.bool
    labels.save(tmp_path / "labels.nii")
    read = nib.load(tmp_path / "labels.nii")
    assert read.shape == SHAPE
    assert read.get_data_dtype() == np.uint8
    assert np.array_equal(np.asanyarray(read.dataobj) > 0, np.asanyarray(image.dataobj)[..., 0] > 40)

    image = nib.Nifti1Image(np.linspace(-3, 5, 8).reshape(2, 2, 2), np.eye(4))
    image.set_data_dtype("int16")
    nib.save(image, tmp_path / "scaled.nii")
    scaled = nib.load(tmp_path / "scaled.nii")
    assert scaled.dataobj.slope != 1
    read = read_scan(tmp_path / "scaled.nii")
    assert np.array_equal(read.volume.data[0].numpy().T, scaled.get_fdata())
    read.save(tmp_path / "again.nii")
    assert torch.equal(read_scan(tmp_path / "again.nii").volume.data, read.volume.data)


@pytest.mark.parametrize("shift", [None, [2.0, -1.5, 1.0]])
def test_other_motions_resample_and_keep_places(shift):
    z, y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in (24, 20, 28)), indexing="ij")
    blob = torch.exp(-(((x - 17) / 3) ** 2 + ((y - 8) / 2.5) ** 2 + ((z - 13) / 2) ** 2))
    affine = np.array([[0, 1.2, 0, 5], [-1.0, 0, 0, -7], [0, 0, 1.5, 2], [0, 0, 0, 1]])
    scan = read_scan(nib.Nifti1Image(blob.numpy().T, affine))
    want = scan.world(torch.tensor([17, 8, 13]))
    g = SO3().from_euler("xyz", [20.0, -15.0, 30.0], degrees=True)
    g = g if shift is None else SE3().element(g.matrix(), shift)
    moved = scan.reoriented(g)
    weight = moved.volume.data[0] / moved.volume.data.sum()
    centre = torch.stack([(axis * weight).sum() for axis in (x, y, z)])
    assert (centre - torch.tensor([17, 8, 13])).norm() > 1
    assert torch.allclose(moved.world(centre), want, atol=0.05)
    assert moved.header.get_dim_info() == (None, None, None)


def test_mistakes_are_told():
    scan = read_scan(numbered())
    with pytest.raises(TypeError, match="g must be of a spatial group"):
        scan.reoriented(Cyclic(4).element(1))
    with pytest.raises(ValueError, match=r"g must be one element, of shape \(\), got \(48,\)"):
        scan.reoriented(GROUP.elements())
    with pytest.raises(ValueError, match=r"data must have shape \(C, 7, 5, 4\)"):
        scan.with_data(torch.zeros(4, 5, 7))
    with pytest.raises(ValueError, match=r"a scan must have shape"):
        read_scan(nib.Nifti1Image(np.zeros((2, 2), "int16"), np.eye(4)))
    colours = np.zeros((2, 2, 2), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(ValueError, match="voxels must be numbers"):
        read_scan(nib.Nifti1Image(colours, np.eye(4)))
    with pytest.raises(ValueError, match="the affine must give every axis a direction"):
        _ = replace(scan, affine=torch.diag(torch.tensor([1.0, 0, 1, 1]).double())).pose


@pytest.fixture(scope="module")
def finder():
    """A canonicalizer fitted for a second to upright bodies."""
    torch.manual_seed(0)
    bodies = phantoms(96, (12, 12, 12))
    made = upright.canonicalizer("full octahedral", size=8, channels=1).train()
    optimizer = torch.optim.AdamW(made.parameters(), 5e-3)
    for _ in range(60):
        loss = prior_loss(made(bodies[torch.randint(96, (8,))]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return made.eval()


def test_orientations_are_found_and_undone(finder, tmp_path):
    """Scans that say nothing of how they lie: found from the voxels, in any of 48 ways, and set upright."""
    bodies, stands = phantoms(24, (12, 12, 12)), GROUP.sample(24)
    found = 0
    for i, (body, g) in enumerate(zip(bodies, stands, strict=True)):
        file = tmp_path / f"{i}.nii"
        nib.save(nib.Nifti1Image(act(g, Volume(body)).data[0].numpy().T, np.eye(4)), file)
        scan = read_scan(file)
        with torch.no_grad():
            pose = finder(scan.volume.data.unsqueeze(0)).element[0]
        scan.reoriented(~pose).save(file)
        is_right = bool(pose.equals(g))
        assert torch.equal(read_scan(file).volume.data, body) == is_right
        found += is_right
    assert found >= 16  # a finder trained for seconds; of 48 ways, chance finds one in two runs of this test


class Segmenter(torch.nn.Conv3d):
    """Any network: it knows of no symmetry."""

    def forward(self, volume):
        scores = super().forward(volume)
        return {"soft": scores, "labels": scores.argmax(1)}


@pytest.mark.parametrize("shape", [(8, 8, 8), (7, 10, 9)])
def test_adapted_segmentation_is_equivariant_bit_for_bit(finder, shape):
    kinds = {"soft": "volume", "labels": "label_volume"}
    model = Segmenter(1, 3, 3, padding=1)
    robust = upright.adapt(model, GROUP, canonicalizer=finder, outputs=kinds)
    x = phantoms(3, shape)
    with torch.no_grad():
        want, plain = robust(x), model(x)
        held = 0
        for g in GROUP.elements():
            got, bare = (f(act(g, Volume(x)).data) for f in (robust, model))
            assert torch.equal(got["soft"], act(g, Volume(want["soft"])).data)
            assert torch.equal(got["labels"], act(g, LabelVolume(want["labels"])).data)
            held += torch.equal(bare["labels"], act(g, LabelVolume(plain["labels"])).data)
    assert held < 24, "or the check says nothing"


def test_bodies_differ_and_stand_as_anatomy_does():
    one, other = phantoms(2, (24, 24, 24), noise=0.0)[:, 0]
    assert (one - other).abs().max() > 0.1
    same = [phantoms(1, noise=0.0, generator=torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*same)
    mean = phantoms(32, (24, 24, 24), noise=0.0).mean(0)[0]  # z to the head, y to the front, x to the right
    assert mean[16:20, 10:14, :12].mean() > mean[16:20, 10:14, 12:].mean() + 0.03  # heart on the left
    assert mean[8:12, :, 14:20].mean() > mean[8:12, :, 4:10].mean() + 0.05  # liver on the right
    assert mean[10:14, 6:9, 11:13].mean() > mean[10:14, 15:18, 11:13].mean() + 0.2  # spine in the back
    assert mean[16:20, 8:16].mean() < mean[4:8, 8:16].mean() - 0.05  # lungs above


def test_the_page_runs(finder, tmp_path, monkeypatch):
    """The blocks of the section on volumes, on a scan whose header is lost."""
    monkeypatch.chdir(tmp_path)
    body, g = phantoms(1, (12, 12, 12), noise=0.05)[0], GROUP.element(17)
    nib.save(nib.Nifti1Image(act(g, Volume(body)).data[0].numpy().T, np.eye(4)), "scan.nii.gz")
    names = {
        "upright": SimpleNamespace(
            canonicalizer=lambda *given, **settings: finder, fit=lambda *given, **settings: None,
            adapt=upright.adapt,
        ),
        "good_scans": None,
        "segmenter": lambda volume: volume[:, 0] > 0.5,
    }  # fmt: skip
    page = (Path(__file__).parents[1] / "docs" / "space.md").read_text()
    section = page.partition("## Volumes\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len(blocks) == 2
    with torch.no_grad():
        for block in blocks:
            exec(compile(block, "space.md", "exec"), names)
    assert names["upright_scan"].codes == "RAS"
    assert torch.equal(read_scan("upright.nii.gz").volume.data, body)
    stored = read_scan("scan.nii.gz").volume.data
    assert torch.equal(read_scan("labels.nii.gz").volume.data.bool(), stored > 0.5)
