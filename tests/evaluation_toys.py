"""Toys for evaluation: pictures whose top left corner is marked, of one brightness a class.

The model is right if and only if the mark is where it belongs, and says the next class otherwise. The
canonicalizer reads the mark.
"""

import torch
from torch import nn

import upright
from upright.actions import act
from upright.canonicalizers import Pose
from upright.groups import Element

CLASSES = 10


def marked(count, height=8, width=8):
    """Pictures of class 0, 1, …: brightness class/20, a mark of 1 in the corner and 0.75 to its right."""
    labels = torch.arange(count) % CLASSES
    x = (labels / 20).view(-1, 1, 1, 1).expand(-1, 1, height, width).clone()
    x[..., 0, 0], x[..., 0, 1] = 1.0, 0.75
    return x, labels


def is_upright(x):
    return (x[:, 0, 0, 0] > 0.9) & ((x[:, 0, 0, 1] - 0.75).abs() < 0.1)


class OnlyUpright(nn.Module):
    """Right where the mark is in its place, otherwise the next class; counts the pictures that it saw."""

    def __init__(self, wrap=lambda scores: scores):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))
        self.wrap, self.seen = wrap, 0

    def forward(self, x):
        self.seen += len(x)
        number = (x[:, 0, x.shape[2] // 2, x.shape[3] // 2] * 20).round().long()
        number = torch.where(is_upright(x), number, number + 1) % CLASSES
        return self.wrap(5.0 * nn.functional.one_hot(number, CLASSES).float())


class ReadsMark(upright.Canonicalizer):
    """Turns back until the mark is in its place; ``spoil`` changes what it finds."""

    def __init__(self, group="C4", spoil=lambda number, x: number, certainty=20.0):
        super().__init__(group)
        self.spoil, self.certainty = spoil, certainty

    def forward(self, x):
        if not isinstance(x, torch.Tensor):
            poses = [self(picture[None]) for picture in x]
            return Pose(
                Element(self.group, torch.cat([p.element.value for p in poses])),
                torch.cat([p.log_probs for p in poses]),
            )
        fits = [is_upright(act(g.inverse().reshape(1), upright.Image(x)).data) for g in self.group.elements()]
        number = self.spoil(torch.stack(fits, 1).float().argmax(1), x) % self.group.order
        scores = self.certainty * nn.functional.one_hot(number, self.group.order).float()
        return Pose(Element(self.group, number), scores.log_softmax(-1))


def toy(group="C4", spoil=lambda number, x: number, wrap=lambda scores: scores, certainty=20.0, **settings):
    return upright.adapt(
        OnlyUpright(wrap), group, canonicalizer=ReadsMark(group, spoil, certainty), **settings
    )


def quick(robust, data, **settings):
    return upright.evaluate(robust, data, **{"leakage": False, "overhead": False, **settings})


def values(row):
    return [pose.accuracy.value for pose in row.poses]
