"""``upright evaluate``: a model at every pose, bare and adapted."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .errors import UserError
from .sources import (
    add_source_flags,
    check_file_target,
    check_folder_target,
    open_source,
    report_skipped,
)
from .terminal import console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument(
        "saved", nargs="?", help="a folder that 'upright adapt' wrote, or a hub name; else --model"
    )
    parser.add_argument(
        "--data", metavar="DATA", help="upright pictures: a folder, Parquet file or hub name (required)"
    )
    parser.add_argument("--split", metavar="NAME", help="split of the data")
    parser.add_argument(
        "--no-labels", action="store_true", help="measure agreement with the bare model instead"
    )
    parser.add_argument(
        "--seen-classes", action="store_true", help="let only classes that occur be predicted"
    )
    parser.add_argument(
        "--border", choices=["edge", "reflect", "constant"], default="edge", help="beyond the canvas"
    )
    parser.add_argument("--no-leakage", action="store_true", help="leave the check for artefacts out")
    parser.add_argument("--no-overhead", action="store_true", help="do not measure time and memory")
    parser.add_argument("--json", metavar="FILE", help="write the report; - for the terminal")
    parser.add_argument(
        "--figures", metavar="FOLDER", help="draw accuracy over angle, reliability and a gallery"
    )
    add_source_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluate and print."""
    from ..evaluation import evaluate

    if args.data is None:
        raise UserError("--data is missing; give a folder of images, a Parquet file or a hub name")
    check_file_target("--json", args.json)
    check_folder_target("--figures", args.figures)
    source = open_source(args, args.saved)
    data = _open(args, source)
    classes = sorted(set(data.labels)) if args.seen_classes else None
    report = evaluate(
        source.robust,
        data,
        batch_size=args.batch_size,
        leakage=not args.no_leakage,
        overhead=not args.no_overhead,
        classes=classes,
        border=args.border,
        progress=args.json != "-" and console().is_terminal,
    )
    if args.json == "-":
        print(report.to_json())
    else:
        console(markup=True).print(report.table())
        if args.json is not None:
            print(f"report: {report.save(args.json)}")
    if args.figures is not None:
        for path in _draw(args, source, data, report, classes):
            if args.json != "-":
                print(f"figure: {path}")
    report_skipped(data.skipped)
    return 0


def _open(args: argparse.Namespace, source: Any) -> Any:
    from ..data import open_data

    data = open_data(
        args.data,
        transform=source.loaded.preprocess,
        labels=not args.no_labels,
        split=args.split,
        limit=args.limit,
    )
    if data.has_labels:
        data.labels = matched(data.labels, data.class_names, source.loaded.class_names)
    elif args.seen_classes:
        raise UserError("--seen-classes needs labels; give labelled data, or leave it out")
    return data


def matched(labels: list[int], own: list[str], model: tuple[str, ...]) -> list[int]:
    """Return labels in the model's numbering, matched by name where the data has other classes.

    Raises:
        UserError: If the data names classes that the model does not have.
    """
    if not own or not model or [_plain(name) for name in own] == [_plain(name) for name in model]:
        return labels
    numbers = {_plain(name): i for i, name in reversed(list(enumerate(model)))}
    if len({_plain(name) for name in own} & set(numbers)) == len(own):
        return [numbers[_plain(own[label])] for label in labels]
    if len(own) == len(model):
        return labels
    if all(name.isdigit() and int(name) < len(model) for name in own):  # folders named by class number
        return [int(own[label]) for label in labels]
    missing = [name for name in own if _plain(name) not in numbers]
    if missing:
        raise UserError(
            f"the data's class {missing[0]!r} is none of the model's {len(model)} classes; name the class "
            "folders as the model does or by number, or give --no-labels to measure agreement with the bare "
            "model"
        )
    return [numbers[_plain(own[label])] for label in labels]


def _plain(name: str) -> str:
    """Return a class name for comparison: the first of its synonyms."""
    return name.partition(",")[0].strip().lower().replace("_", " ").replace("-", " ")


def _draw(args: argparse.Namespace, source: Any, data: Any, report: Any, classes: Any) -> list[Path]:
    from ..evaluation import plot_gallery

    folder = Path(args.figures)
    folder.mkdir(exist_ok=True)
    mean, std = normalisation(source.loaded.preprocess)
    drawn: list[Path] = []
    if len(report.rows) > 0 and all(p.degrees is not None for row in report.rows.values() for p in row.poses):
        drawn.append(report.plot_angles(folder / "angles.png"))
    drawn.append(report.plot_reliability(folder / "reliability.png"))
    names = source.loaded.class_names or None
    gallery = plot_gallery(
        source.robust, data, folder / "gallery.png", names, classes=classes, mean=mean, std=std
    )
    return [*drawn, gallery]


def normalisation(preprocess: Any) -> tuple[Any, Any]:
    """Return mean and standard deviation that a preprocessing normalises by, or (None, None) if unknown."""
    holder = getattr(preprocess, "processor", preprocess)
    for mean, std in (("mean", "std"), ("image_mean", "image_std")):
        if getattr(holder, mean, None) is not None and getattr(holder, std, None) is not None:
            return getattr(holder, mean), getattr(holder, std)
    return None, None
