"""Class scores and predictions, from whatever a classifier returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..adapter import Adapted
from ..adapter.spec import kind_class
from ..kinds import Image, Kind, Logits
from .metrics import INVALID


def call(robust: Adapted, model: Any, x: Tensor) -> Any:
    """Call a model on pictures, by the keyword under which the adapter moves them if it has one."""
    for key, spec in (robust.reads or {}).items():
        kind = kind_class(spec)
        if isinstance(key, str) and isinstance(kind, type) and issubclass(kind, Image):
            return model(**{key: x})
    return model(x)


def class_scores(robust: Adapted, output: Any, batch: int) -> Tensor:
    """Find the class scores in a model's output, shape ``(B, K)``, float32 or float64.

    Raises:
        TypeError: If there is no tensor in the output.
        ValueError: If the tensor is not ``(B, K)``.
    """
    return as_scores(find(robust, output, Logits), batch)


def as_scores(found: Any, batch: int) -> Tensor:
    """Return class scores as numbers that can be compared, shape ``(B, K)``; see `class_scores`."""
    if not isinstance(found, Tensor):
        raise TypeError(
            "the model must return class scores (a tensor, or a mapping, tuple or dataclass with 'logits'), "
            f"got {type(found).__name__}"
        )
    if found.ndim != 2 or found.shape[0] != batch:
        raise ValueError(
            f"the model must return class scores of shape ({batch}, K), got {tuple(found.shape)}"
        )
    return found.detach().to(torch.promote_types(found.dtype, torch.float32))


def find(robust: Adapted, output: Any, kind: type[Kind]) -> Any:
    """Return the entry of a model's output that the adapter moves as a kind; else its first entry."""
    if isinstance(robust.returns, Mapping):
        for key, spec in robust.returns.items():
            made = kind_class(spec)
            if not (isinstance(made, type) and issubclass(made, kind)):
                continue
            if isinstance(output, Mapping) and key in output:
                return output[key]
            if isinstance(output, tuple) and isinstance(key, int) and key < len(output):
                return output[key]
            if isinstance(key, str) and hasattr(output, key):
                return getattr(output, key)
    if isinstance(output, Mapping):
        return output["logits"] if "logits" in output else next(iter(output.values()), None)
    if hasattr(output, "logits"):
        return output.logits
    return output[0] if isinstance(output, tuple) and output else output


def predict(scores: Tensor, classes: Tensor | None = None) -> Tensor:
    """Return the predicted classes, shape ``(B,)``, on the CPU; `INVALID` where a score is not a number.

    Args:
        scores: Class scores, shape ``(B, K)``.
        classes: The only classes that may be predicted, shape ``(M,)``; None: all.

    Raises:
        ValueError: If a class is none of the model's.
    """
    if classes is not None and int(classes.max()) >= scores.shape[1]:
        raise ValueError(
            f"classes must lie below {scores.shape[1]}, the model's number of scores, "
            f"got {int(classes.max())}"
        )
    considered = scores if classes is None else scores[:, classes.to(scores.device)]
    best = considered.argmax(1).cpu()
    predicted = best if classes is None else classes.cpu()[best]
    return torch.where(considered.isnan().any(1).cpu(), INVALID, predicted)


def check_classes(classes: Any) -> Tensor | None:
    """Return a class subset as a tensor of indices.

    Raises:
        ValueError: If it is not a non-empty list of different class numbers.
    """
    if classes is None:
        return None
    subset = torch.as_tensor(classes)
    if subset.ndim != 1 or subset.is_floating_point() or subset.dtype == torch.bool or not len(subset):
        raise ValueError(
            f"classes must be class numbers, shape (M,), got {tuple(subset.shape)} of {subset.dtype}; "
            "pass the indices of the classes to score over"
        )
    subset = subset.long().cpu()
    if len(set(subset.tolist())) < len(subset) or int(subset.min()) < 0:
        raise ValueError("classes must be different class numbers from 0; some are negative or occur twice")
    return subset


def check_labels(labels: Tensor, classes: Tensor | None, outputs: int) -> None:
    """Raise ValueError unless every label is a class that can be predicted."""
    known = torch.arange(outputs) if classes is None else classes
    unknown = sorted(set(labels[~torch.isin(labels, known)].tolist()))
    if unknown:
        where = f"0…{outputs - 1}" if classes is None else f"the {len(known)} numbers in classes"
        raise ValueError(
            f"labels must be among {where}, got {unknown[:5]}; number them as the model's scores are, "
            "or leave labels out to measure agreement with the bare model"
        )
