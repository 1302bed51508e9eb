"""Predictors of particles: a graph network and a transformer, which heed no rotations by themselves.

All predictors of particles, `upright.nets.egnn.EGNN` too, are called in the same way and take any number of
particles and any batch; a mask allows systems of different sizes in one batch. All start from particles that
fly straight on, and learn what bends their way.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._checks import check_axis, check_positive, check_tensor

_FEATURES = 6


class ParticlePredictor(nn.Module, ABC):
    """Predicts where charged particles will be.

    Args:
        hidden: Width of the features.
        layers: Number of layers.
        horizon: Time to be predicted, in the unit of time of the velocities.
    """

    def __init__(self, hidden: int, layers: int, horizon: float) -> None:
        super().__init__()
        check_positive("hidden", hidden)
        check_positive("layers", layers)
        check_positive("horizon", horizon)
        self.step = horizon / layers

    def forward(
        self, positions: Tensor, velocities: Tensor, charges: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Predict positions.

        Args:
            positions: Shape ``(B, N, 3)``; lengths of the order of 1.
            velocities: Shape ``(B, N, 3)``.
            charges: Shape ``(B, N)``.
            mask: True where a row is a particle, ``(B, N)``.

        Returns:
            Positions later, ``(B, N, 3)``; those of padding mean nothing.

        Raises:
            ValueError: If the shapes do not agree.
        """
        check_system(positions, velocities, charges, mask)
        return self.predict(positions, velocities, charges, pair_mask(positions, mask))

    @abstractmethod
    def predict(self, x: Tensor, v: Tensor, q: Tensor, pairs: Tensor) -> Tensor:
        """Predict positions from what was checked; ``pairs`` is 1 for pairs that feel each other."""


class ParticleGNN(ParticlePredictor):
    """Predicts by messages between all pairs; its layers are steps in time.

    Messages see how far two particles are apart, how they move against each other, and their charges. They
    change velocities, along the differences of positions and velocities and in any other direction, and
    positions follow.

    Args:
        hidden: Width of the features.
        layers: Number of layers, and of steps in time.
        horizon: Time to be predicted, in the unit of time of the velocities.

    Reference:
        Sanchez-Gonzalez et al., Learning to Simulate Complex Physics with Graph Networks, arXiv:2002.09405,
        with positions moved in each layer.
    """

    def __init__(self, hidden: int = 64, layers: int = 2, *, horizon: float = 1.0) -> None:
        super().__init__(hidden, layers, horizon)
        self.embed = nn.Linear(5, hidden)
        self.layers = nn.ModuleList(_Messages(hidden) for _ in range(layers))

    def predict(self, x: Tensor, v: Tensor, q: Tensor, pairs: Tensor) -> Tensor:
        """Predict positions from what was checked."""
        h = self.embed(torch.cat([v, v.square().sum(-1, keepdim=True), q[..., None]], -1))
        for layer in self.layers:
            h, kick = layer(h, x, v, q, pairs)
            v = v + kick
            x = x + self.step * v
        return x


class ParticleTransformer(ParticlePredictor):
    """Predicts by attention; every particle is a token, and its layers are steps in time.

    Attention and tokens look at pairs too: how far two particles are apart, how they move against each other,
    and their charges. Velocities change as in `ParticleGNN`.

    Args:
        hidden: Width of the tokens.
        layers: Number of layers, and of steps in time.
        heads: Attention heads; must divide ``hidden``.
        horizon: Time to be predicted, in the unit of time of the velocities.

    Reference:
        Ying et al., Do Transformers Really Perform Bad for Graph Representation?, arXiv:2106.05234, equation
        6, for attention with a bias of pairs.
    """

    def __init__(self, hidden: int = 64, layers: int = 2, *, heads: int = 4, horizon: float = 1.0) -> None:
        super().__init__(hidden, layers, horizon)
        if hidden % heads:
            raise ValueError(f"heads must divide hidden={hidden}, got {heads}")
        self.embed = nn.Linear(8, hidden)
        self.layers = nn.ModuleList(_Attention(hidden, heads) for _ in range(layers))

    def predict(self, x: Tensor, v: Tensor, q: Tensor, pairs: Tensor) -> Tensor:
        """Predict positions from what was checked."""
        h = self.embed(torch.cat([x, v, v.square().sum(-1, keepdim=True), q[..., None]], -1))
        for layer in self.layers:
            h, kick = layer(h, x, v, q, pairs)
            v = v + kick
            x = x + self.step * v
        return x


class _Kick(nn.Module):
    """What pairs and tokens add to velocities: along the arrows of pairs, along itself, and anywhere."""

    def __init__(self, pair: int, token: int) -> None:
        super().__init__()
        self.pair, self.own = nn.Linear(pair, 2, bias=False), nn.Linear(token, 4, bias=False)
        for layer in (self.pair, self.own):
            nn.init.xavier_uniform_(layer.weight, gain=0.01)

    def forward(self, arrows: Tensor, seen: Tensor, tokens: Tensor, v: Tensor) -> Tensor:
        along = self.pair(seen)  # (B, N, N, 2)
        own = self.own(tokens)  # (B, N, 4)
        pushed: Tensor = torch.einsum("bijk,bijkc->bic", along, arrows)
        kick: Tensor = pushed + own[..., :1] * v + own[..., 1:]
        return kick


class _Messages(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.ends = nn.Linear(hidden, 2 * hidden)
        self.edge = pair_layer(hidden)
        self.message = nn.Sequential(nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU())
        self.update = perceptron(2 * hidden, hidden, hidden)
        self.kick = _Kick(hidden, hidden)

    def forward(self, h: Tensor, x: Tensor, v: Tensor, q: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
        arrows, seen = pair_features(x, v, q)
        own, other = self.ends(h).chunk(2, -1)
        message = self.message(own[:, :, None] + other[:, None] + self.edge(seen)) * pairs[..., None]
        h = h + self.update(torch.cat([h, message.sum(2)], -1))
        return h, self.kick(arrows, message, h, v)


class _Attention(nn.Module):
    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads, self.width = heads, max(1, hidden // 2)
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(3))
        self.read = nn.Linear(hidden, 3 * hidden + 2 * self.width)
        self.edge = pair_layer(self.width)
        self.pair = nn.Sequential(nn.SiLU(), nn.Linear(self.width, self.width), nn.SiLU())
        self.bias = nn.Linear(self.width, heads, bias=False)
        self.mix = nn.Linear(hidden + self.width, hidden)
        self.update = perceptron(hidden, 2 * hidden, hidden)
        self.kick = _Kick(self.width, hidden)

    def forward(self, h: Tensor, x: Tensor, v: Tensor, q: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
        arrows, seen = pair_features(x, v, q)
        parts = self.read(self.norms[0](h)).split([3 * h.shape[-1], self.width, self.width], -1)
        pair = self.pair(parts[1][:, :, None] + parts[2][:, None] + self.edge(seen)) * pairs[..., None]
        query, key, value = parts[0].unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        bias = self.bias(pair).movedim(-1, 1)  # (B, heads, N, N)
        itself = torch.eye(h.shape[1], dtype=torch.bool, device=h.device)
        bias = bias.masked_fill(~(pairs.bool() | itself)[:, None], -torch.inf)
        heard = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        h = h + self.mix(torch.cat([heard.transpose(1, 2).flatten(2), pair.sum(2)], -1))
        h = h + self.update(self.norms[1](h))
        return h, self.kick(arrows, pair, self.norms[2](h), v)


def pair_features(x: Tensor, v: Tensor, q: Tensor, *, softening: float = 0.2) -> tuple[Tensor, Tensor]:
    """Return what is to be seen of each pair of particles.

    Args:
        x: Positions, shape ``(B, N, 3)``.
        v: Velocities, ``(B, N, 3)``.
        q: Charges, ``(B, N)``.
        softening: Distance below which ``1 / distance`` stops growing.

    Returns:
        Differences of positions and velocities, ``(B, N, N, 2, 3)``, and six numbers that no rotation,
        reflection or shift changes, ``(B, N, N, 6)``: distance, speed and rate of approach on logarithmic
        scales, ``1 / distance``, product of charges, and the potential energy.
    """
    arrows = torch.stack([x[:, :, None] - x[:, None], v[:, :, None] - v[:, None]], -2)
    apart, moving = arrows.unbind(-2)
    square, rate = apart.square().sum(-1), (apart * moving).sum(-1)
    near = (square + softening**2).rsqrt()
    product = q[:, :, None] * q[:, None]
    features = [square.log1p(), moving.square().sum(-1).log1p(), rate.sign() * rate.abs().log1p()]
    return arrows, torch.stack([*features, near, product, product * near], -1)


def pair_layer(hidden: int) -> nn.Linear:
    """Return a linear layer of what is to be seen of pairs."""
    layer = nn.Linear(_FEATURES, hidden, bias=False)
    nn.init.normal_(layer.weight, 0, 0.5)
    return layer


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
