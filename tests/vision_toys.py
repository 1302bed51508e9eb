"""Small vision-language models with processors of their own, nothing from a hub.

``make()`` returns a processor and a model. Videos need torchvision: processors are made without.
"""

import pytest

TILES = [f"<row_{r}_col_{c}>" for r in range(1, 5) for c in range(1, 5)]
WORDS = ["<unk>", "<s>", "</s>", "<pad>", "user", "assistant", ":", "what", "is", "this", "?", "<image>"]
SPECIAL = ["<fake_token_around_image>", "<global-img>", "<end_of_utterance>", *TILES]
IMAGE, GLOBAL = WORDS.index("<image>"), len(WORDS) + 1
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }} : {% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image> {% else %}{{ c['text'] }} {% endif %}{% endfor %}{% endfor %}"
)
VISION = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = {
    **VISION,
    "num_key_value_heads": 2,
    "vocab_size": 64,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 3,
}
_COARSE, _FINE = {"image_size": 28, "patch_size": 14}, {"image_size": 28, "patch_size": 7}
_SIDE = {"size": {"height": 28, "width": 28}}
_CROP = {"size": {"shortest_edge": 28}, "crop_size": _SIDE["size"]}
_GRID = {"image_grid_pinpoints": [[28, 56], [56, 28], [56, 56]]}


def transformers():
    return pytest.importorskip("transformers")


def tokenizer(**names):
    """A tokenizer of words; ``names`` are tokens that a processor asks it for, such as ``image_token``."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS + SPECIAL)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words = transformers().PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>",
        additional_special_tokens=["<image>", *SPECIAL], padding_side="left",
    )  # fmt: skip
    for name, token in names.items():
        setattr(words, name, token)
        setattr(words, f"{name}_id", words.convert_tokens_to_ids(str(token)))
    return words


def _still(name):
    class Still(getattr(transformers(), name)):
        def check_argument_for_proper_class(self, *args):
            return None

    return Still


def _llava():
    t = transformers()
    processor = t.LlavaProcessor(
        t.LlavaImageProcessorPil(**_CROP), tokenizer(), patch_size=14, chat_template=TEMPLATE,
        vision_feature_select_strategy="default", num_additional_image_tokens=1,
    )  # fmt: skip
    vision = t.CLIPVisionConfig(**VISION, **_COARSE)
    config = t.LlavaConfig(vision_config=vision, text_config=t.LlamaConfig(**TEXT), image_token_id=IMAGE)
    return processor, t.LlavaForConditionalGeneration(config)


def _llava_next():
    t = transformers()
    processor = t.LlavaNextProcessor(
        t.LlavaNextImageProcessorPil(**_CROP, **_GRID), tokenizer(), patch_size=14,
        vision_feature_select_strategy="default", num_additional_image_tokens=1,
    )  # fmt: skip
    vision, text = t.CLIPVisionConfig(**VISION, **_COARSE), t.LlamaConfig(**TEXT)
    config = t.LlavaNextConfig(vision_config=vision, text_config=text, image_token_id=IMAGE, **_GRID)
    return processor, t.LlavaNextForConditionalGeneration(config)


def _llava_onevision():
    t = transformers()
    processor = _still("LlavaOnevisionProcessor")(
        t.LlavaOnevisionImageProcessorPil(**_SIDE, **_GRID),
        tokenizer(image_token="<image>", video_token="<global-img>"),
        num_image_tokens=4, vision_feature_select_strategy="full",
    )  # fmt: skip
    config = t.LlavaOnevisionConfig(
        vision_config=t.SiglipVisionConfig(**VISION, **_COARSE, vision_use_head=False),
        text_config=t.Qwen2Config(**TEXT), image_token_id=IMAGE, video_token_id=GLOBAL, **_GRID,
    )  # fmt: skip
    return processor, t.LlavaOnevisionForConditionalGeneration(config)


def _idefics2():
    t = transformers()
    images = t.Idefics2ImageProcessorPil(
        size={"shortest_edge": 14, "longest_edge": 28}, do_image_splitting=False
    )
    perceiver = {
        "resampler_n_latents": 4, "resampler_depth": 1, "resampler_n_heads": 2, "resampler_head_dim": 8,
        "num_key_value_heads": 1, "hidden_size": 16,
    }  # fmt: skip
    config = t.Idefics2Config(
        vision_config={**VISION, **_FINE}, text_config=t.MistralConfig(**TEXT, head_dim=8),
        perceiver_config=perceiver, image_token_id=IMAGE,
    )  # fmt: skip
    processor = t.Idefics2Processor(images, tokenizer(), image_seq_len=4)
    return processor, t.Idefics2ForConditionalGeneration(config)


def _idefics3():
    t = transformers()
    images = t.Idefics3ImageProcessorPil(size={"longest_edge": 64}, max_image_size={"longest_edge": 32})
    processor = t.Idefics3Processor(images, tokenizer(), image_seq_len=4, chat_template=TEMPLATE)
    config = t.Idefics3Config(
        vision_config={**VISION, "image_size": 32, "patch_size": 8},
        text_config=t.LlamaConfig(**TEXT),
        scale_factor=2,
        image_token_id=IMAGE,
    )
    return processor, t.Idefics3ForConditionalGeneration(config)


def _paligemma():
    t = transformers()
    images = t.SiglipImageProcessorPil(**_SIDE)
    images.image_seq_length = 4
    config = t.PaliGemmaConfig(
        vision_config=t.SiglipVisionConfig(**VISION, **_COARSE),
        text_config=t.GemmaConfig(**TEXT, head_dim=8),
        image_token_id=IMAGE,
        projection_dim=16,
    )
    processor = t.PaliGemmaProcessor(images, tokenizer(image_token="<image>"))
    return processor, t.PaliGemmaForConditionalGeneration(config)


def _gemma3():
    t = transformers()
    words = tokenizer(image_token="<global-img>", boi_token="<image>", eoi_token="<fake_token_around_image>")
    config = t.Gemma3Config(
        vision_config=t.SiglipVisionConfig(**VISION, **_FINE),
        text_config=t.Gemma3TextConfig(**TEXT, head_dim=8),
        mm_tokens_per_image=4,
        image_token_id=GLOBAL,
    )
    processor = t.Gemma3Processor(t.Gemma3ImageProcessorPil(**_SIDE), words, image_seq_length=4)
    return processor, t.Gemma3ForConditionalGeneration(config)


def _qwen(family, **vision):
    t = transformers()
    images = t.Qwen2VLImageProcessorPil(patch_size=4, merge_size=2, min_pixels=256, max_pixels=4096)
    words = tokenizer(image_token="<image>", video_token="<global-img>")
    vision = {
        "depth": 2, "num_heads": 2, "patch_size": 4, "spatial_merge_size": 2, "hidden_size": 16, **vision
    }  # fmt: skip
    config = getattr(t, f"{family}Config")(
        vision_config=vision,
        text_config={**TEXT, "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}},
        image_token_id=IMAGE, video_token_id=GLOBAL, vision_start_token_id=5, vision_end_token_id=6,
    )  # fmt: skip
    model = getattr(t, f"{family}ForConditionalGeneration")(config)
    return _still(f"{family}Processor")(images, words), model


def _qwen2_vl():
    return _qwen("Qwen2VL", embed_dim=16, mlp_ratio=2)


def _qwen2_5_vl():
    windows = {"window_size": 16, "fullatt_block_indexes": [1]}
    return _qwen("Qwen2_5_VL", intermediate_size=32, out_hidden_size=16, **windows)


def _mllama():
    t = transformers()
    images = t.MllamaImageProcessorPil(**_SIDE, max_image_tiles=4)
    vision = {
        "hidden_size": 16, "attention_heads": 2, "num_hidden_layers": 2, "num_global_layers": 1,
        "intermediate_size": 32, **_COARSE, "max_num_tiles": 4, "vision_output_dim": 32,
        "intermediate_layers_indices": [0],
        "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1], [2, 2], [1, 3], [3, 1], [1, 4], [4, 1]],
    }  # fmt: skip
    text = {**TEXT, "cross_attention_layers": [1], "rope_scaling": {"rope_type": "default"}}
    config = t.MllamaConfig(vision_config=vision, text_config=text, image_token_index=IMAGE)
    processor = t.MllamaProcessor(images, tokenizer(image_token="<image>"))
    return processor, t.MllamaForConditionalGeneration(config)


def _internvl():
    t = transformers()
    words = tokenizer(
        start_image_token="<fake_token_around_image>", end_image_token="<end_of_utterance>",
        context_image_token="<image>", video_token="<global-img>",
    )  # fmt: skip
    images = t.GotOcr2ImageProcessorPil(**_SIDE, crop_to_patches=True, max_patches=4)
    config = t.InternVLConfig(
        vision_config=t.InternVLVisionConfig(**VISION, image_size=[28, 28], patch_size=[14, 14]),
        text_config=t.Qwen2Config(**TEXT),
        image_token_id=IMAGE,
        downsample_ratio=0.5,
    )
    processor = _still("InternVLProcessor")(images, words, image_seq_length=1)
    return processor, t.InternVLForConditionalGeneration(config)


def _aya_vision():
    t = transformers()
    images = t.GotOcr2ImageProcessorPil(**_SIDE, crop_to_patches=True, max_patches=4)
    processor = t.AyaVisionProcessor(
        images, tokenizer(), patch_size=14, img_size=28, downsample_factor=2, image_token="<image>",
        start_of_img_token=SPECIAL[0], end_of_img_token=SPECIAL[2], img_patch_token=SPECIAL[1],
        img_line_break_token=TILES[0], tile_token=TILES[1], tile_global_token=TILES[2],
    )  # fmt: skip
    config = t.AyaVisionConfig(
        vision_config=t.SiglipVisionConfig(**VISION, **_COARSE), text_config=t.CohereConfig(**TEXT),
        downsample_factor=2, image_token_id=GLOBAL, adapter_layer_norm_eps=1e-5,
    )  # fmt: skip
    return processor, t.AyaVisionForConditionalGeneration(config)


def _florence2():
    t = transformers()
    images = t.CLIPImageProcessorPil(size={"height": 64, "width": 64}, do_center_crop=False)
    images.image_seq_length = 5
    vision = {
        "embed_dim": [8, 8, 8, 16], "depths": [1] * 4, "num_heads": [2] * 4, "num_groups": [2] * 4,
        "window_size": 4, "projection_dim": 16, "patch_size": [7, 3, 3, 3],
    }  # fmt: skip
    text = t.BartConfig(
        vocab_size=64, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, pad_token_id=3, bos_token_id=1,
        eos_token_id=2, decoder_start_token_id=2, forced_eos_token_id=None,
    )  # fmt: skip
    config = t.Florence2Config(vision_config=vision, text_config=text, image_token_id=IMAGE)
    processor = t.Florence2Processor(images, tokenizer(image_token="<image>"))
    return processor, t.Florence2ForConditionalGeneration(config)


def _blip2():
    t = transformers()
    from tokenizers import AddedToken

    words = tokenizer()
    words.image_token = AddedToken("<image>")
    text = t.OPTConfig(
        vocab_size=64, hidden_size=16, ffn_dim=32, num_hidden_layers=2, num_attention_heads=2,
        pad_token_id=3, word_embed_proj_dim=16,
    )  # fmt: skip
    config = t.Blip2Config(
        vision_config=t.Blip2VisionConfig(**VISION, **_COARSE).to_dict(),
        qformer_config=t.Blip2QFormerConfig(**VISION, vocab_size=64, encoder_hidden_size=16).to_dict(),
        text_config=text.to_dict(), num_query_tokens=4, image_token_index=IMAGE,
    )  # fmt: skip
    processor = t.Blip2Processor(t.BlipImageProcessorPil(**_SIDE), words, num_query_tokens=4)
    return processor, t.Blip2ForConditionalGeneration(config)


def _git():
    t = transformers()
    config = t.GitConfig(vision_config={**VISION, **_COARSE}, **{**TEXT, "num_key_value_heads": None})
    return t.GitProcessor(t.CLIPImageProcessorPil(**_CROP), tokenizer()), t.GitForCausalLM(config)


MODELS = {
    "llava": _llava,
    "idefics3": _idefics3,
    "llava_next": _llava_next,
    "llava_onevision": _llava_onevision,
    "idefics2": _idefics2,
    "paligemma": _paligemma,
    "gemma3": _gemma3,
    "qwen2_vl": _qwen2_vl,
    "qwen2_5_vl": _qwen2_5_vl,
    "mllama": _mllama,
    "internvl": _internvl,
    "aya_vision": _aya_vision,
    "florence2": _florence2,
    "blip2": _blip2,
    "git": _git,
}
WITHOUT_MARK = ("florence2", "blip2")
"""Whose processors say themselves where the picture stands in the text."""
