"""From a name such as ``"C8"`` to a group."""

from __future__ import annotations

import re
from collections.abc import Callable

from .base import Group
from .planar import Cyclic, Dihedral, FinitePlanarGroup

_FAMILIES: dict[str, Callable[[int], Group]] = {"C": Cyclic, "D": Dihedral}


def parse_group(group: Group | str) -> Group:
    """Return the group that a name stands for; a group is returned as it is.

    Args:
        group: ``"C<n>"`` (rotations) or ``"D<n>"`` (rotations and reflections), ``n`` from 1, or a `Group`.

    Raises:
        ValueError: If the name is not of that form.

    Example:
        >>> parse_group("D4")
        Dihedral(n=4)
    """
    if isinstance(group, Group):
        return group
    match = re.fullmatch(r"([A-Za-z])([1-9][0-9]*)", group.strip()) if isinstance(group, str) else None
    family = _FAMILIES.get(match[1].upper()) if match else None
    if match is None or family is None:
        raise ValueError(
            f"unknown group {group!r}; expected 'C<n>' (n rotations) or 'D<n>' (rotations and reflections), "
            "such as 'C4', 'C8' or 'D4'"
        )
    return family(int(match[2]))


def parse_planar_group(group: Group | str) -> FinitePlanarGroup:
    """Return a finite planar group, given as such or by its name.

    Raises:
        TypeError: If the group is another one.
        ValueError: If the name is unknown.
    """
    parsed = parse_group(group)
    if not isinstance(parsed, FinitePlanarGroup):
        raise TypeError(f"group must be a finite planar group, got {parsed}")
    return parsed
