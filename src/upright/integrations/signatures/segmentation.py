"""Segmentation: score maps and masks move with the picture, and so do the maps that a loss needs."""

from collections.abc import Mapping
from functools import partial

from ...adapter.spec import EntrySpec
from ...kinds import Invariant
from .base import HIDDEN, Signature, features

_SEMANTIC = Signature(
    inputs={"pixel_values": "image", "labels": "mask"}, outputs={"logits": "mask", **HIDDEN}
)
_MASKS: dict[str, EntrySpec] = {"masks_queries_logits": "mask"}
_MAPS: dict[str, EntrySpec] = {
    **_MASKS,
    **HIDDEN,
    "encoder_last_hidden_state": features,
    "pixel_decoder_last_hidden_state": features,
    "encoder_hidden_states": features,
    "pixel_decoder_hidden_states": features,
    "auxiliary_logits": _MASKS,
}


def _queries(outputs: Mapping[str, EntrySpec], padding: str | None = "pixel_mask") -> Signature:
    inputs = {"pixel_values": "image", "mask_labels": "mask"}
    return Signature(inputs=inputs, outputs=outputs, padding=padding, averages=False)


_ONEFORMER: dict[str, EntrySpec] = {
    **_MAPS,
    "auxiliary_predictions": _MASKS,
    "transformer_decoder_hidden_states": _MASKS,
    "transformer_decoder_auxiliary_predictions": _MASKS,
    "transformer_decoder_mask_predictions": "mask",
}
_FAMILIES = (
    "Beit", "DPT", "Data2VecVision", "MobileNetV2", "MobileViT", "MobileViTV2", "Segformer", "UperNet",
)  # fmt: skip

SEGMENTATION = {
    **{f"{family}ForSemanticSegmentation": _SEMANTIC for family in _FAMILIES},
    "CLIPSegForImageSegmentation": Signature(
        inputs={"pixel_values": "image", "labels": "mask"},
        outputs={"logits": "mask", "decoder_output": {"logits": "mask"}},
    ),
    "MaskFormerForInstanceSegmentation": _queries(_MAPS),
    "Mask2FormerForUniversalSegmentation": _queries(
        {**_MAPS, "transformer_decoder_hidden_states": partial(Invariant, axis=1)}
    ),
    "OneFormerForUniversalSegmentation": _queries(_ONEFORMER),
    "EomtForUniversalSegmentation": _queries({**_MASKS, **HIDDEN}, padding=None),
}
"""Semantic, instance and panoptic segmentation of ``transformers``."""
