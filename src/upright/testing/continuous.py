"""Laws of canonicalizers of continuous groups of the plane."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..actions import act
from ..canonicalizers import Canonicalizer, Pose
from ..groups.base import Element
from ..groups.planar import Dihedral, PlanarGroup
from ..groups.rotations import O2, SO2
from ..kinds import Kind
from .actions import MakeKind
from .models import _draw, _poses
from .tolerances import errors, require, require_true

QUARTER_TOLERANCE = 1e-4
"""Allowed pose error in radians where nothing is resampled."""


def check_continuous(
    canonicalizers: Sequence[Canonicalizer],
    make_x: type[Kind] | MakeKind,
    degrees: tuple[float, float],
    generator: torch.Generator,
) -> None:
    """Check canonicalizers that differ in their weights only; see `upright.testing.assert_canonical`."""
    group = canonicalizers[0].group
    if not isinstance(group, (SO2, O2)):
        raise TypeError(f"expected a canonicalizer of SO2 or O2, got one of {group}")
    gaps, turns = [], []
    for c in canonicalizers:
        x = _draw(make_x, group, 16, generator)
        x = x.replace(data=x.data.double())
        g = on_the_grid(group, len(x.data))
        pose, after = _poses(c, x.data, act(g, x).data)
        clear = ~(pose.is_tied | after.is_tied)
        require_true(f"{group}: most inputs do not tie", bool(clear.double().mean() >= 0.5))
        gap = g.compose(pose.element).distance(after.element)
        law = f"{group}: c(act(g, x)) is g @ c(x) under quarter turns" + " and flips" * isinstance(group, O2)
        require(law, torch.where(clear, gap, 0.0), QUARTER_TOLERANCE, on=g)
        _check_lists(pose)
        h = group.sample(len(x.data), generator=generator)
        with torch.no_grad():
            moved = c(act(h, x).data)
        gaps.append(torch.rad2deg(h.compose(pose.element).distance(moved.element))[clear])
        turns.append(group.angle(pose.element)[clear])
    spread = torch.cat(turns)
    away = 1 - float(torch.stack([spread.cos().mean(), spread.sin().mean()]).norm())
    require_true(
        f"{group}: poses differ between inputs, or the check says nothing",
        away > 1e-6,
        f"they spread {away:.2g}",
    )
    gap = torch.cat(gaps)
    for share, limit in zip((0.5, 0.95), degrees, strict=True):
        found = gap.quantile(share).reshape(1)
        require(f"{group}: {share:.0%} of drawn moves are followed, in degrees", found, limit)


def on_the_grid(group: SO2 | O2, count: int) -> Element:
    """Return the quarter turns but the identity, and in O2 the flips, over and over; shape ``(count,)``."""
    order = 8 if isinstance(group, O2) else 4
    number = torch.arange(count) % (order - 1) + 1
    named = Dihedral(4).element(number)
    angle, flips = Dihedral(4).angle(named), Dihedral(4).is_reflected(named)
    return group.element(angle, reflected=flips) if isinstance(group, O2) else group.element(angle)


def _check_lists(pose: Pose) -> None:
    """Check that candidates and density say what the pose says."""
    if pose.candidates is not None:
        first = pose.element.distance(pose.candidates[:, 0])
        require("the chosen element is the first candidate", first, 1e-9, on=pose.element)
    if pose.log_density is None or pose.grid is None:
        return
    total = pose.log_density.logsumexp(-1)
    require("densities are normalised", errors(total, 0 * total), 1e-5)
    require("the density is high at the chosen element", _rank(pose), 0.5, on=pose.element)


def _rank(pose: Pose) -> Tensor:
    """Return which share of the cells is likelier than the cell nearest to the chosen element, ``(B,)``."""
    assert pose.grid is not None
    assert pose.log_density is not None
    group = pose.group
    assert isinstance(group, PlanarGroup)
    away = pose.element.reshape(-1, 1).distance(pose.grid.reshape(1, -1))
    nearest = pose.log_density.gather(-1, away.argmin(-1, keepdim=True))
    rank: Tensor = (pose.log_density > nearest + 1e-9).double().mean(-1)
    return torch.where(torch.isfinite(nearest.squeeze(-1)), rank, math.inf)
