"""Augmentation of batches that keeps the pose and destroys artefacts of compression and resampling.

A canonicalizer could tell how a picture was turned from the grid, the chroma siting or the quantisation of
its compression, or from the blur of its resampling. None of these survives `DestroyArtefacts`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .encode import reencoded


@dataclass(frozen=True, kw_only=True)
class DestroyArtefacts:
    """Resamples, shifts, blurs or sharpens, recolours, adds noise and re-encodes; never turns.

    Every strength is relative to the picture's own contrast, so the result does not depend on the range of
    the values (0…1, 0…255, or normalised). Rows and columns are treated alike, and pictures are
    re-encoded after a random quarter turn that is undone, so nothing that is added tells the pose.

    Attributes:
        flip: Whether to mirror half of the pictures left-right. A mirrored upright picture is upright; for
            groups with reflections it is not.
        rescale: Largest factor by which pictures are shrunk and enlarged again, at a random phase; small
            factors are likelier. Small pictures are shrunk less: to 12 pixels at least.
        zoom: Largest relative change of size.
        shift: Largest shift, as a fraction of the side.
        sharpen: Strongest sharpening (a three-tap filter with ``-sharpen`` beside the centre), and half the
            strongest blurring.
        colour: Standard deviation of the channels' logarithmic gains and relative offsets.
        grey: Probability of greyscale.
        noise: Largest standard deviation of the noise, in units of the picture's own; half of the pictures
            stay without.
        encode: Probability of re-encoding as JPEG or WebP at a random quality.
    """

    flip: bool = False
    rescale: float = 2.0
    zoom: float = 0.1
    shift: float = 0.06
    sharpen: float = 0.1
    colour: float = 0.2
    grey: float = 0.2
    noise: float = 0.1
    encode: float = 0.25

    @torch.no_grad()
    def __call__(self, pictures: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return changed copies.

        Args:
            pictures: Shape ``(B, C, H, W)``, any dtype.
            generator: Source of randomness, on the device of the pictures.

        Returns:
            Pictures of the same shape; float32, or float64 if they were.
        """
        if pictures.ndim != 4:
            raise ValueError(f"pictures must have shape (B, C, H, W), got {tuple(pictures.shape)}")
        x = pictures if pictures.dtype == torch.float64 else pictures.float()
        if not x.numel():
            return x
        with torch.autocast(x.device.type, enabled=False):
            x = self._resampled(x, generator)
            mean = x.mean((-1, -2), keepdim=True)
            spread = (x - mean).square().mean((1, 2, 3), keepdim=True).sqrt()
            x = self._recoloured(x, mean, spread, generator)
            x = self._noisy(x, spread, generator)
            return reencoded(x, self.encode, generator)

    def _resampled(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """Shrink, enlarge, shift, blur and flip by two products with one matrix a picture and axis."""
        batch, _, height, width = x.shape
        draw = _Draws(batch, x, generator)
        most = max(1.0, min(self.rescale, min(height, width) / 12))
        factor = torch.exp(draw.uniform(0, 1) ** 2 * torch.log(torch.tensor(most)).item())
        zoom = torch.exp(draw.uniform(-1, 1) * torch.log1p(torch.tensor(self.zoom)).item())
        tap = draw.uniform(-self.sharpen, 2 * self.sharpen)
        rows = self._matrix(height, factor, zoom, tap, draw)
        columns = self._matrix(width, factor, zoom, tap, draw)
        if self.flip:
            columns = torch.where(draw.uniform(0, 1).view(-1, 1, 1) < 0.5, columns.flip(1), columns)
        return (rows.unsqueeze(1) @ x) @ columns.transpose(1, 2).unsqueeze(1)

    def _matrix(self, length: int, factor: Tensor, zoom: Tensor, tap: Tensor, draw: _Draws) -> Tensor:
        """Return the matrices of one axis, shape ``(B, length, length)``; rows sum to one."""
        batch, shift = len(factor), draw.uniform(-1, 1) * (self.shift * length)
        pixels = torch.arange(length, device=factor.device, dtype=factor.dtype) + 0.5
        coarse = torch.arange(-1, length + 1, device=factor.device, dtype=factor.dtype)
        samples = (coarse + draw.uniform(0, 1)[:, None]) * factor[:, None]  # (B, length + 2), random phase
        samples = samples.minimum(length + factor[:, None])
        shrink = _triangles(samples.clamp(0.5, length - 0.5), pixels.expand(batch, -1), factor)
        wanted = (pixels - length / 2) * zoom[:, None] + length / 2 + shift[:, None]
        enlarge = _triangles(wanted.clamp(0.5, length - 0.5), samples, factor)
        matrix = enlarge @ shrink
        above = torch.cat([matrix[:, :1], matrix[:, :-1]], 1)
        below = torch.cat([matrix[:, 1:], matrix[:, -1:]], 1)
        return matrix + tap[:, None, None] * (above + below - 2 * matrix)

    def _recoloured(
        self, x: Tensor, mean: Tensor, spread: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        batch, channels = x.shape[:2]
        draw = _Draws(batch, x, generator)
        gain = torch.exp(self.colour * draw.normal(channels))
        offset = self.colour * draw.normal(channels)
        saturation = 1 + self.colour * draw.normal(1)
        saturation = torch.where(
            draw.uniform(0, 1)[:, None] < self.grey, torch.zeros_like(saturation), saturation
        )
        identity = torch.eye(channels, device=x.device, dtype=x.dtype)
        mix = saturation[:, :, None] * identity + (1 - saturation[:, :, None]) / channels  # (B, C, C)
        mixed = (gain[:, :, None] * mix) @ (x - mean).flatten(2)
        return mixed.view_as(x) + (mean + spread * offset[:, :, None, None])

    def _noisy(self, x: Tensor, spread: Tensor, generator: torch.Generator | None) -> Tensor:
        if self.noise == 0:
            return x
        chosen = torch.randperm(len(x), generator=generator, device=x.device)[: len(x) // 2]
        level = torch.rand(len(chosen), 1, 1, 1, generator=generator, device=x.device, dtype=x.dtype)
        noise = torch.randn(x[chosen].shape, generator=generator, device=x.device, dtype=x.dtype)
        return x.index_add(0, chosen, noise * (self.noise * level * spread[chosen]))


@dataclass(frozen=True, kw_only=True)
class CropAndFlip:
    """Random shift and left-right flip: the usual augmentation of classifiers on small pictures.

    Attributes:
        padding: Largest shift in whole pixels; the border is repeated.
        flip: Whether to mirror half of the pictures left-right.
    """

    padding: int = 4
    flip: bool = True

    @torch.no_grad()
    def __call__(self, pictures: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return changed copies of pictures ``(B, C, H, W)``."""
        batch, _, height, width = pictures.shape
        index = []
        for length in (height, width):
            shift = torch.randint(
                -self.padding, self.padding + 1, (batch, 1), generator=generator, device=pictures.device
            )
            line = torch.arange(length, device=pictures.device) + shift
            index.append(line.clamp(0, length - 1))
        rows, columns = index
        if self.flip:
            mirrored = torch.rand(batch, 1, generator=generator, device=pictures.device) < 0.5
            columns = torch.where(mirrored, columns.flip(1), columns)
        entry = torch.arange(batch, device=pictures.device)[:, None, None]
        return pictures.permute(0, 2, 3, 1)[entry, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


@dataclass(frozen=True, kw_only=True)
class JitterPoints:
    """Moves points of clouds a little and lets some of them take the places of others; never turns.

    Attributes:
        noise: Largest standard deviation of the noise, in units of the cloud's radius of gyration.
        drop: Largest share of the points that is lost; copies of others fill their rows.
    """

    noise: float = 0.03
    drop: float = 0.3

    @torch.no_grad()
    def __call__(self, clouds: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return changed copies.

        Args:
            clouds: Shape ``(B, N, 3)``.
            generator: Source of randomness, on the device of the clouds.

        Returns:
            Clouds of the same shape and dtype.

        Raises:
            TypeError: If ``clouds`` holds integers.
            ValueError: If its shape is another.
        """
        if clouds.ndim != 3 or clouds.shape[-1] != 3:
            raise ValueError(f"clouds must have shape (B, N, 3), got {tuple(clouds.shape)}")
        if not clouds.is_floating_point():
            raise TypeError(f"clouds must hold floats, got {clouds.dtype}")
        if not clouds.numel():
            return clouds
        (batch, count, _), draw = clouds.shape, _Draws(len(clouds), clouds, generator)
        share = draw.uniform(0, self.drop).view(-1, 1)
        options: dict[str, Any] = {"generator": generator, "device": clouds.device}
        lost = torch.rand(batch, count, **options) < share
        other = torch.randint(count, (batch, count), **options)
        own = torch.arange(count, device=clouds.device)
        index = torch.where(lost, other, own).unsqueeze(-1).expand_as(clouds)
        size = (clouds - clouds.mean(1, keepdim=True)).square().sum(-1).mean(1).sqrt()
        level = (draw.uniform(0, self.noise) * size).view(-1, 1, 1)
        noise = torch.randn(clouds.shape, dtype=clouds.dtype, **options)
        return clouds.gather(1, index) + level * noise


class _Draws:
    """Random numbers, one a picture."""

    def __init__(self, batch: int, like: Tensor, generator: torch.Generator | None) -> None:
        self.batch, self.generator = batch, generator
        self.options = {"device": like.device, "dtype": like.dtype}

    def uniform(self, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(self.batch, generator=self.generator, **self.options)  # type: ignore[call-overload, no-any-return]

    def normal(self, count: int) -> Tensor:
        return torch.randn(self.batch, count, generator=self.generator, **self.options)  # type: ignore[call-overload, no-any-return]


def _triangles(centres: Tensor, points: Tensor, width: Tensor) -> Tensor:
    """Return linear interpolation weights ``(B, centres, points)`` with triangles of the given half-width."""
    weights = (1 - (centres[:, :, None] - points[:, None, :]).abs() / width[:, None, None]).clamp_(min=0)
    return weights / weights.sum(-1, keepdim=True).clamp_(min=1e-6)
