"""Rigid motions of space: SE(3), and E(3) with reflections.

Convention:
    As in `space`: right-handed axes x, y, z; ``v`` goes to ``R v + t``, with ``t`` in the unit of the data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from .base import Element
from .lie import exponential
from .quaternions import cross_matrix
from .space import ContinuousSpatialGroup, last_axis, turns


class _Motions(ContinuousSpatialGroup):
    """SE(3) and E(3): written down as ``(R | t)``."""

    dimension: ClassVar[int] = 4
    coordinates: ClassVar[int] = 6
    is_bi_invariant: ClassVar[bool] = False
    window: ClassVar[float] = 1.0
    """`sample` draws each component of the shift uniformly from ``[-window, window]``."""

    def element(self, rotation: Any = None, translation: Any = None, device: Any = None) -> Element:
        """Return the motions ``v ↦ R v + t``; batch shapes broadcast.

        Args:
            rotation: Matrices, shape ``(…, 3, 3)``, precise to about three digits, or a
                ``scipy.spatial.transform.Rotation``; default: no rotation.
            translation: Shifts, shape ``(…, 3)``, in the unit of the data; default: none.
            device: Where the elements live; default: that of what is given.

        Raises:
            ValueError: If a shape is another, or a matrix is not orthogonal or not of the group.
        """
        if device is None:
            device = next((v.device for v in (rotation, translation) if isinstance(v, Tensor)), None)
        turn = self._checked(torch.eye(3) if rotation is None else rotation, device)
        shift = last_axis(torch.zeros(3) if translation is None else translation, 3, "translation", device)
        return self._joined(turn, shift)

    def sample(self, *shape: int, generator: torch.Generator | None = None, device: Any = None) -> Element:
        """Draw rotations uniformly (Haar measure) and shifts from a window: they have no uniform law."""
        turn = self._drawn(shape, generator, device)
        unit = torch.rand(*shape, 3, generator=generator, device=turn.device, dtype=torch.float64)
        return self._joined(turn, (2 * unit - 1) * self.window)

    def compose(self, g: Element, h: Element) -> Element:
        """Return ``g @ h``: first ``h``, then ``g``."""
        turn, shift = g.value[..., :3], g.value[..., 3:]
        moved = turn @ h.value
        return Element(self, torch.cat([moved[..., :3], moved[..., 3:] + shift], -1))

    def inverse(self, g: Element) -> Element:
        """Return ``~g``."""
        back = g.value[..., :3].mT
        return Element(self, torch.cat([back, -(back @ g.value[..., 3:])], -1))

    def rotation(self, g: Element) -> Tensor:
        """Return the orthogonal parts ``R``, ``(*g.shape, 3, 3)``, float64."""
        return g.value[..., :3]

    def translation(self, g: Element) -> Tensor:
        """Return the shifts ``t``, ``(*g.shape, 3)``, float64."""
        return g.value[..., 3]

    def matrix(self, g: Element, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return ``((R, t), (0, 1))``, which moves ``(x, y, z, 1)`` columns, ``(*g.shape, 4, 4)``."""
        bottom = torch.tensor([[0.0, 0.0, 0.0, 1.0]], dtype=torch.float64, device=g.device)
        return torch.cat([g.value, bottom.expand(*g.shape, 1, 4)], -2).to(dtype)

    def distance(self, g: Element, h: Element) -> Tensor:
        """Return ``sqrt(angle² + |t - t'|²)``: radians (π between handedness) and the unit of the data.

        It is invariant on the left: no distance on these groups is on both sides.
        """
        shift = torch.linalg.vector_norm(self.translation(g) - self.translation(h), dim=-1)
        both = torch.stack([super().distance(g, h), shift], -1)
        distance: Tensor = torch.linalg.vector_norm(both, dim=-1)  # hypot has no gradient at 0
        return distance

    def generators(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return the shifts along x, y and z, then the turns about them, shape ``(6, 4, 4)``."""
        made = torch.zeros(6, 4, 4, dtype=torch.float64)
        made[:3, :3, 3] = torch.eye(3, dtype=torch.float64)
        made[3:, :3, :3] = turns()
        return made.to(dtype)

    def exp(self, coordinates: Tensor) -> Element:
        """Return screw motions with the given coordinates, ``(…, 6)``: shifts, then rotation vectors.

        Differentiable. With a rotation, the first three are not the shift ``t`` itself, see `log`.
        """
        return Element(self, exponential(coordinates, self.generators())[..., :3, :])

    def log(self, g: Element) -> Tensor:
        """Return coordinates, ``(*g.shape, 6)``, angles at most π; at π one of the two.

        Reference:
            Murray, Li, Sastry, A Mathematical Introduction to Robotic Manipulation (1994), proposition 2.9.

        Raises:
            ValueError: If an element reflects.
        """
        vector = self.rotvec(g)
        cross = cross_matrix(vector)
        squared = vector.square().sum(-1)
        near = squared < 1e-2
        half = torch.where(near, 1.0, squared).sqrt() / 2
        series = 1 / 12 + squared / 720 + squared**2 / 30240 + squared**3 / 1209600
        factor = torch.where(near, series, (1 - half * torch.cos(half) / torch.sin(half)) / (4 * half * half))
        unit = torch.eye(3, dtype=torch.float64, device=g.device)
        back = unit - cross / 2 + factor[..., None, None] * (cross @ cross)
        return torch.cat([(back @ g.value[..., 3:]).squeeze(-1), vector], -1)

    def _from(self, rotation: Tensor) -> Element:
        return self._joined(rotation, torch.zeros(3, dtype=torch.float64, device=rotation.device))

    def _joined(self, rotation: Tensor, translation: Tensor) -> Element:
        shape = torch.broadcast_shapes(rotation.shape[:-2], translation.shape[:-1])  # type: ignore[no-untyped-call]
        parts = [rotation.expand(*shape, 3, 3), translation.unsqueeze(-1).expand(*shape, 3, 1)]
        return Element(self, torch.cat(parts, -1))


@dataclass(frozen=True)
class SE3(_Motions):
    """Rotations and shifts; ``Element.value`` is ``(R | t)``, shape ``(…, 3, 4)``, float64.

    Example:
        >>> g = SE3().element(translation=[1.0, 0.0, 0.0]) @ SE3().from_euler("z", [90.0], degrees=True)
        >>> (g @ ~g).is_identity().item(), SE3().translation(g).tolist()
        (True, [1.0, 0.0, 0.0])
    """

    is_proper: ClassVar[bool] = True
    _wider: ClassVar[str] = "E3()"

    def __str__(self) -> str:
        return "SE3"


@dataclass(frozen=True)
class E3(_Motions):
    """Rotations, reflections and shifts; ``Element.value`` is ``(R | t)``, shape ``(…, 3, 4)``, float64.

    Example:
        >>> g = E3().element([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], [0.0, 0.0, 2.0])
        >>> E3().determinant(g).item(), (g @ ~g).is_identity().item()
        (-1.0, True)
    """

    is_proper: ClassVar[bool] = False

    def __str__(self) -> str:
        return "E3"
