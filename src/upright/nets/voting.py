"""Orbit voting: every turned copy says how it is turned, and all votes count."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..groups.base import FiniteGroup
from ..groups.parse import parse_planar_group
from .orbit import turned_copies


class OrbitVoter(nn.Module):
    """Turns any classifier of poses into an equivariant scorer.

    The network guesses the pose of every copy ``act(~k, x)``; a copy of a picture whose pose is ``g`` has the
    pose ``~k @ g``. Hence ``score[g](x) = Σ_k log p(~k @ g | act(~k, x))``: as many opinions as the group has
    elements, for the price of one orbit. Equal pictures get equal scores bit for bit, because the votes are
    added in the order of their size.

    Args:
        network: Maps pictures ``(N, C, s, s)`` to logits ``(N, |G|)`` over the poses.
        group: The group, or its name.
    """

    votes: Tensor

    def __init__(self, network: nn.Module, group: FiniteGroup | str) -> None:
        super().__init__()
        parsed = parse_planar_group(group)
        self.network = network
        self.group = parsed
        self.is_exact_on_grid = parsed.is_exact_on_grid
        elements, order = parsed.elements(), parsed.order
        rows = [(k.inverse().expand(order) @ elements).value for k in elements]
        self.register_buffer("votes", torch.stack(rows), persistent=False)  # [k, g]: the pose of copy k

    def forward(self, x: Tensor) -> Tensor:
        """Score every element.

        Args:
            x: Square thumbnails, shape ``(B, C, s, s)``.

        Returns:
            Scores, shape ``(B, |G|)``.
        """
        return self.scores_of(self.guesses(x))

    def guesses(self, x: Tensor) -> Tensor:
        """Return the log-probabilities of the poses of all copies, shape ``(|G|, B, |G|)``, copies first."""
        order = self.group.order
        with torch.autocast(x.device.type, enabled=False):  # copies must not differ by rounding
            copies = turned_copies(x, self.group)
        logits: Tensor = self.network(copies.flatten(0, 1))
        if logits.shape != (order * x.shape[0], order):
            raise ValueError(
                f"the network must return one logit per pose, shape ({order * x.shape[0]}, {order}), "
                f"got {tuple(logits.shape)}"
            )
        own = torch.promote_types(logits.dtype, torch.float32)
        return F.log_softmax(logits.to(own), -1).view(order, -1, order)

    def scores_of(self, guesses: Tensor) -> Tensor:
        """Add the votes of all copies up: ``(|G|, B, |G|)`` to ``(B, |G|)``."""
        index = self.votes.unsqueeze(1).expand_as(guesses)
        ballots = guesses.gather(-1, index).sort(0).values
        total = ballots[0]
        for ballot in ballots[1:]:
            total = total + ballot
        return total
