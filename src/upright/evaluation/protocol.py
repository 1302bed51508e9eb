"""``evaluate``: every row at every pose, on any data, into one report."""

from __future__ import annotations

import contextlib
import platform
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from .._checks import check_choice, check_positive
from ..adapter import Adapted
from ..groups.base import Element, FiniteGroup
from ..groups.planar import PlanarGroup
from ..kinds import Border
from .leakage import DEGRADATIONS, Leakage, compare
from .metrics import gap_closed, is_right
from .modes import evaluating, placed
from .orbit import ROWS, Orbit, Record, join
from .overhead import Overhead, measure_overhead
from .report import Report, Setting
from .scores import check_classes, check_labels
from .summary import summarize_poses, summarize_row


@torch.no_grad()
def evaluate(
    robust: Adapted,
    data: Any,
    *,
    batch_size: int = 64,
    rows: Sequence[str] = ROWS,
    leakage: bool = True,
    leakage_limit: int | None = 500,
    overhead: bool = True,
    confidence: float = 0.95,
    limit: int | None = None,
    poses: Sequence[int] | Element | None = None,
    classes: Any = None,
    border: Border = "edge",
    num_workers: int = 0,
    progress: bool = False,
) -> Report:
    """Measure a classifier at every pose: bare, averaged over the group, adapted, with the true pose known.

    Every picture is turned by every pose. Intervals respect that poses of one picture are not independent.

    Args:
        robust: The adapted model, from `upright.adapt`.
        data: Pictures with labels, upright: a folder, a Parquet file, a `Dataset`, a `DataLoader`, a pair of
            tensors, …; see `upright.data.open_data`. Without labels, accuracy is replaced by agreement with
            the bare model's predictions on the upright pictures, and the report says so.
        batch_size: Pictures a batch. Pictures of different shapes are run shape by shape.
        rows: Which of ``"vanilla"``, ``"average"``, ``"adapted"`` and ``"oracle"`` to run.
        leakage: Whether to check that poses are not read off artefacts; see `upright.evaluation.Leakage`.
        leakage_limit: Most pictures of that check; None: all.
        overhead: Whether to measure parameters, time and peak memory.
        confidence: Coverage of the confidence intervals.
        limit: Most pictures.
        poses: Poses to turn by: numbers of group elements, or elements; None: the whole group. Upright is
            always among them.
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
    _check_arguments(robust, rows, confidence, limit, leakage_limit, border)
    orbit = Orbit(robust, _poses(robust.group, poses), tuple(rows), check_classes(classes), border)
    start = time.perf_counter()
    check = leakage and len(orbit.poses) > 1
    with evaluating(robust):
        source, batches = _open(data, batch_size, num_workers, limit)
        if progress:
            batches = _with_progress(batches, source)
        seen = _collect(orbit, batches, leakage_limit if check else 0)
        cost = measure_overhead(robust, seen.example[:8]) if overhead else None
    labels = seen.upright if seen.labels is None else seen.labels
    setting = _setting(orbit, seen, confidence, source, start)
    return _report(orbit, seen, labels, setting, cost)


@dataclass(frozen=True, eq=False)
class Seen:
    """What was seen of the data: records, labels, and one batch as an example.

    Attributes:
        record: Records of all pictures.
        degraded: Records of the first pictures degraded after turning, by degradation; may be empty.
        labels: Classes, shape ``(N,)``; None if there are none.
        example: The first pictures, shape ``(B, C, H, W)``.
        sizes: Canvases that occurred.
    """

    record: Record
    degraded: dict[str, Record]
    labels: Tensor | None
    example: Tensor
    sizes: set[tuple[int, int]]

    @property
    def upright(self) -> Tensor:
        """Predictions of the bare model on the upright pictures, shape ``(N,)``."""
        return self.record.upright

    @property
    def outputs(self) -> int:
        """Number of class scores of the model."""
        return self.record.outputs


def _collect(orbit: Orbit, batches: Iterable[tuple[Any, Tensor | None]], degrade_limit: int | None) -> Seen:
    """Run all batches, shape by shape."""
    records: list[Record] = []
    degraded: dict[str, list[Record]] = {name: [] for name in DEGRADATIONS}
    labels: list[Tensor | None] = []
    example: Tensor | None = None
    sizes: set[tuple[int, int]] = set()
    count = 0
    needed = tuple(row for row in orbit.rows if row in ("adapted", "oracle"))
    short = Orbit(orbit.robust, orbit.poses, needed, orbit.classes, orbit.border)
    for pictures, given in batches:
        for x, index in _by_shape(pictures, orbit.robust.group):
            x = placed(x, orbit.robust.model)
            example = x if example is None else example
            sizes.add((x.shape[-2], x.shape[-1]))
            records.append(orbit.run(x))
            labels.append(None if given is None else _labels(given, len(pictures))[index])
            if labels[-1] is not None:
                check_labels(labels[-1], orbit.classes, records[-1].outputs)
            room = len(x) if degrade_limit is None else max(0, min(len(x), degrade_limit - count))
            if room:
                for name, (_, degrade) in DEGRADATIONS.items():
                    degraded[name].append(short.run(x[:room], degrade))
            count += len(x)
    if example is None:
        raise ValueError("data must hold at least one picture, got none; check the path, the split and limit")
    known = [label for label in labels if label is not None]
    if known and len(known) < len(labels):
        raise ValueError("data must have labels for all pictures or for none, got some batches without")
    joined = {name: join(parts) for name, parts in degraded.items() if parts}
    return Seen(join(records), joined, torch.cat(known) if known else None, example, sizes)


def _report(orbit: Orbit, seen: Seen, labels: Tensor, setting: Setting, cost: Overhead | None) -> Report:
    """Summarise the records."""
    tracks = seen.record.rows
    closed = None
    if {"vanilla", "adapted", "oracle"} <= set(tracks):
        right = {name: is_right(track.predictions, labels) for name, track in tracks.items()}
        closed = gap_closed(right["vanilla"], right["adapted"], right["oracle"], setting.confidence)
    checks: dict[str, Leakage] = {}
    for name, after in seen.degraded.items():
        count = len(after.upright)
        checks[name] = compare(
            name, seen.record.first(count), after, labels[:count], orbit.poses, setting.confidence
        )
    return Report(
        setting=setting,
        rows={
            name: summarize_row(track, labels, orbit.poses, setting.confidence)
            for name, track in tracks.items()
        },
        gap_closed=closed,
        canonicalizer=summarize_poses(seen.record.poses, orbit.poses, setting.confidence),
        overhead=cost,
        leakage=checks,
    )


def _check_arguments(
    robust: Any,
    rows: Sequence[str],
    confidence: float,
    limit: int | None,
    leakage_limit: int | None,
    border: str,
) -> None:
    if not isinstance(robust, Adapted):
        raise TypeError(
            f"robust must be an adapted model, got {type(robust).__name__}; make one with upright.adapt"
        )
    if isinstance(rows, str) or not rows:
        raise ValueError(f"rows must be a non-empty sequence of {', '.join(map(repr, ROWS))}, got {rows!r}")
    for row in rows:
        check_choice("rows", row, ROWS)
    check_choice("border", border, get_args(Border))
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}; 0.95 is usual")
    for name, value in (("limit", limit), ("leakage_limit", leakage_limit)):
        if value is not None:
            check_positive(name, value)


def _poses(group: FiniteGroup, poses: Sequence[int] | Element | None) -> Element:
    """Return the poses with the identity first."""
    if poses is None:
        return group.elements()
    chosen = (
        poses if isinstance(poses, Element) else group.element(torch.as_tensor(list(poses), dtype=torch.long))
    )
    if chosen.group != group:
        raise ValueError(f"poses must be elements of {group}, got elements of {chosen.group}")
    numbers = dict.fromkeys([0, *chosen.value.flatten().tolist()])
    return group.element(torch.tensor(list(numbers)))


def _open(data: Any, batch_size: int, num_workers: int, limit: int | None) -> tuple[Any, Iterable[Any]]:
    """Return the loader, and its batches up to the limit."""
    from ..data import loader

    if isinstance(data, Sequence) and not isinstance(data, (str, Path)) and len(data) == 0:
        raise ValueError("data must hold at least one picture, got an empty sequence")
    source = loader(data, batch_size, num_workers=num_workers, limit=limit)
    return source, _up_to(source, limit)


def _up_to(batches: Iterable[Any], limit: int | None) -> Iterator[Any]:
    room = limit
    for pictures, labels in batches:
        if room is None:
            yield pictures, labels
            continue
        yield pictures[:room], None if labels is None else labels[:room]
        room -= len(pictures)
        if room <= 0:
            return


def _with_progress(batches: Iterable[Any], source: Any) -> Iterable[Any]:
    from rich.progress import track

    try:
        total = len(source)
    except TypeError:
        total = None
    return track(batches, description="evaluating", total=total)


def _by_shape(pictures: Any, group: FiniteGroup) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield pictures of one shape as tensors, with their numbers in the batch."""
    shapes: dict[tuple[int, ...], list[int]] = {}
    for i, picture in enumerate(pictures):
        shapes.setdefault(tuple(picture.shape), []).append(i)
    for shape, index in shapes.items():
        if len(shape) != 3:
            raise ValueError(f"pictures must have shape (C, H, W), got {shape}")
        if shape[1] != shape[2] and isinstance(group, PlanarGroup) and not group.is_exact_on_grid:
            raise ValueError(
                f"{group} turns by more than quarter turns and needs square pictures, got "
                f"{shape[1]}×{shape[2]}; crop or resize them in the transform, or evaluate quarter turns"
            )
        at = torch.tensor(index)
        yield (
            (pictures[at] if isinstance(pictures, Tensor) else torch.stack([pictures[i] for i in index])),
            at,
        )


def _labels(given: Any, count: int) -> Tensor:
    labels = torch.as_tensor(given).cpu()
    if labels.shape != (count,) or labels.is_floating_point():
        raise ValueError(
            f"labels must be class numbers of shape ({count},), got {tuple(labels.shape)} {labels.dtype}"
        )
    if bool((labels < 0).any()):
        raise ValueError(
            f"labels must be class numbers from 0, got {int(labels.min())}; leave unlabelled pictures out"
        )
    return labels.long()


def _setting(orbit: Orbit, seen: Seen, confidence: float, source: Any, start: float) -> Setting:
    robust = orbit.robust
    height, width = next(iter(seen.sizes))
    parts = {"top_k": robust.top_k, "cover": robust.cover, "evidence": robust.evidence or None}
    mode = ", ".join(
        [robust.mode, *(f"{name}={value}" for name, value in parts.items() if value is not None)]
    )
    dataset = getattr(getattr(source, "dataset", None), "dataset", getattr(source, "dataset", None))
    return Setting(
        model=getattr(robust.model, "__name__", type(robust.model).__name__),
        group=str(robust.group),
        mode=mode,
        pictures=len(seen.upright),
        size=f"{height}×{width}" if len(seen.sizes) == 1 else "mixed sizes",
        reference="labels" if seen.labels is not None else "bare model upright",
        classes=seen.outputs if orbit.classes is None else len(orbit.classes),
        border=orbit.border,
        interpolation="bilinear",
        confidence=confidence,
        skipped=len(getattr(dataset, "skipped", ())),
        device=str(seen.example.device),
        dtype=str(seen.example.dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
        machine=f"{_processor()}, {platform.system()} {platform.machine()}",
        torch=str(torch.__version__),
        seconds=time.perf_counter() - start,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def _processor() -> str:
    """Return the name of the accelerator or processor."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"
