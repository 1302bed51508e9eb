"""The lists that tests run over; they grow by registration, so that a new group or kind is tested too."""

import torch

from upright.actions import registered_kinds
from upright.groups import FinitePlanarGroup, parse_group
from upright.groups.parse import _FAMILIES

GROUPS = [parse_group(f"{family}{n}") for family in _FAMILIES for n in (1, 2, 3, 4, 6, 8)]
"""Every family, at orders that keep the grid and orders that do not."""
EXACT = [g for g in GROUPS if isinstance(g, FinitePlanarGroup) and g.is_exact_on_grid]
KINDS = sorted({kind for group in GROUPS for kind in registered_kinds(group)}, key=lambda kind: kind.__name__)
FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
DTYPES = [*FLOATS, torch.uint8, torch.int64, torch.bool]
SIZES = [(6, 6), (7, 7), (5, 8), (8, 5), (1, 4), (1, 1)]


def name(case):
    """Name a case in test ids."""
    if isinstance(case, type):
        return case.__name__
    if isinstance(case, tuple):
        return "x".join(map(str, case))
    return str(case).removeprefix("torch.")
