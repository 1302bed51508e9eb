"""Data sets of (picture, label)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from .decode import UnreadablePictureError, check_picture, read_picture, to_tensor

NO_LABEL = -1
"""The label of pictures without one."""

Transform = Callable[[Any], Tensor]


class PictureSet(Dataset[tuple[Any, int]]):
    """Encoded pictures, decoded when they are asked for.

    Unreadable pictures are left out at construction (files that are cut off or no images at all). One that
    turns out damaged only when decoded raises `UnreadablePictureError`; `upright.data.loader` skips it.

    Args:
        sources: A path or the bytes of every picture.
        labels: A class number each, or `NO_LABEL`.
        paths: A name each, for messages; default: the sources, where they are paths.
        class_names: Names of the classes.
        transform: What makes a tensor ``(C, H, W)`` of an RGB picture; default: float32 in 0…1.
        skipped: What was left out before.

    Attributes:
        paths: Name of every picture.
        labels: Class number of every picture, `NO_LABEL` where there is none.
        class_names: Names of the classes; empty if they are not known.
        skipped: (path, reason) of every picture that was left out.
    """

    def __init__(
        self,
        sources: Sequence[Any],
        labels: Sequence[int],
        *,
        paths: Sequence[str] | None = None,
        class_names: Sequence[str] = (),
        transform: Transform | None = None,
        skipped: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.skipped: list[tuple[str, str]] = list(skipped)
        names = [str(s) for s in sources] if paths is None else list(paths)
        readable = []
        for i, name in enumerate(names):
            reason = check_picture(_encoded(sources[i]))
            if reason is None:
                readable.append(i)
            else:
                self.skipped.append((name, reason))
        self.sources = [sources[i] for i in readable] if len(readable) < len(names) else sources
        self.labels: list[int] = [int(labels[i]) for i in readable]
        self.paths: list[str] = [names[i] for i in readable]
        self.class_names: list[str] = list(class_names)
        self.transform = transform

    @property
    def has_labels(self) -> bool:
        """Whether every picture has a label."""
        return bool(self.labels) and min(self.labels) >= 0

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return (self.transform or to_tensor)(self.picture(index)), self.labels[index]

    def picture(self, index: int) -> Image.Image:
        """Return a picture as it is, before the transform."""
        try:
            return read_picture(_encoded(self.sources[index]))
        except UnreadablePictureError as error:
            raise UnreadablePictureError(f"{self.paths[index]}: {error}") from error


class TensorSet(Dataset[tuple[Any, int]]):
    """Pictures, clouds or volumes that are tensors already; they are handed out as they are.

    Args:
        pictures: Shape ``(N, C, H, W)``, any dtype, or a sequence of ``(C, H_i, W_i)``; clouds of shape
            ``(N, M, 3)``, or a sequence of ``(M_i, 3)``; volumes ``(N, C, D, H, W)``, or likewise.
        labels: Shape ``(N,)``; None if there are none.
        transform: Applied to every picture.
    """

    def __init__(self, pictures: Any, labels: Any = None, *, transform: Transform | None = None) -> None:
        self.pictures: Any = pictures
        self.targets = None if labels is None else torch.as_tensor(labels).long()
        self.transform = transform
        self.class_names: list[str] = []
        self.skipped: list[tuple[str, str]] = []
        shapes = (
            [tuple(pictures.shape[1:])]
            if isinstance(pictures, Tensor)
            else [tuple(p.shape) for p in pictures]
        )
        for i, shape in enumerate(shapes):
            if not is_thing(shape):
                whole = isinstance(pictures, Tensor)
                got = tuple(pictures.shape) if whole else shape
                first, each = ("N, ", "pictures") if whole else ("", f"picture {i}")
                raise ValueError(
                    f"{each} must have shape ({first}C, H, W), got {got}; clouds have ({first}M, 3), "
                    f"volumes ({first}C, D, H, W)"
                )
        if self.targets is not None and self.targets.shape != (len(pictures),):
            raise ValueError(f"labels must have shape ({len(pictures)},), got {tuple(self.targets.shape)}")

    @property
    def labels(self) -> list[int]:
        """Class number of every picture, `NO_LABEL` where there is none."""
        return [NO_LABEL] * len(self) if self.targets is None else self.targets.tolist()

    @property
    def paths(self) -> list[str]:
        """The numbers of the pictures, as names."""
        return [f"#{i}" for i in range(len(self))]

    @property
    def has_labels(self) -> bool:
        """Whether every picture has a label."""
        return self.targets is not None and len(self) > 0 and int(self.targets.min()) >= 0

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        picture = self.pictures[index]
        label = NO_LABEL if self.targets is None else int(self.targets[index])
        return (picture if self.transform is None else self.transform(picture)), label

    def __getitems__(self, indices: list[int]) -> Any:
        if self.transform is not None or not isinstance(self.pictures, Tensor):
            return [self[i] for i in indices]
        at = torch.tensor(indices, dtype=torch.long)
        labels = torch.full((len(indices),), NO_LABEL) if self.targets is None else self.targets[at]
        return list(zip(self.pictures[at].unbind(), labels.tolist(), strict=True))


def is_thing(shape: Sequence[int]) -> bool:
    """Say whether a shape is that of a picture ``(C, H, W)``, a cloud ``(N, 3)`` or a volume."""
    return len(shape) in (3, 4) or (len(shape) == 2 and shape[1] == 3)


def _encoded(source: Any) -> Path | bytes:
    return bytes(source) if isinstance(source, (bytes, bytearray, memoryview)) else Path(source)
