"""Detectors with the interface of torchvision: lists of pictures of any size in, dictionaries out.

torchvision is not imported: its classes are known by name, its typed tensors are met by a stand-in.
"""

import sys
from functools import cache
from types import ModuleType

import pytest
import torch
from torch import nn

import upright
from upright import Boxes, Mask, Points
from upright.testing import redraw_weights

ELEMENTS = upright.parse_group("D4").elements()


@cache
def canonicalizer():
    made = upright.canonicalizer("D4", size=16, options={"widths": [6, 8], "strides": [2, 2]})
    return redraw_weights(made, torch.Generator().manual_seed(5))


class GeneralizedRCNN(nn.Module):
    """A small detector with the interface of torchvision's: named like its base class, to be recognised."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.GELU(), nn.Conv2d(8, 16, 3, 2, 1), nn.GELU()
        )
        self.head = nn.Linear(16 * 9, 4 * (4 + 3 + 6))
        self.mask = nn.Conv2d(3, 4, 3, padding=1)

    def predict(self, image):
        seen = nn.functional.adaptive_avg_pool2d(self.features(image[None].float()), 3).flatten(1)
        out = self.head(seen).sigmoid().view(4, 13)
        scale = out.new_tensor([image.shape[2], image.shape[1]])
        corners = out[:, :4].view(4, 2, 2).sort(1).values * scale
        points = torch.cat([out[:, 4:10].view(4, 3, 2) * scale, torch.ones(4, 3, 1)], -1)
        return {
            "boxes": corners.flatten(1),
            "scores": out[:, 10],
            "labels": (out[:, 11] > 0.5).long() + 1,
            "masks": self.mask(image[None].float()).sigmoid()[0][:, None],
            "keypoints": points,
        }

    def forward(self, images, targets=None):
        found = [self.predict(image) for image in images]
        if not self.training:
            return found
        if targets is None:
            raise ValueError("targets are needed while training")
        return {
            f"loss_{name}": sum(
                (one[name].flatten(1).mean(1) - wanted[name].float().flatten(1).mean(1)).square().sum()
                for one, wanted in zip(found, targets, strict=True)
            )
            for name in ("boxes", "masks", "keypoints")
        }


class AnotherDetector(nn.Module):
    """The same under a name that tells nothing."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, images):
        return self.inner(images)


KINDS = {"boxes": Boxes, "keypoints": Points}


def turned_entry(g, name, data, size):
    if name in KINDS:
        return upright.act(g, KINDS[name](data, size=size)).data
    return upright.act(g, Mask(data)).data if name == "masks" else data


@pytest.fixture
def pictures(generator):
    sizes = [(24, 32), (32, 24), (40, 40), (20, 44)]
    return [torch.rand(3, *size, generator=generator) for size in sizes]


@pytest.fixture
def detector(generator):
    return redraw_weights(GeneralizedRCNN(), generator).eval()


@pytest.mark.parametrize("route", ["by class", "by outputs"])
def test_lists_of_pictures_of_any_size(route, detector, pictures):
    settings = {}
    model = detector
    if route == "by outputs":
        model = AnotherDetector(detector)
        settings = {"outputs": {"boxes": "boxes", "masks": "mask", "keypoints": "points"}}
    robust = upright.adapt(model, "D4", canonicalizer=canonicalizer(), **settings)
    with torch.no_grad():
        out = robust(pictures)
        assert len(set(robust.pose(pictures).element.value.tolist())) > 1
        for g in ELEMENTS:
            found = robust([upright.turn(g, picture) for picture in pictures])
            for a, b, picture in zip(found, out, pictures, strict=True):
                for name in b:
                    expected = turned_entry(g, name, b[name], tuple(picture.shape[1:]))
                    same = torch.allclose if name in KINDS else torch.equal
                    assert same(a[name], expected), name
        assert (out[0]["boxes"][:, 2:] >= out[0]["boxes"][:, :2]).all()
        assert robust([]) == []


def test_the_identity_changes_no_bit_of_a_list(detector, pictures):
    still = upright.adapt(detector, "D4", canonicalizer="identity")
    with torch.no_grad():
        for a, b in zip(still(pictures), detector(pictures), strict=True):
            assert list(a) == list(b)
            assert all(torch.equal(a[name], b[name]) for name in b)


def targets_for(pictures, generator):
    made = []
    for picture in pictures:
        height, width = picture.shape[1:]
        side = torch.tensor([width, height])
        corners = torch.rand(4, 2, 2, generator=generator).sort(1).values * side
        points = torch.rand(4, 3, 2, generator=generator) * side
        masks = torch.rand(4, 1, height, width, generator=generator) > 0.5
        made.append({
            "boxes": corners.flatten(1),
            "labels": torch.ones(4, dtype=torch.long),
            "masks": masks.to(torch.uint8),
            "keypoints": torch.cat([points, torch.ones(4, 3, 1)], -1),
        })  # fmt: skip
    return made


def test_losses_of_training(detector, pictures, generator):
    robust = upright.adapt(detector, "D4", canonicalizer=canonicalizer())
    detector.train()
    targets = targets_for(pictures, generator)
    losses = robust(pictures, targets)
    assert set(losses) == {"loss_boxes", "loss_masks", "loss_keypoints"}
    for g in ELEMENTS:
        moved = [
            {name: turned_entry(g, name, data, tuple(p.shape[1:])) for name, data in t.items()}
            for t, p in zip(targets, pictures, strict=True)
        ]
        again = robust([upright.turn(g, picture) for picture in pictures], targets=moved)
        for name, loss in losses.items():
            assert torch.allclose(again[name], loss, rtol=1e-3), name
    sum(losses.values()).backward()
    assert detector.head.weight.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="targets are needed"):
        robust(pictures)


def stand_in():
    """A stand-in for ``torchvision.tv_tensors`` with the interface of its classes; it is not torchvision."""
    from enum import Enum

    module = ModuleType("torchvision.tv_tensors")

    class TVTensor(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            with torch._C.DisableTorchFunctionSubclass():
                out = func(*args, **(kwargs or {}))
            return out.as_subclass(torch.Tensor) if isinstance(out, TVTensor) else out

    class BoundingBoxFormat(Enum):
        XYXY = "XYXY"
        XYWH = "XYWH"
        CXCYWH = "CXCYWH"
        CXCYWHR = "CXCYWHR"

    def typed(name, *fields):
        def __new__(cls, data, **facts):  # noqa: N807
            made = torch.as_tensor(data).as_subclass(cls)
            for field in fields:
                setattr(made, field, facts[field])
            return made

        return type(
            name, (TVTensor,), {"__new__": __new__, "__module__": f"{module.__name__}._{name.lower()}"}
        )

    def wrap(wrappee, *, like, **facts):
        kept = {f: facts.get(f, getattr(like, f)) for f in ("format", "canvas_size") if hasattr(like, f)}
        return type(like)(wrappee, **kept)

    module.wrap, module.BoundingBoxFormat = wrap, BoundingBoxFormat
    module.Image, module.Mask = typed("Image"), typed("Mask")
    module.BoundingBoxes = typed("BoundingBoxes", "format", "canvas_size")
    module.KeyPoints = typed("KeyPoints", "canvas_size")
    return module


@pytest.fixture
def tv(monkeypatch):
    module = stand_in()
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def test_typed_tensors_go_in_and_come_out(tv, detector, pictures):
    """Boxes say their own format; what a model returns typed comes back typed, on the user's canvas."""
    seen = []

    def typed(images, targets=None):
        seen.append((images, targets))
        found = detector(images)
        form = tv.BoundingBoxFormat.CXCYWH
        for one, image in zip(found, images, strict=True):
            low, high = one["boxes"][:, :2], one["boxes"][:, 2:]
            middle = torch.cat([(low + high) / 2, high - low], -1)
            size = tuple(image.shape[1:])
            one["boxes"] = tv.BoundingBoxes(middle, format=form, canvas_size=size)
            one["masks"] = tv.Mask(one["masks"])
        return found

    named = {"boxes": "boxes", "masks": "mask", "keypoints": "points"}
    robust = upright.adapt(
        typed,
        "D4",
        canonicalizer=canonicalizer(),
        inputs={"images": "image", "targets": {"boxes": "boxes"}},
        outputs=named,
    )
    plain = upright.adapt(detector, "D4", canonicalizer=canonicalizer())
    images = [tv.Image(picture) for picture in pictures]
    form = tv.BoundingBoxFormat.XYWH
    whole = []
    for picture in pictures:
        height, width = picture.shape[1:]
        box = tv.BoundingBoxes([[0.0, 0.0, width, height]], format=form, canvas_size=(height, width))
        whole.append({"boxes": box})
    with torch.no_grad():
        out, expected = robust(images, targets=whole), plain(pictures)
    inner, targets = seen[0]
    for image, given, one, other, picture in zip(inner, targets, out, expected, pictures, strict=True):
        assert type(image) is tv.Image
        assert type(given["boxes"]) is tv.BoundingBoxes
        assert given["boxes"].canvas_size == tuple(image.shape[1:])
        assert given["boxes"].tolist() == [[0.0, 0.0, image.shape[2], image.shape[1]]]
        assert type(one["boxes"]) is tv.BoundingBoxes
        assert one["boxes"].canvas_size == tuple(picture.shape[1:])
        boxes = one["boxes"].as_subclass(torch.Tensor)
        corners = torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], -1)
        assert torch.allclose(corners, other["boxes"], atol=1e-4)
        assert type(one["masks"]) is tv.Mask
        assert torch.equal(one["masks"].as_subclass(torch.Tensor), other["masks"])
        assert type(one["keypoints"]) is torch.Tensor


def test_boxes_that_are_turned_themselves_are_refused(tv, detector, pictures):
    form = tv.BoundingBoxFormat.CXCYWHR
    boxes = tv.BoundingBoxes([[5.0, 5.0, 2.0, 2.0, 10.0]], format=form, canvas_size=(24, 32))
    robust = upright.adapt(detector, "D4", canonicalizer=canonicalizer())
    with pytest.raises(ValueError, match="BoundingBoxes must be one of xyxy"):
        robust(pictures[:1], [{"boxes": boxes}])
