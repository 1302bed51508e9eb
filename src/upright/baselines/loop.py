"""The training loop of the baselines: AdamW with a cosine schedule, losses by epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .._checks import check_positive


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """How a baseline is trained.

    Attributes:
        epochs: Passes over the data.
        batch_size: Pictures a step.
        learning_rate: Peak of the learning rate, which falls to 0 along a cosine.
        weight_decay: Weight decay.
        seed: Source of the order and of all draws.
    """

    epochs: int = 10
    batch_size: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate"):
            check_positive(name, getattr(self, name))

    def generator(self) -> torch.Generator:
        """Return a new source of draws."""
        return torch.Generator().manual_seed(self.seed)

    def batches(self, data: Any, generator: torch.Generator) -> Iterable[tuple[Tensor, Tensor | None]]:
        """Return batches ``(pictures, labels or None)``, shuffled anew each time they are gone through."""
        from ..data import loader

        found: Iterable[tuple[Tensor, Tensor | None]] = loader(
            data, self.batch_size, shuffle=True, generator=generator
        )
        return found

    def run(
        self,
        module: nn.Module,
        batches: Callable[[], Iterable[Any]],
        loss: Callable[[Any], Tensor],
        *,
        slower: Any = None,
    ) -> list[float]:
        """Train the parameters of a module that take gradients.

        Args:
            module: What is trained; it is in evaluation mode afterwards.
            batches: Called once an epoch; returns the batches.
            loss: The loss of one batch.
            slower: A part of the module that is trained at a tenth of the rate; None: no part.

        Returns:
            The mean loss of every epoch.
        """
        slow = set() if slower is None else set(slower.parameters())
        weights = [p for p in module.parameters() if p.requires_grad]
        parts = [[p for p in weights if p not in slow], [p for p in weights if p in slow]]
        rates = [self.learning_rate, self.learning_rate / 10]
        optimizer = torch.optim.AdamW(
            [{"params": part, "rate": rate} for part, rate in zip(parts, rates, strict=True) if part],
            self.learning_rate, weight_decay=self.weight_decay,
        )  # fmt: skip
        history: list[float] = []
        module.train()
        with torch.enable_grad():
            for epoch in range(self.epochs):
                history.append(self._epoch(epoch, batches(), loss, optimizer))
        module.eval()
        return history

    def _epoch(
        self, epoch: int, batches: Iterable[Any], loss: Callable[[Any], Tensor], optimizer: Any
    ) -> float:
        losses: list[float] = []
        known: Any = batches if hasattr(batches, "__len__") else list(batches)
        for done, batch in enumerate(known):
            share = torch.tensor((epoch + done / len(known)) / self.epochs)
            for group in optimizer.param_groups:
                group["lr"] = group["rate"] * float(0.5 + 0.5 * torch.cos(torch.pi * share))
            value = loss(batch)
            optimizer.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(value.item())
        if not losses:
            raise ValueError("data must hold at least one picture to train on, got none")
        return sum(losses) / len(losses)


def labelled(batch: tuple[Any, Tensor | None]) -> tuple[Tensor, Tensor]:
    """Return pictures of one shape with their labels.

    Raises:
        ValueError: If there are no labels, or pictures have different shapes.
    """
    pictures, labels = batch
    if labels is None:
        raise ValueError(
            "this baseline is trained with labels, and the data has none; pass (pictures, labels)"
        )
    if not isinstance(pictures, Tensor):
        raise ValueError("pictures of a batch must have one shape; resize them in the transform")
    return pictures, labels


def each(pictures: Any) -> Iterator[Tensor]:
    """Yield pictures as batches of one shape."""
    if isinstance(pictures, Tensor):
        yield pictures
    else:
        yield from (picture.unsqueeze(0) for picture in pictures)
