"""Wrong variants of the groups of space: each must fail the laws."""

import torch

from upright import E3, O3, SE3, SO3, Element, FullOctahedral, Octahedral


class ReflectsWhereItTurns(SO3):
    """Determinant -1 passes as a rotation."""

    def sample(self, *shape, generator=None, device=None):
        return Element(self, -super().sample(*shape, generator=generator, device=device).value)


class SamplesReflections(SO3):
    """Every other draw is a reflection."""

    def sample(self, *shape, generator=None, device=None):
        return Element(self, O3().sample(*shape, generator=generator, device=device).value)


class NeverReflects(O3):
    """The sampler of SO3."""

    def sample(self, *shape, generator=None, device=None):
        return Element(self, SO3().sample(*shape, generator=generator, device=device).value)


class Transposed(SO3):
    """Rows move instead of columns."""

    def matrix(self, g, dtype=torch.float64):
        return g.value.mT.to(dtype)


class ComposesBackwards(SO3):
    """First g, then h."""

    def compose(self, g, h):
        return Element(self, h.value @ g.value)


class HalfAngle(SO3):
    """The rotation vector's length is half the angle."""

    def exp(self, coordinates):
        return super().exp(coordinates / 2)


class ScalarFirst(SO3):
    """The quaternion on the way to the logarithm has its scalar first."""

    def log(self, g):
        return super().log(self.from_quaternion(self.quaternion(g).roll(1, -1)))


class LogOfTheInverse(SO3):
    """The axis points the other way."""

    def log(self, g):
        return -super().log(g)


class LeftHanded(SO3):
    """Generators turn clockwise."""

    def generators(self, dtype=torch.float64):
        return -super().generators(dtype)


class ForgetsHands(O3):
    """Opposite handedness is not apart."""

    def distance(self, g, h):
        return self.angle(~g @ h)


class SaysPlusOne(O3):
    """Every determinant is said to be +1."""

    def determinant(self, g):
        return torch.ones(g.shape, dtype=torch.float64)


class Scaled(SO3):
    """Matrices that are not orthogonal."""

    def rotation(self, g):
        return 1.01 * g.value


class ForgetsToTurnTheShift(SE3):
    """Shifts add."""

    def compose(self, g, h):
        turn, shift = g.value[..., :3] @ h.value[..., :3], g.value[..., 3:] + h.value[..., 3:]
        return Element(self, torch.cat([turn, shift], -1))


class NegatesTheShift(SE3):
    """The inverse does not turn the shift back."""

    def inverse(self, g):
        return Element(self, torch.cat([g.value[..., :3].mT, -g.value[..., 3:]], -1))


class ShiftOfTheLogarithm(SE3):
    """The logarithm gives the shift as it is."""

    def log(self, g):
        return torch.cat([self.translation(g), self.rotvec(g)], -1)


class DistanceOfTheInverses(SE3):
    """Invariant on the wrong side."""

    def distance(self, g, h):
        return super().distance(~g, ~h)


class SaysItDoesNotShift(E3):
    """No translation."""

    def translation(self, g):
        return torch.zeros(*g.shape, 3, dtype=torch.float64)


class WrongTable(Octahedral):
    """One entry of the table is another one."""

    def compose(self, g, h):
        number = super().compose(g, h).value
        return Element(self, torch.where((g.value == 5) & (h.value == 7), (number + 1) % 24, number))


class OwnInverses(Octahedral):
    """Every element is its own inverse."""

    def inverse(self, g):
        return g


class MirrorsInsteadOfInverting(FullOctahedral):
    """Reflections mirror x: these do not commute with rotations, so that the table is another."""

    def rotation(self, g):
        mirror = torch.ones(*g.shape, 3, dtype=torch.float64)
        mirror[..., 0] = self.determinant(g)
        proper = Octahedral().rotation(Octahedral().element(g.value % 24))
        return proper * mirror.unsqueeze(-2)


class LosesTheHand(FullOctahedral):
    """Two reflections make a reflection."""

    def compose(self, g, h):
        both = super().compose(g, h).value % 24
        return Element(self, both + 24 * ((g.value // 24) | (h.value // 24)))


GROUPS = [
    mutant()
    for mutant in (
        ReflectsWhereItTurns, SamplesReflections, NeverReflects, Transposed, ComposesBackwards, HalfAngle,
        ScalarFirst, LogOfTheInverse, LeftHanded, ForgetsHands, SaysPlusOne, Scaled, ForgetsToTurnTheShift,
        NegatesTheShift, ShiftOfTheLogarithm, DistanceOfTheInverses, SaysItDoesNotShift, WrongTable,
        OwnInverses, MirrorsInsteadOfInverting, LosesTheHand,
    )
]  # fmt: skip
