"""Models that are not equivariant, canonicalizers that the tests choose, and what they find on pictures."""

import torch
import torch.nn.functional as F
from torch import nn

import upright
from upright import Image, Pose
from upright.canonicalizers import Canonicalizer
from upright.testing import redraw_weights

GROUPS = ["C4", "D4"]
SHAPES = [(12, 12), (13, 13), (10, 16)]


def small(group, network="group_cnn"):
    options = {"orbit": {"widths": (6, 8), "strides": (2, 2)}, "group_cnn": {"widths": (3, 4)}}[network]
    made = upright.canonicalizer(group, network, size=16, options=options)
    return redraw_weights(made, torch.Generator().manual_seed(0)).eval()


def pictures(*size):
    return lambda batch, generator: Image(torch.rand(batch, 3, *size, generator=generator))


class Known(Canonicalizer):
    """Poses that the test chooses."""

    def __init__(self, group, poses, log_probs=None):
        super().__init__(group)
        self.poses, self.log_probs = torch.as_tensor(poses), log_probs

    def forward(self, x):
        return Pose(self.group.element(self.poses[: len(x)]), self.log_probs)


class Classifier(nn.Module):
    """Features of any canvas, one number a place, so that nothing is equivariant."""

    def __init__(self, outputs=7):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.head = nn.Linear(6 * 25, outputs)

    def forward(self, x):
        features = F.adaptive_avg_pool2d(F.relu(self.norm(self.conv(x))), 5)
        return self.head(features.flatten(1))


class Dense(nn.Module):
    """A map of the size of the picture."""

    def __init__(self, channels=2, stride=1):
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 3, stride, padding=1)

    def forward(self, x):
        return self.conv(x)


class Localizer(nn.Module):
    """Coordinates in pixels: ``columns`` for each of two things."""

    def __init__(self, columns):
        super().__init__()
        self.base, self.columns = Classifier(2 * columns), columns

    def forward(self, x):
        out = self.base(x).sigmoid().view(-1, 2, self.columns)
        sides = out.new_tensor([x.shape[-1], x.shape[-2]])
        head = out[..., :2] * sides
        if self.columns == 4:
            return torch.cat([head * 0.5, head * 0.5 + out[..., 2:] * 4], -1)
        return torch.cat([head, out[..., 2:]], -1)


def spot_finder(x):
    """Find the brightest pixel: its point, its box and its mask, in the frame that is seen."""
    grey = x.mean(1)
    at = grey.flatten(1).argmax(1)
    row, column = at // grey.shape[-1], at % grey.shape[-1]
    low = torch.stack([column, row], -1).float()
    return {
        "scores": grey.mean((1, 2))[:, None],
        "point": (low + 0.5)[:, None],
        "box": torch.cat([low, low + 1], -1)[:, None],
        "mask": grey == grey.amax((1, 2), keepdim=True),
        "name": "spot",
    }


def detector(pictures):
    found = []
    for i, p in enumerate(pictures):
        one = spot_finder(p[None])
        count = 1 + i % 2  # as many boxes as it likes
        found.append({
            "boxes": one["box"][0].expand(count, 4), "labels": torch.full((count,), 3), "masks": one["mask"],
        })  # fmt: skip
    return found
