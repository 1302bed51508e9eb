"""Which pose was taken for which: the confusion of poses, from records to a table of counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..groups.base import Element, FiniteGroup
from .orbit import PoseTrack
from .poses import comparable, errors, near, tolerance

TIED = "tied"
"""The column of pictures whose two likeliest poses were equally likely."""

LARGEST = 64
"""Most poses, and most elements of a group, of which a table is made."""


@dataclass(frozen=True)
class Confusion:
    """How often each pose was chosen where each was the true one.

    Attributes:
        chosen: What could be chosen, one label a column: the elements of a finite group; of a continuous one
            the evaluated poses, each choice counted at the nearest. The last is ``"tied"`` if there were any.
        counts: Number of pictures, one row an evaluated pose, upright first; every row sums up to the number
            of pictures.
        right: The columns that are right, one row an evaluated pose; several where it lies between them.
    """

    chosen: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    right: tuple[tuple[int, ...], ...]


def confuse(track: PoseTrack, poses: Element, names: Callable[[Element], Sequence[str]]) -> Confusion | None:
    """Count which pose was taken for which.

    Args:
        track: What was chosen at ``P`` poses of ``N`` pictures.
        poses: The poses, shape ``(P,)``.
        names: Returns what each of some elements is called.

    Returns:
        The table; None if it would be larger than `LARGEST`, or no evaluated pose but upright could be found.
    """
    group = track.chosen.group
    chosen, true = comparable(track.chosen, poses)
    if len(true) > 1 and bool(true.is_identity().all()):
        return None  # nothing that could be found was done
    if isinstance(group, FiniteGroup):
        columns, number = group.elements(), track.chosen.value.long()
    else:
        columns, number = poses, _nearest(chosen, true)
    if max(len(columns), len(poses)) > LARGEST:
        return None
    every = columns.reshape(1, -1).expand(len(poses), len(columns))
    right = near(errors(poses.reshape(-1, 1).expand(*every.shape), columns), tolerance(group, poses.group))
    labels = list(names(columns))
    number = torch.where(track.tied, len(columns), number)
    if bool(track.tied.any()):
        labels.append(TIED)
    counts = [torch.bincount(column, minlength=len(labels)).tolist() for column in number.unbind(1)]
    return Confusion(
        chosen=tuple(labels),
        counts=tuple(tuple(row) for row in counts),
        right=tuple(tuple(row.nonzero().flatten().tolist()) for row in right),
    )


def _nearest(chosen: Element, poses: Element) -> Tensor:
    """Return the number of the pose that is nearest to each chosen one, shape ``(N, P)``."""
    columns = [chosen.distance(pose.reshape(1, 1).expand(*chosen.shape)).double() for pose in poses]
    return torch.stack(columns).argmin(0)
