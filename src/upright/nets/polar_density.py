"""Polar networks of continuous groups: one score per ray, at full angular resolution throughout."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._checks import check_choice
from ..actions.grid import move_grid
from ..groups.rotations import SO2
from .orbit import blurred
from .polar import parts, polar_grid

GROUPS = ("SO2", "O2")


class PolarTrunk(nn.Module):
    """Features of every ray of the inscribed disc; when the picture turns by a ray, they shift by one.

    Convolutions are circular in the angle, which is never made coarser (that would alias: between two rays
    features would not shift but change); dilation widens what a ray sees instead. Radii are halved between
    stages.

    Args:
        widths: Channels of each stage.
        rays: Number of angles, a multiple of 4.
        rings: Number of radii.
        channels: Channels of the picture.
        blur: Standard deviation in pixels of a Gaussian blur of the picture first: what two neighbouring rays
            cannot tell apart would alias, and what resampling changes would count.
        reach: Part of the disc's radius that is seen; what is nearer to the edge was cut off by the canvas.
        inner: Innermost radius of logarithmic rings; None: equal steps.
    """

    def __init__(
        self,
        *,
        widths: Sequence[int] = (24, 32, 48, 48),
        rays: int = 96,
        rings: int = 16,
        channels: int = 3,
        blur: float = 1.0,
        reach: float = 0.95,
        inner: float | None = None,
    ) -> None:
        super().__init__()
        if rays % 4 or rays < 8:
            raise ValueError(f"rays must be a multiple of 4, at least 8, got {rays}")
        self.rays, self.rings, self.blur, self.reach, self.inner = rays, rings, blur, reach, inner
        inputs = [channels, *widths[:-1]]
        self.convs = nn.ModuleList(
            nn.Conv2d(i, o, 3, bias=False) for i, o in zip(inputs, widths, strict=True)
        )
        self.more = nn.ModuleList(nn.Conv2d(o, o, 3, bias=False) for o in widths)
        self.norms = nn.ModuleList(nn.BatchNorm2d(o) for o in (*widths, *widths))
        self.width = widths[-1]

    def forward(self, x: Tensor) -> Tensor:
        """Return features ``(B, width, rays)`` of square pictures ``(B, C, s, s)``."""
        with torch.autocast(x.device.type, enabled=False):
            x = blurred(x, self.blur) if self.blur else x
            x = polar_grid(x, self.rays, self.rings, inner=self.inner, reach=self.reach)
        depth = len(self.convs)
        for stage, (conv, more) in enumerate(zip(self.convs, self.more, strict=True)):
            if stage and x.shape[-2] > 1:
                x = F.avg_pool2d(x, (2, 1), ceil_mode=True)
            dilation = min(2**stage, self.rays // 4)
            x = F.silu(self.norms[stage](_circular(conv, x, dilation)))
            x = x + F.silu(self.norms[depth + stage](_circular(more, x, dilation)))
        return x.mean(-2, dtype=torch.promote_types(x.dtype, torch.float32))


class PolarDensity(nn.Module):
    """Scores every angle: a density over SO(2) or O(2), by circular correlation on the polar grid.

    The features of the rays are correlated with a learned template of full length. Reflections are scored on
    the mirrored picture by the same weights.

    Args:
        group: ``"SO2"`` or ``"O2"``.
        channels: Channels of the picture.
        mirror: In evaluation, average over the picture and its mirror image; for rotations of pictures whose
            mirror images are upright too. Training sees no mirror images.
        twice: In evaluation, average with the scores of a copy that is turned, and thus resampled, by 45°, so
            that it matters less whether the picture itself was resampled before. Both steady the pose, each
            for twice the time.
        **trunk: Arguments of `PolarTrunk`.

    Reference:
        Kaba et al. 2023, arXiv 2211.06489 (canonicalization); Esteves et al. 2018, arXiv 1709.01889 (polar
        networks).
    """

    is_exact_on_grid = True

    def __init__(
        self,
        group: object = "SO2",
        *,
        channels: int = 3,
        mirror: bool = False,
        twice: bool = False,
        **trunk: object,
    ) -> None:
        super().__init__()
        check_choice("group", str(group), GROUPS)
        self.has_reflections = str(group) == "O2"
        if mirror and self.has_reflections:
            raise ValueError("mirror=True makes the reflections of O2 tie; use it with SO2 only")
        self.mirror, self.twice = mirror, twice
        self.trunk = PolarTrunk(channels=channels, **trunk)  # type: ignore[arg-type]
        rays, width = self.trunk.rays, self.trunk.width
        if twice and rays % 8:
            raise ValueError(f"twice=True turns by an eighth and needs rays in multiples of 8, got {rays}")
        self.bins = rays * (1 + self.has_reflections)
        self.template = nn.Parameter(torch.randn(1, width, rays) / (width * rays) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Return scores ``(B, bins)``: of the rotations by ``i · 360° / rays``, then of the reflections."""
        if not self.twice or self.training:
            return self._look(x)
        eighth = SO2().element(angle=torch.full((x.shape[0],), math.pi / 4, device=x.device))
        with torch.autocast(x.device.type, enabled=False):
            moved = move_grid(eighth, x, border="edge")
        other = self._look(moved).view(x.shape[0], -1, self.trunk.rays).roll(-self.trunk.rays // 8, -1)
        return (self._look(x) + other.flatten(1)) / 2

    def _look(self, x: Tensor) -> Tensor:
        """Score by one look."""
        if not self.has_reflections and (self.training or not self.mirror):
            return self._score(x)
        # F R^a F = R^-a: the score of R^a F on x is the score of R^-a on the mirrored picture
        turned, flipped = parts(self._score(torch.cat([x, x.flip(-1)])), 2)
        flipped = reversed_angles(flipped)
        return torch.cat([turned, flipped], 1) if self.has_reflections else (turned + flipped) / 2

    def _score(self, x: Tensor) -> Tensor:
        rays = self.trunk(x)
        with torch.autocast(x.device.type, enabled=False):
            rays = rays.to(self.template.dtype)
            around = torch.cat([rays, rays[..., :-1]], -1)
            return F.conv1d(around, self.template).squeeze(1)


def reversed_angles(x: Tensor) -> Tensor:
    """Return what stood at the angle ``i`` at ``-i``, along the last axis."""
    return x.flip(-1).roll(1, -1)


def _circular(conv: nn.Module, x: Tensor, dilation: int) -> Tensor:
    """Convolve with 3×3 filters, dilated and circular in the angle, zeros beyond the ends of the radius."""
    assert isinstance(conv, nn.Conv2d)
    around = torch.cat([x[..., -dilation:], x, x[..., :dilation]], -1)
    return F.conv2d(around, conv.weight, padding=(1, 0), dilation=(1, dilation))
