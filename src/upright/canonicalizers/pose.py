"""A pose: the element that describes how an input stands, with what is known about it."""

from __future__ import annotations

import torch
from torch import Tensor

from .._values import value
from ..groups.base import Element, FiniteGroup


@value
class Pose:
    """The pose of each input of a batch. The canonical form of ``x`` is ``act(~pose.element, x)``.

    Attributes:
        element: The chosen elements, shape ``(B,)``.
        log_probs: Log-probabilities over a finite group, shape ``(B, |G|)``, float32; None if unknown.
        weights: One weight per group element through which gradients flow, shape ``(B, |G|)``; only while
            training (see `ESTIMATORS`).
        features: One vector per group element, shape ``(B, |G|, D)``, where the network gives them.
    """

    element: Element
    log_probs: Tensor | None = None
    weights: Tensor | None = None
    features: Tensor | None = None

    @property
    def group(self) -> FiniteGroup:
        """The group of the poses."""
        group = self.element.group
        assert isinstance(group, FiniteGroup)
        return group

    @property
    def probs(self) -> Tensor:
        """Probabilities over the group, shape ``(B, |G|)``; all on the chosen element if unknown."""
        return self._known_log_probs().exp()

    @property
    def confidence(self) -> Tensor:
        """Probability of the chosen element, shape ``(B,)``."""
        return self.log_prob().exp()

    @property
    def entropy(self) -> Tensor:
        """Entropy of the posterior in nats, shape ``(B,)``."""
        entropy: Tensor = torch.special.entr(self.probs).sum(-1)
        return entropy

    @property
    def is_tied(self) -> Tensor:
        """Say where the two likeliest elements tie, so that the choice means nothing; ``(B,)``."""
        if self.log_probs is None or self.group.order == 1:
            return torch.zeros(self.element.shape, dtype=torch.bool, device=self.element.device)
        best = self.log_probs.topk(2, dim=-1).values
        return (best[..., 0] - best[..., 1]) <= 1e-6

    def log_prob(self) -> Tensor:
        """Return the log-probability of the chosen element, shape ``(B,)``; carries gradients."""
        return self._known_log_probs().gather(-1, self.element.value.unsqueeze(-1)).squeeze(-1)

    def top_k(self, k: int) -> tuple[Element, Tensor]:
        """Return the ``k`` likeliest elements, ``(B, k)``, and their probabilities; the chosen one first."""
        ranked = self._known_log_probs().detach().clone()
        ranked.scatter_(-1, self.element.value.unsqueeze(-1), float("inf"))
        index = ranked.topk(min(k, self.group.order), dim=-1).indices
        return Element(self.group, index), self.probs.detach().gather(-1, index)

    def _known_log_probs(self) -> Tensor:
        if self.log_probs is not None:
            return self.log_probs
        chosen = torch.nn.functional.one_hot(self.element.value, self.group.order)
        return chosen.float().log()
