"""Small services whose answers are known, and servers on loopback that run them."""

import contextlib
import io
import sys
import threading
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

import upright
from upright.integrations import LoadedModel, SquarePreprocess
from upright.serve import Limits, Service, address_of, listen, make_server

SIZE = 16
NAMES = ("sky", "ground")


class Corners(nn.Module):
    """Knows where red lies: not equivariant."""

    def forward(self, x):
        return 50 * torch.stack([x[:, 0, :4].mean((1, 2)), x[:, 0, -4:].mean((1, 2))], 1)


class Gate(Corners):
    """Waits until it is opened; counts how often it ran, and how often at once."""

    def __init__(self):
        super().__init__()
        self.opened, self.lock = threading.Event(), threading.Lock()
        self.now = self.most = self.runs = 0

    def forward(self, x):
        with self.lock:
            self.now += 1
            self.runs += 1
            self.most = max(self.most, self.now)
        assert self.opened.wait(20)
        with self.lock:
            self.now -= 1
        return super().forward(x)


def until(condition, seconds=15.0):
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.005)


class TopOnly(nn.Module):
    """Marks red, but only in the upper half: not equivariant. Returns masks of classes."""

    def forward(self, x):
        marked = (x[:, 0] > 0.6).long()
        marked[:, x.shape[2] // 2 :] = 0
        return marked


class Finder(nn.Module):
    """Finds the box around what `TopOnly` marks, in lists of pictures, as detectors of torchvision do."""

    def forward(self, pictures):
        return [self.one(x) for x in pictures]

    def one(self, x):
        mask = TopOnly()(x[None])[0].bool()
        rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
        if not len(rows):
            return self.found(torch.zeros(0, 4), mask)
        corners = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        return self.found(torch.stack(corners)[None].float(), mask)

    def found(self, boxes, mask):
        points = boxes.view(-1, 2, 2).mean(1, keepdim=True).repeat(1, 17, 1)  # as many as COCO has
        return {
            "boxes": boxes,
            "labels": torch.ones(len(boxes), dtype=torch.long),
            "scores": torch.full((len(boxes),), 0.9),
            "masks": mask[None].repeat(len(boxes), 1, 1),
            "keypoints": torch.cat([points, torch.ones_like(points[..., :1])], -1),
        }


FOUND = {"boxes": "boxes", "masks": "mask", "keypoints": "points"}


def preprocess(size=SIZE):
    return SquarePreprocess(size, (0.0,) * 3, (1.0,) * 3)


def service(model=None, *, outputs=None, task="classification", limits=None, names=NAMES, **options):
    """A service behind a canonicalizer that is always right on pictures of `photo`."""
    model = Corners() if model is None else model
    sys.path[:0] = [p for p in [str(Path(__file__).parent)] if p not in sys.path]
    made = upright.canonicalizer("C4", "cli_work:Toward", size=SIZE, standardize=False)
    robust = upright.adapt(model, "C4", canonicalizer=made, outputs=outputs)
    loaded = LoadedModel(model, preprocess(), names, reference="toy")
    return Service(robust.eval(), loaded, task=task, limits=limits or Limits(workers=2), **options)


def photo(width=48, height=48, seed=0):
    """Red above, blue below, with noise."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 60, (height, width, 3))
    pixels[: height // 2, :, 0] += 180
    pixels[height // 2 :, :, 2] += 180
    return Image.fromarray(pixels.astype(np.uint8))


def encoded(picture, form="PNG", **options):
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


@contextlib.contextmanager
def running(made, **options):
    """Run a service on a free port, in a thread; yields the address and the server."""
    server = make_server(made, **options)
    listening = listen("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        while not server.started:
            time.sleep(0.005)
            assert thread.is_alive()
        yield address_of(listening), server
    finally:
        server.should_exit = True
        thread.join(20)
        listening.close()
        assert not thread.is_alive()
