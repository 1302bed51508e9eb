"""What the adapter costs: parameters, time and peak memory against the bare model."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..adapter import Adapted
from .scores import call


@dataclass(frozen=True)
class Overhead:
    """Cost of the adapted model against the bare one.

    Attributes:
        batch: Shape of the pictures of the measurement, ``(B, C, H, W)``; where they differ, the first's.
        parameters_model: Parameters of the bare model; 0 for a plain callable.
        parameters_added: Parameters of the canonicalizer.
        runs: Paired runs: bare and adapted in turn, in alternating order.
        seconds_model: Median time of the bare model on the batch.
        seconds_adapted: Median time of the adapted model on the batch.
        time_ratio: Median over the pairs of adapted / bare.
        time_ratio_low: Lower quartile of it.
        time_ratio_high: Upper quartile of it.
        passes: Passes of the predictor a picture, in the adapted model, on this batch.
        peak_bytes_model: Most memory that one call of the bare model held beyond weights and inputs.
        peak_bytes_adapted: The same for the adapted model.
    """

    batch: tuple[int, ...]
    parameters_model: int
    parameters_added: int
    runs: int
    seconds_model: float
    seconds_adapted: float
    time_ratio: float
    time_ratio_low: float
    time_ratio_high: float
    passes: float
    peak_bytes_model: int
    peak_bytes_adapted: int

    @property
    def parameters_share(self) -> float | None:
        """Parameters added, as a share of the model's; None where the model has none."""
        return self.parameters_added / self.parameters_model if self.parameters_model else None

    @property
    def memory_ratio(self) -> float | None:
        """Peak memory of adapted / bare; None where the bare model's is unknown."""
        return self.peak_bytes_adapted / self.peak_bytes_model if self.peak_bytes_model else None


@dataclass(frozen=True)
class RowCost:
    """Cost of one row against the bare model; its passes stand in the row.

    Attributes:
        parameters: Parameters beyond the bare model's.
        milliseconds: Median time a picture.
        time_ratio: Median over paired runs of the row's time / the bare model's.
        runs: Paired runs.
    """

    parameters: int
    milliseconds: float
    time_ratio: float
    runs: int


@torch.no_grad()
def measure_row(robust: Adapted, model: Any, x: Any, *, runs: int = 7, seconds: float = 3.0) -> RowCost:
    """Measure the cost of a row on one batch.

    Args:
        robust: The adapted model, in evaluation mode.
        model: What the row runs.
        x: Pictures, shape ``(B, C, H, W)`` or a list of ``(C, H_i, W_i)``, on the model's device.
        runs: Most paired runs.
        seconds: Time after which no further pair is started; at least three pairs are run.
    """
    run = getattr(model, "run", model)
    call(robust, run, x)  # warms up
    pairs = _paired(lambda: call(robust, robust.model, x), lambda: call(robust, run, x), x, runs, seconds)
    return RowCost(
        parameters=max(0, _parameters(model) - _parameters(robust.model)),
        milliseconds=1e3 * statistics.median(row for _, row in pairs) / len(x),
        time_ratio=statistics.median(row / bare for bare, row in pairs),
        runs=len(pairs),
    )


def _paired(
    bare: Callable[[], Any], other: Callable[[], Any], x: Any, runs: int, seconds: float
) -> list[tuple[float, float]]:
    """Time two steps in turn, in alternating order; return seconds of both, pair by pair."""
    steps, device = (bare, other), x[0].device
    pairs: list[tuple[float, float]] = []
    end = time.perf_counter() + seconds
    while len(pairs) < runs and (len(pairs) < 3 or time.perf_counter() < end):
        order = (0, 1) if len(pairs) % 2 == 0 else (1, 0)
        took = {i: _seconds(steps[i], device) for i in order}
        pairs.append((took[0], took[1]))
    return pairs


@torch.no_grad()
def measure_overhead(robust: Adapted, x: Any, *, runs: int = 15, seconds: float = 20.0) -> Overhead:
    """Measure the cost of the adapter on one batch.

    Args:
        robust: The adapted model, in evaluation mode.
        x: Pictures, shape ``(B, C, H, W)`` or a list of ``(C, H_i, W_i)``, on the model's device.
        runs: Most paired runs.
        seconds: Time after which no further pair is started; at least three pairs are run.
    """
    passes = call(robust, robust.run, x).passes.double().mean()  # warms up as well
    call(robust, robust.model, x)
    steps: tuple[Callable[[], Any], Callable[[], Any]] = (
        lambda: call(robust, robust.model, x),
        lambda: call(robust, robust, x),
    )
    device = x[0].device
    pairs = _paired(*steps, x, runs, seconds)
    ratios = [adapted / bare for bare, adapted in pairs]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return Overhead(
        batch=(len(x), *x[0].shape),
        parameters_model=_parameters(robust.model),
        parameters_added=_parameters(robust.canonicalizer),
        runs=len(pairs),
        seconds_model=statistics.median(bare for bare, _ in pairs),
        seconds_adapted=statistics.median(adapted for _, adapted in pairs),
        time_ratio=middle,
        time_ratio_low=low,
        time_ratio_high=high,
        passes=float(passes),
        peak_bytes_model=_peak_bytes(steps[0], device),
        peak_bytes_adapted=_peak_bytes(steps[1], device),
    )


def _parameters(model: Any) -> int:
    return sum(p.numel() for p in model.parameters()) if isinstance(model, nn.Module) else 0


def _seconds(step: Callable[[], Any], device: torch.device) -> float:
    _synchronize(device)
    start = time.perf_counter()
    step()
    _synchronize(device)
    return time.perf_counter() - start


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep PyTorch's profiler from writing its own notes to the terminal (it writes past ``sys.stderr``)."""
    try:
        kept = os.dup(2)
    except OSError:  # no terminal, nothing to keep clean
        yield
        return
    try:
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _peak_bytes(step: Callable[[], Any], device: torch.device) -> int:
    """Return the most memory that was allocated at a time during one call, beyond what was there before."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with _quiet(), torch.autograd.profiler.profile(use_kineto=False, profile_memory=True) as profile:
        step()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())
    events = events["traceEvents"] if isinstance(events, dict) else events
    peak = held = 0
    for event in sorted((e for e in events if e.get("name") == "[memory]"), key=lambda e: e["ts"]):
        held += int(event["args"]["Bytes"])
        peak = max(peak, held)
    return peak
