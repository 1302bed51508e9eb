"""One training step of equiadapt 0.1.2, timed. Runs in an environment of its own; prints JSON.

<peer's python> benchmarks/peer/equiadapt_step.py --network custom --steps 10
"""

import argparse
import json
import statistics
import time
from types import SimpleNamespace

import torch

library = torch.library.Library("torchvision", "DEF")  # its torchvision has no operators beside a CPU torch
library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from equiadapt.images.canonicalization.discrete_group import (  # noqa: E402
    GroupEquivariantImageCanonicalization,
)
from equiadapt.images.canonicalization_networks import custom_equivariant_networks  # noqa: E402


def network(kind, rotations):
    if kind == "custom":
        made = custom_equivariant_networks.CustomEquivariantNetwork(
            (3, 32, 32), 16, 5, group_type="rotation", num_rotations=rotations, num_layers=3, device="cpu"
        )
        made.group_type, made.num_rotations = "rotation", rotations
        return made
    from equiadapt.images.canonicalization_networks import escnn_networks

    return escnn_networks.ESCNNEquivariantNetwork(
        (3, 32, 32), 32, 5, group_type="rotation", num_rotations=rotations, num_layers=3
    )


def learner(kind, rotations):
    """Return a canonicalization of 32×32 pictures and its optimizer, with the peer's own settings."""
    settings = SimpleNamespace(beta=1.0, input_crop_ratio=0.9, resize_shape=32, network_type=kind)
    made = GroupEquivariantImageCanonicalization(network(kind, rotations), settings, (3, 32, 32))
    return made, torch.optim.AdamW(made.parameters(), lr=1e-3)


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--network", choices=["custom", "e2cnn"], default="custom")
    options.add_argument("--rotations", type=int, default=4)
    options.add_argument("--batch", type=int, default=128)
    options.add_argument("--steps", type=int, default=10)
    options.add_argument("--threads", type=int, default=2)
    options = options.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    canonicalization, optimizer = learner(options.network, options.rotations)
    x = torch.rand(options.batch, 3, 32, 32)
    times = []
    for _ in range(options.steps + 2):
        began = time.perf_counter()
        canonicalization.canonicalize(x)
        loss = canonicalization.get_prior_regularization_loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        times.append(time.perf_counter() - began)
    seconds = statistics.median(times[2:])
    print(
        json.dumps(
            {
                "network": options.network,
                "parameters": sum(p.numel() for p in canonicalization.parameters()),
                "images_per_second": round(options.batch / seconds, 1),
                "step_ms": round(1e3 * seconds, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
