"""What benchmarks share: options, paired timing, and result files that say where a figure comes from."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import upright

RESULTS = Path(__file__).parent / "results"
DATA = Path(os.environ.get("UPRIGHT_DATA", Path(__file__).parents[1] / ".." / "shared" / "data"))


def parser(description: str) -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=description)
    options.add_argument(
        "--smoke", action="store_true", help="a few seconds on tiny inputs; writes no result"
    )
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--seed", type=int, default=0)
    return options


def start(options: argparse.Namespace) -> None:
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)


def paired_ratio(
    ours: Callable[[], Any], theirs: Callable[[], Any], *, repeats: int = 15, warmup: int = 2
) -> dict[str, float]:
    """Run both in turn; the ratio of each pair, its median and quartiles, and both median times in ms."""
    for _ in range(warmup):
        ours(), theirs()
    times: tuple[list[float], list[float]] = ([], [])
    for i in range(repeats):
        for which in (0, 1) if i % 2 else (1, 0):  # whoever goes first alternates
            began = time.perf_counter()
            (ours, theirs)[which]()
            times[which].append(time.perf_counter() - began)
    ratios = [a / b for a, b in zip(*times, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4) if repeats > 1 else 3 * ratios
    return {
        "ratio": round(middle, 4),
        "ratio_q1": round(low, 4),
        "ratio_q3": round(high, 4),
        "ours_ms": round(1e3 * statistics.median(times[0]), 4),
        "theirs_ms": round(1e3 * statistics.median(times[1]), 4),
        "repeats": repeats,
    }


def times_ms(f: Callable[[], Any], *, repeats: int = 15, warmup: int = 2) -> list[float]:
    for _ in range(warmup):
        f()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        f()
        times.append(1e3 * (time.perf_counter() - began))
    return times


def median_ms(f: Callable[[], Any], *, repeats: int = 15, warmup: int = 2) -> float:
    return statistics.median(times_ms(f, repeats=repeats, warmup=warmup))


def rounded(x: Any) -> Any:
    """Return figures, however nested, with four decimals."""
    if isinstance(x, dict):
        return {key: rounded(value) for key, value in x.items()}
    if isinstance(x, list):
        return [rounded(value) for value in x]
    return round(x, 4) if isinstance(x, float) else x


def write(name: str, figures: Any, options: argparse.Namespace, **notes: Any) -> None:
    """Print the figures and, unless this is a smoke run, write ``results/<name>.json``."""
    print(json.dumps(figures, indent=2))
    if options.smoke:
        return
    record = {
        "benchmark": name,
        "command": "python -m " + " ".join([_module(), *map(_portable, sys.argv[1:])]),
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "upright": upright.__version__,
        "commit": _commit(),
        **notes,
        "figures": figures,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(record, indent=2) + "\n")
    temporary.replace(path)


def machine() -> dict[str, Any]:
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":")[1].strip()
            for line in info.read_text().splitlines()
            if line.startswith("model name")
        ]
        model = names[0] if names else model
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _portable(argument: str) -> str:
    """Return an argument as others can use it: of a path outside the folder, its last three parts."""
    path = Path(argument)
    if not path.is_absolute():
        return argument
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else "/".join(path.parts[-3:])


def _module() -> str:
    return f"benchmarks.{Path(sys.argv[0]).stem}"


def _commit() -> str:
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
