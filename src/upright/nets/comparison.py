"""Orbit comparison: describe every turned copy, then judge all descriptions together."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..groups.base import FiniteGroup
from ..groups.parse import parse_planar_group
from .orbit import turned_copies


class OrbitComparer(nn.Module):
    """Turns any network that describes pictures into an equivariant scorer that compares the copies.

    The network describes every copy, ``z[k](x) = network(act(~k, x))``. A small judge reads the descriptions
    of the whole orbit in the order in which the element to be scored meets them,
    ``score[g](x) = judge(z[g @ k](x) for all k)``, so it can weigh the copies against each other, for the
    price of one orbit.

    Args:
        network: Maps pictures ``(N, C, s, s)`` to descriptions ``(N, outputs)``.
        group: The group, or its name.
        outputs: Length of a description.
        hidden: Width of the judge.
        dropout: Share of the judge's hidden values that are dropped in training.
        mirror: In evaluation, average over the picture and its mirror image, as in `OrbitScorer`; may be
            switched on later. Steadier scores for twice the time.
    """

    order_seen: Tensor
    inverses: Tensor

    def __init__(
        self,
        network: nn.Module,
        group: FiniteGroup | str,
        *,
        outputs: int = 64,
        hidden: int = 64,
        dropout: float = 0.2,
        mirror: bool = False,
    ) -> None:
        super().__init__()
        parsed = parse_planar_group(group)
        if mirror and parsed.order > parsed.n:
            raise ValueError(f"mirror=True makes the reflections of {parsed} tie; use it with rotations only")
        self.mirror = mirror
        self.network = network
        self.group = parsed
        self.is_exact_on_grid = parsed.is_exact_on_grid
        elements, order = parsed.elements(), parsed.order
        rows = [(g.expand(order) @ elements).value for g in elements]
        self.register_buffer("order_seen", torch.stack(rows), persistent=False)  # [g, k]: index of g @ k
        self.register_buffer("inverses", elements.inverse().value, persistent=False)
        self.read = nn.Linear(order * outputs, hidden)
        self.dropout = nn.Dropout(dropout)
        self.judge = nn.Linear(hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Score every element.

        Args:
            x: Square thumbnails, shape ``(B, C, s, s)``.

        Returns:
            Scores, shape ``(B, |G|)``.
        """
        scores = self._scores(x)
        if self.mirror and not self.training:  # the mirror image of pose g has the pose ~g
            scores = (scores + self._scores(x.flip(-1))[:, self.inverses]) / 2
        return scores

    def _scores(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # copies must not differ by rounding
            copies = turned_copies(x, self.group)
        described: Tensor = self.network(copies.flatten(0, 1))
        return self.scores_of(described.reshape(self.group.order, x.shape[0], -1))

    def scores_of(self, described: Tensor) -> Tensor:
        """Judge the descriptions of all copies: ``(|G|, B, outputs)`` to ``(B, |G|)``."""
        order, width = self.group.order, self.read.in_features // self.group.order
        if described.ndim != 3 or described.shape[0] != order or described.shape[2] != width:
            raise ValueError(
                f"the network must return descriptions of length {width}, shape ({order}, B, {width}) "
                f"for all copies, got {tuple(described.shape)}"
            )
        with torch.autocast(described.device.type, enabled=False):
            own = described.to(self.read.weight.dtype)
            seen = own[self.order_seen].permute(2, 0, 1, 3).flatten(2)  # (B, g, k and outputs)
            scores: Tensor = self.judge(self.dropout(F.relu(self.read(seen)))).squeeze(-1)
        return scores
