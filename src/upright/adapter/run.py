"""What one call of an adapted model computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..canonicalizers.pose import Pose


@dataclass(frozen=True)
class Run:
    """Everything that one call computed.

    Attributes:
        output: What the model returns, in the frame of the user's pictures.
        pose: The poses at which the model was run; the identity for pictures that are left alone.
        passes: How many times the model ran on each picture, shape ``(B,)``, int64.
        gated: Which pictures the gate left alone, shape ``(B,)``, bool: the bare model's result, which is not
            equivariant; None without a gate.
        flagged: Which pictures the gate marked, shape ``(B,)``, bool; None without a gate.
    """

    output: Any
    pose: Pose
    passes: Tensor
    gated: Tensor | None = None
    flagged: Tensor | None = None
