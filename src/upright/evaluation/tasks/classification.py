"""Classification: a class number a picture; accuracy."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...kinds import Logits
from ..measures import Mean
from ..metrics import INVALID
from ..scores import as_scores, check_classes, check_labels, predict
from .base import Task


def classification(*, classes: Any = None) -> Task:
    """Return the task of naming a picture's class.

    The model returns class scores ``(B, K)``; targets are class numbers.

    Args:
        classes: The only classes that may be predicted, shape ``(M,)``; None: all.
    """
    subset = check_classes(classes)
    return Task(
        name="classification",
        metrics=[Mean("accuracy", _is_right)],
        entry=Logits,
        read=_read,
        decide=partial(predict, classes=subset),
        refer=int,
        valid=lambda prediction: int(prediction) != INVALID,
        check=partial(_check, subset),
        outputs=lambda scores: scores.shape[1] if subset is None else len(subset),
    )


def _read(output: Any, sizes: list[Any]) -> Tensor:
    return as_scores(output, len(sizes))


def _is_right(prediction: Any, label: Any) -> bool:
    return int(prediction) == int(label) != INVALID


def _check(subset: Tensor | None, labels: Any, scores: Tensor) -> None:
    check_labels(torch.as_tensor(labels), subset, scores.shape[1])
