"""What happens around training: history, averages, the best weights, files that are whole or absent."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from .._files import staged


class AtomicCheckpoints(TorchCheckpointIO):  # type: ignore[misc]
    """Writes beside the file and renames; reads plain data only."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint; an interruption leaves the earlier file as it was."""
        with staged(path) as new, new.open("wb") as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:
                if isinstance(error.__context__, OSError):  # a full disk, not what torch makes of it
                    raise error.__context__ from error
                raise

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint."""
        try:
            checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise ValueError(f"{path} is not a checkpoint that can be read: {reason}") from error
        return checkpoint


class History(L.Callback):  # type: ignore[misc]
    """Collects the metrics of every epoch, and how long training took.

    Attributes:
        rows: One entry an epoch.
        images: Pictures trained on.
        seconds: Time spent on them, without validation.
        began: Whether an epoch was begun, so that a checkpoint, if there was one, has been read.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.rows: list[dict[str, float]] = []
        self.images, self.seconds = 0, 0.0
        self.began, self._started = False, 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run continues from."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.rows = list(state_dict["rows"])

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Start the clock."""
        self.began, self._started = True, time.perf_counter()

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count."""
        pictures = batch[0] if isinstance(batch, (tuple, list)) else batch
        self.images += (
            len(next(iter(pictures.values())) if isinstance(pictures, dict) else pictures)
            * trainer.world_size
        )
        now = time.perf_counter()
        self.seconds, self._started = self.seconds + now - self._started, now

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Leave the time of validation out."""
        self._started = time.perf_counter()

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Add a row, and write the table."""
        if hasattr(pl_module, "log_means"):
            pl_module.log_means()
        metrics = {name: round(float(value), 6) for name, value in trainer.callback_metrics.items()}
        rate = {f"learning_rate_{i}": g["lr"] for i, g in enumerate(trainer.optimizers[0].param_groups[:1])}
        self.rows.append({"epoch": trainer.current_epoch + 1, "step": trainer.global_step, **metrics,
                          "learning_rate": next(iter(rate.values()))})  # fmt: skip
        if self.folder is not None and trainer.is_global_zero:
            with staged(self.folder / "history.json") as new:
                new.write_text(json.dumps(self.rows, indent=1))


class Bar(RichProgressBar):  # type: ignore[misc]
    """Shows the running means of the metrics."""

    def get_metrics(self, trainer: Any, pl_module: Any) -> dict[str, Any]:
        """Return what is shown beside the bar."""
        shown = ("loss", "identity_rate", "accuracy")
        running = {name: f"{value:.3f}" for name, value in pl_module.means().items() if name in shown}
        metrics: dict[str, Any] = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return {**running, **metrics}


class Averaging(L.Callback):  # type: ignore[misc]
    """Exponential moving average of the trained weights, used for validation and at the end.

    Args:
        decay: Share of the average that is kept at each step; early steps average over what there is.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.average: dict[str, Tensor] = {}
        self._raw: dict[str, Tensor] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the average."""
        return {"average": self.average}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.average = dict(state_dict["average"])

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Start from the weights as they are, or move what was loaded to their device."""
        state = pl_module.state_dict()
        self.average = {
            name: self.average.get(name, t).detach().clone().to(t.device) for name, t in state.items()
        }

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        """Follow the weights; counters and other integers are copied."""
        keep = min(self.decay, (1 + trainer.global_step) / (10 + trainer.global_step))
        for name, value in pl_module.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - keep)
            else:
                self.average[name].copy_(value)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Put the average in."""
        if self.average:
            self._raw = {name: t.detach().clone() for name, t in pl_module.state_dict().items()}
            pl_module.load_state_dict(self.average)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Put the weights back."""
        if self._raw:
            pl_module.load_state_dict(self._raw)
            self._raw = {}

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Keep the average."""
        if self.average:
            pl_module.load_state_dict(self.average)


class KeepBest(L.Callback):  # type: ignore[misc]
    """Remembers the weights with the best validation metric and puts them in at the end.

    Args:
        monitor: Name of the metric.
        mode: ``"min"`` or ``"max"``.
    """

    def __init__(self, monitor: str, mode: str) -> None:
        self.monitor, self.sign = monitor, 1.0 if mode == "min" else -1.0
        self.best = float("inf")
        self.weights: dict[str, Tensor] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the best weights."""
        return {"best": self.best, "weights": self.weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.best, self.weights = state_dict["best"], dict(state_dict["weights"])

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Compare."""
        value = trainer.callback_metrics.get(self.monitor)
        if value is not None and self.sign * float(value) < self.best:
            self.best = self.sign * float(value)
            self.weights = {name: t.detach().cpu().clone() for name, t in pl_module.state_dict().items()}

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Put the best weights in."""
        if self.weights:
            pl_module.load_state_dict(self.weights)
