"""A source of pictures set upright, in its own layout, with a record of every pose."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..canonicalizers import Canonicalizer
from ..confidence import Gate
from ..groups.base import FiniteGroup
from ..groups.planar import PlanarGroup
from ..priors import Prior
from .encoded import Turn, turned
from .fingerprint import fingerprint
from .items import Item, Part
from .ledger import Ledger
from .look import seen_by
from .run import BAD, Job, Pace, Result, Summary, run
from .stores import Source, check_apart, open_store

COLUMNS = {
    "path": "string",
    "action": "string",
    "degrees": "double",
    "reflected": "bool",
    "confidence": "double",
    "upright": "double",
    "probabilities": "list<float>",
    "gated": "bool",
    "flagged": "bool",
    "error": "string",
}
"""A row of the manifest: how the picture lay (turned counter-clockwise by ``degrees``, after being mirrored
if ``reflected``) with which probability, the probability that it stood upright, those of the elements of a
finite group, whether a gate left it alone or flagged it, and what became of it: ``copied``, ``tagged`` (EXIF
orientation rewritten), ``turned`` without loss, ``recoded``, or ``bad``, and why."""


@dataclass(frozen=True)
class Verdict:
    """How a picture lies, and how it is moved."""

    row: dict[str, Any]
    turn: Turn


class Canonicalize(Job[Verdict]):
    """Sets pictures upright.

    Args:
        canonicalizer: What tells how they lie: one of a group of planar turns and flips.
        gate: Which are left alone, or flagged.
        within_degrees: Leave pictures alone that are turned by no more than this and not mirrored.
        exif: Rewrite the EXIF orientation instead of pixels, where that can be.
        quality: Of pictures that are compressed again; see `turned`.
        also: Whether other pictures move along.
        writes: Whether pictures are written at all.
        keep_bad: Whether bad items are written as they are.

    Raises:
        TypeError: If the canonicalizer is none of planar turns and flips of pictures.
        ValueError: If a setting is out of its range, or ``also`` is asked for where turns resample.
    """

    columns = COLUMNS
    counted = "action"

    def __init__(
        self,
        canonicalizer: Canonicalizer,
        *,
        gate: Gate | None = None,
        within_degrees: float = 0.0,
        exif: bool = False,
        quality: int | None = None,
        also: Sequence[str] = (),
        writes: bool = True,
        keep_bad: bool = False,
    ) -> None:
        if not isinstance(canonicalizer, Canonicalizer) or not isinstance(canonicalizer.group, PlanarGroup):
            of = getattr(canonicalizer, "group", type(canonicalizer).__name__)
            raise TypeError(f"canonicalizer must be one of planar turns and flips, such as C4, got {of}")
        if quality is not None and not 1 <= quality <= 100:
            raise ValueError(f"quality must lie in 1…100, got {quality}")
        if not 0 <= within_degrees < 180:
            raise ValueError(f"within_degrees must lie between 0 and 180, got {within_degrees}")
        if also and not canonicalizer.group.is_exact_on_grid:
            raise ValueError(
                f"also needs turns that move pixels exactly, got {canonicalizer.group}; leave it out"
            )
        self.canonicalizer = canonicalizer.eval()
        self.group: PlanarGroup = canonicalizer.group
        self.gate, self.within_degrees = gate, within_degrees
        self.exif, self.quality, self.also = exif, quality, tuple(also)
        self.writes, self.keep_bad = writes, keep_bad
        self.device = next(iter(canonicalizer.state_dict().values()), torch.zeros(())).device

    def settings(self) -> dict[str, Any]:
        """Return what decides about poses and files."""
        return {
            "task": "canonicalize",
            "group": str(self.group),
            "canonicalizer": fingerprint(self.canonicalizer),
            "deployment_prior": repr(self.canonicalizer.deployment_prior),
            "gate": None if self.gate is None else asdict(self.gate),
            "within_degrees": self.within_degrees,
            "exif": self.exif,
            "quality": self.quality,
            "also": list(self.also),
            "writes": self.writes,
            "keep_bad": self.keep_bad,
        }

    def see(self, data: bytes) -> Tensor:
        """Decode a picture to what the canonicalizer looks at."""
        return seen_by(self.canonicalizer, data)

    @torch.inference_mode()
    def judge(self, seen: list[Tensor]) -> list[Verdict]:
        """Tell how the pictures of a batch lie."""
        same = len({x.shape for x in seen}) == 1
        batch = torch.stack(seen).to(self.device) if same else [x.to(self.device) for x in seen]
        pose = self.canonicalizer(batch)
        gated = flagged = torch.zeros(len(seen), dtype=torch.bool)
        listed = (
            isinstance(self.group, FiniteGroup) and pose.candidates is None and pose.log_probs is not None
        )
        rows = {
            "degrees": self.group.angle(pose.element).rad2deg().tolist(),
            "reflected": self.group.is_reflected(pose.element).tolist(),
            "confidence": pose.confidence.tolist(),
            "upright": pose.near_identity().tolist(),
            "probabilities": pose.probs.tolist()
            if listed and isinstance(self.group, FiniteGroup)
            else [None] * len(seen),
        }
        if self.gate is not None:
            decided = self.gate.decide(pose, self.canonicalizer.deployment_prior)
            pose, gated, flagged = decided.pose, decided.gated, decided.flagged
        back = pose.element.inverse()
        moves, degrees = self.group.grid_moves(back).tolist(), self.group.angle(back).rad2deg().tolist()
        reflected = self.group.is_reflected(back).tolist()
        verdicts = []
        for i in range(len(seen)):
            row = {name: _rounded(values[i]) for name, values in rows.items()}
            row |= {"gated": bool(gated[i]), "flagged": bool(flagged[i]), "error": None}
            near = not reflected[i] and min(degrees[i] % 360, -degrees[i] % 360) <= self.within_degrees
            verdicts.append(Verdict(row, Turn(0) if near else Turn(moves[i], degrees[i], reflected[i])))
        return verdicts

    def finish(self, item: Item, data: bytes, verdict: Verdict) -> Result:
        """Move the picture and what goes with it."""
        if not self.writes:
            return Result({**verdict.row, "action": "copied" if verdict.turn.move == 0 else "turned"})
        new, action = turned(data, verdict.turn, exif=self.exif, quality=self.quality)
        also = tuple(
            None if x is None or verdict.turn.move == 0 else turned(x, verdict.turn)[0] for x in item.also
        )
        return Result({**verdict.row, "action": action}, None if new is data else new, also)

    def failed(self, item: Item, error: str) -> dict[str, Any]:
        """Return the row of a bad item."""
        return {**dict.fromkeys(COLUMNS), "action": BAD, "error": error}


def canonicalize(
    source: Source,
    output: str | os.PathLike[str] | None,
    canonicalizer: Canonicalizer | str = "photo-c4",
    *,
    manifest: str | os.PathLike[str] | None = None,
    gate: Gate | None = None,
    deployment_prior: Prior | None = None,
    within_degrees: float = 0.0,
    exif: bool = False,
    quality: int | None = None,
    column: str | None = None,
    also: Sequence[str] = (),
    keep_bad: bool = False,
    retry_bad: bool = False,
    limit: int | None = None,
    shard_size: int | None = None,
    part: str = "1/1",
    batch_size: int = 32,
    workers: int | None = None,
    progress: bool = False,
    dry_run: bool = False,
) -> Summary:
    """Set all pictures of a source upright, in its own layout; a call that was killed is resumed by the next.

    Memory does not grow with the source. Pictures that lie as they should are copied byte for byte, others
    turned as `upright.streaming.turned` says. What is written appears whole, under its name, and a shard's
    file in the manifest after all of its pictures; with the same arguments, a later call goes on after the
    last such file, and what is there in the end is the same as without the interruption.

    Args:
        source: A folder with pictures, Parquet files (Hugging Face's columns ``{bytes, path}``, or bytes) or
            tar files (WebDataset) in it, at any depth; or files, of one kind.
        output: The folder to write to; None: only the manifest is written.
        canonicalizer: A canonicalizer of planar turns and flips, or the name or folder of a saved one.
        manifest: The folder of the manifest: a Parquet file with a row a picture (`COLUMNS`) for every shard.
            Default: ``output`` with ``.manifest`` at its end.
        gate: Which pictures are left as they are, or flagged; see `Gate`.
        deployment_prior: How often each pose occurs in the source; see `upright.deployment_prior`.
        within_degrees: Leave pictures alone that are turned by no more than this and not mirrored.
        exif: Rewrite the EXIF orientation of JPEG and TIFF files instead of their pixels, for quarter turns
            and flips: without any loss, for readers that respect it.
        quality: Of JPEG and other lossy files that are compressed again, 1…100; default: the source's own
            tables in JPEG files, else 90.
        column: Which column, or extension in a tar file, holds the picture; default: found by name or type.
        also: Columns or extensions of pictures that move along, such as masks.
        keep_bad: Write pictures that cannot be read or turned as they are, instead of leaving them out.
        retry_bad: Do shards with bad items again, that may be good by now.
        limit: At most so many pictures, the first ones.
        shard_size: How many pictures are finished together, and lie in an output file. Default: 1,000 of a
            folder; Parquet and tar files keep their sizes and names.
        part: ``"i/n"``: only every n-th shard, from the i-th; for n processes or machines on one ``output``.
        batch_size: Pictures that are judged together.
        workers: Threads that decode and write; default: one a core, at most 16.
        progress: Show a progress bar, on a terminal.
        dry_run: Write nothing: look at the first 64 pictures that are left, and say what would become of
            them.

    Returns:
        What the run came to.

    Raises:
        FileNotFoundError: If the source does not exist, or holds no pictures.
        FileExistsError: If the output or the manifest holds something else.
        ValueError: If a run with other settings was begun there, another process is at work on the part, or
            an argument does not fit.
        TypeError: If the canonicalizer is none of planar turns and flips of pictures.
    """
    from ..hub import load_canonicalizer

    chosen = canonicalizer if isinstance(canonicalizer, Canonicalizer) else load_canonicalizer(canonicalizer)
    chosen = chosen if deployment_prior is None else chosen.with_prior(deployment_prior)
    job = Canonicalize(
        chosen, gate=gate, within_degrees=within_degrees, exif=exif, quality=quality, also=also,
        writes=output is not None, keep_bad=keep_bad,
    )  # fmt: skip
    target, record = _places(source, output, manifest)
    store = open_store(source, column=column, also=also, shard_size=shard_size, limit=limit)
    return run(
        job, store, Ledger(record, COLUMNS), target, part=Part.parse(part),
        pace=Pace(batch_size=batch_size, workers=workers), keep_bad=keep_bad, retry_bad=retry_bad,
        notes={"from": str(source), "to": str(output)}, progress=progress, dry_run=dry_run,
    )  # fmt: skip


def _places(
    source: Source, output: str | os.PathLike[str] | None, manifest: str | os.PathLike[str] | None
) -> tuple[Path | None, Path]:
    """Return where pictures and manifest go: nowhere below the source, nor above it."""
    if output is None and manifest is None:
        raise ValueError("no output; give one, or a manifest alone")
    target = None if output is None else Path(output).expanduser()
    record = Path(manifest).expanduser() if manifest is not None else Path(f"{target}.manifest")
    for written in filter(None, (target, record)):
        check_apart(source, written)
    return target, record


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [round(x, 6) for x in value]
    return round(value, 6) if isinstance(value, float) else value
