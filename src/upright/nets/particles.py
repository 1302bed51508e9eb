"""Predictors of particles that know nothing of rotations: a graph network and a transformer.

All predictors of particles, `upright.nets.egnn.EGNN` too, are called in the same way and take any number of
particles and any batch; a mask allows systems of different sizes in one batch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .._checks import check_axis, check_positive, check_tensor


class ParticleGNN(nn.Module):
    """Predicts where charged particles will be by messages between all pairs.

    Args:
        hidden: Width of the features.
        layers: Number of layers.

    Reference:
        The graph network that Satorras, Hoogeboom, Welling, arXiv:2102.09844, section 5.1, compare with; it
        predicts shifts here instead of positions.
    """

    def __init__(self, hidden: int = 64, layers: int = 4) -> None:
        super().__init__()
        check_positive("hidden", hidden)
        self.embed = nn.Linear(7, hidden)
        self.layers = nn.ModuleList(_Messages(hidden) for _ in range(layers))
        self.read = perceptron(hidden, hidden, 3)

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
        apart = positions[:, :, None] - positions[:, None]
        products = charges[:, :, None, None] * charges[:, None, :, None]
        edges = torch.cat([products, apart.square().sum(-1, keepdim=True), apart], -1)
        h = self.embed(torch.cat([positions, velocities, charges[..., None]], -1))
        for layer in self.layers:
            h = layer(h, edges, pairs)
        shifts: Tensor = self.read(h)
        return positions + shifts


class ParticleTransformer(nn.Module):
    """Predicts where charged particles will be; every particle is a token.

    Args:
        hidden: Width of the tokens.
        layers: Number of layers.
        heads: Attention heads; must divide ``hidden``.
    """

    def __init__(self, hidden: int = 64, layers: int = 4, *, heads: int = 4) -> None:
        super().__init__()
        check_positive("hidden", hidden)
        if hidden % heads:
            raise ValueError(f"heads must divide hidden={hidden}, got {heads}")
        self.embed = perceptron(7, hidden, hidden)
        layer = nn.TransformerEncoderLayer(
            hidden, heads, 2 * hidden, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.read = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, 3))

    def forward(
        self, positions: Tensor, velocities: Tensor, charges: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Predict positions; as `ParticleGNN`.

        Args:
            positions: Shape ``(B, N, 3)``.
            velocities: Shape ``(B, N, 3)``.
            charges: Shape ``(B, N)``.
            mask: True where a row is a particle, ``(B, N)``.

        Returns:
            Positions later, ``(B, N, 3)``; those of padding mean nothing.
        """
        check_system(positions, velocities, charges, mask)
        if not len(positions):
            return positions
        tokens = self.embed(torch.cat([positions, velocities, charges[..., None]], -1))
        padding = None if mask is None else ~mask
        shifts: Tensor = self.read(self.layers(tokens, src_key_padding_mask=padding))
        return positions + shifts


class _Messages(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.own, self.other = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden, bias=False)
        self.edge = nn.Linear(5, hidden, bias=False)
        self.message = nn.Sequential(nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU())
        self.update = perceptron(2 * hidden, hidden, hidden)

    def forward(self, h: Tensor, edges: Tensor, pairs: Tensor) -> Tensor:
        message = self.message(self.own(h)[:, :, None] + self.other(h)[:, None] + self.edge(edges))
        gathered = (message * pairs[..., None]).sum(2)
        updated: Tensor = h + self.update(torch.cat([h, gathered], -1))
        return updated


def perceptron(inputs: int, hidden: int, outputs: int, *, bias: bool = True) -> nn.Sequential:
    """Return two linear layers with a SiLU between; ``bias`` is that of the second."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, outputs, bias=bias))


def pair_mask(positions: Tensor, mask: Tensor | None) -> Tensor:
    """Return 1 for pairs of different particles and 0 for others, float, ``(B, N, N)``."""
    batch, count = positions.shape[:2]
    pairs = ~torch.eye(count, dtype=torch.bool, device=positions.device).expand(batch, -1, -1)
    if mask is not None:
        pairs = pairs & mask[:, :, None] & mask[:, None]
    return pairs.to(positions.dtype)


def check_system(positions: Tensor, velocities: Tensor, charges: Tensor, mask: Tensor | None) -> None:
    """Raise ValueError unless the shapes of a batch of systems agree."""
    check_tensor("positions", positions, "(B, N, 3)", 3)
    check_axis("positions", positions, -1, 3, "(B, N, 3)")
    expected = tuple(positions.shape)
    for name, got, shape in (
        ("velocities", velocities, expected),
        ("charges", charges, expected[:-1]),
        ("mask", mask, expected[:-1]),
    ):
        if got is not None and tuple(got.shape) != shape:
            raise ValueError(f"{name} must have shape {shape} to match positions, got {tuple(got.shape)}")
