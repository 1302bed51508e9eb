"""Colour groups: they move the colours of pictures and leave every other kind as it is, bit for bit.

Regular fields are the exception that is none: they have a channel for every element of a finite group, and
those permute, as under any finite group.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..groups.base import Element
from ..groups.colour import Brightness, ColourGroup, Contrast, Gamma, HueGroup
from ..kinds import Image, Kind, RegularField
from .planar import check_regular, permute_channels
from .registry import leave, register_action

register_action(ColourGroup, Kind)(leave)


@register_action(ColourGroup, RegularField)
def permute_regular_field(g: Element, x: RegularField) -> RegularField:
    """Permute the channels: channel ``h`` comes from channel ``~g @ h``; the grid stays."""
    check_regular(g.group, x.data)
    return x.replace(data=permute_channels(g, x.data))


@register_action(HueGroup, Image)
def turn_hue(g: Element, x: Image) -> Image:
    """Turn colours about the grey axis; greyscale pictures stay. Thirds of a turn permute the channels."""
    group = g.group
    assert isinstance(group, HueGroup)
    if _channels(x) == 1 or not x.data.shape[0]:
        return x
    thirds = group.thirds(g)
    permuted = _permuted(x.data, thirds.clamp(min=0))
    looks = not torch.compiler.is_compiling() and group.treats_channels_alike
    if looks and not g.value.requires_grad and bool((thirds >= 0).all()):
        return x.replace(data=permuted)
    weights = group.weights(g)

    def turn(colours: Tensor) -> Tensor:
        _, previous, following = (_spread(w, colours) for w in weights.unbind(-1))
        changes = colours.roll(1, -3) - colours, colours.roll(-1, -3) - colours  # 0 on greys, exactly
        return colours + previous * changes[0] + following * changes[1]

    turned = _on_colours(g, x, turn)
    if not group.treats_channels_alike:
        return turned
    exact = (thirds >= 0).view(-1, *[1] * (x.data.ndim - 1))
    slope = turned.data - turned.data.detach() if g.value.requires_grad else 0  # reaches the angle
    return turned.replace(data=torch.where(exact, permuted + slope, turned.data))


def _permuted(data: Tensor, thirds: Tensor) -> Tensor:
    """Permute the channels of pictures by thirds of a turn, shape ``(B,)``: no arithmetic, any dtype."""
    source = (torch.arange(3, device=data.device) - thirds[:, None]) % 3  # (B, 3)
    index = source.view(-1, *[1] * (data.ndim - 4), 3, 1, 1)
    return data.gather(-3, index.expand(data.shape))


@register_action(Brightness, Image)
def shift_brightness(g: Element, x: Image) -> Image:
    """Add the parameter to all colours."""
    return _on_colours(g, x, lambda colours: colours + _spread(g.value, colours))


@register_action(Contrast, Image)
def scale_contrast(g: Element, x: Image) -> Image:
    """Scale colours about middle grey."""
    return _on_colours(g, x, lambda colours: (colours - 0.5) * _spread(g.value.exp(), colours) + 0.5)


@register_action(Gamma, Image)
def raise_to_gamma(g: Element, x: Image) -> Image:
    """Raise colours to a power, keeping their signs."""

    def bend(colours: Tensor) -> Tensor:
        size = colours.abs().clamp(min=torch.finfo(colours.dtype).tiny)  # a slope of 0 at 0, not NaN
        return colours.sign() * size ** _spread(g.value.exp(), colours)

    return _on_colours(g, x, bend)


def _on_colours(g: Element, x: Image, move: Callable[[Tensor], Tensor]) -> Image:
    """Move colours in 0…1, whatever the pictures hold; the identity keeps every bit.

    Integers count to 255, are rounded, and end at 0 and 255.
    """
    group, data = g.group, x.data
    assert isinstance(group, ColourGroup)
    channels = _channels(x)
    wide = data.dtype in (torch.float64, torch.int64, torch.int32)
    values = data.to(torch.float64 if wide else torch.float32)
    if group.is_normalized:
        if channels == 1 and not group.treats_channels_alike:
            raise ValueError(f"{group} normalises three channels, each in its own way, got one channel")
        mean, std = (values.new_tensor(v[:channels]).view(-1, 1, 1) for v in (group.mean, group.std))
        moved = (move(values * std + mean) - mean) / std
    elif data.is_floating_point():
        moved = move(values)
    else:
        moved = (move(values / 255) * 255).round().clamp(0, 255)
    still = g.is_identity().view(-1, *[1] * (data.ndim - 1))
    return x.replace(data=torch.where(still, data, moved.to(data.dtype)))


def _channels(x: Image) -> int:
    """Return 1 or 3, after checking that the picture has colours."""
    shape, dtype = x.data.shape, x.data.dtype
    if x.data.ndim < 4 or shape[-3] not in (1, 3) or dtype == torch.bool or dtype.is_complex:
        raise ValueError(
            f"colours are moved in Image.data of shape (…, 3, H, W) or (…, 1, H, W), of numbers, got "
            f"{tuple(shape)}, {dtype}; take further channels, such as alpha, off first"
        )
    return shape[-3]


def _spread(parameter: Tensor, colours: Tensor) -> Tensor:
    """Return one number a picture, shape ``(B,)``, in the dtype and with the axes of pictures."""
    return parameter.to(colours.dtype).view(-1, *[1] * (colours.ndim - 1))
