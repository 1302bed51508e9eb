"""Detectors of transformers: boxes and targets in the user's frame; padding, losses, pipelines."""

import json
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch

import upright
from upright import Boxes, Image, Mask
from upright.testing import redraw_weights
from zoo.detection import ROWS, detr, owl

transformers = pytest.importorskip("transformers")
ROOT = Path(__file__).resolve().parents[1]
ELEMENTS = upright.parse_group("D4").elements()
FEW = [ELEMENTS[i] for i in (1, 2, 7)]
MAKE = {row.name: row.make for row in ROWS}


@cache
def canonicalizer(group="D4"):
    made = upright.canonicalizer(group, size=16, options={"widths": [6, 8], "strides": [2, 2]})
    return redraw_weights(made, torch.Generator().manual_seed(5))


@cache
def model_of(name):
    settings = {"auxiliary_loss": True} if name in ("DetrForObjectDetection",) else {}
    make = partial(detr, **settings) if settings else MAKE[name]
    return redraw_weights(make(), torch.Generator().manual_seed(1)).eval()


@cache
def adapted(name):
    return upright.adapt(model_of(name), "D4", canonicalizer=canonicalizer())


def fractions(boxes):
    return partial(Boxes, format="cxcywh", normalized=True)(boxes, size=(1, 1))


def target(generator, size=None):
    low = torch.rand(2, 2, generator=generator) / 2
    side = torch.rand(2, 2, generator=generator) / 4 + 0.1
    made = {"class_labels": torch.tensor([0, 2]), "boxes": torch.cat([low + side / 2, side], -1)}
    if size is not None:
        made["masks"] = (torch.rand(2, *size, generator=generator) > 0.5).float()
    return made


def turned_target(g, given):
    moved = {**given, "boxes": upright.act(g, fractions(given["boxes"])).data}
    if "masks" in given:
        moved["masks"] = upright.act(g, Mask(given["masks"])).data
    return moved


WITH_LOSS = [
    "DetrForObjectDetection",
    "DetrForSegmentation",
    "DeformableDetrForObjectDetection",
    "RTDetrForObjectDetection",
    "YolosForObjectDetection",
]


@pytest.mark.parametrize("name", WITH_LOSS)
def test_targets_move_with_the_pictures(name, generator):
    pytest.importorskip("scipy")
    robust = adapted(name)
    x = torch.rand(1, 3, 64, 96, generator=generator)
    labels = target(generator, (64, 96) if name == "DetrForSegmentation" else None)
    with torch.no_grad():
        out = robust(pixel_values=x, labels=[labels])
        blind = robust.replace(signature=replace(robust.signature, inputs={"pixel_values": "image"}))
        losses, forgotten = [], []
        for g in FEW:
            turned = upright.act(g, Image(x[0])).data[None]
            call = {"pixel_values": turned, "labels": [turned_target(g, labels)]}
            found = robust(**call)
            losses.append(found.loss)
            forgotten.append(blind(**call).loss)
            for a, b in zip(found.auxiliary_outputs or [], out.auxiliary_outputs or [], strict=True):
                moved = upright.act(g, fractions(b["pred_boxes"][0])).data
                assert torch.allclose(a["pred_boxes"][0], moved, atol=1e-5)
    assert torch.allclose(torch.stack(losses), out.loss, rtol=1e-4)
    assert not torch.allclose(torch.stack(forgotten), forgotten[0], rtol=1e-3)
    if name == "DetrForObjectDetection":
        assert out.auxiliary_outputs


def test_training_reaches_the_model(generator):
    pytest.importorskip("scipy")
    robust = adapted("DetrForObjectDetection")
    x = torch.rand(2, 3, 64, 64, generator=generator)
    robust(pixel_values=x, labels=[target(generator), target(generator)]).loss.backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in robust.model.parameters())
    robust.model.zero_grad()


def test_targets_of_padded_pictures(generator):
    """The processor divides boxes by the padded canvas; the loss is that of the picture alone."""
    pytest.importorskip("scipy")
    robust = adapted("DetrForObjectDetection")
    photo, labels = torch.rand(1, 3, 48, 64, generator=generator), target(generator)
    padded, mask = torch.zeros(1, 3, 96, 80), torch.zeros(1, 96, 80, dtype=torch.long)
    padded[..., :48, :64], mask[..., :48, :64] = photo, 1
    scale = torch.tensor([64 / 80, 48 / 96] * 2)
    with torch.no_grad():
        alone = robust(pixel_values=photo, labels=[labels])
        both = {**labels, "boxes": labels["boxes"] * scale}
        found = robust(pixel_values=padded, pixel_mask=mask, labels=[both])
    assert torch.allclose(found.loss, alone.loss, rtol=1e-4)
    assert torch.allclose(found.pred_boxes, alone.pred_boxes, atol=1e-5)


@pytest.mark.parametrize("name", ["DetrForObjectDetection", "GroundingDinoForObjectDetection"])
def test_photos_of_two_shapes_in_one_batch(name, generator):
    robust = adapted(name)
    texts = {}
    if name.startswith("Grounding"):
        texts = {"input_ids": torch.randint(1100, 1200, (2, 6), generator=generator)}
    photos = [torch.rand(3, 64, 96, generator=generator), torch.rand(3, 96, 64, generator=generator)]
    canvas, mask = torch.zeros(2, 3, 96, 96), torch.zeros(2, 96, 96, dtype=torch.long)
    for i, photo in enumerate(photos):
        canvas[i, :, : photo.shape[1], : photo.shape[2]] = photo
        mask[i, : photo.shape[1], : photo.shape[2]] = 1
    with torch.no_grad():
        out = robust(pixel_values=canvas, pixel_mask=mask, **texts)
        for i, photo in enumerate(photos):
            one = {key: value[i : i + 1] for key, value in texts.items()}
            alone = robust(pixel_values=photo[None], **one)
            assert torch.allclose(out.pred_boxes[i], alone.pred_boxes[0], atol=1e-4)


def test_boxes_of_the_processor_are_in_the_users_frame():
    """Photo in, boxes in its pixels out: turning the photo turns the boxes."""
    robust = adapted("DetrForObjectDetection")
    processor = transformers.DetrImageProcessor(size={"height": 64, "width": 64})
    photo = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)

    def boxes(picture, size):
        with torch.no_grad():
            out = robust(**processor(picture, return_tensors="pt"))
        return processor.post_process_object_detection(out, threshold=0.0, target_sizes=[size])[0]

    size = (480, 640)
    before = boxes(photo, size)
    for g in ELEMENTS:
        after = boxes(upright.turn(g, photo), size[:: -1 if int(g.value) % 2 else 1])
        assert torch.equal(after["labels"], before["labels"])
        moved = upright.act(g, Boxes(before["boxes"], size=size)).data
        assert torch.allclose(after["boxes"], moved, atol=1e-2)


def test_the_pipeline_of_object_detection():
    robust = adapted("DetrForObjectDetection")
    pillow = pytest.importorskip("PIL.Image")
    photo = pillow.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    processor = transformers.DetrImageProcessor(size={"height": 64, "width": 64})
    detect = transformers.pipeline("object-detection", model=robust, image_processor=processor)
    half = ELEMENTS[2]
    found, turned = detect(photo, threshold=0.0), detect(upright.turn(half, photo), threshold=0.0)
    assert found
    for a, b in zip(found, turned, strict=True):
        assert a["label"] == b["label"]
        assert abs(a["box"]["xmin"] + b["box"]["xmax"] - 64) <= 1
        assert abs(a["box"]["ymin"] + b["box"]["ymax"] - 64) <= 1


@pytest.fixture
def tokenizer(tmp_path):
    """A tokenizer of letters, made on the spot."""
    letters = [chr(c) for c in range(97, 117)]
    words = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    (tmp_path / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    made = transformers.CLIPTokenizer(
        str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"), model_max_length=6
    )
    made.pad_token = "a"
    return made


def test_the_pipeline_of_zero_shot_detection(tokenizer):
    pillow = pytest.importorskip("PIL.Image")
    robust = adapted("OwlViTForObjectDetection")
    photo = pillow.fromarray(np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8))
    processor = transformers.OwlViTImageProcessor(size={"height": 48, "width": 48}, crop_size=48)
    detect = transformers.pipeline(
        "zero-shot-object-detection", model=robust, image_processor=processor, tokenizer=tokenizer
    )
    ask = partial(detect, candidate_labels=["cat", "dog"], threshold=0.0)
    found, turned = ask(photo), ask(upright.turn(ELEMENTS[2], photo))
    assert {one["label"] for one in found} <= {"cat", "dog"}
    assert len(found) == len(turned) > 0
    for a, b in zip(found, turned, strict=True):
        assert a["score"] == pytest.approx(b["score"], abs=1e-5)
        assert abs(a["box"]["xmin"] + b["box"]["xmax"] - 48) <= 1


def test_owl_on_pictures_of_two_shapes_says_so(generator):
    """Its patches lie in rows and columns that differ then; its processor makes squares."""
    robust = adapted("OwlViTForObjectDetection")
    x = torch.rand(6, 3, 48, 80, generator=generator)
    texts = torch.randint(1, 48, (12, 6), generator=generator)
    assert len(set((robust.pose(pixel_values=x).element.value % 2).tolist())) == 2
    with pytest.raises(ValueError, match="stand upright in different shapes"):
        robust(pixel_values=x, input_ids=texts, interpolate_pos_encoding=True)


def test_averaging_is_refused():
    with pytest.raises(ValueError, match="mode='canonical'"):
        upright.adapt(owl(), "D4", canonicalizer=canonicalizer(), mode="average")


def test_the_page_runs(tmp_path, monkeypatch):
    """Run the code of docs/detection.md on a small model."""
    processor = transformers.DetrImageProcessor(size={"height": 64, "width": 64})
    model = model_of("DetrForObjectDetection")
    monkeypatch.setattr(transformers.DetrForObjectDetection, "from_pretrained", lambda _: model)
    monkeypatch.setattr(transformers.DetrImageProcessor, "from_pretrained", lambda _: processor)
    photo = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    pytest.importorskip("PIL.Image").fromarray(photo).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    page = (ROOT / "docs" / "detection.md").read_text()
    with torch.no_grad():
        exec(page.split("```python\n")[1].split("```")[0], names)
    assert set(names["found"][0]) == {"scores", "labels", "boxes"}
