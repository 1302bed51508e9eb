"""Arrays in the place of tensors, for models that do not know of tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree


def holds_arrays(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether an argument is an array, or a list that begins with one."""
    return any(_is_array(entry) for entry in (*args, *kwargs.values()))


def as_tensors(tree: Any) -> Any:
    """Return nested arguments with tensors in the place of arrays."""
    return pytree.tree_map(lambda x: torch.tensor(x) if isinstance(x, np.ndarray) else x, tree)


def as_arrays(tree: Any) -> Any:
    """Return nested results with arrays in the place of tensors."""
    return pytree.tree_map(lambda x: x.detach().cpu().numpy() if isinstance(x, Tensor) else x, tree)


def _is_array(entry: Any) -> bool:
    if isinstance(entry, (list, tuple)) and entry:
        entry = entry[0]
    return isinstance(entry, np.ndarray)
