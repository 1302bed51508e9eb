"""What canonicalizers of point clouds share: reading ragged batches, centring, and poses from frames."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from .._checks import check_tensor
from ..groups.base import Element, Group
from ..groups.motions import E3, SE3
from ..groups.parse import parse_group
from ..groups.space import O3, SO3
from ..kinds import Kind
from ..kinds_space import Cloud
from .base import Canonicalizer
from .network import keeping_precision
from .pose import Pose


@dataclass(frozen=True)
class CentredClouds:
    """A batch of clouds about their centres; rows that are padding are zero.

    Attributes:
        points: Shape ``(B, N, 3)``, float64.
        present: Which rows are points, shape ``(B, N)``, bool.
        centre: Shape ``(B, 3)``, float64; zeros for groups without translations.
    """

    points: Tensor
    present: Tensor
    centre: Tensor

    def mean(self, values: Tensor) -> Tensor:
        """Return the means over the points, ``(B, N, …)`` to ``(B, …)``; padding must be zero."""
        count = self.present.sum(1).to(values)
        return values.sum(1) / count.view(-1, *[1] * (values.ndim - 2))

    def select(self, index: Tensor) -> CentredClouds:
        """Return some of the clouds."""
        return CentredClouds(self.points[index], self.present[index], self.centre[index])


class CloudCanonicalizer(Canonicalizer):
    """A canonicalizer of point clouds under rotations, reflections and translations of space.

    Without translations everything turns about the origin; with them about the centroid, which is the
    translation of the pose.

    Args:
        group: ``"SO3"``, ``"O3"``, ``"SE3"`` or ``"E3"``.

    Raises:
        TypeError: If the group is another.
    """

    reads: ClassVar[type[Kind]] = Cloud

    def __init__(self, group: Group | str) -> None:
        parsed = parse_group(group)
        if not isinstance(parsed, (SO3, O3, SE3, E3)):
            raise TypeError(
                f"group must be SO3, O3, SE3 or E3 for {type(self).__name__}, got {parsed}; for volumes and "
                "the octahedral group use VolumeCanonicalizer"
            )
        super().__init__(parsed)

    @property
    def translates(self) -> bool:
        """Whether the group shifts."""
        return isinstance(self.group, (SE3, E3))

    @property
    def reflects(self) -> bool:
        """Whether the group reflects."""
        return isinstance(self.group, (O3, E3))

    def forward(self, x: Tensor | Sequence[Tensor], mask: Tensor | None = None) -> Pose:
        """Choose the poses.

        Args:
            x: Points, shape ``(B, N, 3)``, or a sequence of ``(N_i, 3)``, any unit; floats of any precision.
            mask: Which rows are points and not padding, shape ``(B, N)``; None: all are.

        Returns:
            Poses of batch shape ``(B,)``.

        Raises:
            ValueError: If shapes do not fit, a cloud has no point, or a coordinate is not finite.
        """
        return self.poses(read_clouds(x, mask, centred=self.translates))

    @abstractmethod
    def poses(self, clouds: CentredClouds) -> Pose:
        """Choose the poses of centred clouds."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Keep float32 under ``.half()``, as `NetworkCanonicalizer` does."""
        return super()._apply(keeping_precision(fn), recurse)  # type: ignore[no-untyped-call]

    def elements(self, frames: Tensor, centre: Tensor) -> Element:
        """Return the elements whose rotations have the given axes as columns.

        Args:
            frames: Shape ``(B, …, 3, 3)``.
            centre: Shape ``(B, 3)``.
        """
        if not self.translates:
            return Element(self.group, frames)
        centre = centre.view(-1, *[1] * (frames.ndim - 3), 3, 1).expand(*frames.shape[:-1], 1)
        return Element(self.group, torch.cat([frames, centre], -1))


def read_clouds(x: Tensor | Sequence[Tensor], mask: Tensor | None, *, centred: bool) -> CentredClouds:
    """Read a batch of clouds in float64, and centre them.

    Args:
        x: Shape ``(B, N, 3)``, or a sequence of ``(N_i, 3)``, which needs no mask.
        mask: Which rows are points, shape ``(B, N)``.
        centred: Whether the centroid is taken off.

    Raises:
        TypeError: If ``x`` is neither, or holds integers.
        ValueError: See `CloudCanonicalizer.forward`.
    """
    if not isinstance(x, Tensor):
        if mask is not None:
            raise ValueError("mask must be None where x is a list, whose clouds hold their own points only")
        x, mask = _padded(x)
    check_tensor("x", x, "(B, N, 3)", 3)
    if x.ndim != 3 or x.shape[-1] != 3:
        raise ValueError(
            f"x must have shape (B, N, 3), got {tuple(x.shape)}; add a batch axis, hand features over apart"
        )
    if not x.is_floating_point():
        raise TypeError(f"x must hold floats, got {x.dtype}")
    if mask is not None and mask.shape != x.shape[:2]:
        raise ValueError(f"mask must have shape {tuple(x.shape[:2])} to match x, got {tuple(mask.shape)}")
    present = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask.bool()
    points = x.double()
    points = points if mask is None else points.masked_fill(~present.unsqueeze(-1), 0.0)
    count, total = present.sum(1), points.sum(1)
    if not torch.compiler.is_compiling():  # graphs hold no values
        _check_values(count, total)
    if not centred:
        return CentredClouds(points, present, points.new_zeros(points.shape[0], 3))
    centre = total / count.unsqueeze(-1)
    points = points - centre.unsqueeze(1)
    points = points if mask is None else points.masked_fill(~present.unsqueeze(-1), 0.0)
    return CentredClouds(points, present, centre)


def thinned(clouds: CentredClouds, most: int) -> CentredClouds:
    """Return at most so many points of each cloud, evenly spaced in their order."""
    if clouds.points.shape[1] <= most:
        return clouds
    counts = clouds.present.sum(1, keepdim=True)
    absent = ~clouds.present
    rank = torch.where(absent, counts + absent.cumsum(1), clouds.present.cumsum(1)) - 1  # points come first
    place = torch.arange(rank.shape[1], device=rank.device).expand(rank.shape)
    order = torch.zeros_like(rank).scatter(1, rank, place)
    wanted = counts.clamp(max=most)
    step = torch.arange(most, device=order.device)
    index = order.gather(1, (step * counts // wanted).clamp(max=order.shape[1] - 1))
    present = step < wanted
    points = clouds.points.gather(1, index.unsqueeze(-1).expand(-1, -1, 3))
    return CentredClouds(points.masked_fill(~present.unsqueeze(-1), 0.0), present, clouds.centre)


def _check_values(count: Tensor, total: Tensor) -> None:
    """Check that clouds have points, and coordinates that add up."""
    if count.shape[0] and not bool((count > 0).all()):
        raise ValueError(f"every cloud must have a point; cloud {int((count == 0).int().argmax())} has none")
    finite = total.isfinite().all(1)
    if not bool(finite.all()):
        raise ValueError(f"coordinates must be finite; those of cloud {int(finite.int().argmin())} are not")


def _padded(clouds: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return clouds of different lengths as one batch, and which of its rows are points."""
    if not len(clouds):
        return torch.zeros(0, 1, 3), torch.zeros(0, 1, dtype=torch.bool)
    for i, cloud in enumerate(clouds):
        if not isinstance(cloud, Tensor) or cloud.ndim != 2 or cloud.shape[-1] != 3:
            got = tuple(cloud.shape) if isinstance(cloud, Tensor) else type(cloud).__name__
            raise ValueError(f"cloud {i} of the list must be a tensor (N, 3), got {got}")
    x = torch.nn.utils.rnn.pad_sequence(list(clouds), batch_first=True)
    lengths = torch.tensor([len(cloud) for cloud in clouds], device=x.device)
    return x, torch.arange(x.shape[1], device=x.device) < lengths.unsqueeze(1)
