"""Ready-made canonicalizers of photos load, follow their groups and find the poses of bundled photos."""

import json
import math
import subprocess
import sys
import warnings

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import upright
from cases import name
from conftest import ROOT
from upright import Image, act, hub

UPRIGHT = ("chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "china.jpg")
"""Bundled photos, none of which was trained on, whose pose is found."""

pytestmark = pytest.mark.skipif("C4" not in hub.READY_MADE, reason="no weights in this installation")


@pytest.fixture(scope="module")
def photos():
    pytest.importorskip("skimage")
    pytest.importorskip("sklearn")
    from upright.demo.photos import PHOTOS, bundled_photos
    from upright.integrations.preprocess import SquarePreprocess

    prepare = SquarePreprocess(mean=(0.0,) * 3, std=(1.0,) * 3)
    files = [file.rsplit("/", 1)[-1] for _, file in PHOTOS]
    found = dict(zip(files, (prepare(p) for p in bundled_photos()), strict=True))
    return torch.stack([found[file] for file in UPRIGHT])


@pytest.mark.parametrize("group", sorted(hub.READY_MADE))
def test_defaults_are_small_calibrated_and_described(group):
    folder = hub.resolve(hub.READY_MADE[group])
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 3_000_000
    manifest = json.loads((folder / "upright.json").read_text())
    assert manifest["group"] == group
    assert manifest["state"]["temperature"] != 1
    card = (folder / "README.md").read_text()
    assert all(word in card for word in ("## Measured", "Limits", "Licence", "EfficientNet-Lite0"))
    assert "@TABLE@" not in card
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # an untrained one warns
        robust = upright.adapt(nn.Flatten(), group)
    assert robust.canonicalizer.config.network == "lite"
    assert not robust.canonicalizer.training


@torch.no_grad()
@pytest.mark.parametrize("canvas", [(96, 96), (31, 57)], ids=name)
def test_photo_d4_follows_turns_and_flips(canvas, generator):
    photo_d4 = upright.load_canonicalizer("photo-d4")
    coarse = torch.rand(6, 3, 7, 7, generator=generator)  # blobs: noise has no pose
    x = nn.functional.interpolate(coarse, canvas, mode="bicubic")
    still = photo_d4(x).element
    assert len(still.value.unique()) > 2
    for g in photo_d4.group.elements():
        moved = photo_d4(act(g, Image(x)).data)
        assert torch.equal(moved.element.value, (g.expand(6) @ still).value)


@torch.no_grad()
def test_photo_d4_sets_photos_upright_or_upright_and_mirrored(photos):
    photo_d4 = upright.load_canonicalizer("photo-d4")
    settled = []
    for g in photo_d4.group.elements():
        moved = act(g.expand(len(photos)), Image(photos)).data
        pose = photo_d4(moved)
        assert not bool(pose.is_tied.any())
        assert float(pose.confidence.max()) < 0.51  # which mirror image was taken cannot be known
        settled.append(act(~pose.element, Image(moved)).data)
    assert all(torch.equal(other, settled[0]) for other in settled)
    for photo, found in zip(photos, settled[0], strict=True):
        assert torch.equal(found, photo) or torch.equal(found, photo.flip(-1))


def test_photo_d4_judges_as_photo_c4_does(photos):
    turns, both = upright.load_canonicalizer("photo-c4"), upright.load_canonicalizer("photo-d4")
    for key, value in turns.network.state_dict().items():
        assert torch.equal(both.network.state_dict()[f"network.{key}"], value)
    assert both.temperature == turns.temperature


@torch.no_grad()
@pytest.mark.parametrize("group", ["SO2", "C8"])
def test_any_angle_of_photos_is_found(photos, group):
    c = upright.load_canonicalizer(hub.READY_MADE[group])
    step = 45.0 if group == "C8" else 30.0
    missed = []
    for degrees in torch.arange(0, 360, step).tolist():
        g = upright.SO2().element(degrees=torch.full((len(photos),), degrees))
        found = c(act(g, Image(photos)).data).element.value
        angle = found if group == "SO2" else found * (math.pi / 4)
        off = angle - g.value
        missed.append(torch.rad2deg(torch.atan2(off.sin(), off.cos()).abs()))
    missed = torch.cat(missed)
    assert float((missed <= 15).double().mean()) >= (0.9 if group == "C8" else 0.75)
    assert float(missed.median()) <= 4.0


@torch.no_grad()
@pytest.mark.parametrize("group", ["SO2", "C8"])
def test_any_angle_follows_quarter_turns(photos, group):
    c = upright.load_canonicalizer(hub.READY_MADE[group])
    still = c(photos).element
    for turns in (1, 2, 3):
        found = c(photos.rot90(turns, (2, 3))).element.value
        off = found - still.value if group == "SO2" else (found - still.value) * (math.pi / 4)
        off = off - turns * math.pi / 2
        assert float(torch.rad2deg(torch.atan2(off.sin(), off.cos()).abs()).max()) < 0.01


@pytest.mark.slow
def test_the_recipe_of_angles_runs(data_folder, tmp_path):
    command = [sys.executable, "-m", "recipes.photo_so2.train", "--smoke", "--output", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    state = load_file(tmp_path / "network.safetensors")
    made = upright.canonicalizer("SO2", "lite", options={"folded": True, "outputs": 128, "rays": 64})
    made.network.network.load_state_dict(state)
