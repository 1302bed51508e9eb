"""Detection, instance segmentation and key points: several things a picture; average precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...adapter.spec import Size
from ...kinds import Boxes, Mask, Points
from ..coco import COCO_SIGMAS, AveragePrecision, similarity
from ..measures import Ratio
from .base import Read, Task

_SHAPES = {"boxes": "(N, 4)", "masks": "(N, H, W)", "keypoints": "(N, K, 3)", "labels": "(N,)"}
_SURE = 0.5
"""From which score on a detection counts as a target, for data without targets."""


def detection(*, lists: bool = True, read: Read | None = None) -> Task:
    """Return the task of finding boxes.

    The model returns one dict a picture, as the detectors of torchvision do: ``boxes`` ``(N, 4)`` xyxy in
    pixels, ``scores`` ``(N,)``, ``labels`` ``(N,)``. Targets are dicts with ``boxes`` and ``labels``
    (``iscrowd`` if need be). Boxes grow under turns that are no quarter turns, predictions and targets alike.

    Args:
        lists: Whether the model is called with a list of pictures, unless the data brings batches.
        read: Makes a list of such dicts of the whole output, ``read(output, sizes)``; see `Task`.
    """
    metrics = [AveragePrecision("mAP", "bbox"), AveragePrecision("AP50", "bbox", 0.5)]
    return _several("detection", metrics, ("boxes", "labels"), Boxes, lists, read)


def instances(*, lists: bool = True, read: Read | None = None) -> Task:
    """Return the task of finding the mask of every thing.

    As `detection`, with ``masks``: predictions ``(N, H, W)`` or ``(N, 1, H, W)``, bool, or probabilities of
    which those above one half count; targets ``(N, H, W)``, bool or 0 and 1.

    Args:
        lists: Whether the model is called with a list of pictures, unless the data brings batches.
        read: Makes a list of such dicts of the whole output, ``read(output, sizes)``; see `Task`.
    """
    metrics = [AveragePrecision("mask mAP", "segm"), AveragePrecision("mask AP50", "segm", 0.5)]
    return _several("instances", metrics, ("masks", "labels"), Mask, lists, read)


def keypoints(*, sigmas: Sequence[float] = COCO_SIGMAS, lists: bool = True, read: Read | None = None) -> Task:
    """Return the task of finding key points.

    The model returns one dict a picture, with ``keypoints`` ``(N, K, 2 or 3)`` (x, y in pixels, visibility)
    and ``scores`` ``(N,)``; or, with one thing a picture, a tensor ``(B, K, 2 or 3)``. Targets are dicts with
    ``keypoints`` ``(N, K, 3)`` (those of visibility 0 do not count), and ``area`` or ``boxes``, or a tensor
    ``(K, 2 or 3)``. Mirroring swaps no names: the left eye is the left eye of the mirrored picture.

    Args:
        sigmas: Spread of every key point as a share of the scale, ``K`` numbers; default: those of COCO.
        lists: Whether the model is called with a list of pictures, unless the data brings batches.
        read: Makes a list of such dicts of the whole output, ``read(output, sizes)``; see `Task`.
    """
    spread = tuple(float(s) for s in sigmas)
    metrics = [
        AveragePrecision("OKS AP", "keypoints", sigmas=spread),
        AveragePrecision("OKS AP50", "keypoints", 0.5, sigmas=spread),
        Ratio("mean OKS", partial(_best_similarity, sigmas=spread)),
    ]
    return _several("keypoints", metrics, ("keypoints",), Points, lists, read, points=len(spread))


def _several(
    name: str,
    metrics: Sequence[Any],
    needed: tuple[str, ...],
    moves: Any,
    lists: bool,
    read: Read | None,
    points: int | None = None,
) -> Task:
    return Task(
        name=name,
        metrics=metrics,
        target={"boxes": "boxes", "masks": "mask", "keypoints": "points"},
        read=read or partial(_read, name=name),
        decide=lambda readings: [_found(reading, name, needed, points) for reading in readings],
        prepare=partial(_target, name=name, needed=needed, points=points),
        refer=_as_target,
        lists=lists,
        moves=moves,
    )


def _read(output: Any, sizes: list[Size], *, name: str) -> Sequence[Any]:
    if name == "keypoints" and isinstance(output, Tensor) and output.ndim == 3:
        return [{"keypoints": points[None]} for points in output]
    if not isinstance(output, Sequence) or not all(isinstance(entry, Mapping) for entry in output):
        got = f"a dict with {sorted(output)}" if isinstance(output, Mapping) else type(output).__name__
        raise TypeError(
            f"the model must return one dict a picture, got {got}; "
            f"upright.evaluation.{name}(read=...) makes a list of them"
        )
    return output


def _found(
    reading: Mapping[str, Any], name: str, needed: tuple[str, ...], points: int | None
) -> dict[str, Tensor]:
    """Return predicted instances, complete and on the CPU."""
    return _complete(reading, f"results of {name}", needed, points, scored=True)


def _target(
    target: Any, size: Size, *, name: str, needed: tuple[str, ...], points: int | None
) -> dict[str, Any]:
    """Return true instances, complete; areas are those on the upright picture."""
    if isinstance(target, Tensor) and name == "keypoints":
        target = {"keypoints": target[None] if target.ndim == 2 else target}
    if not isinstance(target, Mapping):
        raise TypeError(f"targets of {name} must be dicts with {list(needed)}, got {type(target).__name__}")
    made = _complete(target, f"targets of {name}", needed, points, scored=False)
    masks = made.get("masks")
    if masks is not None and tuple(masks.shape[1:]) != size:
        raise ValueError(
            f"masks in targets of {name} must have shape (N, {size[0]}, {size[1]}), got {tuple(masks.shape)}"
        )
    return made


def _complete(
    given: Mapping[str, Any], where: str, needed: tuple[str, ...], points: int | None, *, scored: bool
) -> dict[str, Tensor]:
    missing = [key for key in needed if key not in given]
    if missing:
        raise KeyError(f"{where} must have the entries {list(needed)}, got {sorted(map(str, given))}")
    names = ("boxes", "masks", "keypoints", "labels", "scores" if scored else "iscrowd", "area")
    made = {key: torch.as_tensor(given[key]).detach().cpu() for key in names if key in given}
    count = len(made[needed[0]])
    made.setdefault("labels", torch.zeros(count, dtype=torch.long))
    if scored:
        made.setdefault("scores", torch.ones(count))
    if "masks" in made:
        masks = made["masks"]
        masks = masks[:, 0] if masks.ndim == 4 else masks
        made["masks"] = masks > 0.5 if masks.is_floating_point() else masks.bool()
    if "keypoints" in made:
        made["keypoints"] = _with_visibility(made["keypoints"], where, points)
        made.setdefault("boxes", _extent(made["keypoints"]))
    for key, x in made.items():
        if len(x) != count or (key == "boxes" and x.shape[1:] != (4,)):
            shape = _SHAPES.get(key, "(N,)")
            raise ValueError(
                f"{key} in {where} must have shape {shape} with N = {count}, got {tuple(x.shape)}"
            )
    if points is not None and not scored:
        made.setdefault("area", _areas(made["boxes"]))
    return made


def _with_visibility(x: Tensor, where: str, points: int | None) -> Tensor:
    """Return key points with a third column, 1 where there is none."""
    if x.ndim != 3 or x.shape[2] not in (2, 3) or (points is not None and x.shape[1] != points):
        raise ValueError(
            f"keypoints in {where} must have shape (N, {points or 'K'}, 2 or 3), got {tuple(x.shape)}; pass "
            "upright.evaluation.keypoints(sigmas=...) with one number a key point"
        )
    return x if x.shape[2] == 3 else torch.cat([x, torch.ones_like(x[..., :1])], -1)


def _extent(x: Tensor) -> Tensor:
    """Return the boxes around labelled key points, shape ``(N, 4)``."""
    labelled = x[..., 2:] > 0
    low = torch.where(labelled, x[..., :2], torch.inf).amin(1)
    high = torch.where(labelled, x[..., :2], -torch.inf).amax(1)
    return torch.cat([low, high], 1).nan_to_num(0.0, 0.0, 0.0)


def _areas(boxes: Tensor) -> Tensor:
    """Return areas as of people in their boxes, shape ``(N,)``: 0.53 of the box, as COCO's own evaluation."""
    return 0.53 * (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _best_similarity(
    found: Mapping[str, Tensor], true: Mapping[str, Tensor], *, sigmas: tuple[float, ...]
) -> tuple[float, int]:
    """Return the sum over labelled things of the best similarity of any prediction, and their number."""
    labelled = (true["keypoints"][..., 2] > 0).any(1)
    count = int(labelled.sum())
    if not count or not len(found["keypoints"]):
        return 0.0, count
    every = similarity(found["keypoints"], true["keypoints"][labelled], true["area"][labelled], sigmas)
    return float(every.amax(0).sum()), count


def _as_target(prediction: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what was surely found, as a target."""
    sure = prediction["scores"] >= _SURE
    return {key: x[sure] for key, x in prediction.items() if key != "scores"}
