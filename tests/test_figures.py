"""Figures are written whole, show what the report says, and touch no global state."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from PIL import Image as Picture
from torch import nn

import upright
from upright.evaluation import plot_angles, plot_gallery, plot_reliability
from upright.evaluation.figures import _closed
from upright.evaluation.samples import pixels, samples, short_name


class TopHalf(nn.Module):
    """Says class 0 where the top half is brighter, else class 1."""

    def forward(self, x):
        half = x.shape[2] // 2
        lean = x[:, :, :half].mean((1, 2, 3)) - x[:, :, half:].mean((1, 2, 3))
        return 10 * torch.stack([lean, -lean], 1)


def pictures(count=10, size=16):
    x = torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0)) / 2
    x[:, :, : size // 2] += 0.5
    return x


def robust(group="C4"):
    return upright.adapt(TopHalf(), group, canonicalizer=upright.canonicalizer(group, size=8))


@pytest.fixture(scope="module", params=["C8", "D4", "D1"])
def report(request):
    data = (pictures(), torch.zeros(10).long())
    return upright.evaluate(robust(request.param), data, leakage=False, overhead=False)


def drawn(path):
    """Return the size of a picture and how many of its pixels are not white."""
    pixels = np.asarray(Picture.open(path).convert("RGB"))
    return pixels.shape[:2], int((pixels.min(-1) < 250).sum()), len(np.unique(pixels.reshape(-1, 3), axis=0))


def test_polar_plot(report, tmp_path):
    path = report.plot_angles(tmp_path / "new" / "angles.png")
    (height, width), ink, colours = drawn(path)
    assert (width > 1.5 * height) == report.setting.group.startswith("D")  # reflections are a second panel
    assert ink > 20_000
    assert colours > 50
    pyplot = sys.modules.get("matplotlib.pyplot")  # torchmetrics may have imported it
    assert pyplot is None or pyplot.get_fignums() == []


@pytest.mark.parametrize("suffix", ["svg", "pdf"])
def test_other_formats(report, tmp_path, suffix):
    path = plot_angles(report, tmp_path / f"angles.{suffix}")
    assert path.stat().st_size > 5000


def test_bad_paths_and_rows(report, tmp_path):  # nothing is left behind
    with pytest.raises(ValueError, match=r"path must end in one of .*png.*, got 'angles.docx'"):
        plot_angles(report, tmp_path / "angles.docx")
    with pytest.raises(ValueError, match="rows must name rows of the report"):
        plot_angles(report, tmp_path / "angles.png", rows=["bare"])
    assert list(tmp_path.iterdir()) == []


def test_curves_run_through_their_markers_and_close():
    angles = np.radians([0, 90, 180, 270])
    fine, (curve,) = _closed(angles, [[1.0, 0.5, 0.25, 0.5]])
    assert curve[0] == curve[-1] == 1
    assert np.interp(angles, fine, curve) == pytest.approx([1, 0.5, 0.25, 0.5])
    assert curve[45] == pytest.approx(0.75)
    assert curve[315] == pytest.approx(0.75)  # between 270° and 0°


def test_reliability(report, tmp_path):
    path = plot_reliability(report, tmp_path / "reliability.png")
    assert drawn(path)[1] > 5_000


@pytest.mark.parametrize(
    "data",
    [
        pictures(),
        (pictures(), torch.zeros(10).long()),
        ([pictures(1, 16)[0], pictures(1, 16)[0][:, :, :10]], torch.zeros(2).long()),
        (pictures(3)[:, :1] * 255).byte().expand(-1, 3, -1, -1).contiguous(),
    ],
)
def test_gallery(tmp_path, data):
    class Bytes(TopHalf):
        def forward(self, x):
            return super().forward(x.float())

    model = upright.adapt(Bytes(), "C4", canonicalizer=upright.canonicalizer("C4", size=8))
    path = plot_gallery(model, data, tmp_path / "gallery.png", ["top, upper", "bottom"], count=4)
    _, ink, _ = drawn(path)
    assert ink > 50_000


def test_gallery_turns_pictures_and_judges_both_models():
    model, x = robust(), pictures(1)[0]
    turned = samples(model, x.expand(2, -1, -1, -1))[1]  # by element 2: half a turn
    assert not turned.bare.right  # by the bare model's own opinion of the upright picture
    assert turned.bare.text == "1"
    assert 0.5 < turned.bare.confidence <= 1
    assert turned.turned == "180°"
    assert turned.given == pytest.approx(x.flip(1, 2).permute(1, 2, 0).double().numpy())
    assert sorted(turned.canonical.flatten()) == pytest.approx(sorted(x.flatten().tolist()))
    (given,) = samples(model, x[None], turn=False)
    assert given.bare.right is None
    assert given.turned == ""
    assert given.given == pytest.approx(x.permute(1, 2, 0).double().numpy())


def test_gallery_undoes_normalisation():
    x = torch.rand(3, 4, 4)
    back = pixels((x - 0.5) / 0.25, ([0.5] * 3, [0.25] * 3))
    assert back == pytest.approx(x.permute(1, 2, 0).double().numpy(), abs=1e-6)
    stretched = pixels(x * 6 - 3, (None, None))
    assert (stretched.min(), stretched.max()) == (0, 1)
    assert pixels(torch.rand(1, 4, 4), (None, None)).shape == (4, 4, 3)


def test_gallery_errors(tmp_path):
    with pytest.raises(ValueError, match="count must be positive"):
        plot_gallery(robust(), pictures(), tmp_path / "g.png", count=0)
    with pytest.raises(ValueError, match="mean and std must be given together"):
        plot_gallery(robust(), pictures(), tmp_path / "g.png", mean=[0.5] * 3)
    assert list(tmp_path.iterdir()) == []


def test_names_are_short():
    assert short_name(1, ["cat", "black_bear, Ursus americanus"]) == "black bear"
    assert short_name(0, ["a very long name of a class"]) == "a very long nam…"
    assert (short_name(5, ["cat"]), short_name(5, None), short_name(-1, ["cat"])) == (
        "5",
        "5",
        "not a number",
    )
