"""A row of the zoo: how a small model is made, how it is called, and how what it returns moves."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch


@dataclass(frozen=True)
class Row:
    """One model class.

    ``make()`` returns the model, with random weights. ``call(batch, size, generator)`` returns its keyword
    arguments. ``inputs`` and ``outputs`` say what moves, written here by hand and not read from the signature
    that is tested; entries that are not named do not move. ``sizes`` are canvases ``(height, width)``.
    ``hidden`` asks for the hidden states too.
    """

    name: str
    make: Callable[[], torch.nn.Module]
    outputs: Mapping[str, Any]
    inputs: Mapping[str, Any] = field(default_factory=lambda: {"pixel_values": "image"})
    sizes: tuple[tuple[int, int], ...] = ((32, 32), (32, 48))
    call: Callable[..., dict[str, Any]] | None = None
    tolerance: float = 0.0
    hidden: bool = False

    def kwargs(self, batch, size, generator):
        """Return the arguments of one call."""
        asked = {"output_hidden_states": True} if self.hidden else {}
        if self.call is not None:
            return {**self.call(batch, size, generator), **asked}
        return {"pixel_values": torch.rand(batch, 3, *size, generator=generator), **asked}


@cache
def transformers():
    """Import transformers once, or skip."""
    import pytest

    return pytest.importorskip("transformers")


def make(model: str, config: str, **settings: Any) -> Callable[[], torch.nn.Module]:
    """Return what makes ``model(config(**settings))`` by the names of the classes."""

    def build():
        hf = transformers()
        return getattr(hf, model)(getattr(hf, config)(**settings)).eval()

    return build
