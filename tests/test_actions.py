"""Actions obey their laws, and agree with NumPy, SciPy and brute force, which know nothing of us."""

import itertools
import math
from collections import namedtuple

import numpy as np
import pytest
import torch
from scipy import ndimage

from cases import DTYPES, EXACT, GROUPS, KINDS, SIZES, name
from upright import (
    Boxes,
    Cyclic,
    Dihedral,
    Image,
    Invariant,
    Logits,
    Mask,
    OrientedBoxes,
    Points,
    RegularField,
    VectorField,
    act,
    register_action,
)
from upright._values import value
from upright.actions import act_mixed, registered_kinds
from upright.groups import PlanarGroup
from upright.kinds import Kind
from upright.testing import assert_action, assert_consistent, example

FINE = [Cyclic(8), Dihedral(3), Dihedral(8)]


@pytest.mark.parametrize("kind", KINDS, ids=name)
@pytest.mark.parametrize("group", GROUPS, ids=name)
def test_laws(group, kind):
    assert_action(group, kind)


@pytest.mark.parametrize("size", [(7, 7), (5, 8)], ids=name)
@pytest.mark.parametrize("kind", KINDS, ids=name)
@pytest.mark.parametrize("group", [Cyclic(4), Dihedral(4)], ids=name)
def test_laws_on_odd_and_non_square_canvases(group, kind, size):
    assert_action(
        group, lambda batch, generator: example(kind, group, batch=batch, size=size, generator=generator)
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=name)
@pytest.mark.parametrize("kind", [Image, Mask], ids=name)
@pytest.mark.parametrize("group", [Dihedral(4), Cyclic(8)], ids=name)
def test_laws_in_every_dtype(group, kind, dtype):
    if kind is Image and dtype == torch.bool and not group.is_exact_on_grid:
        pytest.skip("a resampled bool picture moves like a mask, which is tested")
    assert_action(
        group, lambda batch, generator: example(kind, group, batch=batch, dtype=dtype, generator=generator)
    )


@pytest.mark.parametrize("form", ["xyxy", "xywh", "cxcywh", "points"])
@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("size", [(10, 10), (7, 11)], ids=name)
@pytest.mark.parametrize("group", [Dihedral(4), Cyclic(8)], ids=name)
def test_laws_of_every_format(group, size, normalized, form):
    if size[0] != size[1] and not group.is_exact_on_grid:
        pytest.skip("other angles need a square canvas")

    def make(batch, generator):
        data = torch.rand(batch, 4, 4, generator=generator, dtype=torch.float64)
        data = data if normalized else data * 10
        if form == "points":
            return Points(data, size=size, normalized=normalized)
        if form == "xyxy":
            data = torch.cat([data[..., :2], data[..., :2] + data[..., 2:]], -1)
        return Boxes(data, size=size, normalized=normalized, format=form)

    assert_action(group, make)


@pytest.mark.parametrize("normalized", [False, True])
def test_the_identity_keeps_every_bit_of_boxes(normalized):
    swapped = torch.rand(2, 5, 4)  # a random model's boxes, first corner not top left
    g = Dihedral(4).element(torch.tensor([0, 3]))
    moved = act(g, Boxes(swapped, size=(7, 7), normalized=normalized)).data
    assert torch.equal(moved[0], swapped[0])
    assert (moved[1, :, :2] <= moved[1, :, 2:]).all()


@pytest.mark.parametrize("kind", KINDS, ids=name)
@pytest.mark.parametrize("group", [Cyclic(4), Dihedral(4), Cyclic(8)], ids=name)
def test_compiles_into_one_graph(group, kind):
    assert_action(group, kind, samples=8, gradients=False, compiled=True)


@pytest.mark.parametrize("group", GROUPS, ids=name)
def test_kinds_agree(group):
    assert_consistent(group)


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


@pytest.mark.parametrize("size", [(6, 6), (5, 5), (4, 7)], ids=name)
def test_points_follow_their_pixel(size):
    for group in (Cyclic(4), Dihedral(4)):
        for row, column in itertools.product(range(size[0]), range(size[1])):
            picture = torch.zeros(1, *size)
            picture[0, row, column] = 1
            centre = torch.tensor([[column + 0.5, row + 0.5, 9.0]])
            for g in group.elements():
                moved_row, moved_column = act(g, Image(picture)).data[0].nonzero()[0].tolist()
                points = act(g, Points(centre, size=size))
                assert points.data.tolist() == [[moved_column + 0.5, moved_row + 0.5, 9.0]]
                assert points.size == tuple(act(g, Image(picture)).data.shape[-2:])


def box_of(mask):
    rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
    return [columns.min().item(), rows.min().item(), columns.max().item() + 1, rows.max().item() + 1]


@pytest.mark.parametrize("form", ["xyxy", "xywh", "cxcywh"])
@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("size", [(6, 6), (5, 8)], ids=name)
def test_boxes_bound_their_moved_region(form, normalized, size):
    def coded(x0, y0, x1, y1, canvas):
        box = {"xyxy": [x0, y0, x1, y1], "xywh": [x0, y0, x1 - x0, y1 - y0]}
        box["cxcywh"] = [(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0]
        sides = [canvas[1], canvas[0]] * 2
        return [v / s for v, s in zip(box[form], sides, strict=True)] if normalized else box[form]

    for x0, y0, x1, y1 in [(0, 0, 1, 1), (1, 2, 4, 3), (0, 1, size[1], size[0]), (2, 0, 5, 4)]:
        region = torch.zeros(size, dtype=torch.bool)
        region[y0:y1, x0:x1] = True
        for g in Dihedral(4).elements():
            x = Boxes(
                torch.tensor([coded(x0, y0, x1, y1, size)], dtype=torch.float64),
                size=size, format=form, normalized=normalized,
            )  # fmt: skip
            turned = moved_by_numpy(region, int(g.value) % 4, int(g.value) >= 4)
            moved = act(g, x)
            assert moved.size == tuple(turned.shape)
            np.testing.assert_allclose(moved.data[0], coded(*box_of(turned), tuple(turned.shape)), atol=1e-12)


@pytest.mark.parametrize("group", [Dihedral(4), *FINE], ids=name)
def test_oriented_boxes_keep_their_corners(group, generator):
    size = (20, 20)

    def corner_set(cx, cy, w, h, angle):
        along, down = (
            np.array([math.cos(angle), -math.sin(angle)]),
            np.array([math.sin(angle), math.cos(angle)]),
        )
        signs = itertools.product((-0.5, 0.5), repeat=2)
        return np.array(
            sorted((np.round([cx, cy] + a * w * along + b * h * down, 6).tolist()) for a, b in signs)
        )

    box = torch.tensor([[7.0, 12.0, 6.0, 2.0, 0.4]], dtype=torch.float64)
    for g in group.elements():
        angle, flip = 2 * math.pi * (int(g.value) % group.n) / group.n, int(g.value) >= group.n
        points = corner_set(*box[0].tolist()) - 10
        points = points * [-1, 1] if flip else points
        turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        expected = points @ turn.T + 10
        moved = act(g, OrientedBoxes(box, size=size)).data[0]
        found = corner_set(*moved.tolist())
        gaps = np.abs(found[:, None] - expected[None]).max(-1).min(1)
        assert gaps.max() < 1e-5
        assert -math.pi / 2 <= moved[4] <= math.pi / 2
        assert moved[2:4].tolist() == [6.0, 2.0]


def test_boxes_become_the_hull_of_four_corners_at_45_degrees():
    moved = act(Cyclic(8).element(1), Boxes(torch.tensor([[4.0, 5, 6, 5.5]]), size=(10, 10))).data[0]
    width = moved[2] - moved[0]
    assert width > 1.5  # two corners would give a sliver
    torch.testing.assert_close(width, torch.tensor((2 + 0.5) / 2**0.5))


def test_vector_fields_turn_with_the_grid(generator):
    field = torch.randn(2, 4, 5, generator=generator, dtype=torch.float64)
    for g in Dihedral(4).elements():
        turns, flip = int(g.value) % 4, int(g.value) >= 4
        grid = moved_by_numpy(field, turns, flip)
        u, v = (-grid[0], grid[1]) if flip else (grid[0], grid[1])
        for _ in range(turns):
            u, v = v, -u  # right becomes up
        assert torch.equal(act(g, VectorField(field)).data, torch.stack([u, v]))


@pytest.mark.parametrize("group", [Cyclic(4), Dihedral(4), Dihedral(2)], ids=name)
def test_regular_fields_permute_by_the_group(group, generator):
    field = torch.randn(2, group.order, 4, 4, generator=generator)
    for g in group.elements():
        expected = torch.zeros_like(field)
        for h in group.elements():
            expected[:, int((g @ h).value)] = act(g, Image(field[:, int(h.value)])).data
        assert torch.equal(act(g, RegularField(field)).data, expected)


def test_invariants_stay():
    x = torch.rand(3, 4)
    for kind in (Invariant, Logits):
        assert act(Cyclic(4).element(1), kind(x)).data is x
    assert act(Cyclic(4).element(1), Invariant("anything")).data == "anything"


def test_structures_are_kept(generator):
    Pair = namedtuple("Pair", ["image", "points"])
    image, points = Image(torch.rand(2, 3, 4, 4)), Points(torch.rand(2, 5, 2), size=(4, 4))
    g = Cyclic(4).element(torch.tensor([1, 3]))
    pair = act(g, Pair(image, points))
    assert isinstance(pair, Pair)
    assert torch.equal(pair.points.data, act(g, points).data)
    nested = act(g, {"a": (image, {"b": points}), "c": Invariant(None)})
    assert torch.equal(nested["a"][1]["b"].data, pair.points.data)
    mixed = act(g, [Image(torch.rand(3, 4, 6)), (Image(torch.rand(3, 5, 2)), Invariant(7))])
    assert mixed[0].data.shape == (3, 6, 4)
    assert mixed[1][0].data.shape == (3, 2, 5)
    assert act(g[:0], []) == []


def test_errors():
    g = Cyclic(4).elements()
    with pytest.raises(TypeError, match=r"wrap the tensor in the kind that it is"):
        act(g, torch.rand(4, 3, 8, 8))
    with pytest.raises(TypeError, match="got str; use a kind"):
        act(g, "picture")
    with pytest.raises(ValueError, match=r"leading axis 4 to match g, got shape \(3, 3, 8, 8\)"):
        act(g, Image(torch.rand(3, 3, 8, 8)))
    with pytest.raises(ValueError, match="one entry per element, 4, got 3"):
        act(g, [Image(torch.rand(3, 8, 8))] * 3)
    with pytest.raises(ValueError, match="pass a list of pictures"):
        act(g, Image(torch.rand(4, 3, 8, 9)))
    with pytest.raises(ValueError, match="pass a list with one entry per picture"):
        act(g, Points(torch.rand(4, 3, 2), size=(8, 9)))
    with pytest.raises(ValueError, match=r"\(\) or \(B,\)"):
        act(g.reshape(2, 2), Image(torch.rand(2, 3, 8, 8)))
    with pytest.raises(TypeError, match="must be a tensor, got ndarray"):
        act(g, Image(np.zeros((4, 3, 8, 8))))
    for kind, shape in [
        (lambda d: Boxes(d, size=(4, 4)), (4, 2, 5)),
        (lambda d: Points(d, size=(4, 4)), (4, 2, 1)),
        (lambda d: OrientedBoxes(d, size=(4, 4)), (4, 2, 4)),
        (VectorField, (4, 3, 4, 4)),
        (RegularField, (4, 1, 5, 4, 4)),
    ]:
        with pytest.raises(ValueError, match="must have shape"):
            act(g, kind(torch.zeros(shape)))


@value
class Polygon(Kind):
    data: torch.Tensor


@value
class Sketch(Image):
    data: torch.Tensor


def test_registry():
    with pytest.raises(
        TypeError, match=r"no action of Cyclic on Polygon; registered kinds: Boxes, Image.*register_action"
    ):
        act(Cyclic(4).elements(), Polygon(torch.zeros(4, 2)))
    with pytest.raises(ValueError, match="PlanarGroup on Image is registered already"):
        register_action(PlanarGroup, Image)(lambda g, x: x)
    x = torch.rand(4, 1, 3, 3)
    sketch = act(Cyclic(4).elements(), Sketch(x))  # a subclass moves like its parent
    assert type(sketch) is Sketch
    assert torch.equal(sketch.data, act(Cyclic(4).elements(), Image(x)).data)
    assert registered_kinds(Cyclic(4)) == registered_kinds(Dihedral)


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("group", [Cyclic(4), Dihedral(4), Cyclic(8)], ids=name)
def test_mixing_is_the_weighted_sum(group, inverse, generator):
    x = torch.rand(3, 2, 9, 9, generator=generator, dtype=torch.float64)
    w = torch.softmax(torch.randn(3, group.order, generator=generator, dtype=torch.float64), -1)
    expected = 0
    for i, h in enumerate(group.elements()):
        expected = expected + w[:, i].view(3, 1, 1, 1) * act(~h if inverse else h, Image(x)).data
    found = act_mixed(group.identity(3), w, Image(x), inverse=inverse).data
    torch.testing.assert_close(found, expected)


def test_one_hot_mixing_is_exact_and_has_the_gradient_of_the_sum(generator):
    group = Dihedral(4)
    x = torch.rand(2, 1, 6, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    g = group.element(torch.tensor([3, 6]))
    w = torch.nn.functional.one_hot(g.value, 8).double().requires_grad_()
    target = torch.rand(2, 1, 6, 6, generator=generator, dtype=torch.float64)
    moved = act_mixed(g, w, Image(x)).data
    assert torch.equal(moved, act(g, Image(x)).data)
    (moved * target).sum().backward()
    copies = [act(h, Image(x.detach())).data for h in group.elements()]
    slopes = torch.stack([(target * copy).sum((1, 2, 3)) for copy in copies], 1)
    torch.testing.assert_close(w.grad, slopes, rtol=1e-12, atol=0)
    assert torch.equal(x.grad, act(~g, Image(target)).data)


def test_mixing_gradients_are_those_of_finite_differences(generator):
    group = Cyclic(4)
    x = torch.rand(2, 1, 4, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    w = torch.softmax(torch.randn(2, 4, generator=generator, dtype=torch.float64), -1).requires_grad_()
    torch.autograd.gradcheck(lambda w, x: act_mixed(group.identity(2), w, Image(x)).data, (w, x))


def test_mixing_leaves_what_has_no_gradient():
    labels = Mask(torch.randint(0, 3, (2, 4, 4)))
    w = torch.full((2, 4), 0.25)
    g = Cyclic(4).element(torch.tensor([1, 2]))
    assert torch.equal(act_mixed(g, w, labels).data, act(g, labels).data)
    assert act_mixed(g, w, Invariant(3)).data == 3
    assert torch.equal(act_mixed(g, None, labels, inverse=True).data, act(~g, labels).data)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS, ids=name)
def test_devices_follow_the_input(kind):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    for group in (Dihedral(4), Cyclic(8)):
        x, g = example(kind, group, batch=group.order), group.elements()
        there = act(g, x.replace(data=x.data.cuda())).data
        assert there.is_cuda
        torch.testing.assert_close(there.cpu(), act(g, x).data, atol=1e-4, rtol=1e-5)
