"""Weights of a sum of energies, from upright pictures."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..groups.base import FiniteGroup
from ..groups.parse import parse_finite_group
from .base import Energy, Sum
from .orbit import CHUNK, energies_at


def combined(
    energies: Sequence[Energy], pictures: Tensor, group: FiniteGroup | str, *, chunk: int = CHUNK
) -> Energy:
    """Return the weighted sum that makes upright pictures most likely upright.

    Weights ``w`` minimise the cross-entropy of the identity under ``softmax(-Σ wᵢ Eᵢ)`` over the orbit: a
    convex problem in as many unknowns as there are energies. The temperature of the sum is 1.

    Args:
        energies: The terms; those of one model share its runs.
        pictures: Upright pictures, shape ``(N, C, H, W)``, other than the references of the terms.
        group: The finite group.
        chunk: Most moved pictures at once.
    """
    parsed = parse_finite_group(group)
    poses = parsed.elements(pictures.device).expand(len(pictures), parsed.order)
    with torch.no_grad():
        found = [energies_at(energy, pictures, poses, chunk=chunk) for energy in energies]
    weights = fitted_weights(torch.stack(found, -1))
    return Sum(tuple((weight, energy) for weight, energy in zip(weights.tolist(), energies, strict=True)))


def fitted_weights(energies: Tensor, penalty: float = 1e-3) -> Tensor:
    """Return the weights of `combined` from energies over orbits of upright pictures.

    Args:
        energies: Shape ``(N, |G|, K)``; element 0 is the identity.
        penalty: Of the squared weights of standardised energies; keeps them finite where poses are clear.

    Returns:
        Weights, shape ``(K,)``, float64.
    """
    energies = energies.double()
    scale = energies.std(1).mean(0)
    scale = scale.maximum(1e-6 * (1 + energies.abs().mean((0, 1))))  # one that no pose changes counts nothing
    standard = energies / scale
    weights = torch.ones(standard.shape[-1], dtype=torch.float64, device=standard.device)
    for _ in range(50):  # Newton
        probs = torch.softmax(-(standard @ weights), 1).unsqueeze(-1)  # (N, |G|, 1)
        mean = (probs * standard).sum(1)
        slope = (standard[:, 0] - mean).mean(0) + penalty * weights
        centred = standard - mean.unsqueeze(1)
        curvature = torch.einsum("ngk,ngl->kl", probs * centred, centred) / len(standard)
        eye = torch.eye(len(weights), dtype=torch.float64, device=weights.device)
        step = torch.linalg.solve(curvature + penalty * eye, slope)
        weights = weights - step * min(1.0, 2.0 / float(step.norm().clamp(min=1e-12)))
        if float(step.norm()) < 1e-9:
            break
    return weights / scale
