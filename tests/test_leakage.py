"""The leakage check flags canonicalizers that read artefacts, and only those."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image as Picture
from torch import nn

import upright
from evaluation_toys import marked, quick, toy
from upright.actions import act
from upright.canonicalizers import Pose
from upright.evaluation.degrade import reencoded, resampled
from upright.groups import Element


def textured(count, side=40):
    """Smooth random pictures, bright in the top left quarter: content that says how they stand."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 5, 5, generator=generator)
    x = 0.6 * nn.functional.interpolate(coarse, side, mode="bilinear")
    x[..., : side // 2, : side // 2] += 0.4
    return x


class Reads(upright.Canonicalizer):
    """Scores every way to stand by a function of the picture turned back."""

    def __init__(self, score):
        super().__init__("C4")
        self.score = score

    def forward(self, x):
        scores = [
            self.score(act(g.inverse().reshape(1), upright.Image(x)).data) for g in self.group.elements()
        ]
        log_probs = torch.stack(scores, 1).log_softmax(-1)
        return Pose(Element(self.group, log_probs.argmax(-1)), log_probs)


def brightness(x):
    half = x.shape[-1] // 2
    return 20 * x[..., :half, :half].mean((1, 2, 3))


def speck(x):
    """Read one pixel that stands out of its neighbours by 1%: an artefact that turns with the picture."""
    return 2000 * (x[..., 0, 0] - x[..., 0:2, 1:3].mean((-1, -2))).mean(1)


def compression_grid(x):
    """Read the steps between 8×8 blocks: largest where the grid lies as the encoder laid it."""
    across, down = (x.diff(dim=-1).abs(), x.diff(dim=-2).abs())
    return 3e3 * (across[..., 7::8].mean((1, 2, 3)) + down[..., 7::8, :].mean((1, 2, 3)))


def with_specks(x):
    x = x.clone()
    x[..., 0, 0] = x[..., 0:2, 1:3].mean((-1, -2)) + 0.01
    return x


def from_jpeg(x, quality=75):
    pictures = []
    for picture in (x * 255).round().clamp(0, 255).byte():
        file = io.BytesIO()
        Picture.fromarray(picture.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality)
        pictures.append(torch.tensor(np.asarray(Picture.open(file))).permute(2, 0, 1) / 255)
    return torch.stack(pictures)


def checked(score, pictures, **settings):
    model = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 5))
    robust = upright.adapt(model, "C4", canonicalizer=Reads(score))
    return upright.evaluate(robust, pictures, overhead=False, **settings)


@pytest.mark.parametrize("scale", [lambda x: x, lambda x: 4 * x - 2, lambda x: (x * 255).round()])
def test_a_canonicalizer_that_reads_content_is_not_moved(scale):
    for pictures in (textured(60), from_jpeg(textured(60, 36))):
        report = checked(brightness, scale(pictures))
        assert report.canonicalizer.pose_accuracy.value > 0.95
        assert list(report.leakage) == ["re-encoded", "resampled"]
        for check in report.leakage.values():
            assert not check.moved
            assert abs(check.pose_accuracy.delta) <= check.tolerance
            assert check.verdict == "poses unmoved"
        assert "MOVED" not in str(report)


def test_a_canonicalizer_that_reads_a_speck_is_flagged():
    report = checked(speck, with_specks(textured(60)))
    assert report.canonicalizer.pose_accuracy.value > 0.95
    assert report.canonicalizer.equivariance > 0.95
    check = report.leakage["re-encoded"]
    assert check.moved
    assert check.pose_accuracy.delta < -0.2
    assert "MOVED" in str(report)


def test_a_canonicalizer_that_reads_interpolation_blur_is_flagged():
    class SharpIsUpright(upright.Canonicalizer):
        def forward(self, x):
            sharp = x.diff(dim=-1).abs().mean((1, 2, 3)) > 0.25
            return Pose(Element(self.group, torch.where(sharp, 0, 1)))

    robust = upright.adapt(
        nn.Sequential(nn.Flatten(), nn.Linear(768, 5)), "C8", canonicalizer=SharpIsUpright("C8")
    )
    noise = torch.rand(60, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    report = upright.evaluate(robust, noise, poses=[1], overhead=False, rows=("adapted",))
    assert report.canonicalizer.identity_rate.value == 1
    assert report.canonicalizer.pose_accuracy.value > 0.9  # as good as it gets, and worth nothing
    check = report.leakage["resampled"]
    assert check.moved
    assert check.identity_rate.delta < -0.9
    assert "traces of not being turned" in check.verdict


def test_a_canonicalizer_that_reads_the_compression_grid_is_flagged():
    report = checked(
        compression_grid, from_jpeg(textured(60, 36))
    )  # 36 is no multiple of 8: the grid has a top left
    assert report.canonicalizer.identity_rate.value > 0.9
    assert report.canonicalizer.pose_accuracy.value > 0.9
    check = report.leakage["re-encoded"]
    assert check.moved
    assert check.pose_accuracy.delta < -0.1
    assert check.identity_rate.delta > -0.05  # re-encoding upright pictures lays the same grid again
    assert "artefacts that turn along" in check.verdict


def test_the_models_own_loss_is_told_apart():
    report = quick(toy(), marked(20), leakage=True)  # the mark does not survive, for the model neither
    check = report.leakage["resampled"]
    assert check.upright["vanilla"].delta == -1
    assert check.orbit_mean["oracle"].delta == -1
    assert list(check.orbit_mean) == ["adapted", "oracle"]
    assert check.identity_rate.before == 1


def test_leakage_on_some_of_the_pictures():
    report = quick(toy(), marked(20), leakage=True, leakage_limit=7, batch_size=4)
    assert {check.pictures for check in report.leakage.values()} == {7}


@pytest.mark.parametrize("degrade", [reencoded, resampled])
def test_degrading_does_not_depend_on_the_range_of_values(degrade):
    x = textured(3, 20)
    expected = 6 * degrade(x) - 3
    assert torch.allclose(degrade(6 * x - 3), expected, atol=6 * 1.5 / 255)
    assert not torch.equal(degrade(x), x)
    assert degrade(x.half()).dtype == torch.float16


@pytest.mark.parametrize("degrade", [reencoded, resampled])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_degrading_integers_and_any_number_of_channels(degrade, channels):
    x = (torch.rand(2, channels, 9, 13) * 255).byte()
    assert degrade(x).dtype == torch.uint8
    assert degrade(x).shape == x.shape
    assert degrade(x[:0]).shape == x[:0].shape
    flat = torch.full((1, channels, 8, 8), 7.0)
    assert torch.allclose(degrade(flat), flat)
