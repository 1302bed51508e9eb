"""From a name such as ``"C8"`` to a group."""

from __future__ import annotations

import re
from collections.abc import Callable

from .base import FiniteGroup, Group
from .planar import Cyclic, Dihedral, FinitePlanarGroup
from .projective import Affine, Homography, Scale, Translation
from .rotations import O2, SO2

_FAMILIES: dict[str, Callable[[int], Group]] = {"C": Cyclic, "D": Dihedral}
_NAMED: dict[str, Group] = {
    str(group).upper(): group for group in (SO2(), O2(), Scale(), Translation(), Affine(), Homography())
}


def parse_group(group: Group | str) -> Group:
    """Return the group that a name stands for; a group is returned as it is.

    Args:
        group: ``"C<n>"`` (rotations) or ``"D<n>"`` (rotations and reflections), ``n`` from 1; ``"SO2"`` or
            ``"O2"``, the same by any angle; ``"scale"``, ``"translation"``, ``"affine"`` or
            ``"homography"``; or a `Group`.

    Raises:
        ValueError: If the name is not of that form.

    Example:
        >>> parse_group("D4")
        Dihedral(n=4)
    """
    if isinstance(group, Group):
        return group
    if isinstance(group, str) and group.strip().upper() in _NAMED:
        return _NAMED[group.strip().upper()]
    names = ", ".join(repr(str(named)) for named in _NAMED.values())
    match = re.fullmatch(r"([A-Za-z])([1-9][0-9]*)", group.strip()) if isinstance(group, str) else None
    family = _FAMILIES.get(match[1].upper()) if match else None
    if match is None or family is None:
        raise ValueError(
            f"unknown group {group!r}; expected 'C<n>' (n rotations) or 'D<n>' (rotations and reflections), "
            f"such as 'C4', 'C8' or 'D4', or one of {names}"
        )
    return family(int(match[2]))


def parse_finite_group(group: Group | str) -> FiniteGroup:
    """Return a finite group, given as such or by its name.

    Raises:
        TypeError: If the group is continuous.
        ValueError: If the name is unknown.
    """
    parsed = parse_group(group)
    if not isinstance(parsed, FiniteGroup):
        raise TypeError(f"group must be finite here, got {parsed}; take a finite subgroup, such as 'C8'")
    return parsed


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
