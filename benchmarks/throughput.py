"""Prior-only training on pictures of CIFAR size: images a second of ``upright.fit`` and of the peer.

    python -m benchmarks.throughput --peer <python of an environment with equiadapt 0.1.2>

Ours is the whole call: batches, artefact-destroying augmentation, step. The peer's is its step alone
(canonicalize, prior loss, backward, optimizer) on a batch that is ready in memory.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import torch

import upright
from benchmarks.record import parser, start, write


def ours(network: str, precision: str, options: Any) -> dict[str, Any]:
    made = upright.canonicalizer("C4", network, size=32)
    robust = upright.adapt(lambda x: x, "C4", canonicalizer=made)
    data = torch.rand(256 if options.smoke else 4096, 3, 32, 32)
    result = upright.fit(
        robust,
        data,
        batch_size=128,
        epochs=options.epochs,
        precision=precision,
        calibrate=False,
        progress=False,
    )
    return {
        "parameters": sum(p.numel() for p in made.parameters()),
        "images_per_second": round(result.images_per_second, 1),
    }


def peer(network: str, options: Any) -> dict[str, Any]:
    script = Path(__file__).parent / "peer" / "equiadapt_step.py"
    command = [options.peer, str(script), "--network", network, "--threads", str(options.threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--peer", help="python of an environment with equiadapt 0.1.2")
    options.add_argument("--epochs", type=int, default=2)
    chosen = options.parse_args()
    start(chosen)
    figures: dict[str, Any] = {}
    for network in ("orbit", "group_cnn", "polar"):
        for precision in ("32-true", "bf16-mixed"):
            figures[f"upright {network} {precision}"] = ours(network, precision, chosen)
    if chosen.peer:
        for network in ("custom", "e2cnn"):
            figures[f"equiadapt {network}"] = peer(network, chosen)
        base = figures["upright orbit 32-true"]["images_per_second"]
        for network in ("custom", "e2cnn"):
            rate = figures[f"equiadapt {network}"]["images_per_second"]
            figures[f"ratio to equiadapt {network}"] = round(base / rate, 2)
    write("throughput", figures, chosen, batch=128, input="3x32x32")


if __name__ == "__main__":
    main()
