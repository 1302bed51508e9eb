"""The polar network: on a polar grid a rotation is a shift, and a circular convolution commutes with it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..actions.grid import permuted
from ..groups.base import FiniteGroup
from ..groups.parse import parse_planar_group
from ..groups.planar import Dihedral


class PolarNet(nn.Module):
    """Scores every C_n or D_n with one resampling to polar coordinates and circular convolutions.

    The angular length is a multiple of ``n``, so that a turn by 360°/n is a whole number of samples; only the
    inscribed disc is seen. Reflections are scored on the mirrored polar grid by the same weights.

    Args:
        group: The group, or its name.
        widths: Channels after each stage; radius is halved between stages, and the angle while it stays a
            multiple of ``n``.
        rays: Least number of angular samples.
        rings: Number of radial samples.
        channels: Channels of the picture.
    """

    is_exact_on_grid = True

    def __init__(
        self,
        group: FiniteGroup | str,
        *,
        widths: Sequence[int] = (32, 48, 64),
        rays: int = 96,
        rings: int = 24,
        channels: int = 3,
    ) -> None:
        super().__init__()
        parsed = parse_planar_group(group)
        self.group = parsed
        self.n = parsed.n
        self.has_reflections = isinstance(parsed, Dihedral)
        unit = math.lcm(self.n, 4)
        self.rays, self.rings = unit * math.ceil(rays / unit), rings
        inputs = [channels, *widths[:-1]]
        self.convs = nn.ModuleList(
            nn.Conv2d(i, o, 3, bias=False) for i, o in zip(inputs, widths, strict=True)
        )
        self.more = nn.ModuleList(nn.Conv2d(o, o, 3, bias=False) for o in widths)
        self.norms = nn.ModuleList(nn.BatchNorm2d(o) for o in (*widths, *widths))
        self.head = nn.Linear(widths[-1], 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return scores ``(B, |G|)`` of square pictures ``(B, C, s, s)``."""
        polar = polar_grid(x, self.rays, self.rings)
        if not self.has_reflections:
            return self._score(polar)
        # F R^r F = R^-r: the score of R^r F on x is the score of R^-r on the mirrored picture
        mirrored = polar_grid(x.flip(-1), self.rays, self.rings)
        turned, flipped = parts(self._score(torch.cat([polar, mirrored])), 2)
        return torch.cat([turned, flipped[:, (-torch.arange(self.n)) % self.n]], 1)

    def _score(self, x: Tensor) -> Tensor:
        """Score the rotations of polar pictures ``(B, C, rings, rays)``."""
        depth = len(self.convs)
        for stage, (conv, more) in enumerate(zip(self.convs, self.more, strict=True)):
            if stage:
                coarser = x.shape[-1] % (2 * self.n) == 0
                x = F.avg_pool2d(x, (2, 2 if coarser else 1))
            x = F.relu(self.norms[stage](conv(_pad(x))))
            x = F.relu(self.norms[depth + stage](more(_pad(x))))
        rays = x.mean(-2, dtype=torch.promote_types(x.dtype, torch.float32))  # (B, C, rays)
        with torch.autocast(x.device.type, enabled=False):
            scores: Tensor = self.head(rays.to(self.head.weight.dtype).transpose(1, 2)).squeeze(-1)
        return scores.view(scores.shape[0], self.n, -1).mean(-1)


def polar_grid(x: Tensor, rays: int, rings: int, *, inner: float | None = None, reach: float = 1.0) -> Tensor:
    """Resample the inscribed disc to polar coordinates, angles counter-clockwise.

    Ray ``i`` looks at the angle ``(i + ½) · 360° / rays``. The first quarter of the rays is read off the
    picture and its three quarter turns alike, so that quarter turns of the picture, of even and odd sides,
    permute the rays bit for bit.

    Args:
        x: Square pictures, shape ``(B, C, s, s)``.
        rays: Number of angles, a multiple of 4.
        rings: Number of radii.
        inner: Radius of the innermost edge for logarithmic radii, so that a change of scale is a shift;
            None: equal steps from the centre.
        reach: Radius of the outermost edge, as a part of the disc's.

    Returns:
        Polar pictures, shape ``(B, C, rings, rays)``.
    """
    if rays % 4:
        raise ValueError(f"rays must be a multiple of 4, so that quarter turns are exact, got {rays}")
    angle = (torch.arange(rays // 4, device=x.device, dtype=torch.float64) + 0.5) * (2 * math.pi / rays)
    step = (torch.arange(rings, device=x.device, dtype=torch.float64) + 0.5) / rings
    radius = reach * (step if inner is None else (inner / reach) ** (1 - step))
    grid = torch.stack([radius[:, None] * angle.cos(), -radius[:, None] * angle.sin()], -1).to(x.dtype)
    quarters = torch.cat([permuted(x, -turn % 4) for turn in range(4)])
    seen = F.grid_sample(
        quarters, grid.expand(quarters.shape[0], -1, -1, -1), padding_mode="border", align_corners=False
    )
    return torch.cat(parts(seen, 4), -1)


def parts(x: Tensor, count: int) -> tuple[Tensor, ...]:
    """Return the equal parts of which ``x`` was put together along the first axis, in a graph too."""
    made: Tensor = x.reshape(count, x.shape[0] // count, *x.shape[1:])
    return made.unbind()


def _pad(x: Tensor) -> Tensor:
    """Pad by one: around in angle, repeated in radius."""
    return F.pad(F.pad(x, (1, 1, 0, 0), mode="circular"), (0, 0, 1, 1), mode="replicate")
