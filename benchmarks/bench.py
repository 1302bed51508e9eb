"""Every table of the project, one command after the other: what ``make bench`` runs.

    python -m benchmarks.bench                       # all: about ten hours of two cores
    python -m benchmarks.bench overhead geometry     # some, by the beginnings of their names
    python -m benchmarks.bench --peer peer-env/bin/python
    python -m benchmarks.bench --list

A benchmark that fails, or whose data is absent, does not stop the others; all are summed up at the end, with
the time each took, and the tables of the README are rendered anew. Without ``--peer`` what is measured beside
the peer is skipped. `benchmarks/README.md` says how to make its environment.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time

from rich.console import Console
from rich.table import Table

from benchmarks.record import DATA, RESULTS

PEER = "{peer}"
CIFAR = "--canonicalizer runs/{0}/canonicalizer"
BENCHES: dict[str, tuple[str, ...]] = {
    "exactness": ("exactness",),
    "geometry": ("geometry --threads 1",),
    "overhead": ("overhead --threads 1",),
    "promptable": (
        "promptable --groups C4 --threads 1",
        "promptable --models 'SAM ViT-H' --groups C4 --networks default --repeats 1 --threads 1",
    ),
    "networks": ("networks --group C4", "networks --group C8 --steps 100"),
    "throughput": (f"throughput --peer {PEER} --threads 1",),
    "cifar-c4": (
        "cifar train --group C4 --output runs/cifar-c4",
        f"cifar evaluate --group C4 {CIFAR.format('cifar-c4')}",
    ),
    "cifar-c8": (
        "cifar train --group C8 --steps 500 --learning-rate 0.01 --init runs/cifar-c4/canonicalizer "
        "--output runs/cifar-c8-first",
        "cifar train --group C8 --steps 1400 --batch-size 64 --learning-rate 0.015 "
        "--init runs/cifar-c8-first/canonicalizer --output runs/cifar-c8",
        f"cifar evaluate --group C8 {CIFAR.format('cifar-c8')} --limit 2000 --check 4 --tune 800",
    ),
    "peer-cifar": (f"peer_cifar --peer {PEER} --minutes 10",),
    "setups": ("setups --epochs 2 --ready runs/cifar-c4/canonicalizer",),
    "headline": (
        "headline train --steps 2000",
        "headline lite --ready runs/headline-c8/canonicalizer --epochs 2 --pictures 15000",
        "headline vit --ready runs/headline-c8/canonicalizer --epochs 1 --pretraining 3 --pictures 10000",
    ),
    "ablations": ("ablations",),
    "baselines": (f"baselines {CIFAR.format('cifar-c4')} --limit 1000",),
    "confidence": ("confidence",),
    "photo": ("photo --threads 1",),
    "segmentation": ("segmentation",),
    "ocr": ("ocr",),
    "energies": ("energies cifar --epochs 4", "energies tiny --epochs 0"),
    "distilled": ("distilled --threads 1",),
    "mirrored": ("mirrored --threads 1",),
    "photo-angles": ("photo_angles --threads 1",),
    "pose-error": (
        "pose_error --steps 750",
        "pose_error --group SO2xscale --steps 450 --output runs/so2xscale-tiny",
    ),
    "rotated-mnist": ("rotated_mnist --steps 450 --limit 4000",),
    "angles": ("angles --steps 3000 --limit 1000",),
    "hue-scale": (
        "hue_scale hue --limit 200 --train 6000 --epochs 3",
        "hue_scale scale --limit 80 --train 4000 --epochs 5",
    ),
    "clouds": ("clouds --threads 1",),
    "streaming": ("streaming speed", "streaming memory"),
    "deploy": ("deploy --threads 1",),
    "serve": ("serve",),
    "shapes": ("shapes", "shapes parts"),
    "nbody": ("nbody",),
    "volumes": ("volumes",),
}
"""Name: commands after ``python -m benchmarks.``, in order; trained canonicalizers are used further down."""


def chosen_names(wanted: list[str]) -> list[str]:
    unknown = [w for w in wanted if not any(name.startswith(w) for name in BENCHES)]
    if unknown:
        raise SystemExit(f"no benchmark begins with {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    return [name for name in BENCHES if not wanted or any(name.startswith(w) for w in wanted)]


def run(command: str, peer: str | None) -> str:
    """Run one command; say how it ended."""
    if PEER in command:
        if peer is None:
            return "skipped: no --peer"
        command = command.replace(PEER, peer)
    words = shlex.split(command)
    done = subprocess.run([sys.executable, "-m", f"benchmarks.{words[0]}", *words[1:]])
    return "ok" if done.returncode == 0 else f"failed ({done.returncode})"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("names", nargs="*", help="beginnings of names; default: all")
    options.add_argument("--peer", help="python of an environment with equiadapt 0.1.2")
    options.add_argument("--list", action="store_true", help="print the commands and end")
    chosen = options.parse_args()
    summary = Table("benchmark", "command", "minutes", "result", title="Benchmarks")
    failed = False
    for name in chosen_names(chosen.names):
        for command in BENCHES[name]:
            if chosen.list:
                print(f"python -m benchmarks.{command}")
                continue
            began = time.time()
            result = run(command, chosen.peer)
            failed |= result.startswith("failed")
            summary.add_row(name, command, f"{(time.time() - began) / 60:.1f}", result)
    if chosen.list:
        return
    subprocess.run([sys.executable, "-m", "benchmarks.table"], check=True)
    Console().print(summary)
    print(f"results in {RESULTS}; data in {DATA}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
