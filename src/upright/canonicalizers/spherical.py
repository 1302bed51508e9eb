"""The learned canonicalizer of point clouds: a density over up, another over the heading, and their peaks."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from itertools import permutations, product

import torch
import torch.nn.functional as F
from torch import Tensor

from .._checks import check_positive
from ..groups.base import Element, Group
from ..nets.heading import Handedness, HeadingDensity, headings
from ..nets.spherical import SphericalDensity, Surface, surface_of
from .clouds import CentredClouds, CloudCanonicalizer, thinned
from .frames import PCAFrame, pose_of
from .pose import Pose

HEADINGS = 24
"""At how many headings a density is known."""
_REACH_UP, _REACH_HEADING = math.radians(36), math.radians(50)
"""How far a hill reaches from its top."""
_MOST_HEADINGS = 4
_TIE = 1e-5
"""Relative difference of probabilities below which the first in the order counts as the larger."""


class SphericalCanonicalizer(CloudCanonicalizer):
    """Finds which way is up, and which is front, as people do: by what things look like that way.

    A network scores 86 directions that fill the sphere; the probability of the cells around a peak, and their
    mean direction, make a hill, the up of a candidate. About each of these, another scores 24 headings in the
    same manner. The cells are laid along the axes of `PCAFrame`, so that poses follow every motion to
    rounding, whatever the network says; trained, without labels, it says how the training clouds stand.

    Poses list the hills; ``log_density`` is that of all cells, for `upright.losses.prior_loss`. Gradients
    also reach the frames themselves, through the means.

    Args:
        group: ``"SO3"``, ``"O3"``, ``"SE3"`` or ``"E3"``. Mirror images of upright clouds are upright,
            too; in O3 and E3 a third network tells them apart, where the heading is learned.
        heading: Whether the heading is learned; else it is that of the longest principal axis, which suits
            training clouds that are turned about the vertical, and predictors that do not mind.
        channels: See `SphericalDensity`.
        width: See `SphericalDensity`.
        points: At most so many points, evenly spaced in their order, are looked at, among four times as many.
        hills: How many ways up a pose lists; each with up to four headings.

    Example:
        >>> import torch
        >>> pose = SphericalCanonicalizer("SE3")(torch.rand(2, 100, 3))
        >>> pose.element.shape
        torch.Size([2])
    """

    def __init__(
        self,
        group: Group | str = "SO3",
        *,
        heading: bool = True,
        channels: int = 16,
        width: int = 48,
        points: int = 96,
        hills: int = 3,
    ) -> None:
        super().__init__(group)
        check_positive("points", points)
        check_positive("hills", hills)
        self.up = SphericalDensity(channels=channels, width=width)
        self.front = HeadingDensity(width=width) if heading else None
        self.hand = Handedness(width=width) if heading and self.reflects else None
        self.axes = PCAFrame(self.group)
        self.points, self.hills = points, hills

    def poses(self, clouds: CentredClouds) -> Pose:
        """Choose the poses of centred clouds."""
        axes = self.axes.poses(clouds).element.value[..., :3]
        cells = cell_frames(axes.device)
        with torch.autocast(axes.device.type, enabled=False):
            seen = self._seen(clouds, axes)
            scores, hidden, whole = self.up(seen, cells[..., 2].to(seen.points))
            log_up = F.log_softmax(scores.double(), -1)
            index, levels, up = _hills(log_up, cells[..., 2], _REACH_UP, self.hills)
            frames = _upright_frames(cells[index], up)  # (B, U, 3, 3)
            frames, levels, log_front = self._turned(seen, hidden, whole, frames, levels)
            frames, levels, right = self._sided(seen, hidden, frames, levels)
        frames, levels = frames.flatten(1, -3), levels.flatten(1)
        best = levels.amax(1, keepdim=True)
        levels = torch.where(best - levels <= _TIE, best, levels)  # ties in the order of the cells
        pose = pose_of(self, 1.0, clouds.centre, axes.unsqueeze(1) @ frames, levels)
        density = _joint(log_up, index, log_front, right, self.reflects).float()
        return replace(pose, grid=self._grid(axes, clouds.centre), log_density=density)

    def _turned(
        self, seen: Surface, hidden: Tensor, whole: Tensor, frames: Tensor, levels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return frames with headings ``(B, U, V, 3, 3)``, levels ``(B, U, V)``, and what is known of all."""
        if self.front is None:
            return frames.unsqueeze(2), levels.unsqueeze(2), None
        scores = self.front(seen, hidden, whole, frames.to(seen.points), HEADINGS)
        log_probs = F.log_softmax(scores.double(), -1)
        circle = turns(headings(HEADINGS, frames))[..., 0]
        _, mass, front = _hills(log_probs.flatten(0, 1), circle, _REACH_HEADING, _MOST_HEADINGS)
        shape = (*levels.shape, _MOST_HEADINGS)
        onward = turns_to(front[..., 0].reshape(shape), front[..., 1].reshape(shape))
        return frames.unsqueeze(2) @ onward, levels.unsqueeze(2) + mass.reshape(shape), log_probs

    def _sided(
        self, seen: Surface, hidden: Tensor, frames: Tensor, levels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """List frames and their mirror images; also return logits ``(B, U)`` of the right way round."""
        if self.hand is None:
            return frames, levels, None
        logits = self.hand(seen, hidden, frames.flatten(1, 2).to(seen.points)).double().reshape(levels.shape)
        both = torch.stack([frames, frames * frames.new_tensor([1.0, -1.0, 1.0])], 3)
        sides = F.logsigmoid(torch.stack([logits, -logits], 3))
        return both, levels.unsqueeze(3) + sides, logits[..., 0]

    def _seen(self, clouds: CentredClouds, axes: Tensor) -> Surface:
        dtype = self.up.weights.weight.dtype
        some, more = thinned(clouds, self.points), thinned(clouds, 4 * self.points)
        scale = clouds.points.abs().amax((1, 2)).clamp(min=1e-300).view(-1, 1, 1)
        points, every = (((c.points / scale) @ axes).to(dtype) for c in (some, more))
        return surface_of(points, some.present, every, more.present)

    def _grid(self, axes: Tensor, centre: Tensor) -> Element:
        """Return the elements of all cells of each cloud, shape ``(B, N)``."""
        cells = cell_frames(axes.device).unsqueeze(1) @ turns(headings(HEADINGS, axes))
        cells = cells.flatten(0, 1)
        if self.reflects:
            cells = torch.cat([cells, cells * cells.new_tensor([1.0, -1.0, 1.0])])
        every = axes.detach() @ cells.transpose(0, 1).flatten(1)  # one product a cloud: (B, 3, 3 N)
        return self.elements(every.reshape(-1, 3, len(cells), 3).transpose(1, 2), centre)


def _hills(log_probs: Tensor, cells: Tensor, reach: float, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Find the hills of densities over unit vectors.

    Args:
        log_probs: Shape ``(B, K)``.
        cells: The vectors, shape ``(K, 3)``.
        reach: How far a hill reaches from its top, in radians.
        count: How many hills; where there are fewer, the others have no mass.

    Returns:
        Numbers of the tops ``(B, count)``, the largest hill first; logarithms of the masses; mean directions
        ``(B, count, 3)``.
    """
    near = cells @ cells.mT > math.cos(reach)
    probs = log_probs.exp()
    mass = (probs @ near.to(probs)).detach()
    around = log_probs.detach().unsqueeze(1).masked_fill(~near, -torch.inf).amax(-1)
    free = log_probs.detach() >= around - _TIE
    tops: list[Tensor] = []
    for _ in range(count):
        left = mass.masked_fill(~free, -1.0)
        top = (left >= left.amax(1, keepdim=True) * (1 - _TIE)).int().argmax(1)  # of equals, the first
        top = torch.where(free.any(1), top, tops[0] if tops else top)
        tops.append(top)
        free = free & ~near[top]
    index = torch.stack(tops, 1)
    weights = probs.unsqueeze(1) * near[index]  # (B, count, K)
    masses = weights.sum(-1)
    mean = F.normalize(weights @ cells, dim=-1)
    again = torch.zeros_like(index, dtype=torch.bool)
    again[:, 1:] = index[:, 1:] == index[:, :1]
    return index, masses.clamp(min=1e-300).log().masked_fill(again, -torch.inf), mean


def _joint(
    log_up: Tensor, index: Tensor, log_front: Tensor | None, hand: Tensor | None, reflects: bool
) -> Tensor:
    """Return log-probabilities of all cells, ``(B, N)``: headings and hands are known on the hills only."""
    cells = (log_up - math.log(HEADINGS)).unsqueeze(-1).repeat(1, 1, HEADINGS)
    where = index.unsqueeze(-1).expand(-1, -1, HEADINGS)
    if log_front is not None:
        cells = cells.scatter(1, where, log_up.gather(1, index).unsqueeze(-1) + log_front)
    if not reflects:
        return cells.flatten(1)
    sides = []
    for sign in (1.0, -1.0):
        side = torch.full_like(cells, -math.log(2))
        if hand is not None:
            known = F.logsigmoid(sign * hand).unsqueeze(-1).expand_as(where)
            side = side.scatter(1, where, known)
        sides.append((cells + side).flatten(1))
    return torch.cat(sides, 1)


def _upright_frames(cells: Tensor, up: Tensor) -> Tensor:
    """Return frames with a given third axis, the first as near as can be to that of other frames.

    Args:
        cells: Frames, shape ``(…, 3, 3)``; columns are axes.
        up: Unit vectors, shape ``(…, 3)``.
    """
    first = cells[..., 0]
    first = F.normalize(first - (first * up).sum(-1, keepdim=True) * up, dim=-1)
    return torch.stack([first, torch.linalg.cross(up, first), up], -1)


def turns(angle: Tensor) -> Tensor:
    """Return rotations about the third axis, shape ``(…, 3, 3)``."""
    return turns_to(angle.cos(), angle.sin())


def turns_to(x: Tensor, y: Tensor) -> Tensor:
    """Return rotations about the third axis that take the first to where (x, y) points, ``(…, 3, 3)``."""
    squared, o = x * x + y * y, torch.zeros_like(x)
    points = squared > 0
    length = torch.where(points, squared, 1.0).sqrt()
    c, s = torch.where(points, x / length, 1.0), y / length
    return torch.stack([c, -s, o, s, c, o, o, o, o + 1], -1).reshape(*x.shape, 3, 3)


def cell_frames(device: torch.device | None = None) -> Tensor:
    """Return frames whose third axes fill the sphere evenly, shape ``(86, 3, 3)``, float64.

    The directions are an orbit of the octahedral group, nearly of equal weight; none is farther than 16° from
    the next. The first axis leans towards x.

    Reference:
        Lebedev 1975, "Values of the nodes and weights of quadrature formulas of Gauss-Markov type for a
        sphere from the ninth to seventeenth order of accuracy".
    """
    up = torch.tensor(_directions(), dtype=torch.float64, device=device)
    along = up[:, 0].abs() < 0.9
    first = torch.stack([along, ~along, torch.zeros_like(along)], -1).to(up)
    return _upright_frames(first.unsqueeze(-1), up)


@lru_cache
def _directions() -> list[tuple[float, ...]]:
    third, a, b, c = 3**-0.5, 0.3696028464541502, 0.6943540066026664, 0.3742430390903412
    nodes = [
        (1.0, 0.0, 0.0),
        (third, third, third),
        (a, a, math.sqrt(1 - 2 * a * a)),
        (b, b, math.sqrt(1 - 2 * b * b)),
        (c, math.sqrt(1 - c * c), 0.0),
    ]
    signs = list(product((1.0, -1.0), repeat=3))
    directions: list[tuple[float, ...]] = []
    for node in nodes:
        turned = (zip(s, p, strict=True) for p in permutations(node) for s in signs)
        directions += sorted({tuple(a * x + 0.0 for a, x in pairs) for pairs in turned})
    return directions
