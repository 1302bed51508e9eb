"""Densities over directions of space: how much a cloud looks as if a direction were its up.

Points are described by numbers that no rotation changes; a small network makes of them the weights of zonal
polynomials about the points' directions and normals. The sum over points is a function on the sphere that
turns with the cloud, known at any direction, for little more than one pass over the points.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._checks import check_positive

NUMBERS, WHOLE = 11, 4
"""How many numbers describe a point, and a cloud."""
_DEGREES = (7, 5, 3)
"""Polynomials of the direction: by themselves, times the normal's square, times the spread."""


@dataclass(frozen=True)
class Surface:
    """What is seen of clouds at some of their points; the clouds' size is taken off.

    Attributes:
        points: Shape ``(B, S, 3)``; padding is zero.
        present: Which rows are points, shape ``(B, S)``.
        share: What each counts in means, shape ``(B, S, 1)``; 0 for padding.
        flat: About the dyad of the normal where the surroundings are flat, shape ``(B, S, 3, 3)``.
        spread: Covariance of the surroundings, of trace 1, shape ``(B, S, 3, 3)``.
        numbers: What no rotation or reflection changes, shape ``(B, S, NUMBERS)``.
        whole: The same of the cloud, shape ``(B, WHOLE)``.
    """

    points: Tensor
    present: Tensor
    share: Tensor
    flat: Tensor
    spread: Tensor
    numbers: Tensor
    whole: Tensor


def surface_of(points: Tensor, present: Tensor, every: Tensor, there: Tensor, reach: float = 0.3) -> Surface:
    """Look at clouds.

    Args:
        points: Points that are looked at one by one, shape ``(B, S, 3)``.
        present: Which of them are points and not padding, shape ``(B, S)``.
        every: The points that surround them, shape ``(B, N, 3)``.
        there: Which of these are points, shape ``(B, N)``.
        reach: Standard deviation of the window on the surroundings, in units of the cloud's radius of
            gyration.
    """
    mass = there.to(every) / there.sum(1, keepdim=True)
    size = torch.einsum("bn,bni->b", mass, every * every).clamp(min=1e-30).sqrt().view(-1, 1, 1)
    p, q = points / size, every / size
    global_spread = torch.einsum("bn,bni,bnj->bij", mass, q, q)
    lean = torch.einsum("bn,bn,bni->bi", mass, (q * q).sum(-1), q)
    middle, spread, extent, crowd = _surroundings(p, q, mass, reach)
    squared = spread @ spread
    thin = squared.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True)
    eye = torch.eye(3, dtype=p.dtype, device=p.device)
    flat = 4 * (squared - spread) + 2 * (1 - thin).unsqueeze(-1) * eye  # 4 adj(spread)
    r = (p * p).sum(-1, keepdim=True).add(1e-12).sqrt()
    way = directions_of(p)
    pull = torch.einsum("bij,bsj->bsi", global_spread, way)
    numbers = [
        r, r * r, 10 * extent, 5 * crowd, 2 * thin - 1, _form(way, flat), _form(way, spread),
        3 * ((p - middle) * way).sum(-1, keepdim=True), (way * pull).sum(-1, keepdim=True),
        (pull * pull).sum(-1, keepdim=True), (p * lean.unsqueeze(1)).sum(-1, keepdim=True),
    ]  # fmt: skip
    turned = torch.einsum("bij,bj->bi", global_spread, lean)
    second = global_spread @ global_spread
    whole = torch.stack(
        [(second * eye).sum((1, 2)), (second * global_spread).sum((1, 2)), (lean * lean).sum(1),
         (lean * turned).sum(1)], -1
    )  # fmt: skip
    share = (present.to(p) / present.sum(1, keepdim=True)).unsqueeze(-1)
    return Surface(p, present, share, flat, spread, torch.cat(numbers, -1), whole)


def _surroundings(p: Tensor, q: Tensor, mass: Tensor, reach: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return middle, covariance of trace 1, extent and mass of what surrounds each point ``p``."""
    far = (p * p).sum(-1).unsqueeze(2) + (q * q).sum(-1).unsqueeze(1) - 2 * p @ q.mT  # (B, S, N)
    weight = torch.exp(far * (-0.5 / reach**2)) * mass.unsqueeze(1)
    x, y, z = q.unbind(-1)
    pairs = torch.stack([torch.ones_like(x), x, y, z, x * x, x * y, x * z, y * y, y * z, z * z], -1)
    sums = weight @ pairs
    crowd = sums[..., :1]
    sums = sums[..., 1:] / crowd.clamp(min=1e-12)
    middle = sums[..., :3]
    second = sums[..., [3, 4, 5, 4, 6, 7, 5, 7, 8]].reshape(*sums.shape[:-1], 3, 3)
    spread = second - middle.unsqueeze(-1) * middle.unsqueeze(-2)
    extent = spread.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True)
    least = 0.05 * reach**2  # of lonely points the covariance is rounding
    eye = torch.eye(3, dtype=p.dtype, device=p.device)
    spread = (spread + least / 3 * eye) / (extent + least).unsqueeze(-1)
    return middle, spread, extent, crowd


def _form(way: Tensor, tensor: Tensor) -> Tensor:
    """Return quadratic forms, shape ``(B, S, 1)``."""
    return torch.einsum("bsi,bsij,bsj->bs", way, tensor, way).unsqueeze(-1)


class SphericalDensity(nn.Module):
    """Scores directions of space, ``score(R x, R u) = score(x, u)`` for rotations and reflections alike.

    Args:
        channels: Functions on the sphere.
        width: Hidden numbers a point and a direction.
    """

    def __init__(self, *, channels: int = 16, width: int = 48) -> None:
        super().__init__()
        check_positive("channels", channels)
        check_positive("width", width)
        self.channels = channels
        self.each = nn.Sequential(nn.Linear(NUMBERS, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.whole = nn.Linear(2 * width + WHOLE, width)
        self.again, self.again_whole = nn.Linear(width, width), nn.Linear(width, width)
        self.weights = nn.Linear(width, channels * sum(_DEGREES))
        self.norm = nn.LayerNorm(channels)
        self.judge, self.judge_whole = nn.Linear(channels, width), nn.Linear(width, width)
        self.last = nn.Sequential(nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, seen: Surface, directions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Score directions.

        Args:
            seen: What is seen of the clouds.
            directions: Unit vectors, shape ``(K, 3)``, the same for every cloud.

        Returns:
            Scores ``(B, K)``; what was made of every point, ``(B, S, width)``, and of the cloud, ``(B,
            width)``, which no rotation changes.
        """
        hidden = self.each(seen.numbers)
        mean = (seen.share * hidden).sum(1)
        most = hidden.masked_fill(~seen.present.unsqueeze(-1), 0.0).amax(1)
        whole = F.relu(self.whole(torch.cat([mean, most, seen.whole], -1)))
        hidden = F.relu(self.again(hidden) + self.again_whole(whole).unsqueeze(1))
        values = self.norm(self._functions(seen, hidden, directions))  # (B, K, channels)
        scores: Tensor = self.last(self.judge(values) + self.judge_whole(whole).unsqueeze(1))
        return scores.squeeze(-1), hidden, whole

    def _functions(self, seen: Surface, hidden: Tensor, directions: Tensor) -> Tensor:
        """Return the values of functions on the sphere, shape ``(B, K, channels)``."""
        weights = (self.weights(hidden) * seen.share).reshape(
            *hidden.shape[:-1], sum(_DEGREES), self.channels
        )
        way = directions_of(seen.points)
        at_points, at_directions = monomials(way, max(_DEGREES)), monomials(directions, max(_DEGREES))
        coefficients, factors, start = [], [], 0
        for count, tensor in zip(_DEGREES, (None, seen.flat, seen.spread), strict=True):
            used = torch.einsum("bslc,ln->bnsc", weights[:, :, start : start + count], legendre(count, way))
            start += count
            for n in range(count):
                own, other = at_points[n], at_directions[n]
                if tensor is not None:
                    own = (own.unsqueeze(-1) * _packed(tensor).unsqueeze(-2)).flatten(-2)
                    other = (other.unsqueeze(-1) * at_directions[2].unsqueeze(-2)).flatten(-2)
                coefficients.append(used[:, n].mT @ own)
                factors.append(other)
        return torch.cat(factors, -1) @ torch.cat(coefficients, -1).mT


def directions_of(points: Tensor) -> Tensor:
    """Return vectors of length about 1; shorter for innermost points, whose direction would be rounding."""
    return points / ((points * points).sum(-1, keepdim=True) + 1e-4).sqrt()


def _packed(tensor: Tensor) -> Tensor:
    """Return symmetric tensors as ``(…, 6)``, so scaled that their products with ``M_2(u)`` are the forms."""
    scale = tensor.new_tensor([1.0, 2**0.5, 2**0.5, 1.0, 2**0.5, 1.0])
    return tensor.flatten(-2)[..., [0, 1, 2, 4, 5, 8]] * scale


def monomials(v: Tensor, count: int) -> list[Tensor]:
    """Return, for ``n < count``, the products of ``n`` coordinates, so scaled that ``M(u)·M(v) = (u·v)^n``.

    Args:
        v: Shape ``(…, 3)``.
        count: How many degrees.

    Returns:
        Shapes ``(…, (n + 1) (n + 2) / 2)``.
    """
    rows = [torch.ones_like(v[..., :1])]
    exponents: list[tuple[int, ...]] = [(0, 0, 0)]
    for n in range(1, count):
        wanted = [(a, b, n - a - b) for a in range(n, -1, -1) for b in range(n - a, -1, -1)]
        axes = [next(i for i in range(3) if e[i]) for e in wanted]
        lower = [
            tuple(x - (i == axis) for i, x in enumerate(e)) for e, axis in zip(wanted, axes, strict=True)
        ]
        source = [exponents.index(e) for e in lower]
        scale = v.new_tensor([(n / e[axis]) ** 0.5 for e, axis in zip(wanted, axes, strict=True)])
        rows.append(rows[-1][..., source] * v[..., axes] * scale)
        exponents = list(wanted)
    return rows


def legendre(count: int, like: Tensor) -> Tensor:
    """Return the coefficients of Legendre polynomials, shape ``(count, count)``: degree, then power."""
    table = torch.zeros(count, count, dtype=torch.float64)
    table[0, 0] = 1
    if count > 1:
        table[1, 1] = 1
    for n in range(2, count):
        table[n, 1:] = (2 * n - 1) / n * table[n - 1, :-1]
        table[n] -= (n - 1) / n * table[n - 2]
    return table.to(like)
