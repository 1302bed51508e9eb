"""The log-polar network: a turn shifts the rays and a change of scale shifts the rings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._checks import check_choice, check_positive
from .orbit import blurred
from .polar import parts, polar_grid
from .polar_density import reversed_angles

LOG_POLAR_GROUPS = ("scale", "SO2xscale", "scalexSO2", "O2xscale", "scalexO2")


class LogPolarDensity(nn.Module):
    """Scores angles and scales together: a density over SO(2) × scale, O(2) × scale, or scale alone.

    The inscribed disc is resampled to rays and to rings whose radii grow by equal factors. A turn by a ray
    shifts the features along the rays, a change of scale by a ring's factor along the rings. One correlation
    with a learned template of the whole disc scores every pair of shifts: circular along the rays, open along
    the rings. For scale alone the picture is taken to stand upright, and only the angle 0 is scored. Neither
    axis is ever made coarser, as that would alias.

    What lies outside the picture is not made up: where the template is shifted beyond the disc (the picture
    was enlarged, and its rim is cut off) or below the innermost ring (shrunk, and details are lost), those
    rings say nothing, neither for nor against. What surrounds a picture that was shrunk lies outside the
    template. So hypotheses far from 1 rest on less, and rings beside an end see it repeated: under
    turns the scores follow as those of `PolarDensity` do, under changes of scale only as far as training
    makes them.

    Scores are laid out as a table: handedness (O2 only), then rays (not for scale alone), then scales from
    ``1 / largest`` to ``largest``, which count fastest.

    Args:
        group: ``"scale"``, ``"SO2xscale"`` or ``"O2xscale"``.
        channels: Channels of the picture.
        widths: Channels of each stage.
        rays: Number of angles, a multiple of 4, at least 8.
        rings: Number of radii.
        per_octave: Rings to a factor of two, which is also how finely scales are scored; ``2π / rays`` and
            ``log(2) / per_octave`` are best alike.
        octaves: How far scales reach either way, in factors of two; one half more than what is met, so that
            a picture that was large already can be enlarged.
        blur: Standard deviation in pixels of a Gaussian blur of the picture first.
        reach: Part of the disc's radius that is seen.

    Reference:
        Esteves et al. 2018, arXiv 1709.01889 (log-polar networks); Reddy and Chatterji 1996, "An FFT-based
        technique for translation, rotation, and scale-invariant image registration".
    """

    is_exact_on_grid = True

    def __init__(
        self,
        group: object = "SO2xscale",
        *,
        channels: int = 3,
        widths: Sequence[int] = (16, 24, 32),
        rays: int = 64,
        rings: int = 24,
        per_octave: int = 6,
        octaves: float = 1.5,
        blur: float = 1.0,
        reach: float = 0.95,
    ) -> None:
        super().__init__()
        check_choice("group", str(group), LOG_POLAR_GROUPS)
        if rays % 4 or rays < 8:
            raise ValueError(f"rays must be a multiple of 4, at least 8, got {rays}")
        for name, got in (("rings", rings), ("per_octave", per_octave), ("octaves", octaves)):
            check_positive(name, got)
        self.has_reflections, self.turns = "O2" in str(group).replace("SO2", ""), str(group) != "scale"
        self.rays, self.rings, self.blur, self.reach = rays, rings, blur, reach
        self.inner = reach * 2.0 ** (-rings / per_octave)
        self.shifts = max(1, round(octaves * per_octave))  # either way
        if self.shifts >= rings:
            raise ValueError(
                f"scales reach over {self.shifts} rings and need more of them, got rings={rings}"
            )
        self.scales = 2 * self.shifts + 1
        self.largest = 2.0 ** (self.shifts / per_octave)
        self.bins = self.scales * (rays if self.turns else 1) * (1 + self.has_reflections)
        inputs = [channels, *widths[:-1]]
        self.convs = nn.ModuleList(
            nn.Conv2d(i, o, 3, bias=False) for i, o in zip(inputs, widths, strict=True)
        )
        self.more = nn.ModuleList(nn.Conv2d(o, o, 3, bias=False) for o in widths)
        self.norms = nn.ModuleList(nn.BatchNorm2d(o) for o in (*widths, *widths))
        size = (1, widths[-1], rings, rays)
        self.template = nn.Parameter(torch.randn(size) / (widths[-1] * rings * rays) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Return scores ``(B, bins)`` of square pictures ``(B, C, s, s)``."""
        if not self.has_reflections:
            return self._score(x).flatten(1)
        # F R^a F = R^-a: the score of R^a F on x is the score of R^-a on the mirrored picture
        turned, flipped = parts(self._score(torch.cat([x, x.flip(-1)])), 2)
        return torch.stack([turned, reversed_angles(flipped.mT).mT], 1).flatten(1)

    def features(self, x: Tensor) -> Tensor:
        """Return features of every ring and ray, ``(B, width, rings, rays)``, the innermost ring first."""
        with torch.autocast(x.device.type, enabled=False):
            x = blurred(x, self.blur) if self.blur else x
            x = polar_grid(x, self.rays, self.rings, inner=self.inner, reach=self.reach)
        depth = len(self.convs)
        for stage, (conv, more) in enumerate(zip(self.convs, self.more, strict=True)):
            dilation = min(2**stage, self.rays // 4)
            x = F.silu(self.norms[stage](_around(conv, x, dilation)))
            x = x + F.silu(self.norms[depth + stage](_around(more, x, dilation)))
        return x

    def _score(self, x: Tensor) -> Tensor:
        """Correlate features with the template; scores ``(B, rays, scales)``, or ``(B, 1, scales)``."""
        found = self.features(x)
        with torch.autocast(x.device.type, enabled=False):
            found = found.to(self.template.dtype)
            if not self.turns:
                return self._at_rest(found).unsqueeze(1)
            size = (self.rings + self.shifts, self.rays)  # zeros beyond the ends, so that rings do not wrap
            spectrum = torch.fft.rfft2(found, size) * torch.fft.rfft2(self.template, size).conj()
            scores = torch.fft.irfft2(spectrum.sum(1), size)  # (B, shifts, rays), negative ones at the end
            shifted = torch.cat([scores[:, -self.shifts :], scores[:, : self.shifts + 1]], 1)
            return shifted.mT

    def _at_rest(self, found: Tensor) -> Tensor:
        """Score the scales at the angle 0, shape ``(B, scales)``."""
        template = self.template[0].transpose(0, 1).flatten(1)  # (rings, width · rays)
        pairs = (
            found.transpose(1, 2).flatten(2) @ template.T
        )  # (B, ring of the picture, ring of the template)
        sums = [pairs.diagonal(-shift, 1, 2).sum(-1) for shift in range(-self.shifts, self.shifts + 1)]
        return torch.stack(sums, -1)


def _around(conv: nn.Module, x: Tensor, dilation: int) -> Tensor:
    """Convolve with 3×3 filters, dilated on both axes: circular in the angle, the end rings repeated."""
    assert isinstance(conv, nn.Conv2d)
    around = torch.cat([x[..., -dilation:], x, x[..., :dilation]], -1)
    padded = F.pad(around, (0, 0, dilation, dilation), mode="replicate")
    return F.conv2d(padded, conv.weight, dilation=dilation)
