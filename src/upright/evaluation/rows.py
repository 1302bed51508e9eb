"""The ways to run a model on turned pictures: bare, averaged, weighted, adapted, with the true pose known.

A row is an entry in `ROWS`, or a `Row` handed to `upright.evaluate`: a name, and a function that makes of the
adapted model what is run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from .._checks import check_positive
from ..adapter import Adapted
from ..canonicalizers import Canonicalizer, EnergyCanonicalizer, Pose
from ..groups.base import Element, FiniteGroup
from .transformations import pose_grid

Build = Callable[[Adapted], Any]
"""Makes what a row runs of the adapted model, once an evaluation."""


@dataclass(frozen=True)
class Row:
    """One way to run a model.

    Attributes:
        name: The key in the report.
        build: Called with the adapted model; returns what is run: an `Adapted`, anything else with a method
            ``run(pictures)`` that returns a `upright.adapter.Run`, or a callable that runs the predictor once
            a picture.
        label: What it is called in tables; default: the name.
    """

    name: str
    build: Build
    label: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", self.label or self.name)

    @classmethod
    def fixed(cls, name: str, model: Any, label: str = "") -> Row:
        """Return a row that runs one model, whatever was adapted."""
        return cls(name, lambda robust: model, label)


class Proposals(Canonicalizer):
    """Proposes the same elements, equally likely, for every picture: what averages run over.

    Args:
        elements: The elements, shape ``(K,)``.
    """

    def __init__(self, elements: Element) -> None:
        super().__init__(elements.group)
        self.elements = elements

    def forward(self, x: Any) -> Pose:
        """Return the elements for every picture, the first as the chosen one."""
        device = x[0].device if len(x) else self.elements.device
        listed = self.elements.to(device).reshape(1, -1).expand(len(x), len(self.elements))
        log_probs = torch.zeros(listed.shape, device=device).log_softmax(-1)
        return Pose(listed[:, 0], log_probs, candidates=listed)


def averaged_over(robust: Adapted, elements: Element, evidence: float = 0.0) -> Adapted:
    """Return the model averaged over elements: ``mean_g g·φ(g⁻¹·x)``, each counted alike.

    Args:
        robust: The adapted model; its canonicalizer is not used.
        elements: The elements, shape ``(K,)``, of any group.
        evidence: How much the model's own certainty weighs; see `Adapted`.
    """
    return robust.replace(
        canonicalizer=Proposals(elements), mode="top_k", top_k=None, cover=None, evidence=evidence, gate=None
    )


def group_average(robust: Adapted) -> Adapted:
    """Return the mean over the group; over the grid of `pose_grid` where it is continuous."""
    return averaged_over(robust, pose_grid(robust.group))


def augmented(robust: Adapted, count: int | None = None, seed: int = 0) -> Adapted:
    """Return test-time augmentation: the mean over the picture as it is and a few random elements.

    Args:
        robust: The adapted model.
        count: How many elements, the identity among them; default: half of a finite group, 8 of others.
        seed: Source of the draws; all pictures share them.
    """
    group, generator = robust.group, torch.Generator().manual_seed(seed)
    if count is None:
        count = max(2, group.order // 2) if isinstance(group, FiniteGroup) else 8
    check_positive("count", count)
    if isinstance(group, FiniteGroup):
        drawn = 1 + torch.randperm(group.order - 1, generator=generator)[: count - 1]
        return averaged_over(robust, group.element(torch.cat([torch.zeros(1, dtype=torch.long), drawn])))
    values = [group.identity(1).value, group.sample(count - 1, generator=generator).value]
    return averaged_over(robust, Element(group, torch.cat(values)))


def posterior_average(robust: Adapted) -> Adapted:
    """Return the mean over all poses that the canonicalizer lists, weighted by their probabilities.

    Reference:
        The probabilities are weights ``λ(g⁻¹·x)`` as in Basu et al. 2023, arXiv 2305.09900, equation 3.
    """
    return robust.replace(mode="top_k", top_k=None, cover=None, evidence=0.0, gate=None)


def certainty_average(robust: Adapted, evidence: float = 4.0) -> Adapted:
    """Return λ-equitune with a given weight: ``λ(x) = exp(-evidence · H(φ(x)))``, ``H`` the entropy in nats.

    ``Φ(x) = Σ_g λ(g⁻¹·x) g·φ(g⁻¹·x) / Σ_g λ(g⁻¹·x)`` is equivariant for any ``λ``, as ``λ`` is a function of
    the turned picture alone. Class scores are needed.

    Reference:
        Basu et al. 2023, Efficient equivariant transfer learning from pretrained models, arXiv 2305.09900,
        equation 3.
    """
    return averaged_over(robust, pose_grid(robust.group), evidence)


def equizero(robust: Adapted, energy: str = "entropy") -> Adapted:
    """Return the model at the pose that it likes best itself: at the least energy of its own class scores.

    Args:
        robust: The adapted model; its canonicalizer is not used.
        energy: A name in `upright.energies.ENERGIES`.

    Reference:
        Basu et al. 2023, arXiv 2305.09900, section 4 (equizero).
    """
    chooser = EnergyCanonicalizer(energy, robust.group).of(robust.model)
    return robust.replace(canonicalizer=chooser, mode="canonical", gate=None)


ROWS: dict[str, Row] = {
    row.name: row
    for row in (
        Row("vanilla", lambda robust: robust.model, "bare model"),
        Row("equizero", equizero, "pose that the model likes best"),
        Row("average", group_average, "average over the group"),
        Row("posterior", posterior_average, "average by pose probability"),
        Row("lambda", certainty_average, "average by certainty (λ)"),
        Row("tta", augmented, "test-time augmentation"),
        Row("adapted", lambda robust: robust, "adapted"),
        Row("oracle", lambda robust: robust, "oracle (true pose known)"),
    )
}
"""Rows by name; add one by adding an entry. The oracle is the bare model on pictures turned back by their
true pose, its output moved forward again."""

DEFAULT_ROWS = ("vanilla", "average", "adapted", "oracle")
"""The rows that run where none are named."""


def chosen_rows(rows: Iterable[str | Row] | None) -> dict[str, Row]:
    """Return rows by name, given as such or by their names in `ROWS`.

    Raises:
        ValueError: If a name is unknown, or there is none.
    """
    if rows is None:
        rows = DEFAULT_ROWS
    given = [] if isinstance(rows, (str, Row)) else list(rows)
    unknown = [row for row in given if not isinstance(row, Row) and row not in ROWS]
    if not given or unknown:
        known = ", ".join(map(repr, ROWS))
        got = f"{unknown[0]!r}" if unknown else f"{rows!r}"
        raise ValueError(f"rows must be a non-empty sequence of {known} or upright.evaluation.Row, got {got}")
    found = [row if isinstance(row, Row) else ROWS[row] for row in given]
    return {row.name: row for row in found}
