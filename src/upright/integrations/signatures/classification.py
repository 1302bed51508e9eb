"""Image classification."""

from .base import Signature

_CLASSIFIER = Signature(inputs={"pixel_values": "image"}, outputs={"logits": "logits"})

CLASSIFICATION = {
    f"{family}ForImageClassification": _CLASSIFIER
    for family in ("ViT", "DeiT", "Beit", "ResNet", "ConvNext", "ConvNextV2", "Swin", "Swinv2", "Dinov2")
}
"""Classifiers of ``transformers``."""
