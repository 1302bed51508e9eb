"""Backbones and embeddings: pooled features do not move, maps do; texts are handed through."""

from dataclasses import replace
from functools import partial

from ...kinds import Invariant, Logits
from .base import HIDDEN, SHARED, Signature, features
from .patches import PATCHES

_BACKBONE = Signature(inputs={"pixel_values": "image"}, outputs={"last_hidden_state": features, **HIDDEN})
_FEATURE_MAPS = Signature(inputs={"pixel_values": "image"}, outputs={"feature_maps": features, **HIDDEN})
_MODELS = (
    "Beit", "Bit", "ConvNext", "ConvNextV2", "DINOv3ConvNext", "DINOv3ViT", "DeiT", "Dinov2",
    "Dinov2WithRegisters", "EfficientNet", "FocalNet", "IJepa", "MobileNetV1", "MobileNetV2",
    "MobileViT", "MobileViTV2", "PoolFormer", "PvtV2", "RegNet", "ResNet", "Segformer", "Swin", "Swinv2",
    "ViT", "ViTMSN", "CLIPVision", "MetaClip2Vision", "SiglipVision",
)  # fmt: skip
_BACKBONES = (
    "Beit", "Bit", "ConvNext", "ConvNextV2", "DINOv3ConvNext", "DINOv3ViT", "Dinov2", "Dinov2WithRegisters",
    "FocalNet", "HGNetV2", "MaskFormerSwin", "PvtV2", "ResNet", "Swin", "Swinv2",
)  # fmt: skip

_TEXTS = {"input_ids": SHARED, "attention_mask": SHARED, "position_ids": SHARED, "token_type_ids": SHARED}
_SHARED = {"text_embeds": SHARED, "text_model_output": SHARED}
_METHODS = {"get_image_features": Signature(inputs={"pixel_values": "image"})}
_CONTRASTIVE = Signature(
    inputs={"pixel_values": "image", **_TEXTS},
    outputs={"logits_per_image": "logits", "logits_per_text": partial(Logits, axis=1), **_SHARED},
    methods=_METHODS,
)
_SIGMOID = Signature(  # a score for each pair, no distribution over texts
    inputs={"pixel_values": "image", **_TEXTS},
    outputs={"logits_per_text": partial(Invariant, axis=1), **_SHARED},
    methods=_METHODS,
)

_NAFLEX = Signature(inputs={"pixel_values": "image", **_TEXTS}, layout=PATCHES)
_NAFLEX_SIGMOID = replace(_SIGMOID, layout=PATCHES, methods={"get_image_features": _NAFLEX})

EMBEDDING = {
    **{f"{family}Model": _BACKBONE for family in _MODELS},
    **{f"{family}Backbone": _FEATURE_MAPS for family in _BACKBONES},
    "CLIPVisionModelWithProjection": _BACKBONE,
    "MetaClip2VisionModelWithProjection": _BACKBONE,
    "CLIPModel": _CONTRASTIVE,
    "ChineseCLIPModel": _CONTRASTIVE,
    "AltCLIPModel": _CONTRASTIVE,
    "MetaClip2Model": _CONTRASTIVE,
    "SiglipModel": _SIGMOID,
    "Siglip2Model": _NAFLEX_SIGMOID,
    "Siglip2VisionModel": _NAFLEX,
    "Siglip2ForImageClassification": replace(_NAFLEX, outputs={"logits": "logits"}),
}
"""Backbones, and models of pictures and texts, of ``transformers``."""
