"""What a model class takes and returns, as data."""

from __future__ import annotations

from functools import partial
from typing import Any

from ...adapter.signature import Signature as Signature
from ...adapter.spec import EntrySpec, Size
from ...kinds import Image, Invariant, Kind

SHARED = partial(Invariant, axis=None)
"""Belongs to the whole call, not to a picture each: texts, their embeddings."""


def features(data: Any, *, size: Size) -> Kind:
    """Read hidden states: maps ``(B, C, H, W)`` move as pictures, tokens ``(B, N, C)`` do not move."""
    return Image(data) if data.ndim == 4 else Invariant(data)


HIDDEN: dict[str, EntrySpec] = {"hidden_states": features, "reshaped_hidden_states": "image"}
"""Hidden states: maps move; tokens and attentions stay in the frame of the upright picture."""
