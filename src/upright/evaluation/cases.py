"""Pictures with targets, from whatever they come in, cut into parts that a model can be called with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..adapter.spec import Size
from ..groups.base import Group
from ..groups.planar import PlanarGroup
from .modes import placed


@dataclass(frozen=True, eq=False)
class Cases:
    """Pictures that share a call, with their targets.

    Attributes:
        pictures: Shape ``(B, C, H, W)``, or a list of ``(C, H_i, W_i)``.
        targets: One a picture; None if there are none.
    """

    pictures: Any
    targets: list[Any] | None

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def sizes(self) -> list[Size]:
        """Canvas of every picture."""
        return [(x.shape[-2], x.shape[-1]) for x in self.pictures]

    def first(self, count: int) -> Cases:
        """Return the first cases."""
        return Cases(self.pictures[:count], None if self.targets is None else self.targets[:count])

    def to_model(self, model: Any) -> Cases:
        """Return the cases with the pictures where the model is."""
        if isinstance(self.pictures, Tensor):
            return Cases(placed(self.pictures, model), self.targets)
        return Cases([placed(x, model) for x in self.pictures], self.targets)


def labelled_cases(source: Iterable[Any], groups: Sequence[Group]) -> Iterator[Cases]:
    """Yield pictures with class numbers, shape by shape, from the batches of `upright.data.loader`."""
    for pictures, given in source:
        labels = None if given is None else _labels(given, len(pictures)).tolist()
        yield from by_shape(Cases(pictures, labels), groups)


def open_cases(
    data: Any, batch_size: int, *, lists: bool, groups: Sequence[Group], num_workers: int = 0
) -> Iterator[Cases]:
    """Yield cases of any task.

    Args:
        data: A data set, `DataLoader` or other iterable of ``(picture, target)``, of batches ``(pictures,
            targets)``, of dicts, or of pictures alone; or one pair ``(pictures, targets)``.
        batch_size: Pictures a call, unless the data comes in batches.
        lists: Whether pictures that are no batch already are handed over as a list; else they are put
            together shape by shape.
        groups: The groups that move the pictures, which may need square ones.
        num_workers: Processes that load a data set.

    Raises:
        TypeError: If there are no pictures in the data.
        ValueError: If there are not as many targets as pictures.
    """
    for cases in _batches(data, batch_size, num_workers):
        if lists and not isinstance(cases.pictures, Tensor):
            for picture in cases.pictures:
                _check_shape(tuple(picture.shape), groups)
            yield cases
        else:
            yield from by_shape(cases, groups)


def up_to(cases: Iterable[Cases], limit: int | None) -> Iterator[Cases]:
    """Yield cases until there are ``limit`` pictures."""
    room = limit
    for part in cases:
        if room is None:
            yield part
            continue
        yield part.first(room)
        room -= len(part)
        if room <= 0:
            return


def by_shape(cases: Cases, groups: Sequence[Group]) -> Iterator[Cases]:
    """Yield the cases of each shape of pictures, as tensors."""
    shapes: dict[tuple[int, ...], list[int]] = {}
    for i, picture in enumerate(cases.pictures):
        shapes.setdefault(tuple(picture.shape), []).append(i)
    for shape, index in shapes.items():
        _check_shape(shape, groups)
        whole = isinstance(cases.pictures, Tensor)
        pictures = (
            cases.pictures[torch.tensor(index)] if whole else torch.stack([cases.pictures[i] for i in index])
        )
        yield Cases(pictures, None if cases.targets is None else [cases.targets[i] for i in index])


def _batches(data: Any, batch_size: int, num_workers: int) -> Iterator[Cases]:
    if isinstance(data, tuple) and len(data) == 2 and _are_pictures(data[0]):
        whole = Cases(data[0], _apart(data[1], len(data[0])))
        for start in range(0, len(whole), batch_size):
            end = start + batch_size
            yield Cases(whole.pictures[start:end], whole.targets and whole.targets[start:end])
        return
    waiting = Cases([], [])
    for item in _items(data, num_workers):
        pictures, target = _split(item)
        if isinstance(pictures, Tensor) and pictures.ndim == 3:
            waiting = Cases([*waiting.pictures, pictures], [*(waiting.targets or ()), target])
            if len(waiting) == batch_size:
                yield _settled(waiting)
                waiting = Cases([], [])
        elif _are_pictures(pictures):
            own = pictures if isinstance(pictures, Tensor) else list(pictures)
            yield Cases(own, _apart(target, len(own)))
        else:
            raise TypeError(
                "data must hold pictures as tensors (C, H, W) or batches of them, got "
                f"{type(pictures).__name__}; make them with a transform, such as upright.data.to_tensor"
            )
    if len(waiting):
        yield _settled(waiting)


def _settled(cases: Cases) -> Cases:
    """Return cases without targets if none has any."""
    missing = [target is None for target in cases.targets or ()]
    if any(missing) and not all(missing):
        raise ValueError("data must have targets for all pictures or for none, got some without")
    return Cases(cases.pictures, None) if all(missing) else cases


def _items(data: Any, num_workers: int) -> Iterable[Any]:
    if isinstance(data, DataLoader) or not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        if isinstance(data, (str, Path)) or not isinstance(data, Iterable):
            raise TypeError(
                "data must be pairs (picture, target): a data set, a DataLoader or another iterable, got "
                f"{data!r}"
            )
        return data
    if num_workers:
        return DataLoader(data, batch_size=None, num_workers=num_workers, collate_fn=_as_it_is)
    if isinstance(data, (str, Path, Mapping)):
        raise TypeError(f"data must be pairs (picture, target), got {type(data).__name__}")
    return (data[i] for i in range(len(data)))


def _split(item: Any) -> tuple[Any, Any]:
    """Return pictures and targets of a pair, a dict, or pictures alone."""
    from ..data.batches import LABELS, PICTURES
    from ..data.decode import to_tensor

    target = None
    if isinstance(item, Mapping):
        item, target = (next((item[key] for key in keys if key in item), None) for keys in (PICTURES, LABELS))
    elif isinstance(item, (tuple, list)) and not (isinstance(item, list) and _are_pictures(item)):
        item, target = item[0], (item[1] if len(item) > 1 else None)
    return (to_tensor(item) if hasattr(item, "convert") else item), target


def _are_pictures(x: Any) -> bool:
    if isinstance(x, Tensor):
        return x.ndim == 4
    return isinstance(x, (list, tuple)) and bool(x) and all(isinstance(p, Tensor) and p.ndim == 3 for p in x)


def _apart(targets: Any, count: int) -> list[Any] | None:
    """Return one target a picture, of a batch of them."""
    if targets is None:
        return None
    if isinstance(targets, Mapping):
        columns = {name: _apart(column, count) for name, column in targets.items()}
        return [{name: column[i] for name, column in columns.items() if column} for i in range(count)]
    if not isinstance(targets, (Tensor, Sequence)) or isinstance(targets, str) or len(targets) != count:
        got = len(targets) if hasattr(targets, "__len__") else type(targets).__name__
        raise ValueError(f"targets must be one a picture, {count}, got {got}")
    return list(targets)


def _labels(given: Any, count: int) -> Tensor:
    labels = torch.as_tensor(given).cpu()
    if labels.shape != (count,) or labels.is_floating_point():
        raise ValueError(
            f"labels must be class numbers of shape ({count},), got {tuple(labels.shape)} {labels.dtype}"
        )
    if bool((labels < 0).any()):
        raise ValueError(
            f"labels must be class numbers from 0, got {int(labels.min())}; leave unlabelled pictures out"
        )
    return labels.long()


def _check_shape(shape: tuple[int, ...], groups: Sequence[Group]) -> None:
    if len(shape) != 3:
        raise ValueError(f"pictures must have shape (C, H, W), got {shape}")
    if shape[1] == shape[2]:
        return
    for group in groups:
        if isinstance(group, PlanarGroup) and not group.is_exact_on_grid:
            raise ValueError(
                f"{group} turns by more than quarter turns and needs square pictures, got "
                f"{shape[1]}×{shape[2]}; crop or resize them in the transform, or evaluate quarter turns"
            )


def _as_it_is(item: Any) -> Any:
    return item
