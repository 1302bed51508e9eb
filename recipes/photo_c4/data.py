"""Upright training pictures, re-encoded so that nothing but their content tells the pose.

Each variant of a picture: a random crop, resized by a random filter to a random size, saved as JPEG or WebP
of random quality and chroma subsampling *in a random quarter-turn pose*, turned back. So the compression
grid, chroma siting and resampling blur carry no information about the pose. While training follow a further
resampling (scale, aspect, shift, up to 5 degrees, mirror), blur, sharpening, chroma and contrast jitter and
noise.
"""

from __future__ import annotations

import io
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from upright.data.encode import through_file
from upright.integrations.efficientnet import PREPROCESS

DATA = Path(os.environ.get("UPRIGHT_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "upright-recipes" / "photo-c4"
FILTERS = tuple(Image.Resampling(n) for n in (2, 3, 1, 4, 5))  # bilinear, bicubic, Lanczos, box, Hamming
TRAINED = {"tiny-imagenet": 11_000, "imagenet1k-sample": 500}
"""How many training pictures are trained on; the rest is held back for calibration and choices."""


@dataclass(frozen=True)
class Source:
    """Prepared pictures of one kind.

    Attributes:
        pictures: uint8, shape ``(N, s, s, 3)``, mapped from disk.
        smallest: Smallest crop while training, as a share of the side.
        share: Share of a batch.
    """

    pictures: np.ndarray
    smallest: float
    share: float


def sources(smoke: bool = False) -> list[Source]:
    """Return what a batch is mixed from; prepared on first use (three minutes), then read from the cache."""
    tiny, photos = ("tiny-imagenet", "train"), ("imagenet1k-sample", "train")
    if smoke:
        few = np.stack([variant(p, _rng(0), 72, 0.75, (48, 110)) for p in read(*tiny, limit=32)])
        return [Source(few, 0.72, 1.0)]
    kept, photos_kept = TRAINED[tiny[0]], TRAINED[photos[0]]
    return [
        Source(_prepared("tiny-varied", *tiny, 3, 72, 0.75, (48, 110))[: 3 * kept], 0.78, 0.50),
        Source(_prepared("tiny", *tiny)[:kept], 0.68, 0.15),
        Source(_prepared("photos-varied", *photos, 14, 128, 0.45, (72, 220))[: 14 * photos_kept], 0.75, 0.23),
        Source(_prepared("cifar100", "cifar100", "train"), 0.8, 0.08),
        Source(_prepared("cifar10", "cifar10", "train"), 0.8, 0.04),
    ]


def held_back() -> dict[str, Tensor]:
    """Return upright training pictures that are not trained on, as EfficientNet-Lite0 takes them."""
    return {
        name: torch.stack([PREPROCESS(p) for p in read(name, "train")[kept:]])
        for name, kept in TRAINED.items()
    }


def batch(
    mix: list[Source],
    count: int,
    size: int,
    draws: np.random.Generator,
    rng: torch.Generator,
    overlaid: float = 0.0,
) -> Tensor:
    """Draw augmented pictures, shape ``(count, 3, size, size)``, values in [0, 1].

    A share ``overlaid`` of them is blended with another picture of the batch: both stand upright, so does
    their blend (mixup, Zhang et al. 2018, arXiv 1710.09412, with labels that agree).
    """
    shares = np.array([s.share for s in mix])
    parts = []
    for source, n in zip(mix, draws.multinomial(count, shares / shares.sum()), strict=True):
        if n:
            chosen = np.sort(draws.integers(0, len(source.pictures), n))
            parts.append(moved(source.pictures[chosen], size, source.smallest, rng))
    x = torch.cat(parts)
    if overlaid:
        weight = 0.5 * torch.rand(count, 1, 1, 1, generator=rng)
        weight = weight * (torch.rand(count, 1, 1, 1, generator=rng) < overlaid)
        x = x.lerp(x[torch.randperm(count, generator=rng)], weight)
    return recoloured(x, rng)


def moved(pictures: np.ndarray, size: int, smallest: float, rng: torch.Generator) -> Tensor:
    """Resample once: scale, aspect, shift, up to 5 degrees (30%: none), mirror."""
    n = len(pictures)
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div_(255)
    scale = torch.rand(n, generator=rng) * (1 - smallest) + smallest
    aspect = torch.exp((torch.rand(n, generator=rng) - 0.5) * 0.3)
    angle = (torch.rand(n, generator=rng) - 0.5) * (10 / 180 * math.pi)
    angle = torch.where(torch.rand(n, generator=rng) < 0.3, torch.zeros(()), angle)
    flip = torch.where(torch.rand(n, generator=rng) < 0.5, -1.0, 1.0)
    sx, sy = (scale * aspect.sqrt()).clamp(max=1), (scale / aspect.sqrt()).clamp(max=1)
    tx = (torch.rand(n, generator=rng) * 2 - 1) * (1 - sx)
    ty = (torch.rand(n, generator=rng) * 2 - 1) * (1 - sy)
    rows = [
        torch.stack([sx * angle.cos() * flip, -sx * angle.sin(), tx], 1),
        torch.stack([sy * angle.sin() * flip, sy * angle.cos(), ty], 1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1), [n, 3, size, size], align_corners=False)
    return F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)


def recoloured(x: Tensor, rng: torch.Generator) -> Tensor:
    """Jitter sharpness, chroma (10%: grey), contrast, brightness and noise, none of which tells a pose."""
    n = len(x)

    def draw(channels: int = 1) -> Tensor:
        return torch.rand(n, channels, 1, 1, generator=rng)

    line = torch.tensor([1.0, 2.0, 1.0])
    kernel = (line[:, None] * line[None] / 16).expand(3, 1, 3, 3)
    blurred = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), kernel, groups=3)
    x = blurred + (x - blurred) * torch.where(draw() < 0.3, torch.ones(()), draw() * 1.8 * (draw() < 0.8))
    grey = (x * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    shift = (draw(3) - 0.5) * 0.16
    x = grey + (x - grey) * torch.where(draw() < 0.1, torch.zeros(()), 0.5 + draw()) + shift
    x = (x - 0.5) * (0.6 + 0.8 * draw()) + 0.5 + (draw() - 0.5) * 0.3
    x = x + torch.randn(x.shape, generator=rng) * (draw() * 0.05 * (draw() < 0.5))
    return x.clamp_(0, 1)


def variant(
    picture: Image.Image, rng: np.random.Generator, side: int, smallest: float, between: tuple[int, int]
) -> np.ndarray:
    """Crop, resize by a random filter to a random side, re-encode in a random pose, resize to ``side``."""
    width, height = picture.size
    edge = min(width, height) * rng.uniform(smallest, 1.0)
    aspect = np.exp(rng.uniform(-0.12, 0.12))
    w, h = min(width, edge * aspect), min(height, edge / aspect)
    left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
    middle = int(rng.integers(between[0], between[1] + 1))
    box = (left, top, left + w, top + h)
    small = picture.resize((middle, middle), FILTERS[rng.integers(len(FILTERS))], box=box)
    again = reencoded(small, rng)
    if again.size[0] != side:
        again = again.resize((side, side), FILTERS[rng.integers(len(FILTERS))])
    return np.asarray(again)


def reencoded(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Save and read as JPEG (75%) or WebP, quality 50 to 95, in a random quarter-turn pose."""
    turn = int(rng.integers(4))
    turned, quality = np.rot90(np.asarray(picture), turn), int(rng.integers(50, 96))
    if rng.random() < 0.75:
        back = through_file(turned, "JPEG", quality=quality, subsampling=int(rng.integers(3)))
    else:
        back = through_file(turned, "WEBP", quality=quality, method=0)
    return Image.fromarray(np.rot90(back, -turn))


def read(name: str, split: str, limit: int | None = None) -> list[Image.Image]:
    """Read the RGB pictures of a parquet file."""
    file = DATA / name / f"{split}.parquet"
    if not file.exists():
        raise SystemExit(
            f"no data at {file}; point UPRIGHT_DATA at the folder that holds {name}/{split}.parquet"
        )
    rows = pq.read_table(file, columns=["image"]).slice(0, limit)["image"].to_pylist()
    return [Image.open(io.BytesIO(row["bytes"])).convert("RGB") for row in rows]


def _prepared(
    key: str,
    name: str,
    split: str,
    repeats: int = 0,
    side: int = 0,
    smallest: float = 1.0,
    between: tuple[int, int] = (0, 0),
) -> np.ndarray:
    """Return pictures as they are (``repeats`` 0) or so many variants of each, through the cache."""
    file = CACHE / f"{key}.npy"
    if not file.exists():
        pictures, rng = read(name, split), _rng(1)
        if repeats:
            made = [variant(p, rng, side, smallest, between) for p in pictures for _ in range(repeats)]
        else:
            made = [np.asarray(p) for p in pictures]
        CACHE.mkdir(parents=True, exist_ok=True)
        np.save(file.with_suffix(".part.npy"), np.stack(made))
        file.with_suffix(".part.npy").replace(file)
    array: np.ndarray = np.load(file, mmap_mode="r", allow_pickle=False)
    return array


def _rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)
