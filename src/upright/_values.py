"""Values: frozen dataclasses of tensors that ``tree_map``, ``torch.compile`` and export see into."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

from torch.utils import _pytree as pytree
from typing_extensions import dataclass_transform

T = TypeVar("T")


def static(**kwargs: Any) -> Any:
    """Declare a field that describes the tensors (a canvas size, a format) and is not a tensor itself."""
    return dataclasses.field(metadata={"static": True}, **kwargs)


@dataclass_transform(eq_default=False, frozen_default=True, field_specifiers=(static, dataclasses.field))
def value(cls: type[T]) -> type[T]:
    """Make ``cls`` a frozen dataclass (compared by identity) and register it as a pytree node."""
    cls = dataclasses.dataclass(frozen=True, eq=False)(cls)
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    leaves = [f.name for f in fields if not f.metadata.get("static")]
    constants = [f.name for f in fields if f.metadata.get("static")]

    def flatten(x: T) -> tuple[list[Any], Any]:
        return [getattr(x, name) for name in leaves], tuple(getattr(x, name) for name in constants)

    def unflatten(children: Any, context: Any) -> T:
        x = object.__new__(cls)  # no __post_init__: the leaves may be placeholders
        for name, child in zip(leaves, children, strict=True):
            object.__setattr__(x, name, child)
        for name, constant in zip(constants, context, strict=True):
            object.__setattr__(x, name, constant)
        return x

    def flatten_with_keys(x: T) -> tuple[list[Any], Any]:
        children, context = flatten(x)
        return [(pytree.GetAttrKey(n), c) for n, c in zip(leaves, children, strict=True)], context

    pytree.register_pytree_node(
        cls,
        flatten,
        unflatten,
        serialized_type_name=f"{cls.__module__}.{cls.__qualname__}",
        flatten_with_keys_fn=flatten_with_keys,
    )
    return cls
