"""The E(n)-equivariant graph network, what canonicalized predictors of particles are compared with."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .._checks import check_positive
from .particles import check_system, pair_mask, perceptron


class EGNN(nn.Module):
    """Predicts where charged particles will be, equivariantly by construction.

    Messages see distances and products of charges only; positions move along differences of positions and
    along velocities. All particles are each other's neighbours.

    Args:
        hidden: Width of the features.
        layers: Number of layers.

    Reference:
        Satorras, Hoogeboom, Welling, E(n) Equivariant Graph Neural Networks, arXiv:2102.09844, equations 3-7
        with the velocities of section 3.2; sums over neighbours are means, as in the authors' code.
    """

    def __init__(self, hidden: int = 64, layers: int = 4) -> None:
        super().__init__()
        check_positive("hidden", hidden)
        self.embed = nn.Linear(1, hidden)
        self.layers = nn.ModuleList(_Layer(hidden) for _ in range(layers))

    def forward(
        self, positions: Tensor, velocities: Tensor, charges: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Predict positions.

        Args:
            positions: Shape ``(B, N, 3)``.
            velocities: Shape ``(B, N, 3)``.
            charges: Shape ``(B, N)``.
            mask: True where a row is a particle, ``(B, N)``.

        Returns:
            Positions later, ``(B, N, 3)``; those of padding mean nothing.
        """
        check_system(positions, velocities, charges, mask)
        pairs = pair_mask(positions, mask)
        products = charges[:, :, None] * charges[:, None]
        start = (positions[:, :, None] - positions[:, None]).square().sum(-1)
        edges = torch.stack([products, start], -1)
        h, x = self.embed(velocities.norm(dim=-1, keepdim=True)), positions
        for layer in self.layers:
            h, x = layer(h, x, velocities, edges, pairs)
        return x


class _Layer(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.own, self.other = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden, bias=False)
        self.edge = nn.Linear(3, hidden, bias=False)
        self.message = nn.Sequential(nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU())
        self.shift = perceptron(hidden, hidden, 1, bias=False)
        self.speed = perceptron(hidden, hidden, 1)
        self.update = perceptron(2 * hidden, hidden, hidden)
        nn.init.xavier_uniform_(self.shift[-1].weight, gain=0.001)  # type: ignore[arg-type]  # a Linear

    def forward(
        self, h: Tensor, x: Tensor, velocities: Tensor, edges: Tensor, pairs: Tensor
    ) -> tuple[Tensor, Tensor]:
        apart = x[:, :, None] - x[:, None]  # (B, i, j, 3)
        seen = torch.cat([apart.square().sum(-1, keepdim=True), edges], -1)
        message = self.message(self.own(h)[:, :, None] + self.other(h)[:, None] + self.edge(seen))
        message = message * pairs[..., None]
        count = pairs.sum(2, keepdim=True).clamp(min=1)
        push = (apart * self.shift(message) * pairs[..., None]).sum(2) / count
        x = x + push + self.speed(h) * velocities
        return h + self.update(torch.cat([h, message.sum(2)], -1)), x
