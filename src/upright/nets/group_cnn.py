"""Group convolution for quarter turns and flips: exact, because filters turn by index operations.

Reference:
    Cohen and Welling 2016, "Group Equivariant Convolutional Networks", arXiv 1602.07576.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..actions.grid import permuted
from ..groups.base import FiniteGroup
from ..groups.parse import parse_group
from ..groups.planar import FinitePlanarGroup


class GroupConv(nn.Module):
    """Convolution over a finite planar group whose elements keep the pixel grid.

    Input channels are ``(C_in · |G|)`` (or ``C_in`` plain channels when ``lift``), output ``(C_out · |G|)``.

    Args:
        channels_in: Fields (or plain channels) that come in.
        channels_out: Fields that go out.
        group: The group.
        kernel: Side of the filters, odd.
        lift: Whether the input is a plain picture.
    """

    permutation: Tensor

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        group: FinitePlanarGroup,
        *,
        kernel: int = 3,
        lift: bool = False,
    ) -> None:
        super().__init__()
        order = 1 if lift else group.order
        self.group, self.lift, self.kernel = group, lift, kernel
        weight = torch.empty(channels_out, channels_in, order, kernel, kernel)
        nn.init.kaiming_normal_(weight.view(channels_out, -1, kernel, kernel))
        self.weight = nn.Parameter(weight)
        elements = group.elements()
        source = elements.inverse().reshape(-1, 1).compose(elements.reshape(1, -1)).value  # h⁻¹ h'
        self.register_buffer("permutation", source, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve: ``out[h] = Σ_h' x[h'] ⋆ act(h, w[h⁻¹ h'])``; stride 1, size kept by zero padding."""
        return F.conv2d(x, self.filters(), padding=self.kernel // 2)

    def filters(self) -> Tensor:
        """Return the filters of all orientations, shape ``(C_out·|G|, C_in·|G| or C_in, k, k)``."""
        rows = []
        for h, move in enumerate(self.group.all_grid_moves()):
            weight = self.weight if self.lift else self.weight[:, :, self.permutation[h]]
            rows.append(permuted(weight, move))
        stacked = torch.stack(rows, 1)  # (out, |G|, in, |G| or 1, k, k)
        return stacked.flatten(2, 3).flatten(0, 1)


class GroupCNN(nn.Module):
    """A small group-convolutional network: pictures in, one score per element out.

    Args:
        group: C1, C2, C4, D1, D2 or D4, or its name.
        widths: Fields after each stage; the picture is halved between stages.
        channels: Channels of the picture.
    """

    is_exact_on_grid = True

    def __init__(
        self, group: FiniteGroup | str, *, widths: Sequence[int] = (8, 16, 24, 32), channels: int = 3
    ) -> None:
        super().__init__()
        parsed = parse_group(group)
        if not (isinstance(parsed, FinitePlanarGroup) and parsed.is_exact_on_grid):
            raise ValueError(
                f"GroupCNN needs a group of quarter turns and flips (C1, C2, C4, D1, D2, D4), got {parsed}; "
                "use PolarNet or OrbitScorer for finer angles"
            )
        self.group = parsed
        self.lift = GroupConv(channels, widths[0], parsed, lift=True, kernel=5)
        inputs = [widths[0], *widths[:-1]]
        self.convs = nn.ModuleList(GroupConv(i, o, parsed) for i, o in zip(inputs, widths, strict=True))
        self.norms = nn.ModuleList(nn.BatchNorm3d(w) for w in (widths[0], *widths))
        self.head = nn.Conv3d(widths[-1], 1, 1, bias=False)  # per field: the same for every element

    def forward(self, x: Tensor) -> Tensor:
        """Return scores ``(B, |G|)`` of pictures ``(B, C, H, W)``; square, of any parity, for turns."""
        x = self._normalise(self.norms[0], self.lift(x))
        for stage, (conv, norm) in enumerate(zip(self.convs, list(self.norms)[1:], strict=True)):
            x = halve(x) if stage else x
            x = self._normalise(norm, conv(x))
        precision = torch.promote_types(x.dtype, torch.float32)
        fields = self._fields(x).mean((-1, -2), dtype=precision)  # (B, C, |G|)
        with torch.autocast(x.device.type, enabled=False):
            weight = self.head.weight.flatten()
            return torch.einsum("bcg,c->bg", fields.to(weight.dtype), weight)

    def _normalise(self, norm: nn.Module, x: Tensor) -> Tensor:
        return F.relu(norm(self._fields(x)).flatten(1, 2))

    def _fields(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], -1, self.group.order, *x.shape[2:])


def halve(x: Tensor) -> Tensor:
    """Halve a picture symmetrically: blocks of two on even sides, blurred every-second pixel on odd ones."""
    if x.shape[-1] % 2 == 0 and x.shape[-2] % 2 == 0:
        return F.avg_pool2d(x, 2)
    return F.avg_pool2d(x, 3, stride=2, padding=1) if x.shape[-1] % 2 and x.shape[-2] % 2 else _halve_mixed(x)


def _halve_mixed(x: Tensor) -> Tensor:
    kernels = [(2, 2, 0) if side % 2 == 0 else (3, 2, 1) for side in x.shape[-2:]]
    kernel, stride, padding = zip(*kernels, strict=True)
    return F.avg_pool2d(x, kernel, stride=stride, padding=padding)
