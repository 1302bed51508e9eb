"""Embeddings of pictures, computed once and used in many calls: features together with the pose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_map

from ..canonicalizers.pose import Pose
from .spec import Size


@dataclass(frozen=True)
class Embedding:
    """What a model makes of pictures before it is asked anything about them.

    Made by ``robust.embed(pixel_values)``, handed to ``robust(image_embeddings=…, …)``. The model itself
    keeps nothing.

    Attributes:
        features: The model's features of the upright pictures, by the argument that takes them.
        pose: The poses.
        canvas: Height and width of the pictures as given.
        extents: Height and width of what each canvas holds without its padding.
        gated: Which pictures were left alone by a gate, shape ``(B,)``, bool.
        flagged: Which pictures a gate marked, shape ``(B,)``, bool.
    """

    features: Mapping[str, Any]
    pose: Pose
    canvas: Size
    extents: list[Size]
    gated: Tensor
    flagged: Tensor

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.extents)

    def select(self, index: Tensor) -> Embedding:
        """Return the embeddings of some of the pictures, index of shape ``(B,)``."""
        features, pose, gated, flagged = tree_map(
            lambda x: x[index.to(x.device)] if isinstance(x, Tensor) else x,
            (self.features, self.pose, self.gated, self.flagged),
        )
        extents = [self.extents[i] for i in index.tolist()]
        return replace(self, features=features, pose=pose, extents=extents, gated=gated, flagged=flagged)
