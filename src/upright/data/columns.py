"""Which columns of a table hold the pictures and the labels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Column:
    """A column, and the class names that the table's metadata give.

    Attributes:
        name: Name of the column.
        class_names: Names of the classes, empty if unknown.
    """

    name: str
    class_names: tuple[str, ...] = ()

    def numbers(self, values: Sequence[Any]) -> tuple[list[int], list[str]]:
        """Return class numbers and names; labels that are words are numbered in alphabetical order.

        A missing label is -1, the label of pictures without one.
        """
        if all(v is None or (isinstance(v, int) and not isinstance(v, bool)) for v in values):
            return [-1 if v is None else v for v in values], list(self.class_names)
        names = sorted({str(v) for v in values if v is not None})
        order = {name: i for i, name in enumerate(names)}
        return [-1 if v is None else order[str(v)] for v in values], names


def read_columns(
    name: Any, schema: Any, images: Sequence[str], labels: Sequence[str]
) -> tuple[Column, Column | None]:
    """Find the columns of a Parquet file by name, or the first column of ``{bytes, path}``.

    Raises:
        ValueError: If there are no pictures.
    """
    encoded = [field.name for field in schema if _is_encoded(field.type)]
    image = next((n for n in (*images, *encoded) if n in encoded or n in _path_columns(schema)), None)
    label = next((n for n in labels if n in schema.names), None)
    if image is None:
        raise ValueError(_missing(name, schema.names))
    return Column(image), Column(label, _class_names(schema, label)) if label else None


def _class_names(schema: Any, label: str) -> tuple[str, ...]:
    """Return the class names that the metadata give; none where these are damaged."""
    try:
        said = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        names = said.get("info", {}).get("features", {}).get(label, {}).get("names")
        return tuple(map(str, names or ()))
    except (ValueError, AttributeError, TypeError, RecursionError):
        return ()


def hub_columns(
    name: str, features: Any, images: Sequence[str], labels: Sequence[str]
) -> tuple[Column, Column | None]:
    """Find the columns of a data set of the hub.

    Raises:
        ValueError: If there are no pictures.
    """
    encoded = [key for key, feature in features.items() if type(feature).__name__ == "Image"]
    image = next((n for n in (*images, *encoded) if n in encoded), None)
    label = next((n for n in labels if n in features), None)
    if image is None:
        raise ValueError(_missing(name, list(features)))
    return Column(image), Column(
        label, tuple(getattr(features[label], "names", None) or ())
    ) if label else None


def _missing(name: Any, columns: Sequence[str]) -> str:
    got = ", ".join(columns)
    return f"{name} must have a column 'image' of {{bytes, path}} (and 'label'), got columns {got}"


def _is_encoded(kind: Any) -> bool:
    import pyarrow.types as types

    if types.is_struct(kind):
        return "bytes" in {kind.field(i).name for i in range(kind.num_fields)}
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _path_columns(schema: Any) -> set[str]:
    import pyarrow.types as types

    return {
        f.name for f in schema if types.is_string(f.type) and f.name in ("image", "img", "picture", "photo")
    }
