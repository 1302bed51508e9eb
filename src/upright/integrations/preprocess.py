"""From a PIL picture to what a classifier takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class SquarePreprocess:
    """Cuts the centre square, resizes it (bicubic, antialiased), scales to 0…1 and normalises.

    Quarter turns and flips of the picture turn and flip the result: the square is cut symmetrically.

    Attributes:
        size: Side of the result in pixels.
        mean: Subtracted from values in 0…1, one number a channel.
        std: Divides what is left.
        crop: Share of the shorter side that the square takes.
    """

    size: int = 224
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    crop: float = 1.0

    def __call__(self, picture: Any) -> Tensor:
        """Return a float32 tensor ``(3, size, size)`` of an RGB picture."""
        from PIL import Image

        width, height = picture.size
        half = self.crop * min(width, height) / 2
        box = (width / 2 - half, height / 2 - half, width / 2 + half, height / 2 + half)
        resized = picture.resize((self.size, self.size), Image.Resampling.BICUBIC, box=box)
        values = torch.from_numpy(np.array(resized.convert("RGB"))).permute(2, 0, 1).float() / 255
        return (values - values.new_tensor(self.mean).view(-1, 1, 1)) / values.new_tensor(self.std).view(
            -1, 1, 1
        )

    def invert(self, x: Tensor) -> Tensor:
        """Undo the normalisation: values in 0…1, the shape of ``x``."""
        return (x * x.new_tensor(self.std).view(-1, 1, 1) + x.new_tensor(self.mean).view(-1, 1, 1)).clamp(
            0, 1
        )


def centre_square(picture: Any) -> Any:
    """Return the centre square of a PIL picture."""
    width, height = picture.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return picture.crop((left, top, left + side, top + side))
