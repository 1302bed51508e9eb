"""A pose: the element that describes how an input stands, with what is known about it."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from .._values import value
from ..groups.base import Element, FiniteGroup, Group


@value
class Pose:
    """The pose of each input of a batch. The canonical form of ``x`` is ``act(~pose.element, x)``.

    A posterior is a weighted list of elements: of a finite group, all of them in the order of their numbers;
    otherwise the ``candidates``, the chosen one first.

    Attributes:
        element: The chosen elements, shape ``(B,)``.
        log_probs: Log-probabilities of the listed elements, shape ``(B, K)``, float32; None if unknown.
        weights: One weight per listed element through which gradients flow, shape ``(B, K)``; only while
            training (see `ESTIMATORS`).
        features: One vector per group element, shape ``(B, |G|, D)``, where the network gives them.
        candidates: The listed elements, shape ``(B, K)``, number 0 being ``element``; None: the whole finite
            group.
        grid: Elements at which a continuous posterior is known, shape ``(N,)``; None: it is not.
        log_density: Log-probabilities of the cells around ``grid``, shape ``(B, N)``, for the losses.
        calls: How often a predictor ran to find the pose, shape ``(B,)``, int64; None: it was not needed.
    """

    element: Element
    log_probs: Tensor | None = None
    weights: Tensor | None = None
    features: Tensor | None = None
    candidates: Element | None = None
    grid: Element | None = None
    log_density: Tensor | None = None
    calls: Tensor | None = None

    @property
    def group(self) -> Group:
        """The group of the poses."""
        return self.element.group

    @property
    def probs(self) -> Tensor:
        """Probabilities of the listed elements, shape ``(B, K)``; all on the chosen element if unknown."""
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
        if self.log_probs is None or self.log_probs.shape[-1] == 1:
            return torch.zeros(self.element.shape, dtype=torch.bool, device=self.element.device)
        best = self.log_probs.topk(2, dim=-1).values
        return (best[..., 0] - best[..., 1]) <= 1e-6

    def log_prob(self) -> Tensor:
        """Return the log-probability of the chosen element, shape ``(B,)``; carries gradients."""
        return self._known_log_probs().gather(-1, self._chosen().unsqueeze(-1)).squeeze(-1)

    def top_k(self, k: int | None = None) -> tuple[Element, Tensor]:
        """Return the ``k`` likeliest of the listed elements, and their probabilities; the chosen one first.

        Args:
            k: How many; None, or more than there are: all.

        Returns:
            Elements and probabilities, both of shape ``(B, k)``.
        """
        known = self._known_log_probs().detach()
        ranked = torch.where(known.isnan(), -math.inf, known)  # NaN would come before all else
        count = ranked.shape[-1] if k is None else min(k, ranked.shape[-1])
        ranked.scatter_(-1, self._chosen().unsqueeze(-1), float("inf"))
        index = ranked.topk(count, dim=-1).indices
        return self._listed(index), self.probs.detach().gather(-1, index)

    def left_alone(self, where: Tensor) -> Pose:
        """Return the poses with the identity chosen instead, ``where`` (bool, shape ``(B,)``) says so.

        The posterior stays as it is, so `confidence` is then the probability of the identity.
        """
        identity = self.group.identity(*self.element.shape, device=self.element.device)
        mask = where.reshape(*where.shape, *[1] * self.group.value_ndim)
        value = torch.where(mask, identity.value, self.element.value)
        element = Element(self.group, value)
        if isinstance(self.group, FiniteGroup) and self.candidates is None:
            return replace(self, element=element)
        listed = self.element.reshape(-1, 1) if self.candidates is None else self.candidates
        known = self._known_log_probs()
        count = known.shape[-1]  # the identity goes to the end of the list, and then trades places
        values = torch.cat([listed.value, identity.value.unsqueeze(1)], 1)
        log_probs = torch.cat([known, torch.full_like(known[:, :1], -math.inf)], 1)
        place = torch.where(
            Element(self.group, values).is_identity(), torch.arange(count + 1, device=known.device), count
        ).amin(1)
        swapped = torch.where(where, place, 0).unsqueeze(1)
        order = torch.arange(count + 1, device=known.device).repeat(known.shape[0], 1).scatter(1, swapped, 0)
        order = order.scatter(1, torch.zeros_like(swapped), swapped)
        rows = torch.arange(known.shape[0], device=known.device).unsqueeze(-1)
        candidates = Element(self.group, values[rows, order])
        return replace(self, element=element, candidates=candidates, log_probs=log_probs.gather(1, order))

    def near_identity(self, within: float = 0.0) -> Tensor:
        """Return the probability that an input stands as it should, shape ``(B,)``.

        Args:
            within: The largest distance from the identity that counts, in the unit of the group's `distance`
                (radians for turns).
        """
        probs = self.probs
        if isinstance(self.group, FiniteGroup) and self.candidates is None:
            listed = self.group.elements(probs.device).expand(*probs.shape)
        else:
            listed = self.element.reshape(-1, 1) if self.candidates is None else self.candidates
        near = listed.is_identity()
        if within:
            near |= listed.distance(self.group.identity(device=probs.device)) <= within
        return torch.where(near, probs, 0.0).sum(-1)

    def _chosen(self) -> Tensor:
        """Return the places of the chosen elements among the listed ones, shape ``(B,)``."""
        if isinstance(self.group, FiniteGroup) and self.candidates is None:
            return self.element.value
        return torch.zeros(self.element.shape, dtype=torch.long, device=self.element.device)

    def _listed(self, index: Tensor) -> Element:
        """Return the listed elements at the given places, shape ``(B, k)``."""
        if isinstance(self.group, FiniteGroup) and self.candidates is None:
            return Element(self.group, index)
        listed = self.element.reshape(-1, 1) if self.candidates is None else self.candidates
        rows = torch.arange(index.shape[0], device=index.device).unsqueeze(-1)
        return listed[rows, index]

    def _known_log_probs(self) -> Tensor:
        if self.log_probs is not None:
            return self.log_probs
        if isinstance(self.group, FiniteGroup) and self.candidates is None:
            return F.one_hot(self.element.value, self.group.order).float().log()
        return torch.zeros(*self.element.shape, 1, device=self.element.device)
