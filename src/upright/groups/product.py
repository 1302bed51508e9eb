"""Products of groups that commute: turns and hues, turns and scales, together."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .base import Element, FiniteGroup, Group
from .colour import Brightness, ColourGroup, Contrast, CyclicHue, Gamma, HueGroup
from .lie import LieGroup
from .planar import Cyclic, PlanarGroup
from .projective import Affine, Homography, PlaneMap, Scale, Translation, plane_homography
from .rotations import SO2
from .space import SpatialGroup

Condition = Callable[[Any, Any], bool]
_COMMUTING: dict[tuple[type[Group], type[Group]], Condition | None] = {}


def register_commuting(first: type[Group], second: type[Group], when: Condition | None = None) -> None:
    """Say that the elements of two families of groups commute, so that `Product` takes them together.

    Args:
        first: A group class; its subclasses are meant too.
        second: Another one, likewise.
        when: ``when(a, b)`` says of which groups of these families it is so; None: of all.

    Raises:
        ValueError: If the pair is registered already.
    """
    if (first, second) in _COMMUTING or (second, first) in _COMMUTING:
        raise ValueError(f"{first.__name__} and {second.__name__} are registered already")
    _COMMUTING[first, second] = when


def commute(a: Group, b: Group) -> bool:
    """Say whether two groups are known to commute; see `register_commuting`."""
    for first, second in ((a, b), (b, a)):
        for family, other in itertools.product(type(first).__mro__, type(second).__mro__):
            if (family, other) in _COMMUTING:
                when = _COMMUTING[family, other]
                return when is None or when(first, second)
    return False


@dataclass(frozen=True, init=False)
class Product(Group):
    """The direct product of groups that commute: an element is one of each, its ``parts``.

    A product of finite groups is a `FiniteGroup`; its elements are numbered like the cells of a table, those
    of the last factor counting fastest. With Lie groups among the factors it is a `LieGroup`, and
    ``Element.value`` holds the values of the parts one after the other, float64.

    Args:
        *factors: Two groups or more, each pair of them known to commute; products among them are taken apart.

    Raises:
        TypeError: If a factor is no group.
        ValueError: If there are fewer than two factors, or two that are not known to commute.

    Example:
        >>> from upright.groups import Cyclic, CyclicHue
        >>> group = Product(Cyclic(4), CyclicHue(3))
        >>> turn, hue = group.parts(group.element(5))
        >>> group.order, turn.value.item(), hue.value.item(), str(group)
        (12, 1, 2, 'C4xhue3')
    """

    factors: tuple[Group, ...]
    """The groups that make up the product."""

    def __new__(cls, *factors: Group) -> Product:
        """Make a finite product of finite groups, and a Lie group where Lie groups are among them."""
        if cls is Product and factors:
            flat = _flat(factors)
            if all(isinstance(factor, FiniteGroup) for factor in flat):
                return object.__new__(FiniteProduct)
            if all(isinstance(factor, (LieGroup, FiniteGroup)) for factor in flat):
                return object.__new__(LieProduct)
        return object.__new__(cls)

    def __init__(self, *factors: Group) -> None:
        flat = _flat(factors)
        if len(flat) < 2:
            raise ValueError(f"a product needs two factors or more, got {len(flat)}")
        for a, b in itertools.combinations(flat, 2):
            if isinstance(a, ColourGroup) and isinstance(b, ColourGroup) and _scale_of(a) != _scale_of(b):
                raise ValueError(f"mean and std must be the same in all factors, got {a} and {b}")
            if not commute(a, b):
                raise ValueError(
                    f"{a} and {b} are not known to commute, so they make no Product; Affine() holds moves of "
                    "the plane that do not commute, C<n> and D<n> hold those about one point, and "
                    "register_commuting(…) is for groups of your own that do"
                )
        object.__setattr__(self, "factors", flat)

    def __getnewargs__(self) -> tuple[Group, ...]:
        """Return what `pickle` makes the product of."""
        return self.factors

    is_finite = False
    value_ndim = 1

    @property
    def dimension(self) -> int:  # type: ignore[override]
        """Side of the matrices: they hold those of the parts along the diagonal."""
        return sum(factor.dimension for factor in self.factors)

    @property
    def is_bi_invariant(self) -> bool:  # type: ignore[override]
        """Whether the distances of all factors are invariant on both sides."""
        return all(factor.is_bi_invariant for factor in self.factors)

    @property
    def is_exact_on_grid(self) -> bool:
        """Whether no factor resamples."""
        return all(factor.is_exact_on_grid for factor in self.factors)

    def parts(self, g: Element) -> tuple[Element, ...]:
        """Return the parts of elements, one for each factor, each of shape ``g.shape``."""
        found, start = [], 0
        for factor, like in zip(self.factors, self._likes(g.device), strict=True):
            value = g.value[..., start : start + like.numel()].reshape(g.shape + like.shape)
            found.append(Element(factor, value if like.is_floating_point() else value.round().long()))
            start += like.numel()
        return tuple(found)

    def joined(self, *parts: Element) -> Element:
        """Return the elements that have the given parts, one for each factor; shapes broadcast."""
        self._check_parts(parts)
        shape = torch.broadcast_shapes(*(part.shape for part in parts))  # type: ignore[no-untyped-call]
        values = [part.expand(*shape).value.double() for part in parts]
        flat = [v.reshape(*shape, math.prod(v.shape[len(shape) :])) for v in values]
        return Element(self, torch.cat(flat, -1))

    def moves(self, g: Element) -> tuple[Element, ...]:
        """Return the parts as they are to act one after the other: what moves the plane as one element.

        So pixels are resampled once. Turns and scales together are `Affine`; other maps, `Homography`.
        """
        parts = self.parts(g)
        plane = [part for part in parts if isinstance(part.group, (PlanarGroup, PlaneMap))]
        if len(plane) < 2:
            return parts
        matrix = plane_homography(plane[0])
        for part in plane[1:]:
            matrix = matrix @ plane_homography(part)
        similar = all(isinstance(part.group, (PlanarGroup, Scale)) for part in plane)
        together = Element(Affine(), matrix[..., :2, :]) if similar else Homography().element(matrix)
        others = tuple(part for part in parts if not isinstance(part.group, (PlanarGroup, PlaneMap)))
        return (together, *others)

    def identity(self, *shape: int, device: Any = None) -> Element:
        """Return the identity, repeated over the batch shape ``shape``."""
        return self.joined(*(factor.identity(*shape, device=device) for factor in self.factors))

    def sample(self, *shape: int, generator: torch.Generator | None = None, device: Any = None) -> Element:
        """Draw every part on its own, with batch shape ``shape``."""
        return self.joined(
            *(factor.sample(*shape, generator=generator, device=device) for factor in self.factors)
        )

    def compose(self, g: Element, h: Element) -> Element:
        """Return ``g @ h``: first ``h``, then ``g``, part by part."""
        return self.joined(*(a.compose(b) for a, b in zip(self.parts(g), self.parts(h), strict=True)))

    def inverse(self, g: Element) -> Element:
        """Return ``~g``."""
        return self.joined(*(part.inverse() for part in self.parts(g)))

    def matrix(self, g: Element, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return the matrices of the parts along the diagonal, ``(*g.shape, dimension, dimension)``."""
        return _diagonal([part.matrix(dtype) for part in self.parts(g)])

    def distance(self, g: Element, h: Element) -> Tensor:
        """Return the root of the sum of the parts' squared distances, each in the unit of its factor."""
        total = torch.zeros((), dtype=torch.float64, device=g.device)
        for a, b in zip(self.parts(g), self.parts(h), strict=True):
            total = total + a.distance(b).double() ** 2
        return total.sqrt()

    def equal_values(self, a: Tensor, b: Tensor) -> Tensor:
        """Compare part by part, each as its factor does."""
        same = torch.ones((), dtype=torch.bool, device=a.device)
        for x, y in zip(self.parts(Element(self, a)), self.parts(Element(self, b)), strict=True):
            same = same & x.equals(y)
        return same

    def _check_parts(self, parts: tuple[Element, ...]) -> None:
        got = tuple(part.group for part in parts)
        if got != self.factors:
            raise ValueError(f"the parts must be elements of {self.factors}, got elements of {got}")

    def _likes(self, device: Any) -> list[Tensor]:
        """Return one value of each factor, to tell how its elements are written down."""
        return [factor.identity(device=device).value for factor in self.factors]

    def __repr__(self) -> str:
        return f"Product({', '.join(map(repr, self.factors))})"

    def __str__(self) -> str:
        return "x".join(map(str, self.factors))


class FiniteProduct(Product, FiniteGroup):
    """A product of finite groups; make it by `Product`."""

    is_finite = True
    value_ndim = 0

    @property
    def order(self) -> int:
        """Number of elements: the product of the factors'."""
        return math.prod(self.orders)

    @property
    def orders(self) -> tuple[int, ...]:
        """Numbers of elements of the factors: the shape of the table in which the elements are numbered."""
        return tuple(factor.order for factor in self.factors if isinstance(factor, FiniteGroup))

    def parts(self, g: Element) -> tuple[Element, ...]:
        """Return the parts of elements, one for each factor, each of shape ``g.shape``."""
        found, rest = [], g.value
        for factor, order in zip(reversed(self.factors), reversed(self.orders), strict=True):
            found.append(Element(factor, rest % order))
            rest = rest // order
        return tuple(reversed(found))

    def joined(self, *parts: Element) -> Element:
        """Return the elements that have the given parts, one for each factor; shapes broadcast."""
        self._check_parts(parts)
        number = parts[0].value
        for part, order in zip(parts[1:], self.orders[1:], strict=True):
            number = number * order + part.value
        return Element(self, number)

    def equal_values(self, a: Tensor, b: Tensor) -> Tensor:
        """Compare numbers."""
        return a == b

    identity = FiniteGroup.identity
    sample = FiniteGroup.sample


class LieProduct(Product, LieGroup):
    """A product with Lie groups among finite ones; make it by `Product`.

    Its coordinates are those of the Lie factors in a row; `exp` does not move the finite ones.
    """

    @property
    def coordinates(self) -> int:  # type: ignore[override]
        """Dimension of the Lie algebra."""
        return sum(_coordinates(factor) for factor in self.factors)

    def generators(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return a basis of the Lie algebra as matrices, shape ``(coordinates, dimension, dimension)``."""
        rows = []
        for i, factor in enumerate(self.factors):
            if isinstance(factor, LieGroup):
                count, sides = factor.coordinates, [other.dimension for other in self.factors]
                blocks = [torch.zeros(count, side, side, dtype=dtype) for side in sides]
                blocks[i] = factor.generators(dtype)
                rows.append(_diagonal(blocks))
        return torch.cat(rows)

    def exp(self, coordinates: Tensor) -> Element:
        """Return the elements with the given coordinates, shape ``(…, coordinates)``; differentiable."""
        made, start = [], 0
        for factor in self.factors:
            own = coordinates[..., start : start + _coordinates(factor)]
            still = factor.identity(*own.shape[:-1], device=own.device)
            made.append(factor.exp(own) if isinstance(factor, LieGroup) else still)
            start += own.shape[-1]
        return self.joined(*made)

    def log(self, g: Element) -> Tensor:
        """Return coordinates, shape ``(*g.shape, coordinates)``.

        Raises:
            ValueError: If a part is out of reach of `exp`.
        """
        logs = []
        for part in self.parts(g):
            if isinstance(part.group, LieGroup):
                logs.append(part.group.log(part))
            elif not bool(part.is_identity().all()):
                raise ValueError(f"elements of {part.group} have no logarithm, but for the identity")
        return torch.cat(logs, -1)


def _coordinates(group: Group) -> int:
    return group.coordinates if isinstance(group, LieGroup) else 0


def factors_of(group: Group) -> tuple[Group, ...]:
    """Return the factors of a product, or the group itself."""
    return group.factors if isinstance(group, Product) else (group,)


def planar_part(g: Element) -> Element | None:
    """Return what elements do to the plane where that is to rotate and reflect it; None: nothing, or more."""
    moves = g.group.moves(g) if isinstance(g.group, Product) else (g,)
    return next((part for part in moves if isinstance(part.group, PlanarGroup)), None)


def planar_factor(group: Group) -> PlanarGroup | None:
    """Return the group of a `planar_part`; None: there is none."""
    part = planar_part(group.identity())
    return part.group if part is not None and isinstance(part.group, PlanarGroup) else None


def moves_plane_only(group: Group) -> bool:
    """Say whether a group is known to move places, and to leave colours as they are."""
    return all(isinstance(factor, (PlanarGroup, PlaneMap)) for factor in factors_of(group))


def reflects(group: Group) -> bool:
    """Say whether elements may mirror a picture; of groups that are not known, that they may."""
    return not all(
        isinstance(factor, (Cyclic, SO2, Scale, Translation, ColourGroup)) for factor in factors_of(group)
    )


def _flat(groups: tuple[Group, ...]) -> tuple[Group, ...]:
    for group in groups:
        if not isinstance(group, Group):
            raise TypeError(
                f"a factor must be a Group, got {type(group).__name__}; write Product(Cyclic(4), …)"
            )
    return tuple(factor for group in groups for factor in factors_of(group))


def _scale_of(group: ColourGroup) -> tuple[Any, Any]:
    return group.mean, group.std


def _diagonal(blocks: list[Tensor]) -> Tensor:
    """Put matrices ``(*shape, d, d)`` along a diagonal."""
    side, shape = sum(block.shape[-1] for block in blocks), blocks[0].shape[:-2]
    matrix = blocks[0].new_zeros(*shape, side, side)
    start = 0
    for block in blocks:
        end = start + block.shape[-1]
        matrix[..., start:end, start:end] = block
        start = end
    return matrix


def _permutes_channels(hue: HueGroup, gamma: Gamma) -> bool:
    """Say whether hues only permute channels, so that they commute with what treats channels alike."""
    return isinstance(hue, CyclicHue) and 3 % hue.n == 0


register_commuting(PlanarGroup, ColourGroup)
register_commuting(PlaneMap, ColourGroup)
register_commuting(PlanarGroup, Scale)
register_commuting(SpatialGroup, ColourGroup)
register_commuting(HueGroup, Brightness)
register_commuting(HueGroup, Contrast)
register_commuting(HueGroup, Gamma, when=_permutes_channels)
