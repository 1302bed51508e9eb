"""Accuracy as a function of the share of turned inputs, on which depends which decision is best."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ..actions import act
from ..adapter import Adapted
from ..canonicalizers import IdentityCanonicalizer
from ..confidence import Gate, deployment_prior, estimate_prior
from ..groups.parse import parse_planar_group
from ..kinds import Image
from .metrics import standard_error
from .recorded import record
from .scores import class_scores

Build = Callable[[Adapted, float, Tensor], Adapted]
"""Makes of the adapted model the one that is used where a share of the inputs is turned; the third argument
is a sample of such inputs, without labels."""
TURNED = (0.0, 0.02, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0)
"""Shares of turned inputs that are looked at."""


@dataclass(frozen=True)
class ShareCurve:
    """Accuracy over the share of turned inputs.

    Attributes:
        turned: The shares; turned inputs lie in each of the other poses alike.
        accuracy: Accuracy of every row at each of them.
        standard_error: Its standard error, by row; poses of one picture are not independent.
        passes: Mean number of passes of the model, by row.
        gated: Share of inputs that were left alone by a gate, by row.
        prior_upright: Share of upright inputs in the deployment prior, by row; -1 where there is none.
        pictures: Number of pictures.
    """

    turned: tuple[float, ...]
    accuracy: dict[str, tuple[float, ...]]
    standard_error: dict[str, tuple[float, ...]]
    passes: dict[str, tuple[float, ...]]
    gated: dict[str, tuple[float, ...]]
    prior_upright: dict[str, tuple[float, ...]]
    pictures: int

    def to_dict(self) -> dict[str, Any]:
        """Return the curve as plain data."""
        return asdict(self)

    def best(self, position: int) -> str:
        """Return the row of the highest accuracy at the share number ``position``."""
        return max(self.accuracy, key=lambda row: self.accuracy[row][position])


def with_given_prior(robust: Adapted, turned: float, sample: Tensor) -> Adapted:
    """Decide under the prior that is so."""
    return robust.with_prior(deployment_prior(robust.group, upright=1 - turned))


def with_estimated_prior(robust: Adapted, turned: float, sample: Tensor) -> Adapted:
    """Decide under the prior that the inputs themselves tell, without labels."""
    return robust.with_prior(estimate_prior(robust, sample, draws=1).prior)


def default_rows(robust: Adapted, gate: Gate | None = None, cover: float = 0.9) -> dict[str, Adapted | Build]:
    """Return the rows that `accuracy_by_share` compares.

    Args:
        robust: The adapted model.
        gate: Of the row "gate"; None: the model's own, or `Gate` at confidence 0.5.
        cover: Of the row "top_k"; where the model's own mode is ``"top_k"``, its own settings count.
    """
    one = robust.replace(mode="canonical", gate=None)
    one = one if one.canonicalizer.deployment_prior is None else one.with_prior(None)
    several = robust.replace(gate=None) if robust.mode == "top_k" else one.replace(mode="top_k", cover=cover)
    several = several if several.canonicalizer.deployment_prior is None else several.with_prior(None)
    return {
        "bare": one.replace(canonicalizer=IdentityCanonicalizer(robust.group)),
        "one pass": one,
        "gate": one.replace(gate=gate or robust.gate or Gate(threshold=0.5)),
        "prior given": lambda _, turned, sample: with_given_prior(one, turned, sample),
        "prior estimated": lambda _, turned, sample: with_estimated_prior(one, turned, sample),
        "top_k": several,
        "weighted": one.replace(mode="weighted"),
        "top_k, prior estimated": lambda _, turned, sample: with_estimated_prior(several, turned, sample),
        "average": one.replace(mode="average"),
    }


@torch.no_grad()
def accuracy_by_share(
    robust: Adapted,
    pictures: Tensor,
    labels: Tensor,
    *,
    turned: Sequence[float] = TURNED,
    rows: Callable[[Adapted], Mapping[str, Adapted | Build]] = default_rows,
    record_first: bool = True,
    seed: int = 0,
) -> ShareCurve:
    """Measure how accuracy depends on the share of turned inputs, for one pass, gates, priors and averages.

    The model runs once on every picture at each pose; everything else is tried on that record
    (`upright.evaluation.record`). Accuracy at a share is exact in expectation over which inputs are turned;
    priors are estimated from one sample in which every picture occurs once.

    Args:
        robust: The adapted classifier; its group must be exact on the pixel grid.
        pictures: Square upright pictures, shape ``(N, C, H, H)``; or the keys of a recorded model.
        labels: Classes, shape ``(N,)``.
        turned: Shares of turned inputs, in 0…1.
        rows: Makes the rows of the (recorded) adapted model: adapted models, or functions of the adapted
            model, the share, and a sample of inputs, for decisions that depend on the share.
        record_first: Whether to record; not for a model that is recorded already.
        seed: Seed of the sample.

    Raises:
        ValueError: If a share is out of range, or the numbers of pictures and labels differ.

    Reference:
        Saerens, Latinne and Decaestecker 2002, Neural Computation 14(1), for estimated priors.
    """
    if any(not 0 <= share <= 1 for share in turned):
        raise ValueError(f"turned must hold shares in 0…1, got {list(turned)}")
    if len(pictures) != len(labels):
        raise ValueError(f"labels must have {len(pictures)} entries, as many as pictures, got {len(labels)}")
    replayed, keys = record(robust, pictures) if record_first else (robust, pictures)
    group = parse_planar_group(replayed.group)
    moved = [act(g, Image(keys)).data for g in group.elements()]
    made = dict(rows(replayed))
    fixed = {name: _tables(row, moved, labels) for name, row in made.items() if isinstance(row, Adapted)}
    cells: dict[str, list[_Cell]] = {name: [] for name in made}
    for share in turned:
        sample = _sample(moved, share, seed)
        for name, row in made.items():
            if isinstance(row, Adapted):
                cells[name].append(_at(row, fixed[name], share))
            else:
                model = row(replayed, share, sample)
                cells[name].append(_at(model, _tables(model, moved, labels), share))
    columns = {
        field: {name: tuple(cell[i] for cell in row) for name, row in cells.items()}
        for i, field in enumerate(("accuracy", "standard_error", "passes", "gated", "prior_upright"))
    }
    return ShareCurve(turned=tuple(turned), pictures=len(labels), **columns)


_Cell = tuple[float, float, float, float, float]
_Tables = tuple[Tensor, Tensor, Tensor]


def _sample(moved: list[Tensor], share: float, seed: int) -> Tensor:
    """Return every picture once, a share of them turned: exactly that many, by poses drawn uniformly."""
    rng = torch.Generator().manual_seed(seed)
    count, order = len(moved[0]), len(moved)
    pose = torch.zeros(count, dtype=torch.long)
    chosen = torch.randperm(count, generator=rng)[: round(share * count)]
    if order > 1:
        pose[chosen] = torch.randint(1, order, (len(chosen),), generator=rng)
    return torch.stack(moved)[pose, torch.arange(count)]


def _tables(model: Adapted, moved: list[Tensor], labels: Tensor) -> _Tables:
    """Return what was right, the passes and what was left alone at every pose, each ``(N, |G|)``, float64."""
    right, passes, gated = [], [], []
    for keys in moved:
        parts = [model.run(part) for part in torch.split(keys, 256)]
        scores = torch.cat([class_scores(model, run.output, len(run.passes)) for run in parts])
        right.append(scores.argmax(-1).cpu() == labels)
        passes.append(torch.cat([run.passes for run in parts]).cpu())
        none = torch.zeros(len(keys), dtype=torch.bool)
        gated.append(none if parts[0].gated is None else torch.cat([run.gated.cpu() for run in parts]))  # type: ignore[union-attr]
    table = [torch.stack(column, 1).double() for column in (right, passes, gated)]
    return table[0], table[1], table[2]


def _at(model: Adapted, tables: _Tables, share: float) -> _Cell:
    """Return accuracy, its standard error, passes, the share left alone, and the prior's share upright."""
    order = tables[0].shape[1]
    weights = torch.full((order,), share / max(order - 1, 1), dtype=torch.float64)
    weights[0] = 1 - share if order > 1 else 1.0
    right, passes, gated = (table @ weights for table in tables)
    prior = model.canonicalizer.deployment_prior
    upright = -1.0 if prior is None else float(prior.log_probs(parse_planar_group(model.group))[0].exp())
    means = [float(x.mean()) for x in (right, passes, gated)]
    return means[0], standard_error(right), means[1], means[2], upright
