"""Moved pixels are those of NumPy, where they permute, and of SciPy, where they are interpolated."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from cases import DTYPES, EXACT, SIZES, name
from upright import (
    Cyclic,
    Dihedral,
    Image,
    Mask,
    act,
)
from upright.actions import act_mixed

FINE = [Cyclic(8), Dihedral(3), Dihedral(8)]


def moved_by_numpy(x, turns, flip):
    """Flip left-right first, then turn counter-clockwise; any dtype, through its bytes."""
    bits = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()]
    array = x.contiguous().view(bits).numpy()
    array = np.flip(array, -1) if flip else array
    return torch.from_numpy(np.rot90(array, turns, axes=(-2, -1)).copy()).view(x.dtype)


def drawn(shape, dtype, generator):
    if dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(dtype)
    return torch.randint(0, 2 if dtype == torch.bool else 200, shape, generator=generator).to(dtype)


@pytest.mark.parametrize("size", SIZES, ids=name)
@pytest.mark.parametrize("dtype", DTYPES, ids=name)
@pytest.mark.parametrize("group", EXACT, ids=name)
def test_quarter_turns_and_flips_are_numpys(group, dtype, size, generator):
    picture = drawn((2, *size), dtype, generator)
    for g in group.elements():
        turns, flip = int(g.value) % group.n * 4 // group.n, int(g.value) >= group.n
        expected = moved_by_numpy(picture, turns, flip)
        for kind in (Image, Mask):
            found = act(g, kind(picture)).data
            assert found.dtype == dtype
            assert torch.equal(found, expected)


@pytest.mark.parametrize("side", [5, 6, 100], ids=name)  # 100 takes the path of large pictures
@pytest.mark.parametrize("layout", ["plain", "channels_last", "strided", "gradient"])
def test_mixed_batches_are_numpys(side, layout, generator):
    group = Dihedral(8)
    x = torch.randn(6, 3, side, side, generator=generator)
    if layout == "channels_last":
        x = x.to(memory_format=torch.channels_last)
    elif layout == "strided":
        x = torch.randn(6, 3, side, 2 * side, generator=generator)[..., ::2]
    x.requires_grad_(layout == "gradient")
    g = group.element(torch.tensor([0, 2, 4, 6, 8, 14]))
    moved = act(g, Image(x)).data
    for i, code in enumerate(g.value.tolist()):
        assert torch.equal(moved[i].detach(), moved_by_numpy(x[i].detach(), code % 8 // 2, code >= 8))


def test_moves_after_inference_mode_carry_gradients():
    g = Cyclic(8).elements()
    with torch.inference_mode():
        act(g, Image(torch.rand(8, 1, 9, 9)))
    x = torch.rand(8, 1, 9, 9, requires_grad=True)
    act(g, Image(x)).data.square().sum().backward()
    assert x.grad is not None
    w = torch.softmax(torch.zeros(2, 4, requires_grad=True), -1)
    act_mixed(Cyclic(4).identity(2), w, Image(torch.rand(2, 1, 9, 9))).data.sum().backward()


def look_up(group, code, size):
    """Return where every output pixel centre comes from, (rows, columns) as array indices, float64."""
    angle, flip = 2 * math.pi * (code % group.n) / group.n, code >= group.n
    height, width = size
    out = np.zeros((2, height, width))
    for row, column in itertools.product(range(height), range(width)):
        x, y = column + 0.5 - width / 2, row + 0.5 - height / 2
        # undo the turn (clockwise by the angle, y pointing down), then undo the flip
        x, y = math.cos(angle) * x - math.sin(angle) * y, math.sin(angle) * x + math.cos(angle) * y
        out[:, row, column] = y + height / 2 - 0.5, (-x if flip else x) + width / 2 - 0.5
    return out


@pytest.mark.parametrize(
    ("border", "mode"), [("edge", "nearest"), ("reflect", "reflect"), ("constant", "grid-constant")]
)
@pytest.mark.parametrize("size", [(9, 9), (8, 8), (6, 11)], ids=name)
@pytest.mark.parametrize("group", FINE, ids=name)
def test_resampling_is_scipys(group, size, border, mode, generator):
    picture = torch.rand(2, *size, generator=generator, dtype=torch.float64)
    for g in group.elements():
        if int(group.quarter_turns(g)) >= 0:
            continue
        at = look_up(group, int(g.value), size)
        expected = [ndimage.map_coordinates(c, at, order=1, mode=mode, cval=0.7) for c in picture.numpy()]
        for dtype, tolerance in [(torch.float64, 1e-12), (torch.float32, 5e-6), (torch.bfloat16, 8e-3)]:
            source = picture.to(dtype)
            if dtype == torch.bfloat16:
                expected = [
                    ndimage.map_coordinates(c, at, order=1, mode=mode, cval=0.7)
                    for c in source.double().numpy()
                ]
            moved = act(g, Image(source, border=border, fill=0.7)).data.double().numpy()
            np.testing.assert_allclose(moved, np.stack(expected), atol=tolerance)
        counts = (picture * 200).to(torch.uint8)
        expected = [
            ndimage.map_coordinates(c.astype(float), at, order=1, mode=mode, cval=7.0) for c in counts.numpy()
        ]
        moved = act(g, Image(counts, border=border, fill=7.0)).data.numpy()
        assert np.abs(moved - np.stack(expected)).max() <= 0.5 + 1e-4


@pytest.mark.parametrize(
    ("border", "mode"), [("edge", "nearest"), ("reflect", "reflect"), ("constant", "constant")]
)
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.float32], ids=name)
def test_nearest_is_scipys(dtype, border, mode, generator):
    group, size = Dihedral(8), (10, 10)
    labels = drawn((2, *size), dtype, generator)
    for g in group.elements():
        if int(group.quarter_turns(g)) >= 0:
            continue
        at = look_up(group, int(g.value), size)
        away = np.abs(at - np.floor(at) - 0.5).min(0) > 1e-6  # from a tie between two pixels
        if mode == "constant":
            away &= (np.abs(at + 0.5).min(0) > 1e-6) & (np.abs(at - 9.5).min(0) > 1e-6)
        expected = np.stack(
            [
                ndimage.map_coordinates(
                    np.pad(
                        c.double().numpy(),
                        20,
                        mode={"nearest": "edge", "reflect": "symmetric", "constant": "constant"}[mode],
                    ),
                    at + 20,
                    order=0,
                )
                for c in labels
            ]
        )
        kind = (
            Mask(labels, border=border)
            if dtype != torch.float32
            else Image(labels, border=border, interpolation="nearest")
        )
        moved = act(g, kind).data
        assert moved.dtype == dtype
        assert set(moved.unique().tolist()) <= {*labels.unique().tolist(), 0}
        np.testing.assert_array_equal(moved.double().numpy()[:, away], expected[:, away])


def test_bicubic_keeps_constants_and_ramps():
    ramp = torch.arange(24, dtype=torch.float64).expand(1, 24, 24)
    g = Cyclic(8).element(1)
    moved = act(g, Image(ramp, interpolation="bicubic")).data
    matrix = g.matrix()
    axis = torch.arange(24, dtype=torch.float64) + 0.5 - 12
    expected = matrix[0, 0] * axis[None, :] + matrix[1, 0] * axis[:, None] + 11.5
    inner = slice(8, 16)
    torch.testing.assert_close(moved[0, inner, inner], expected[inner, inner], atol=0.06, rtol=0)
    flat = act(g, Image(torch.full((1, 9, 9), 0.3), interpolation="bicubic")).data
    torch.testing.assert_close(flat, torch.full((1, 9, 9), 0.3))


def test_large_integers_survive_resampling():
    big = torch.full((1, 9, 9), 2**40 + 1)
    assert torch.equal(act(Cyclic(8).element(1), Image(big)).data, big)


def test_bool_pictures_move_like_masks(generator):
    picture = drawn((2, 9, 9), torch.bool, generator)
    g = Cyclic(8).element(3)
    assert torch.equal(act(g, Image(picture)).data, act(g, Mask(picture, border="edge")).data)
