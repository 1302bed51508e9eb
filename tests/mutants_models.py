"""Broken networks, canonicalizers and adapters, after real defects: each must be caught. See `mutants`."""

import dataclasses
import math

import torch
from torch import nn

from upright import (
    IdentityCanonicalizer,
    Image,
    Pose,
    act,
)
from upright.adapter import Adapted
from upright.canonicalizers import Canonicalizer
from upright.canonicalizers.estimators import gumbel
from upright.nets import GroupCNN

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
