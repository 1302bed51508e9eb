"""EfficientNet-Lite0 on the photos of scikit-image, scikit-learn and matplotlib, turned to every pose."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from ..evaluation import Report, evaluate, plot_gallery, samples
from ..factory import adapt

PHOTOS: tuple[tuple[str, str], ...] = (
    ("skimage.data", "chelsea.png"),
    ("skimage.data", "coffee.png"),
    ("skimage.data", "rocket.jpg"),
    ("skimage.data", "motorcycle_left.png"),
    ("skimage.data", "astronaut.png"),
    ("skimage.data", "camera.png"),
    ("sklearn.datasets.images", "china.jpg"),
    ("sklearn.datasets.images", "flower.jpg"),
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
)
"""Photos that have an up and a down, by the package that bundles them."""


def bundled_photos() -> list[Any]:
    """Return the photos as RGB PIL pictures.

    Raises:
        ModuleNotFoundError: If scikit-image or scikit-learn is missing.
    """
    from PIL import Image

    photos = []
    for package, name in PHOTOS:
        try:
            file = resources.files(package).joinpath(name)
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"the demo shows photos of {package.split('.')[0]}: pip install 'upright[demo]'"
            ) from error
        with resources.as_file(file) as path, Image.open(path) as photo:
            photos.append(photo.convert("RGB"))
    return photos


def views(photo: Any, count: int) -> list[Any]:
    """Return the photo and up to eight overlapping squares of it, so that a few photos make a fair sample."""
    side = min(photo.size)
    squares = []
    for fraction in (1.0, 0.8):
        edge = round(side * fraction)
        spare = (photo.width - edge, photo.height - edge)
        places = [(0.0, 0.0), (1.0, 1.0), (1.0, 0.0), (0.0, 1.0)]
        for across, down in places:
            left, top = round(across * spare[0]), round(down * spare[1])
            squares.append((left, top, left + edge, top + edge))
    unique = list(dict.fromkeys(squares))
    return [photo, *(photo.crop(square) for square in unique)][:count]


def photo_demo(folder: Path, *, views_per_photo: int = 8) -> Report:
    """Adapt EfficientNet-Lite0 to quarter turns without any training; write a page and figures.

    Args:
        folder: Where ``photos.json``, ``photos.html``, ``photos-angles.png`` and ``photos-gallery.png`` go.
        views_per_photo: Crops of every photo.

    Returns:
        The report. The photos have no labels: it counts agreement with the bare model's answers upright.
    """
    from ..integrations.models import load_model

    loaded = load_model("efficientnet-lite0")
    photos = bundled_photos()
    pictures = torch.stack([loaded.preprocess(v) for photo in photos for v in views(photo, views_per_photo)])
    robust = adapt(loaded.model, "C4")
    report = evaluate(robust, pictures, batch_size=32)
    report.save(folder / "photos.json")
    report.plot_angles(folder / "photos-angles.png")
    whole = pictures[::views_per_photo]
    mean, std, names = (127 / 255,) * 3, (128 / 255,) * 3, loaded.class_names
    plot_gallery(robust, whole, folder / "photos-gallery.png", names, count=8, mean=mean, std=std)
    shown = samples(robust, whole, class_names=names, mean=mean, std=std)
    told = replace(report, setting=replace(report.setting, command="upright demo"))
    told.to_html(folder / "photos.html", shown)
    return report
