"""How a model is called during an evaluation: in evaluation mode, on its own device."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put all modules into evaluation mode, and back into the mode that each had."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def placed(x: Tensor, model: Any) -> Tensor:
    """Put pictures on a model's device, in its number format; integers stay integers."""
    weights = model.parameters() if isinstance(model, nn.Module) else ()
    weight = next((p for p in weights if p.is_floating_point()), None)
    if weight is None:
        return x
    return x.to(weight.device, weight.dtype if x.is_floating_point() else None)
