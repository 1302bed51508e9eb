"""What a model class takes and returns, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ...adapter.spec import KindSpec


@dataclass(frozen=True)
class Signature:
    """What a model class takes and returns that moves with the picture.

    Attributes:
        inputs: Kinds of the arguments by name, the picture first; arguments that a call leaves out are
            skipped, those not named are handed through untouched.
        outputs: Kinds of the result's entries by name; entries that a result lacks are skipped, those not
            named are invariant.
        padding: Name of the argument, a mask ``(B, H, W)`` of ones where there is picture and zeros where
            there is padding below or to the right of it, for models that take batches of differently sized
            pictures; None: there is no such argument.
    """

    inputs: Mapping[str, KindSpec]
    outputs: Mapping[str, KindSpec] = field(default_factory=dict)
    padding: str | None = None
