"""The E(n)-equivariant graph network, what canonicalized predictors of particles are compared with."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .particles import ParticlePredictor, perceptron


class EGNN(ParticlePredictor):
    """Predicts by messages between all pairs, equivariantly by construction.

    Messages see distances and products of charges only; positions move along differences of positions and
    along velocities. All particles are each other's neighbours. Before training, particles fly straight on.

    Args:
        hidden: Width of the features.
        layers: Number of layers.
        horizon: Time to be predicted, in the unit of time of the velocities.

    Reference:
        Satorras, Hoogeboom, Welling, E(n) Equivariant Graph Neural Networks, arXiv:2102.09844, equations 3-7
        with the velocities of section 3.2; sums over neighbours are means, as in the authors' code. There,
        training starts at other speeds, drawn at random, and takes longer.
    """

    def __init__(self, hidden: int = 64, layers: int = 4, *, horizon: float = 1.0) -> None:
        super().__init__(hidden, layers, horizon)
        self.embed = nn.Linear(1, hidden)
        self.layers = nn.ModuleList(_Layer(hidden, self.step) for _ in range(layers))

    def predict(self, x: Tensor, v: Tensor, q: Tensor, pairs: Tensor) -> Tensor:
        """Predict positions from what was checked."""
        products = q[:, :, None] * q[:, None]
        start = (x[:, :, None] - x[:, None]).square().sum(-1)
        edges = torch.stack([products, start], -1)
        h = self.embed(v.norm(dim=-1, keepdim=True))
        for layer in self.layers:
            h, x = layer(h, x, v, edges, pairs)
        return x


class _Layer(nn.Module):
    def __init__(self, hidden: int, step: float) -> None:
        super().__init__()
        self.own, self.other = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden, bias=False)
        self.edge = nn.Linear(3, hidden, bias=False)
        self.message = nn.Sequential(nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU())
        self.shift = perceptron(hidden, hidden, 1, bias=False)
        self.speed = perceptron(hidden, hidden, 1)
        self.update = perceptron(2 * hidden, hidden, hidden)
        nn.init.xavier_uniform_(self.shift[-1].weight, gain=0.001)  # type: ignore[arg-type]  # a Linear
        nn.init.zeros_(self.speed[-1].weight)  # type: ignore[arg-type]
        nn.init.constant_(self.speed[-1].bias, step)  # type: ignore[arg-type]

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
