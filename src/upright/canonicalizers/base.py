"""The canonicalizer contract, and the canonicalizer that moves nothing."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import Self

from ..groups.base import FiniteGroup, Group
from ..groups.parse import parse_group
from ..groups.permutations import Permutations
from ..groups.space import SpatialGroup
from ..kinds import Image, Kind
from ..kinds_space import Cloud, Volume
from ..priors import Prior
from .pose import Pose


class Canonicalizer(nn.Module, ABC):
    """Chooses the pose of each input, equivariantly: ``c(act(g, x)) == g @ c(x)`` up to the stabiliser of x.

    ``forward`` computes a `Pose` and stores nothing, so one canonicalizer serves any number of threads.

    Args:
        group: The group of the poses, or its name.
    """

    reads: ClassVar[type[Kind]] = Image
    """What it looks at: `Image`, or in space `Cloud` or `Volume`."""
    deployment_prior: Prior | None = None
    """What is known of the poses met in use; see `with_prior`."""
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

    def with_prior(self, prior: Prior | None) -> Self:
        """Return a view of this canonicalizer that decides under a deployment prior; this one stays as it is.

        Weights and networks are shared. A prior takes the place of another one, it does not add to it.

        Args:
            prior: How often each pose occurs in use; None: poses are equally likely, so that the decision is
                equivariant.

        Raises:
            TypeError: If this canonicalizer has no posterior that a prior could change, or the prior is none.
            ValueError: If the prior is one of another group.
        """
        if "deployment_prior" not in vars(self):
            raise TypeError(
                f"{type(self).__name__} has no posterior that a prior could change; let it take a "
                "deployment_prior, as DiscreteCanonicalizer does"
            )
        if prior is not None:
            if not isinstance(prior, Prior):
                raise TypeError(f"prior must be a Prior or None, got {type(prior).__name__}")
            prior.log_density(self.group.identity())  # raises where the two do not fit
        view = copy.copy(self)
        view.deployment_prior = prior
        return view


class IdentityCanonicalizer(Canonicalizer):
    """Leaves every input as it is: the baseline that must change no bit.

    It reads what other canonicalizers of its group read: volumes for the octahedral groups, clouds for other
    groups of space and for permutations, else pictures.
    """

    def __init__(self, group: Group | str) -> None:
        super().__init__(group)
        if isinstance(self.group, SpatialGroup):
            self.reads = Volume if isinstance(self.group, FiniteGroup) else Cloud  # type: ignore[misc]
        elif isinstance(self.group, Permutations):
            self.reads = Cloud  # type: ignore[misc]

    def forward(self, x: Tensor | Sequence[Tensor]) -> Pose:
        """Return the identity for every input."""
        if isinstance(x, Tensor):
            return Pose(self.group.identity(x.shape[0], device=x.device))
        device = x[0].device if len(x) else torch.device("cpu")
        return Pose(self.group.identity(len(x), device=device))
