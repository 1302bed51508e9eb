"""What tells one network from another."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

import torch
from torch import Tensor, nn


def fingerprint(model: Any) -> str:
    """Return a hash of a module: its class, how it was built, its weights and buffers.

    What is no module is told by its class and name alone.
    """
    digest = hashlib.sha256()
    kind = model if isinstance(model, type) or hasattr(model, "__qualname__") else type(model)
    digest.update(f"{kind.__module__}.{kind.__qualname__}".encode())
    config = getattr(model, "config", None)
    to_dict = getattr(config, "to_dict", None)
    if to_dict is not None:
        digest.update(json.dumps(to_dict(), sort_keys=True, default=str).encode())
    if isinstance(model, nn.Module):
        for name, value in sorted(model.state_dict().items()):
            if isinstance(value, Tensor):
                digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
                digest.update(
                    value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
                )
    return digest.hexdigest()


def described(value: Any) -> Any:
    """Return settings as plain data: those of dataclasses, else the class alone."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {"class": type(value).__qualname__, **dataclasses.asdict(value)}
    return None if value is None else getattr(value, "__qualname__", type(value).__qualname__)
