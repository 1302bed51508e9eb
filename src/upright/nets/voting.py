"""Orbit voting: turned copies of a picture say how they are turned, and all votes count."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..groups.base import FiniteGroup
from ..groups.parse import parse_planar_group
from ..groups.planar import FinitePlanarGroup
from .orbit import turned_copies

GRID = 4
"""Side of the coarse picture that `rough_pose` reads."""
STEPS = 256
"""Steps of brightness in which `rough_pose` tells values apart: 256 to a standard deviation."""


class OrbitVoter(nn.Module):
    """Turns any classifier of poses into an equivariant scorer.

    The network guesses the pose of copies ``act(~k, x)``; a copy of a picture whose pose is ``g`` has the
    pose ``~k @ g``. Hence ``score[g](x) = Σ_k log p(~k @ g | act(~k, x))``: as many opinions as the group has
    elements, for the price of one orbit. Equal pictures get equal scores bit for bit, because the votes are
    added in the order of their size.

    Fewer looks are enough to be equivariant: with ``looks=1`` each picture is moved to where its own coarse
    brightness puts it (see `rough_pose`) and judged there once, for the price of a plain classifier. Pictures
    whose 4×4 coarse copies are symmetric have no such place; they get an answer, but not a turned one where
    they are turned.

    Args:
        network: Maps pictures ``(N, C, s, s)`` to logits ``(N, |G|)`` over the poses.
        group: The group, or its name.
        looks: How many copies of each picture are judged: a divisor of the group's order; None: all of them.
            Fewer than all need a group that moves pixels exactly (C1, C2, C4, D1, D2, D4).
    """

    votes: Tensor
    after: Tensor

    def __init__(self, network: nn.Module, group: FiniteGroup | str, *, looks: int | None = None) -> None:
        super().__init__()
        parsed = parse_planar_group(group)
        order = parsed.order
        if looks is not None and (looks < 1 or order % looks or not parsed.is_exact_on_grid):
            raise ValueError(
                f"looks must divide the order of a group that moves pixels exactly, got {looks} for "
                f"{parsed}; leave it None to judge every copy"
            )
        self.network = network
        self.group = parsed
        self.looks = order if looks is None else looks
        self.is_exact_on_grid = parsed.is_exact_on_grid
        elements = parsed.elements()
        rows = [(k.inverse().expand(order) @ elements).value for k in elements]
        self.register_buffer("votes", torch.stack(rows), persistent=False)  # [k, g]: the pose of copy k
        further = elements[:: order // self.looks]  # of C4: a half turn, then quarters
        after = [(k.expand(self.looks) @ further).value for k in elements]
        self.register_buffer("after", torch.stack(after), persistent=False)  # [k, j]: look j from frame k

    def forward(self, x: Tensor) -> Tensor:
        """Score every element.

        Args:
            x: Square thumbnails, shape ``(B, C, s, s)``.

        Returns:
            Scores, shape ``(B, |G|)``.
        """
        if self.looks == self.group.order:
            return self.scores_of(self.guesses(x))
        frames = self.after[rough_pose(x, self.group)]  # (B, looks)
        copies = turned_copies(x, self.group)
        looked = copies[frames.T, torch.arange(len(x), device=x.device)]  # (looks, B, C, s, s)
        return self._added(self._judged(looked), self.votes[frames.T])

    def guesses(self, x: Tensor) -> Tensor:
        """Return the log-probabilities of the poses of all copies, shape ``(|G|, B, |G|)``, copies first."""
        with torch.autocast(x.device.type, enabled=False):  # copies must not differ by rounding
            copies = turned_copies(x, self.group)
        return self._judged(copies)

    def scores_of(self, guesses: Tensor) -> Tensor:
        """Add the votes of all copies up: ``(|G|, B, |G|)`` to ``(B, |G|)``."""
        return self._added(guesses, self.votes.unsqueeze(1).expand_as(guesses))

    def _judged(self, copies: Tensor) -> Tensor:
        """Return the log-probabilities of the poses of copies ``(K, B, C, s, s)``, shape ``(K, B, |G|)``."""
        order, (count, batch) = self.group.order, copies.shape[:2]
        logits: Tensor = self.network(copies.flatten(0, 1))
        if logits.shape != (count * batch, order):
            raise ValueError(
                f"the network must return one logit per pose, shape ({count * batch}, {order}), "
                f"got {tuple(logits.shape)}"
            )
        own = torch.promote_types(logits.dtype, torch.float32)
        return F.log_softmax(logits.to(own), -1).view(count, batch, order)

    @staticmethod
    def _added(guesses: Tensor, index: Tensor) -> Tensor:
        """Add votes up that copies gave to the poses ``index`` of theirs."""
        ballots = guesses.gather(-1, index).sort(0).values
        total = ballots[0]
        for ballot in ballots[1:]:
            total = total + ballot
        return total


def rough_pose(x: Tensor, group: FinitePlanarGroup) -> Tensor:
    """Return poses that follow every picture exactly and say nothing about its content.

    The pose is that whose turned-back coarse picture is the greatest, read row by row. Coarse pictures are
    sums of whole numbers, so that turned copies of a picture have the same, turned, to the last bit.

    Args:
        x: Square pictures of standard deviation about 1, shape ``(B, C, s, s)``.
        group: A group that moves pixels exactly.

    Returns:
        Numbers of elements, shape ``(B,)``; where several are equal, the first.
    """
    side = x.shape[-1]
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        steps = (x.detach().double() * STEPS).round().sum(1, keepdim=True)
        pixel = torch.arange(side, device=x.device)
        cell = torch.arange(GRID, device=x.device).unsqueeze(1)
        first, last = cell * side // GRID, ((cell + 1) * side + GRID - 1) // GRID  # symmetric, may overlap
        inside = ((pixel >= first) & (pixel < last)).double()
        copies = turned_copies(inside @ steps @ inside.T, group).flatten(2)  # (|G|, B, cells)
        alive = torch.ones_like(copies[..., 0], dtype=torch.bool)
        for values in copies.unbind(-1):
            values = torch.where(alive, values, -torch.inf)
            alive = values == values.amax(0)
        return alive.to(torch.uint8).argmax(0)
