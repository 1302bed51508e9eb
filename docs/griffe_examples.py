"""An extension of Griffe: ``Example:`` of docstrings is shown as code, as ``Examples:`` would be."""

from __future__ import annotations

import re
from typing import Any

import griffe

_HEAD = re.compile(r"^Example:$", re.MULTILINE)


class Examples(griffe.Extension):
    """Renames the sections when objects have been read."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rename the section of one object."""
        if obj.docstring is not None:
            obj.docstring.value = _HEAD.sub("Examples:", obj.docstring.value)
