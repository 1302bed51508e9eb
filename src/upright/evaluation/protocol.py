"""``evaluate``: every row at every pose, on any data, into one report."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import nn

from .._checks import check_choice, check_positive
from ..adapter import Adapted
from ..adapter.spec import Size
from ..groups.base import Element, FiniteGroup
from ..groups.subset import Subset
from ..kinds import Border
from .cases import Cases, labelled_cases, open_cases, up_to
from .leakage import DEGRADATIONS, Leakage, compare
from .measures import gap_closed
from .modes import evaluating
from .orbit import Orbit, Record, join
from .overhead import Overhead, RowCost, measure_overhead, measure_row
from .poses import chosen_poses
from .report import Report, Setting
from .rows import Row, chosen_rows
from .running import averages, build_rows, moved_kinds
from .setting import describe_setting
from .summary import summarize_poses, summarize_row
from .tasks import TASKS, Task, classification


@torch.no_grad()
def evaluate(
    robust: Adapted,
    data: Any,
    *,
    task: str | Task | None = None,
    batch_size: int = 64,
    rows: Sequence[str | Row] | None = None,
    leakage: bool = True,
    leakage_limit: int | None = 500,
    overhead: bool = True,
    confidence: float = 0.95,
    limit: int | None = None,
    poses: Sequence[int] | Element | Subset | None = None,
    classes: Any = None,
    border: Border = "edge",
    num_workers: int = 0,
    progress: bool = False,
) -> Report:
    """Measure a model at every pose: bare, averaged over the group, adapted, with the true pose known.

    Every picture is turned by every pose, and its target with it. Intervals respect that poses of one picture
    are not independent.

    Args:
        robust: The adapted model, from `upright.adapt`.
        data: Pictures with labels, upright: a folder, a Parquet file, a `Dataset`, a `DataLoader`, a pair of
            tensors, …; see `upright.data.open_data`. For other tasks than classification: a data set,
            `DataLoader` or other iterable of ``(picture, target)`` or of batches ``(pictures, targets)``,
            pictures of one shape or of many. Without labels, the metric is the agreement with the bare
            model's predictions on the upright pictures, and the report says so.
        task: What is to be found: a name in `upright.evaluation.TASKS` (``"segmentation"``, ``"detection"``,
            ``"instances"``, ``"keypoints"``, ``"text"``, ``"retrieval"``, ``"depth"``), the result of the
            function of that name in `upright.evaluation`, which takes settings, or an
            `upright.evaluation.Task` of one's own. None: classification.
        batch_size: Pictures a batch. Pictures of different shapes are run shape by shape.
        rows: Which rows to run: names in `upright.evaluation.ROWS`, or a `upright.evaluation.Row` of one's
            own. None: ``"vanilla"``, ``"average"``, ``"adapted"`` and ``"oracle"``, but ``"average"`` only
            of a finite group whose outputs can be averaged (boxes, points and labels cannot).
        leakage: Whether to check that poses are not read off artefacts; see `upright.evaluation.Leakage`.
        leakage_limit: Most pictures of that check; None: all.
        overhead: Whether to measure parameters, time and peak memory, and the cost of every row.
        confidence: Coverage of the confidence intervals.
        limit: Most pictures.
        poses: Poses to turn by: numbers of elements of the model's group, elements of any group, or a set
            of them; None: the whole group, or an even grid of a continuous one. Upright is always among
            them. See also `upright.evaluate_curve`.
        classes: The only classes that may be predicted, shape ``(M,)``; labels keep the model's numbering.
        border: What lies outside the canvas of a turned picture.
        num_workers: Processes that decode pictures.
        progress: Whether to show a progress bar.

    Returns:
        The report.

    Raises:
        TypeError: If ``robust`` is no adapted model, or the model returns no class scores.
        ValueError: If there are no pictures, or an argument is out of its range.
    """
    _check_arguments(robust, confidence, limit, leakage_limit, border)
    chosen, named = _task(task, classes), chosen_rows(rows)
    _check_moves(robust, chosen)
    turns = chosen_poses(robust.group, poses)
    start = time.perf_counter()
    check = leakage and len(turns) > 1
    with contextlib.ExitStack() as stack:
        stack.enter_context(evaluating(robust))
        source, cases = _open(data, robust, turns, chosen, batch_size, num_workers, limit)
        if rows is None:
            named, cases = _without_average(robust, chosen, named, cases)
        built = build_rows(robust, named)
        for model in built.values():
            if isinstance(model, nn.Module):
                stack.enter_context(evaluating(model))
        orbit = Orbit(robust, turns, chosen, built, border)
        if progress:
            cases = _with_progress(cases, source)
        seen = _collect(orbit, cases, leakage_limit if check else 0)
        cost, costs = _costs(orbit, seen.example.pictures[:8]) if overhead else (None, {})
    seconds = time.perf_counter() - start
    setting = describe_setting(
        orbit, len(seen.record), seen.example, seen.sizes, has_labels=seen.has_targets,
        outputs=seen.record.outputs, skipped=_skipped(source), confidence=confidence, seconds=seconds,
    )  # fmt: skip
    return _report(orbit, named, seen, setting, cost, costs)


@dataclass(frozen=True, eq=False)
class Seen:
    """What was seen of the data.

    Attributes:
        record: Records of all pictures.
        degraded: Records of the first pictures degraded after turning, by degradation; may be empty.
        has_targets: Whether the data had targets.
        example: The first batch.
        sizes: Canvases that occurred.
    """

    record: Record
    degraded: dict[str, Record]
    has_targets: bool
    example: Cases
    sizes: set[Size]


def _collect(orbit: Orbit, cases: Iterable[Cases], degrade_limit: int | None) -> Seen:
    """Run all cases."""
    records: list[Record] = []
    degraded: dict[str, list[Record]] = {name: [] for name in DEGRADATIONS}
    given: set[bool] = set()
    example: Cases | None = None
    sizes: set[Size] = set()
    count = 0
    needed = {name: built for name, built in orbit.rows.items() if name in ("adapted", "oracle")}
    short = Orbit(orbit.robust, orbit.poses, orbit.task, needed, orbit.border)
    for part in cases:
        placed = part.to_model(orbit.robust.model)
        example = example or placed
        sizes.update(placed.sizes)
        given.add(part.targets is not None)
        record, targets = orbit.run(placed)
        records.append(record)
        room = len(placed) if degrade_limit is None else max(0, min(len(placed), degrade_limit - count))
        if room:
            few = Cases(placed.pictures[:room], targets[:room])
            for name, (_, degrade) in DEGRADATIONS.items():
                degraded[name].append(short.run(few, degrade)[0])
        count += len(placed)
    if example is None:
        raise ValueError("data must hold at least one picture, got none; check the path, the split and limit")
    if len(given) > 1:
        raise ValueError("data must have labels for all pictures or for none, got some batches without")
    joined = {name: join(parts) for name, parts in degraded.items() if parts}
    return Seen(join(records), joined, given.pop(), example, sizes)


def _costs(orbit: Orbit, pictures: Any) -> tuple[Overhead, dict[str, RowCost]]:
    """Measure what the adapter costs, and every row that is told nothing."""
    rows = {name: built for name, built in orbit.rows.items() if name not in ("vanilla", "oracle")}
    overhead = measure_overhead(orbit.robust, pictures)
    return overhead, {name: measure_row(orbit.robust, built, pictures) for name, built in rows.items()}


def _report(
    orbit: Orbit,
    named: Mapping[str, Row],
    seen: Seen,
    setting: Setting,
    cost: Overhead | None,
    costs: Mapping[str, RowCost],
) -> Report:
    """Summarise the records."""
    tracks, metrics = seen.record.rows, orbit.task.metrics
    measured = {
        name: [metric.measure(records) for metric, records in zip(metrics, track.records, strict=True)]
        for name, track in tracks.items()
    }
    closed = None
    if {"vanilla", "adapted", "oracle"} <= set(tracks):
        bare, adapted, oracle = (measured[name][0] for name in ("vanilla", "adapted", "oracle"))
        lower = orbit.task.metric.lower_is_better
        closed = gap_closed(bare, adapted, oracle, setting.confidence, lower_is_better=lower)
    checks: dict[str, Leakage] = {}
    for name, after in seen.degraded.items():
        before = seen.record.first(len(after))
        checks[name] = compare(name, before, after, orbit.task.metric, orbit.poses, setting.confidence)
    rows = {}
    for name, track in tracks.items():
        rows[name] = summarize_row(
            track,
            measured[name],
            orbit.task,
            orbit.poses,
            setting.confidence,
            label=named[name].label,
            cost=costs.get(name),
        )
    return Report(
        setting=setting,
        rows=rows,
        gap_closed=closed,
        canonicalizer=summarize_poses(seen.record.poses, orbit.poses, setting.confidence),
        overhead=cost,
        leakage=checks,
        choosers={
            name: summarize_poses(track, orbit.poses, setting.confidence)
            for name, track in seen.record.others.items()
        },
    )


def _task(task: str | Task | None, classes: Any) -> Task:
    if task in (None, "classification"):
        return classification(classes=classes)
    if classes is not None:
        raise ValueError("classes goes with classification; leave it out")
    if isinstance(task, Task):
        return task
    check_choice("task", task, TASKS)
    return TASKS[str(task)]()


def _check_moves(robust: Adapted, task: Task) -> None:
    """Raise unless the adapter moves what the task needs moved."""
    if task.moves is None:
        return
    if not any(not isinstance(kind, type) or issubclass(kind, task.moves) for kind in moved_kinds(robust)):
        name = task.moves.__name__
        raise ValueError(
            f"task {task.name!r} needs a model whose output moves as {name}, but it was adapted with "
            f"outputs={robust.returns!r}; adapt it with outputs='{name.lower()}' or outputs={{'<entry>': "
            f"'{name.lower()}'}}"
        )


def _without_average(
    robust: Adapted, task: Task, rows: dict[str, Row], cases: Iterator[Cases]
) -> tuple[dict[str, Row], Iterator[Cases]]:
    """Leave the average out of a continuous group, or if the outputs of the first picture have none."""
    averaging = isinstance(robust.group, FiniteGroup)
    if averaging and task.name != "classification":
        first = next(cases, None)
        if first is not None:
            averaging = averages(robust, first.first(1).to_model(robust.model).pictures)
            cases = itertools.chain([first], cases)
    return {name: row for name, row in rows.items() if averaging or name != "average"}, cases


def _check_arguments(
    robust: Any,
    confidence: float,
    limit: int | None,
    leakage_limit: int | None,
    border: str,
) -> None:
    if not isinstance(robust, Adapted):
        raise TypeError(
            f"robust must be an adapted model, got {type(robust).__name__}; make one with upright.adapt"
        )
    check_choice("border", border, get_args(Border))
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}; 0.95 is usual")
    for name, value in (("limit", limit), ("leakage_limit", leakage_limit)):
        if value is not None:
            check_positive(name, value)


def _open(
    data: Any,
    robust: Adapted,
    poses: Element,
    task: Task,
    batch_size: int,
    num_workers: int,
    limit: int | None,
) -> tuple[Any, Iterator[Cases]]:
    """Return what the data is read from, and its cases up to the limit."""
    from ..data import loader

    check_positive("batch_size", batch_size)
    if isinstance(data, Sequence) and not isinstance(data, (str, Path)) and len(data) == 0:
        raise ValueError("data must hold at least one picture, got an empty sequence")
    groups = (robust.group, poses.group)
    if task.name != "classification":
        cases = open_cases(data, batch_size, lists=task.lists, groups=groups, num_workers=num_workers)
        return data, up_to(cases, limit)
    source = loader(data, batch_size, num_workers=num_workers, limit=limit)
    return source, up_to(labelled_cases(source, groups), limit)


def _with_progress(cases: Iterable[Cases], source: Any) -> Iterator[Cases]:
    """Show a bar over batches, as far as their number is known."""
    from rich.progress import track

    try:
        total = len(source)
    except TypeError:
        total = None
    yield from track(cases, description="evaluating", total=total)


def _skipped(source: Any) -> int:
    dataset = getattr(getattr(source, "dataset", None), "dataset", getattr(source, "dataset", None))
    return len(getattr(dataset, "skipped", ()))
