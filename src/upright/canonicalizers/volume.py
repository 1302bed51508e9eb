"""The canonicalizer of volumes: a small cube, a network that judges it in every orientation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..groups.base import FiniteGroup
from ..groups.octahedral import CubeGroup
from ..groups.parse import parse_finite_group
from ..kinds import Kind
from ..kinds_space import Volume
from ..nets.orbit import OrbitScorer
from ..nets.volume import VolumeBackbone, small_volume, standardized_volume
from .discrete import DiscreteCanonicalizer


class VolumeCanonicalizer(DiscreteCanonicalizer):
    """Finds which of 24 rotations, or of 48 with reflections, a volume has undergone.

    A copy of each volume in a small cube is turned by every element, exactly, and a network judges each.

    Args:
        group: ``"octahedral"`` or ``"full octahedral"``.
        network: Maps cubes ``(N, C, size, size, size)`` to one score each, ``(N, 1)``; default: a
            `VolumeBackbone`.
        size: Side of the cube in voxels.
        channels: Channels of the volumes.
        **settings: ``standardize``, ``estimator`` and ``deployment_prior`` of `DiscreteCanonicalizer`.

    Raises:
        TypeError: If the group is another.

    Example:
        >>> import torch
        >>> VolumeCanonicalizer("octahedral")(torch.rand(2, 1, 20, 24, 16)).log_probs.shape
        torch.Size([2, 24])
    """

    reads: ClassVar[type[Kind]] = Volume

    def __init__(
        self,
        group: FiniteGroup | str = "octahedral",
        network: nn.Module | None = None,
        *,
        size: int = 16,
        channels: int = 1,
        **settings: Any,
    ) -> None:
        parsed = parse_finite_group(group)
        if not isinstance(parsed, CubeGroup):
            raise TypeError(f"group must be 'octahedral' or 'full octahedral' for volumes, got {parsed}")
        judge = VolumeBackbone(channels=channels) if network is None else network
        super().__init__(OrbitScorer(judge, parsed), parsed, size=size, channels=channels, **settings)

    def _thumbnails(self, x: Tensor | Sequence[Tensor]) -> Tensor:
        size = self.size
        assert size is not None
        if not isinstance(x, Tensor):
            if not len(x):
                return self.temperature.new_zeros(0, self.channels, size, size, size)
            return torch.cat([self._thumbnails(volume.unsqueeze(0)) for volume in x])
        if x.ndim != 5 or x.shape[1] != self.channels:
            raise ValueError(
                f"x must have shape (B, {self.channels}, D, H, W), got {tuple(x.shape)}; build the "
                "canonicalizer with channels=…"
            )
        if x.shape[0] and not x[0].numel():
            raise ValueError(f"volumes must have voxels, got {tuple(x.shape)}")
        seen = small_volume(x.to(self.temperature.dtype), size)
        if self.standardize:
            return standardized_volume(seen)
        return seen if x.is_floating_point() else seen / 255
