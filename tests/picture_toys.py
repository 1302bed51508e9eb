"""Pictures in plain data, one with a rectangle that is found by brute force, and what tells their pose."""

import base64
import io

import numpy as np
import torch
from PIL import Image as Pillow

import upright
from upright import DiscreteCanonicalizer
from upright.nets import OrbitScorer
from upright.testing import redraw_weights

GROUPS = ["C4", "D4"]


def picture(height=30, width=40, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def canonicalizer(group):
    judge = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 1))
    return redraw_weights(DiscreteCanonicalizer(OrbitScorer(judge, group), group, size=16)).eval()


def elements(group):
    return upright.parse_group(group).elements()


def turned(group):
    """One picture under every element."""
    return [upright.turn(g, picture()) for g in elements(group)]


def marked(height=30, width=40):
    """A picture with one white rectangle of rows 3…8, columns 10…22 on darker noise."""
    x = np.minimum(picture(height, width), 250)
    x[3:8, 10:22] = 255
    return x


def corners(x):
    rows, columns = np.nonzero((x == 255).all(-1))
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def encoded(x, kind="PNG"):
    """The file of a picture in base64."""
    stream = io.BytesIO()
    Pillow.fromarray(x).save(stream, kind)
    return base64.b64encode(stream.getvalue()).decode()
