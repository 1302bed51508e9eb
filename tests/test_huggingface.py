"""Pipelines, image processors and methods of ``transformers`` work with an adapted model as with the model.

Processors know the formats of results independently of the signatures: what they make of the results of a
turned picture must be the turned result.
"""

import numpy as np
import pytest
import torch
from PIL import Image

import upright
from upright.testing import redraw_weights
from zoo import ROWS

transformers = pytest.importorskip("transformers")

TURNS = [1, 2, 3]


def small(group="C4"):
    made = upright.canonicalizer(group, "group_cnn", size=16, options={"widths": (3, 4)})
    return redraw_weights(made, torch.Generator().manual_seed(0)).eval()


def adapted(name, seed=0, **settings):
    model = next(row for row in ROWS if row.name == name).make()
    redraw_weights(model, torch.Generator().manual_seed(seed))
    return upright.adapt(model, "C4", canonicalizer=small(), **settings)


def processor(family, **settings):
    """Make an image processor, the one without torchvision where there are two."""
    name = f"{family}ImageProcessor"
    made = getattr(transformers, f"{name}Pil", None) or getattr(transformers, name)
    return made(**settings)


def picture(height=32, width=32, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def turned(image, turns):
    return Image.fromarray(np.rot90(np.asarray(image), turns).copy())


def pipeline(task, model, **settings):
    return transformers.pipeline(task, model=model, device="cpu", **settings)


def differs(robust, run):
    """Say whether the bare model answers differently when the picture is turned, or a test says nothing."""
    return any(run(robust.model, turned(picture(), k)) != run(robust.model, picture()) for k in TURNS)


@pytest.mark.parametrize("turns", TURNS)
def test_image_classification(turns):
    robust = adapted("ViTForImageClassification")
    reader = processor("ViT", size={"height": 32, "width": 32})

    def run(model, image):
        return pipeline("image-classification", model, image_processor=reader)(image)

    assert differs(robust, run)
    expected = run(robust, picture())
    assert len(expected) == 5
    assert run(robust, turned(picture(), turns)) == expected


def _tokenizer():
    letters = [letter + end for letter in "catdogbirn" for end in ("", "</w>")]
    vocab = {text: i for i, text in enumerate(["<|startoftext|>", "<|endoftext|>", *letters])}
    return transformers.CLIPTokenizer(vocab=vocab, merges=[], model_max_length=12)


@pytest.mark.parametrize("turns", TURNS)
def test_zero_shot_image_classification(turns):
    robust = adapted("CLIPModel")
    size = {"height": 32, "width": 32}
    reader, tokenizer = processor("CLIP", size=size, crop_size=size), _tokenizer()

    def run(model, image):
        made = pipeline("zero-shot-image-classification", model, image_processor=reader, tokenizer=tokenizer)
        return made(image, candidate_labels=["cat", "dog", "bird"], hypothesis_template="{}")

    assert differs(robust, run)
    expected = run(robust, picture())
    assert {entry["label"] for entry in expected} == {"cat", "dog", "bird"}
    assert run(robust, turned(picture(), turns)) == expected


@pytest.mark.parametrize("turns", TURNS)
def test_image_segmentation(turns):
    robust = adapted("SegformerForSemanticSegmentation")
    run = pipeline("image-segmentation", robust, image_processor=processor("Segformer", do_resize=False))
    image = picture(32, 64)
    before = {entry["label"]: np.asarray(entry["mask"]) for entry in run(image)}
    after = {entry["label"]: np.asarray(entry["mask"]) for entry in run(turned(image, turns))}
    assert len(before) > 1
    assert before.keys() == after.keys()
    for label, mask in before.items():
        assert mask.shape == (32, 64)
        assert (after[label] == np.rot90(mask, turns)).mean() > 0.999  # rounding at ties between labels


@pytest.mark.parametrize("turns", TURNS)
def test_panoptic_segmentation(turns):
    robust = adapted("MaskFormerForInstanceSegmentation")
    reader = processor("MaskFormer", do_resize=False)

    def maps(image):
        out = robust(**reader(images=image, return_tensors="pt"))
        return reader.post_process_semantic_segmentation(out, target_sizes=[image.size[::-1]])[0]

    image = picture(64, 96)
    before, after = maps(image), maps(turned(image, turns))
    assert before.unique().numel() > 1
    assert (after == torch.rot90(before, turns)).float().mean() > 0.999


def test_a_padded_batch_answers_as_its_pictures_alone():
    robust = adapted("MaskFormerForInstanceSegmentation")
    reader = processor("MaskFormer", do_resize=False)
    pictures = [picture(64, 96), turned(picture(64, 64, seed=1), 1), picture(96, 40, seed=2)]
    together = robust(**reader(images=pictures, return_tensors="pt"))
    assert together.masks_queries_logits.shape == (3, 5, 24, 24)
    for i, one in enumerate(pictures):
        alone = robust(**reader(images=[one], return_tensors="pt"))
        torch.testing.assert_close(together.class_queries_logits[i], alone.class_queries_logits[0])
        rows, columns = alone.masks_queries_logits.shape[-2:]
        masks = together.masks_queries_logits[i, :, :rows, :columns]
        torch.testing.assert_close(masks, alone.masks_queries_logits[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("turns", TURNS)
def test_depth_estimation(turns):
    robust = adapted("DepthAnythingForDepthEstimation")
    run = pipeline("depth-estimation", robust, image_processor=processor("DPT", do_resize=False))
    image = picture(32, 48)
    before, after = (run(x)["predicted_depth"] for x in (image, turned(image, turns)))
    assert before.shape == (32, 48)
    assert before.std() > 0
    torch.testing.assert_close(after, torch.rot90(before, turns), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("turns", TURNS)
def test_image_feature_extraction(turns):
    robust = adapted("ViTModel")
    reader = processor("ViT", size={"height": 32, "width": 32})
    run = pipeline("image-feature-extraction", robust, image_processor=reader)
    expected = run(picture(), pool=True)
    assert np.std(expected) > 0
    assert run(turned(picture(), turns), pool=True) == expected


def test_towers_of_pictures_and_texts():
    robust = adapted("CLIPModel", mode="average")
    texts = {"input_ids": torch.tensor([[0, 5, 6, 1], [0, 7, 8, 1], [0, 9, 4, 1]])}
    x = torch.rand(2, 3, 32, 32)
    out, after = robust(pixel_values=x, **texts), robust(pixel_values=torch.rot90(x, 1, (2, 3)), **texts)
    assert out.logits_per_image.shape == (2, 3)
    torch.testing.assert_close(after.logits_per_image, out.logits_per_image)
    robust = adapted("CLIPModel")
    out = robust(pixel_values=x, **texts)
    features = robust.get_image_features(pixel_values=torch.rot90(x, 1, (2, 3)))
    features = getattr(features, "pooler_output", features)
    torch.testing.assert_close(torch.nn.functional.normalize(features, dim=-1), out.image_embeds)
    bare = robust.model.get_text_features(**texts)
    given = robust.get_text_features(**texts)
    assert torch.equal(getattr(given, "pooler_output", given), getattr(bare, "pooler_output", bare))


def test_data_of_the_model_can_be_reached_but_no_part_that_takes_pictures():
    robust = adapted("ViTForImageClassification")
    assert robust.config is robust.model.config
    assert robust.dtype == torch.float32
    assert robust.device == torch.device("cpu")
    assert robust.main_input_name == "pixel_values"
    for name in ("vit", "classifier", "no_such_name"):
        with pytest.raises(AttributeError):
            getattr(robust, name)
    assert not hasattr(upright.adapt(torch.nn.Linear(2, 2), "C4", canonicalizer=small()), "in_features")


def test_half_precision_keeps_the_canonicalizer_exact():
    robust = adapted("ResNetForImageClassification").bfloat16()
    x = torch.rand(2, 3, 32, 32).bfloat16()
    out = robust(pixel_values=x).logits
    assert out.dtype == torch.bfloat16
    assert torch.equal(robust(pixel_values=torch.rot90(x, 1, (2, 3))).logits, out)


_VISION = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "patch_size": 8, "num_patches": 16,
}  # fmt: skip
_TEXT = {**{k: v for k, v in _VISION.items() if "patch" not in k}, "vocab_size": 40, "projection_size": 16}


@pytest.mark.parametrize("turns", TURNS)
def test_pictures_as_patches(turns):
    """SigLIP 2 takes pictures of any aspect ratio as patches, padded behind."""
    config = transformers.Siglip2Config(vision_config=_VISION, text_config=_TEXT)
    model = redraw_weights(transformers.Siglip2Model(config).eval(), torch.Generator().manual_seed(0))
    reader = processor("Siglip2", patch_size=8, max_num_patches=16)
    texts = {"input_ids": torch.randint(2, 40, (3, 6))}
    pictures = [picture(32, 32), picture(16, 64, seed=1), picture(24, 40, seed=2)]
    before = reader(images=pictures, return_tensors="pt")
    assert before["spatial_shapes"].tolist() == [[4, 4], [2, 8], [3, 5]]
    after = reader(images=[turned(p, turns) for p in pictures], return_tensors="pt")
    robust = upright.adapt(model, "C4", canonicalizer=small())
    found, expected = robust(**after, **texts), robust(**before, **texts)
    assert found.logits_per_text.shape == (3, 3)
    assert torch.equal(found.logits_per_image, expected.logits_per_image)
    assert not torch.equal(
        model(**after, **texts).logits_per_image, model(**before, **texts).logits_per_image
    )
    still = upright.adapt(model, "C4", canonicalizer=upright.IdentityCanonicalizer("C4"))
    assert torch.equal(still(**before, **texts).logits_per_image, model(**before, **texts).logits_per_image)
    one, other = (robust.get_image_features(**call) for call in (before, after))
    assert torch.equal(getattr(one, "pooler_output", one), getattr(other, "pooler_output", other))


@pytest.mark.parametrize("name", ["Siglip2ForImageClassification", "Siglip2VisionModel"])
def test_classifiers_and_towers_of_patches(name):
    config = transformers.Siglip2VisionConfig(**_VISION)
    if name == "Siglip2ForImageClassification":
        config = transformers.Siglip2Config(vision_config=_VISION, text_config=_TEXT, num_labels=5)
    model = redraw_weights(getattr(transformers, name)(config).eval(), torch.Generator().manual_seed(0))
    reader = processor("Siglip2", patch_size=8, max_num_patches=16)
    before, after = (
        reader(images=[p], return_tensors="pt") for p in (picture(16, 64), turned(picture(16, 64), 1))
    )
    robust = upright.adapt(model, "C4", canonicalizer=small())
    found, expected = robust(**after), robust(**before)
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    with pytest.raises(ValueError, match="pixel_values must be patches"):
        robust(pixel_values=torch.rand(1, 3, 32, 32))
