"""Batches of differently sized, padded pictures: a padded picture gets the answer that it gets alone."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import upright
from upright import Boxes
from upright.adapter import Adapted, Signature
from upright.testing import redraw_weights

BOXES = partial(Boxes, format="cxcywh", normalized=True)
SIGNATURE = Signature(
    inputs={"pixel_values": "image", "labels": {"boxes": BOXES, "masks": "mask"}},
    outputs={"boxes": BOXES, "masks": "mask", "logits": "logits"},
    padding="pixel_mask",
)
CANVAS = (24, 32)
SIZES = [(24, 16), (12, 20), (24, 16), (20, 12), (9, 31)]


class Detector(nn.Module):
    """Boxes as fractions of what the mask leaves, masks at a quarter of the size; notes what it is given."""

    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(3, 6, 3, padding=1)
        self.head = nn.Linear(6 * 9, 8)
        self.seen = []

    def forward(self, pixel_values, pixel_mask=None, labels=None):
        self.seen.append((tuple(pixel_values.shape), pixel_mask, labels))
        maps = F.relu(self.body(pixel_values))
        boxes = self.head(F.adaptive_avg_pool2d(maps, 3).flatten(1)).sigmoid().view(-1, 2, 4)
        return {
            "boxes": boxes,
            "masks": F.avg_pool2d(maps[:, :2], 4, ceil_mode=True),
            "logits": boxes.sum(-1),
        }


def small(group="D4"):
    made = upright.canonicalizer(group, "group_cnn", size=16, options={"widths": (3, 4)})
    return redraw_weights(made, torch.Generator().manual_seed(0)).eval()


def adapted():
    model = redraw_weights(Detector(), torch.Generator().manual_seed(1))
    return Adapted(model, small(), signature=SIGNATURE)


def padded(pictures):
    batch, mask = (
        torch.zeros(len(pictures), 3, *CANVAS),
        torch.zeros(len(pictures), *CANVAS, dtype=torch.long),
    )
    for i, picture in enumerate(pictures):
        height, width = picture.shape[-2:]
        batch[i, :, :height, :width] = picture
        mask[i, :height, :width] = 1
    return {"pixel_values": batch, "pixel_mask": mask}


@pytest.fixture
def pictures():
    return [torch.rand(3, *size) for size in SIZES]


def test_a_padded_picture_gets_the_answer_that_it_gets_alone(pictures):
    robust = adapted()
    together = robust(**padded(pictures))
    assert together["masks"].shape == (5, 2, 6, 8)  # those of the padded canvas
    for i, picture in enumerate(pictures):
        alone = robust(pixel_values=picture[None])
        for name in ("boxes", "logits"):
            torch.testing.assert_close(together[name][i], alone[name][0], atol=1e-6, rtol=1e-5)
        height, width = alone["masks"].shape[-2:]
        mask = together["masks"][i]
        torch.testing.assert_close(mask[:, :height, :width], alone["masks"][0], atol=1e-6, rtol=1e-5)
        assert mask[:, height:].abs().sum() == 0
        assert mask[:, :, width:].abs().sum() == 0


def test_turned_pictures_in_other_paddings_get_the_turned_answer(pictures):
    robust = adapted()
    first = [p for p in pictures if max(p.shape[-2:]) <= 24]
    g = robust.group.element(torch.tensor([1, 6, 3, 5][: len(first)]))
    turned = [upright.act(g[i], upright.Image(p)).data for i, p in enumerate(first)]
    before, after = robust(**padded(first)), robust(**padded(turned))
    assert torch.equal(before["logits"], after["logits"])
    for i, p in enumerate(first):
        size = tuple(p.shape[-2:])
        expected = upright.act(g[i], BOXES(before["boxes"][i], size=size)).data
        torch.testing.assert_close(after["boxes"][i], expected, atol=1e-6, rtol=1e-5)
        rows, columns = -(-size[0] // 4), -(-size[1] // 4)
        mask = upright.act(g[i], upright.Mask(before["masks"][i, :, :rows, :columns])).data
        assert torch.equal(after["masks"][i, :, : mask.shape[-2], : mask.shape[-1]], mask)


def test_the_model_sees_pictures_of_one_upright_size_together(pictures):
    robust = adapted()
    sizes = {tuple(p.shape[-2:]) for p in robust.canonicalize(**padded(pictures))[0]}
    robust(**padded(pictures))
    seen = robust.model.seen
    assert {shape[-2:] for shape, _, _ in seen} == sizes
    assert len(seen) == len(sizes) <= len(SIZES)
    assert all(mask.shape == (shape[0], *shape[-2:]) and bool(mask.all()) for shape, mask, _ in seen)


def test_without_padding_the_model_is_called_once_as_it_is():
    x = torch.rand(3, 3, *CANVAS)
    call = {"pixel_values": x, "pixel_mask": torch.ones(3, *CANVAS, dtype=torch.long)}
    model = redraw_weights(Detector(), torch.Generator().manual_seed(1))
    still = Adapted(model, upright.IdentityCanonicalizer("C4"), signature=SIGNATURE)
    found, expected = still(**call), model(**call)
    assert [shape for shape, _, _ in model.seen] == [(3, 3, *CANVAS)] * 2
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_targets_become_those_of_the_picture_without_its_padding(pictures):
    model = redraw_weights(Detector(), torch.Generator().manual_seed(1))
    still = Adapted(model, upright.IdentityCanonicalizer("C4"), signature=SIGNATURE)
    pictures = [pictures[1], torch.rand(3, 24, 32)]
    labels = [
        {"boxes": torch.tensor([[0.25, 0.25, 0.1, 0.2]]), "masks": torch.ones(1, *CANVAS), "class_labels": i}
        for i in range(2)
    ]
    still(**padded(pictures), labels=labels)
    seen = {shape[-2:]: given[0] for shape, _, given in model.seen}
    torch.testing.assert_close(
        seen[12, 20]["boxes"], torch.tensor([[0.25 * 32 / 20, 0.25 * 2, 0.1 * 32 / 20, 0.2 * 2]])
    )
    assert seen[12, 20]["masks"].shape == (1, 12, 20)
    assert seen[12, 20]["class_labels"] == 0
    assert torch.equal(seen[24, 32]["boxes"], labels[1]["boxes"])


def test_masks_that_are_no_padding_are_refused(pictures):
    call = padded(pictures)
    call["pixel_mask"][1, 3, 3] = 0
    with pytest.raises(ValueError, match="padding must lie below and to the right of picture 1"):
        adapted()(**call)
    call["pixel_mask"] = call["pixel_mask"][:, :-1]
    with pytest.raises(ValueError, match=r"padding mask must have shape \(5, 24, 32\).*got \(5, 23, 32\)"):
        adapted()(**call)


def test_averages_over_poses_keep_to_the_canvas(pictures):
    robust = adapted().replace(mode="average", outputs={"masks": "mask", "logits": "logits"})
    out = robust(**padded(pictures))
    assert out["masks"].shape == (5, 2, 6, 8)
