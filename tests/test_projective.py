"""Maps of the plane obey the laws on every kind, and agree with SciPy and NumPy, which know nothing of us."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage

import plane_mutants
from cases import DTYPES, name
from upright import (
    O2,
    SO2,
    Affine,
    Boxes,
    Cyclic,
    Dihedral,
    Homography,
    Image,
    Mask,
    OrientedBoxes,
    Points,
    Scale,
    Translation,
    VectorField,
    act,
)
from upright.groups import plane_homography
from upright.testing import assert_action, assert_consistent, example

GROUPS = [Scale(), Translation(), Affine(), Homography()]
KINDS = [Boxes, Image, Mask, OrientedBoxes, Points, VectorField]
BENDING = [Affine(), Homography()]


def on(kind, group, **settings):
    """Make examples of a kind with settings."""
    return lambda batch, generator: example(kind, group, batch=batch, generator=generator, **settings)


@pytest.mark.parametrize("kind", KINDS, ids=name)
@pytest.mark.parametrize("group", GROUPS, ids=name)
def test_laws(group, kind):
    if kind is OrientedBoxes and group in BENDING:
        with pytest.raises(ValueError, match="OrientedBoxes stay rectangles under similarities only"):
            act(group.sample(2), example(kind, group, batch=2))
    else:
        assert_action(group, kind, samples=8)


@pytest.mark.parametrize("kind", [Image, Points, Boxes], ids=name)
def test_laws_on_canvases_that_are_not_square(kind):
    assert_action(Affine(), on(kind, Affine(), size=(80, 112)), samples=3)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool, torch.bfloat16], ids=name)
def test_laws_in_other_dtypes(dtype):
    assert_action(Affine(), on(Mask, Affine(), dtype=dtype), samples=4)


@pytest.mark.parametrize("group", GROUPS, ids=name)
def test_kinds_agree(group):
    assert_consistent(group)


@pytest.mark.parametrize(
    ("mutant", "group", "kind"), plane_mutants.ACTIONS, ids=lambda v: getattr(v, "__name__", str(v))
)
def test_action_mutants(mutant, group, kind):
    with pytest.raises(AssertionError):
        assert_action(group, kind, act=mutant, samples=8)


@pytest.mark.parametrize(
    ("mutant", "group"), plane_mutants.FRAMES, ids=lambda v: getattr(v, "__name__", str(v))
)
def test_frame_mutants(mutant, group):
    with pytest.raises(AssertionError):
        assert_consistent(group, act=mutant)


@pytest.mark.slow
@pytest.mark.parametrize(("group", "kind"), [(Affine(), Image), (Homography(), Boxes)])
def test_compiles_into_one_graph(group, kind):
    assert_action(group, on(kind, group, size=(64, 64)), samples=2, gradients=False, compiled=True)


# --- against others


def look_up(matrix, size):
    """Return where every output pixel centre comes from, (rows, columns) as array indices, float64."""
    height, width = size
    half, back = min(size) / 2, np.linalg.inv(matrix)
    rows, columns = np.mgrid[:height, :width] + 0.5
    place = np.stack([(columns - width / 2) / half, (rows - height / 2) / half, np.ones(size)])
    x, y, w = np.einsum("ij,jhw->ihw", back, place)
    return np.stack([y / w * half + height / 2 - 0.5, x / w * half + width / 2 - 0.5])


ENLARGE = [  # by so much that nothing is smoothed
    Scale().element(1.4),
    Translation().element(0.123, -0.31),
    Affine().element([[1.3, 0.2, 0.1], [-0.1, 1.2, -0.05]]),
    Affine().element([[-1.1, 0.0, 0.1], [0.0, 1.2, -0.05]]),
]


@pytest.mark.parametrize(
    ("border", "mode"), [("edge", "nearest"), ("reflect", "reflect"), ("constant", "grid-constant")]
)
@pytest.mark.parametrize("size", [(9, 9), (6, 11)], ids=name)
@pytest.mark.parametrize("g", ENLARGE, ids=lambda g: str(g.group))
def test_resampling_is_scipys(g, size, border, mode, generator):
    picture = torch.rand(2, *size, generator=generator, dtype=torch.float64)
    at = look_up(g.matrix().numpy(), size)
    for dtype, tolerance in [(torch.float64, 1e-12), (torch.float32, 5e-6), (torch.uint8, 0.51)]:
        source = (picture * 200).to(dtype) if dtype == torch.uint8 else picture.to(dtype)
        values = source.double().numpy()
        expected = [ndimage.map_coordinates(c, at, order=1, mode=mode, cval=7.0) for c in values]
        moved = act(g, Image(source, border=border, fill=7.0)).data.double().numpy()
        np.testing.assert_allclose(moved, np.stack(expected), atol=tolerance)


@pytest.mark.parametrize("border", ["edge", "reflect", "constant"])
def test_what_shrinks_is_smoothed_first(border, generator):
    picture = torch.rand(1, 40, 56, generator=generator, dtype=torch.float64)
    g = Affine().element([[0.5, 0.3, 0.1], [0.0, 0.4, 0.0]])
    steps = np.linalg.inv(g.matrix().numpy()[:2, :2])[::-1]  # from output to output pixel, along y, along x
    mode = {"edge": "nearest", "reflect": "reflect", "constant": "constant"}[border]
    sigma = [math.sqrt((step @ step - 1) / 6) for step in steps]
    smooth = ndimage.gaussian_filter(
        picture[0].numpy(), sigma, mode=mode, radius=[math.ceil(4 * s) for s in sigma]
    )
    at = look_up(g.matrix().numpy(), (40, 56))
    mode = "grid-constant" if border == "constant" else mode
    expected = ndimage.map_coordinates(smooth, at, order=1, mode=mode)
    np.testing.assert_allclose(act(g, Image(picture, border=border)).data[0], expected, atol=1e-10)


@pytest.mark.parametrize("factor", [1 / 2, 1 / 3, 1 / 4])
def test_shrinking_aliases_as_little_as_antialiased_resizing(factor, generator):
    noise = torch.rand(1, 3, 192, 192, generator=generator, dtype=torch.float64)
    small = round(192 * factor)
    expected = F.interpolate(noise, size=(small, small), mode="bilinear", antialias=True)
    low = (192 - small) // 2
    moved = act(Scale().element(small / 192), Image(noise)).data[..., low : low + small, low : low + small]
    plain = act(Scale().element(small / 192), Image(noise, interpolation="nearest")).data
    plain = plain[..., low : low + small, low : low + small]
    inner = (..., slice(4, -4), slice(4, -4))
    assert (moved - expected)[inner].std() < 0.3 * expected[inner].std()
    assert 0.8 < moved[inner].std() / expected[inner].std() < 1.1
    assert plain[inner].std() > 2 * expected[inner].std()  # what it would be without


def test_stripes_become_grey():
    stripes = (torch.arange(64) % 2).double().expand(1, 64, 64)
    moved = act(Scale().element(0.43), Image(stripes)).data[0, 24:40, 24:40]
    assert (moved - 0.5).abs().max() < 0.04


# --- exactness


@pytest.mark.parametrize("dtype", DTYPES, ids=name)
@pytest.mark.parametrize("group", GROUPS, ids=name)
def test_the_identity_changes_no_bit(group, dtype, generator):
    picture = (torch.rand(3, 2, 7, 10, generator=generator) * 200).to(dtype)
    e = group.identity(3)
    for kind in (Image, Mask, VectorField) if dtype.is_floating_point else (Image, Mask):
        assert torch.equal(act(e, kind(picture)).data, picture)
    if dtype.is_floating_point:
        boxes = picture.view(3, 35, 4)
        for x in (Boxes(boxes, size=(7, 10), normalized=True), Points(boxes, size=(7, 10))):
            assert torch.equal(act(e, x).data, boxes)
        tilted = OrientedBoxes(picture.view(3, 28, 5), size=(7, 10))
        assert torch.equal(act(e, tilted).data, tilted.data)


@pytest.mark.parametrize("dtype", DTYPES, ids=name)
@pytest.mark.parametrize("size", [(8, 8), (7, 7), (9, 14), (100, 37)], ids=name)
def test_shifts_by_whole_pixels_move_every_bit(size, dtype, generator):
    picture = (torch.rand(2, *size, generator=generator) * 200).to(dtype)
    right, down = torch.tensor([3, -2, 0, 5]), torch.tensor([1, -4, 2, 0])
    shifts = Translation().from_pixels(right, down, size=size)
    for group in (Translation(), Affine(), Homography()):
        g = (
            shifts
            if group == Translation()
            else group.element(shifts.matrix()[:, : group.identity().value.shape[0]])
        )
        moved = act(g, Image(picture.expand(4, *picture.shape))).data
        for i, (dx, dy) in enumerate(zip(right.tolist(), down.tolist(), strict=True)):
            expected = np.pad(picture.double().numpy(), ((0, 0), (5, 5), (5, 5)), mode="edge")
            expected = expected[:, 5 - dy : 5 - dy + size[0], 5 - dx : 5 - dx + size[1]]
            assert torch.equal(moved[i].double(), torch.from_numpy(expected))


def test_batches_mix_exact_and_other_elements(generator):
    picture = torch.rand(3, 2, 8, 8, generator=generator)
    g = Translation().element(torch.tensor([0.25, 0.3, 0.0]), 0.0)
    moved = act(g, Image(picture)).data
    assert torch.equal(moved[0, ..., 1:], picture[0, ..., :-1])
    assert torch.equal(moved[2], picture[2])
    expected = 0.2 * picture[1, ..., :-2] + 0.8 * picture[1, ..., 1:-1]  # 1.2 pixels lie between two
    torch.testing.assert_close(moved[1, ..., 2:], expected)


def test_affine_quarter_turns_and_flips_are_those_of_the_square(generator):
    picture = torch.rand(8, 3, 10, 10, generator=generator)
    g = Dihedral(4).elements()
    embedded = Affine().element(plane_homography(g)[:, :2])
    for kind in (Image, VectorField):
        data = picture[:, :2] if kind is VectorField else picture
        assert torch.equal(act(embedded, kind(data)).data, act(g, kind(data)).data)
    for x in (example(Boxes, Dihedral(4), batch=8), example(OrientedBoxes, Dihedral(4), batch=8)):
        torch.testing.assert_close(act(embedded, x).data, act(g, x).data, atol=1e-4, rtol=0)


def test_angles_are_those_of_the_finite_groups(generator):
    picture = torch.rand(16, 3, 11, 11, generator=generator)
    finite = Dihedral(8).elements()
    angle, flips = finite.group.angle(finite), finite.group.is_reflected(finite)
    assert torch.equal(
        act(O2().element(angle, reflected=flips), Image(picture)).data, act(finite, Image(picture)).data
    )
    tall = torch.rand(4, 3, 5, 8, generator=generator)
    for turns in range(4):
        quarter, same = SO2().element(degrees=90.0 * turns), Cyclic(4).element(turns)
        assert torch.equal(act(quarter, Image(tall)).data, act(same, Image(tall)).data)


@pytest.mark.parametrize("group", GROUPS, ids=name)
def test_elements_mean_the_same_on_every_size(group, generator):
    g = group.sample(5, generator=generator)
    points = torch.rand(5, 9, 2, generator=generator, dtype=torch.float64)
    small, large = (act(g, Points(points, size=(s, 2 * s), normalized=True)).data for s in (10, 130))
    torch.testing.assert_close(small, large)


def test_homographies_move_corners_where_they_are_told():
    # the plane seen from the left: solved by hand for the four corners of the unit square
    slope = 0.25
    g = Homography().element([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [slope, 0.0, 1.0]])
    corners = torch.tensor([[0.0, 0.0], [8.0, 0.0], [8.0, 8.0], [0.0, 8.0]], dtype=torch.float64)
    left, right = 1 / (1 - slope), 1 / (1 + slope)
    expected = torch.tensor(
        [[-left, -left], [right, -right], [right, right], [-left, left]], dtype=torch.float64
    )
    torch.testing.assert_close(act(g, Points(corners, size=(8, 8))).data, 4 + 4 * expected)
    hull = act(g, Boxes(torch.tensor([[0.0, 0.0, 8.0, 8.0]]), size=(8, 8))).data
    torch.testing.assert_close(
        hull, torch.tensor([[4 - 4 * left, 4 - 4 * left, 4 + 4 * right, 4 + 4 * left]])
    )


def test_nothing_is_seen_behind_the_horizon():
    g = Homography().element(
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [-3.0, 0.0, 1.0]]
    )  # looked up at (x, y) / (1 + 3 x)
    for border in ("constant", "edge", "reflect"):
        moved = act(g, Image(torch.ones(1, 30, 30), border=border, fill=0.0)).data
        assert moved.isfinite().all()
        if border == "constant":
            assert (moved[:, :, :9] == 0).all()  # x < -1/3; x = -1 would show 1/2
            assert (moved[:, 13:17, 20:] > 0.9).all()


def test_similar_affine_maps_move_oriented_boxes():
    turned = plane_homography(O2().element(0.4, reflected=True))
    g = Affine().element((turned @ plane_homography(Scale().element(1.5)))[:2])
    boxes = example(OrientedBoxes, Scale(), batch=2, dtype=torch.float64)
    moved = act(g, boxes).data
    expected = act(O2().element(0.4, reflected=True), boxes).data
    torch.testing.assert_close(moved[..., 2:4], 1.5 * boxes.data[..., 2:4])
    torch.testing.assert_close(moved[..., 4], expected[..., 4])
    torch.testing.assert_close(moved[..., :2] - 48, 1.5 * (expected[..., :2] - 48))


# --- gradients


@pytest.mark.parametrize("group", [SO2(), *GROUPS], ids=name)
def test_descent_from_the_identity_finds_the_pose(group):
    example_of = example(Image, Scale(), batch=2, dtype=torch.float64)
    true = (
        0.15 * torch.ones(2, group.coordinates, dtype=torch.float64) * (0.3 if group.coordinates > 2 else 1.0)
    )
    target = act(group.exp(true), example_of).data[..., 20:-20, 20:-20]
    c = torch.zeros_like(true, requires_grad=True)
    optimizer = torch.optim.Adam([c], lr=0.01)
    for _ in range(40):
        optimizer.zero_grad()
        error = (act(group.exp(c), example_of).data[..., 20:-20, 20:-20] - target).square().mean()
        error.backward()
        assert c.grad.abs().max() > 0
        optimizer.step()
    first = (example_of.data[..., 20:-20, 20:-20] - target).square().mean()
    assert error < 0.01 * first


def test_exact_elements_keep_their_bits_and_have_gradients(generator):
    picture = torch.rand(4, 1, 9, 9, generator=generator, dtype=torch.float64, requires_grad=True)
    angle = (torch.arange(4, dtype=torch.float64) * math.pi / 2).unsqueeze(1).requires_grad_(True)
    moved = act(SO2().exp(angle), Image(picture)).data
    assert torch.equal(moved, act(Cyclic(4).elements(), Image(picture)).data)
    weight = torch.rand(moved.shape, generator=generator, dtype=torch.float64)
    slopes = torch.autograd.grad((weight * moved).sum(), (angle, picture))
    assert (slopes[0].abs() > 1e-3).all()
    torch.testing.assert_close(slopes[1], act(~Cyclic(4).elements(), Image(weight)).data)
    points = act(SO2().exp(angle), Points(torch.rand(4, 5, 2, dtype=torch.float64), size=(9, 9))).data
    assert torch.autograd.grad(points.square().sum(), angle)[0].abs().min() > 1e-6


@pytest.mark.parametrize(
    ("x", "match"),
    [
        (VectorField(torch.rand(2, 3, 8, 8)), r"VectorField.data must have shape \(…, 2, H, W\)"),
        (Points(torch.rand(2, 4, 1), size=(8, 8)), "Points.data must have shape"),
        (Boxes(torch.rand(2, 4, 3), size=(8, 8)), "Boxes.data must have shape"),
        (OrientedBoxes(torch.rand(2, 4, 4), size=(8, 8)), "OrientedBoxes.data must have shape"),
    ],
    ids=["field", "points", "boxes", "oriented"],
)
def test_errors(x, match):
    with pytest.raises(ValueError, match=match):
        act(Scale().sample(2), x)
