"""Energies read from class scores: the frozen model is usually surest about pictures as it was trained on."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from .base import Answers, Energy, Predictor, read


@dataclass(frozen=True, eq=False)
class _OfScores(Energy):
    """What energies of class scores share.

    Attributes:
        model: Returns class scores: a tensor, the first of a tuple, or the entry ``"logits"``.
        axis: The axis that counts the classes; over further axes (places, queries) the mean is taken.
    """

    model: Predictor
    axis: int = -1

    @property
    def predictors(self) -> tuple[Predictor, ...]:
        """The model."""
        return (self.model,)

    def measure(self, pictures: Tensor, answers: Answers) -> Tensor:
        """Return the energies, shape ``(N,)``."""
        scores = read(answers(self.model))
        if scores.ndim < 2:
            raise ValueError(f"class scores must have shape (N, …, K), got {tuple(scores.shape)}")
        scores = scores if scores.dtype == torch.float64 else scores.float()
        energies = self._of(scores.movedim(self.axis, -1))
        return energies.reshape(len(energies), -1).mean(-1) if energies.ndim > 1 else energies

    @abstractmethod
    def _of(self, scores: Tensor) -> Tensor:
        """Return the energies of scores ``(N, …, K)``, shape ``(N, …)``."""


@dataclass(frozen=True, eq=False)
class LogitEnergy(_OfScores):
    """``-T · logsumexp(scores / T)``.

    Attributes:
        temperature: T; the smaller, the more the largest score counts.

    Reference:
        Liu et al. 2020, "Energy-based out-of-distribution detection", arXiv 2010.03759, equation 4; over
        poses: Schmidt and Stober 2024, "Tilt your head", arXiv 2405.03730.

    Example:
        >>> energy = LogitEnergy(lambda x: x.flatten(1))
        >>> energy(torch.zeros(1, 1, 2, 2)).item()  # -log 4
        -1.3862943649291992
    """

    temperature: float = 1.0

    def _of(self, scores: Tensor) -> Tensor:
        return -self.temperature * torch.logsumexp(scores / self.temperature, -1)


@dataclass(frozen=True, eq=False)
class Entropy(_OfScores):
    """Entropy of the predicted distribution over the classes, in nats."""

    def _of(self, scores: Tensor) -> Tensor:
        log_probs = torch.log_softmax(scores, -1)
        return -(log_probs.exp() * log_probs).sum(-1)


@dataclass(frozen=True, eq=False)
class MaxLogit(_OfScores):
    """Minus the largest class score."""

    def _of(self, scores: Tensor) -> Tensor:
        return -scores.amax(-1)


ENERGIES: dict[str, type[_OfScores]] = {"logit": LogitEnergy, "entropy": Entropy, "max_logit": MaxLogit}
"""Energies of a model itself by name; add one by adding an entry ``name: callable(model)``."""
