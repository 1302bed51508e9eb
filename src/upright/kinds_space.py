"""What is moved in space. How it moves is in ``actions.space``.

Convention:
    Coordinates are right-handed x, y, z, and an element ``(R, t)`` moves ``v`` to ``R v + t``. Positions are
    measured from the origin. The axes of a volume are depth, height, width: z, y, x, each growing with its
    index; the origin is the middle of the volume and the unit is that of its ``spacing``. ``…`` stands for
    the batch shape of the element that moves the value (one leading axis, or none) and any further axes.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from ._values import static, value
from .kinds import Border, Invariant, Kind

Spacing = tuple[float, float, float]
"""Distances between voxels along depth, height and width (z, y, x)."""


@value
class Cloud(Kind):
    """Positions in space: point clouds, particles, atoms, key points. Every row moves, padding too.

    Attributes:
        data: Shape ``(…, N, 3 + features)``; x, y, z, then what stays with the point (a colour, a label).
        features: How many columns stay as they are.
    """

    data: Tensor
    features: int = static(default=0)


@value
class Vectors(Kind):
    """Arrows (velocities, forces, normals, dipoles): they turn and are never shifted.

    Attributes:
        data: Shape ``(…, 3)``.
    """

    data: Tensor


@value
class PointVectors(Vectors):
    """Arrows at the points of a cloud (velocities, normals) that say how it stands, as the points do.

    They move as `Vectors`; canonicalizers look at their tips too.

    Attributes:
        data: Shape ``(…, N, 3)``, in the unit of the points.
    """

    data: Tensor


@value
class PseudoVectors(Kind):
    """Axes of turning (angular momenta, torques, magnetic fields): a reflection also changes their sign.

    Attributes:
        data: Shape ``(…, 3)``.
    """

    data: Tensor


@value
class Tensors(Kind):
    """Tensors of rank two (stress, inertia, polarisability, covariance): ``T`` becomes ``R T Rᵀ``.

    Attributes:
        data: Shape ``(…, 3, 3)``.
    """

    data: Tensor


@value
class Volume(Kind):
    """A picture in space (computed tomography, magnetic resonance, a voxel grid).

    Attributes:
        data: Voxels, shape ``(…, C, D, H, W)``, any float or integer dtype, any number of channels.
        spacing: Distances between voxels along D, H, W (z, y, x); they go with their axes.
        border: What lies outside.
        interpolation: How voxels are resampled by elements that do not keep the grid.
        fill: The constant of ``border="constant"``.
    """

    data: Tensor
    spacing: Spacing = static(default=(1.0, 1.0, 1.0))
    border: Border = static(default="edge")
    interpolation: Literal["trilinear", "nearest"] = static(default="trilinear")
    fill: float = static(default=0.0)


@value
class LabelVolume(Kind):
    """A segmentation of a volume: moves like it, without mixing labels.

    Attributes:
        data: Shape ``(…, D, H, W)``; bool and integers take the nearest voxel's label, floats ("soft" labels,
            one channel each) are interpolated.
        spacing: Distances between voxels along D, H, W (z, y, x); they go with their axes.
        border: What lies outside.
        fill: The label or value of ``border="constant"``.
    """

    data: Tensor
    spacing: Spacing = static(default=(1.0, 1.0, 1.0))
    border: Border = static(default="constant")
    fill: float = static(default=0.0)


@value
class OrientedBoxes3D(Kind):
    """Boxes in space that stand in any direction.

    Attributes:
        data: Shape ``(…, N, 15)``: centre x, y, z; the three sides; a rotation matrix, row by row, whose
            columns point along the sides. It stays a rotation: where an element reflects, its third column
            also changes sign, which is the same box.
    """

    data: Tensor


@value
class Rows(Kind):
    """What belongs to the members of a set, one row each (charges, labels, features); permutations move it.

    Attributes:
        data: Shape ``(…, N)``, and behind it the axes of one row.
        inner: How many axes one row has: 0 for a number a member, 1 for features ``(…, N, F)``.
    """

    data: Tensor
    inner: int = static(default=0)


@value
class Pairs(Kind):
    """What belongs to pairs of members (adjacency, distances, bonds); permutations move rows and columns.

    Attributes:
        data: Shape ``(…, N, N)``, and behind it the axes of one pair.
        inner: How many axes one pair has: 0 for a number a pair, 1 for features ``(…, N, N, F)``.
    """

    data: Tensor
    inner: int = static(default=0)


@value
class PointMask(Invariant):
    """Which rows of a padded batch of clouds are points; canonicalizers do not look at the others.

    Attributes:
        data: Shape ``(…, N)``, bool, or numbers that are 0 where there is no point.
        axis: The axis that counts the clouds.
    """

    data: Tensor
