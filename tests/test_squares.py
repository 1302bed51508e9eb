"""Pictures that are not square, under groups that resample: what the model sees, and what comes back."""

import pytest
import torch
import torch.nn.functional as F

from adapter_toys import Classifier, Dense, detector, spot_finder
from upright import Adapted, Boxes, IdentityCanonicalizer, Image, Points, Pose, act, parse_group
from upright.adapter.square import taken_back
from upright.canonicalizers import Canonicalizer

GROUPS = ["SO2", "O2", "C8", "SO2xscale"]
KINDS = {"point": "points", "box": Boxes, "mask": "mask", "scores": "logits"}


class Quarters(Canonicalizer):
    """Finds by which quarter turn the marked pictures stand: their brightest edge is the top."""

    def forward(self, x):
        if not isinstance(x, torch.Tensor):
            return Pose(_cat([self(p[None]).element for p in x]))
        grey = x.mean(1)
        side = min(grey.shape[-2:])
        top, left = (grey.shape[-2] - side) // 2, (grey.shape[-1] - side) // 2
        square = grey[:, top : top + side, left : left + side]
        half = side // 2
        edges = [square[:, :half], square[..., :half], square[:, -half:], square[..., -half:]]
        turn = torch.stack([e.mean((1, 2)) for e in edges], 1).argmax(1)  # up, left, down, right
        return Pose(self.group.element(degrees=90.0 * turn))


def _cat(elements):
    return type(elements[0])(elements[0].group, torch.cat([e.value for e in elements]))


def marked(batch, height, width):
    """Pictures with a clear upper side, wherever they are cut to a centred square."""
    x = torch.rand(batch, 3, height, width)
    return x * torch.linspace(1, 0, height)[:, None].expand(height, width)


def padded(x):
    height, width = x.shape[-2:]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    return F.pad(x, (left, side - width - left, top, side - height - top))


@pytest.mark.parametrize("canvas", ["bucket", "pad", "stretch"])
@pytest.mark.parametrize("group", GROUPS)
def test_square_pictures_are_none_the_wiser(group, canvas):
    x, model = torch.rand(2, 3, 12, 12), Classifier().eval()
    c = IdentityCanonicalizer(group)
    assert torch.equal(Adapted(model, c, canvas=canvas)(x), model(x))


@pytest.mark.parametrize("canvas", ["pad", "stretch"])
@pytest.mark.parametrize("size", [(8, 12), (12, 8), (9, 14)], ids=str)
@pytest.mark.parametrize("group", GROUPS)
def test_upright_pictures_are_seen_on_the_square(group, size, canvas):
    """The identity pose is the bare model on the placed picture, bit for bit."""
    x, model, c = torch.rand(2, 3, *size), Classifier().eval(), IdentityCanonicalizer(group)
    side = max(size)
    placed = padded(x) if canvas == "pad" else F.interpolate(x, (side, side), mode="bilinear", antialias=True)
    assert torch.equal(Adapted(model, c, canvas=canvas)(x), model(placed))
    assert torch.equal(Adapted(model, c, canvas=canvas).canonicalize(x)[0], placed)
    dense = Dense(stride=1).eval()
    found = Adapted(dense, c, canvas=canvas, outputs="image")(x)
    assert found.shape[-2:] == size
    if canvas == "pad":
        top, left = (side - size[0]) // 2, (side - size[1]) // 2
        assert torch.equal(found, dense(placed)[..., top : top + size[0], left : left + size[1]])


@pytest.mark.parametrize("canvas", ["pad", "stretch"])
@pytest.mark.parametrize("turn", [1, 2, 3])
@torch.no_grad()
def test_quarter_turns_are_exact(turn, canvas):
    x, size = marked(3, 8, 14), (8, 14)
    group = parse_group("SO2")
    moved = torch.rot90(x, turn, (2, 3))
    c = Quarters(group)
    exact = {"atol": 0 if canvas == "pad" else 1e-5, "rtol": 0}
    for model, outputs in ((Classifier().eval(), "logits"), (Dense().eval(), "image")):
        robust = Adapted(model, c, canvas=canvas, outputs=outputs)
        still, after = robust.run(x), robust.run(moved)
        wanted = group.element(degrees=90.0 * turn).expand(3) @ still.pose.element
        assert wanted.equals(after.pose.element).all()
        expected = still.output if outputs == "logits" else torch.rot90(still.output, turn, (2, 3))
        torch.testing.assert_close(after.output, expected, **exact)
    if canvas == "pad":
        g = parse_group("C4").element(torch.full((3,), turn))
        for pictures, h in ((x, None), (moved, g)):
            out = Adapted(spot_finder, c, outputs=KINDS, canvas="pad")(pictures)
            points = spot_finder(x)["point"]
            wanted = points if h is None else act(h, Points(points, size=size)).data
            torch.testing.assert_close(out["point"], wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [(8, 14), (15, 9), (8, 11)], ids=str)
@pytest.mark.parametrize("group", ["O2", "C8"])
def test_all_kinds_land_on_the_spot_of_the_users_picture(size, group):
    """Turned by quarter turns and back, what is found lies where it lies on the user's picture."""

    class Poses(Canonicalizer):
        def forward(self, x):
            parsed = parse_group(group)
            quarter = (
                parsed.element(degrees=[0.0, 90, 180])
                if group == "O2"
                else parsed.element(torch.tensor([0, 2, 4]))
            )
            return Pose(quarter)

    x = torch.rand(3, 3, *size)
    expected = spot_finder(x)
    out = Adapted(spot_finder, Poses(parse_group(group)), outputs=KINDS, canvas="pad")(x)
    for key in ("point", "box", "mask"):
        torch.testing.assert_close(out[key].float(), expected[key].float(), atol=1e-4, rtol=0)
    listed = Adapted(detector, Poses(parse_group(group)), canvas="pad",
                     outputs={"boxes": "boxes", "masks": "mask"})(list(x))  # fmt: skip
    for found, wanted in zip(listed, detector(list(x)), strict=True):
        torch.testing.assert_close(found["boxes"], wanted["boxes"], atol=1e-4, rtol=0)
        assert torch.equal(found["masks"], wanted["masks"])


@pytest.mark.parametrize("canvas", ["pad", "stretch"])
def test_prompts_are_placed_and_coordinates_taken_back(canvas):
    """Points go to the model on the square; boxes in every format, in pixels and fractions, come back."""
    seen = []

    def model(pixels, points):
        seen.append((pixels, points))
        return points

    x, points = torch.rand(1, 3, 6, 10), torch.tensor([[[2.0, 3.0], [9.0, 1.0]]])
    robust = Adapted(model, IdentityCanonicalizer("SO2"), canvas=canvas, outputs="points",
                     inputs={0: "image", 1: "points"})  # fmt: skip
    torch.testing.assert_close(robust(x, points), points)
    shift = torch.tensor([0.0, 2.0]) if canvas == "pad" else torch.zeros(2)
    scale = torch.tensor([1.0, 1.0 if canvas == "pad" else 10 / 6])
    torch.testing.assert_close(seen[0][1], points * scale + shift)
    corners = torch.tensor([[1.0, 4.0, 5.0, 7.0]])  # on the square of 10
    own = (corners - shift.repeat(2)) / scale.repeat(2)
    for form in ("xyxy", "xywh", "cxcywh"):
        for normalized in (False, True):
            given, wanted = (_in_format(b, form) for b in (corners, own))
            unit = torch.tensor([10.0, 6, 10, 6]) if normalized else 1.0
            kind = Boxes(given / (10 if normalized else 1), (10, 10), form, normalized)
            torch.testing.assert_close(taken_back(kind, (6, 10), canvas).data, wanted / unit)


def _in_format(corners, form):
    first, second = corners[..., :2], corners[..., 2:]
    if form == "xyxy":
        return corners
    start = first if form == "xywh" else (first + second) / 2
    return torch.cat([start, second - first], -1)


def test_turned_pictures_are_turned_about_their_middle():
    """What a model sees of a picture turned by 45° is the padded picture turned back about its centre."""
    seen = []

    class Eighth(Canonicalizer):
        def forward(self, x):
            return Pose(self.group.element(degrees=[45.0]))

    x = torch.rand(1, 3, 8, 14)
    Adapted(lambda p: seen.append(p) or p.mean((1, 2, 3))[:, None], Eighth(parse_group("SO2")), canvas="pad")(
        x
    )
    expected = act(parse_group("SO2").element(degrees=[-45.0]), Image(padded(x))).data
    torch.testing.assert_close(seen[0], expected)


def test_several_poses_and_errors():
    x, model = torch.rand(2, 3, 8, 12), Classifier().eval()
    average = Adapted(model, IdentityCanonicalizer("SO2"), mode="average", top_k=4, canvas="pad")
    torch.testing.assert_close(average(x), average(torch.rot90(x, 1, (2, 3))), atol=1e-5, rtol=1e-5)
    for group in GROUPS:
        with pytest.raises(ValueError, match="needs square pictures, got 8×12; set canvas='pad' to place"):
            Adapted(model, IdentityCanonicalizer(group))(x)
    assert Adapted(model, IdentityCanonicalizer("scale"))(x).shape == (2, 7)  # stays on its canvas
    flow = Adapted(lambda p: p[:, :2], IdentityCanonicalizer("SO2"), canvas="stretch", outputs="vector_field")
    with pytest.raises(ValueError, match="canvas='stretch' cannot take VectorField back"):
        flow(x)
