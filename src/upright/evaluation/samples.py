"""A few pictures looked at closely: as given, canonical, the pose that was chosen, what both models find."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from .._checks import check_choice, check_positive
from ..actions import act
from ..adapter import Adapted
from ..groups.base import Element, Group
from ..kinds import Border, Image
from .cases import Cases, labelled_cases, open_cases
from .modes import evaluating
from .orbit import Orbit
from .poses import chosen_poses, errors, near, tolerance
from .scores import call, check_classes
from .summary import pose_labels
from .tasks import TASKS, Task, classification

_SURE, _MOST = 0.5, 12
"""From which score on a thing is shown; how many at most."""


@dataclass(frozen=True, eq=False)
class Finding:
    """What a model found on one picture; of boxes, points and maps, in the frame of the picture as given.

    Attributes:
        text: In words; empty where it is drawn.
        number: The class number; None of other tasks.
        confidence: Probability of the class; None of other tasks.
        score: The task's first metric on this picture alone; None where one picture has none.
        right: Whether the class, or the text, is right; None of other tasks.
        boxes: ``(x0, y0, x1, y1)`` of things found, surest first.
        points: ``(x, y)`` of key points.
        map: A class number or a value at every pixel, shape ``(H, W)``; None of other tasks.
    """

    text: str = ""
    number: int | None = None
    confidence: float | None = None
    score: float | None = None
    right: bool | None = None
    boxes: tuple[tuple[float, ...], ...] = ()
    points: tuple[tuple[float, ...], ...] = ()
    map: Any = None


@dataclass(frozen=True, eq=False)
class Sample:
    """One picture.

    Attributes:
        given: Its pixels as the models get them, shape ``(H, W, 3)``, in 0…1.
        canonical: The same turned back by the chosen pose.
        turned: The pose in which it was put; empty if it was left as it came.
        chosen: The pose that was chosen.
        confidence: Probability of that pose.
        found: Whether the chosen pose is the true one; None where that is unknown.
        bare: What the bare model found.
        adapted: What the adapted model found.
    """

    given: Any
    canonical: Any
    turned: str
    chosen: str
    confidence: float
    found: bool | None
    bare: Finding
    adapted: Finding


@torch.no_grad()
def samples(
    robust: Adapted,
    data: Any,
    *,
    task: str | Task | None = None,
    count: int = 8,
    poses: Element | None = None,
    turn: bool = True,
    class_names: Sequence[str] | None = None,
    classes: Any = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    border: Border = "edge",
) -> list[Sample]:
    """Look at the first few pictures: turn each, and run the bare and the adapted model.

    Args:
        robust: The adapted model.
        data: Anything that `upright.evaluate` takes, with or without targets. Without, what the bare model
            finds on the upright picture is taken as right.
        task: As in `upright.evaluate`.
        count: Number of pictures, at most.
        poses: Poses to turn by, one after the other, shape ``(P,)``; None: those of the group, upright last.
        turn: Turn the pictures first. False: they are turned already.
        class_names: Names of the classes; what follows a comma is left out. None: their numbers.
        classes: The only classes that may be predicted, as in `upright.evaluate`.
        mean: What was subtracted from each channel when the pictures were normalised; None: the range of each
            picture is shown.
        std: What each channel was divided by, with ``mean``.
        border: What lies outside the canvas of a turned picture.

    Raises:
        ValueError: If there are no pictures, or an argument is out of its range.
    """
    check_positive("count", count)
    if (mean is None) != (std is None):
        raise ValueError("mean and std must be given together; pass both, as the transform has them")
    made = _task(task, classes)
    turns = chosen_poses(robust.group, poses)
    look = _Look(Orbit(robust, turns, made, {}, border), class_names, (mean, std), check_classes(classes))
    looked: list[Sample] = []
    with evaluating(robust):
        for i, case in enumerate(islice(_one_by_one(data, made, (robust.group, turns.group)), count)):
            step = max(1, len(turns) // 8)
            looked.append(look(case, turns[(i + 1) * step % len(turns)] if turn else None))
    if not looked:
        raise ValueError("pictures must hold at least one picture, got none")
    return looked


def _task(task: str | Task | None, classes: Any) -> Task:
    if isinstance(task, Task):
        return task
    if task in (None, "classification"):
        return classification(classes=classes)
    check_choice("task", task, TASKS)
    return TASKS[str(task)]()


def _one_by_one(data: Any, task: Task, groups: Sequence[Group]) -> Iterator[Cases]:
    from ..data import loader

    if task.name == "classification":
        cases = labelled_cases(loader(data, 8), groups)
    else:
        cases = open_cases(data, 8, lists=task.lists, groups=groups)
    for case in cases:
        for i in range(len(case)):
            targets = None if case.targets is None else case.targets[i : i + 1]
            yield Cases(case.pictures[i : i + 1], targets)


@dataclass(frozen=True, eq=False)
class _Look:
    """Runs both models on one picture."""

    orbit: Orbit
    names: Sequence[str] | None
    scale: Any
    classes: Tensor | None

    def __call__(self, case: Cases, g: Element | None) -> Sample:
        robust, task = self.orbit.robust, self.orbit.task
        case = case.to_model(robust.model)
        given, target = case.pictures, None
        if g is not None or case.targets is not None:
            target = self._target(case, g)
        if g is not None:
            given = self.orbit.turn(g, given)
        turned = Cases(given, None)
        run = call(robust, robust.run, given)
        pose = run.pose if run.pose is not None else call(robust, robust.pose, given)
        chosen = pose.element.to("cpu")
        bare = self._finding(call(robust, robust.model, given), turned, target)
        adapted = self._finding(run.output, turned, target)
        if task.name == "retrieval":
            bare = adapted = Finding()
        back = act(pose.element.inverse(), Image(given[0][None])).data[0]
        return Sample(
            given=pixels(given[0], self.scale),
            canonical=pixels(back, self.scale),
            turned="" if g is None else pose_labels(g.reshape(1))[0],
            chosen=pose_labels(chosen.reshape(1))[0],
            confidence=float(pose.confidence[0]),
            found=None if g is None else _is_right(chosen, g.reshape(1)) and not bool(pose.is_tied[0]),
            bare=bare,
            adapted=adapted,
        )

    def _target(self, case: Cases, g: Element | None) -> Any:
        """Return what is right, moved with the picture, in a tuple; None where nothing is known to be."""
        task = self.orbit.task
        readings = self.orbit.read(call(self.orbit.robust, self.orbit.robust.model, case.pictures), case)
        try:
            (target,) = self.orbit.targets(case, readings, task.decide(readings))
        except ValueError:  # a task that needs targets, and there are none
            if case.targets is not None:
                raise
            return None
        kind = task.placed(target, case.sizes[0])
        return (task.moved(self.orbit.poses[0] if g is None else g, kind),)

    def _finding(self, output: Any, case: Cases, target: Any) -> Finding:
        task = self.orbit.task
        readings = self.orbit.read(output, case)
        prediction = task.decide(readings)[0]
        score = None if target is None else _score(task, prediction, target[0])
        if task.name == "classification":
            scores = readings[0] if self.classes is None else readings[0][self.classes.to(readings[0].device)]
            return Finding(
                text=short_name(int(prediction), self.names),
                number=int(prediction),
                confidence=float(scores.softmax(-1).max()),
                right=None if target is None else int(prediction) == int(target[0]),
            )
        if isinstance(prediction, str):
            right = None if target is None else prediction == target[0]
            return Finding(text=prediction, score=score, right=right)
        if isinstance(prediction, Mapping):
            return _things(prediction, score)
        if isinstance(prediction, Tensor) and prediction.ndim == 2 and prediction.shape == case.sizes[0]:
            return Finding(score=score, map=prediction.double().numpy())
        return Finding(score=score)


def _is_right(chosen: Element, g: Element) -> bool:
    far = errors(chosen.reshape(1, 1), g)
    return bool(near(far, tolerance(chosen.group, g.group)).all())


def _score(task: Task, prediction: Any, target: Any) -> float | None:
    """Return the first metric on one picture; None where one picture has none."""
    try:
        value = float(task.metric.once([[task.metric.record(prediction, target)]])[0])
    except (ValueError, RuntimeError, ImportError):
        return None
    return value if value == value else None


def _things(found: Mapping[str, Any], score: float | None) -> Finding:
    """Return the surest of several things as what can be drawn."""
    scores = found.get("scores", torch.ones(len(next(iter(found.values()), ()))))
    order = [int(i) for i in scores.argsort(descending=True)[:_MOST] if float(scores[i]) >= _SURE]
    order = order or [int(i) for i in scores.argsort(descending=True)[:1]]
    masks, boxes, points = (found.get(name) for name in ("masks", "boxes", "keypoints"))
    painted = None
    if masks is not None and len(masks):
        painted = torch.zeros(masks.shape[1:], dtype=torch.float64)
        for number, i in enumerate(order, 1):
            painted[masks[i]] = number
    return Finding(
        score=score,
        boxes=tuple(tuple(map(float, boxes[i])) for i in order)
        if boxes is not None and points is None
        else (),
        points=()
        if points is None
        else tuple((float(x), float(y)) for i in order for x, y, seen in points[i] if seen > 0),
        map=None if painted is None else painted.numpy(),
    )


def pixels(picture: Tensor, scale: Any) -> Any:
    """Return a picture as an array ``(H, W, 3)`` in 0…1.

    Args:
        picture: Shape ``(C, H, W)``.
        scale: Mean and standard deviation by which it was normalised, or two None.
    """
    mean, std = scale
    x = picture.detach().cpu().double()
    if mean is not None:
        x = x * torch.tensor(std).double().view(-1, 1, 1) + torch.tensor(mean).double().view(-1, 1, 1)
    elif picture.dtype == torch.uint8:
        x = x / 255
    elif float(x.min()) < 0 or float(x.max()) > 1:
        x = (x - x.min()) / (x.max() - x.min()).clamp(min=1e-12)
    x = x[:3] if x.shape[0] >= 3 else x[:1].expand(3, -1, -1)
    return x.nan_to_num(0.0).clamp(0, 1).permute(1, 2, 0).numpy()


def short_name(number: int, names: Sequence[str] | None, longest: int = 16) -> str:
    """Return the name of a class, cut short; its number where it has none."""
    if number < 0:
        return "not a number"
    name = str(number) if names is None or number >= len(names) else str(names[number]).split(",")[0].strip()
    name = name.replace("_", " ")
    return name if len(name) <= longest else name[: longest - 1].rstrip() + "…"
