"""Runs every row at every pose and records what came out, picture by pose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..actions import act
from ..adapter import Adapted
from ..canonicalizers import Pose
from ..groups.base import Element
from ..kinds import Border, Image
from .scores import call, class_scores, predict

ROWS = ("vanilla", "average", "adapted", "oracle")
"""The bare model; its average over the group (test-time augmentation); the adapted model; the bare model on
pictures turned back by their true pose."""

Degrade = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Track:
    """What one row did. All tensors have shape ``(N, P)`` and live on the CPU.

    Attributes:
        predictions: Predicted classes, int64; `INVALID` where the scores were not numbers.
        passes: How many times the predictor ran.
        largest: Largest absolute difference of the scores from those at upright; NaN where not finite.
        mean: Mean absolute difference of the scores from those at upright; NaN where not finite.
    """

    predictions: Tensor
    passes: Tensor
    largest: Tensor
    mean: Tensor


@dataclass(frozen=True, eq=False)
class PoseTrack:
    """What the canonicalizer chose. All tensors have shape ``(N, P)`` and live on the CPU.

    Attributes:
        chosen: Numbers of the chosen elements, int64.
        confidence: Probability of the chosen elements.
        tied: Where the two likeliest elements were equally likely.
    """

    chosen: Tensor
    confidence: Tensor
    tied: Tensor


@dataclass(frozen=True, eq=False)
class Record:
    """Everything that was recorded.

    Attributes:
        rows: One track a row.
        poses: The canonicalizer's choices.
        upright: Predictions of the bare model on the upright pictures, shape ``(N,)``.
        outputs: Number of class scores.
    """

    rows: dict[str, Track]
    poses: PoseTrack
    upright: Tensor
    outputs: int

    def first(self, count: int) -> Record:
        """Return the records of the first pictures."""
        rows = {name: _map(lambda t: t[:count], track) for name, track in self.rows.items()}
        return Record(rows, _map(lambda t: t[:count], self.poses), self.upright[:count], self.outputs)


def join(records: Sequence[Record]) -> Record:
    """Put the records of several batches together."""
    rows = {name: _cat([record.rows[name] for record in records]) for name in records[0].rows}
    upright = torch.cat([record.upright for record in records])
    return Record(rows, _cat([record.poses for record in records]), upright, records[0].outputs)


@dataclass(frozen=True)
class Orbit:
    """How pictures are turned and which rows run.

    Attributes:
        robust: The adapted model.
        poses: Elements by which pictures are turned, the identity first, shape ``(P,)``.
        rows: Names out of `ROWS`.
        classes: Classes to score over; None: all.
        border: What lies outside the canvas of a turned picture.
    """

    robust: Adapted
    poses: Element
    rows: tuple[str, ...] = ROWS
    classes: Tensor | None = None
    border: Border = "edge"

    def run(self, x: Tensor, degrade: Degrade | None = None) -> Record:
        """Run all rows at all poses.

        Args:
            x: Upright pictures, shape ``(B, C, H, W)``.
            degrade: Applied to the pictures after turning; None: turned pictures are used as they are.
        """
        start = x if degrade is None else degrade(x)
        first = self._bare(start)
        averaging = self._averaging() if "average" in self.rows else None
        average = self._several(averaging, start) if averaging is not None else None
        steps: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in self.rows}
        poses: list[Pose] = []
        for p, g in enumerate(self.poses):
            given = start if p == 0 else self.turn(g, x)
            if degrade is not None and p:
                given = degrade(given)
            for name in self.rows:
                if name == "adapted":
                    run = call(self.robust, self.robust.run, given)
                    poses.append(run.pose)
                    steps[name].append((self._scores(run.output, len(x)), run.passes.cpu()))
                elif name == "average":
                    assert averaging is not None
                    assert average is not None
                    same = p == 0 or (
                        self._is_exact and degrade is None
                    )  # the same pictures in another order
                    steps[name].append(average if same else self._several(averaging, given))
                elif name == "vanilla":
                    steps[name].append(first if p == 0 else self._bare(given))
                else:
                    back = self.turn(g.inverse(), given)
                    steps[name].append(first if torch.equal(back, start) else self._bare(back))
            if "adapted" not in self.rows:
                poses.append(call(self.robust, self.robust.pose, given))
        rows = {name: self._track(step) for name, step in steps.items()}
        return Record(rows, _pose_track(poses), predict(first[0], self.classes), first[0].shape[1])

    def turn(self, g: Element, x: Tensor) -> Tensor:
        """Turn all pictures by one element."""
        moved: Tensor = act(g.to(x.device).reshape(1).expand(len(x)), Image(x, border=self.border)).data
        return moved

    @property
    def _is_exact(self) -> bool:
        return bool(getattr(self.robust.group, "is_exact_on_grid", False))

    def _averaging(self) -> Adapted:
        return self.robust.replace(mode="average")

    def _several(self, averaging: Adapted, x: Tensor) -> tuple[Tensor, Tensor]:
        run = call(self.robust, averaging.run, x)
        return self._scores(run.output, len(x)), run.passes.cpu()

    def _bare(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores = self._scores(call(self.robust, self.robust.model, x), len(x))
        return scores, torch.ones(len(x), dtype=torch.long)

    def _scores(self, output: Any, batch: int) -> Tensor:
        return class_scores(self.robust, output, batch)

    def _track(self, steps: list[tuple[Tensor, Tensor]]) -> Track:
        upright = steps[0][0].double()
        differences = [
            torch.where(
                scores == upright, 0.0, (scores - upright).abs()
            ).cpu()  # classes masked by -inf are equal
            for scores in (scores.double() for scores, _ in steps)
        ]
        largest = torch.stack([d.amax(1) for d in differences], 1)
        mean = torch.stack([d.mean(1) for d in differences], 1)
        finite = largest.isfinite()
        return Track(
            torch.stack([predict(scores, self.classes) for scores, _ in steps], 1),
            torch.stack([passes for _, passes in steps], 1),
            torch.where(finite, largest, torch.nan),
            torch.where(finite, mean, torch.nan),
        )


def _pose_track(poses: list[Pose]) -> PoseTrack:
    return PoseTrack(
        torch.stack([pose.element.value.cpu() for pose in poses], 1),
        torch.stack([pose.confidence.detach().float().cpu() for pose in poses], 1),
        torch.stack([pose.is_tied.cpu() for pose in poses], 1),
    )


T = TypeVar("T", Track, PoseTrack)


def _map(f: Callable[[Tensor], Tensor], track: T) -> T:
    return type(track)(*(f(getattr(track, field.name)) for field in fields(track)))


def _cat(tracks: list[T]) -> T:
    columns = [[getattr(track, field.name) for track in tracks] for field in fields(tracks[0])]
    return type(tracks[0])(*(torch.cat(column) for column in columns))
