"""Broken groups and actions, after real defects: each must be caught. See `mutants_models` for the rest.

Each is what is right with one thing wrong, and says in its name what.
"""

import dataclasses
import math

import torch
from torch import Tensor

from upright import (
    Boxes,
    Cyclic,
    Dihedral,
    Element,
    Image,
    Mask,
    OrientedBoxes,
    Points,
    RegularField,
    VectorField,
    act,
)

# --- groups


class ReflectionsOfInvertedPolarity(Dihedral):
    """The inverse of a reflection turns the other way."""

    def inverse(self, g):
        turn = -g.value % self.n
        return Element(self, turn + self.n * self.is_reflected(g))


class ReflectionsThatDoNotReverseTurns(Dihedral):
    """``F R`` is taken for ``R F``."""

    def compose(self, g, h):
        flips = (g.value // self.n) ^ (h.value // self.n)
        return Element(self, (g.value + h.value) % self.n + self.n * flips)


class InverseThatIsTheElement(Cyclic):
    """The inverse does nothing, which a check of ``g @ ~g`` with a message in the wrong place misses."""

    def inverse(self, g):
        return g


class TransposedMatrices(Dihedral):
    """``matrix(g)`` is that of the inverse: no homomorphism."""

    def matrix(self, g, dtype=torch.float64):
        return super().matrix(g, dtype).mT.contiguous()


class AnglesInDegrees(Cyclic):
    """Degrees where radians are meant."""

    def matrix(self, g, dtype=torch.float64):
        degrees = torch.rad2deg(self.angle(g))
        cos, sin = degrees.cos(), degrees.sin()
        return torch.stack([torch.stack([cos, sin], -1), torch.stack([-sin, cos], -1)], -2).to(dtype)


class HalfOfTheTurns(Cyclic):
    """Angles of 180°/n: composing leaves the group."""

    def angle(self, g):
        return super().angle(g) / 2

    def quarter_turns(self, g):
        return torch.where(g.value == 0, 0, -1)


class NotANumber(Cyclic):
    """Distances are NaN."""

    def distance(self, g, h):
        return super().distance(g, h) * math.nan


class OutOfTheGroup(Cyclic):
    """Composition does not wrap."""

    def compose(self, g, h):
        return Element(self, g.value + h.value)


class SampleOfOne(Cyclic):
    """Sampling gives the identity only."""

    def sample(self, *shape, generator=None, device=None):
        return self.identity(*shape, device=device)


@dataclasses.dataclass(frozen=True)
class HoldsATensor(Cyclic):
    """A group that keeps a tensor, so that it has no hash of its value."""

    table: Tensor = dataclasses.field(default_factory=lambda: torch.arange(4))


GROUPS = [
    ReflectionsOfInvertedPolarity(4), ReflectionsThatDoNotReverseTurns(4), InverseThatIsTheElement(4),
    TransposedMatrices(4), AnglesInDegrees(4), HalfOfTheTurns(4), NotANumber(4), OutOfTheGroup(4),
    SampleOfOne(4), HoldsATensor(4),
]  # fmt: skip

# --- actions: functions with the signature of ``act``


def only(*kinds):
    """Make a mutant of some kinds, right for all others."""

    def decorate(f):
        def mutant(g, x):
            return f(g, x) if isinstance(x, kinds) else act(g, x)

        mutant.__name__, mutant.__doc__ = f.__name__, f.__doc__
        return mutant

    return decorate


def batched(g):
    return g.reshape(1) if not g.shape else g


@only(Image, Mask)
def inverse_of_a_reflection_turned_the_other_way(g, x):
    """The defect of the peer: flips are undone with inverted polarity."""
    if not isinstance(g.group, Dihedral):
        return act(g, x)
    n = g.group.n
    wrong = torch.where(g.value >= n, (-g.value % n) + n, g.value)
    return act(Element(g.group, wrong), x)


@only(Image)
def transposed_rotation(g, x):
    """Pictures turn clockwise, everything else counter-clockwise."""
    n = g.group.n
    return act(Element(g.group, torch.where(g.value < n, -g.value % n, g.value)), x)


@only(Boxes)
def boxes_by_two_corners(g, x):
    """Two corners are turned, and taken as they come: zero width at 45°."""
    ends = act(g, Points(x.data.unflatten(-1, (2, 2)).flatten(-3, -2), size=x.size, normalized=x.normalized))
    return x.replace(data=ends.data.unflatten(-2, (-1, 2)).flatten(-2), size=ends.size)


@only(Points)
def last_pixel_for_width(g, x):
    """Coordinates are mirrored about ``W - 1``: one pixel off."""
    moved = act(g, x)
    shift = torch.zeros_like(moved.data)
    odd = (g.group.is_reflected(g) | (g.group.quarter_turns(g) == 2)).to(shift.dtype)
    shift[..., 0] += odd.view(-1, *[1] * (x.data.ndim - 2)) if g.shape else odd
    return moved.replace(data=moved.data - shift)


@only(Boxes, Points, OrientedBoxes)
def height_and_width_swapped(g, x):
    """The canvas is read as (width, height)."""
    moved = act(g, x.replace(size=x.size[::-1]))
    return moved.replace(size=moved.size[::-1])


@only(Image, Mask, VectorField, RegularField)
def centre_at_half_the_length_rounded_down(g, x):
    """The centre of turns is the pixel ``n // 2``: one pixel off on even sides."""
    moved = act(g, x)
    if x.data.shape[-1] % 2 or x.data.shape[-1] != x.data.shape[-2]:
        return moved
    turned = (g.value % g.group.n != 0).view(-1, *[1] * (x.data.ndim - 1))
    rolled = moved.data.roll((1, 1), (-2, -1))
    return moved.replace(data=torch.where(turned if g.shape else turned.reshape(()), rolled, moved.data))


@only(Points, Boxes, OrientedBoxes)
def half_a_pixel_off(g, x):
    """Pixel centres at integers: coordinates are half a pixel off after a turn."""
    moved = act(g, x)
    data = moved.data.clone()
    columns = 4 if isinstance(x, Boxes) and x.format == "xyxy" else 2
    unit = 1 / x.size[0] if getattr(x, "normalized", False) else 1.0
    still = g.is_identity().view(-1, *[1] * (data.ndim - 1)) if g.shape else g.is_identity()
    data[..., :columns] = torch.where(still, data[..., :columns], data[..., :columns] + 0.5 * unit)
    return moved.replace(data=data)


@only(OrientedBoxes)
def angle_of_oriented_boxes_in_degrees(g, x):
    """The turn is added in degrees to an angle in radians."""
    moved = act(g, x)
    turn = g.group.angle(g).to(x.data.dtype)
    extra = turn * 180 / math.pi - turn
    data = moved.data.clone()
    data[..., 4] += extra.view(-1, *[1] * (data.ndim - 2)) if g.shape else extra
    return moved.replace(data=data)


@only(OrientedBoxes)
def reflection_keeps_the_angle(g, x):
    """The angle of an oriented box is not negated by a flip."""
    moved = act(g, x)
    data = moved.data.clone()
    n = g.group.n
    data[..., 4] = act(Element(g.group, g.value % n), x).data[..., 4]
    return moved.replace(data=data)


@only(Image, Mask, Boxes)
def flip_for_every_sample(g, x):
    """If one sample is flipped, all are."""
    flips = g.group.is_reflected(g)
    if not bool(flips.any()):
        return act(g, x)
    return act(Element(g.group, g.value % g.group.n + g.group.n), x)


@only(VectorField)
def vectors_that_do_not_turn(g, x):
    """The grid moves and its vectors keep pointing where they did."""
    return x.replace(data=act(g, Image(x.data)).data)


@only(RegularField)
def channels_that_do_not_permute(g, x):
    """The grid moves and its channels stay."""
    return x.replace(data=act(g, Image(x.data)).data)


@only(RegularField)
def channels_permuted_by_the_inverse(g, x):
    """Channel ``h`` goes to ``~g @ h``."""
    grid = act(g, Image(x.data)).data
    back = act(g.inverse(), RegularField(act(g, Image(x.data)).data)).data
    return x.replace(data=act(g, Image(back)).data if grid.shape == back.shape else grid)


@only(Image, Mask, Points, Boxes)
def changed_in_place(g, x):
    """The target is overwritten."""
    moved = act(g, x)
    if moved.data.shape == x.data.shape and not x.data.requires_grad and x.data.ndim > 2:
        x.data.copy_(moved.data)
    return moved


@only(Image, Points, Boxes)
def not_a_number(g, x):
    """Everything moved is NaN, which ``err > tol`` lets pass."""
    moved = act(g, x)
    nan = moved.data * math.nan if moved.data.is_floating_point() else moved.data
    still = g.is_identity().view(-1, *[1] * (moved.data.ndim - 1)) if g.shape else g.is_identity()
    return moved.replace(data=torch.where(still, moved.data, nan))


def nothing_moves(g, x):
    """The trivial action: all laws hold, and nothing happens."""
    return x if not isinstance(x, (list, tuple, dict)) else act(g, x)


@only(Image, Mask)
def the_first_element_for_all(g, x):
    """A batch is moved by its first element."""
    return act(g[:1].expand(len(g)), x) if g.shape and len(g) else act(g, x)


@only(Image, Mask)
def float_whatever_came(g, x):
    """The dtype is lost."""
    moved = act(g, x)
    return moved.replace(data=moved.data.double())


@only(Image)
def no_gradient(g, x):
    """The graph is cut, as by an ``nn.Parameter`` made of a computed tensor."""
    moved = act(g, x)
    return moved.replace(data=moved.data.detach() + 0 * x.data.sum())


@only(Image, Points)
def no_empty_batches(g, x):
    """An empty batch gains an entry."""
    moved = act(g, x)
    empty = moved.data.new_zeros(1, *moved.data.shape[1:])
    return moved.replace(data=empty) if g.shape and not len(g) else moved


ACTIONS = [  # mutant, group on which its laws fail, kind
    (flip_for_every_sample, Dihedral(4), Image),
    (flip_for_every_sample, Dihedral(4), Boxes),
    (boxes_by_two_corners, Dihedral(4), Boxes),
    (boxes_by_two_corners, Cyclic(8), Boxes),
    (last_pixel_for_width, Dihedral(4), Points),
    (inverse_of_a_reflection_turned_the_other_way, Dihedral(3), Image),
    (half_a_pixel_off, Cyclic(4), Points),
    (half_a_pixel_off, Dihedral(4), Boxes),
    (centre_at_half_the_length_rounded_down, Cyclic(4), Image),
    (angle_of_oriented_boxes_in_degrees, Cyclic(8), OrientedBoxes),
    (reflection_keeps_the_angle, Dihedral(4), OrientedBoxes),
    (channels_permuted_by_the_inverse, Dihedral(4), RegularField),
    (changed_in_place, Dihedral(4), Image),
    (changed_in_place, Cyclic(4), Boxes),
    (not_a_number, Cyclic(4), Image),
    (not_a_number, Cyclic(8), Points),
    (nothing_moves, Cyclic(4), Image),
    (nothing_moves, Dihedral(8), Points),
    (the_first_element_for_all, Cyclic(4), Image),
    (float_whatever_came, Cyclic(4), Image),
    (no_gradient, Cyclic(4), Image),
    (no_empty_batches, Cyclic(4), Image),
]

FRAMES = [  # mutants on which kinds disagree, though some are actions all the same
    transposed_rotation, boxes_by_two_corners, last_pixel_for_width, height_and_width_swapped,
    centre_at_half_the_length_rounded_down, half_a_pixel_off, angle_of_oriented_boxes_in_degrees,
    reflection_keeps_the_angle, vectors_that_do_not_turn, channels_that_do_not_permute,
    channels_permuted_by_the_inverse, not_a_number, nothing_moves,
    inverse_of_a_reflection_turned_the_other_way,
]  # fmt: skip
