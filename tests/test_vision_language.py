"""Vision-language models: the same tokens and logits for a picture however it is turned or mirrored.

Small models with re-drawn weights and processors made here, nothing from a hub. The pictures are not square,
and the processors resize, cut or tile them, so that what is not set upright before is seen differently.
"""

import base64
import copy
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

import upright
from picture_toys import GROUPS, canonicalizer, encoded, picture, turned
from upright.integrations.answers import PicturePose
from upright.integrations.vision_language import adapt_processor, restore_locations
from upright.testing import redraw_weights
from vision_toys import MODELS, WITHOUT_MARK

PROMPT = "what is <image> this ?"


@pytest.fixture(scope="module", params=["llava", "idefics3"])
def parts(request):
    pytest.importorskip("transformers")
    processor, model = MODELS[request.param]()
    return processor, redraw_weights(model, torch.Generator().manual_seed(1)).eval()


@pytest.mark.parametrize("group", GROUPS)
def test_tokens_and_logits_are_the_same_however_a_picture_is_turned(parts, group):
    processor, model = parts
    robust = adapt_processor(processor, group, canonicalizer=canonicalizer(group))
    seen, bare = [], []
    for x in turned(group):
        inputs = robust(images=Pillow.fromarray(x), text=PROMPT, return_tensors="pt")
        with torch.no_grad():
            logits = model(**inputs).logits
            tokens = model.generate(**inputs, max_new_tokens=4, do_sample=False, pad_token_id=3)
            plain = processor(images=Pillow.fromarray(x), text=PROMPT, return_tensors="pt")
            bare.append(model(**plain).logits)
        straight, poses = robust.straighten(x)
        assert np.array_equal(upright.turn(poses[0].element, straight), x)
        seen.append((inputs, logits, tokens))
    for inputs, logits, tokens in seen[1:]:
        assert torch.equal(inputs["input_ids"], seen[0][0]["input_ids"])
        assert torch.equal(inputs["pixel_values"], seen[0][0]["pixel_values"])
        assert torch.equal(logits, seen[0][1])
        assert torch.equal(tokens, seen[0][2])
    assert any(b.shape != bare[0].shape or not torch.equal(b, bare[0]) for b in bare[1:])
    assert len({int(inputs.poses[0].element.value) for inputs, _, _ in seen}) == len(seen)


def test_an_identity_pose_changes_no_bit(parts):
    processor, _ = parts
    robust = adapt_processor(processor, "D4", canonicalizer="identity")
    one, two = Pillow.fromarray(picture()), Pillow.fromarray(picture(40, 30, 1))
    calls = [
        {"images": one, "text": PROMPT},
        {"images": [[one], [two]], "text": [PROMPT, PROMPT], "padding": True},
        {"images": [[one, two]], "text": ["<image> is <image> ?"]},
        {"text": "what is this ?"},
    ]
    for call in calls:
        found, expected = robust(**call, return_tensors="pt"), processor(**call, return_tensors="pt")
        assert list(found) == list(expected)
        assert all(torch.equal(found[name], expected[name]) for name in expected)
        assert len(found.poses) == str(call["text"]).count("<image>")
    positional = robust(one, PROMPT, return_tensors="pt")
    assert torch.equal(
        positional["pixel_values"], processor(one, PROMPT, return_tensors="pt")["pixel_values"]
    )


@pytest.mark.parametrize("form", ["pil", "last", "first", "tensor", "tensor last", "path", "base64", "url"])
def test_pictures_of_every_form(parts, form, tmp_path):
    processor, _ = parts
    robust = adapt_processor(processor, "D4", canonicalizer=canonicalizer("D4"))

    def make(x):
        text = encoded(x)
        file = tmp_path / "p.png"
        file.write_bytes(base64.b64decode(text))
        tensor = torch.from_numpy(x.copy())
        return {
            "pil": Pillow.fromarray(x), "last": x, "first": np.ascontiguousarray(x.transpose(2, 0, 1)),
            "tensor": tensor.permute(2, 0, 1), "tensor last": tensor, "path": str(file), "base64": text,
            "url": "data:image/png;base64," + text,
        }[form]  # fmt: skip

    said = {"input_data_format": "channels_first"} if form == "first" else {}  # or else it is recognised
    seen = [robust(images=[make(x)], text=PROMPT, return_tensors="pt", **said) for x in turned("D4")]
    for inputs in seen:
        assert torch.equal(inputs["pixel_values"], seen[0]["pixel_values"])
    upright_now = robust.straighten(picture())[0]
    expected = processor(images=[make(upright_now)], text=PROMPT, return_tensors="pt", **said)
    assert torch.equal(seen[0]["pixel_values"], expected["pixel_values"])


# Processors and models of transformers that warn of their own parts.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:transformers")
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("name", MODELS)
def test_inputs_and_logits_of_every_class(name, group):
    pytest.importorskip("transformers")
    processor, model = MODELS[name]()
    redraw_weights(model, torch.Generator().manual_seed(1)).eval()
    robust = adapt_processor(processor, group, canonicalizer=canonicalizer(group))
    text = PROMPT.replace("<image> ", "") if name in WITHOUT_MARK else PROMPT
    given = [{"images": Pillow.fromarray(x), "text": text, "return_tensors": "pt"} for x in turned(group)]
    seen, bare = [robust(**call) for call in given], [processor(**call) for call in given[:2]]
    with torch.no_grad():
        logits = [model(**inputs).logits for inputs in seen]
        first, second = (model(**inputs).logits for inputs in bare)
    assert logits[0].isfinite().all()
    for inputs, scores in zip(seen, logits, strict=True):
        assert list(inputs) == list(seen[0])
        assert all(torch.equal(torch.as_tensor(v), torch.as_tensor(seen[0][k])) for k, v in inputs.items())
        assert torch.equal(scores, logits[0])
    assert first.shape != second.shape or not torch.equal(first, second)


def conversation(x):
    second = {"type": "image", "image": Pillow.fromarray(picture(20, 50, 3))}
    return [
        {
            "role": "user",
            "content": [{"type": "image", "image": Pillow.fromarray(x)}, {"type": "text", "text": "what ?"}],
        },
        {"role": "assistant", "content": [{"type": "text", "text": "this"}]},
        {"role": "user", "content": [{"type": "text", "text": "what is"}, second]},
    ]


@pytest.mark.parametrize("group", GROUPS)
def test_chat_templates_with_several_pictures(parts, group):
    processor, _ = parts
    robust = adapt_processor(processor, group, canonicalizer=canonicalizer(group))
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
    seen = [robust.apply_chat_template(conversation(x), **options) for x in turned(group)]
    for inputs in seen:
        assert len(inputs.poses) == 2
        assert torch.equal(inputs["input_ids"], seen[0]["input_ids"])
        assert torch.equal(inputs["pixel_values"], seen[0]["pixel_values"])
    one, several = turned(group)[1], [conversation(x) for x in turned(group)[:2]]
    options["processor_kwargs"] = {"padding": True}
    batch = robust.apply_chat_template(several, **options)
    assert len(batch.poses) == 4
    assert torch.equal(batch["input_ids"][0], batch["input_ids"][1])
    straight = robust.straighten(one)[0]
    assert batch.poses[2].size == straight.shape[:2]


def test_pipelines_use_the_adapted_processor(parts):
    transformers = pytest.importorskip("transformers")
    processor, model = parts
    robust = adapt_processor(processor, "C4", canonicalizer=canonicalizer("C4"))
    pipe = transformers.pipeline("image-text-to-text", model=model, processor=robust, device="cpu")
    settings = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 3}
    answers = []
    for x in turned("C4"):
        said = pipe(text=conversation(x), generate_kwargs=settings)[0]["generated_text"][-1]["content"]
        plain = pipe(Pillow.fromarray(x), text=PROMPT, generate_kwargs=settings, return_full_text=False)
        answers.append((said, plain[0]["generated_text"]))
    assert answers == answers[:1] * 4


def test_an_adapted_processor_is_still_one_of_its_class(parts, tmp_path):
    processor, _ = parts
    robust = adapt_processor(processor, "C4", canonicalizer=canonicalizer("C4"))
    assert isinstance(robust, type(processor))
    assert robust.tokenizer is processor.tokenizer
    assert robust.decode([7, 8, 9]) == "what is this"
    robust.save_pretrained(tmp_path / "a")
    processor.save_pretrained(tmp_path / "b")
    for file in (tmp_path / "b").iterdir():
        assert (tmp_path / "a" / file.name).read_text() == file.read_text()
    x = Pillow.fromarray(picture())
    expected = robust(images=x, text=PROMPT, return_tensors="pt")
    for copied in (pickle.loads(pickle.dumps(robust)), copy.copy(robust)):
        assert torch.equal(
            copied(images=x, text=PROMPT, return_tensors="pt")["pixel_values"], expected["pixel_values"]
        )
    assert not hasattr(processor(images=x, text=PROMPT), "poses")
    with pytest.raises(TypeError, match="adapted already"):
        adapt_processor(robust)
    with pytest.raises(TypeError, match="must be a processor with an image_processor"):
        adapt_processor(processor.tokenizer)


def test_boxes_in_a_question_are_refused(parts):
    processor, _ = parts
    robust = adapt_processor(processor, "C4", canonicalizer="identity")
    call = {"images": Pillow.fromarray(picture()), "text": PROMPT}
    for given in ({"box": [1, 2, 3, 4]}, {"images_kwargs": {"bboxes": [[(0, 0, 1, 1)]]}}):
        with pytest.raises(TypeError, match=r"box.* is of the picture as given, but the model"):
            robust(**call, **given)
    assert len(robust(**call).poses) == 1


@pytest.mark.parametrize("group", GROUPS)
def test_location_tokens_of_an_answer_come_back(group):
    for g in upright.parse_group(group).elements():
        pose = PicturePose(g, (300, 400), 1.0)
        text = "<loc0100><loc0200><loc0300><loc0400> cat ; <loc0000><loc0000><loc0512><loc0256> dog <loc0001>"
        found = restore_locations(text, pose)
        boxes = pose.restore("boxes", [[200, 100, 400, 300], [0, 0, 256, 512]], scale=1024)
        tokens = ["".join(f"<loc{min(v, 1023):04d}>" for v in (b[1], b[0], b[3], b[2])) for b in boxes]
        assert found == f"{tokens[0]} cat ; {tokens[1]} dog <loc0001>"


def test_the_page_runs():
    page = (Path(__file__).parents[1] / "docs" / "vision-language.md").read_text()
    pytest.importorskip("transformers")
    processor, model = MODELS["llava"]()
    names = {"processor": processor, "model": model.eval(), "photo": Pillow.fromarray(picture())}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(block, "vision-language.md", "exec"), names)
    assert names["answer"].shape[1] > names["inputs"]["input_ids"].shape[1]
    assert names["pose"] is names["inputs"].poses[0]
