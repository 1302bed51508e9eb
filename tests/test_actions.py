"""Actions obey their laws, all kinds agree, and mixing follows its gradients; see also `test_resampling`."""

import itertools
import math
from collections import namedtuple

import numpy as np
import pytest
import torch

from cases import DTYPES, GROUPS, KINDS, name
from test_resampling import moved_by_numpy
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
