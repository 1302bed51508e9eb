"""Streams on a Ray cluster: a batch function for ``ray.data``, and a run whose parts are Ray tasks.

Needs the package ``ray`` (extra ``[ray]``); only `canonicalize` imports it.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..canonicalizers import Canonicalizer
from ..priors import Prior
from .canonical import COLUMNS, Canonicalize
from .canonical import canonicalize as canonicalize_here
from .items import Item
from .run import Pace, Result, Summary, results
from .stores import Source

_ROW = tuple(name for name in COLUMNS if name not in ("path", "probabilities"))


class CanonicalizeBatch:
    """Sets the pictures of a batch upright: what ``ray.data.Dataset.map_batches`` calls.

    ``dataset.map_batches(CanonicalizeBatch, fn_constructor_kwargs={"column": "image"}, concurrency=2)`` makes
    one in every worker. Batches come and go as dictionaries of NumPy arrays, Ray's default.

    Args:
        canonicalizer: A canonicalizer of planar turns and flips, or the name or folder of a saved one.
        column: The pictures: encoded (bytes, or Hugging Face's ``{bytes, path}``), which stay in their
            format, or arrays ``(H, W, 3)`` uint8.
        prefix: How the names of the columns begin that are added: ``action``, ``degrees``, ``reflected``,
            ``confidence``, ``upright``, ``gated``, ``flagged``, ``error``. Bad items stay as they are.
        deployment_prior: How often each pose occurs in the data.
        workers: Threads that decode.
        **settings: ``gate``, ``within_degrees``, ``exif`` and ``quality`` of `upright.canonicalize`.
    """

    def __init__(
        self,
        canonicalizer: Canonicalizer | str = "photo-c4",
        *,
        column: str = "image",
        prefix: str = "pose_",
        deployment_prior: Prior | None = None,
        workers: int = 1,
        **settings: Any,
    ) -> None:
        from ..hub import load_canonicalizer

        chosen = (
            canonicalizer if isinstance(canonicalizer, Canonicalizer) else load_canonicalizer(canonicalizer)
        )
        chosen = chosen if deployment_prior is None else chosen.with_prior(deployment_prior)
        self.job = Canonicalize(chosen, **settings)
        self.column, self.prefix, self.workers = column, prefix, workers

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the batch with the pictures upright, and a column more for all that is known of their poses.

        Raises:
            KeyError: If there is no such column.
        """
        if self.column not in batch:
            raise KeyError(f"the batch has no column {self.column!r}; it has {', '.join(batch)}")
        cells = batch[self.column]
        arrays = len(cells) > 0 and isinstance(cells[0], np.ndarray)
        found = self._arrays(cells) if arrays else self._encoded(cells)
        new = np.empty(len(cells), object)
        for i, (cell, _) in enumerate(found):
            new[i] = cell
        added = {f"{self.prefix}{n}": np.array([row.get(n) for _, row in found], object) for n in _ROW}
        return {**batch, self.column: new, **added}

    def _encoded(self, cells: Sequence[Any]) -> list[tuple[Any, dict[str, Any]]]:
        items = [_item(str(i), cell) for i, cell in enumerate(cells)]
        pace = Pace(batch_size=max(len(items), 1), workers=self.workers)
        with ThreadPoolExecutor(self.workers) as pool:
            found = [result for _, result in results(self.job, items, pool, pace)]
        return [
            (_replaced(cell, result), result.row) for cell, result in zip(cells, found, strict=True) if result
        ]

    def _arrays(self, cells: Sequence[Any]) -> list[tuple[Any, dict[str, Any]]]:
        seen = [torch.from_numpy(np.ascontiguousarray(cell)).permute(2, 0, 1) for cell in cells]
        found = []
        for cell, verdict in zip(cells, self.job.judge(seen), strict=True):
            moved = cell if verdict.turn.move == 0 else np.array(verdict.turn.pixels(Image.fromarray(cell)))
            action = {0: "copied", -1: "recoded"}.get(verdict.turn.move, "turned")
            found.append((moved, {**verdict.row, "action": action}))
        return found


def canonicalize(
    source: Source,
    output: str,
    canonicalizer: Canonicalizer | str = "photo-c4",
    *,
    parts: int,
    cpus: float = 1.0,
    **settings: Any,
) -> list[Summary]:
    """Run `upright.canonicalize` in parts, each a Ray task; all machines reach source and output.

    A task whose worker dies is started again by Ray and goes on where it stopped; a later call does so, too.

    Args:
        source: See `upright.canonicalize`.
        output: The folder to write to.
        canonicalizer: A canonicalizer, or the name or folder of a saved one.
        parts: How many tasks.
        cpus: Cores that Ray sets aside for a task.
        **settings: Further arguments of `upright.canonicalize`.

    Returns:
        What each part came to.

    Raises:
        ImportError: If ``ray`` is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError(
            "running on Ray needs the package ray; install it: pip install 'upright[ray]'"
        ) from error
    task = ray.remote(num_cpus=cpus)(canonicalize_here)
    running = [
        task.remote(source, output, canonicalizer, part=f"{i + 1}/{parts}", **settings) for i in range(parts)
    ]
    finished: list[Summary] = ray.get(running)
    return finished


def _item(path: str, cell: Any) -> Item:
    data = cell.get("bytes") if isinstance(cell, dict) else cell

    def load() -> bytes:
        if not isinstance(data, bytes):
            raise ValueError("the cell is empty")
        return data

    return Item(path, load)


def _replaced(cell: Any, result: Result) -> Any:
    if result.data is None:
        return cell
    return {**cell, "bytes": result.data} if isinstance(cell, dict) else result.data
