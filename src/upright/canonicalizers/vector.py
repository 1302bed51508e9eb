"""The learned canonicalizer of point clouds: vector neurons, and the rotation nearest to what they say."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .._checks import check_positive
from ..groups.base import Element, Group
from ..groups.space import SO3
from ..nets.vector_neurons import VectorNeurons
from .clouds import CentredClouds, CloudCanonicalizer, thinned
from .frames import PCAFrame, sign_patterns
from .orthogonal import nearest_orthogonal as nearest_orthogonal
from .pose import Pose


class VectorNeuronCanonicalizer(CloudCanonicalizer):
    """Finds how clouds stand by a network that turns with them; trained, without labels, to say "upright".

    The network's matrix ``M`` is the parameter of a matrix Fisher distribution, ``p(R) ∝ exp(tr(Mᵀ R))``,
    and the pose its mode: the rotation nearest to ``M``, by singular values. A rotation is a rotation: in SO3
    and SE3 its determinant is +1, in O3 and E3 that of ``M``. What ``M`` leaves open, as for a table that
    looks alike after half a turn, is decided by the axes of `PCAFrame`, so that the pose follows every turn.

    Poses list the mode and its flips about its own axes; ``log_density`` is the distribution over fixed
    ``cells``, for `upright.losses.prior_loss`.

    Args:
        group: ``"SO3"``, ``"O3"``, ``"SE3"`` or ``"E3"``.
        channels: See `VectorNeurons`.
        layers: See `VectorNeurons`.
        points: At most so many points, evenly spaced in their order, are looked at one by one; the moments
            are those of all points.
        cells: Number of rotations at which the density is known.
        fallback: Weight of the axes of `PCAFrame` relative to ``M``.

    Reference:
        Deng et al. 2021, arXiv 2104.12229; Kaba et al. 2023, arXiv 2211.06489; matrix Fisher: Mohlin et al.
        2020, arXiv 2006.09740.

    Example:
        >>> import torch
        >>> pose = VectorNeuronCanonicalizer("SE3")(torch.rand(2, 100, 3))
        >>> pose.element.shape
        torch.Size([2])
    """

    def __init__(
        self,
        group: Group | str = "SO3",
        *,
        channels: int = 16,
        layers: int = 2,
        points: int = 256,
        cells: int = 576,
        fallback: float = 0.05,
    ) -> None:
        super().__init__(group)
        check_positive("points", points)
        check_positive("cells", cells)
        check_positive("fallback", fallback)
        self.network = VectorNeurons(reflects=self.reflects, channels=channels, layers=layers)
        self.axes = PCAFrame(self.group)
        self.points, self.cells, self.fallback = points, cells, fallback

    def poses(self, clouds: CentredClouds) -> Pose:
        """Choose the poses of centred clouds; computed in float64."""
        count = clouds.present.sum(1)
        some = thinned(clouds, self.points)
        said = self.network(some.points, some.present, clouds.points, count)
        axes = self.axes.poses(clouds).element.value[..., :3]
        scale = said.flatten(1).norm(dim=1).clamp(min=1e-12).view(-1, 1, 1)
        decided = said + self.fallback * scale * axes
        frames = nearest_orthogonal(decided / scale, self.reflects)
        signs = sign_patterns(self.reflects, frames)
        listed = frames.unsqueeze(1) * signs.unsqueeze(1)  # (B, K, 3, 3)
        levels = torch.einsum("bij,bkij->bk", decided, listed).detach()
        elements = self.elements(listed, clouds.centre)
        log_probs = torch.log_softmax(levels, 1).float()
        grid = self.grid(said.device)
        rotations = grid.value[..., :3]
        density = torch.log_softmax(torch.einsum("bij,nij->bn", said, rotations), 1).float()
        return Pose(elements[:, 0], log_probs, candidates=elements, grid=grid, log_density=density)

    def grid(self, device: torch.device | None = None) -> Element:
        """Return where the density is known, shape ``(N,)``: rotations, in O3 and E3 also reflections."""
        rotations = spread_rotations(self.cells, device)
        rotations = torch.cat([rotations, -rotations]) if self.reflects else rotations
        return self.elements(rotations, rotations.new_zeros(len(rotations), 3))


def spread_rotations(count: int, device: torch.device | None = None) -> Tensor:
    """Return rotations that fill SO(3) evenly, the identity first; shape ``(count, 3, 3)``, float64.

    Reference:
        Alexa 2022, "Super-Fibonacci Spirals: Fast, Low-Discrepancy Sampling of SO(3)", CVPR.
    """
    s = torch.arange(count, dtype=torch.float64, device=device) + 0.5
    inner, outer = (s / count).sqrt(), (1 - s / count).sqrt()
    a, b = 2 * math.pi * s / math.sqrt(2), 2 * math.pi * s / 1.533751168755204288118041
    q = torch.stack([inner * a.sin(), inner * a.cos(), outer * b.sin(), outer * b.cos()], -1)
    rotations = SO3().from_quaternion(q).value
    spread: Tensor = rotations[0].mT @ rotations
    return spread
