"""Runs every row at every pose and records what came out, picture by pose."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..actions import act
from ..adapter import Adapted
from ..canonicalizers import Pose
from ..groups.base import Element
from ..kinds import Border, Image
from .cases import Cases
from .running import Output, Runner
from .scores import call
from .tasks.base import Task, differences, same

Degrade = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Track:
    """What one row did. All tensors have shape ``(N, P)`` and live on the CPU.

    Attributes:
        records: What each metric keeps, by metric, pose and picture.
        passes: How many times the predictor ran.
        largest: Largest absolute difference of the readings from those at upright; NaN where not finite.
        mean: Mean absolute difference of the readings from those at upright; NaN where not finite.
        changed: Whether the prediction is another than at upright, or none.
        invalid: Whether there is no prediction, since the readings were no numbers.
    """

    records: list[list[list[Any]]]
    passes: Tensor
    largest: Tensor
    mean: Tensor
    changed: Tensor
    invalid: Tensor


@dataclass(frozen=True, eq=False)
class PoseTrack:
    """Which poses were chosen, at ``P`` poses of ``N`` pictures; all of it lives on the CPU.

    Attributes:
        chosen: The chosen elements, shape ``(N, P)``.
        confidence: Probability of the chosen elements, shape ``(N, P)``.
        tied: Where the two likeliest elements were equally likely, shape ``(N, P)``.
    """

    chosen: Element
    confidence: Tensor
    tied: Tensor


@dataclass(frozen=True, eq=False)
class Record:
    """Everything that was recorded.

    Attributes:
        rows: One track a row.
        poses: The canonicalizer's choices.
        others: The choices of other rows that choose poses.
        upright: What the first metric keeps of the bare model on the upright pictures.
        outputs: Number of class scores; None where there are none.
    """

    rows: dict[str, Track]
    poses: PoseTrack
    others: dict[str, PoseTrack]
    upright: list[Any]
    outputs: int | None

    def __len__(self) -> int:
        return len(self.upright)

    def first(self, count: int) -> Record:
        """Return the records of the first pictures."""
        rows = {name: _first(track, count) for name, track in self.rows.items()}
        others = {name: _first(track, count) for name, track in self.others.items()}
        return Record(rows, _first(self.poses, count), others, self.upright[:count], self.outputs)


def join(records: Sequence[Record]) -> Record:
    """Put the records of several batches together."""
    rows = {name: _cat([record.rows[name] for record in records]) for name in records[0].rows}
    others = {name: _cat([record.others[name] for record in records]) for name in records[0].others}
    upright = [x for record in records for x in record.upright]
    return Record(rows, _cat([record.poses for record in records]), others, upright, records[0].outputs)


@dataclass(frozen=True)
class Orbit:
    """How pictures are turned and which rows run.

    Attributes:
        robust: The adapted model.
        poses: Elements by which pictures are turned, the identity first, shape ``(P,)``; of any group.
        task: What targets are and what is measured.
        rows: What each row runs, by name.
        border: What lies outside the canvas of a turned picture.
    """

    robust: Adapted
    poses: Element
    task: Task
    rows: Mapping[str, Any]
    border: Border = "edge"

    def run(self, cases: Cases, degrade: Degrade | None = None) -> tuple[Record, list[Any]]:
        """Run all rows at all poses.

        Args:
            cases: Upright pictures with their targets; without, what the bare model finds on them is taken.
            degrade: Applied to the pictures after turning; None: turned pictures are used as they are.

        Returns:
            The records, and the targets.
        """
        given = _degraded(cases.pictures, degrade)
        rows = Runner(self.robust, self.rows, given, is_exact=self._is_exact and degrade is None)
        readings = self.read(rows.first.output, cases)
        predictions = self.task.decide(readings)
        targets = self.targets(cases, readings, predictions)
        kinds = [self.task.placed(target, size) for target, size in zip(targets, cases.sizes, strict=True)]
        steps = {name: _Steps(self, rows) for name in self.rows}
        poses: dict[str, list[Pose]] = {}
        for p, g in enumerate(self.poses):
            if p:
                given = _degraded(self.turn(g, cases.pictures), degrade)
            turned = Cases(given, [self.task.moved(g, kind) for kind in kinds])
            for name, step in steps.items():
                output = rows.run(name, g, given, partial(self.turn, g.inverse(), given))
                step.add(output, g, turned)
                if output.pose is not None:
                    poses.setdefault(name, []).append(output.pose)
            if "adapted" not in self.rows:
                poses.setdefault("adapted", []).append(call(self.robust, self.robust.pose, given))
        still = [self.task.moved(self.poses[0], kind) for kind in kinds]
        upright = [self.task.metric.record(x, t) for x, t in zip(predictions, still, strict=True)]
        tracks = {name: step.track() for name, step in steps.items()}
        chosen = {name: _pose_track(found) for name, found in poses.items()}
        return Record(tracks, chosen.pop("adapted"), chosen, upright, self.task.outputs(readings)), targets

    def turn(self, g: Element, pictures: Any) -> Any:
        """Turn all pictures by one element."""
        if not isinstance(pictures, Tensor):
            return [act(g.to(x.device), Image(x, border=self.border)).data for x in pictures]
        g = g.to(pictures.device).reshape(1).expand(len(pictures))
        return act(g, Image(pictures, border=self.border)).data

    def read(self, output: Any, cases: Cases) -> Sequence[Any]:
        """Return one reading a picture."""
        return self.task.readings(self.robust, output, cases.sizes)

    @property
    def _is_exact(self) -> bool:
        group = self.robust.group
        return group == self.poses.group and bool(getattr(group, "is_exact_on_grid", False))

    def targets(self, cases: Cases, readings: Sequence[Any], predictions: Sequence[Any]) -> list[Any]:
        """Return the targets; where there are none, what the bare model finds upright."""
        if cases.targets is not None:
            if self.task.check is not None:
                self.task.check(cases.targets, readings)
            return cases.targets
        if self.task.refer is None:
            raise ValueError(f"data must have targets for {self.task.name}, got pictures alone")
        return [self.task.refer(prediction) for prediction in predictions]


class _Steps:
    """What one row does, pose by pose."""

    def __init__(self, orbit: Orbit, rows: Runner) -> None:
        self.orbit, self.rows = orbit, rows
        self.upright: Output | None = None
        self.columns: list[dict[str, Any]] = []

    def add(self, output: Output, g: Element, turned: Cases) -> None:
        """Take in the output at one more pose, of pictures and targets turned by ``g``."""
        task = self.orbit.task
        self.upright = self.upright or output
        readings = self.orbit.read(output.output, turned)
        predictions = task.decide(readings)
        moved = self.rows.replayed(self.upright, g, turned.pictures)
        expected = readings if moved is output else self.orbit.read(moved.output, turned)
        largest, mean = differences(readings, expected)
        invalid = torch.tensor([not task.is_valid(x) for x in predictions], dtype=torch.bool)
        changed = [not same(x, y) for x, y in zip(predictions, task.decide(expected), strict=True)]
        pairs = list(zip(predictions, turned.targets or (), strict=True))
        self.columns.append({
            "records": [[metric.record(x, target) for x, target in pairs] for metric in task.metrics],
            "passes": output.passes,
            "largest": torch.where(largest.isfinite(), largest, torch.nan),
            "mean": torch.where(largest.isfinite(), mean, torch.nan),
            "changed": torch.tensor(changed, dtype=torch.bool) | invalid,
            "invalid": invalid,
        })  # fmt: skip

    def track(self) -> Track:
        """Return everything as one track."""
        tensors = {
            field.name: torch.stack([column[field.name] for column in self.columns], 1)
            for field in fields(Track)[1:]
        }
        tensors["changed"] |= tensors["invalid"][:, :1]
        count = len(self.orbit.task.metrics)
        return Track([[column["records"][m] for column in self.columns] for m in range(count)], **tensors)


def _degraded(pictures: Any, degrade: Degrade | None) -> Any:
    if degrade is None or isinstance(pictures, Tensor):
        return pictures if degrade is None else degrade(pictures)
    return [degrade(picture[None])[0] for picture in pictures]


def _pose_track(poses: list[Pose]) -> PoseTrack:
    return PoseTrack(
        Element(poses[0].group, torch.stack([pose.element.value.detach().cpu() for pose in poses], 1)),
        torch.stack([pose.confidence.detach().float().cpu() for pose in poses], 1),
        torch.stack([pose.is_tied.cpu() for pose in poses], 1),
    )


T = TypeVar("T", Track, PoseTrack)


def _first(track: T, count: int) -> T:
    """Return what belongs to the first pictures."""
    made: dict[str, Any] = {}
    for field in fields(track):
        x = getattr(track, field.name)
        whole = isinstance(x, (Tensor, Element))
        made[field.name] = x[:count] if whole else [[column[:count] for column in m] for m in x]
    return type(track)(**made)


def _cat(tracks: list[T]) -> T:
    made: dict[str, Any] = {}
    for field in fields(tracks[0]):
        parts = [getattr(track, field.name) for track in tracks]
        if isinstance(parts[0], Element):
            made[field.name] = Element(parts[0].group, torch.cat([part.value for part in parts]))
        else:
            made[field.name] = torch.cat(parts) if isinstance(parts[0], Tensor) else _cat_records(parts)
    return type(tracks[0])(**made)


def _cat_records(parts: list[list[list[list[Any]]]]) -> list[list[list[Any]]]:
    """Put records, by metric, pose and picture, together over the pictures."""
    metrics, poses = range(len(parts[0])), range(len(parts[0][0]))
    return [[[record for part in parts for record in part[m][p]] for p in poses] for m in metrics]
