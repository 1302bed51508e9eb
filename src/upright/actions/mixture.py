"""Gradients from a moved value into the pose: the pose's weights over the group as mixing coefficients.

``act_mixed(w, x)`` is ``Σ_g w_g · act(g, x)``. With one-hot weights only the chosen element is applied, so
the value is exact; the backward pass gives ``∂/∂w_g = ⟨grad, act(g, x)⟩`` for every element of the group.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor

from ..groups.base import Element, FiniteGroup
from ..kinds import Invariant, Kind
from .registry import act

K = TypeVar("K", bound=Kind)


class _Chosen(torch.autograd.Function):
    """Forward: the value as it is. Backward: to the value unchanged, to the weights as documented above."""

    @staticmethod
    def forward(
        ctx: Any, moved: Tensor, weights: Tensor, x: Kind, group: FiniteGroup, inverse: bool
    ) -> Tensor:
        ctx.x, ctx.group, ctx.inverse, ctx.dtype = x, group, inverse, weights.dtype
        return moved.view_as(moved)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,) = gradients
        slopes = []
        with torch.no_grad():
            for g in ctx.group.elements(gradient.device):
                moved = act(g.inverse() if ctx.inverse else g, ctx.x).data
                slopes.append((gradient * moved).flatten(1).to(ctx.dtype).sum(1))
        return gradient, torch.stack(slopes, 1), None, None, None


def act_mixed(g: Element, weights: Tensor | None, x: K, *, inverse: bool = False) -> K:
    """Move ``x`` by ``g`` (or ``~g``), letting gradients flow into the weights of the pose.

    Args:
        g: The chosen elements of a finite group, shape ``(B,)``.
        weights: Weights over the group, shape ``(B, |G|)``: one-hot rows (straight-through, Gumbel) move by
            the chosen element only, other rows (soft) give the weighted mean of all moved copies. None: just
            `act`.
        x: A kind with floating-point data; square canvas, since all elements of the group are needed.
        inverse: Move by the inverse elements.

    Returns:
        The moved value.
    """
    if weights is None or isinstance(x, Invariant) or not x.data.is_floating_point():
        unmixed: K = act(g.inverse() if inverse else g, x)
        return unmixed
    group = g.group
    if not isinstance(group, FiniteGroup):
        raise TypeError(f"weights need a finite group, got {group}")
    if is_one_hot(weights):
        moved: K = act(g.inverse() if inverse else g, x)
        if not weights.requires_grad:
            return moved
        frozen = x.replace(data=x.data.detach())
        return moved.replace(data=_Chosen.apply(moved.data, weights, frozen, group, inverse))  # type: ignore[no-untyped-call]
    total: Tensor | None = None
    for h in group.elements(g.device):
        moved = act(h.inverse() if inverse else h, x)
        weight = weights[:, int(h.value)].to(moved.data.dtype).view(-1, *[1] * (moved.data.ndim - 1))
        total = moved.data * weight if total is None else total + moved.data * weight
    assert total is not None
    return moved.replace(data=total)


def is_one_hot(weights: Tensor) -> bool:
    """Say whether every row has a single one and zeros elsewhere."""
    return bool(((weights == 0) | (weights == 1)).all()) and bool((weights.sum(-1) == 1).all())
