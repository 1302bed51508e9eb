"""What well-known model classes take and return: one file a task, one row a class.

A class is found by its name or that of a base class, so that nothing is imported for it. To teach the library
a class, add a row to the file of its task, and a small model of it to the file of that name in ``tests/zoo``.
"""

from __future__ import annotations

from typing import Any

from ...adapter.signature import unwrapped
from .base import Signature as Signature
from .classification import CLASSIFICATION
from .depth import DEPTH
from .detection import DETECTION
from .embedding import EMBEDDING
from .keypoints import KEYPOINTS
from .promptable import PROMPTABLE
from .restoration import RESTORATION
from .segmentation import SEGMENTATION
from .unknown import check_known as check_known

TASKS: dict[str, dict[str, Signature]] = {
    "Classification": CLASSIFICATION,
    "Backbones and embeddings": EMBEDDING,
    "Segmentation": SEGMENTATION,
    "Detection": DETECTION,
    "Promptable segmentation": PROMPTABLE,
    "Depth": DEPTH,
    "Key points": KEYPOINTS,
    "Restoration": RESTORATION,
}
"""Signatures by task and by the name of the model class."""

SIGNATURES: dict[str, Signature] = {name: one for rows in TASKS.values() for name, one in rows.items()}
"""Signatures by the name of the model class."""


def signature_of(model: Any) -> Signature | None:
    """Return what a model takes and returns, if its class or a base class is known.

    Wrappers of ``torch.compile``, data parallelism and PEFT are looked through.
    """
    for cls in type(unwrapped(model)).__mro__:
        if cls.__name__ in SIGNATURES:
            return SIGNATURES[cls.__name__]
    return None
