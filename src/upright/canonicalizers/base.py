"""The canonicalizer contract, and the canonicalizer that moves nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..groups.base import Group
from ..groups.parse import parse_group
from .pose import Pose


class Canonicalizer(nn.Module, ABC):
    """Chooses the pose of each input, equivariantly: ``c(act(g, x)) == g @ c(x)`` up to the stabiliser of x.

    ``forward`` computes a `Pose` and stores nothing, so one canonicalizer serves any number of threads.

    Args:
        group: The group of the poses, or its name.
    """

    is_exact_on_grid: bool = False
    """Whether ``c(act(g, x)) == g @ c(x)`` holds to rounding for quarter turns and flips."""

    def __init__(self, group: Group | str) -> None:
        super().__init__()
        self.group: Group = parse_group(group)

    @abstractmethod
    def forward(self, x: Tensor | Sequence[Tensor]) -> Pose:
        """Choose the poses.

        Args:
            x: Pictures, shape ``(B, C, H, W)``, any dtype, or a sequence of ``(C, H_i, W_i)``.

        Returns:
            Poses of batch shape ``(B,)``.
        """


class IdentityCanonicalizer(Canonicalizer):
    """Leaves every input as it is: the baseline that must change no bit."""

    def forward(self, x: Tensor | Sequence[Tensor]) -> Pose:
        """Return the identity for every input."""
        if isinstance(x, Tensor):
            return Pose(self.group.identity(len(x), device=x.device))
        device = x[0].device if len(x) else torch.device("cpu")
        return Pose(self.group.identity(len(x), device=device))
