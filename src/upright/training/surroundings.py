"""What training needs around it, and leaves as it was: modes, memory formats, seeds, silence."""

from __future__ import annotations

import logging
import os
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


@contextmanager
def training_mode(module: nn.Module, channels_last: bool) -> Iterator[None]:
    """Train in place, what is frozen in evaluation mode; leave modes, device and format as they were."""
    modes = {part: part.training for part in module.modules()}
    first = next(module.parameters())
    device, gradients = first.device, {p: p.requires_grad for p in module.parameters()}
    module.train()
    for part in module.children():
        if not any(p.requires_grad for p in part.parameters()):
            part.eval()  # normalisation of a frozen canonicalizer must not drift
    if channels_last:
        _lay_out(module, torch.channels_last)
    try:
        yield
    finally:
        module.to(device)
        if channels_last:
            _lay_out(module, torch.contiguous_format)
        for part, mode in modes.items():
            part.training = mode
        for parameter, needed in gradients.items():
            parameter.requires_grad_(needed)
            parameter.grad = None


def _lay_out(module: nn.Module, memory_format: torch.memory_format) -> None:
    """Change the memory format of the filters of two-dimensional convolutions."""
    for parameter in module.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=memory_format)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed everything while training, and give the caller's random states back."""
    import lightning as L

    kept = {name: os.environ.get(name) for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS")}
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            L.seed_everything(seed, workers=True, verbose=False)
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        for name, value in kept.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what Lightning says about choices that were made on purpose."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        for message in (".*does not have many workers.*", ".*exists and is not empty.*",
                        ".*The number of training batches.*", ".*lr_scheduler.step.*",
                        ".*isinstance.treespec.*", ".*`weights_only`.*", ".*val_dataloader.*",
                        ".*across ranks is zero.*", ".*in eval mode at the start.*"):  # fmt: skip
            warnings.filterwarnings("ignore", message=message)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
