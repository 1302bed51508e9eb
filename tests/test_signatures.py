"""Every known class: a small random model, adapted with no specification, becomes equivariant bit for bit.

How results move is written by hand in ``zoo``, not read from the signatures. Each task's image processor,
which knows the formats independently, confirms it where there is one (``test_huggingface.py``).
"""

import copy
import dataclasses
from functools import partial

import pytest
import torch

import upright
from upright import Boxes
from upright.factory import assemble
from upright.integrations.signatures import SIGNATURES, Signature, signature_of
from upright.testing import assert_adapted, redraw_weights
from zoo import ROWS

transformers = pytest.importorskip("transformers")

CASES = [pytest.param(row, size, id=f"{row.name}-{size[0]}x{size[1]}") for row in ROWS for size in row.sizes]
BY_NAME = {row.name: row for row in ROWS}


def by_class(model, canonicalizer, **_):
    """Adapt with nothing but the model, as a user does."""
    return assemble(model, canonicalizer)


def small(group):
    options = {"widths": (3, 4)}
    made = upright.canonicalizer(group, "group_cnn", size=16, options=options)
    return redraw_weights(made, torch.Generator().manual_seed(0)).eval()


def check(row, group, size, **settings):
    names = set(row.kwargs(1, size, torch.Generator()))
    assert_adapted(
        row.make(),
        small(group),
        lambda batch, generator: row.kwargs(batch, size, generator),
        inputs={name: kind for name, kind in row.inputs.items() if name in names},
        outputs=row.outputs,
        adapter=by_class,
        tolerance=row.tolerance,
        trials=1,
        **{"batch": 4, **settings},
    )


@pytest.mark.parametrize(("row", "size"), CASES)
def test_every_class_becomes_equivariant(row, size):
    check(row, "D4", size)


FEW = ["ViTForImageClassification", "SegformerForSemanticSegmentation", "MaskFormerForInstanceSegmentation"]


@pytest.mark.parametrize("name", FEW)
def test_quarter_turns(name):
    for size in BY_NAME[name].sizes:
        check(BY_NAME[name], "C4", size)


def test_every_known_class_has_a_small_model():
    elsewhere = {"GeneralizedRCNN", "RetinaNet", "SSD", "FCOS"}  # of torchvision: test_detector_lists.py
    elsewhere |= {name for name in SIGNATURES if name.startswith("Siglip2")}  # patches: test_huggingface.py
    assert sorted(set(SIGNATURES) - elsewhere) == sorted({row.name for row in ROWS})


def _changed(name, monkeypatch, **changes):
    monkeypatch.setitem(SIGNATURES, name, dataclasses.replace(SIGNATURES[name], **changes))


@pytest.mark.parametrize("size", [(32, 32), (32, 48)])
def test_a_map_that_is_said_to_stay_is_noticed(monkeypatch, size):
    _changed("SegformerForSemanticSegmentation", monkeypatch, outputs={"logits": "invariant"})
    with pytest.raises((AssertionError, ValueError), match=r"lies on the picture|is act\(g, Φ\(x\)\)"):
        check(BY_NAME["SegformerForSemanticSegmentation"], "D4", size)


def test_scores_that_are_said_to_move_are_noticed(monkeypatch):
    row = BY_NAME["ResNetForImageClassification"]
    _changed(row.name, monkeypatch, outputs={"logits": "logits"})
    with pytest.raises((AssertionError, ValueError)):  # its hidden states are maps
        check(row, "D4", (32, 48))


def test_boxes_of_another_format_are_noticed(monkeypatch):
    row = BY_NAME["DetrForObjectDetection"]
    wrong = partial(Boxes, format="xyxy", normalized=True)
    _changed(row.name, monkeypatch, outputs={**SIGNATURES[row.name].outputs, "pred_boxes": wrong})
    with pytest.raises(AssertionError):
        check(row, "D4", row.sizes[0])


def test_texts_that_are_cut_with_the_pictures_are_noticed(monkeypatch):
    row = BY_NAME["CLIPModel"]
    one = SIGNATURES[row.name]
    kept = {"logits_per_image": "logits", "logits_per_text": "logits"}
    _changed(row.name, monkeypatch, inputs={"pixel_values": "image"}, outputs=kept)
    adapted = assemble(row.make(), small("C4"))
    call = row.kwargs(3, (32, 48), torch.Generator().manual_seed(1))
    with pytest.raises((RuntimeError, ValueError)):
        adapted(**call, interpolate_pos_encoding=True)
    monkeypatch.setitem(SIGNATURES, row.name, one)
    out = assemble(row.make(), small("C4"))(**call, interpolate_pos_encoding=True)
    assert out.logits_per_image.shape == out.logits_per_text.T.shape == (3, 3)
    assert torch.equal(out.logits_per_image, out.logits_per_text.T)


def _segmenter():
    model = BY_NAME["SegformerForSemanticSegmentation"].make()
    return redraw_weights(model, torch.Generator().manual_seed(0))


def test_labels_move_with_the_picture(monkeypatch):
    """The loss is that of the bare model on the upright picture and its upright labels, in every pose."""
    model = _segmenter()
    x, labels = torch.rand(1, 3, 32, 48), torch.randint(0, 4, (1, 32, 48))
    turned = {"pixel_values": torch.rot90(x, 1, (2, 3)), "labels": torch.rot90(labels, 1, (1, 2))}
    losses = [
        assemble(model, small("C4"))(**call).loss for call in ({"pixel_values": x, "labels": labels}, turned)
    ]
    assert torch.equal(*losses)
    square = {"pixel_values": x[..., :32], "labels": labels[..., :32]}
    poses = assemble(model, small("C4")).pose(**square)
    _changed("SegformerForSemanticSegmentation", monkeypatch, inputs={"pixel_values": "image"})
    moved = {
        "pixel_values": torch.rot90(square["pixel_values"], 1, (2, 3)),
        "labels": torch.rot90(square["labels"], 1, (1, 2)),
    }
    forgotten = [assemble(model, small("C4"))(**call).loss for call in (square, moved)]
    assert poses.element.value.shape == (1,)
    assert not torch.equal(*forgotten)


def test_masks_and_classes_of_instances_move_with_the_picture():
    model = redraw_weights(BY_NAME["MaskFormerForInstanceSegmentation"].make())
    x, masks = torch.rand(1, 3, 64, 96), (torch.rand(3, 64, 96) > 0.7).float()

    def losses(f):
        turned = [(torch.rot90(x, k, (2, 3)), torch.rot90(masks, k, (1, 2))) for k in (0, 1)]
        classes = [torch.tensor([0, 2, 3])]
        return [f(pixel_values=p, mask_labels=[m], class_labels=classes).loss for p, m in turned]

    assert torch.equal(*losses(assemble(model, small("C4"))))
    assert not torch.equal(*losses(model))


def test_an_unknown_class_is_told_what_to_write():
    config = transformers.ViTMAEConfig(
        image_size=32, patch_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=8, decoder_hidden_size=8, decoder_num_attention_heads=2,
        decoder_num_hidden_layers=1, decoder_intermediate_size=8,
    )  # fmt: skip
    model = transformers.ViTMAEModel(config).eval()
    with pytest.raises(TypeError) as told:
        upright.adapt(model, canonicalizer=small("C4"))
    text = str(told.value)
    assert 'inputs={"pixel_values": "image"},  # it takes pixel_values, noise' in text
    assert "it returns last_hidden_state, mask, ids_restore" in text
    lines = text[text.index("upright.adapt(") : text.index("name every")].strip()
    lines = lines.replace("model,", "model, canonicalizer=small('C4'),")
    adapted = eval(lines, {"upright": upright, "model": model, "small": small})  # what it says does work
    assert adapted(torch.rand(2, 3, 32, 32)).last_hidden_state.shape[0] == 2


def test_what_the_user_names_must_be_there():
    model = BY_NAME["ViTForImageClassification"].make()
    x = torch.rand(1, 3, 32, 32)
    adapted = upright.adapt(model, canonicalizer=small("C4"), outputs={"masks": "mask"})
    with pytest.raises(KeyError, match="outputs names \\['masks'\\], which the model did not return"):
        adapted(x)
    with pytest.raises(TypeError, match="return_dict=True"):
        upright.adapt(model, canonicalizer=small("C4"))(x, return_dict=False)


def test_wrappers_are_looked_through():
    model = BY_NAME["ViTForImageClassification"].make()

    class Peft(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.base_model = model

        def get_base_model(self):
            return self.base_model

        def forward(self, *args, **kwargs):
            return self.base_model(*args, **kwargs)

    x = torch.rand(2, 3, 32, 32)
    expected = assemble(model, small("C4"))(x).logits
    for wrapped in (torch.nn.DataParallel(model), Peft(), torch.compile(model, backend="eager")):
        assert isinstance(signature_of(wrapped), Signature)
        adapted = assemble(wrapped, small("C4"))
        assert torch.equal(adapted(x).logits, expected)
        assert adapted.config is model.config


def test_averages_of_maps_but_not_of_queries():
    model = _segmenter()
    x = torch.rand(2, 3, 32, 48)
    for settings in ({"mode": "average"}, {"mode": "top_k", "top_k": 2}):
        adapted = upright.adapt(model, "C4", canonicalizer=small("C4"), **settings)
        out, turned = adapted(x).logits, adapted(torch.rot90(x, 1, (2, 3))).logits
        torch.testing.assert_close(turned, torch.rot90(out, 1, (2, 3)), atol=1e-5, rtol=1e-5)
    queries = BY_NAME["MaskFormerForInstanceSegmentation"].make()
    with pytest.raises(
        ValueError, match=r"MaskFormerForInstanceSegmentation returns a set .* mode='canonical'"
    ):
        upright.adapt(queries, "C4", canonicalizer=small("C4"), mode="average")


def test_saved_and_loaded_models_know_their_class(tmp_path):
    model = _segmenter()
    adapted = upright.adapt(model, "C4", canonicalizer=small("C4"))
    adapted.save_pretrained(tmp_path / "saved")
    again = upright.load(tmp_path / "saved", model=model)
    x = torch.rot90(torch.rand(1, 3, 32, 48), 1, (2, 3))
    assert torch.equal(again(x).logits, adapted(x).logits)
    assert again.outputs is None
    assert again.signature is SIGNATURES["SegformerForSemanticSegmentation"]


def test_copies_and_pickles():
    adapted = upright.adapt(BY_NAME["ViTForImageClassification"].make(), "C4", canonicalizer=small("C4"))
    again = copy.deepcopy(adapted)
    assert again.config.num_labels == 5
    assert not hasattr(again, "no_such_name")
    with pytest.raises(
        AttributeError, match=r"get_image_features|vit of ViTForImageClassification is not adapted"
    ):
        _ = again.vit
