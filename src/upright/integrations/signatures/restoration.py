"""Pictures from pictures: the result moves with the picture, also where it is larger."""

from .base import HIDDEN, Signature

RESTORATION = {
    "Swin2SRForImageSuperResolution": Signature(
        inputs={"pixel_values": "image", "labels": "image"}, outputs={"reconstruction": "image", **HIDDEN}
    ),
}
"""Super-resolution of ``transformers``."""
