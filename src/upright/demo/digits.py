"""Digits of scikit-learn: a canonicalizer from scratch, and the set-ups of the literature compared."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .._files import write_file
from ..evaluation import evaluate
from ..factory import adapt, canonicalizer
from ..training import DestroyArtefacts, fit

SETUPS: dict[str, str] = {
    "vanilla": "fine-tuned as it is",
    "augment": "fine-tuned on turned digits",
    "joint_no_prior": "learned canonicalization, no prior",
    "joint": "learned canonicalization with prior",
    "prior": "canonicalization, predictor frozen",
}
"""Set-ups of `upright.fit` and what they are called in the table."""


def load_digits(size: int = 16) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return training and test pictures ``(N, 1, size, size)`` in [0, 1] with their labels.

    Raises:
        ModuleNotFoundError: If scikit-learn is missing.
    """
    try:
        from sklearn.datasets import load_digits as load
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the demo trains on the digits of scikit-learn: pip install 'upright[demo]'"
        ) from error
    data = load()
    x = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16
    x = torch.nn.functional.interpolate(x, size, mode="bilinear", align_corners=False)
    y = torch.tensor(data.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    train, test = order[:1297], order[1297:]
    return (x[train], y[train]), (x[test], y[test])


def small_network() -> nn.Module:
    """Return a small convolutional classifier that has no symmetry."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * 16, 10),
    )  # fmt: skip


def digits_demo(
    folder: Path, *, group: str = "C4", epochs: int = 12, progress: bool = False
) -> dict[str, Any]:
    """Train every set-up with the same budget; write ``digits.json`` and ``digits-angles.png``.

    Args:
        folder: Where the files go.
        group: The group.
        epochs: Passes over the 1,297 training digits, for each set-up; at least 4 for the network
            that they start from.
        progress: Whether to show progress bars.

    Returns:
        Per set-up: accuracy upright, over the orbit and at the worst pose, and the identity rate.
    """
    train, test = load_digits()
    torch.manual_seed(0)
    pretrained = small_network()
    options: dict[str, Any] = {
        "batch_size": 64,
        "learning_rate": 3e-3,
        "augment": DestroyArtefacts(flip=False, encode=0.0),  # a mirrored digit is none
        "progress": progress,
        "calibrate": False,
    }
    start = adapt(pretrained, group, canonicalizer="identity")
    fit(start, train, setup="vanilla", epochs=max(epochs, 4), predictor_learning_rate=3e-3, **options)
    rows: dict[str, Any] = {}
    for setup in SETUPS:
        torch.manual_seed(0)
        learned = setup not in ("vanilla", "augment")
        chosen = _canonicalizer(group) if learned else "identity"
        robust = adapt(copy.deepcopy(pretrained), group, canonicalizer=chosen)
        fit(robust, train, setup=setup, epochs=epochs, predictor_learning_rate=1e-3, **options)  # type: ignore[arg-type]
        report = evaluate(robust, test, rows=("vanilla", "adapted", "oracle"), leakage=False, overhead=False)
        row = report.rows["adapted" if learned else "vanilla"]
        rows[setup] = {
            "name": SETUPS[setup],
            "upright": row.upright.value,
            "orbit_mean": row.orbit_mean.value,
            "worst_pose": row.worst.accuracy.value,
            "identity_rate": report.canonicalizer.identity_rate.value if learned else None,
        }
        if setup == "prior":
            report.save(folder / "digits-report.json")
            report.plot_angles(folder / "digits-angles.png")
    write_file(
        folder / "digits.json", json.dumps({"group": group, "epochs": epochs, "rows": rows}, indent=2) + "\n"
    )
    return rows


def _canonicalizer(group: str) -> Any:
    return canonicalizer(group, size=16, channels=1, options={"widths": (16, 32, 48), "strides": (1, 2, 2)})
