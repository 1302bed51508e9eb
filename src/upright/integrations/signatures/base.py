"""What a model class takes and returns, as data."""

from __future__ import annotations

from functools import partial

from ...adapter.signature import Signature as Signature
from ...kinds import Invariant

SHARED = partial(Invariant, axis=None)
"""Belongs to the whole call, not to a picture each: texts, their embeddings."""
