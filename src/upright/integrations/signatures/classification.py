"""Image classification: class scores do not move."""

from .base import HIDDEN, Signature

_CLASSIFIER = Signature(inputs={"pixel_values": "image"}, outputs={"logits": "logits", **HIDDEN})
_TEACHER = Signature(
    inputs={"pixel_values": "image"},
    outputs={"logits": "logits", "cls_logits": "logits", "distillation_logits": "logits", **HIDDEN},
)
_FAMILIES = (
    "Beit", "Bit", "CLIP", "ConvNext", "ConvNextV2", "Cvt", "Data2VecVision",
    "DeiT", "Dinov2", "Dinov2WithRegisters", "EfficientNet", "FocalNet", "HGNetV2", "IJepa", "Levit",
    "MetaClip2", "MobileNetV1", "MobileNetV2", "MobileViT", "MobileViTV2", "PoolFormer", "Pvt", "PvtV2",
    "RegNet", "ResNet", "Segformer", "Siglip", "SwiftFormer", "Swin", "Swinv2", "TextNet", "ViT", "ViTMSN",
)  # fmt: skip

CLASSIFICATION = {
    **{f"{family}ForImageClassification": _CLASSIFIER for family in _FAMILIES},
    # its reshaped hidden states have their channels last and stay in the frame of the upright picture
    "HieraForImageClassification": Signature({"pixel_values": "image"}, {"logits": "logits"}),
    "DeiTForImageClassificationWithTeacher": _TEACHER,
    "LevitForImageClassificationWithTeacher": _TEACHER,
}
"""Classifiers of ``transformers``."""
