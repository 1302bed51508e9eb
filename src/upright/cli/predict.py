"""``upright predict``: classify pictures however they lie, and say how they lie."""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from ..streaming.encoded import uprighted
from ..streaming.predicting import Answer, answers
from .errors import UserError
from .sources import (
    Source,
    add_source_flags,
    check_file_target,
    check_folder_target,
    open_source,
    report_skipped,
)
from .streams import add_stream_flags, one_or_many, report
from .terminal import console


@dataclass(frozen=True, kw_only=True)
class Prediction(Answer):
    """What is known of one picture.

    Attributes:
        path: The picture.
    """

    path: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument(
        "paths", nargs="*", metavar="saved pictures",
        help="a folder that 'upright adapt' wrote (not with --model), then pictures and folders of pictures",
    )  # fmt: skip
    parser.add_argument("--json", metavar="FILE", help="write the predictions as JSON; - for the terminal")
    parser.add_argument("--csv", metavar="FILE", help="write the predictions as CSV; - for the terminal")
    parser.add_argument(
        "--save-upright", metavar="FOLDER", help="write the pictures turned upright; a new folder"
    )
    parser.add_argument(
        "--estimate-share", action="store_true",
        help="estimate from the pictures themselves how often each pose occurs, and decide accordingly",
    )  # fmt: skip
    parser.add_argument(
        "--out", metavar="FOLDER",
        help="stream a folder of pictures, Parquet or tar files of any size into files of predictions there",
    )  # fmt: skip
    parser.add_argument(
        "--format", choices=["parquet", "jsonl", "csv"], default="parquet", help="of --out; default: parquet"
    )
    add_source_flags(parser)
    add_stream_flags(parser, "column of a table, or extension in a tar file, that holds the picture")


def run(args: argparse.Namespace) -> int:
    """Predict and print or write."""
    saved, given = split_paths(args.paths, args.model)
    if not given:
        raise UserError("no pictures; give files or folders of pictures")
    if args.out is not None:
        return _stream(args, saved, given)
    for flag, is_given in (
        ("--format", args.format != "parquet"),
        ("--shard-size", args.shard_size is not None),
        ("--part", args.part != "1/1"),
        ("--column", args.column is not None),
        ("--retry-bad", args.retry_bad),
        ("--dry-run", args.dry_run),
    ):
        if is_given:
            raise UserError(f"{flag} is for streams; give --out, too")
    if args.json == "-" and args.csv == "-":
        raise UserError("--json - and --csv - cannot both go to the terminal; give one of them a file")
    check_file_target("--json", args.json)
    check_file_target("--csv", args.csv)
    check_folder_target("--save-upright", args.save_upright)
    if (
        args.save_upright is not None
        and Path(args.save_upright).exists()
        and any(Path(args.save_upright).iterdir())
    ):
        raise UserError(f"--save-upright {args.save_upright} is not empty; give a new folder")
    pictures = open_pictures(given, args.limit)
    source = open_source(args, saved)
    if args.estimate_share:
        source = _with_estimated_share(args, source, pictures)
    rows = list(predictions(source, pictures, args.batch_size, args.device))
    if not rows:
        path, reason = pictures.skipped[0]
        raise UserError(
            f"none of the {len(pictures.skipped)} pictures can be read; the first, {path}: {reason}"
        )
    _write(args, source, rows, pictures.skipped)
    if args.save_upright is not None:
        _save_upright(Path(args.save_upright), rows, pictures)
    report_skipped(pictures.skipped)
    return 0


def _stream(args: argparse.Namespace, saved: str | None, given: list[str]) -> int:
    """Write predictions in shards, and go on where a killed run stopped."""
    from ..streaming import predict

    for name in ("json", "csv", "save_upright", "estimate_share"):
        if getattr(args, name):
            flag = "--" + name.replace("_", "-")
            raise UserError(f"{flag} is for pictures that fit into memory; leave it out, or --out")
    source = open_source(args, saved)
    summary = predict(
        source.robust,
        one_or_many(given),
        args.out,
        source.loaded.preprocess,
        names=source.loaded.class_names,
        format=args.format,
        column=args.column,
        retry_bad=args.retry_bad,
        limit=args.limit,
        shard_size=args.shard_size,
        part=args.part,
        batch_size=args.batch_size,
        workers=args.workers,
        device=args.device,
        progress=not args.quiet,
        dry_run=args.dry_run,
    )
    return report(summary, "classified")


def _with_estimated_share(args: argparse.Namespace, source: Source, pictures: Any) -> Source:
    """Let the model decide under the prior of the pictures that are given."""
    from ..confidence import estimate_prior
    from ..data import UnreadablePictureError

    if args.upright_share is not None:
        raise UserError("--upright-share says what --estimate-share is to find out; give one of them")

    def batches() -> Iterator[list[torch.Tensor]]:
        for i in range(len(pictures.paths)):
            with contextlib.suppress(UnreadablePictureError):
                yield [source.loaded.preprocess(pictures.picture(i)).to(args.device)]

    found = estimate_prior(source.robust, batches())
    low, high = float(found.low[0]), float(found.high[0])
    shares = f"{found.upright:.1%} of the pictures stand upright ({low:.1%} to {high:.1%})"
    print(f"upright: {shares}", file=sys.stderr)
    return replace(source, robust=source.robust.with_prior(found.prior))


def split_paths(paths: Sequence[str], model: str | None) -> tuple[str | None, list[str]]:
    """Tell the saved folder from the pictures: it comes first, and is needed without ``--model``.

    Raises:
        UserError: If there is neither.
    """
    from ..hub import MANIFEST, READY_MADE

    first = paths[0] if paths else None
    if first is not None and ((Path(first) / MANIFEST).is_file() or first in READY_MADE.values()):
        return first, list(paths[1:])
    if model is not None:
        return None, list(paths)
    if first is None:
        raise UserError("nothing to do: give a folder that 'upright adapt' wrote, or --model, then pictures")
    if Path(first).exists():
        raise UserError(
            f"{first} was not saved by upright; give a folder that 'upright adapt' wrote first, or --model"
        )
    return first, list(paths[1:])


def open_pictures(given: Sequence[str], limit: int | None = None) -> Any:
    """Open files and folders as one data set; what is unreadable is in ``.skipped``.

    Raises:
        UserError: If a path does not exist, or there are no pictures.
    """
    from ..data import PictureSet, open_data
    from ..data.sets import NO_LABEL

    sources: list[Any] = []
    names: list[str] = []
    skipped: list[tuple[str, str]] = []
    for text in given:
        path = Path(text).expanduser()
        if not path.exists():
            raise UserError(f"{text} does not exist; give pictures or folders of pictures")
        if path.is_dir() or path.suffix == ".parquet":
            part = open_data(path, labels=False)
            sources += part.sources
            names += part.paths
            skipped += part.skipped
        else:
            sources.append(path)
            names.append(str(path))
    sources, names = sources[:limit], names[:limit]
    return PictureSet(sources, [NO_LABEL] * len(sources), paths=names, skipped=skipped)


def predictions(source: Source, pictures: Any, batch_size: int, device: str = "cpu") -> Iterator[Prediction]:
    """Classify a `PictureSet`, batch by batch; damaged pictures are added to its ``skipped``."""
    from ..data import UnreadablePictureError

    batch: list[tuple[str, torch.Tensor]] = []
    for i, name in enumerate(pictures.paths):
        try:
            batch.append((name, source.loaded.preprocess(pictures.picture(i))))
        except UnreadablePictureError as error:
            pictures.skipped.append((name, str(error).removeprefix(f"{name}: ")))
        if len(batch) == batch_size:
            yield from _predict(source, batch, device)
            batch = []
    if batch:
        yield from _predict(source, batch, device)


def _predict(source: Source, batch: list[tuple[str, torch.Tensor]], device: str) -> list[Prediction]:
    found = answers(source.robust, [x for _, x in batch], source.loaded.class_names, device)
    return [Prediction(path=path, **asdict(answer)) for (path, _), answer in zip(batch, found, strict=True)]


def _write(
    args: argparse.Namespace, source: Source, rows: list[Prediction], skipped: list[tuple[str, str]]
) -> None:
    from .._files import write_file
    from .._version import __version__

    document = {
        "library_version": __version__,
        "model": source.loaded.reference,
        "group": str(source.robust.group),
        "mode": source.robust.mode,
        "predictions": [{"path": row.path, **asdict(row)} for row in rows],
        "skipped": [{"path": path, "reason": reason} for path, reason in skipped],
    }
    table = io.StringIO()
    names = ["path", *(f.name for f in fields(Answer))]
    writer = csv.DictWriter(table, names)
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    texts = {"json": json.dumps(document, indent=2, ensure_ascii=False) + "\n", "csv": table.getvalue()}
    shown = False
    for kind, text in texts.items():
        target = getattr(args, kind)
        if target == "-":
            sys.stdout.write(text)
            shown = True
        elif target is not None:
            write_file(target, text)
    if not shown:
        _print(rows, any(row.reflected for row in rows))


def _print(rows: list[Prediction], reflections: bool) -> None:
    from rich.table import Table

    folder = _common_folder([Path(row.path).parent for row in rows])
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in (f"picture in {folder}" if folder else "picture", "prediction"):
        table.add_column(name, overflow="fold")
    for name in ("confidence", "lies at", "pose confidence"):
        table.add_column(name, justify="right")
    for row in rows:
        pose = f"{'mirrored, ' if row.reflected else ''}{row.degrees:g}°"
        pose += " (left alone)" if row.gated else " (doubtful)" if row.flagged else ""
        path = os.path.relpath(row.path, folder) if folder else row.path
        table.add_row(path, row.prediction, f"{row.confidence:.1%}", pose, f"{row.pose_confidence:.1%}")
    console().print(table)


def _common_folder(parents: list[Path]) -> str:
    """Return the folder that several pictures share, to be shown once; empty if there is none."""
    if len(parents) < 2 or len({parent.is_absolute() for parent in parents}) > 1:
        return ""
    return os.path.commonpath(parents)


def _save_upright(folder: Path, rows: list[Prediction], pictures: Any) -> None:
    """Write the pictures to a folder beside, which then takes its name."""
    number = {name: i for i, name in enumerate(pictures.paths)}
    new = Path(tempfile.mkdtemp(dir=folder.absolute().parent, prefix=f".{folder.name}."))
    try:
        for row in rows:
            picture = uprighted(pictures.picture(number[row.path]), row.degrees, row.reflected)
            path = _free(new, Path(row.path))
            picture.save(path, **({"quality": 95} if path.suffix in (".jpg", ".jpeg", ".webp") else {}))
        new.chmod(0o755)
        if folder.exists():
            folder.rmdir()
        new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _free(folder: Path, path: Path) -> Path:
    """Return a name like the picture's that is not taken yet."""
    suffix = path.suffix.lower() if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp") else ".png"
    stem = path.stem.replace("#", "-") if path.suffix != ".parquet" else path.name
    candidate, count = folder / f"{stem}{suffix}", 1
    while candidate.exists():
        count += 1
        candidate = folder / f"{stem}-{count}{suffix}"
    return candidate
