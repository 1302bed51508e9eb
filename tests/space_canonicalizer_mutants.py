"""Broken canonicalizers and networks of clouds: each is what is right with one thing wrong."""

import torch
from torch import nn

from upright.canonicalizers import PCAFrame, Pose, SortedOrder, VectorNeuronCanonicalizer
from upright.canonicalizers.clouds import CentredClouds
from upright.groups import Element
from upright.nets.vector_neurons import VectorLinear


def mirrored(element):
    return Element(element.group, torch.cat([-element.value[..., :3], element.value[..., 3:]], -1))


class ReflectsWhereItTurns(PCAFrame):
    """Determinant -1 passes as a rotation; canonical forms are equal all the same."""

    def poses(self, clouds):
        pose = super().poses(clouds)
        return Pose(mirrored(pose.element), pose.log_probs, candidates=mirrored(pose.candidates))


class ListsReflections(PCAFrame):
    """The chosen pose is a rotation, the last one listed is none."""

    def poses(self, clouds):
        pose = super().poses(clouds)
        value = torch.cat([pose.candidates.value[:, :-1], mirrored(pose.candidates).value[:, -1:]], 1)
        return Pose(pose.element, pose.log_probs, candidates=Element(self.group, value))


class Framed(VectorNeuronCanonicalizer):
    """A learned frame by Gram-Schmidt."""

    def poses(self, clouds):
        said = self.network(clouds.points, clouds.present, clouds.points, clouds.present.sum(1))
        return Pose(self.elements(self.frames(said), clouds.centre))

    def frames(self, said):
        """Orthonormalise columns, which turn with the cloud."""
        a, b = said[..., 0], said[..., 1]
        a = a / a.norm(dim=-1, keepdim=True)
        b = b - (a * b).sum(-1, keepdim=True) * a
        b = b / b.norm(dim=-1, keepdim=True)
        return torch.stack([a, b, torch.linalg.cross(a, b)], -1)


class GramSchmidtOverRows(Framed):
    """Rows are orthonormalised: a rotation, but it mixes what turns."""

    def frames(self, said):
        return super().frames(said.mT).mT


class GramSchmidtStacksRows(Framed):
    """The frame's axes are rows: the inverse pose."""

    def frames(self, said):
        return super().frames(said).mT


class GramSchmidtNormsTheBatch(Framed):
    """Lengths are taken along another axis."""

    def frames(self, said):
        return said / said.norm(dim=0, keepdim=True)


class BiasedLinear(VectorLinear):
    """A bias is added to arrows, which does not turn."""

    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.bias = nn.Parameter(torch.zeros(outputs, 3))

    def forward(self, x):
        return super().forward(x) + self.bias.to(x)


class BiasAddedToVectors(VectorNeuronCanonicalizer):
    """One layer of the network has a bias."""

    def __init__(self, group):
        super().__init__(group)
        self.network.last = BiasedLinear(32, 3)


class BatchSizeFixed(PCAFrame):
    """Written for batches of 16."""

    def __init__(self, group, batch=16):
        super().__init__(group)
        self.register_buffer("signs", torch.ones(batch, 1, 1))

    def poses(self, clouds):
        return super().poses(CentredClouds(clouds.points * self.signs, clouds.present, clouds.centre))


class PadsTheBatch(PCAFrame):
    """Smaller batches are filled up to 16, and 16 poses returned."""

    def poses(self, clouds):
        index = torch.arange(max(16, len(clouds.points))) % max(1, len(clouds.points))
        return super().poses(clouds.select(index) if len(clouds.points) else clouds)


class CentresByMedians(PCAFrame):
    """The medians of coordinates are no centre that turns."""

    def poses(self, clouds):
        off = clouds.points.median(1).values
        pose = super().poses(clouds)
        shift = pose.element.value[..., 3] + off
        value = torch.cat([pose.element.value[..., :3], shift.unsqueeze(-1)], -1)
        return Pose(Element(self.group, value))


class FirstPointAhead(PCAFrame):
    """Signs of axes come from the side on which x is positive."""

    def poses(self, clouds):
        pose = super().poses(clouds)
        ahead = pose.candidates.value[..., 0, 0].argmax(1)
        return Pose(Element(self.group, pose.candidates.value[torch.arange(len(ahead)), ahead]))


class OrderOfTheInverse(SortedOrder):
    """Says where each place came from."""

    def forward(self, x):
        return Pose(super().forward(x).element.inverse())


class NotAPermutation(SortedOrder):
    """Two members share a place."""

    def forward(self, x):
        value = super().forward(x).element.value
        return Pose(Element(self.group, torch.cat([value[:, :1], value[:, :-1]], 1)))


CANONICALIZERS = [
    ReflectsWhereItTurns("SO3"),
    ReflectsWhereItTurns("SE3"),
    ListsReflections("SE3"),
    GramSchmidtOverRows("SO3"),
    GramSchmidtStacksRows("SE3"),
    GramSchmidtNormsTheBatch("SO3"),
    BiasAddedToVectors("SO3"),
    BatchSizeFixed("SE3"),
    PadsTheBatch("SO3"),
    CentresByMedians("SE3"),
    FirstPointAhead("SO3"),
    OrderOfTheInverse("S5"),
    NotAPermutation("S5"),
]

SEEN_IN_ANSWERS = [
    GramSchmidtOverRows("SO3"),
    GramSchmidtStacksRows("SE3"),
    GramSchmidtNormsTheBatch("SO3"),
    BiasAddedToVectors("SO3"),
    CentresByMedians("SE3"),
    FirstPointAhead("SO3"),
]
"""Those that adapted models show; mirror images have equal forms, and batches of one size are right."""
