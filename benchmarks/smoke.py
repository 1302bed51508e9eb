"""Run every benchmark once on tiny inputs, so that none of them rots.

    python -m benchmarks.smoke

Benchmarks on data sets are skipped, with a line that says so, where the data is absent.
"""

from __future__ import annotations

import subprocess
import sys

from benchmarks.record import DATA

ANYWHERE = (
    "exactness",
    "geometry",
    "overhead",
    "promptable",
    "throughput",
    "ocr",
    "volumes",
    "shapes",
    "shapes parts",
    "nbody",
    "clouds",
    "streaming speed",
    "streaming memory",
    "serve",
)
ON_DATA = (
    "networks",
    "cifar train",
    "cifar evaluate",
    "setups",
    "photo",
    "confidence",
    "segmentation",
    "energies cifar",
    "distilled",
    "mirrored",
    "photo_angles",
    "deploy",
    "pose_error",
    "rotated_mnist",
    "angles",
    "baselines",
    "headline train",
    "headline lite",
    "headline vit",
    "ablations",
    "hue_scale hue",
    "hue_scale scale",
)


def main() -> None:
    names = list(ANYWHERE)
    if DATA.is_dir():
        names += ON_DATA
    else:
        print(f"skipped {', '.join(ON_DATA)}: no data at {DATA}; set UPRIGHT_DATA")
    for name in names:
        module, *verb = name.split()
        command = [sys.executable, "-m", f"benchmarks.{module}", *verb, "--smoke"]
        done = subprocess.run(command, capture_output=True, text=True)
        print(f"{name}: {'ok' if done.returncode == 0 else 'failed'}", flush=True)
        if done.returncode:
            sys.exit(done.stdout + done.stderr)


if __name__ == "__main__":
    main()
