"""``fit``: train an adapted model with one call."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from .._checks import check_choice, check_positive
from ..adapter import Adapted
from ..canonicalizers import Canonicalizer, NetworkCanonicalizer
from ..priors import IdentityPrior, Prior
from .surroundings import quiet, seeded, training_mode

if TYPE_CHECKING:  # Lightning takes seconds to import
    from .module import Augment, CanonicalizationModule, Setup

LAST = "last.ckpt"


@dataclass(frozen=True)
class FitResult:
    """What training gave, besides the weights, which are in the model.

    Attributes:
        history: Metrics of every epoch: ``loss``, ``prior_loss``, ``identity_rate`` (ties not counted),
            ``ties``, ``accuracy`` where the predictor is trained, and the same with ``val_``.
        checkpoint: The last checkpoint, from which training can be resumed; None without ``output``.
        seconds: Time of the whole call.
        images_per_second: Training pictures a second, without validation.
        temperature: The calibrated temperature of the posterior; None if it was not calibrated.
    """

    history: list[dict[str, float]] = field(repr=False)
    checkpoint: Path | None
    seconds: float
    images_per_second: float
    temperature: float | None = None


def fit(
    robust: Adapted | Canonicalizer,
    train_data: Any,
    *,
    val_data: Any = None,
    setup: Setup = "prior",
    prior: Prior | None = None,
    prior_weight: float = 1.0,
    orthogonality_weight: float = 0.0,
    consistency_weight: float = 0.0,
    augment: bool | Augment = True,
    predictor_augment: Augment | None = None,
    loss: Callable[[Any, Tensor], Tensor] | None = None,
    epochs: int = 10,
    max_steps: int = -1,
    batch_size: int = 128,
    optimizer: Literal["adamw", "sgd"] = "adamw",
    schedule: Literal["cosine", "constant"] = "cosine",
    learning_rate: float = 2e-3,
    predictor_learning_rate: float | None = None,
    weight_decay: float = 0.05,
    gradient_clip: float | None = 1.0,
    average: float | None = None,
    calibrate: bool = True,
    held_back: float = 0.02,
    patience: int | None = None,
    monitor: str = "val_loss",
    output: str | Path | None = None,
    resume: str | Path | bool | None = None,
    seed: int = 0,
    precision: str = "32-true",
    accelerator: str = "auto",
    devices: Any = 1,
    strategy: str = "auto",
    num_workers: int = 0,
    channels_last: bool = True,
    progress: bool = True,
    callbacks: Sequence[Any] = (),
    trainer_options: Mapping[str, Any] | None = None,
) -> FitResult:
    """Train an adapted model in place.

    With the default set-up only the canonicalizer is trained, from upright pictures without labels; the
    predictor is not run and not changed. `CanonicalizationModule` describes the set-ups and the arguments
    from ``setup`` to ``loss`` and from ``optimizer`` to ``weight_decay``.

    Args:
        robust: The adapted model, or, with ``setup="prior"``, a canonicalizer alone.
        train_data: Anything that `upright.data.open_data` takes.
        val_data: The same, for validation after each epoch.
        setup: ``"prior"``, ``"joint"``, ``"joint_no_prior"``, ``"augment"`` or ``"vanilla"``.
        prior: Poses of the training pictures; default: all upright.
        prior_weight: Weight of the prior loss.
        orthogonality_weight: Weight of the orthogonality loss.
        consistency_weight: Weight of the consistency loss.
        augment: Whether, or how, artefacts are destroyed in what the canonicalizer sees.
        predictor_augment: Augmentation of what a trained predictor sees.
        loss: Task loss of each picture.
        epochs: Passes over the training data.
        max_steps: Stop after so many steps; -1: no limit.
        batch_size: Pictures a step and device.
        optimizer: ``"adamw"`` or ``"sgd"``.
        schedule: ``"cosine"`` with warm-up, or ``"constant"``.
        learning_rate: Peak learning rate of the canonicalizer.
        predictor_learning_rate: Peak of the predictor; default: a tenth of it.
        weight_decay: Weight decay.
        gradient_clip: Largest norm of the gradient; None: no limit.
        average: Decay of an exponential moving average of the weights (say 0.999), which is what validation
            sees and what remains; None: none.
        calibrate: Whether to fit the temperature of the posterior after training, on ``val_data`` or on
            pictures held back from training; only with the identity prior.
        held_back: Share of the training pictures held back for that, where there is no ``val_data``.
        patience: Stop when ``monitor`` has not improved for so many epochs, and keep the best weights; None:
            train to the end.
        monitor: Metric of early stopping; names with "rate" or "accuracy" are to grow, others to shrink.
        output: Folder for the last checkpoint and ``history.json``; None: no files.
        resume: A checkpoint to continue from; True: the last one in ``output``, if there is one.
        seed: Decides orders, augmentation and draws.
        precision: Such as ``"32-true"``, ``"bf16-mixed"`` or ``"16-mixed"``; scores stay in float32.
        accelerator: Lightning accelerator.
        devices: Number or list of devices.
        strategy: Lightning strategy, such as ``"ddp"`` or ``"ddp_spawn"``.
        num_workers: Processes that decode pictures.
        channels_last: Whether to train in the memory format that is faster for convolutions.
        progress: Whether to show a progress bar.
        callbacks: More Lightning callbacks.
        trainer_options: More arguments of the Lightning ``Trainer``.

    Returns:
        The history and the checkpoint.

    Raises:
        ValueError: If an argument does not fit, or labels are missing.
        FloatingPointError: If the loss stops being finite; the last checkpoint is kept.
        FileNotFoundError: If the data or the checkpoint does not exist.
        KeyboardInterrupt: On Ctrl-C; the last checkpoint is kept.
    """
    if isinstance(robust, Canonicalizer):
        check_choice("setup (of a canonicalizer without a predictor)", setup, ("prior",))
        robust = alone(robust)

    def make() -> CanonicalizationModule:
        from .module import CanonicalizationModule

        return CanonicalizationModule(
            robust, setup=setup, prior=prior, prior_weight=prior_weight, augment=augment,
            orthogonality_weight=orthogonality_weight, consistency_weight=consistency_weight,
            predictor_augment=predictor_augment, loss=loss, optimizer=optimizer, schedule=schedule,
            learning_rate=learning_rate, predictor_learning_rate=predictor_learning_rate,
            weight_decay=weight_decay, seed=seed,
        )  # fmt: skip

    return train(
        make, train_data, val_data=val_data, epochs=epochs, max_steps=max_steps, batch_size=batch_size,
        gradient_clip=gradient_clip, average=average, calibrate=calibrate, held_back=held_back,
        patience=patience, monitor=monitor, output=output, resume=resume, seed=seed, precision=precision,
        accelerator=accelerator, devices=devices, strategy=strategy, num_workers=num_workers,
        channels_last=channels_last, progress=progress, callbacks=callbacks, trainer_options=trainer_options,
    )  # fmt: skip


def train(
    make: Callable[[], CanonicalizationModule],
    train_data: Any,
    *,
    val_data: Any = None,
    epochs: int = 10,
    max_steps: int = -1,
    batch_size: int = 128,
    gradient_clip: float | None = 1.0,
    average: float | None = None,
    calibrate: bool = False,
    held_back: float = 0.02,
    patience: int | None = None,
    monitor: str = "val_loss",
    output: str | Path | None = None,
    resume: str | Path | bool | None = None,
    seed: int = 0,
    precision: str = "32-true",
    accelerator: str = "auto",
    devices: Any = 1,
    strategy: str = "auto",
    num_workers: int = 0,
    channels_last: bool = True,
    progress: bool = True,
    callbacks: Sequence[Any] = (),
    trainer_options: Mapping[str, Any] | None = None,
) -> FitResult:
    """Train the module that ``make`` makes, once seeded; for the other arguments see `fit`."""
    check_positive("epochs", epochs)
    check_positive("batch_size", batch_size)
    if patience is not None and val_data is None:
        raise ValueError(f"patience={patience} needs val_data to watch; pass val_data or patience=None")
    folder = None if output is None else Path(output)
    checkpoint = _checkpoint_to_resume(resume, folder)
    started = time.perf_counter()
    from .pictures import PictureModule, open_both

    with seeded(seed), quiet():
        module = make()
        calibrate = calibrate and _can_calibrate(module)
        training, validation, apart = open_both(train_data, val_data, held_back if calibrate else 0.0, seed)
        history, added = _callbacks(folder, average, patience, monitor)
        trainer = _trainer(
            folder=folder, callbacks=[*added, *callbacks], max_epochs=epochs, max_steps=max_steps,
            accelerator=accelerator, devices=devices, strategy=strategy, precision=precision,
            progress=progress, gradient_clip_val=gradient_clip, **(trainer_options or {}),
        )  # fmt: skip
        data = PictureModule(training, validation, batch_size=batch_size, num_workers=num_workers, seed=seed)
        with training_mode(module, channels_last):
            _run(trainer, module, data, checkpoint, history)
        temperature = _calibrated(module.canonicalizer, apart, batch_size) if calibrate and apart else None
    rows = history.rows or [{k: float(v) for k, v in trainer.callback_metrics.items()}]
    last = folder / LAST if folder is not None and (folder / LAST).exists() else None
    rate = history.images / max(history.seconds, 1e-9)
    return FitResult(rows, last, time.perf_counter() - started, rate, temperature)


def alone(canonicalizer: Canonicalizer) -> Adapted:
    """Return what trains a canonicalizer that has no predictor."""
    return Adapted(_no_predictor, canonicalizer)


def _checkpoint_to_resume(resume: str | Path | bool | None, folder: Path | None) -> Path | None:
    if resume is None or resume is False:
        return None
    if resume is True:
        if folder is None:
            raise ValueError("resume=True needs output, the folder of the checkpoint; pass output or a path")
        return folder / LAST if (folder / LAST).exists() else None
    path = Path(resume)
    path = path / LAST if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(
            f"no checkpoint {path} to resume from; pass resume=True to start where there is none"
        )
    return path


def _can_calibrate(module: CanonicalizationModule) -> bool:
    upright = module.prior is None or isinstance(module.prior, IdentityPrior)
    return upright and module.setup_name in ("prior", "joint") and isinstance(
        module.canonicalizer, NetworkCanonicalizer
    )  # fmt: skip


def _calibrated(canonicalizer: Any, apart: Any, batch_size: int) -> float:
    from .pictures import batches_of
    from .poses import small

    device = canonicalizer.temperature.device
    pictures = (small(x, canonicalizer) for x in batches_of(apart, batch_size))
    temperature: float = canonicalizer.calibrate(x.to(device) for x in pictures)
    return temperature


def _callbacks(
    folder: Path | None, average: float | None, patience: int | None, monitor: str
) -> tuple[Any, list[Any]]:
    from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

    from .callbacks import Averaging, History, KeepBest

    history = History(folder)
    added: list[Any] = [history]
    if average is not None:
        if not 0 < average < 1:
            raise ValueError(f"average must lie in (0, 1), got {average}; 0.999 suits long runs")
        added.append(Averaging(average))
    if patience is not None:
        mode = "max" if "rate" in monitor or "accuracy" in monitor else "min"
        added += [KeepBest(monitor, mode), EarlyStopping(monitor, mode=mode, patience=patience)]
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        added.append(
            ModelCheckpoint(folder, filename="last", save_top_k=1, save_on_train_epoch_end=True,
                            enable_version_counter=False)
        )  # fmt: skip
    return history, added


def _trainer(*, folder: Path | None, callbacks: list[Any], progress: bool, **options: Any) -> Any:
    import lightning as L

    from .callbacks import AtomicCheckpoints, Bar

    defaults: dict[str, Any] = {
        "logger": False,
        "enable_checkpointing": folder is not None,
        "enable_model_summary": False,
        "enable_progress_bar": progress,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,  # the data module divides the pictures itself
        "plugins": [AtomicCheckpoints()],
        "default_root_dir": folder or os.curdir,
    }
    bar = [Bar()] if progress else []
    return L.Trainer(callbacks=[*callbacks, *bar], **{**defaults, **options})


def _run(trainer: Any, module: Any, data: Any, checkpoint: Path | None, history: Any) -> None:
    """Train; Ctrl-C comes out as what it is, and not as the end of the process."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(module, datamodule=data, ckpt_path=None if checkpoint is None else str(checkpoint))
    except (AttributeError, LookupError, RuntimeError, TypeError) as error:
        if checkpoint is None or history.began:
            raise
        reason = shorten(str(error), 300, placeholder=" …")
        raise ValueError(f"{checkpoint} does not fit what is trained, or is damaged: {reason}") from error
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt("training was interrupted; the last checkpoint is kept") from error
        raise
    finally:
        try:
            signal.signal(signal.SIGINT, handler)
        except ValueError:  # not in the main thread, where nothing was changed
            pass


def _no_predictor(pictures: Any) -> Any:
    raise TypeError("a canonicalizer alone was trained; adapt a model to predict")
