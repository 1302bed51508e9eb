"""From what a model returned to what a page can show: classes, boxes, key points, masks."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..adapter import Adapted
from ..evaluation.framing import Frame, frame_of
from ..evaluation.scores import class_scores
from ..evaluation.tasks import TASKS, Task
from .pictures import data_url
from .schema import Guess, Mask, Reading, Region, Thing

DRAWN = ("classification", "segmentation", "detection", "instances", "keypoints")
"""Tasks whose answers can be shown."""
_MOST = 100
_OPACITY = 150
_COLOURS = ((230, 159, 0), (0, 158, 115), (204, 121, 167), (0, 114, 178), (213, 94, 0), (86, 180, 233))


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Reads the outputs of one model.

    Attributes:
        robust: The adapted model, which says what entries of the output are.
        task: What the model does; None: it names classes.
        names: Names of the classes in their order.
        threshold: From which score on a thing is shown.
    """

    robust: Adapted
    task: Task | None = None
    names: Sequence[str] = ()
    threshold: float = 0.5

    def __call__(self, output: Any, frame: Frame, top: int) -> dict[str, Any]:
        """Return the fields of a `Reading` that depend on the output for one picture.

        Args:
            output: What the model returned, in the frame of what it saw.
            frame: Which part of the picture that was, at what size.
            top: How many classes to name.
        """
        if self.task is None:
            return self._classes(class_scores(self.robust, output, 1)[0], top)
        decided = self.task.decide(self.task.readings(self.robust, output, [frame.size]))[0]
        if not self.task.is_valid(decided):
            return {"valid": False}
        if isinstance(decided, Mapping):
            return self._things(decided, frame)
        return {"valid": True, "mask": self._regions(decided, frame)}

    def _classes(self, scores: Tensor, top: int) -> dict[str, Any]:
        probabilities = scores.cpu().softmax(-1)
        if not bool(probabilities.isfinite().all()):
            return {"valid": False}
        best = probabilities.topk(min(top, len(probabilities)))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return {
            "valid": True,
            "top": [Guess(label=self._name(k), number=k, probability=round(p, 6)) for k, p in pairs],
        }

    def _things(self, found: Mapping[str, Tensor], frame: Frame) -> dict[str, Any]:
        kept = (found["scores"] >= self.threshold).nonzero().squeeze(1)
        kept = kept[found["scores"][kept].argsort(descending=True)][:_MOST]
        corner = torch.tensor([frame.left, frame.top], dtype=torch.float64)
        scale = torch.tensor(frame.scale, dtype=torch.float64)
        boxes = (found["boxes"][kept].double().view(-1, 2, 2) / scale + corner).flatten(1)
        things = []
        for place, i in enumerate(kept.tolist()):
            number = int(found["labels"][i])
            points: list[tuple[float, float]] = []
            if "keypoints" in found:
                seen = found["keypoints"][i][found["keypoints"][i][:, 2] > 0][:, :2].double() / scale + corner
                points = [(round(x, 2), round(y, 2)) for x, y in seen.tolist()]
            left, top, right, bottom = (round(v, 2) for v in boxes[place].tolist())
            things.append(
                Thing(
                    label=self._name(number), number=number, score=round(float(found["scores"][i]), 4),
                    colour=_hex(number), box=(left, top, right, bottom), points=points,
                )
            )  # fmt: skip
        made: dict[str, Any] = {"valid": True, "things": things}
        if "masks" in found:
            labels = torch.zeros(found["masks"].shape[-2:], dtype=torch.long)
            for i in reversed(kept.tolist()):  # the surest lie on top
                labels[found["masks"][i]] = int(found["labels"][i]) + 1
            made["mask"] = self._regions(labels, frame, first=-1)
        return made

    def _regions(self, labels: Tensor, frame: Frame, first: int = 0) -> Mask:
        """Draw class numbers ``(H, W)``, nothing where they are 0; ``first`` is the number of class 0."""
        values, counts = np.unique(labels.numpy(), return_counts=True)
        pixels = np.zeros((*labels.shape, 4), dtype=np.uint8)
        regions = []
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            if value == 0:
                continue
            number = value + first
            pixels[(labels == value).numpy()] = (*_colour(number), _OPACITY)
            share = count / labels.numel()
            regions.append(
                Region(label=self._name(number), number=number, colour=_hex(number), share=round(share, 4))
            )
        return Mask(
            picture=data_url(Image.fromarray(pixels), "PNG"),
            box=(frame.left, frame.top, frame.left + frame.width, frame.top + frame.height),
            regions=sorted(regions, key=lambda region: -region.share)[:_MOST],
        )

    def _name(self, number: int) -> str:
        return str(self.names[number]) if 0 <= number < len(self.names) else str(number)


def task_by_name(name: str) -> Task | None:
    """Return a task whose answers can be shown; None for classification, which needs nothing of it.

    Raises:
        ValueError: If it is none.
    """
    if name not in DRAWN:
        raise ValueError(f"task must be one of {', '.join(DRAWN)}, got {name!r}")
    return None if name == DRAWN[0] else TASKS[name]()


def frame_seen(preprocess: Any, picture: Image.Image, made: Tensor) -> Frame:
    """Return which part of a picture a preprocessing shows; one of one's own shows all of it."""
    height, width = picture.height, picture.width
    try:
        return frame_of(preprocess, (height, width), tuple(made.shape))
    except ValueError:
        if getattr(preprocess, "square", False):  # of transformers' processors: the centre square
            side = min(height, width)
            left, top = (width - side) // 2, (height - side) // 2
            return Frame(float(left), float(top), float(side), float(side), _size(made))
        return Frame(0.0, 0.0, float(width), float(height), _size(made))


def made_reading(passes: int, milliseconds: float, fields: dict[str, Any]) -> Reading:
    """Make a reading of its fields and of what it cost."""
    return Reading(passes=passes, milliseconds=round(milliseconds, 2), **fields)


def _size(made: Tensor) -> tuple[int, int]:
    return int(made.shape[-2]), int(made.shape[-1])


def _colour(number: int) -> tuple[int, int, int]:
    """Return Okabe and Ito's colours, then ones that differ from their neighbours' by the golden angle."""
    if 0 < number <= len(_COLOURS):
        return _COLOURS[number - 1]
    hue = (0.56 + 0.61803398875 * number) % 1
    red, green, blue = colorsys.hls_to_rgb(hue, 0.52, 0.78)
    return round(255 * red), round(255 * green), round(255 * blue)


def _hex(number: int) -> str:
    return "#{:02x}{:02x}{:02x}".format(*_colour(number))
