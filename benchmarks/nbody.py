"""Charged particles: canonicalized predictors against EGNN, with as many weights and as much time.

    python -m benchmarks.nbody

Five particles, from positions and velocities to positions 1000 steps later. Every model is trained for the
same number of processor seconds, its canonicalizer included, and its width is the one with which it has as
many weights as EGNN, or just fewer. Errors are mean squares of coordinates, on systems not trained on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import upright
from benchmarks.record import parser, start, write
from upright.actions import act
from upright.canonicalizers import PCAFrame
from upright.data.nbody import ParticleSet, make_particles
from upright.kinds_space import Cloud, Vectors
from upright.nets.egnn import EGNN
from upright.nets.particles import ParticleGNN, ParticleTransformer

MODELS: dict[str, Callable[[int], nn.Module]] = {
    "GNN": ParticleGNN,
    "transformer": ParticleTransformer,
}


def weights(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def as_large(make: Callable[[int], nn.Module], most: int) -> nn.Module:
    """Return the widest model with at most so many weights; widths are multiples of 4."""
    width = 4
    while weights(make(width + 4)) <= most:
        width += 4
    return make(width)


def adapted(model: nn.Module) -> Any:
    """Return the model in the frame of principal axes, about the centroid."""
    kinds = {"positions": "cloud", "velocities": "vectors"}
    return upright.adapt(model, "SE3", canonicalizer=PCAFrame("SE3"), inputs=kinds, outputs="cloud")


def train(model: Any, trained: nn.Module, data: ParticleSet, seconds: float, seed: int) -> int:
    """Train for so long; the learning rate falls with the time. Returns the number of steps."""
    rng = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(trained.parameters(), 2e-3)
    began, steps = time.process_time(), 0
    model.train()
    while (spent := (time.process_time() - began) / seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * (1 - spent) + 1e-5
        index = torch.randint(len(data), (100,), generator=rng)
        x, v, q, y = (a[index] for a in (data.positions, data.velocities, data.charges, data.targets))
        loss = F.mse_loss(model(x, v, q), y)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        optimizer.step()
        steps += 1
    model.eval()
    return steps


@torch.no_grad()
def measured(model: Any, data: ParticleSet) -> dict[str, float]:
    """Return the error, and how far the model is from SE(3)-equivariant, relative to its shifts."""
    x, v, q, y = data.positions, data.velocities, data.charges, data.targets
    said = model(x, v, q)
    g = upright.SE3().sample(len(x), generator=torch.Generator().manual_seed(0))
    moved: Tensor = model(act(g, Cloud(x)).data, act(g, Vectors(v)).data, q)
    off = (moved - act(g, Cloud(said)).data).norm(dim=-1) / (said - x).norm(dim=-1).mean()
    return {
        "mse": float(F.mse_loss(said, y)),
        "equivariance_median": float(off.median()),
        "equivariance_worst": float(off.max()),
    }


def main() -> None:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--systems", type=int, default=1000)
    options.add_argument("--seconds", type=float, default=60.0)
    options.add_argument("--hidden", type=int, default=32)
    options = options.parse_args()
    start(options)
    systems, seconds, hidden = (
        (8, 0.3, 8) if options.smoke else (options.systems, options.seconds, options.hidden)
    )
    times = {"warmup": 20, "horizon": 10} if options.smoke else {}
    data = make_particles(systems, seed=options.seed, **times)
    test = make_particles(max(8, systems // 2), seed=options.seed + 1000, **times)
    egnn = EGNN(hidden)
    most = weights(egnn)
    rows: dict[str, tuple[Any, nn.Module]] = {"EGNN": (egnn, egnn)}
    for name, make in MODELS.items():
        bare, inside = as_large(make, most), as_large(make, most)
        rows[name] = bare, bare
        rows[f"{name}, adapted"] = adapted(inside), inside
    figures: dict[str, Any] = {
        "systems": systems,
        "seconds": seconds,
        "standing still, mse": float(F.mse_loss(test.positions, test.targets)),
        "straight on, mse": float(F.mse_loss(test.positions + test.velocities, test.targets)),
    }
    for name, (model, trained) in rows.items():
        steps = train(model, trained, data, seconds, options.seed)
        figures[name] = {"weights": weights(trained), "steps": steps, **measured(model, test)}
    write("nbody", figures, options)


if __name__ == "__main__":
    main()
