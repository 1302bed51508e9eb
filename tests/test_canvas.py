"""Non-square pictures under every canvas policy: what the model sees, and what comes back."""

import pytest
import torch
import torch.nn.functional as F

from adapter_toys import GROUPS, SHAPES, Classifier, Known, pictures, small, spot_finder
from cases import name
from upright import Adapted, Boxes, OrientedBoxes, act, parse_group
from upright.adapter.canvas import CANVASES
from upright.testing import assert_adapted


@pytest.mark.parametrize("canvas", CANVASES)
@pytest.mark.parametrize("group", GROUPS)
def test_non_square_pictures_with_every_canvas_policy(group, canvas):
    """With one picture a batch no policy has anything to do; mixed batches follow what it says."""
    assert_adapted(Classifier(), small(group), pictures(10, 16), canvas=canvas, batch=1, trials=4)
    tolerance = 1e-5 if canvas == "bucket" else 1e9
    c = small(group)
    adapted = Adapted(Classifier().eval(), c, canvas=canvas)
    x = torch.rand(6, 3, 10, 16)
    swaps = c.group.quarter_turns(c(x).element) % 2 == 1
    assert swaps.any()
    assert not swaps.all()  # the batch does mix
    together = adapted(x)
    alone = torch.cat([adapted(p[None]) for p in x])
    assert (together - alone).abs().max() <= tolerance


@pytest.mark.parametrize("canvas", CANVASES)
def test_canvas_policies_do_what_they_say(canvas):
    seen = []

    def model(x):
        seen.append(x.clone())
        return x.mean(1)

    x = torch.rand(3, 3, 4, 6)
    adapted = Adapted(model, Known("C4", [0, 1, 2]), canvas=canvas, outputs="mask")
    out = adapted(x)
    back = torch.rot90(x[1], -1, (1, 2))  # 6×4, upright
    if canvas == "bucket":
        assert [tuple(s.shape) for s in seen] == [(2, 3, 4, 6), (1, 3, 6, 4)]
        assert torch.equal(seen[1][0], back)
    else:
        assert [tuple(s.shape) for s in seen] == [(3, 3, 6, 6)]
        if canvas == "pad":
            assert torch.equal(seen[0][0, :, :4], x[0])
            assert seen[0][0, :, 4:].abs().max() == 0
            assert torch.equal(seen[0][2, :, :, :4], back)
        else:
            expected = F.interpolate(back[None], (6, 6), mode="bilinear", antialias=True)
            torch.testing.assert_close(seen[0][2:], expected)
    expected = x.mean(1)  # the model is equivariant: whatever the pose, the mask lies on the picture
    assert out.shape == expected.shape
    torch.testing.assert_close(out, expected, atol=1e-6 if canvas != "stretch" else 0.5, rtol=0)


@pytest.mark.parametrize("canvas", ["bucket", "pad"])
@pytest.mark.parametrize("size", [(8, 12), (9, 15)], ids=name)
def test_dense_outputs_of_mixed_non_square_batches(canvas, size):
    x = torch.rand(4, 3, *size)
    adapted = Adapted(lambda p: p[:, :1] * 2, Known("D4", [0, 3, 6, 5]), canvas=canvas, outputs="image")
    assert torch.equal(adapted(x), x[:, :1] * 2)
    labels = Adapted(lambda p: p[:, 0] > 0.5, Known("D4", [0, 3, 6, 5]), canvas=canvas, outputs="mask")
    assert torch.equal(labels(x), x[:, 0] > 0.5)


@pytest.mark.parametrize("canvas", ["bucket", "pad"])
@pytest.mark.parametrize("size", SHAPES, ids=name)
def test_all_kinds_land_on_the_spot_of_the_users_picture(size, canvas):
    kinds = {"point": "points", "box": Boxes, "mask": "mask", "scores": "logits"}
    x = torch.rand(8, 3, *size)
    out = Adapted(spot_finder, Known("D4", torch.arange(8)), outputs=kinds, canvas=canvas)(x)
    expected = spot_finder(x)
    assert out["name"] == "spot"
    for key in ("point", "box", "mask"):
        assert torch.equal(out[key], expected[key]), key


@pytest.mark.parametrize("canvas", ["bucket", "pad"])
def test_oriented_boxes_come_back(canvas):
    seen = []

    def model(x):
        seen.extend(tuple(p.shape[-2:]) for p in x)
        return torch.tensor([[[3.0, 2.0, 4.0, 1.0, 0.3]]]).expand(len(x), 1, 5)

    out = Adapted(model, Known("C4", [0, 1]), outputs="oriented_boxes", canvas=canvas)(
        torch.rand(2, 3, 6, 10)
    )
    g = parse_group("C4").element(1)
    expected = act(g, OrientedBoxes(torch.tensor([[3.0, 2.0, 4.0, 1.0, 0.3]]), size=(10, 6)))
    torch.testing.assert_close(out[1], expected.data)
    assert out[0].tolist() == [pytest.approx([3.0, 2.0, 4.0, 1.0, 0.3])]


def test_stretched_detections_come_back_to_the_canvas():
    def model(x):
        height, width = x.shape[-2:]
        box = torch.tensor([[0.0, 0, width, height]])
        return [{"boxes": box, "masks": torch.ones(height, width)} for _ in x]

    outputs = {"boxes": "boxes", "masks": "mask"}
    out = Adapted(model, Known("C4", [0, 1]), outputs=outputs, canvas="stretch")(torch.rand(2, 3, 6, 10))
    for entry in out:
        torch.testing.assert_close(entry["boxes"], torch.tensor([[0.0, 0, 10, 6]]))
        assert entry["masks"].shape == (6, 10)
