"""Training losses of canonicalizers: pure functions of a `Pose`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .canonicalizers.pose import Pose
from .groups.base import Element
from .groups.parse import parse_finite_group
from .priors import IdentityPrior, Prior


def prior_loss(pose: Pose, prior: Prior | None = None, *, marginal: bool = False) -> Tensor:
    r"""Kullback-Leibler divergence from the prior to the posterior.

    On a continuous group both are compared cell by cell (`Pose.grid`).

    Args:
        pose: Poses of a batch of training pictures.
        prior: Poses of the pretraining data; default: all upright (`IdentityPrior`).
        marginal: Compare the prior with the batch average of the posteriors instead of with each of them, so
            that single pictures may be certain although the prior is broad.

    Returns:
        Mean of :math:`\mathrm{KL}(p \,\|\, q)` over the batch in nats, shape ``()``.

    Reference:
        Mondal et al. 2023, arXiv 2310.01647, section 3.2.
    """
    prior = prior or IdentityPrior()
    log_q, cells = _cells(pose)
    log_p = torch.log_softmax(prior.log_density(cells).to(log_q), -1)  # (N,) or (B, N)
    if marginal:
        if cells.shape != log_q.shape[1:]:
            raise ValueError("marginal=True needs poses whose densities are known at the same elements")
        log_q = torch.logsumexp(log_q, 0, keepdim=True) - torch.log(torch.tensor(float(log_q.shape[0])))
    p = log_p.exp()
    terms = torch.where(p > 0, p * (log_p - log_q), torch.zeros(()).to(log_q))
    return terms.sum(-1).mean()


def orthogonality_loss(features: Tensor) -> Tensor:
    """Push the feature vectors of the moved copies of one picture apart.

    Args:
        features: One vector per group element, shape ``(B, |G|, D)`` (`Pose.features`).

    Returns:
        Mean squared cosine between vectors of different elements, shape ``()``; 0 when all are orthogonal.

    Reference:
        Panigrahi and Mondal 2024, arXiv 2405.14089, equation 6.
    """
    if features.ndim != 3:
        raise ValueError(f"features must have shape (B, |G|, D), got {tuple(features.shape)}")
    order = features.shape[1]
    if order < 2:
        return features.sum() * 0.0
    unit = F.normalize(features.float(), dim=-1)
    gram = unit @ unit.transpose(1, 2)  # (B, |G|, |G|)
    off_diagonal = gram * (1 - torch.eye(order, device=gram.device))
    return (off_diagonal**2).sum((1, 2)).mean() / (order * (order - 1))


def consistency_loss(pose: Pose, other: Pose, moved_by: Element | None = None) -> Tensor:
    """Jensen-Shannon divergence between the posteriors of a picture and of a degraded or moved copy of it.

    A canonicalizer that reads resampling or compression artefacts answers differently when they change.

    Args:
        pose: Poses of the pictures.
        other: Poses of the copies.
        moved_by: The elements by which the copies were moved, shape ``(B,)``; None if they were not.

    Returns:
        Mean divergence in nats, shape ``()``.
    """
    log_p, log_q = _posterior(pose), _posterior(other)
    if moved_by is not None:
        log_p = moved_log_probs(log_p, moved_by)
    log_m = torch.logaddexp(log_p, log_q) - torch.log(torch.tensor(2.0))
    kl = [(log.exp() * (log - log_m)).sum(-1) for log in (log_p, log_q)]
    return 0.5 * (kl[0] + kl[1]).mean()


def moved_log_probs(log_probs: Tensor, g: Element) -> Tensor:
    """Return the posteriors that equivariance demands of moved inputs: that of ``h`` goes to ``g @ h``.

    Args:
        log_probs: Shape ``(B, |G|)``.
        g: Elements of the finite group, shape ``(B,)``.
    """
    elements = g.group.elements(g.device)  # type: ignore[attr-defined]
    source = g.inverse().reshape(-1, 1).compose(elements.reshape(1, -1))
    return log_probs.gather(-1, source.value.expand(log_probs.shape))


def score_function_loss(losses: Tensor, pose: Pose) -> Tensor:
    """Surrogate whose gradient is the score-function estimate (REINFORCE) of that of the expected loss.

    Args:
        losses: The task loss of each input under its drawn pose, shape ``(B,)``.
        pose: The drawn poses.

    Returns:
        ``mean((loss - baseline) · log p(pose))``, shape ``()``; the baseline is the mean loss of the *other*
        inputs of the batch, so that the estimate is unbiased.

    Reference:
        Williams 1992, "Simple statistical gradient-following algorithms"; leave-one-out baseline: Kool et al.
        2019.
    """
    losses = losses.detach()
    count = losses.shape[0]
    baseline = (losses.sum() - losses) / (count - 1) if count > 1 else torch.zeros_like(losses)
    return ((losses - baseline) * pose.log_prob()).mean()


def _cells(pose: Pose) -> tuple[Tensor, Element]:
    """Return a posterior, ``(B, N)``, and the elements at which it is known, ``(N,)`` or ``(B, N)``."""
    if pose.log_density is not None and pose.grid is not None:
        return pose.log_density, pose.grid
    return _posterior(pose), parse_finite_group(pose.group).elements(pose.element.device)


def _posterior(pose: Pose) -> Tensor:
    if pose.log_probs is None:
        raise ValueError("pose must carry log_probs; got a pose of a canonicalizer without a posterior")
    return pose.log_probs
