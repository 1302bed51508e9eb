"""The data module: orders that depend on seed and epoch only, whatever the number of processes."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader, Subset
from torch.utils.data.distributed import DistributedSampler

from ..data import loader, open_data
from ..data.batches import Fetching


class PictureModule(L.LightningDataModule):  # type: ignore[misc]
    """Training and validation batches for any number of processes.

    The order of an epoch is a function of ``seed`` and the epoch. ``n`` processes with batches of ``b`` see,
    at each step, the pictures that one process sees with batches of ``n·b``.

    Args:
        train: A data set, or a `DataLoader`, which is used as it is.
        validation: The same, or None.
        batch_size: Pictures a batch and process.
        num_workers: Processes that decode.
        seed: Decides the orders.
    """

    def __init__(self, train: Any, validation: Any, *, batch_size: int, num_workers: int, seed: int) -> None:
        super().__init__()
        self.train, self.validation = train, validation
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed

    def train_dataloader(self) -> Any:
        """Return shuffled batches; an incomplete last one is left out."""
        return self._loader(self.train, shuffle=True)

    def val_dataloader(self) -> Any:
        """Return batches in order."""
        return [] if self.validation is None else self._loader(self.validation, shuffle=False)

    def _loader(self, data: Any, *, shuffle: bool) -> Any:
        if isinstance(data, DataLoader):
            return data
        replicas, rank = self.trainer.world_size, self.trainer.global_rank
        sampler: Any = None
        if shuffle or replicas > 1:
            sampler = DistributedSampler(
                data, num_replicas=replicas, rank=rank, shuffle=shuffle, seed=self.seed
            )
        return DataLoader(
            Fetching(data),
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            drop_last=shuffle and len(data) // replicas >= self.batch_size,
            collate_fn=keep,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )


def keep(batch: Any) -> Any:
    """Return the batch that the data set has put together."""
    return batch


def open_both(train: Any, validation: Any, held_back: float, seed: int) -> tuple[Any, Any, Any]:
    """Open the training and validation data.

    Returns:
        Training data, validation data or None, and pictures that were not trained on for calibration or None:
        the validation data, or a share ``held_back`` of the training data (at least 32 pictures, at most a
        tenth; none of fewer than 320).
    """
    train = open_data(train)
    if validation is not None:
        validation = open_data(validation)
        return train, validation, validation
    if isinstance(train, DataLoader) or held_back <= 0:
        return train, None, None
    count = max(32, round(held_back * len(train)))
    if count > len(train) // 10:
        return train, None, None
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed)).tolist()
    return Subset(train, sorted(order[count:])), None, Subset(train, sorted(order[:count]))


def batches_of(data: Any, batch_size: int) -> Any:
    """Return batches of pictures, without their labels."""
    return (pictures for pictures, _ in loader(data, batch_size))
