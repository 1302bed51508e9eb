"""From a name such as ``"C8"`` to a group."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from .base import FiniteGroup, Group
from .colour import Brightness, ColourGroup, Contrast, CyclicHue, Gamma, Hue
from .motions import E3, SE3
from .octahedral import FullOctahedral, Octahedral
from .permutations import Permutations
from .planar import Cyclic, Dihedral, FinitePlanarGroup
from .product import Product
from .projective import Affine, Homography, Scale, Translation
from .rotations import O2, SO2
from .space import O3, SO3

_FAMILIES: dict[str, Callable[[int], Group]] = {"C": Cyclic, "D": Dihedral}
_PLANE = (SO2(), O2(), Scale(), Translation(), Affine(), Homography())
_SPACE = (SO3(), O3(), SE3(), E3(), Octahedral(), FullOctahedral())
_NAMED: dict[str, Group] = {str(group).upper(): group for group in (*_PLANE, *_SPACE)}
_SHORT: dict[str, Group] = {"O": Octahedral(), "OH": FullOctahedral()}
_COLOURS: dict[str, Callable[..., ColourGroup]] = {g.name: g for g in (Hue, Brightness, Contrast, Gamma)}


def register_group(group: Group) -> None:
    """Let `parse_group` know a group of one's own by its name, ``str(group)``, so that it can be saved.

    Raises:
        ValueError: If the name means another group already.
    """
    name = str(group).strip().upper()
    try:
        known: Group | None = parse_group(name)
    except ValueError:
        known = None
    if known is not None and known != group:
        raise ValueError(f"the name {str(group)!r} means {known!r} already; let __str__ return another")
    _NAMED[name] = group


def parse_group(group: Group | str) -> Group:
    """Return the group that a name stands for; a group is returned as it is.

    Args:
        group: ``"C<n>"`` (rotations) or ``"D<n>"`` (rotations and reflections), ``n`` from 1; ``"SO2"`` or
            ``"O2"``, the same by any angle; ``"scale"``, ``"translation"``, ``"affine"`` or
            ``"homography"``; in space ``"SO3"``, ``"O3"``, ``"SE3"``, ``"E3"``, ``"octahedral"`` (or ``"O"``)
            and ``"full octahedral"`` (or ``"Oh"``); ``"S<n>"``, the permutations of ``n`` members; ``"hue"``,
            ``"hue<n>"``, ``"brightness"``, ``"contrast"`` or ``"gamma"``, where pictures are normalised with
            ``"[mean;std]"`` behind, such as ``"hue12[0.5;0.2]"``; such names with ``"x"`` between them, a
            product; or a `Group`.

    Raises:
        ValueError: If the name is not of that form.

    Example:
        >>> parse_group("D4")
        Dihedral(n=4)
    """
    if isinstance(group, Group):
        return group
    found = _parsed(group.strip()) if isinstance(group, str) else None
    if found is not None:
        return found
    names = ", ".join(repr(str(named)) for named in _NAMED.values())
    colours = ", ".join(map(repr, _COLOURS))
    raise ValueError(
        f"unknown group {group!r}; expected 'C<n>' (n rotations) or 'D<n>' (rotations and reflections), such "
        f"as 'C4', 'C8' or 'D4', one of {names}, 'S<n>' (permutations), 'hue<n>', {colours}, or a product, "
        "such as 'C4xhue3'"
    )


def _parsed(name: str) -> Group | None:
    """Return the group of a name, or None."""
    short = _NAMED.get(name.upper(), _SHORT.get(name.upper()))
    if short is not None:
        return short
    parts = re.split("[xX×]", name)
    if len(parts) > 1:
        factors = [_parsed(part.strip()) for part in parts]
        known = [factor for factor in factors if factor is not None]
        return Product(*known) if len(known) == len(factors) else None
    match = re.fullmatch(r"([A-Za-z])([1-9][0-9]*)", name)
    if match is not None and match[1].upper() in _FAMILIES:
        return _FAMILIES[match[1].upper()](int(match[2]))
    if match is not None and match[1].upper() == "S":
        return Permutations(int(match[2]))
    return _parsed_colour(name.lower())


def _parsed_colour(name: str) -> Group | None:
    match = re.fullmatch(r"([a-z]+)([1-9][0-9]*)?(?:\[([^;]*);([^;]*)\])?", name)
    if match is None or match[1] not in _COLOURS or (match[2] and match[1] != Hue.name):
        return None
    try:
        mean, std = (None if m is None else [float(v) for v in m.split(",")] for m in (match[3], match[4]))
        scale: dict[str, Any] = {} if mean is None or std is None else {"mean": mean, "std": std}
        scale = {field: values if len(values) > 1 else values[0] for field, values in scale.items()}
        return CyclicHue(int(match[2]), **scale) if match[2] else _COLOURS[match[1]](**scale)
    except ValueError:
        return None


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
