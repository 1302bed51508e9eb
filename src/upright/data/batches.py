"""The one place that makes batches."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .decode import UnreadablePictureError, to_tensor
from .sets import NO_LABEL

Batch = tuple[Any, Tensor | None]
"""Pictures, a tensor ``(B, C, H, W)`` or a list of ``(C, H_i, W_i)``; labels ``(B,)`` int64, or None."""

PICTURES = ("pixel_values", "image", "images", "picture", "pictures", "x", "input", "inputs")
"""What pictures are called in dicts."""
LABELS = ("label", "labels", "target", "targets", "y", "fine_label")
"""What labels and other targets are called in dicts."""


def loader(
    data: Any,
    batch_size: int = 64,
    shuffle: bool = False,
    *,
    num_workers: int = 0,
    generator: torch.Generator | None = None,
    drop_last: bool = False,
    pin_memory: bool = False,
    limit: int | None = None,
) -> Any:
    """Return an iterable of batches ``(pictures, labels or None)``.

    Args:
        data: Anything that `open_data` takes, or a `DataLoader`, whose own batches are kept.
        batch_size: Pictures a batch.
        shuffle: Whether to draw a new order each epoch.
        num_workers: Processes that decode.
        generator: Source of the order.
        drop_last: Whether to leave out an incomplete last batch.
        pin_memory: Whether to copy batches to pinned memory.
        limit: At most so many pictures, spread evenly over the data.

    Returns:
        A `DataLoader`; a thin view of it where a `DataLoader` was given. Pictures of one shape come as a
        tensor ``(B, C, H, W)``, others as a list. Pictures that turn out damaged are left out, with a
        warning.
    """
    from .sources import open_data

    if isinstance(data, DataLoader):
        return Batches(data)
    return DataLoader(
        Fetching(open_data(data, limit=limit)),
        batch_size=batch_size,
        shuffle=shuffle,
        num_workers=num_workers,
        generator=generator,
        drop_last=drop_last,
        pin_memory=pin_memory,
        collate_fn=_as_it_is,
        persistent_workers=num_workers > 0,
    )


def split_batch(batch: Any) -> Batch:
    """Read pictures and labels out of whatever a data loader yields: a tensor, a pair, or a dict.

    Raises:
        TypeError: If there are no pictures in it.
    """
    if isinstance(batch, Mapping):
        pictures = next((batch[key] for key in PICTURES if key in batch), None)
        labels = next((batch[key] for key in LABELS if key in batch), None)
    elif isinstance(batch, (tuple, list)) and not _is_list_of_pictures(batch):
        pictures, labels = batch[0], (batch[1] if len(batch) > 1 else None)
    else:
        pictures, labels = batch, None
    if not isinstance(pictures, (Tensor, list, tuple)):
        raise TypeError(
            "a batch must be pictures, a pair (pictures, labels) or a dict with 'pixel_values' and 'labels', "
            f"got {_describe(batch)}"
        )
    if labels is not None:
        labels = torch.as_tensor(labels)
        if labels.ndim == 1 and not labels.is_floating_point():
            labels = None if labels.numel() and bool((labels == NO_LABEL).all()) else labels.long()
    return pictures, labels


class Batches:
    """A `DataLoader` of someone else's whose batches are read by `split_batch`.

    Args:
        source: The loader.
    """

    def __init__(self, source: Any) -> None:
        self.source = source
        self.dataset = source.dataset
        self.batch_size = source.batch_size

    def __iter__(self) -> Iterator[Batch]:
        return map(split_batch, self.source)

    def __len__(self) -> int:
        return len(self.source)


class Fetching(Dataset[Any]):
    """Fetches whole batches: looks up, leaves damaged pictures out, puts together.

    Args:
        dataset: A data set of pictures, pairs or dicts.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index]

    def __getitems__(self, indices: list[int]) -> Batch:
        if hasattr(self.dataset, "__getitems__") and self.dataset.__getitems__:
            items = self.dataset.__getitems__(indices)
        else:
            items = [item for item in map(self._item, indices) if item is not None]
        if not items:
            raise UnreadablePictureError(
                "none of the pictures of a batch could be read; see .skipped for the reasons"
            )
        return collate(items)

    def _item(self, index: int) -> Any:
        try:
            return self.dataset[index]
        except UnreadablePictureError as error:
            path, _, reason = str(error).rpartition(": ")
            skipped = getattr(self.dataset, "skipped", None)
            if skipped is None or (path, reason) not in skipped:
                warnings.warn(f"skipped an unreadable picture: {error}", stacklevel=2)
            if skipped is not None and (path, reason) not in skipped:
                skipped.append((path, reason))
            return None


def collate(items: list[Any]) -> Batch:
    """Put items together: pictures of one shape as a tensor, others as a list; labels as int64, or None."""
    if all(type(item) is tuple and isinstance(item[0], Tensor) and type(item[-1]) is int for item in items):
        pictures, numbers = [item[0] for item in items], [item[-1] for item in items]  # the usual case, fast
        whole = torch.stack(pictures) if len({p.shape for p in pictures}) == 1 else pictures
        return whole, None if max(numbers) == NO_LABEL else torch.tensor(numbers)
    pairs = [
        split_batch(item) if isinstance(item, (Mapping, tuple, list)) else (item, None)
        for item in _plain(items)
    ]
    pictures = [to_tensor(picture) for picture, _ in pairs]
    labels = [label for _, label in pairs]
    whole = torch.stack(pictures) if len({p.shape for p in pictures}) == 1 else pictures
    if any(label is None for label in labels):
        return whole, None
    return split_batch((whole, torch.stack([torch.as_tensor(label) for label in labels])))


def _plain(items: list[Any]) -> Iterator[Any]:
    """Make tensors of PIL pictures first, so that all items look alike."""
    for item in items:
        if isinstance(item, Mapping):
            yield {k: to_tensor(v) if hasattr(v, "convert") else v for k, v in item.items()}
        elif isinstance(item, (tuple, list)):
            yield (to_tensor(item[0]) if hasattr(item[0], "convert") else item[0], *item[1:])
        else:
            yield item


def _as_it_is(batch: Any) -> Any:
    return batch


def _is_list_of_pictures(batch: Any) -> bool:
    return isinstance(batch, list) and all(isinstance(x, Tensor) and x.ndim == 3 for x in batch)


def _describe(batch: Any) -> str:
    if isinstance(batch, Mapping):
        return f"a dict with {sorted(map(str, batch))}"
    if isinstance(batch, (tuple, list)):
        return f"a {type(batch).__name__} of {[type(x).__name__ for x in batch]}"
    return type(batch).__name__
