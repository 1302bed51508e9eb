"""Frames of point clouds: axes read off the points themselves, without a network and without training.

Which of several possible frames is taken is decided by what the cloud looks like in each: a polynomial that
no symmetry leaves alone. Frames in which it looks alike differ by a symmetry of the cloud, so that the
canonical form is the same in all of them; they share the probability, and `Pose.is_tied` says so.
"""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

from .._checks import check_positive
from ..groups.base import Group
from .clouds import CentredClouds, CloudCanonicalizer
from .orthogonal import determinant, principal_axes
from .pose import Pose

_WEIGHTS = (1.0, 0.83, 0.71, 0.59, 0.53, 0.47, 0.67)
"""What the parts of the polynomial count: odd in x, y, z, in xy, xz, yz, and in all three."""
_POLYNOMIALS = [
    [0.9, 0.5, 0.3, *[0.0] * 3, *[0.0] * 12, *[0.0] * 9],  # x (0.9 xx + 0.5 yy + 0.3 zz)
    [*[0.0] * 6, 0.5, 0.9, 0.4, *[0.0] * 3, *[0.0] * 6, *[0.0] * 9],  # y (0.5 xx + 0.9 yy + 0.4 zz)
    [*[0.0] * 12, 0.3, 0.4, 0.9, *[0.0] * 3, *[0.0] * 9],  # z (0.3 xx + 0.4 yy + 0.9 zz)
    [*[0.0] * 18, 1.0, -0.4, 0.0, *[0.0] * 6],  # xy (xx - 0.4 yy)
    [*[0.0] * 21, 1.0, 0.0, -0.4, *[0.0] * 3],  # xz (xx - 0.4 zz)
    [*[0.0] * 24, 0.0, 1.0, -0.4],  # yz (yy - 0.4 zz)
    [*[0.0] * 5, 1.0, *[0.0] * 12, *[0.0] * 9],  # xyz
]
"""By the moments ``(x, y, z) ⊗ (xx, yy, zz, xy, xz, yz)`` and ``(xy, xz, yz) ⊗ (xx, yy, zz)``."""
_TIE = 1e-5
"""Relative difference below which two points are equally far out."""
_SAME = 1e-5
"""Distance, in units of the cloud's radius, below which two points are one."""
_ALIKE = 1e-5
"""Difference of the polynomial below which a cloud looks alike in two frames."""
_FLAT = 1e-6
"""Extent, likewise, below which a cloud is a line or a point."""
_MOST = (24, 8)
"""How many points are tried as the first and as the second axis where so many are equally far out."""


class PCAFrame(CloudCanonicalizer):
    """Principal axes, from the longest to the shortest.

    Each axis may point either way: the poses list all 4 frames of SO3 and SE3, or all 8 of O3 and E3. Where
    two extents agree to ``gap`` the axes mean nothing, and points take their place as in `MinimalFrame`; but
    not in compiled and exported graphs, which cannot choose.
    Average over the list with ``mode="weighted"`` for outputs that change continuously (but where extents
    cross).

    Args:
        group: ``"SO3"``, ``"O3"``, ``"SE3"`` or ``"E3"``. Without translations, axes are those of the second
            moments about the origin, else about the centroid.
        sharpness: How strongly the way that a cloud looks in a frame tells frames apart: the posterior is
            the softmax of ``sharpness`` times the polynomial, which lies about -1…1.
        gap: Difference of two squared extents, relative to the largest, below which they are equal.

    Reference:
        Puny et al. 2022, "Frame Averaging", arXiv 2110.03336, section 3.1; weights: Dym, Lawrence and Siegel
        2024, arXiv 2402.16077.

    Example:
        >>> import torch
        >>> pose = PCAFrame("SE3")(torch.rand(2, 100, 3))
        >>> pose.candidates.shape
        torch.Size([2, 4])
    """

    def __init__(self, group: Group | str = "SO3", *, sharpness: float = 10.0, gap: float = 1e-3) -> None:
        super().__init__(group)
        check_positive("sharpness", sharpness)
        check_positive("gap", gap)
        self.sharpness, self.gap = sharpness, gap

    def poses(self, clouds: CentredClouds) -> Pose:
        """Choose the poses of centred clouds; differentiable where the extents differ."""
        spread = clouds.points.mT @ clouds.points / clouds.present.sum(1).view(-1, 1, 1)
        if torch.compiler.is_compiling():
            return pose_of(self, self.sharpness, clouds.centre, *self._principal(clouds, spread))
        extents = torch.linalg.eigvalsh(spread.detach())  # rising
        differ = extents.diff(dim=-1).amin(-1) > self.gap * extents[:, -1]
        clear, rest = differ.nonzero().squeeze(1), (~differ).nonzero().squeeze(1)
        if not len(rest):
            return pose_of(self, self.sharpness, clouds.centre, *self._principal(clouds, spread))
        parts = [
            self._principal(clouds.select(clear), spread[clear]),
            point_frames(clouds.select(rest), self.reflects, self.sharpness),
        ]
        most = max(levels.shape[1] for _, levels in parts)
        frames = clouds.points.new_zeros(len(differ), most, 3, 3)
        frames[:] = torch.eye(3).to(frames)
        levels = frames.new_full((len(differ), most), -torch.inf)
        for index, (some, level) in zip((clear, rest), parts, strict=True):
            columns = torch.arange(some.shape[1], device=index.device)
            frames = frames.index_put((index.unsqueeze(1), columns), some)
            levels = levels.index_put((index.unsqueeze(1), columns), level)
        return pose_of(self, self.sharpness, clouds.centre, frames, levels)

    def _principal(self, clouds: CentredClouds, spread: Tensor) -> tuple[Tensor, Tensor]:
        """Return the frames of principal axes, ``(B, K, 3, 3)``, and their levels ``(B, K)``."""
        squared, axes = principal_axes(spread)
        squared, axes = squared.flip(-1), axes.flip(-1)
        hand = determinant(axes).sign().detach()
        axes = axes * torch.stack([torch.ones_like(hand), torch.ones_like(hand), hand], -1).unsqueeze(1)
        extent = squared.clamp(min=0).sqrt()
        seen = clouds.points @ axes / torch.maximum(extent, 0.01 * extent[:, :1]).unsqueeze(1)
        signs = sign_patterns(self.reflects, axes)
        x, y, z = signs.unbind(-1)
        parities = torch.stack([x, y, z, x * y, x * z, y * z, x * y * z], -1)  # (K, 7)
        levels = self.sharpness * (asymmetries(clouds, seen) * axes.new_tensor(_WEIGHTS)) @ parities.T
        return axes.unsqueeze(1) * signs.unsqueeze(1), levels


class MinimalFrame(CloudCanonicalizer):
    """As few frames as the symmetry of the cloud allows, one for most: axes through chosen points.

    The first axis goes through the outermost point, the second lies in the plane of the outermost point
    aside; the third is the cross product of both, and either way in O3 and E3. What is outermost is decided
    by a key that rotations do not change. Points with equal keys are all tried (24 times 8 at most).

    Args:
        group: ``"SO3"``, ``"O3"``, ``"SE3"`` or ``"E3"``.
        sharpness: See `PCAFrame`; so large that what looks different hardly counts.

    Reference:
        Lin et al. 2024, "Equivariance via Minimal Frame Averaging for More Symmetries and Efficiency",
        arXiv 2406.07598: a frame that is a coset of the stabiliser, from a canonical form of the points.
        There the form is found by a canonical labelling of the Gram matrix; here by keys, in linear time.
    """

    def __init__(self, group: Group | str = "SO3", *, sharpness: float = 300.0) -> None:
        super().__init__(group)
        check_positive("sharpness", sharpness)
        self.sharpness = sharpness

    def poses(self, clouds: CentredClouds) -> Pose:
        """Choose the poses of centred clouds."""
        return pose_of(
            self, self.sharpness, clouds.centre, *point_frames(clouds, self.reflects, self.sharpness)
        )


def pose_of(
    canonicalizer: CloudCanonicalizer, sharpness: float, centre: Tensor, frames: Tensor, levels: Tensor
) -> Pose:
    """Return the poses of frames ``(B, K, 3, 3)`` by their levels ``(B, K)``, the likeliest first.

    Levels that differ from the best by rounding alone are equal.
    """
    order = falling(levels)
    levels = levels.gather(1, order)
    levels = torch.where(levels[:, :1] - levels <= _ALIKE * sharpness, levels[:, :1], levels)
    rows = torch.arange(order.shape[0], device=order.device).unsqueeze(1)
    listed = canonicalizer.elements(frames[rows, order], centre)
    return Pose(listed[:, 0], torch.log_softmax(levels, 1).float().detach(), candidates=listed)


def falling(levels: Tensor) -> Tensor:
    """Return where the largest of the levels ``(B, K)`` stands, the next, and so on; of equals the first."""
    if not torch.compiler.is_exporting():
        return levels.argsort(dim=1, descending=True, stable=True)
    place = torch.arange(levels.shape[1], device=levels.device)
    one, other = levels.unsqueeze(2), levels.unsqueeze(1)
    before = (other > one) | ((other == one) & (place < place.unsqueeze(1)))
    return torch.zeros_like(before.sum(2)).scatter(1, before.sum(2), place.expand(levels.shape))


def asymmetries(clouds: CentredClouds, seen: Tensor) -> Tensor:
    """Return means of polynomials that are odd in one, two or three of the coordinates, shape ``(B, 7)``.

    Args:
        clouds: The clouds.
        seen: Their points in a frame, in units of their extent, shape ``(B, N, 3)``.
    """
    x, y, z = seen.unbind(-1)
    pairs = torch.stack([x * x, y * y, z * z, x * y, x * z, y * z], -1)
    count = clouds.present.sum(1).to(seen).view(-1, 1, 1)
    cubic = (seen.mT @ pairs / count).flatten(1)  # (B, 3 * 6)
    quartic = (pairs[..., 3:].mT @ pairs[..., :3] / count).flatten(1)  # (B, 3 * 3)
    return torch.cat([cubic, quartic], -1) @ seen.new_tensor(_POLYNOMIALS).T


def point_frames(clouds: CentredClouds, reflects: bool, sharpness: float) -> tuple[Tensor, Tensor]:
    """Return the frames through outermost points, ``(B, K, 3, 3)``, and their levels ``(B, K)``."""
    points, present = clouds.points, clouds.present
    if not len(points):
        return points.new_zeros(0, 1, 3, 3), points.new_zeros(0, 1)
    size = clouds.mean((points * points).sum(-1)).clamp(min=1e-300).sqrt().view(-1, 1, 1)
    unit = points / size
    far = (unit * unit).sum(-1)  # (B, N)
    spread = unit.transpose(1, 2) @ unit / present.sum(1).view(-1, 1, 1)
    lean = clouds.mean(far.unsqueeze(-1) * unit).unsqueeze(1)
    key = far + 0.31 * ((unit @ spread) * unit).sum(-1) + 0.17 * (unit * lean).sum(-1)
    first, share = _outermost(key, unit, present, _MOST[0])
    batch, tried = first.shape
    rows = torch.arange(batch, device=first.device).unsqueeze(1)
    e1 = _unit(unit[rows, first], unit.new_tensor([1.0, 0.0, 0.0]))  # (B, K1, 3)
    along = unit @ e1.transpose(1, 2)  # (B, N, K1)
    width = (far.unsqueeze(-1) - along**2).clamp(min=0).sqrt()
    key = (width * (width + 0.3 * along)).mT.flatten(0, 1)
    repeated = unit.repeat_interleave(tried, 0), present.repeat_interleave(tried, 0)
    second, other = _outermost(key, *repeated, _MOST[1])
    wide = repeated[0][torch.arange(len(second), device=second.device).unsqueeze(1), second]
    e1 = e1.flatten(0, 1).unsqueeze(1).expand_as(wide)
    wide = wide - (wide * e1).sum(-1, keepdim=True) * e1
    e2 = _unit(wide, _across(e1))
    e3 = torch.linalg.cross(e1, e2)
    frames = torch.stack([e1, e2, e3], -1).reshape(batch, tried * second.shape[1], 3, 3)
    line = width.amax((1, 2)) <= _FLAT
    other = other.view(batch, tried, second.shape[1])
    other = torch.where(line.view(-1, 1, 1), other.new_tensor([1.0] + [0.0] * (other.shape[-1] - 1)), other)
    shares = (share.unsqueeze(-1) * other).reshape(batch, frames.shape[1])
    if bool(line.any()):  # any turn about the line will do: two, so that the tie shows
        turned = frames * frames.new_tensor([1.0, -1.0, -1.0])
        frames = torch.cat([frames, turned], 1)
        shares = torch.cat([shares, torch.where(line.unsqueeze(1), shares, 0.0)], 1)
    if reflects:
        frames = torch.cat([frames, frames * frames.new_tensor([1.0, 1.0, -1.0])], 1)
        shares = torch.cat([shares, shares], 1)
    used = (shares > 0).any(0)
    frames, shares = frames[:, used], shares[:, used]
    if frames.shape[1] == 1:
        return frames, torch.zeros_like(shares)
    weights = unit.new_tensor(_WEIGHTS)
    looks = [asymmetries(clouds, unit @ frames[:, k]) @ weights for k in range(frames.shape[1])]
    return frames, sharpness * torch.stack(looks, 1) + shares.log()


def _outermost(key: Tensor, points: Tensor, present: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Return the points with the largest keys, shape ``(B, K)``, and their shares in 0…1.

    Repeated points count once. Shares fall continuously to 0 as a key falls behind; the first share is 1.
    """
    key, points = key.detach().masked_fill(~present, -torch.inf), points.detach()
    best = key.amax(1, keepdim=True)
    behind = (best - key) / best.abs().clamp(min=1e-300)
    still = present & (behind < _TIE)
    reach = _SAME * points.norm(dim=-1).amax(1, keepdim=True).clamp(min=1e-300)
    rows = torch.arange(len(key), device=key.device)
    index: list[Tensor] = []
    shares: list[Tensor] = []
    while len(index) < most and (not index or bool(still.any())):
        i = behind.masked_fill(~still, torch.inf).argmin(1)
        share = (2 - 2 * behind[rows, i] / _TIE).clamp(0, 1)
        index.append(i)
        shares.append(torch.where(still[rows, i], share, 0.0))
        still = still.index_put((rows, i), still.new_zeros(()))
        if bool(still.any()):
            still = still & ((points - points[rows, i].unsqueeze(1)).norm(dim=-1) > reach)
    return torch.stack(index, 1), torch.stack(shares, 1)


def _unit(vectors: Tensor, instead: Tensor) -> Tensor:
    """Return vectors of length 1, and ``instead`` where they are no longer than the rounding of a cloud."""
    length = vectors.norm(dim=-1, keepdim=True)
    long = length > _FLAT
    return torch.where(long, vectors / torch.where(long, length, 1.0), instead)


def _across(axis: Tensor) -> Tensor:
    """Return a unit vector at right angles to each unit vector, ``(…, 3)``."""
    least = torch.nn.functional.one_hot(axis.detach().abs().argmin(-1), 3).to(axis)
    other = torch.linalg.cross(axis, least)
    across: Tensor = other / other.norm(dim=-1, keepdim=True)
    return across


def sign_patterns(reflects: bool, like: Tensor) -> Tensor:
    """Return the signs that axes may take, shape ``(K, 3)``: all, or those that keep the handedness."""
    every = [s for s in product((1.0, -1.0), repeat=3) if reflects or s[0] * s[1] * s[2] > 0]
    return like.new_tensor(every)
