"""Charged particles: canonicalized predictors against EGNN, with as many weights and as much time.

    python -m benchmarks.nbody

Five particles, from positions and velocities to positions 1000 steps later; 3000 systems to train on, 2000
others to test. Every model is trained for the same number of processor seconds, canonicalization included;
its width is the one with which it has as many weights as EGNN, or just fewer. Models take turns of half a
second, so that whatever else runs on the machine slows all of them alike. Errors are mean squares of
coordinates. All models start from particles that fly straight on.

Predictors that know no rotations are trained on systems that are turned and mirrored at random in every step,
which counts as their time, and adapted afterwards, which changes no weight.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import upright
from benchmarks.record import parser, rounded, start, write
from upright.actions import act
from upright.canonicalizers import PCAFrame
from upright.data.nbody import ParticleSet, make_particles, random_systems
from upright.groups import O3
from upright.kinds_space import Cloud, Vectors
from upright.nets.egnn import EGNN
from upright.nets.particles import ParticleGNN, ParticleTransformer

GROUP = "E3"
EXACTNESS = ("equivariance_median", "equivariance_worst", "others_median", "others_worst")
KINDS: dict[int | str, Any] = {"positions": "cloud", "velocities": "point_vectors"}
RIVALS: dict[str, Callable[[int], nn.Module]] = {
    "GNN": ParticleGNN,
    "transformer": lambda hidden: ParticleTransformer(hidden, heads=1),
}
RATE, BATCH, TURN = 5e-3, 100, 0.5
OTHERS = (2, 3, 20)
"""Numbers of bodies, one system at a time, on which exactness is measured too."""


def weights(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def as_large(make: Callable[[int], nn.Module], most: int) -> nn.Module:
    """Return the widest model with at most so many weights; widths are even."""
    width = 2
    while weights(make(width + 2)) <= most:
        width += 2
    return make(width)


@dataclass
class Training:
    """A model that is trained in turns; the learning rate falls with its own time."""

    model: nn.Module
    data: ParticleSet
    seconds: float
    seed: int
    turned: bool
    spent: float = 0.0
    steps: int = 0
    optimizer: torch.optim.Optimizer = field(init=False)
    rng: torch.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.Adam(self.model.parameters(), RATE)
        self.rng = torch.Generator().manual_seed(self.seed)

    def take_turn(self) -> None:
        began = time.process_time()
        turn = 0.0
        while turn < TURN and self.spent + turn < self.seconds:
            for group in self.optimizer.param_groups:
                group["lr"] = RATE * (1 - (self.spent + turn) / self.seconds) + 1e-5
            self.step()
            turn = time.process_time() - began
        self.spent += turn

    def step(self) -> None:
        index = torch.randint(len(self.data), (BATCH,), generator=self.rng)
        x, v, q, y = self.data[index]  # type: ignore[index]  # tensors are indexed by tensors
        if self.turned:
            turn = O3().sample(BATCH, generator=self.rng).matrix(x.dtype).mT
            x, v, y = x @ turn, v @ turn, y @ turn
        loss = F.mse_loss(self.model(x, v, q), y)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.steps += 1


def adapted(model: nn.Module) -> Any:
    """Return the model in the frame of principal axes of where particles are and where they go."""
    return upright.adapt(model, GROUP, canonicalizer=PCAFrame(GROUP), inputs=KINDS, outputs="cloud")


@torch.no_grad()
def measured(model: Any, data: ParticleSet) -> dict[str, float]:
    """Return the error, and how far the model is from E(3)-equivariant, relative to its shifts."""
    x, v, q, y = data.positions, data.velocities, data.charges, data.targets
    off = unequal(model, x, v, q)
    drawn = [random_systems(8, bodies, torch.Generator().manual_seed(1)) for bodies in OTHERS]
    others = torch.cat([unequal(model, *alone(system, i)).flatten() for system in drawn for i in range(8)])
    return {
        "mse": float(F.mse_loss(model(x, v, q), y)),
        "equivariance_median": float(off.median()),
        "equivariance_worst": float(off.max()),
        "others_median": float(others.median()),
        "others_worst": float(others.max()),
    }


def unequal(model: Any, x: Tensor, v: Tensor, q: Tensor) -> Tensor:
    """Return how far answers to moved systems are from moved answers, relative to the mean shift, (B, N)."""
    said = model(x, v, q)
    g = upright.E3().sample(len(x), generator=torch.Generator().manual_seed(0))
    moved: Tensor = model(act(g, Cloud(x)).data, act(g, Vectors(v)).data, q)
    return (moved - act(g, Cloud(said)).data).norm(dim=-1) / (said - x).norm(dim=-1).mean()


def alone(systems: tuple[Tensor, ...], index: int) -> list[Tensor]:
    """Return one of several systems, as a batch of one."""
    return [part[index : index + 1].float() for part in systems]


def train(data: ParticleSet, hidden: int, seconds: float, seed: int) -> dict[str, Training]:
    """Train every model for so long, all in turns."""
    torch.manual_seed(seed)
    egnn = EGNN(hidden)
    models: dict[str, tuple[nn.Module, bool]] = {"EGNN": (egnn, False)}
    for name, make in RIVALS.items():
        torch.manual_seed(seed)
        models[name] = as_large(make, weights(egnn)), True
    trainings = {name: Training(m, data, seconds, seed, turned) for name, (m, turned) in models.items()}
    while any(training.spent < seconds for training in trainings.values()):
        for training in trainings.values():
            training.take_turn()
    return trainings


def summary(runs: list[dict[str, float]]) -> dict[str, Any]:
    """Return errors of all seeds with mean and standard deviation; of exactness the worst of all."""
    errors = [run["mse"] for run in runs]
    return {
        "weights": int(runs[0]["weights"]),
        "mse": statistics.mean(errors),
        "mse_deviation": statistics.stdev(errors) if len(errors) > 1 else 0.0,
        "mse_of_seeds": errors,
        "steps": round(statistics.mean(run["steps"] for run in runs)),
        "step_ms": rounded(statistics.mean(run["step_ms"] for run in runs)),
        **{name: max(run[name] for run in runs) for name in EXACTNESS},
    }


def main() -> None:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--systems", type=int, default=3000)
    options.add_argument("--seconds", type=float, default=60.0)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--hidden", type=int, default=32)
    options = options.parse_args()
    if options.smoke:
        options.systems, options.seconds, options.seeds, options.hidden = 8, 0.3, 2, 8
    start(options)
    times = {"warmup": 20, "horizon": 10} if options.smoke else {}
    data = make_particles(options.systems, seed=options.seed, **times)
    test = make_particles(8 if options.smoke else 2000, seed=options.seed + 1000, **times)
    runs: dict[str, list[dict[str, float]]] = {}
    for seed in range(options.seed, options.seed + options.seeds):
        for name, training in train(data, options.hidden, options.seconds, seed).items():
            cost = {"steps": training.steps, "step_ms": 1e3 * training.spent / training.steps}
            results: dict[str, Any] = {name: training.model.eval()}
            if name in RIVALS:
                results[f"{name}, adapted"] = adapted(results[name])
            for title, model in results.items():
                figures = {"weights": weights(training.model), **cost, **measured(model, test)}
                runs.setdefault(title, []).append(figures)
                print(f"seed {seed}, {title}: {figures['mse']:.5f} after {training.steps} steps", flush=True)
    still, straight = test.positions, test.positions + test.velocities
    figures = {
        "systems": options.systems,
        "seconds": options.seconds,
        "standing still, mse": float(F.mse_loss(still, test.targets)),
        "straight on, mse": float(F.mse_loss(straight, test.targets)),
        **{name: summary(some) for name, some in runs.items()},
    }
    write("nbody", figures, options, load="other processes share the cores; models take turns")


if __name__ == "__main__":
    main()
