"""Broken maps of the plane: groups and actions with one thing wrong, which the public checks must catch.

Each says in its name or its first line what is wrong.
"""

import math

import torch

from mutants import only
from upright import (
    SO2,
    Affine,
    Boxes,
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
from upright.groups import Element
from upright.testing.frames import corners

# --- groups


class ScaleInverted(Scale):
    """The matrix divides by the factor."""

    def homography(self, g):
        return super().homography(g.inverse())


class LogarithmOfBaseTwo(Scale):
    """``log`` and ``exp`` count octaves, the generators do not."""

    def exp(self, coordinates):
        return Element(self, coordinates[..., 0].double() * math.log(2))

    def log(self, g):
        return g.value.unsqueeze(-1) / math.log(2)


class DownIsUp(Translation):
    """y points up in the generators."""

    def generators(self, dtype=torch.float64):
        return super().generators(dtype) * torch.tensor([1.0, -1.0], dtype=dtype)[:, None, None]


class CutsTheGradient(Affine):
    """``exp`` is that of other tensors."""

    def exp(self, coordinates):
        return super().exp(coordinates.detach())


class SumsCoordinates(Affine):
    """``exp`` of first order: near the identity only."""

    def exp(self, coordinates):
        algebra = torch.tensordot(coordinates.double(), self.generators(), 1)
        return Element(self, (torch.eye(3, dtype=torch.float64) + algebra)[..., :2, :])


class InverseOfTheLinearPart(Affine):
    """The shift of an inverse is only negated."""

    def inverse(self, g):
        return Element(self, torch.cat([super().inverse(g).value[..., :2], -g.value[..., 2:]], -1))


class ComposedBackwards(Affine):
    """``g @ h`` is first g, then h."""

    def compose(self, g, h):
        return super().compose(h, g)


class SaysItIsInvariantOnBothSides(Homography):
    """No distance on this group is."""

    is_bi_invariant = True


class SaysItIsNot(Translation):
    """The Euclidean distance of shifts is invariant on both sides."""

    is_bi_invariant = False


class LengthOfTheDifference(Homography):
    """``|g - h|`` is not invariant."""

    def distance(self, g, h):
        return torch.linalg.matrix_norm(g.value - h.value)


class AnyDeterminant(Homography):
    """Matrices are not brought to one form."""

    def generators(self, dtype=torch.float64):
        return super().generators(dtype) + torch.eye(3, dtype=dtype) / 3


class TurnsClockwise(SO2):
    """The generator turns the other way."""

    def generators(self, dtype=torch.float64):
        return super().generators(dtype).mT


GROUPS = [
    ScaleInverted(), LogarithmOfBaseTwo(), DownIsUp(), CutsTheGradient(), SumsCoordinates(),
    InverseOfTheLinearPart(), ComposedBackwards(), SaysItIsInvariantOnBothSides(), SaysItIsNot(),
    LengthOfTheDifference(), AnyDeterminant(), TurnsClockwise(),
]  # fmt: skip

# --- actions


@only(Image, Mask, VectorField)
def wrong_direction(g, x):
    """Pixels are looked up by the map itself, so that they move by its inverse."""
    return act(~g, x)


@only(Image, Mask, VectorField)
def half_a_pixel_off_centre(g, x):
    """Pixels move about ``(size - 1) / 2``, points about ``size / 2``."""
    half = 1 / min(x.data.shape[-2:])
    there = Affine().element([[1.0, 0.0, -half], [0.0, 1.0, -half]])
    embedded = g.group.homography(g)
    about = Homography().element(there.matrix() @ embedded @ (~there).matrix())
    still = g.is_identity()
    value = torch.where(still[..., None, None], torch.eye(3, dtype=torch.float64), about.value)
    return act(Element(Homography(), value), x)


@only(VectorField)
def forgotten_jacobian(g, x):
    """The grid moves and its vectors stay as they are."""
    return x.replace(data=act(g, Image(x.data)).data)


@only(VectorField)
def derivative_at_the_centre(g, x):
    """Vectors are pushed by one matrix everywhere: right for affine maps only."""
    h = g.group.homography(g)
    linear = h[..., :2, :2] / h[..., 2:, 2:]
    moved = act(g, Image(x.data)).data
    pushed = torch.einsum("...ij,...jhw->...ihw", linear.to(moved.dtype), moved)
    still = g.is_identity()[..., None, None, None]
    return x.replace(data=torch.where(still, x.data, pushed))


@only(Boxes)
def boxes_by_two_corners(g, x):
    """The top left and the bottom right corner move, the other two are forgotten."""
    first, second = corners(x)
    ends = act(g, Points(torch.stack([first, second], -2).flatten(-3, -2), size=x.size)).data
    ends = ends.unflatten(-2, (-1, 2))
    low, high = ends.amin(-2), ends.amax(-2)
    parts = {"xyxy": (low, high), "xywh": (low, high - low), "cxcywh": ((low + high) / 2, high - low)}
    data = torch.cat(parts[x.format], -1)
    data = data / data.new_tensor([x.size[1], x.size[0]] * 2) if x.normalized else data
    still = g.is_identity()[..., None, None]
    return x.replace(data=torch.where(still, x.data, data.to(x.data.dtype)))


@only(Points, Boxes, OrientedBoxes)
def scale_inverted(g, x):
    """Coordinates shrink where pictures grow."""
    return act(~g, x)


@only(OrientedBoxes)
def sides_that_do_not_scale(g, x):
    """Oriented boxes keep their sides."""
    moved = act(g, x)
    return moved.replace(data=torch.cat([moved.data[..., :2], x.data[..., 2:4], moved.data[..., 4:]], -1))


@only(Points)
def no_perspective_division(g, x):
    """Points are not divided by their third coordinate."""
    half, middle = min(x.size) / 2, x.data.new_tensor([x.size[1] / 2, x.size[0] / 2])
    h = g.group.homography(g).to(x.data.dtype)
    place = (x.data[..., :2] - middle) / half
    moved = place @ h[..., :2, :2].mT + h[..., :2, 2].unsqueeze(-2)
    xy = torch.where(g.is_identity()[..., None, None], x.data[..., :2], moved * half + middle)
    return x.replace(data=torch.cat([xy, x.data[..., 2:]], -1))


@only(Image)
def no_gradient_to_the_pose(g, x):
    """The element is read as a number."""
    return act(Element(g.group, g.value.detach()), x)


@only(Points, Boxes)
def longer_half_side(g, x):
    """Shifts are measured in the half-width, also where the height is shorter."""
    moved = act(g, x)
    if getattr(x, "normalized", False) or (isinstance(x, Boxes) and x.format != "xyxy"):
        return moved
    shift = g.group.homography(g)[..., :2, 2] * (x.size[1] - min(x.size)) / 2
    data = moved.data.clone()
    for i in range(0, 4 if isinstance(x, Boxes) else 2, 2):
        data[..., i : i + 2] += shift.unsqueeze(-2).to(data.dtype)
    return moved.replace(data=data)


ACTIONS = [  # mutant, group on which its laws fail, kind
    (derivative_at_the_centre, Homography(), VectorField),
    (no_perspective_division, Homography(), Points),
    (boxes_by_two_corners, Affine(), Boxes),
    (no_gradient_to_the_pose, Homography(), Image),
    (no_gradient_to_the_pose, Scale(), Image),
]

FRAMES = [  # mutant, group on which kinds disagree, though some are actions all the same
    (wrong_direction, Homography()),
    (wrong_direction, Translation()),
    (half_a_pixel_off_centre, Scale()),
    (half_a_pixel_off_centre, Affine()),
    (forgotten_jacobian, Scale()),
    (forgotten_jacobian, Affine()),
    (derivative_at_the_centre, Homography()),
    (boxes_by_two_corners, Affine()),
    (boxes_by_two_corners, Homography()),
    (scale_inverted, Scale()),
    (sides_that_do_not_scale, Scale()),
    (no_perspective_division, Homography()),
    (longer_half_side, Translation()),
]
