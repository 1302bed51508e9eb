"""Depth: the map moves with the picture, its values stay."""

from .base import HIDDEN, Signature

_DEPTH = Signature(
    inputs={"pixel_values": "image", "labels": "mask"},
    outputs={"predicted_depth": "mask", "domain_logits": "logits", **HIDDEN},
)

DEPTH = {f"{family}ForDepthEstimation": _DEPTH for family in ("DPT", "DepthAnything", "GLPN", "ZoeDepth")}
"""Depth estimation of ``transformers``."""
