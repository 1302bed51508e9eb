"""Recorded models: run a classifier once at every pose of each picture, then try any setting on the record.

Modes, gates and priors decide at which poses a model runs, not what it answers there; so a record of its
answers at all poses is enough to try them all, through the adapter itself, in no time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..actions import act
from ..adapter import Adapted
from ..canonicalizers import DiscreteCanonicalizer
from ..groups.parse import parse_planar_group
from ..groups.planar import FinitePlanarGroup
from ..kinds import Image
from .modes import evaluating, placed
from .scores import call, class_scores


class Record(nn.Module):
    """Answers from a table instead of computing them.

    Args:
        table: Answers, shape ``(N, |G|, K)``: entry ``[n, h]`` is that to picture ``n`` turned by ``h``.
        group: A group that is exact on the pixel grid.
    """

    table: Tensor
    marks: Tensor

    def __init__(self, table: Tensor, group: FinitePlanarGroup) -> None:
        super().__init__()
        self.register_buffer("table", table, persistent=False)
        self.register_buffer("marks", _marks(group), persistent=False)

    def forward(self, keys: Tensor) -> Tensor:
        """Return the answers to the pictures, and their poses, that ``keys`` ``(B, 2, 3, 3)`` stand for."""
        pose = (keys[:, 1].unsqueeze(1) == self.marks).flatten(2).all(-1).long().argmax(1)
        return self.table[keys[:, 0, 0, 0].long(), pose]


def recorded(robust: Adapted, log_probs: Tensor, scores: Tensor) -> tuple[Adapted, Tensor]:
    """Return an adapted model that answers from tables, and what stands for the pictures.

    Args:
        robust: Where mode, gate and deployment prior come from.
        log_probs: Log-probabilities of the poses without a deployment prior, shape ``(N, |G|, |G|)``: entry
            ``[n, h]`` belongs to picture ``n`` turned by ``h``.
        scores: Class scores of the bare model, shape ``(N, |G|, K)``, likewise.

    Returns:
        The adapted model, and keys of shape ``(N, 2, 3, 3)`` which it takes for the upright pictures; they
        can be turned by `upright.act` like pictures.

    Raises:
        ValueError: If the group resamples pictures, or the tables do not fit.
    """
    group = parse_planar_group(robust.group)
    if not group.is_exact_on_grid:
        raise ValueError(f"answers can be recorded for quarter turns and flips only, got {group}")
    shape = (len(scores), group.order)
    if log_probs.shape != (*shape, group.order) or scores.shape[:2] != shape or scores.ndim != 3:
        raise ValueError(
            f"log_probs and scores must have shapes (N, {group.order}, {group.order}) and "
            f"(N, {group.order}, K), got {tuple(log_probs.shape)} and {tuple(scores.shape)}"
        )
    canonicalizer = DiscreteCanonicalizer(
        Record(log_probs, group), group, size=None, channels=2, standardize=False,
        deployment_prior=robust.canonicalizer.deployment_prior,
    ).eval()  # fmt: skip
    number = torch.arange(len(scores), dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 1, 3, 3)
    keys = torch.cat([number, _marks(group)[:1].expand(len(scores), 1, 3, 3)], 1)
    replayed = robust.replace(
        model=Record(scores, group),
        canonicalizer=canonicalizer,
        signature=None,
        inputs=None,
        outputs="logits",
    )
    return replayed, keys


@torch.no_grad()
def record(robust: Adapted, pictures: Tensor, batch_size: int = 64) -> tuple[Adapted, Tensor]:
    """Run the bare classifier and the canonicalizer on every picture in all its poses; see `recorded`.

    Args:
        robust: The adapted classifier.
        pictures: Square upright pictures, shape ``(N, C, H, H)``.
        batch_size: Pictures a batch.
    """
    if pictures.ndim != 4 or pictures.shape[2] != pictures.shape[3]:
        raise ValueError(f"pictures must be square, (N, C, H, H), got {tuple(pictures.shape)}")
    group = parse_planar_group(robust.group)
    canonicalizer: Any = robust.canonicalizer
    if canonicalizer.deployment_prior is not None:
        canonicalizer = canonicalizer.with_prior(None)
    log_probs, scores = [], []
    with evaluating(robust):
        for part in torch.split(pictures, batch_size):
            x = placed(part, robust.model)
            moved = [act(g, Image(x)).data for g in group.elements(x.device)]
            log_probs.append(torch.stack([canonicalizer(m).log_probs.cpu() for m in moved], 1))
            answers = [class_scores(robust, call(robust, robust.model, m), len(m)).cpu() for m in moved]
            scores.append(torch.stack(answers, 1))
    return recorded(robust, torch.cat(log_probs), torch.cat(scores))


def _marks(group: FinitePlanarGroup) -> Tensor:
    """Return a mark that no element leaves as it is, turned by every element; shape ``(|G|, 3, 3)``."""
    mark = torch.arange(9.0).view(1, 1, 3, 3)
    return torch.cat([act(g, Image(mark)).data[:, 0] for g in group.elements()])
