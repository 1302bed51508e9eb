"""Energies over an orbit: pictures × poses in chunks of bounded size."""

from __future__ import annotations

import torch
from torch import Tensor

from .._checks import check_batch, check_positive
from ..actions import act
from ..groups.base import Element
from ..groups.planar import PlanarGroup
from ..kinds import Border, Image
from .base import Energy

CHUNK = 64
"""Most moved pictures that are held, and handed to the predictor, at once."""


def energies_at(
    energy: Energy, pictures: Tensor, poses: Element, *, chunk: int = CHUNK, border: Border = "edge"
) -> Tensor:
    """Return the energies of pictures turned back by candidate poses: ``energy(act(~g, x))``.

    Args:
        energy: The energy.
        pictures: Shape ``(B, C, H, W)``.
        poses: Candidates, shape ``(B, K)``.
        chunk: Most moved pictures at once.
        border: What lies outside the pictures.

    Returns:
        Energies, shape ``(B, K)``; gradients flow to the poses where they are asked for.
    """
    check_positive("chunk", chunk)
    check_batch("poses", poses.shape[0], len(pictures), "pictures")
    batch, count = poses.shape
    back = poses.reshape(batch * count).inverse()
    owner = torch.arange(batch, device=pictures.device).repeat_interleave(count)
    index, found = [], []
    for together in _of_one_shape(back, pictures):
        for part in torch.split(together, chunk):
            moved = act(back[part], Image(pictures[owner[part]], border=border)).data
            index.append(part)
            found.append(energy(moved))
    if not found:
        return torch.zeros(batch, count, device=pictures.device)
    order = torch.cat(index).argsort()
    return torch.cat(found).to(pictures.device)[order].view(batch, count)


def _of_one_shape(g: Element, pictures: Tensor) -> list[Tensor]:
    """Return the numbers of elements that give pictures of one shape: all, or those that swap sides apart."""
    everything = torch.arange(len(g), device=pictures.device)
    group = g.group
    if pictures.shape[-1] == pictures.shape[-2] or not isinstance(group, PlanarGroup):
        return [everything]
    swaps = (group.quarter_turns(g) % 2 == 1).to(pictures.device)
    return [part for part in (everything[~swaps], everything[swaps]) if len(part)]
