"""One open registry: (group family, kind) → kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

from ..groups.base import Element, Group
from ..groups.product import Product, factors_of
from ..kinds import Invariant, Kind

Kernel = Callable[[Element, Any], Any]
"""Moves a value whose tensor has the one leading batch axis of the element: ``kernel(g, x) -> x``."""
F = TypeVar("F", bound=Kernel)

_KERNELS: dict[tuple[type[Group], type[Kind]], Kernel] = {}


def register_action(group: type[Group], kind: type[Kind]) -> Callable[[F], F]:
    """Register a kernel for a group family and a kind.

    The kernel is called with an element of batch shape ``(B,)`` and a value whose ``data`` has the leading
    axis ``B``; it must change nothing in place.

    Args:
        group: The group class; its subclasses are served too, unless they have a kernel of their own.
        kind: The kind class, likewise.

    Raises:
        ValueError: If the pair is registered already.

    Example:
        >>> @register_action(MyGroup, Image)                                        # doctest: +SKIP
        ... def move(g, x): ...
    """

    def register(kernel: F) -> F:
        if (group, kind) in _KERNELS:
            raise ValueError(f"an action of {group.__name__} on {kind.__name__} is registered already")
        _KERNELS[group, kind] = kernel
        return kernel

    return register


def leave(g: Element, x: Kind) -> Kind:
    """Return ``x``: the kernel of groups that leave a kind alone; registered for `Kind`, it serves the rest.

    Example:
        >>> register_action(MyColours, Kind)(leave)                                  # doctest: +SKIP
    """
    return x


def leaves(group: Group, kind: type[Kind]) -> bool:
    """Say whether a group leaves a kind as it is, bit for bit, whatever the element."""
    if issubclass(kind, Invariant):
        return True
    return all(_found(type(factor), kind) is leave for factor in factors_of(group))


def registered_kinds(group: Group | type[Group]) -> list[type[Kind]]:
    """Return the kinds on which a group acts, by name: for products, those on which all factors act."""
    if isinstance(group, Product):
        every = [set(registered_kinds(factor)) for factor in group.factors]
        return sorted(set.intersection(*every), key=lambda kind: kind.__name__)
    family = group if isinstance(group, type) else type(group)
    kinds = {kind for owner, kind in _KERNELS if issubclass(family, owner)} | {Invariant}
    if Kind in kinds:
        kinds = {kind for _, kind in _KERNELS} | {Invariant}
    return sorted(kinds - {Kind}, key=lambda kind: kind.__name__)


def act(g: Element, x: Any) -> Any:
    """Move ``x`` by ``g``.

    Contract: ``act(g @ h, x) == act(g, act(h, x))``, ``act(~g, act(g, x)) == x``, the identity changes no
        bit.

    Args:
        g: One element (shape ``()``, moves everything alike) or one per batch entry (shape ``(B,)``).
        x: A kind whose ``data`` has leading axis ``B``; a list with one entry per element (pictures or
            targets of different sizes, each without batch axis); or a dict or tuple of such things.

    Returns:
        The moved value, of the same structure, dtype and device; ``x`` is not changed.

    Raises:
        TypeError: If ``x`` is a bare tensor, or no action of the group on the kind is registered.
        ValueError: If batch sizes or shapes do not fit.

    Example:
        >>> import torch
        >>> from upright import Cyclic, Image, act
        >>> quarter = Cyclic(4).element(1)
        >>> act(quarter, Image(torch.tensor([[[1, 2], [3, 4]]]))).data
        tensor([[[2, 4],
                 [1, 3]]])
    """
    if isinstance(x, Invariant):
        return x
    if isinstance(x, Kind):
        return _act_on_kind(g, x)
    if isinstance(x, dict):
        return {key: act(g, entry) for key, entry in x.items()}
    if isinstance(x, tuple):
        moved = [act(g, entry) for entry in x]
        return type(x)(*moved) if hasattr(x, "_fields") else tuple(moved)
    if isinstance(x, list):
        if g.shape and g.shape[0] != len(x):
            raise ValueError(f"a list must have one entry per element, {g.shape[0]}, got {len(x)}")
        return [act(g[i] if g.shape else g, entry) for i, entry in enumerate(x)]
    hint = (
        "wrap the tensor in the kind that it is, such as Image(x)"
        if isinstance(x, torch.Tensor)
        else "use a kind"
    )
    raise TypeError(f"x must be a kind, or a list, tuple or dict of kinds, got {type(x).__name__}; {hint}")


def _act_on_kind(g: Element, x: Kind) -> Kind:
    kernel = _find(type(g.group), type(x))
    data = x.data
    if not isinstance(data, torch.Tensor):
        raise TypeError(f"{type(x).__name__}.data must be a tensor, got {type(data).__name__}")
    g = g if g.device == data.device else g.to(data.device)
    shape, batch = g.shape, data.shape[:1]
    if len(shape) > 1:
        raise ValueError(f"g must have shape () or (B,), got {tuple(shape)}; flatten the batch axes")
    if not shape:
        moved: Kind = kernel(g.reshape(1), x.replace(data=data.unsqueeze(0)))
        return moved.replace(data=moved.data.squeeze(0))
    if shape == batch:
        return kernel(g, x)  # type: ignore[no-any-return]
    if not batch or shape[0] != 1:
        raise ValueError(
            f"{type(x).__name__}.data must have leading axis {shape[0]} to match g, "
            f"got shape {tuple(data.shape)}"
        )
    return kernel(g.expand(batch[0]), x)  # type: ignore[no-any-return]


def _found(group: type[Group], kind: type[Kind]) -> Kernel | None:
    for family in group.__mro__:
        for ancestor in kind.__mro__:
            kernel = _KERNELS.get((family, ancestor))
            if kernel is not None:
                return kernel
    return None


def _find(group: type[Group], kind: type[Kind]) -> Kernel:
    kernel = _found(group, kind)
    if kernel is not None:
        return kernel
    kinds = ", ".join(k.__name__ for k in registered_kinds(group))
    raise TypeError(
        f"no action of {group.__name__} on {kind.__name__}; registered kinds: {kinds}. "
        "Add one with register_action."
    )
