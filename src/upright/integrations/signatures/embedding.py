"""Backbones and embeddings: pooled features do not move, maps do; texts are handed through."""

from functools import partial

from ...kinds import Logits
from .base import HIDDEN, SHARED, Signature, features

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

EMBEDDING = {
    **{f"{family}Model": _BACKBONE for family in _MODELS},
    **{f"{family}Backbone": _FEATURE_MAPS for family in _BACKBONES},
    "CLIPVisionModelWithProjection": _BACKBONE,
    "MetaClip2VisionModelWithProjection": _BACKBONE,
    "CLIPModel": _CONTRASTIVE,
    "ChineseCLIPModel": _CONTRASTIVE,
    "AltCLIPModel": _CONTRASTIVE,
    "MetaClip2Model": _CONTRASTIVE,
    "SiglipModel": _CONTRASTIVE,
}
"""Backbones, and models of pictures and texts, of ``transformers``."""
