"""``upright demo``: the main job, on data that installed packages bundle."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument(
        "--output", type=Path, default=Path("demo-out"), help="folder for figures and reports"
    )
    parser.add_argument("--quick", action="store_true", help="fewer pictures and epochs: a smoke run")


def run(args: argparse.Namespace) -> int:
    """Run both parts and print their tables."""
    from rich.console import Console

    from ..demo import digits_demo, photo_demo

    console = Console(highlight=False)
    args.output.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    console.rule("[bold]1. A pretrained model on turned photos: no training, one line")
    report = photo_demo(args.output, views_per_photo=2 if args.quick else 8)
    console.print(report.table())
    console.rule("[bold]2. A canonicalizer from scratch: digits, four set-ups")
    rows = digits_demo(args.output, epochs=1 if args.quick else 12)
    console.print(_setups(rows))
    seconds = time.perf_counter() - began
    console.print(
        f"\nWritten to [bold]{args.output}[/]: reports (photos.html to look at; JSON), polar plots, gallery. "
        f"{seconds:.0f} s."
    )
    return 0


def _setups(rows: dict[str, Any]) -> Any:
    from rich.table import Table

    table = Table(title="Handwritten digits under quarter turns (a turned 6 is a 9: no one can tell)")
    table.add_column("set-up")
    for name in ("upright", "all poses", "worst pose", "identity rate"):
        table.add_column(name, justify="right")
    for row in rows.values():
        rate = row["identity_rate"]
        values = [row["upright"], row["orbit_mean"], row["worst_pose"]]
        table.add_row(
            row["name"], *(f"{100 * v:.1f}%" for v in values), "" if rate is None else f"{100 * rate:.1f}%"
        )
    return table
