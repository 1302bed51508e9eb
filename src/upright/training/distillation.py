"""The LightningModule of `upright.distil`: a student's posterior against a teacher's."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor

from ..actions import act
from ..canonicalizers import Canonicalizer, Pose
from ..groups.base import FiniteGroup
from ..kinds import Image
from ..nets import thumbnail
from .distil import listed_in, targets
from .fit import alone
from .module import CanonicalizationModule
from .poses import NEAR_DEGREES, small, turned_back


class DistillationModule(CanonicalizationModule):
    """Trains a canonicalizer on pictures whose "labels" are posteriors, as `written` writes them.

    Args:
        student: The canonicalizer.
        **settings: ``augment``, ``optimizer``, ``schedule``, ``learning_rate``, ``weight_decay`` and ``seed``
            of `CanonicalizationModule`.
    """

    def __init__(self, student: Canonicalizer, **settings: Any) -> None:
        super().__init__(alone(student), setup="prior", **settings)
        self.setup_name = "distil"  # type: ignore[assignment]

    def _metrics(
        self, pictures: Any, labels: Tensor | None, generator: torch.Generator | None
    ) -> dict[str, Tensor]:
        assert labels is not None
        seen = small(pictures, self.canonicalizer)
        pose = self._upright_pose(self._degraded(seen, generator), generator)
        if pose.log_density is not None and pose.grid is not None:
            log_q, cells = pose.log_density, pose.grid
        elif pose.log_probs is not None and isinstance(pose.group, FiniteGroup):
            log_q, cells = pose.log_probs, pose.group.elements(labels.device)
        else:
            raise TypeError("student must give a posterior; this one only chooses")
        log_p = targets(labels, cells).to(log_q)
        p = log_p.exp()
        loss = torch.where(p > 0, p * (log_p - log_q), torch.zeros_like(log_q)).sum(-1).mean()
        return {"loss": loss, "agreement": _agreement(pose, labels)}

    def _upright_pose(self, pictures: Any, generator: torch.Generator | None) -> Pose:
        """Return poses in the frame of the given pictures, of copies moved by random elements.

        Copies are not moved where the student follows exactly by construction.
        """
        student = self.canonicalizer
        exact = student.is_exact_on_grid and student.group.is_exact_on_grid
        if exact or generator is None or not isinstance(pictures, Tensor):
            return cast(Pose, student(pictures))
        g = student.group.sample(len(pictures), generator=generator)
        height, width = pictures.shape[-2:]
        square = pictures.float() if height == width else thumbnail(pictures.float(), min(height, width))
        return turned_back(student(act(g, Image(square, border=self.border)).data), g)


def _agreement(pose: Pose, answers: Tensor) -> Tensor:
    """Return the share of pictures to which both give one pose, to 15° in continuous groups."""
    group = pose.group
    if isinstance(group, FiniteGroup):
        return (pose.element.value == answers.argmax(-1)).float().mean()
    best = listed_in(answers, group)[torch.arange(len(answers)), answers[..., -1].argmax(-1)]
    return (pose.element.distance(best) <= math.radians(NEAR_DEGREES)).float().mean()
