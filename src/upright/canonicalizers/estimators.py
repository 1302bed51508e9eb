"""Estimators: how, while training, a pose is drawn from the posterior and gradients flow back into it.

Each maps log-probabilities ``(B, |G|)`` to the chosen numbers ``(B,)`` and the weights ``(B, |G|)`` that
carry gradients (or None). In evaluation all of them are replaced by the plain argmax.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Estimator = Callable[[Tensor, float, torch.Generator | None], tuple[Tensor, Tensor | None]]


def straight_through(
    log_probs: Tensor, temperature: float, generator: torch.Generator | None
) -> tuple[Tensor, Tensor | None]:
    """Choose the likeliest element; gradients as if the weights were the probabilities."""
    index = log_probs.argmax(-1)
    probs = F.softmax(log_probs / temperature, -1)
    return index, _one_hot(index, probs) + (probs - probs.detach())


def gumbel(
    log_probs: Tensor, temperature: float, generator: torch.Generator | None
) -> tuple[Tensor, Tensor | None]:
    """Draw by the Gumbel maximum; gradients of the relaxed sample (Jang et al. 2017, arXiv 1611.01144)."""
    uniform = torch.rand(log_probs.shape, generator=generator, device=log_probs.device).clamp_(min=1e-20)
    relaxed = F.softmax((log_probs - (-uniform.log()).log()) / temperature, -1)
    index = relaxed.argmax(-1)
    return index, _one_hot(index, relaxed) + (relaxed - relaxed.detach())


def soft(
    log_probs: Tensor, temperature: float, generator: torch.Generator | None
) -> tuple[Tensor, Tensor | None]:
    """Blend all moved copies by their probabilities."""
    return log_probs.argmax(-1), F.softmax(log_probs / temperature, -1)


def score_function(
    log_probs: Tensor, temperature: float, generator: torch.Generator | None
) -> tuple[Tensor, Tensor | None]:
    """Draw from the posterior; gradients come from `upright.losses.score_function_loss` (Williams 1992)."""
    probs = F.softmax(log_probs.detach() / temperature, -1)
    return torch.multinomial(probs, 1, generator=generator).squeeze(-1), None


ESTIMATORS: dict[str, Estimator] = {
    "straight_through": straight_through,
    "gumbel": gumbel,
    "soft": soft,
    "score_function": score_function,
}
"""Estimators by name; add one by adding an entry."""


def _one_hot(index: Tensor, like: Tensor) -> Tensor:
    return F.one_hot(index, like.shape[-1]).to(like.dtype)
