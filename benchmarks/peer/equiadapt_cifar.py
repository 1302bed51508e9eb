"""Train a canonicalizer of equiadapt 0.1.2 by its prior and canonicalize pictures.

<peer's python> benchmarks/peer/equiadapt_cifar.py FOLDER --minutes 10 --network custom

FOLDER holds ``train.npy`` and ``test.npy``, uint8 ``(N, 3, 32, 32)``; ``canonical.npy`` (float16, in [0, 1])
and the chosen angles, ``angles.npy``, are written into it.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from equiadapt_step import learner


def flipped(x, generator):
    """Mirror half of the pictures left-right, as the peer's own recipe augments."""
    return torch.where(torch.rand(len(x), 1, 1, 1, generator=generator) < 0.5, x.flip(-1), x)


def main():
    options = argparse.ArgumentParser()
    options.add_argument("folder", type=Path)
    options.add_argument("--network", choices=["custom", "e2cnn"], default="custom")
    options.add_argument("--minutes", type=float, default=10)
    options.add_argument("--batch", type=int, default=128)
    options.add_argument("--threads", type=int, default=2)
    options = options.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    canonicalization, optimizer = learner(options.network, 4)
    train = torch.from_numpy(np.load(options.folder / "train.npy", allow_pickle=False))
    draws = torch.Generator().manual_seed(0)
    began, seen, rates = time.monotonic(), 0, []
    while (done := (time.monotonic() - began) / (60 * options.minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * (1 - done)
        x = train[torch.randint(len(train), (options.batch,), generator=draws)].float() / 255
        canonicalization.canonicalize(flipped(x, draws))
        loss = canonicalization.get_prior_regularization_loss()
        rates.append(float(canonicalization.get_identity_metric()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen += len(x)
    canonicalization.eval()
    canonical, angles = [], []
    with torch.no_grad():
        for part in torch.from_numpy(np.load(options.folder / "test.npy", allow_pickle=False)).split(100):
            canonical.append(canonicalization.canonicalize(part.float() / 255).half())
            angles.append(canonicalization.canonicalization_info_dict["group_element"]["rotation"])
    np.save(options.folder / "canonical.npy", torch.cat(canonical).numpy())
    np.save(options.folder / "angles.npy", torch.cat(angles).numpy())
    print(json.dumps({"pictures_seen": seen, "training_identity": round(float(np.mean(rates[-50:])), 4),
                      "parameters": sum(p.numel() for p in canonicalization.parameters())}))  # fmt: skip


if __name__ == "__main__":
    main()
