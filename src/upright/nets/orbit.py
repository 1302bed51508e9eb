"""Orbit scoring: turn a copy back by every element, in one batched pass, and let any network judge it."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..actions import act
from ..actions.grid import move_grid, permuted, resample
from ..groups.base import FiniteGroup
from ..groups.parse import parse_finite_group
from ..groups.planar import FinitePlanarGroup
from ..groups.product import reflects
from ..kinds import Image, Interpolation
from ..kinds_space import Volume
from .thumbnail import disc


class OrbitScorer(nn.Module):
    """Turns any network into an equivariant scorer: ``score[g](x) = network(act(~g, x))``.

    Args:
        network: Any network on pictures ``(N, C, s, s)``; it returns one score per picture, ``(N,)`` or
            ``(N, 1)``, or a vector ``(N, D)``, which is compared with a learned reference.
        group: The group, or its name: any finite group that moves pictures, products and hues among them.
        vector: D, if the network returns vectors.
        offset_degrees: For C_n and D_n: turn all copies by this angle more. With ``180 / n`` every copy of a
            C_n orbit, ``n`` a multiple of 4, is resampled alike, so that no blur tells them apart.
        blur: Standard deviation in pixels of a Gaussian blur before turning, which drowns that of resampling.
        interpolation: How copies are resampled: ``"bilinear"``, or ``"bicubic"``, which blurs less.
        mirror: In evaluation, average over every copy and its mirror image; for rotations of pictures whose
            mirror images are upright too. Steadier scores for twice the time; training sees no mirror images
            (half of the pictures are mirrored by the usual augmentation).
        twice: In evaluation, average with the scores of a copy that is turned, and thus resampled, by the
            smallest angle of the group; for C_n and D_n that resample. The pose then hardly depends on
            whether the picture itself was resampled before, for twice the time.

    Reference:
        Kaba et al. 2023, arXiv 2211.06489 (optimised canonicalization); Panigrahi and Mondal 2024,
        arXiv 2405.14089 (vectors and the orthogonality loss).
    """

    def __init__(
        self,
        network: nn.Module,
        group: FiniteGroup | str,
        *,
        vector: int | None = None,
        offset_degrees: float = 0.0,
        blur: float = 0.0,
        interpolation: Interpolation = "bilinear",
        mirror: bool = False,
        twice: bool = False,
    ) -> None:
        super().__init__()
        parsed = parse_finite_group(group)
        planar = isinstance(parsed, FinitePlanarGroup)
        if twice and (not planar or parsed.is_exact_on_grid or vector):
            raise ValueError(
                "twice=True needs a group that resamples, C<n> or D<n>, and a network of scores, "
                f"got {parsed}"
            )
        if offset_degrees and not planar:
            raise ValueError(f"offset_degrees needs C<n> or D<n>, got {parsed}")
        if mirror and reflects(parsed):
            raise ValueError(f"mirror=True makes the reflections of {parsed} tie; use it with rotations only")
        self.network = network
        self.group = parsed
        self.offset_degrees, self.blur = offset_degrees, blur
        self.interpolation, self.mirror, self.twice = interpolation, mirror, twice
        self.is_exact_on_grid = parsed.is_exact_on_grid and offset_degrees == 0
        self.reference = nn.Parameter(torch.randn(vector) / vector**0.5) if vector else None

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Score every element.

        Args:
            x: Square thumbnails, shape ``(B, C, s, s)``; for groups of space cubes, ``(B, C, s, s, s)``.

        Returns:
            Scores ``(B, |G|)``; with vectors, a pair of scores and vectors ``(B, |G|, D)``.
        """
        if not self.twice or self.training:
            return self._scored(x)
        step = self.group.element(torch.ones(x.shape[0], dtype=torch.int64, device=x.device))
        with torch.autocast(x.device.type, enabled=False):
            moved = move_grid(step, x, border="edge")
        follows = step[:, None].compose(self.group.elements(x.device)[None]).value  # (B, |G|)
        own, other = self._scored(x), self._scored(moved)
        assert isinstance(own, Tensor)
        assert isinstance(other, Tensor)
        return (own + other.gather(1, follows)) / 2

    def _scored(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Score every element by one look."""
        with torch.autocast(x.device.type, enabled=False):  # copies must not differ by rounding
            x = blurred(x, self.blur) if self.blur else x
            copies = turned_copies(x, self.group, self.offset_degrees, self.interpolation).flatten(0, 1)
        out: Tensor = self.network(copies)
        if self.mirror and not self.training:
            out = (out + self.network(copies.flip(-1))) / 2
        if self.reference is None:
            if out.numel() != out.shape[0]:
                raise ValueError(
                    f"the network must return one score per picture, got shape {tuple(out.shape)}; "
                    "pass vector=D for networks that return vectors of length D"
                )
            return out.reshape(-1, x.shape[0]).transpose(0, 1)
        if out.ndim != 2 or out.shape[1] != self.reference.shape[0]:
            raise ValueError(
                f"the network must return vectors (N, {self.reference.shape[0]}), got {tuple(out.shape)}"
            )
        vectors = out.reshape(-1, x.shape[0], out.shape[1]).transpose(0, 1)
        with torch.autocast(x.device.type, enabled=False):
            scores = vectors.to(self.reference.dtype) @ self.reference
        return scores, vectors


def turned_copies(
    x: Tensor,
    group: FiniteGroup,
    offset_degrees: float = 0.0,
    interpolation: Interpolation = "bilinear",
) -> Tensor:
    """Return ``act(~g, x)`` for every element, shape ``(|G|, B, C, s, s)``; cubes likewise.

    Copies that are no quarter turns of each other are resampled, with the border mirrored, and all copies are
    masked to the inscribed disc, which every rotation keeps.
    """
    if not isinstance(group, FinitePlanarGroup):
        flat = x.ndim == 4
        picture = Image(x, border="reflect", interpolation=interpolation) if flat else Volume(x)
        inverses = group.elements(x.device).inverse()
        every = torch.stack([act(g.expand(x.shape[0]), picture).data for g in inverses])
        return every if group.is_exact_on_grid else every * disc(x.shape[-1], x)
    if group.is_exact_on_grid and not offset_degrees:
        moves = group.all_grid_moves()  # a reflection is its own inverse
        return torch.stack([permuted(x, move if move >= 4 else -move % 4) for move in moves])
    inverses, batch = group.elements(x.device).inverse(), x.shape[0]
    if offset_degrees:
        angle = torch.tensor(math.radians(offset_degrees), dtype=torch.float64, device=x.device)
        extra = torch.stack([angle.cos(), angle.sin(), -angle.sin(), angle.cos()]).view(2, 2)
        matrices = extra @ inverses.matrix()
        copies = [
            resample(x, m.expand(batch, 2, 2), border="reflect", interpolation=interpolation)
            for m in matrices
        ]
    else:
        copies = [
            move_grid(g.expand(batch), x, border="reflect", interpolation=interpolation) for g in inverses
        ]
    return torch.stack(copies) * disc(x.shape[-1], x)


def blurred(x: Tensor, sigma: float) -> Tensor:
    """Return pictures ``(B, C, s, s)`` blurred by a Gaussian, the border mirrored."""
    reach = min(math.ceil(3 * sigma), x.shape[-1] - 1)
    steps = torch.arange(-reach, reach + 1, device=x.device, dtype=torch.float64)
    kernel = torch.exp(-((steps / sigma) ** 2) / 2)
    kernel = (kernel / kernel.sum()).to(x.dtype).expand(x.shape[1], 1, 1, -1)
    x = F.conv2d(F.pad(x, (reach, reach, 0, 0), mode="reflect"), kernel, groups=x.shape[1])
    return F.conv2d(
        F.pad(x, (0, 0, reach, reach), mode="reflect"), kernel.transpose(-1, -2), groups=x.shape[1]
    )
