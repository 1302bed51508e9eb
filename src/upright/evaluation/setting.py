"""What was evaluated, on what machine: all that a figure needs beside it."""

from __future__ import annotations

import contextlib
import platform
from datetime import datetime, timezone
from pathlib import Path

import torch

from .._version import __version__
from ..adapter.spec import Size
from .cases import Cases
from .orbit import Orbit
from .report import Setting


def describe_setting(
    orbit: Orbit,
    pictures: int,
    example: Cases,
    sizes: set[Size],
    *,
    has_labels: bool,
    outputs: int | None,
    skipped: int,
    confidence: float,
    seconds: float,
) -> Setting:
    """Describe an evaluation.

    Args:
        orbit: What ran.
        pictures: Number of pictures.
        example: The first batch.
        sizes: Canvases that occurred.
        has_labels: Whether the data had targets.
        outputs: Number of class scores.
        skipped: Pictures that could not be read.
        confidence: Coverage of the intervals.
        seconds: Time that it took.
    """
    robust, metric = orbit.robust, orbit.task.metric
    height, width = next(iter(sizes))
    parts = {name: getattr(robust, name) for name in ("top_k", "cover", "cut", "gate")}
    parts |= {"evidence": robust.evidence or None, "prior": robust.canonicalizer.deployment_prior}
    mode = [robust.mode, *(f"{name}={value}" for name, value in parts.items() if value is not None)]
    first = example.pictures[0]
    return Setting(
        model=getattr(robust.model, "__name__", type(robust.model).__name__),
        group=str(robust.group),
        mode=", ".join(mode),
        pictures=pictures,
        size=f"{height}×{width}" if len(sizes) == 1 else "mixed sizes",
        reference="labels" if has_labels else "bare model upright",
        classes=outputs,
        border=orbit.border,
        interpolation="bilinear",
        confidence=confidence,
        skipped=skipped,
        device=str(first.device),
        dtype=str(first.dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
        machine=f"{_processor()}, {platform.system()} {platform.machine()}",
        torch=str(torch.__version__),
        seconds=seconds,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        task=orbit.task.name,
        metric=metric.name,
        is_share=metric.is_share,
        lower_is_better=metric.lower_is_better,
        poses="" if orbit.poses.group == robust.group else str(orbit.poses.group),
        library=__version__,
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
