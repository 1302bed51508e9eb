"""The benchmark data sets as tensors, decoded once and kept in the user's cache folder."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from benchmarks.record import DATA

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "upright-benchmarks"


def pictures(
    name: str, split: str, *, size: int | None = None, limit: int | None = None
) -> tuple[Tensor, Tensor]:
    """Return uint8 pictures ``(N, 3, s, s)`` and labels of a square data set, at ``size`` if given."""
    cached = CACHE / f"{name}-{split}-{size or 'as-is'}.pt"
    if not cached.exists():
        source = DATA / name / f"{split}.parquet"
        if not source.exists():
            raise SystemExit(
                f"no data at {source}; point UPRIGHT_DATA at the folder that holds {name}/{split}.parquet"
            )
        table = pq.read_table(source)
        column = "label" if "label" in table.column_names else "fine_label"
        decoded = [_decode(row["bytes"], size) for row in table["image"].to_pylist()]
        labels = (
            torch.tensor(table[column].to_pylist())
            if column in table.column_names
            else torch.zeros(len(decoded))
        )
        CACHE.mkdir(parents=True, exist_ok=True)
        torch.save((torch.stack(decoded), labels), cached)
    x, y = torch.load(cached, weights_only=True)
    return x[:limit], y[:limit]


def photos(name: str, split: str, limit: int | None = None) -> tuple[list[Image.Image], Tensor]:
    """Return PIL pictures of any shape, and labels."""
    table = pq.read_table(DATA / name / f"{split}.parquet").slice(0, limit)
    decoded = [Image.open(io.BytesIO(row["bytes"])).convert("RGB") for row in table["image"].to_pylist()]
    return decoded, torch.tensor(table["label"].to_pylist())


def _decode(data: bytes, size: int | None) -> Tensor:
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    if size is not None:
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        picture = picture.resize((size, size), Image.Resampling.BOX, (left, top, left + side, top + side))
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()
