"""Backbones and models of pictures and texts."""

from dataclasses import replace
from functools import partial

import torch

from upright import Invariant, Logits

from .classification import GRIDS, HGNET, MAPS, MOBILE, MOBILE_V2, PYRAMID, SQUARE, STAGES, SWIN, VIT
from .rows import Row, make

_LAST = {"last_hidden_state": "image"}
_NEXT = {"patch_size": 4, **STAGES}
_STAGED = {"out_features": ["stage1", "stage3"]}
_GROUPS = {"embedding_size": 8, "num_groups": 2, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
_TEXT = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 12,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
    "projection_dim": 16,
}
_TWO = {"vision_config": VIT, "text_config": _TEXT}


def _model(family, outputs=None, sizes=((32, 32), (32, 48)), head="Model", config=None, **settings):
    build = make(f"{family}{head}", config or f"{family}Config", **settings)
    return Row(f"{family}{head}", build, outputs=outputs or {}, sizes=sizes)


def _backbone(family, sizes=((32, 32), (32, 48)), **settings):
    made = _model(family, {"feature_maps": "image"}, sizes, "Backbone", **settings)
    hidden = (
        {}
        if family
        in ("Beit", "Dinov2", "Dinov2WithRegisters", "DINOv3ViT", "Swinv2", "FocalNet", "MaskFormerSwin")
        else MAPS
    )
    return Row(made.name, made.make, outputs={**made.outputs, **hidden}, sizes=sizes)


def _three_texts(batch, size, generator):
    """Return pictures and three texts, however many pictures there are."""
    texts = torch.randint(2, 40, (3, 7), generator=generator)
    texts[:, -1] = 1
    return {
        "pixel_values": torch.rand(batch, 3, *size, generator=generator),
        "input_ids": texts,
        "attention_mask": torch.ones_like(texts),
    }


_SHARED = partial(Invariant, axis=None)


def _contrastive(name, config, settings):
    return Row(
        name,
        make(name, config, **settings),
        inputs={"pixel_values": "image", "input_ids": _SHARED, "attention_mask": _SHARED},
        outputs={
            "logits_per_image": "logits",
            "logits_per_text": partial(Logits, axis=1),
            "text_embeds": _SHARED,
            "text_model_output": _SHARED,
        },
        sizes=SQUARE,
        call=_three_texts,
    )


_ROWS = [
    _model("Beit", sizes=SQUARE, use_relative_position_bias=True, **VIT),
    _model("Bit", {**_LAST, **MAPS}, **_GROUPS),
    _model("ConvNext", {**_LAST, **MAPS}, **_NEXT),
    _model("ConvNextV2", {**_LAST, **MAPS}, **_NEXT),
    _model("DINOv3ConvNext", MAPS, **STAGES),
    _model("DINOv3ViT", num_register_tokens=2, **VIT),
    _model("DeiT", sizes=SQUARE, **VIT),
    _model("Dinov2", **VIT),
    _model("Dinov2WithRegisters", **VIT),
    _model("EfficientNet", {**_LAST, **MAPS}, width_coefficient=0.25, depth_coefficient=0.2, hidden_dim=320),
    _model("FocalNet", GRIDS, embed_dim=8, **STAGES),
    _model("IJepa", sizes=SQUARE, **VIT),
    _model("MobileNetV1", {**_LAST, **MAPS}, depth_multiplier=0.25),
    _model("MobileNetV2", {**_LAST, **MAPS}, depth_multiplier=0.25),
    _model("MobileViT", {**_LAST, **MAPS}, **MOBILE),
    _model("MobileViTV2", {**_LAST, **MAPS}, **MOBILE_V2),
    _model("PoolFormer", {**_LAST, **MAPS}, **STAGES),
    _model("PvtV2", {**_LAST, **MAPS}, image_size=32, **PYRAMID),
    _model("RegNet", {**_LAST, **MAPS}, groups_width=4, embedding_size=8, **STAGES),
    _model("ResNet", {**_LAST, **MAPS}, embedding_size=8, **STAGES),
    _model("Segformer", {**_LAST, **MAPS}, **PYRAMID),
    _model("Swin", GRIDS, **SWIN),
    _model("Swinv2", GRIDS, **SWIN),
    _model("ViT", sizes=SQUARE, **VIT),
    _model("ViTMSN", sizes=SQUARE, **VIT),
    _model("CLIPVision", sizes=SQUARE, **VIT),
    _model("CLIPVision", sizes=SQUARE, head="ModelWithProjection", **VIT),
    _model("MetaClip2Vision", sizes=SQUARE, **VIT),
    _model("MetaClip2Vision", sizes=SQUARE, head="ModelWithProjection", **VIT),
    _model("SiglipVision", sizes=SQUARE, **VIT),
    _backbone("Beit", SQUARE, out_features=["stage1", "stage2"], **VIT),
    _backbone("Bit", **_STAGED, **_GROUPS),
    _backbone("ConvNext", **_STAGED, **_NEXT),
    _backbone("ConvNextV2", **_STAGED, **_NEXT),
    _backbone("DINOv3ConvNext", **_STAGED, **STAGES),
    _backbone("DINOv3ViT", out_features=["stage1", "stage2"], **VIT),
    _backbone("Dinov2", out_features=["stage1", "stage2"], **VIT),
    _backbone("Dinov2WithRegisters", out_features=["stage1", "stage2"], **VIT),
    _backbone("FocalNet", embed_dim=8, **_STAGED, **STAGES),
    _backbone("HGNetV2", **_STAGED, **HGNET),
    _backbone("MaskFormerSwin", out_features=["stage1", "stage2"], **SWIN),
    _backbone("PvtV2", image_size=32, **_STAGED, **PYRAMID),
    _backbone("ResNet", embedding_size=8, **_STAGED, **STAGES),
    _backbone("Swin", out_features=["stage1", "stage2"], **SWIN),
    _backbone("Swinv2", out_features=["stage1", "stage2"], **SWIN),
    _contrastive("CLIPModel", "CLIPConfig", {"projection_dim": 16, **_TWO}),
    _contrastive("MetaClip2Model", "MetaClip2Config", {"projection_dim": 16, **_TWO}),
    _contrastive("SiglipModel", "SiglipConfig", _TWO),
    _contrastive("ChineseCLIPModel", "ChineseCLIPConfig", {"projection_dim": 16, **_TWO}),
    _contrastive("AltCLIPModel", "AltCLIPConfig", {"projection_dim": 16, **_TWO}),
]

ROWS = [replace(row, hidden=True) for row in _ROWS]
