"""Retrieval: an embedding a picture; recall among the upright pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..._checks import check_positive
from ...adapter.spec import Size
from ...kinds import Invariant
from ..measures import Measured, Metric, Records, weighted_mean
from .base import Read, Task


def retrieval(*, at: Sequence[int] = (1, 5), read: Read | None = None) -> Task:
    """Return the task of finding pictures of the same kind by their embeddings.

    The model returns embeddings ``(B, D)``, compared by their cosine. Every turned picture looks for its
    nearest among the upright ones, which were embedded in the same way (row by row of the report). Targets
    are numbers or names of what is on the picture; a picture does not find itself, and one without another
    of its kind is left out. Without targets, a turned picture is to find itself upright.

    Args:
        at: How many of the nearest are looked at, one metric each.
        read: Makes embeddings ``(B, D)`` of the whole output, if it is none of the above; see `Task`.
    """
    for k in at:
        check_positive("at", k)
    return Task(
        name="retrieval",
        metrics=[Recall(f"recall@{k}", k) for k in at],
        entry=Invariant if read is None else None,
        read=read or _read,
        decide=_directions,
        refer=lambda prediction: None,
    )


@dataclass(frozen=True)
class Recall(Metric):
    """The share of pictures that find one of their kind among the ``k`` nearest upright pictures.

    Attributes:
        name: What it is called in tables.
        k: How many of the nearest are looked at.
    """

    name: str
    k: int
    lower_is_better: bool = False
    is_share: bool = True

    def record(self, prediction: Tensor, target: Any) -> tuple[Tensor, Any]:
        """Return the embedding and what is on the picture."""
        return prediction, target.item() if isinstance(target, Tensor) else target

    def values(self, records: Records, weights: Tensor) -> Tensor:
        """Return the shares over resamples of the pictures that look, shape ``(R, P)``."""
        hits, counts = self._hits(records)
        return weighted_mean(torch.where(counts, hits.double(), torch.nan), weights)

    def measure(self, records: Records) -> Measured:
        """Return the shares; they have a closed form."""
        hits, counts = self._hits(records)
        self.once(records)  # something must count
        return Measured.of(hits[:, counts].T)

    def _hits(self, records: Records) -> tuple[Tensor, Tensor]:
        """Return what was found, shape ``(P, N)``, and which pictures count, ``(N,)``, both bool."""
        targets = [target for _, target in records[0]]
        itself = any(target is None for target in targets)
        numbers = {target: i for i, target in enumerate(dict.fromkeys(targets))}
        kinds = torch.arange(len(targets)) if itself else torch.tensor([numbers[t] for t in targets])
        counts = torch.ones(len(kinds), dtype=torch.bool) if itself else kinds.bincount()[kinds] > 1
        gallery = torch.stack([embedding for embedding, _ in records[0]])
        found = []
        for column in records:
            embeddings = torch.stack([embedding for embedding, _ in column])
            parts = torch.split(torch.arange(len(kinds)), 1024)
            found.append(torch.cat([self._found(embeddings[i], gallery, i, kinds, itself) for i in parts]))
        return torch.stack(found), counts

    def _found(self, embeddings: Tensor, gallery: Tensor, i: Tensor, kinds: Tensor, itself: bool) -> Tensor:
        """Say which of the pictures ``i`` find their kind, shape ``(len(i),)``."""
        near = (embeddings @ gallery.T).nan_to_num(-torch.inf)  # (b, N)
        if not itself:
            near[torch.arange(len(i)), i] = -torch.inf
        nearest = near.topk(min(self.k, near.shape[1]))
        right = (kinds[nearest.indices] == kinds[i][:, None]) & (nearest.values > -torch.inf)
        return right.any(1)


def _directions(embeddings: Tensor) -> Tensor:
    return torch.nn.functional.normalize(embeddings.detach().float(), dim=-1).cpu()


def _read(output: Any, sizes: list[Size]) -> Tensor:
    if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != len(sizes):
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(
            f"the model must return embeddings of shape ({len(sizes)}, D), got {got}; "
            "upright.evaluation.retrieval(read=...) makes them of other outputs"
        )
    return output
