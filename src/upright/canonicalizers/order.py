"""A canonical order of the members of a set: sorted, so that models that read them in order need not care."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from ..groups.base import Element, Group
from ..groups.parse import parse_group
from ..groups.permutations import Permutations
from ..kinds import Kind
from ..kinds_space import Cloud
from .base import Canonicalizer
from .pose import Pose


class SortedOrder(Canonicalizer):
    """Sorts points by x, of equal x by y, then by z, then by the tips of their arrows.

    Numbers are compared and never computed, so the canonical form is the same, bit for bit, in whatever order
    points come; points that agree in all of it keep their order, which matters only if something else tells
    them apart. Where points turn too, adapt for the order first and for the turns around it.

    Args:
        group: ``Permutations(n)`` or its name, ``"S<n>"``.

    Raises:
        TypeError: If the group is another.

    Example:
        >>> import torch
        >>> pose = SortedOrder("S3")(torch.tensor([[[2.0, 0, 0], [1, 5, 0], [1, 4, 0]]]))
        >>> (~pose.element).value.tolist()  # where each goes
        [[2, 1, 0]]
    """

    reads: ClassVar[type[Kind]] = Cloud

    def __init__(self, group: Group | str) -> None:
        parsed = parse_group(group)
        if not isinstance(parsed, Permutations):
            raise TypeError(f"group must be Permutations(n) or 'S<n>' for SortedOrder, got {parsed}")
        super().__init__(parsed)
        self.members = parsed.n

    def forward(self, x: Tensor | Sequence[Tensor]) -> Pose:
        """Sort.

        Args:
            x: Points ``(B, n, 3)``, with the tips of arrows ``(B, n · k, 3)``; or a sequence of such clouds.

        Returns:
            Poses of batch shape ``(B,)``.

        Raises:
            ValueError: If there are not ``n`` points, or a coordinate is not a number.
        """
        shapes = {tuple(x.shape[1:])} if isinstance(x, Tensor) else {tuple(cloud.shape) for cloud in x}
        if any(len(shape) != 2 or not shape[0] or shape[0] % self.members for shape in shapes):
            raise ValueError(f"clouds must have {self.members} points, got shapes {sorted(shapes)}")
        if not isinstance(x, Tensor):
            x = torch.stack(list(x)) if len(x) else torch.zeros(0, self.members, 3)
        if bool(x.isnan().any()):
            raise ValueError("coordinates must be numbers to be sorted, got nan")
        parts = x.reshape(len(x), x.shape[1] // self.members, self.members, x.shape[2])
        columns = parts.transpose(1, 2).flatten(2)  # (B, n, 3 · k)
        order = torch.arange(self.members, device=x.device).expand(len(x), -1)
        for column in columns.unbind(-1)[::-1]:
            order = order.gather(1, column.gather(1, order).sort(dim=1, stable=True).indices)
        return Pose(Element(self.group, order))
