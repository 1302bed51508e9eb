"""Poses while training: what is seen, what is counted, and poses of pictures before they were turned."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..canonicalizers import Canonicalizer, NetworkCanonicalizer, Pose
from ..groups.base import Element, FiniteGroup
from ..kinds import Image
from ..losses import moved_log_probs
from ..nets import thumbnail

NEAR_DEGREES = 15.0
"""How far a pose of a continuous group may be from the identity to count as upright in `identity_metrics`."""


def identity_metrics(pose: Pose) -> dict[str, Tensor]:
    """Return the share of pictures whose likeliest pose is the identity, and of those where two tie.

    A tie is no identity: equal scores choose element 0 whatever the picture. In continuous groups, poses
    within `NEAR_DEGREES` of the identity count, or within as much of another distance (30% of scale).
    """
    tied = pose.is_tied
    if not isinstance(pose.group, FiniteGroup):
        away = pose.element.distance(pose.group.identity(device=tied.device))
        upright = away <= math.radians(NEAR_DEGREES)
    else:
        index = pose.element.value if pose.log_probs is None else pose.log_probs.argmax(-1)
        upright = index == 0
    return {"identity_rate": (upright & ~tied).float().mean(), "ties": tied.float().mean()}


def turned_back(pose: Pose, g: Element) -> Pose:
    """Return the poses that pictures had before they were moved by ``g``, if the canonicalizer follows."""
    back = g.inverse()
    element = back.compose(pose.element)
    if pose.grid is not None:  # the density stays, the cells move
        listed = None if pose.candidates is None else back.reshape(-1, 1).compose(pose.candidates)
        cells = back.reshape(-1, 1).compose(pose.grid.reshape(1, -1))
        return replace(pose, element=element, candidates=listed, grid=cells)
    if pose.log_probs is None:
        return pose
    return Pose(element, moved_log_probs(pose.log_probs, back), features=pose.features)


def small(pictures: Any, canonicalizer: Canonicalizer) -> Any:
    """Return pictures no larger than twice what the canonicalizer looks at, and lists as one batch.

    What lies in space stays as it is.
    """
    if canonicalizer.reads is not Image:
        return pictures
    pictures = in_range(pictures, canonicalizer)
    size = canonicalizer.size if isinstance(canonicalizer, NetworkCanonicalizer) else None
    if size is None:
        return pictures
    if isinstance(pictures, Tensor):
        return thumbnail(pictures.float(), 2 * size) if min(pictures.shape[-2:]) > 2 * size else pictures
    shortest = min(min(picture.shape[-2:]) for picture in pictures)
    side = 2 * size if shortest >= 2 * size else size
    channels = max(picture.shape[0] for picture in pictures)
    return torch.cat([thumbnail(p.float().expand(channels, -1, -1).unsqueeze(0), side) for p in pictures])


def in_range(pictures: Any, canonicalizer: Canonicalizer) -> Any:
    """Return integer pictures, which count to 255, as floats in 0…1, where the canonicalizer minds the range.

    Canonicalizers know that of integers, but augmentation makes floats of them.
    """
    if not isinstance(canonicalizer, NetworkCanonicalizer) or canonicalizer.standardize:
        return pictures
    if not isinstance(pictures, Tensor):
        return [in_range(picture, canonicalizer) for picture in pictures]
    return pictures if pictures.is_floating_point() else pictures.float() / 255
