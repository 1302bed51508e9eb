"""The peer's recipe on CIFAR-10, C4: its canonicalizer trained by its prior on the pictures that ours sees.

    python -m benchmarks.peer_cifar --peer <python of an environment with equiadapt 0.1.2> --minutes 10

The predictor is the published ResNet-20, frozen; pictures are those of ``benchmarks.cifar``. Reported for
each of the peer's networks: accuracy at every quarter turn, the share of upright pictures left as they are,
and the share of turned pictures whose canonical form is that of the upright one.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.cifar import correct, training_pictures
from benchmarks.models import cifar_resnet
from benchmarks.pictures import pictures
from benchmarks.record import parser, start, write
from upright import Cyclic, Image, act


def measured(network: str, options: Any) -> dict[str, Any]:
    x, y = pictures("cifar10", "test", limit=64 if options.smoke else options.limit)
    poses = [act(g, Image(x)).data for g in Cyclic(4).elements()]
    script = Path(__file__).parent / "peer" / "equiadapt_cifar.py"
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "train.npy", training_pictures(4).numpy())
        np.save(Path(folder) / "test.npy", torch.cat(poses).numpy())
        minutes = 0.1 if options.smoke else options.minutes
        command = [options.peer, str(script), folder, "--network", network, "--minutes", str(minutes),
                   "--threads", str(options.threads)]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        names = ("canonical", "angles")
        found = [torch.from_numpy(np.load(f"{folder}/{n}.npy", allow_pickle=False)) for n in names]
        canonical, angles = found[0].float().chunk(4), found[1].round().chunk(4)
    with torch.no_grad():
        accuracies = [round(correct(cifar_resnet(20), part, y), 2) for part in canonical]
    follows = [float(((a - angles[0]) % 360 == 90 * k).float().mean()) for k, a in enumerate(angles)]
    return {
        **json.loads(done.stdout.strip().splitlines()[-1]),
        "accuracy": accuracies,
        "orbit_mean": round(sum(accuracies) / 4, 2),
        "identity_rate": round(float((angles[0] == 0).float().mean()), 4),
        "pose_follows_the_turn": [round(f, 4) for f in follows],
    }


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--peer", required=True, help="python of an environment with equiadapt 0.1.2")
    options.add_argument("--minutes", type=float, default=10)
    options.add_argument("--limit", type=int, default=2000)
    options.add_argument("--networks", nargs="+", default=["custom", "e2cnn"])
    chosen = options.parse_args()
    start(chosen)
    figures = {network: measured(network, chosen) for network in chosen.networks}
    write("peer-cifar", figures, chosen, predictor="ResNet-20", pictures=chosen.limit, minutes=chosen.minutes)


if __name__ == "__main__":
    main()
