"""Products: each factor moves what the ones before it have moved, and resampling happens once."""

from __future__ import annotations

from ..groups.base import Element
from ..groups.product import Product
from ..kinds import Image, Kind, RegularField, VectorField
from .planar import check_regular, permute_channels
from .registry import act, leaves, register_action


@register_action(Product, Kind)
def move_by_parts(g: Element, x: Kind) -> Kind:
    """Move by the parts in order, without those that leave the kind as it is."""
    for part in _moves(g):
        if not leaves(part.group, type(x)):
            x = act(part, x)
    return x


@register_action(Product, RegularField)
def move_regular_field(g: Element, x: RegularField) -> RegularField:
    """Move the grid by the parts that move grids, and permute the channels by the whole element."""
    check_regular(g.group, x.data)
    data = x.data
    for part in _moves(g):
        if not leaves(part.group, VectorField):
            data = act(part, Image(data, border=x.border, fill=x.fill)).data
    return x.replace(data=permute_channels(g, data))


def _moves(g: Element) -> tuple[Element, ...]:
    group = g.group
    assert isinstance(group, Product)
    return group.moves(g)
