"""Object detection, closed and open vocabulary.

Predicted boxes are fractions of the picture without its padding, as ``post_process_object_detection`` reads
them; boxes of targets are fractions of the padded canvas, as the image processors make them. Reference points
of deformable decoders are boxes or points alike, and move; so do feature maps. What stays in the frame of the
upright picture: tokens, attentions, embeddings of patches, box coordinates before the sigmoid
(``enc_outputs_coord_logits``, ``init_reference_points`` of the RT-DETR family) and the distributions of
D-FINE over the sides of boxes.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from ...adapter.spec import EntrySpec, Size
from ...kinds import Boxes, Invariant, Kind, Points
from .base import SHARED, Signature, features

BOXES = partial(Boxes, format="cxcywh", normalized=True)
"""Centres, widths and heights as fractions of the picture."""


def references(data: Any, *, size: Size) -> Kind:
    """Read reference points: boxes where they have four columns, else points; fractions of the picture."""
    if data.shape[-1] == 4:
        return BOXES(data, size=size)
    return Points(data, size=size, normalized=True)


_TARGETS = {"boxes": BOXES, "masks": "mask"}
_BOXES = {"pred_boxes": BOXES, "auxiliary_outputs": {"pred_boxes": BOXES, "ref_points": BOXES}}
_MASKS = {**_BOXES, "pred_masks": "mask"}
_REFERENCES = {**_BOXES, "init_reference_points": references, "intermediate_reference_points": references}
_RT_DETR = {
    **_BOXES,
    "intermediate_reference_points": BOXES,
    "initial_reference_points": BOXES,
    "enc_topk_bboxes": BOXES,
    "encoder_last_hidden_state": features,
    "encoder_hidden_states": features,
    "denoising_meta_values": SHARED,
}
_PICTURE: dict[str, EntrySpec] = {"pixel_values": "image", "labels": _TARGETS}


def _detector(outputs: Any, padding: str | None = "pixel_mask", **inputs: Any) -> Signature:
    return Signature({**_PICTURE, **inputs}, outputs, padding=padding, averages=False)


_TEXTS: dict[str, Any] = {"input_ids": SHARED, "attention_mask": SHARED}
_OWL = _detector({"pred_boxes": BOXES, "text_model_output": SHARED}, padding=None, **_TEXTS)
_GROUNDED = _detector({**_REFERENCES, "encoder_pred_boxes": BOXES})

_LISTS: dict[str, EntrySpec] = {"boxes": "boxes", "masks": "mask", "keypoints": "points"}
_TORCHVISION = Signature({"images": "image", "targets": _LISTS}, _LISTS, averages=False)
TORCHVISION = dict.fromkeys(("GeneralizedRCNN", "RetinaNet", "SSD", "FCOS"), _TORCHVISION)
"""Detectors of ``torchvision``, and what is like them; Faster and Mask R-CNN are ``GeneralizedRCNN``.

They take a list of pictures of any sizes and, while training, one dictionary of targets each; they return one
dictionary a picture, or a dictionary of losses. Boxes and key points are in pixels.
"""

DETECTION = {
    **dict.fromkeys(
        (
            "DetrForObjectDetection",
            "ConditionalDetrForObjectDetection",
            "TableTransformerForObjectDetection",
        ),
        _detector(_BOXES),
    ),
    **dict.fromkeys(("DetrForSegmentation", "ConditionalDetrForSegmentation"), _detector(_MASKS)),
    "DeformableDetrForObjectDetection": _detector(_REFERENCES),
    **dict.fromkeys(("RTDetrForObjectDetection", "RTDetrV2ForObjectDetection"), _detector(_RT_DETR)),
    "DFineForObjectDetection": _detector(
        {**_RT_DETR, "intermediate_hidden_states": partial(Invariant, axis=1)}
    ),
    "YolosForObjectDetection": _detector(_BOXES, padding=None),
    **dict.fromkeys(("OwlViTForObjectDetection", "Owlv2ForObjectDetection"), _OWL),
    **dict.fromkeys(("GroundingDinoForObjectDetection", "MMGroundingDinoForObjectDetection"), _GROUNDED),
    **TORCHVISION,
}
"""Detectors of ``transformers`` and ``torchvision``."""
