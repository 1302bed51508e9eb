"""Laws of canonicalizers of clouds: groups of space that are not finite, and permutations."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..actions import act
from ..canonicalizers import Canonicalizer, Pose
from ..groups.base import Element
from ..groups.space import SpatialGroup
from ..kinds import Kind
from ..kinds_space import Cloud
from .actions import MakeKind
from .models import _draw, _poses, _unmoved
from .tolerances import errors, require, require_true

FORM_TOLERANCE = 1e-6
"""Allowed difference of canonical forms in float64, relative to the size of the cloud."""


def check_clouds(
    canonicalizers: Sequence[Canonicalizer],
    make_x: type[Kind] | MakeKind,
    share: float,
    tolerance: float | None,
    generator: torch.Generator,
) -> None:
    """Check canonicalizers that differ in their weights only; see `upright.testing.assert_canonical`."""
    group = canonicalizers[0].group
    follows, counted, moves, apart = 0, 0, 0, 0.0
    for c in canonicalizers:
        x = _draw(make_x, group, 16, generator)
        x = Cloud(x.data[..., :3].double())  # features are not looked at
        g = group.sample(len(x.data), generator=generator)
        moved = act(g, x)
        moves += int((~_unmoved(x, moved, g)).sum())
        pose, after = _poses(c, x.data, moved.data)
        for found in (pose, after):
            _check_members(found)
        form, other = (act(p.element.inverse(), y).data for p, y in ((pose, x), (after, moved)))
        size = (x.data - x.data.mean(1, keepdim=True)).flatten(1).norm(dim=1)
        clear = ~(pose.is_tied | after.is_tied)
        follows += int(((errors(other, form) <= FORM_TOLERANCE * size) & clear).sum())
        counted += int(clear.sum())
        apart = max(apart, float(pose.element.distance(pose.element[:1]).max()))
        if tolerance is not None and pose.log_probs is not None and after.log_probs is not None:
            a, b = (p.log_probs.sort(-1).values for p in (pose, after))  # type: ignore[union-attr]
            gap = errors(b, a) / max(1.0, float(a.abs().max()))
            require(f"{group}: log-probabilities move with the input", gap, tolerance, on=g)
    require_true(f"{group}: inputs move, or the check says nothing", moves > 0)
    law = f"{group}: canonical forms of moved inputs are equal on {share:.1%} of inputs without ties"
    require_true(law, follows >= share * counted and counted > 0, f"they are on {follows} of {counted}")
    require_true(f"{group}: poses differ between inputs, or the check says nothing", apart > 1e-6)


def _check_members(pose: Pose) -> None:
    """Check that poses, and all that are listed, are elements of the group, and the chosen one is first."""
    listed = pose.element if pose.candidates is None else pose.candidates
    group = pose.group
    if isinstance(group, SpatialGroup):
        rotation = group.rotation(listed)
        gap = (rotation.mT @ rotation - torch.eye(3, dtype=rotation.dtype)).abs().amax((-1, -2))
        require(f"{group}: axes of poses are orthonormal", _each(gap), 1e-6, on=pose.element)
        if group.is_proper:
            hand = (torch.linalg.det(rotation) - 1).abs()
            require(f"{group}: poses do not reflect", _each(hand), 1e-6, on=pose.element)
    else:
        every = torch.arange(listed.value.shape[-1]).expand(listed.value.shape)
        gap = (listed.value.sort(-1).values - every).abs().amax(-1)
        require(f"{group}: poses are permutations", _each(gap), 0, on=pose.element)
    if pose.candidates is not None:
        first = pose.element.distance(Element(group, pose.candidates.value[:, 0]))
        require("the chosen element is the first candidate", first, 1e-9, on=pose.element)


def _each(gaps: Tensor) -> Tensor:
    """Return the largest of each row, ``(B,)``."""
    worst: Tensor = gaps.double().flatten(1).amax(1) if gaps.ndim > 1 else gaps.double()
    return worst
