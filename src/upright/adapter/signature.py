"""What a model takes and returns that moves with the picture, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .spec import EntrySpec

InputSpec = EntrySpec
"""A kind, or kinds by entry where an argument is a list of one dictionary a picture (targets)."""


@dataclass(frozen=True)
class Signature:
    """What a model class takes and returns that moves with the picture.

    Attributes:
        inputs: Kinds of the arguments by name, the picture first; arguments that a call leaves out are
            skipped, those not named are handed through untouched, and cut with the batch where they have one
            entry a picture. Arguments that do not belong to a picture each, such as the texts of CLIP, are
            ``partial(Invariant, axis=None)``.
        outputs: Kinds of the result's entries by name; entries that a result lacks are skipped, those not
            named are invariant and have one row a picture.
        padding: Name of the argument, a mask ``(B, H, W)`` of ones where there is picture and zeros where
            there is padding below or to the right of it, for models that take batches of differently sized
            pictures; None: there is no such argument.
        methods: Further methods of the model that take pictures, by name.
        averages: Whether results of several poses can be averaged entry by entry; not so for sets whose
            entries change places (queries of detectors).
    """

    inputs: Mapping[str, InputSpec]
    outputs: Mapping[str, EntrySpec] = field(default_factory=dict)
    padding: str | None = None
    methods: Mapping[str, Signature] = field(default_factory=dict)
    averages: bool = True


def unwrapped(model: Any) -> Any:
    """Return the model inside ``torch.compile``, data-parallel and PEFT wrappers."""
    for _ in range(8):
        if hasattr(model, "get_base_model"):  # PEFT
            model = model.get_base_model()
        elif type(model).__name__ == "OptimizedModule":
            model = model._orig_mod
        elif type(model).__name__ in ("DataParallel", "DistributedDataParallel"):
            model = model.module
        else:
            break
    return model
