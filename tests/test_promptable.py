"""Promptable segmentation: prompts and masks in the user's frame, pictures padded or not, embedded or not."""

from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch

import upright
from upright import Boxes, Image, Points
from upright.actions import registry
from upright.groups import PlanarGroup
from upright.integrations.signatures import signature_of
from upright.testing import redraw_weights
from zoo.promptable import MODELS, SIDE, prompts

pytest.importorskip("transformers")

ROOT = Path(__file__).resolve().parents[1]
STRIDE = 4
PADS = ("SamModel", "SamHQModel")
"""Models whose processor pads; those of the others stretch."""
EXTENTS = [(64, 64), (48, 64), (64, 40), (32, 64)]
"""What four photos of several shapes fill of the canvas."""


@cache
def model_of(name):
    return redraw_weights(MODELS[name](), torch.Generator().manual_seed(1)).eval()


@cache
def adapted(name, group, network="orbit"):
    options = {} if network == "identity" else {"size": 16, "options": {"widths": [6, 8], "strides": [2, 2]}}
    canonicalizer = upright.canonicalizer(group, network, **options)
    redraw_weights(canonicalizer, torch.Generator().manual_seed(2))
    return upright.adapt(model_of(name), group, canonicalizer=canonicalizer)


def padded(photos):
    """Put photos in the top left corner of the canvas, as SAM's processor does."""
    canvas = torch.zeros(len(photos), 3, SIDE, SIDE)
    for row, photo in zip(canvas, photos, strict=True):
        row[:, : photo.shape[1], : photo.shape[2]] = photo
    return canvas


def photos_with_prompts(generator):
    photos = [torch.rand(3, *extent, generator=generator) for extent in EXTENTS]
    given = [prompts(1, extent, generator) for extent in EXTENTS]
    return photos, {name: torch.cat([one[name] for one in given]) for name in given[0]}


def arguments(photos, given):
    sizes = torch.tensor([photo.shape[1:] for photo in photos])
    return {"pixel_values": padded(photos), "reshaped_input_sizes": sizes, **given}


def turned(g, photos, given):
    """Turn photos and prompts one by one, without padding; masks of low resolution by their own cells."""
    moved = {name: value.clone() for name, value in given.items()}
    for i, photo in enumerate(photos):
        size = tuple(photo.shape[1:])
        moved["input_points"][i] = upright.act(g, Points(given["input_points"][i], size=size)).data
        moved["input_boxes"][i] = upright.act(g, Boxes(given["input_boxes"][i], size=size)).data
        moved["input_masks"][i] = low_resolution(g, given["input_masks"][i], size)
    return [upright.turn(g, photo) for photo in photos], moved


def low_resolution(g, masks, size):
    """Turn the part of masks that a photo fills; the rest is transposed with it, if sides swap."""
    rows, columns = size[0] // STRIDE, size[1] // STRIDE
    part = upright.turn(g, masks[..., :rows, :columns].reshape(-1, rows, columns))
    rest = masks.transpose(-1, -2) if int(g.value) % 2 else masks
    whole = rest.clone().reshape(-1, *rest.shape[-2:])
    whole[:, : part.shape[-2], : part.shape[-1]] = part
    return whole.reshape(masks.shape)


def law_holds(robust, names, generator):
    """Say whether Φ(gx, g·prompts) = g·Φ(x, prompts), bit for bit, on padded photos of several shapes."""
    photos, given = photos_with_prompts(generator)
    given = {name: value for name, value in given.items() if name in (*names, "input_labels")}
    everything = {**photos_with_prompts(generator)[1], **given}
    moves = [turned(g, photos, everything) for g in robust.group.elements()]
    with torch.no_grad():
        out = robust(**arguments(photos, given))
        for g, (pictures, moved) in zip(robust.group.elements(), moves, strict=True):
            found = robust(**arguments(pictures, {name: moved[name] for name in given}))
            for i, photo in enumerate(photos):
                expected = low_resolution(g, out.pred_masks[i], photo.shape[1:])
                rows, columns = (side // STRIDE for side in pictures[i].shape[1:])
                if not torch.equal(found.pred_masks[i][..., :rows, :columns], expected[..., :rows, :columns]):
                    return False
            if not torch.equal(found.iou_scores, out.iou_scores):
                return False
    return True


ALL = ("input_points", "input_boxes", "input_masks")


@pytest.mark.parametrize("group", ["C4", "D4"])
@pytest.mark.parametrize("name", PADS)
def test_padded_photos_with_prompts_of_every_sort(name, group, generator):
    assert law_holds(adapted(name, group), ALL, generator)


@pytest.mark.parametrize("names", [("input_points",), ("input_boxes",)])
def test_one_sort_of_prompts(names, generator):
    assert law_holds(adapted("SamModel", "D4"), names, generator)


def unsorted_corners(g, x):
    """Move the two corners of boxes and leave them where they come to lie: a mutant."""
    corners = upright.act(g, Points(x.data.unflatten(-1, (2, 2)), size=x.size))
    return x.replace(data=corners.data.flatten(-2), size=corners.size)


@pytest.mark.parametrize("mutant", ["prompts stay", "corners unsorted", "padding ignored", "masks stay"])
def test_the_law_catches(mutant, generator, monkeypatch):
    robust = adapted("SamModel", "C4")
    known = robust.signature
    if mutant == "prompts stay":
        known = replace(known, inputs={"pixel_values": "image"})
    if mutant == "padding ignored":
        known = replace(known, extents=None, check=None)
    if mutant == "masks stay":
        known = replace(known, outputs={})
    if mutant == "corners unsorted":
        assert law_holds(robust, ("input_boxes",), generator)
        real = registry._KERNELS[PlanarGroup, Boxes]
        inside = []

        def kernel(g, x):
            return (unsorted_corners if inside else real)(g, x)

        monkeypatch.setitem(registry._KERNELS, (PlanarGroup, Boxes), kernel)
        call = type(robust).run
        monkeypatch.setattr(type(robust), "run", lambda self, **k: (inside.append(1), call(self, **k))[1])
    assert not law_holds(robust.replace(signature=known), ("input_boxes",), generator)


@pytest.mark.parametrize("name", list(MODELS))
def test_an_identity_pose_changes_no_bit(name, generator):
    given = arguments(*photos_with_prompts(generator))
    if name not in PADS:
        given.pop("reshaped_input_sizes")
    with torch.no_grad():
        found, bare = adapted(name, "D4", "identity")(**given), model_of(name)(**given)
    assert type(found) is type(bare)
    assert torch.equal(found.pred_masks, bare.pred_masks)
    assert torch.equal(found.iou_scores, bare.iou_scores)


def test_the_model_sees_what_the_processor_makes_of_the_upright_photo(generator):
    photos, given = photos_with_prompts(generator)
    robust = adapted("SamModel", "D4")
    seen = []
    handle = model_of("SamModel").vision_encoder.register_forward_pre_hook(lambda _, a: seen.append(a[0]))
    with torch.no_grad():
        pose = robust.pose(**arguments(photos, given))
        robust(**arguments(photos, given))
    handle.remove()
    assert len(set(pose.element.value.tolist())) > 1
    back = pose.element.inverse()
    assert torch.equal(seen[0], padded([upright.turn(back[i], photo) for i, photo in enumerate(photos)]))


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("group", ["C4", "D4"])
def test_embeddings_serve_many_prompts(name, group, generator):
    robust = adapted(name, group)
    photos, given = photos_with_prompts(generator)
    call = arguments(photos, given)
    if name not in PADS:
        call.pop("reshaped_input_sizes")
    runs = []
    handle = model_of(name).vision_encoder.register_forward_hook(lambda *_: runs.append(1))
    before = set(vars(robust)), robust.state_dict().keys()
    with torch.no_grad():
        embedding = robust.embed(**{k: v for k, v in call.items() if k not in given})
        found = [
            robust(image_embeddings=embedding, **given),
            robust(image_embeddings=embedding, input_points=given["input_points"]),
        ]
    assert len(runs) == 1
    handle.remove()
    assert (set(vars(robust)), robust.state_dict().keys()) == before
    with torch.no_grad():
        whole = {k: v for k, v in call.items() if k not in given}
        expected = [robust(**call), robust(**whole, input_points=given["input_points"])]
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a.pred_masks, b.pred_masks)
        assert torch.equal(a.iou_scores, b.iou_scores)
    assert torch.equal(robust.pose(**call).element.value, embedding.pose.element.value)


def test_embeddings_by_the_models_own_name(generator):
    robust = adapted("SamModel", "C4")
    x = torch.rand(2, 3, SIDE, SIDE, generator=generator)
    points = torch.full((1, 1, 1, 2), 20.0)
    with torch.no_grad():
        embedding = robust.get_image_embeddings(x)
        one = robust(image_embeddings=embedding.select(torch.tensor([1])), input_points=points)
        assert torch.allclose(
            one.pred_masks, robust(pixel_values=x[1:], input_points=points).pred_masks, atol=1e-4
        )
    with pytest.raises(TypeError, match="embed"):
        robust(image_embeddings=model_of("SamModel").get_image_embeddings(x), input_points=points)
    with pytest.raises(ValueError, match="canonical"):
        robust.replace(mode="top_k").embed(x)
    with pytest.raises(ValueError, match="square to be embedded, got 64×48"):
        robust.embed(x[..., :48])
    with pytest.raises(TypeError, match="not known to compute features"):
        upright.adapt(torch.nn.Flatten(), "C4", canonicalizer=robust.canonicalizer).embed(x)


@pytest.mark.parametrize("group", ["C4", "D4"])
def test_photos_through_the_processor(group):
    """Photos of 64×48 need no resizing, so that turning before and after the processor is the same."""
    from transformers import SamImageProcessor, SamProcessor

    side = {"height": SIDE, "width": SIDE}
    processor = SamProcessor(SamImageProcessor(size={"longest_edge": SIDE}, pad_size=side))
    robust = adapted("SamModel", group)
    photo = np.random.default_rng(0).integers(0, 256, (SIDE, 48, 3), dtype=np.uint8)
    points = torch.tensor([[10.0, 30.0], [40.5, 8.0]])
    box = torch.tensor([[4.0, 6.0, 30.0, 50.0]])

    def masks(picture, points, box):
        inputs = processor(
            picture, input_points=[[points.tolist()]], input_boxes=[box.tolist()], return_tensors="pt"
        )
        with torch.no_grad():
            out = robust(**inputs)
        sizes = inputs["original_sizes"], inputs["reshaped_input_sizes"]
        return processor.image_processor.post_process_masks(out.pred_masks, *sizes, binarize=False)[0]

    out = masks(photo, points, box)
    assert out.shape[-2:] == (SIDE, 48)
    for g in robust.group.elements():
        size = (SIDE, 48)
        moved = masks(
            upright.turn(g, photo),
            upright.act(g, Points(points, size=size)).data,
            upright.act(g, Boxes(box, size=size)).data,
        )
        expected = upright.act(g, Image(out[0])).data
        inner = (..., slice(STRIDE, -STRIDE), slice(STRIDE, -STRIDE))  # the border mixes with the padding
        assert torch.allclose(moved[0][inner], expected[inner], atol=1e-4)


def test_photos_set_upright_before_the_processor():
    """Any size, exact: the processor and the model see the same upright photo from every pose."""
    from transformers import SamImageProcessor, SamProcessor

    side = {"height": SIDE, "width": SIDE}
    processor = SamProcessor(SamImageProcessor(size={"longest_edge": SIDE}, pad_size=side))
    canonicalizer = adapted("SamModel", "D4").canonicalizer
    photo = np.random.default_rng(0).integers(0, 256, (70, 101, 3), dtype=np.uint8)
    point = torch.tensor([[10.0, 30.0]])

    def masks(picture, point):
        upright_picture, pose = upright.straighten(picture, canonicalizer)
        back = pose.element[0].inverse()
        point = upright.act(back, Points(point, size=picture.shape[:2])).data
        inputs = processor(upright_picture, input_points=[[point.tolist()]], return_tensors="pt")
        with torch.no_grad():
            out = model_of("SamModel")(**inputs)
        sizes = inputs["original_sizes"], inputs["reshaped_input_sizes"]
        found = processor.image_processor.post_process_masks(out.pred_masks, *sizes, binarize=False)
        return upright.turn(pose.element[0], found[0][0])

    out = masks(photo, point)
    for g in upright.parse_group("D4").elements():
        moved = upright.act(g, Points(point, size=(70, 101))).data
        assert torch.equal(masks(upright.turn(g, photo), moved), upright.turn(g, out))


def test_sides_that_are_no_multiple_of_the_stride(generator):
    photo = torch.rand(3, SIDE, 43, generator=generator)
    robust = adapted("SamModel", "C4")
    call = {"input_points": torch.tensor([[[[5.0, 9.0]]]])}
    half = upright.parse_group("C4").element(2)
    moved = {"input_points": torch.tensor([[[[38.0, 55.0]]]])}
    with torch.no_grad():
        out = robust(**arguments([photo], call)).pred_masks
        found = robust(**arguments([upright.turn(half, photo)], moved)).pred_masks
    assert torch.equal(found[..., :11], out[..., :11].flip(-1, -2))  # 43 / 4 is rounded to 11 cells


POINTS = {"input_points": torch.full((1, 1, 1, 2), 10.0)}


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"input_points": torch.full((1, 1, 1, 2), 70.0)}, "input_points must lie on the picture, 64×64"),
        ({"input_points": torch.full((2, 1, 1, 2), 1.0)}, r"input_points must have shape .* B = 1"),
        ({"input_points": torch.full((1, 1, 2), 1.0)}, "input_points must have shape"),
        ({**POINTS, "input_labels": torch.ones(1, 1, 2)}, "input_labels must have shape"),
        ({"input_boxes": torch.tensor([[[9.0, 1.0, 4.0, 5.0]]])}, "x1 <= x2"),
        ({"input_boxes": torch.tensor([[[70.0, 1.0, 80.0, 5.0]]])}, "input_boxes must lie on the picture"),
        ({"input_boxes": torch.ones(1, 1, 5)}, "input_boxes must have shape"),
        ({**POINTS, "reshaped_input_sizes": [[64, 65]]}, "reshaped_input_sizes must lie within"),
        ({**POINTS, "reshaped_input_sizes": [[64, 64]] * 2}, "reshaped_input_sizes must have shape"),
        ({"input_points": torch.full((1, 1, 1, 2), 50.0), "reshaped_input_sizes": [[64, 40]]}, "64×40"),
    ],
)
def test_bad_prompts(given, match):
    with pytest.raises(ValueError, match=match):
        adapted("SamModel", "C4")(pixel_values=torch.rand(1, 3, SIDE, SIDE), **given)


def test_prompts_that_fill_up_a_batch_may_lie_anywhere():
    check = signature_of(model_of("SamModel")).check
    points = torch.tensor([[[[5.0, 5.0], [-10.0, -10.0]]]])
    check({"input_points": points, "input_labels": torch.tensor([[[1, -10]]])}, [(SIDE, SIDE)])
    check({"input_points": points}, [(SIDE, SIDE)])
    check({"input_boxes": torch.tensor([[[-10.0] * 4, [-3.0, 2.0, 90.0, 30.0]]])}, [(SIDE, SIDE)])


def test_no_pictures():
    robust = adapted("SamModel", "C4")
    none = torch.zeros(0, 3, SIDE, SIDE)  # SAM itself takes no empty batch
    assert robust.pose(pixel_values=none, reshaped_input_sizes=torch.zeros(0, 2)).element.shape == (0,)


def test_other_groups_need_square_photos(generator):
    photo = torch.rand(3, SIDE, 40, generator=generator)
    canonicalizer = upright.canonicalizer("C8", options={"widths": [6, 8], "strides": [2, 2]})
    robust = upright.adapt(model_of("SamModel"), "C8", canonicalizer=canonicalizer)
    with pytest.raises(ValueError, match="square"):
        robust(**arguments([photo], POINTS))


def test_half_precision(generator):
    robust = adapted("Sam2Model", "C4")
    x = torch.rand(2, 3, SIDE, SIDE, generator=generator)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        out = robust(pixel_values=x, input_points=torch.full((2, 1, 1, 2), 10.0))
    assert out.pred_masks.isfinite().all()


def test_named_by_hand(generator):
    """The same by inputs and outputs, for a model whose class is not known."""
    robust = adapted("Sam2Model", "C4")
    by_hand = upright.adapt(
        partial(model_of("Sam2Model")),
        "C4",
        canonicalizer=robust.canonicalizer,
        inputs={"pixel_values": "image", "input_points": "points"},
        outputs={"pred_masks": "mask"},
    )
    call = {
        "pixel_values": torch.rand(2, 3, SIDE, SIDE, generator=generator),
        "input_points": torch.full((2, 1, 1, 2), 10.0),
    }
    with torch.no_grad():
        assert torch.equal(by_hand(**call).pred_masks, robust(**call).pred_masks)


def test_the_page_runs(tmp_path, monkeypatch):
    """Run the code of docs/promptable.md on small models."""
    from transformers import SamImageProcessor, SamModel, SamProcessor

    side = {"height": SIDE, "width": SIDE}
    processor = SamProcessor(SamImageProcessor(size={"longest_edge": SIDE}, pad_size=side))
    monkeypatch.setattr(SamModel, "from_pretrained", lambda _: model_of("SamModel"))
    monkeypatch.setattr(SamProcessor, "from_pretrained", lambda _: processor)
    photo = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    pytest.importorskip("PIL.Image").fromarray(photo).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "promptable.md").read_text()
    names: dict = {}
    with torch.no_grad():
        for block in page.split("```python\n")[1:]:
            exec(block.split("```")[0], names)
    assert names["masks"][0].shape[-2:] == (90, 120)
    assert torch.equal(names["first"].pred_masks, names["out"].pred_masks)
    assert names["second"].pred_masks.shape == (1, 1, 3, SIDE // STRIDE, SIDE // STRIDE)
