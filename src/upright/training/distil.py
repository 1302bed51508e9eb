"""``distil``: teach a fast canonicalizer what a slow one answers, from unlabelled pictures in any pose."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..adapter import Adapted
from ..canonicalizers import Canonicalizer, Pose
from ..data import loader, open_data
from ..groups.base import Element, FiniteGroup, Group
from .fit import FitResult, train

if TYPE_CHECKING:
    from .module import Augment

WIDTH_DEGREES = 8.0
"""Standard deviation of the bell that a teacher's candidate of a continuous group is spread over."""


def distil(
    teacher: Canonicalizer | Adapted,
    student: Canonicalizer,
    pictures: Any,
    *,
    val_pictures: Any = None,
    augment: bool | Augment = True,
    optimizer: str = "adamw",
    schedule: str = "cosine",
    learning_rate: float = 2e-3,
    weight_decay: float = 0.05,
    batch_size: int = 128,
    seed: int = 0,
    **training: Any,
) -> FitResult:
    """Train a student in place to give the teacher's posterior, without labels.

    The teacher is asked once about every picture, before training; the student sees the pictures with
    artefacts destroyed. A picture that is moved by ``g`` has the teacher's posterior, moved by ``g``:
    students that are not equivariant by construction see their pictures moved by random elements, at no
    further cost.
    The pictures need not be upright. Calibrate the teacher first: its posterior is what is learned.

    Args:
        teacher: Any canonicalizer with a posterior, such as an `EnergyCanonicalizer`; or an adapted model,
            whose canonicalizer is taken.
        student: A canonicalizer of the same group with weights to train, such as that of
            ``upright.canonicalizer("C4")``.
        pictures: Anything that `upright.data.open_data` takes, as the teacher takes them; labels do not
            count.
        val_pictures: The same, for validation after each epoch.
        augment: Whether, or how, artefacts are destroyed in what the student sees; it must not move pictures.
        optimizer: See `upright.fit`, also for the remaining arguments.
        schedule: See `upright.fit`.
        learning_rate: See `upright.fit`.
        weight_decay: See `upright.fit`.
        batch_size: Pictures a step, and pictures that the teacher is given at once.
        seed: Decides orders, augmentation and draws.
        **training: More arguments of `upright.fit` that say how it is trained: ``epochs``, ``average``,
            ``output``, ``progress`` and so on.

    Returns:
        The history (``loss``: the divergence in nats; ``agreement``: share of pictures given the same pose).

    Raises:
        ValueError: If the groups differ.
        TypeError: If the teacher gives no posterior.

    Reference:
        Hinton et al. 2015, "Distilling the knowledge in a neural network", arXiv 1503.02531.
    """
    if isinstance(teacher, Adapted):
        teacher = teacher.canonicalizer
    if teacher.group != student.group:
        raise ValueError(f"teacher and student must share a group, got {teacher.group} and {student.group}")
    taught = Taught(teacher, pictures, batch_size)
    validation = None if val_pictures is None else Taught(teacher, val_pictures, batch_size)

    def make() -> Any:
        from .distillation import DistillationModule

        return DistillationModule(
            student, augment=_unmoved(augment), optimizer=optimizer, schedule=schedule,
            learning_rate=learning_rate, weight_decay=weight_decay, seed=seed,
        )  # fmt: skip

    return train(make, taught, val_data=validation, batch_size=batch_size, seed=seed, **training)


class Taught(Dataset[Any]):
    """Pictures with what the teacher says of each, asked once.

    Args:
        teacher: The teacher; it is run in evaluation mode, without gradients.
        pictures: Anything that `upright.data.open_data` takes.
        batch_size: Pictures at once.
    """

    def __init__(self, teacher: Canonicalizer, pictures: Any, batch_size: int) -> None:
        self.pictures = open_data(pictures)
        modes = {part: part.training for part in teacher.modules()}
        teacher.eval()
        try:
            with torch.no_grad():
                found = [written(teacher(x)) for x, _ in loader(self.pictures, batch_size)]
        finally:
            for part, mode in modes.items():
                part.training = mode
        if not found:
            raise ValueError("pictures must hold at least one picture; got none")
        self.answers = torch.cat(found).cpu()
        if len(self.answers) != len(self.pictures):
            raise ValueError(
                f"{len(self.pictures) - len(self.answers)} pictures could not be read; leave them out"
            )

    def __len__(self) -> int:
        return len(self.answers)

    def __getitem__(self, index: int) -> Any:
        item = self.pictures[index]
        picture = item[0] if isinstance(item, tuple) else item
        return picture, self.answers[index]


def written(pose: Pose) -> Tensor:
    """Return posteriors as one tensor: of finite groups the log-probabilities of all elements, ``(B, |G|)``.

    Of other groups, the candidates as they are written down and their log-probabilities, ``(B, K, V + 1)``.

    Raises:
        TypeError: If the pose has no posterior.
    """
    if pose.log_probs is None:
        raise TypeError("teacher must give a posterior (log_probs); this one only chooses")
    log_probs = pose.log_probs.double()
    group = pose.group
    if isinstance(group, FiniteGroup):
        if pose.candidates is None:
            return log_probs
        whole = log_probs.new_full((len(log_probs), group.order), -torch.inf)
        return whole.scatter_reduce(1, pose.candidates.value, log_probs, "amax")
    listed = pose.candidates if pose.candidates is not None else pose.element.reshape(-1, 1)
    values = listed.value.flatten(2).double() if group.value_ndim else listed.value.unsqueeze(-1).double()
    return torch.cat([values, log_probs.unsqueeze(-1)], -1)


def targets(answers: Tensor, cells: Element) -> Tensor:
    """Return log-probabilities of a student's cells from a teacher's answers as `written`.

    Args:
        answers: Shape ``(B, |G|)`` or ``(B, K, V + 1)``.
        cells: The student's cells, shape ``(N,)`` or ``(B, N)``; all elements of a finite group, in order.

    Returns:
        Shape ``(B, N)``.
    """
    if isinstance(cells.group, FiniteGroup):
        return answers
    listed = listed_in(answers, cells.group)
    cells = cells.reshape(1, -1) if len(cells.shape) == 1 else cells
    away = listed.reshape(*listed.shape, 1).distance(cells.reshape(cells.shape[0], 1, -1))  # (B, K, N)
    bells = -0.5 * (away / math.radians(WIDTH_DEGREES)) ** 2
    return torch.logsumexp(answers[..., -1:] + torch.log_softmax(bells, -1), 1)


def listed_in(answers: Tensor, group: Group) -> Element:
    """Return the candidates of answers of a continuous group, shape ``(B, K)``."""
    values = answers[..., :-1]
    shape = group.identity().value.shape
    return Element(group, values.reshape(*values.shape[:2], *shape))


def _unmoved(augment: bool | Augment) -> bool | Augment:
    """Return the default augmentation without mirroring: a mirrored picture has another pose."""
    from .augment import DestroyArtefacts

    return DestroyArtefacts(flip=False) if augment is True else augment
