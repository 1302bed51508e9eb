"""Pictures to try things on: photos that installed packages bundle, and scenes that are drawn."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path

from PIL import Image, ImageDraw

_SIDE = 512
_PHOTOS = (
    ("palace", "A palace", "sklearn", "datasets/images/china.jpg"),
    ("hopper", "Grace Hopper", "matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
    ("cat", "A cat", "skimage", "data/chelsea.png"),
    ("coffee", "A cup of coffee", "skimage", "data/coffee.png"),
    ("rocket", "A rocket", "skimage", "data/rocket.jpg"),
    ("flower", "A flower, the same from all sides", "sklearn", "datasets/images/flower.jpg"),
)


@dataclass(frozen=True)
class Example:
    """A picture to try things on.

    Attributes:
        name: How it is asked for: letters, digits and dashes.
        title: What it shows.
        make: Makes the picture.
    """

    name: str
    title: str
    make: Callable[[], Image.Image]

    def file(self) -> tuple[bytes, str]:
        """Return the bytes of a picture file, and its media type."""
        return _file(self)


@lru_cache(maxsize=64)
def _file(example: Example) -> tuple[bytes, str]:
    picture = example.make().convert("RGB")
    form = "PNG" if max(picture.size) <= 64 else "JPEG"
    if form == "JPEG":
        picture.thumbnail((2 * _SIDE, _SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, form, **({"quality": 92} if form == "JPEG" else {}))
    return buffer.getvalue(), f"image/{form.lower()}"


def examples() -> tuple[Example, ...]:
    """Return the photos whose packages are installed; where there are few, a drawn scene too."""
    photos = [
        Example(name, title, partial(_photo, path))
        for name, title, package, file in _PHOTOS
        for path in _paths(package, file)
    ]
    return tuple(photos) if len(photos) > 2 else (Example("house", "A drawn house", house), *photos)


def _paths(package: str, file: str) -> list[Path]:
    """Return where a file of a package is, if it is anywhere; the package is not imported."""
    spec = find_spec(package)
    folders = [] if spec is None else spec.submodule_search_locations or []
    return [path for path in (Path(folder) / file for folder in folders) if path.is_file()][:1]


def _photo(path: Path) -> Image.Image:
    with Image.open(path) as photo:
        return photo.convert("RGB")


def house() -> Image.Image:
    """Draw a house under the sun: it has an up, a down, a left and a right."""
    side, fine = _SIDE, 2
    scene = Image.new("RGB", (fine * side, fine * side))
    pen = ImageDraw.Draw(scene)
    for y in range(fine * side):  # the sky is lighter towards the horizon
        share = y / (fine * side)
        pen.line([(0, y), (fine * side, y)], fill=(round(96 + 130 * share), round(160 + 75 * share), 240))

    def place(*points: int) -> list[int]:
        return [fine * p for p in points]

    pen.ellipse(place(370, 50, 450, 130), fill=(255, 206, 84))
    for x, y, r in ((96, 104, 34), (136, 88, 44), (180, 106, 32)):
        pen.ellipse(place(x - r, y - r, x + r, y + r), fill=(250, 252, 255))
    pen.rectangle(place(0, 380, 512, 512), fill=(104, 168, 84))
    pen.polygon(place(228, 512, 300, 512, 268, 396, 252, 396), fill=(214, 190, 150))
    pen.rectangle(place(150, 236, 370, 396), fill=(236, 222, 200))
    pen.rectangle(place(318, 150, 346, 220), fill=(140, 74, 60))
    pen.polygon(place(126, 240, 260, 132, 394, 240), fill=(178, 66, 54))
    pen.rectangle(place(236, 300, 286, 396), fill=(110, 70, 48))
    for left in (172, 304):
        pen.rectangle(place(left, 276, left + 44, 322), fill=(120, 176, 214), outline=(90, 62, 46), width=6)
        pen.line(place(left + 22, 276, left + 22, 322), fill=(90, 62, 46), width=6)
    pen.rectangle(place(432, 300, 446, 400), fill=(110, 78, 50))
    pen.ellipse(place(396, 220, 482, 330), fill=(62, 128, 66))
    return scene.resize((side, side), Image.Resampling.LANCZOS)
