"""The LightningModule: one harness for canonicalization and for what it is compared with."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._checks import check_choice, check_positive
from ..actions import act
from ..adapter import Adapted
from ..canonicalizers import Canonicalizer, Pose
from ..data import split_batch
from ..groups.base import FiniteGroup
from ..groups.product import moves_plane_only, reflects
from ..kinds import Border, Image
from ..kinds_space import Cloud
from ..losses import (
    consistency_loss,
    orthogonality_loss,
    prior_loss,
    score_function_loss,
)
from ..priors import Prior
from .augment import DestroyArtefacts, JitterPoints
from .poses import identity_metrics, in_range, small, turned_back

Setup = Literal["prior", "joint", "joint_no_prior", "augment", "vanilla"]
SETUPS: tuple[Setup, ...] = ("prior", "joint", "joint_no_prior", "augment", "vanilla")
Augment = Callable[[Tensor, torch.Generator], Tensor]
"""Changes a batch ``(B, C, H, W)``; draws only from the generator."""


class CanonicalizationModule(L.LightningModule):  # type: ignore[misc]
    """Trains the canonicalizer, the predictor, or both.

    Only what is trained is a part of the module, so checkpoints hold nothing else, and a frozen predictor is
    neither run, nor moved, nor switched between modes.

    Args:
        robust: The adapted model; it is trained in place.
        setup: ``"prior"``: the canonicalizer alone, from upright pictures without labels. ``"joint"``:
            together with the predictor. ``"joint_no_prior"``: the same without the prior. ``"augment"``: the
            predictor alone, on randomly turned pictures. ``"vanilla"``: the predictor alone, on pictures as
            they are.
        prior: Poses of the pictures; default: all upright.
        prior_weight: Weight of the prior loss.
        orthogonality_weight: Weight of the orthogonality loss, for networks that give vectors.
        consistency_weight: Weight of the consistency loss: the posterior must not change when artefacts are
            destroyed, nor, for groups that resample, when the picture is moved and the posterior with it.
        augment: What the canonicalizer sees instead of the picture while training: True for
            `DestroyArtefacts` (without its changes of colour where the group moves colours), for clouds
            `JitterPoints`, for volumes nothing; False for the picture itself, or a callable ``(pictures,
            generator)``.
        predictor_augment: Applied to the pictures of a predictor that is trained, such as `CropAndFlip`.
        loss: Task loss of each picture, ``(output, labels) -> (B,)``; default: cross-entropy.
        optimizer: ``"adamw"`` or ``"sgd"`` (with Nesterov momentum 0.9).
        schedule: ``"cosine"`` (linear warm-up, then down to zero) or ``"constant"``.
        learning_rate: Peak for the canonicalizer.
        predictor_learning_rate: Peak for the predictor; default: a tenth of ``learning_rate``.
        weight_decay: Of weights; biases and normalisation have none.
        warmup: Share of the steps that warm up.
        border: What lies outside pictures that ``"augment"`` turns.
        seed: Decides every random draw, together with the number of the step and of the process.
    """

    def __init__(
        self,
        robust: Adapted,
        *,
        setup: Setup = "prior",
        prior: Prior | None = None,
        prior_weight: float = 1.0,
        orthogonality_weight: float = 0.0,
        consistency_weight: float = 0.0,
        augment: bool | Augment = True,
        predictor_augment: Augment | None = None,
        loss: Callable[[Any, Tensor], Tensor] | None = None,
        optimizer: str = "adamw",
        schedule: str = "cosine",
        learning_rate: float = 2e-3,
        predictor_learning_rate: float | None = None,
        weight_decay: float = 0.05,
        warmup: float = 0.1,
        border: Border = "edge",
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_choice("setup", setup, SETUPS)
        check_choice("optimizer", optimizer, ("adamw", "sgd"))
        check_choice("schedule", schedule, ("cosine", "constant"))
        check_positive("learning_rate", learning_rate)
        if setup != "prior" and not isinstance(robust.model, nn.Module):
            raise TypeError(
                f"setup={setup!r} trains the predictor, which must be a torch module, got "
                f"{type(robust.model).__name__}; use setup='prior'"
            )
        if consistency_weight and not isinstance(robust.group, FiniteGroup):
            raise ValueError(
                f"consistency_weight needs a finite group, got {robust.group}; on continuous groups the "
                "prior loss sees moved pictures already"
            )
        self._robust = (robust,)  # in a tuple: not a part of this module
        if setup in ("prior", "joint", "joint_no_prior"):
            self.canonicalizer = robust.canonicalizer
        if setup != "prior":
            self.predictor = robust.model
        if not any(p.requires_grad for p in self.parameters()):
            raise ValueError(f"setup={setup!r} has nothing to train: no parameter of it requires a gradient")
        self.setup_name = setup
        self.prior, self.prior_weight = prior, 0.0 if setup == "joint_no_prior" else prior_weight
        self.orthogonality_weight, self.consistency_weight = orthogonality_weight, consistency_weight
        self.augment = _augmentation(augment, robust.canonicalizer)
        self.predictor_augment, self.task_loss = predictor_augment, loss or _cross_entropy
        self.optimizer_name, self.schedule_name = optimizer, schedule
        self.learning_rate = learning_rate
        self.predictor_learning_rate = predictor_learning_rate or learning_rate / 10
        self.weight_decay, self.warmup, self.border, self.seed = weight_decay, warmup, border, seed
        self._sums: dict[str, Any] = {}
        self._count, self._logged = 0, False

    @property
    def robust(self) -> Adapted:
        """The adapted model that is trained."""
        return self._robust[0]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss of a batch, and log the metrics."""
        pictures, labels = split_batch(batch)
        seed = _mixed(self.seed, self.global_step, self.global_rank)
        torch.default_generator.manual_seed(
            seed
        )  # for dropout and estimators: nothing depends on earlier draws
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        metrics = self._metrics(pictures, labels, torch.Generator(device=self.device).manual_seed(seed))
        if not bool(torch.isfinite(metrics["loss"].detach())):
            raise FloatingPointError(
                f"the loss became {float(metrics['loss'].detach())} at step {self.global_step}; lower "
                "learning_rate, check the pictures for infinite values, or resume from the last checkpoint"
            )
        self._count += len(pictures)
        for name, value in metrics.items():
            self._sums[name] = self._sums.get(name, 0.0) + len(pictures) * value.detach()
        return metrics["loss"]

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log the metrics of a batch that is not trained on."""
        pictures, labels = split_batch(batch)
        for name, value in self._metrics(pictures, labels, None).items():
            self.log(f"val_{name}", value, on_epoch=True, prog_bar=name == "loss", batch_size=len(pictures),
                     sync_dist=True)  # fmt: skip

    def on_train_epoch_start(self) -> None:
        """Start new means."""
        self._sums, self._count, self._logged = {}, 0, False

    def on_train_epoch_end(self) -> None:
        """Log the means of the epoch, unless a callback asked for them already."""
        self.log_means()

    def means(self) -> dict[str, float]:
        """Return the means of the metrics over the pictures of this epoch so far."""
        return {name: float(total) / self._count for name, total in self._sums.items()}

    def log_means(self) -> None:
        """Log the means over the pictures of this epoch: once, because logging every step is slow."""
        if not self._logged:
            for name, value in self.means().items():
                self.log(name, value, on_step=False, on_epoch=True, sync_dist=True)
        self._logged = True

    def configure_optimizers(self) -> Any:
        """Return the optimizer and its schedule."""
        groups = []
        for name, rate in (
            ("canonicalizer", self.learning_rate),
            ("predictor", self.predictor_learning_rate),
        ):
            part = getattr(self, name, None)
            trained = [p for p in part.parameters() if p.requires_grad] if part is not None else []
            for decay, chosen in ((self.weight_decay, True), (0.0, False)):
                parameters = [p for p in trained if (p.ndim > 1) == chosen]
                if parameters:
                    groups.append({"params": parameters, "lr": rate, "weight_decay": decay})
        optimizer: torch.optim.Optimizer
        if self.optimizer_name == "adamw":
            optimizer = torch.optim.AdamW(groups)
        else:
            optimizer = torch.optim.SGD(groups, momentum=0.9, nesterov=True)
        if self.schedule_name == "constant":
            return optimizer
        factor = _Cosine(int(self.trainer.estimated_stepping_batches), self.warmup)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note what the checkpoint is of."""
        checkpoint["upright"] = {"setup": self.setup_name, "group": str(self.robust.group)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse checkpoints of something else."""
        wanted = {"setup": self.setup_name, "group": str(self.robust.group)}
        if checkpoint.get("upright") != wanted:
            raise ValueError(f"the checkpoint must be one of {wanted}, got {checkpoint.get('upright')}")

    def _metrics(
        self, pictures: Any, labels: Tensor | None, generator: torch.Generator | None
    ) -> dict[str, Tensor]:
        """Return the loss and what is logged; without a generator, of the pictures as they are."""
        if self.setup_name == "prior":
            seen = small(pictures, self.canonicalizer)
            pose = self._upright_pose(self._degraded(seen, generator), generator)
            return self._pose_metrics(pose, seen, generator)
        if labels is None:
            raise ValueError(
                f"setup={self.setup_name!r} needs labels, got pictures without any; pass pairs (picture, "
                "label), or use setup='prior', which needs none"
            )
        if generator is not None and self.predictor_augment is not None:
            pictures = _on_batch(self.predictor_augment, pictures, generator)
        if self.setup_name in ("augment", "vanilla"):
            if self.setup_name == "augment" and generator is not None:
                pictures = self._turned(pictures, generator)
            return self._task_metrics(self.predictor(pictures), labels, None)
        robust = self.robust
        sees = _Degrading(robust.canonicalizer, lambda x: self._degraded(x, generator))
        conjugated = robust.replace(canonicalizer=sees, mode="canonical")
        run = conjugated.run(pictures)
        task = self._task_metrics(run.output, labels, run.pose)
        of_pose = self._pose_metrics(run.pose, pictures, generator)
        return {**of_pose, **task, "loss": task["loss"] + of_pose["loss"]}

    def _upright_pose(self, pictures: Any, generator: torch.Generator | None) -> Pose:
        """Return the poses of upright pictures, seen turned by random elements where turning resamples.

        On the grid a turned picture gives the same posterior, turned, by construction; off the grid that has
        to be learned. The posterior is turned back, so that the prior applies to it.
        """
        group = self.canonicalizer.group
        flat = self.canonicalizer.reads is Image  # clouds are not resampled
        if group.is_exact_on_grid or generator is None or not (flat and isinstance(pictures, Tensor)):
            return cast(Pose, self.canonicalizer(pictures))
        g = group.sample(len(pictures), generator=generator)
        moved = act(g, Image(pictures.float(), border=self.border)).data
        return turned_back(self.canonicalizer(moved), g)

    def _pose_metrics(
        self, pose: Pose, pictures: Any, generator: torch.Generator | None
    ) -> dict[str, Tensor]:
        loss = prior_loss(pose, self.prior)
        metrics = {"prior_loss": loss.detach(), **identity_metrics(pose)}
        loss = self.prior_weight * loss if self.prior_weight else torch.zeros_like(loss)
        if self.orthogonality_weight:
            if pose.features is None:
                raise ValueError(
                    "orthogonality_weight needs a network that gives vectors; build the canonicalizer with "
                    "options={'vector': D}"
                )
            metrics["orthogonality_loss"] = orthogonality_loss(pose.features)
            loss = loss + self.orthogonality_weight * metrics["orthogonality_loss"]
        if self.consistency_weight and generator is not None:
            metrics["consistency_loss"] = self._consistency(pose, pictures, generator)
            loss = loss + self.consistency_weight * metrics["consistency_loss"]
        return {"loss": loss, **metrics}

    def _consistency(self, pose: Pose, pictures: Any, generator: torch.Generator) -> Tensor:
        group = pose.group
        if isinstance(group, FiniteGroup) and not group.is_exact_on_grid and isinstance(pictures, Tensor):
            g = group.sample(len(pictures), generator=generator)
            moved = act(g, Image(pictures.float(), border=self.border)).data
            return consistency_loss(pose, self.canonicalizer(moved), moved_by=g)
        return consistency_loss(pose, self.canonicalizer(pictures))

    def _task_metrics(self, output: Any, labels: Tensor, pose: Pose | None) -> dict[str, Tensor]:
        losses = self.task_loss(output, labels)
        task = losses.mean()
        metrics = {"task_loss": task.detach()}
        logits = _logits(output)
        if logits is not None and labels.ndim == 1 and logits.ndim == 2:
            metrics["accuracy"] = (logits.argmax(-1) == labels).float().mean()
        if (
            pose is not None
            and getattr(self.canonicalizer, "estimator", "") == "score_function"
            and self.training
        ):
            if losses.shape != labels.shape[:1]:
                raise ValueError(
                    f"the score function needs the loss of each picture, got shape {tuple(losses.shape)}"
                )
            task = task + score_function_loss(losses, pose)
        return {"loss": task, **metrics}

    def _turned(self, pictures: Any, generator: torch.Generator) -> Any:
        g = self.robust.group.sample(len(pictures), generator=generator)
        kind: Any = self.robust.canonicalizer.reads
        settings = {"border": self.border} if kind is Image else {}
        if isinstance(pictures, Tensor):
            return act(g, kind(pictures, **settings)).data
        return [act(h, kind(picture, **settings)).data for h, picture in zip(g, pictures, strict=True)]

    def _degraded(self, pictures: Any, generator: torch.Generator | None) -> Any:
        if generator is None or self.augment is None:
            return pictures
        return _on_batch(self.augment, in_range(pictures, self.canonicalizer), generator)


class _Degrading(Canonicalizer):
    """A canonicalizer that sees changed copies of the pictures."""

    def __init__(self, canonicalizer: Canonicalizer, change: Callable[[Any], Any]) -> None:
        super().__init__(canonicalizer.group)
        self.reads = canonicalizer.reads  # type: ignore[misc]
        self.canonicalizer, self.change = canonicalizer, change

    def forward(self, x: Tensor | Sequence[Tensor]) -> Pose:
        """Choose the poses of the changed copies."""
        pose: Pose = self.canonicalizer(self.change(x))
        return pose


class _Cosine:
    """Factor of the learning rate: up linearly, then down to zero along a cosine."""

    def __init__(self, steps: int, warmup: float) -> None:
        self.steps, self.rise = max(steps, 1), max(1, round(warmup * steps))

    def __call__(self, step: int) -> float:
        if step < self.rise:
            return (step + 1) / self.rise
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - self.rise) / max(1, self.steps - self.rise))))


def _augmentation(augment: bool | Augment, canonicalizer: Canonicalizer) -> Augment | None:
    group = canonicalizer.group
    if isinstance(augment, bool):
        if canonicalizer.reads is Cloud:
            return JitterPoints() if augment else None
        if canonicalizer.reads is not Image:
            return None
        colours = {} if moves_plane_only(group) else {"colour": 0.0, "grey": 0.0}  # they are the pose
        return DestroyArtefacts(flip=not reflects(group), **colours) if augment else None
    return augment


def _on_batch(change: Augment, pictures: Any, generator: torch.Generator) -> Any:
    if isinstance(pictures, Tensor):
        return change(pictures, generator)
    return [change(picture.unsqueeze(0), generator).squeeze(0) for picture in pictures]


def _logits(output: Any) -> Tensor | None:
    if isinstance(output, Mapping):
        output = output["logits"] if "logits" in output else next(iter(output.values()))
    elif isinstance(output, tuple):
        output = output[0]
    return output if isinstance(output, Tensor) else None


def _cross_entropy(output: Any, labels: Tensor) -> Tensor:
    logits = _logits(output)
    if logits is None or logits.ndim != 2:
        raise TypeError(
            f"the default loss needs class scores (B, K), got {type(output).__name__}; pass loss=…"
        )
    return F.cross_entropy(logits.float(), labels, reduction="none")


def _mixed(*numbers: int) -> int:
    """Mix small numbers into one seed."""
    seed = 0x9E3779B9
    for number in numbers:
        seed = (seed ^ (number + 0x7F4A7C15)) * 0x5851F42D4C957F2D % 2**63
        seed ^= seed >> 29
    return seed
