"""Families of transformations with one number each: what a curve runs over, and what poses are called."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .._checks import check_choice
from ..groups.base import Element, FiniteGroup, Group
from ..groups.colour import Brightness, ColourGroup, Contrast, Gamma, Hue, HueGroup
from ..groups.lie import LieGroup
from ..groups.planar import PlanarGroup
from ..groups.projective import Scale
from ..groups.rotations import O2, SO2

STEPS = 24
"""How many poses of a continuous group are evaluated where none are named."""


@dataclass(frozen=True)
class Transformation:
    """Elements of a group that are told apart by one number.

    Attributes:
        name: What it is called.
        group: The group.
        make: Called as ``make(group, values)``, values float64 of shape ``(P,)``; returns elements.
        read: The values of elements; the inverse of ``make``.
        values: The values that are evaluated where none are named.
        axis: What stands at the axis of a figure.
        unit: What follows a value in a label; ``"×"`` stands before it.
        period: After how much the values repeat; None: they do not.
    """

    name: str
    group: Group
    make: Callable[[Any, Tensor], Element]
    read: Callable[[Element], Tensor]
    values: Sequence[float]
    axis: str
    unit: str = ""
    period: float | None = None

    def elements(self, values: Any = None) -> Element:
        """Return the elements with the given values, shape ``(P,)``.

        Raises:
            ValueError: If there is no value, or one is not finite.
        """
        given = torch.as_tensor(self.values if values is None else values, dtype=torch.float64).flatten()
        if not len(given) or not bool(given.isfinite().all()):
            raise ValueError(
                f"values of {self.name} must be finite numbers, at least one, got {given.tolist()}"
            )
        return self.make(self.group, given)

    def normalized(self, mean: Any = None, std: Any = None) -> Transformation:
        """Return the transformation of pictures that were normalised by ``mean`` and ``std``.

        Raises:
            ValueError: If only one of them is given.
        """
        if (mean is None) != (std is None):
            raise ValueError("mean and std must be given together; pass both, as the transform has them")
        if mean is None or not isinstance(self.group, ColourGroup):
            return self
        return replace(self, group=replace(self.group, mean=mean, std=std))

    def label(self, value: float) -> str:
        """Return a value in a few characters."""
        return f"×{value:.4g}" if self.unit == "×" else f"{round(value, 6):g}{self.unit}"


def _degrees(angle: Tensor) -> Tensor:
    return (angle * (180 / math.pi)).mul(1e9).round().div(1e9)


_TURNS = tuple(360 / STEPS * i for i in range(STEPS))
_FACTORS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 1.75, 2.0)
_SHIFTS = (-0.4, -0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.3, 0.4)


def _log_scaled(name: str, group: Group, axis: str) -> Transformation:
    return Transformation(
        name, group, lambda group, x: group.element(x), lambda g: g.value.exp(), _FACTORS, axis, "×"
    )


def _turning(name: str, group: Group, axis: str) -> Transformation:
    def make(group: Any, degrees: Tensor) -> Element:
        turned: Element = group.element(degrees=degrees)
        return turned

    return Transformation(name, group, make, lambda g: _degrees(g.value), _TURNS, axis, "°", 360.0)


TRANSFORMATIONS: dict[str, Transformation] = {
    one.name: one
    for one in (
        _turning("rotation", SO2(), "angle, counter-clockwise"),
        _log_scaled("scale", Scale(), "scale"),
        _turning("hue", Hue(), "turn of the hue"),
        Transformation(
            "brightness", Brightness(), lambda group, x: group.element(x), lambda g: g.value, _SHIFTS,
            "brightness added",
        ),
        _log_scaled("contrast", Contrast(), "contrast"),
        _log_scaled("gamma", Gamma(), "gamma"),
    )
}  # fmt: skip
"""Transformations by name; add one by adding an entry."""


def transformation(given: str | Transformation) -> Transformation:
    """Return a transformation, given as such or by its name in `TRANSFORMATIONS`.

    Raises:
        ValueError: If the name is unknown.
    """
    if isinstance(given, Transformation):
        return given
    check_choice("transformation", given, TRANSFORMATIONS)
    return TRANSFORMATIONS[given]


def transformation_of(group: Group) -> Transformation | None:
    """Return the transformation whose elements belong to a group; None where there is none."""
    return next((one for one in TRANSFORMATIONS.values() if type(one.group) is type(group)), None)


def pose_grid(group: Group, count: int = STEPS) -> Element:
    """Return the poses that are evaluated where none are named, the identity among them.

    Args:
        group: The group. A finite one is taken whole; of rotations, angles are evenly spaced; of a group of
            `TRANSFORMATIONS`, its usual values are taken; of any other, elements are drawn, always the same.
        count: How many elements of a continuous group.
    """
    if isinstance(group, FiniteGroup):
        return group.elements()
    if isinstance(group, O2):
        angles = torch.arange(count // 2).double() * (4 * math.pi / count)
        return group.element(angles.repeat(2), reflected=torch.arange(2).repeat_interleave(count // 2))
    if isinstance(group, SO2):
        return group.element(torch.arange(count).double() * (2 * math.pi / count))
    known = transformation_of(group)
    if known is not None:
        return known.make(group, torch.tensor(known.values, dtype=torch.float64))
    drawn = group.sample(count - 1, generator=torch.Generator().manual_seed(0))
    return Element(group, torch.cat([group.identity(1).value, drawn.value]))


def pose_values(poses: Element) -> list[float | None]:
    """Return the number that tells each pose apart; None where there is none."""
    known = transformation_of(poses.group)
    if known is not None:
        return [float(x) for x in known.read(poses)]
    if isinstance(poses.group, (PlanarGroup, HueGroup)):
        return [float(x) for x in _degrees(poses.group.angle(poses))]
    if isinstance(poses.group, LieGroup) and poses.group.coordinates == 1:
        return [float(x) for x in poses.group.log(poses)[..., 0]]
    return [None] * len(poses)


def pose_names(poses: Element) -> list[str | None]:
    """Return what each pose is called; None: by its angle, or its number."""
    if isinstance(poses.group, HueGroup):
        return [f"{value:g}°" for value in pose_values(poses)]
    if isinstance(poses.group, (PlanarGroup, FiniteGroup)):
        return [None] * len(poses)
    known = transformation_of(poses.group)
    return [
        None if value is None else known.label(value) if known is not None else f"{value:.3g}"
        for value in pose_values(poses)
    ]
