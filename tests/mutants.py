"""Broken groups, actions, networks, canonicalizers and adapters, after real defects: each must be caught.

Each is what is right with one thing wrong, and says in its name what.
"""

import dataclasses
import math

import torch
from torch import Tensor, nn

from upright import (
    Boxes,
    Cyclic,
    Dihedral,
    Element,
    IdentityCanonicalizer,
    Image,
    Mask,
    OrientedBoxes,
    Points,
    Pose,
    RegularField,
    VectorField,
    act,
)
from upright.adapter import Adapted
from upright.canonicalizers import Canonicalizer
from upright.canonicalizers.estimators import gumbel
from upright.nets import GroupCNN

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

# --- networks


class Plain(nn.Module):
    """A network that is not equivariant at all."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.conv(x).relu().mean((-1, -2))


class NearZeroWeights(Plain):
    """Weights so small that any absolute tolerance passes."""

    def __init__(self):
        super().__init__()
        for p in self.parameters():
            nn.init.constant_(p, 1e-12)


class Constant(nn.Module):
    """Invariant, because it never looks."""

    def forward(self, x):
        return torch.ones(len(x), 4, dtype=x.dtype)


class NearlyConstant(nn.Module):
    """A large bias hides everything else."""

    def forward(self, x):
        return 1e9 + x[:, :, 0, 0]


class NaNs(nn.Module):
    """NaN everywhere."""

    def forward(self, x):
        return x.mean((1, 2, 3)) * math.nan


class Transposed(GroupCNN):
    """Filters turn the other way."""

    def forward(self, x):
        return super().forward(x.mT)[:, torch.tensor([0, 1, 2, 3])]


class FiltersThatDoNotTurn(GroupCNN):
    """One filter for all orientations."""

    def __init__(self):
        super().__init__("C4", widths=(3, 4))
        self.lift.group = self.lift.group  # the first layer repeats its filters
        self.lift.filters = lambda: self.lift.weight.squeeze(2).repeat_interleave(4, 0)


class FloatHidden(nn.Module):
    """Not equivariant by one part in a thousand."""

    def forward(self, x):
        return x.mean((2, 3)) + 1e-3 * x[:, :, 0, 0]


NETWORKS = [Plain, NearZeroWeights, Constant, NearlyConstant, NaNs, FloatHidden]

# --- canonicalizers


class Scored(Canonicalizer):
    """What is right: the scores of a group convolution, and the likeliest element."""

    def __init__(self, group="D4"):
        super().__init__(group)
        self.network = GroupCNN(self.group, widths=(3, 4))

    def choose(self, log_probs, x):
        return log_probs.argmax(-1)

    def scores(self, x):
        return self.network(x)

    def forward(self, x):
        log_probs = torch.log_softmax(self.scores(x) * 30, -1)
        return Pose(self.group.element(self.choose(log_probs, x)), log_probs)


class GumbelInEvaluation(Scored):
    """Poses are drawn in evaluation too."""

    def choose(self, log_probs, x):
        return gumbel(log_probs, 1.0, None)[0]


class AppliesAnotherElement(Scored):
    """``flip(rot(x))`` is scored, ``rot(flip(x))`` is applied."""

    def choose(self, log_probs, x):
        best, n = log_probs.argmax(-1), self.group.n
        return torch.where(best >= n, (-best % n) + n, best)


class ScoresTheInverse(Scored):
    """The score of ``g`` stands at the place of its inverse."""

    def scores(self, x):
        return super().scores(x)[:, self.group.elements().inverse().value]


class KeepsState(Scored):
    """Right, but leaves the last pose on the module, for another thread to find."""

    def forward(self, x):
        self.last = super().forward(x)
        return self.last


class Counts(Scored):
    """Answers by how often it was asked."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def choose(self, log_probs, x):
        self.calls += 1
        return (log_probs.argmax(-1) + self.calls) % 8


class ChangesThePicture(Scored):
    """The picture is normalised in place."""

    def forward(self, x):
        return super().forward(x.sub_(x.mean()))


class LooksAtTheBatch(Scored):
    """Scores are centred over the batch."""

    def scores(self, x):
        scores = super().scores(x)
        return scores - 0.5 * scores[:, :1].mean(0) * torch.linspace(0, 1, 8, dtype=x.dtype)


class Unnormalised(Scored):
    """Scores for log-probabilities."""

    def forward(self, x):
        scores = self.scores(x)
        return Pose(self.group.element(scores.argmax(-1)), scores)


class NaNScores(Scored):
    """A diverged network."""

    def scores(self, x):
        return super().scores(x) * math.nan


class Always(Scored):
    """The collapse of low precision: every score ties, and every pose is the identity."""

    def scores(self, x):
        return 0 * super().scores(x)


class IdentityOfD4(IdentityCanonicalizer):
    """Moves nothing, so that no two copies come to one form."""

    def __init__(self):
        super().__init__("D4")


CANONICALIZERS = [
    GumbelInEvaluation, AppliesAnotherElement, ScoresTheInverse, KeepsState, Counts, ChangesThePicture,
    LooksAtTheBatch, Unnormalised, NaNScores, Always, IdentityOfD4,
]  # fmt: skip

# --- adapters


class Backwards(Adapted):
    """Turns forward where it should turn back."""

    def run(self, *args, **kwargs):
        c = self.canonicalizer
        pose = c(args[0])
        back = act(pose.element, Image(args[0])).data
        return dataclasses.replace(super().run(*args, **kwargs), output=self.model(back))


class ForgetsToTurnForward(Adapted):
    """Dense results stay in the canonical frame."""

    def run(self, *args, **kwargs):
        pose = self.canonicalizer(args[0])
        back = act(pose.element.inverse(), Image(args[0])).data
        return dataclasses.replace(super().run(*args, **kwargs), output=self.model(back))


class OnePoseForTheBatch(Adapted):
    """All pictures are turned by the pose of the first."""

    def run(self, *args, **kwargs):
        pose = self.canonicalizer(args[0])
        if not len(args[0]):
            return super().run(*args, **kwargs)
        every = pose.element[:1].expand(len(args[0]))
        back = act(every.inverse(), Image(args[0])).data
        out = act(every, Image(self.model(back))).data if self.outputs == "image" else self.model(back)
        return dataclasses.replace(super().run(*args, **kwargs), output=out)


class RoundsTheOutput(Adapted):
    """Goes through half precision on the way."""

    def forward(self, *args, **kwargs):
        return super().forward(*args, **kwargs).bfloat16().float()


class WrapsTheOutput(Adapted):
    """Returns a tuple where the model returns a tensor."""

    def forward(self, *args, **kwargs):
        return (super().forward(*args, **kwargs),)


class OverwritesThePicture(Adapted):
    """Canonicalizes in place."""

    def forward(self, x):
        out = super().forward(x)
        x.mul_(0.5)
        return out


ADAPTERS = [  # mutant, kind of the model's output
    (Backwards, "logits"),
    (ForgetsToTurnForward, "image"),
    (OnePoseForTheBatch, "logits"),
    (OnePoseForTheBatch, "image"),
    (RoundsTheOutput, "logits"),
    (WrapsTheOutput, "logits"),
    (OverwritesThePicture, "logits"),
]
