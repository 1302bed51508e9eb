"""λ-equitune: the average over the group, weighted by what a small trained network makes of class scores."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..actions import act
from ..adapter import Adapted, Run
from ..canonicalizers import IdentityCanonicalizer, Pose
from ..evaluation.scores import call, class_scores
from ..groups.base import Element, FiniteGroup
from ..groups.parse import parse_finite_group
from ..kinds import Image
from .loop import Fitting, labelled


class Weigher(nn.Module):
    """Says ``log λ`` of class scores by their shape alone: the largest probabilities, entropy and height.

    Args:
        largest: How many of the largest probabilities it sees.
        width: Width of its one hidden layer.
    """

    def __init__(self, largest: int = 5, width: int = 16) -> None:
        super().__init__()
        self.largest = largest
        self.layers = nn.Sequential(nn.Linear(largest + 3, width), nn.Tanh(), nn.Linear(width, 1))

    def forward(self, scores: Tensor) -> Tensor:
        """Return ``log λ``, shape ``(…)``, of class scores ``(…, K)``."""
        log_probs = scores.float().log_softmax(-1)
        probs = log_probs.exp()
        top = probs.topk(min(self.largest, probs.shape[-1]), -1).values
        top = nn.functional.pad(top, (0, self.largest - top.shape[-1]))
        entropy = torch.special.entr(probs).sum(-1, keepdim=True)
        height = scores.float().amax(-1, keepdim=True)
        spread = scores.float().logsumexp(-1, keepdim=True) - height
        seen = torch.cat([top, entropy, (height / 10).tanh(), spread], -1)
        weight: Tensor = self.layers(seen).squeeze(-1)
        return weight


class WeightedAverage(nn.Module):
    """``Φ(x) = Σ_g λ(g⁻¹·x) φ(g⁻¹·x) / Σ_g λ(g⁻¹·x)``, over class probabilities.

    It is equivariant whatever ``λ`` is: turning ``x`` permutes the terms of both sums. The weights are
    returned as the posterior of the pose.

    Args:
        robust: An adapted classifier; only its model and how it is called are used.
        weigher: Maps class scores ``(B, |G|, K)`` of the moved copies to ``log λ`` ``(B, |G|)``.

    Reference:
        Basu et al. 2023, Efficient equivariant transfer learning from pretrained models, arXiv 2305.09900,
        equation 3.
    """

    def __init__(self, robust: Adapted, weigher: nn.Module) -> None:
        super().__init__()
        self.group: FiniteGroup = parse_finite_group(robust.group)
        self.robust = robust.replace(
            canonicalizer=IdentityCanonicalizer(self.group), mode="canonical", gate=None
        )
        self.weigher = weigher

    def forward(self, x: Tensor) -> Tensor:
        """Return the logarithms of the averaged probabilities, shape ``(B, K)``."""
        averaged: Tensor = self.run(x).output
        return averaged

    def run(self, x: Tensor) -> Run:
        """Return them with the weights as poses, and ``|G|`` passes a picture."""
        scores = self.scores(x)
        log_weights = self.weigher(scores).log_softmax(1)
        pose = Pose(Element(self.group, log_weights.argmax(1)), log_weights)
        passes = torch.full((len(x),), self.group.order, device=scores.device)
        return Run(mixed(scores, log_weights), pose, passes)

    def scores(self, x: Tensor) -> Tensor:
        """Return the model's class scores of every ``g⁻¹·x``, shape ``(B, |G|, K)``."""
        found = []
        for g in self.group.elements(x.device):
            back = act(g.inverse().reshape(1).expand(len(x)), Image(x)).data
            found.append(class_scores(self.robust, call(self.robust, self.robust.model, back), len(x)))
        return torch.stack(found, 1)


def mixed(scores: Tensor, log_weights: Tensor) -> Tensor:
    """Return the logarithms of the weighted mean of class probabilities, shape ``(B, K)``.

    Args:
        scores: Class scores, shape ``(B, |G|, K)``.
        log_weights: Logarithms of weights that sum to 1, shape ``(B, |G|)``.
    """
    return (scores.log_softmax(-1) + log_weights.unsqueeze(-1)).logsumexp(1)


def fit_weights(
    robust: Adapted, data: Any, *, weigher: nn.Module | None = None, fitting: Fitting | None = None
) -> WeightedAverage:
    """Train the weights of the average with labels.

    The model is run once a pose and picture, and not changed; its class scores are kept in memory.

    Args:
        robust: An adapted classifier of a finite group.
        data: Labelled pictures, upright, of one shape: anything that `upright.data.open_data` takes.
        weigher: See `WeightedAverage`; default: `Weigher`.
        fitting: How it is trained.

    Returns:
        The averaged model, in evaluation mode.
    """
    how = fitting or Fitting(epochs=30, learning_rate=1e-2)
    generator = how.generator()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(how.seed)
        made = WeightedAverage(robust, weigher if weigher is not None else Weigher())
    made.eval()
    with torch.no_grad():
        parts = [(made.scores(x), y) for x, y in map(labelled, how.batches(data, generator))]
    scores, labels = (torch.cat(column) for column in zip(*parts, strict=True))

    def batches() -> list[Tensor]:
        order = torch.randperm(len(labels), generator=generator)
        return [order[i : i + how.batch_size] for i in range(0, len(order), how.batch_size)]

    def loss(index: Tensor) -> Tensor:
        log_weights = made.weigher(scores[index]).log_softmax(1)
        right = mixed(scores[index], log_weights)[torch.arange(len(index)), labels[index]]
        return -right.mean()

    how.run(made.weigher, batches, loss)
    return made
