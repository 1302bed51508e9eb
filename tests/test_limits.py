"""Unusual inputs: mixed sizes, one picture, none, half precision, autocast, and very large pictures."""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

import upright
from upright import Boxes, Mask
from upright.nets import thumbnail as thumbnails
from upright.nets.thumbnail import thumbnail
from upright.testing import redraw_weights

C4 = upright.parse_group("C4").elements()
LOW = [torch.float16, torch.bfloat16]
SIZES = [(24, 32), (40, 28), (36, 36)]
MB = 1e6


class Classifier(nn.Sequential):
    """Scores of five classes; of a list, row by row."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 8, 3, 2, 1), nn.GELU(), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(72, 5)
        )

    def forward(self, x):
        rows = x if isinstance(x, torch.Tensor) else [super(Classifier, self).forward(p[None]) for p in x]
        return super().forward(x) if rows is x else torch.cat(rows)


class Dense(nn.Module):
    """Four soft masks; of a list, a list."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x):
        return self.conv(x) if isinstance(x, torch.Tensor) else [self.conv(p[None])[0] for p in x]


class Detector(nn.Module):
    """Boxes on whole pixels, so that moving them rounds nothing, and scores; of a list, a list."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 5, 2)

    def forward(self, images):
        return [self.found(image) for image in images]

    def found(self, image):
        seen = nn.functional.adaptive_avg_pool2d(self.conv(image[None]), 1).view(3, 4)
        sides = seen.new_tensor([image.shape[2], image.shape[1]])
        corners = (seen.sigmoid().view(3, 2, 2).sort(1).values * sides).round()
        return {"boxes": corners.flatten(1), "scores": seen.mean(1)}


OUTPUTS = {"classifier": "logits", "dense": "mask", "detector": {"boxes": "boxes"}}


@cache
def model(name):
    made = {"classifier": Classifier, "dense": Dense, "detector": Detector}[name]()
    return redraw_weights(made, torch.Generator().manual_seed(1)).eval().requires_grad_(False)


@cache
def canonicalizer(name):
    if name == "default":
        return redraw_weights(upright.canonicalizer("C4"), torch.Generator().manual_seed(2)).eval()
    return upright.load_canonicalizer(name).eval()


def adapted(name, c, dtype=torch.float32, **settings):
    made = upright.adapt(model(name), canonicalizer=canonicalizer(c), outputs=OUTPUTS[name], **settings)
    if dtype == torch.float32:
        return made
    lowered = type(model(name))().eval().requires_grad_(False)
    lowered.load_state_dict(model(name).state_dict())
    return made.replace(model=lowered.to(dtype))


def pictures(count=3, dtype=torch.float32):
    """Return smooth pictures of several sizes, on which poses are decided."""
    draws = torch.Generator().manual_seed(3)
    coarse = [torch.rand(1, 3, 4, 4, generator=draws) for _ in range(count)]
    shown = [nn.functional.interpolate(x, SIZES[i % 3], mode="bicubic")[0] for i, x in enumerate(coarse)]
    return [x.to(dtype) for x in shown]


def moved(name, g, entry, size):
    if name == "classifier":
        return entry
    if name == "dense":
        return upright.act(g, Mask(entry)).data
    return {**entry, "boxes": upright.act(g, Boxes(entry["boxes"], size=size)).data}


def assert_equal(found, expected):
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected)
    else:
        assert torch.equal(found, expected)


def dtypes(output):
    leaves, _ = torch.utils._pytree.tree_flatten(output)
    return [leaf.dtype for leaf in leaves]


def assert_exact(name, robust, given):
    """Turn every picture by every element of the group: the results turn with it, bit for bit."""
    run = robust.run(given)
    out, count = run.output, len(given)
    assert dtypes(out) == dtypes(robust.model(given))
    assert len(out) == count
    for g in C4[1:]:
        found = robust.run(stacked([upright.turn(g, x) for x in given], given))
        assert found.pose.element.equals(g.expand(count) @ run.pose.element).all()
        for a, b, x in zip(found.output, out, given, strict=True):
            assert_equal(a, moved(name, g, b, tuple(x.shape[-2:])))
    ready = stacked([upright.turn(~g, x) for g, x in zip(run.pose.element, given, strict=True)], given)
    for a, b in zip(robust(ready), robust.model(ready), strict=True):
        assert_equal(a, b)  # the pose is the identity: the model's own bits


def stacked(pictures, like):
    return pictures if isinstance(like, list) else torch.stack(pictures)


C = pytest.mark.parametrize("c", ["default", "photo-c4"])
LOWERED = pytest.mark.parametrize(
    ("c", "dtype"),
    [("default", torch.float16), ("default", torch.bfloat16), ("photo-c4", torch.bfloat16)],
    ids=str,
)
NAMES = pytest.mark.parametrize("name", list(OUTPUTS))


@C
@NAMES
def test_lists_of_mixed_sizes_answer_as_their_pictures_alone(name, c):
    robust, given = adapted(name, c), pictures()
    assert_exact(name, robust, given)
    for entry, x in zip(robust(given), given, strict=True):
        assert_equal(entry, robust([x])[0])


@C
@NAMES
def test_a_batch_of_one(name, c):
    x = pictures(1)[0]
    assert_exact(name, adapted(name, c), [x] if name == "detector" else x[None])


@C
@pytest.mark.parametrize("mode", ["canonical", "top_k", "average"])
@pytest.mark.parametrize("dtype", [torch.float32, *LOW], ids=str)
def test_an_empty_batch_gives_what_the_bare_model_gives(c, mode, dtype):
    for name in ("classifier", "dense"):
        robust = adapted(name, c, dtype, mode=mode)
        none = torch.zeros(0, 3, 24, 32, dtype=dtype)
        out, bare = robust(none), robust.model(none)
        assert out.shape == bare.shape
        assert out.dtype == bare.dtype == dtype
        assert robust.run(none).passes.shape == (0,)
    assert adapted("detector", c, dtype)([]) == []


@LOWERED
@NAMES
def test_half_precision(name, c, dtype):
    robust, given = adapted(name, c, dtype), pictures(2, dtype)
    assert all(d == dtype for d in dtypes(robust(given)))
    assert_exact(name, robust, given)
    exact = robust.pose([x.double() for x in given])
    assert torch.allclose(robust.pose(given).log_probs, exact.log_probs, atol=1e-4)


@pytest.mark.parametrize("dtype", LOW, ids=str)
@pytest.mark.parametrize("mode", ["top_k", "average"])
def test_averages_keep_half_precision(mode, dtype):
    x = pictures(3, dtype)[2][None]
    for name in ("classifier", "dense"):
        robust = adapted(name, "default", dtype, mode=mode)
        out = robust(x)
        assert out.dtype == dtype
        expected = adapted(name, "default", mode=mode)(x.float())
        torch.testing.assert_close(out.float(), expected, rtol=0.05, atol=0.05)


@LOWERED
@NAMES
def test_autocast(name, c, dtype):
    robust, given = adapted(name, c), pictures(2)
    expected = robust.pose(given).log_probs
    with torch.autocast("cpu", dtype):
        assert dtype in dtypes(robust(given))
        assert_exact(name, robust, given)
        assert torch.equal(robust.pose(given).log_probs, expected)


@pytest.mark.parametrize("size", [(700, 1040), (1031, 703)], ids=str)
def test_large_pictures_are_shrunk_band_by_band(size, monkeypatch):
    counts = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    x = counts.double().requires_grad_()
    found = thumbnail(x, 16)
    weights = torch.rand(found.shape, dtype=torch.float64)
    (slope,) = torch.autograd.grad((found * weights).sum(), x)
    monkeypatch.setattr(sys.modules[thumbnails.__module__], "_BAND", 10_000)
    whole = thumbnail(x, 16)
    torch.testing.assert_close(found, whole, rtol=1e-12, atol=1e-9)
    torch.testing.assert_close(slope, torch.autograd.grad((whole * weights).sum(), x)[0])
    small = thumbnail(counts, 16, torch.float32)
    assert small.dtype == torch.float32
    torch.testing.assert_close(small, whole.detach().float(), rtol=1e-4, atol=1e-3)


def test_integers_count_to_255_without_standardisation():
    c = redraw_weights(upright.canonicalizer("C4", standardize=False)).eval()
    counts = torch.randint(0, 256, (2, 3, 80, 100), dtype=torch.uint8)
    torch.testing.assert_close(c(counts).log_probs, c(counts / 255).log_probs)


MEASURE = """
import ctypes, json, sys
import numpy as np, torch, upright
from PIL import Image
torch.set_num_threads(1)

def status(name):
    lines = open("/proc/self/status").read().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))

def extra(call):
    ctypes.CDLL(None).malloc_trim(0)
    open("/proc/self/clear_refs", "w").write("5")  # the peak starts anew
    before = status("VmRSS")
    out = call()
    return out, status("VmHWM") - before

canonicalizers = {name: upright.load_canonicalizer(name) for name in ["photo-c4"]}
canonicalizers["C4"] = upright.canonicalizer("C4").eval()
for c in canonicalizers.values():  # what the first call sets up
    c(torch.rand(1, 3, 1100, 1600))
corner = lambda p: p[:, :, :700, :900].contiguous().float().mean((2, 3))
found = []
for case, name, height, width, turns in json.loads(sys.argv[1]):
    c = canonicalizers[name]
    robust = upright.adapt(corner, canonicalizer=c)
    x = np.random.default_rng(0).integers(0, 256, (height // 500, width // 500, 3), dtype=np.uint8)
    x = np.asarray(Image.fromarray(x).resize((width, height), Image.Resampling.BILINEAR))
    growth, poses, outs = [], [], []
    for k in range(turns):
        given = np.ascontiguousarray(np.rot90(x, k))
        with torch.no_grad():
            if case == "pil":
                given = Image.fromarray(given)
                (out, pose), more = extra(lambda: upright.straighten(given, c))
                out = torch.from_numpy(np.array(out))
            else:
                given = torch.from_numpy(given).permute(2, 0, 1)[None].contiguous().to(getattr(torch, case))
                run, more = extra(lambda: robust.run(given))
                out, pose = run.output, run.pose
        growth.append(more / given.nbytes if case != "pil" else more / (3 * height * width))
        poses.append(int(pose.element.value))
        outs.append(out)
    found.append([growth, poses, all(torch.equal(out, outs[0]) for out in outs)])
print(json.dumps(found))
"""

CASES = [
    ("uint8", "photo-c4", 4000, 6000, 2, 1.0),
    ("uint8", "C4", 4001, 5999, 2, 1.0),
    ("float32", "photo-c4", 4000, 6000, 2, 1.0),
    ("pil", "photo-c4", 4000, 6000, 1, 3.0),  # Pillow's bytes, twice, and an array of them
]
"""Picture, canonicalizer, height, width, how many turned copies, copies of the picture that are allowed."""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks of memory are read from /proc")
def test_large_pictures_need_little_memory():
    """Pose and turn need one copy of the picture as it is, and 60 MB for the network and the small copy."""
    cases = json.dumps([case[:-1] for case in CASES])
    done = subprocess.run([sys.executable, "-c", MEASURE, cases], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for case, (growth, poses, same) in zip(CASES, json.loads(done.stdout), strict=True):
        kind, _, height, width, turns, share = case
        print(kind, height, width, [round(more, 2) for more in growth], poses)
        assert len(set(poses)) == turns
        assert same
        own = 3 * height * width * (4 if kind == "float32" else 1)
        assert 0.5 < max(growth) <= share + 60 * MB / own, (case, growth)  # a turned copy was made, and seen
