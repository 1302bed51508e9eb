"""``upright evaluate``: a model at every pose, bare and adapted; or over a continuous transformation."""

from __future__ import annotations

import argparse
import math
import shlex
from dataclasses import replace
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

_MOST_VALUES = 10_000
_SHOWN = 8
"""Pictures on the page of a report."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument(
        "saved", nargs="?", help="a folder that 'upright adapt' wrote, or a hub name; else --model"
    )
    parser.add_argument(
        "--data", metavar="DATA", help="upright pictures: a folder, Parquet file or hub name (required)"
    )
    parser.add_argument("--split", metavar="NAME", help="split of the data")
    _add_task_flags(parser)
    _add_pose_flags(parser)
    parser.add_argument("--no-leakage", action="store_true", help="leave the check for artefacts out")
    parser.add_argument("--no-overhead", action="store_true", help="do not measure time and memory")
    parser.add_argument("--json", metavar="FILE", help="write the report; - for the terminal")
    parser.add_argument(
        "--figures", metavar="FOLDER", help="draw accuracy over angle, reliability and a gallery"
    )
    parser.add_argument(
        "--report",
        metavar="FOLDER",
        help="write one page to look at (index.html), and its data (report.json)",
    )
    add_source_flags(parser)


def _add_task_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("task")
    group.add_argument(
        "--task", metavar="NAME", default="classification",
        help="segmentation, depth, detection, instances, keypoints, text, retrieval; default: classification",
    )  # fmt: skip
    group.add_argument("--annotations", metavar="FILE", help="JSON in COCO's layout; default: the folder's")
    group.add_argument(
        "--outputs", metavar="KINDS",
        help="what the model returns: mask, or boxes=boxes,masks=mask; default: what is known of it",
    )  # fmt: skip
    group.add_argument(
        "--no-labels", action="store_true", help="measure agreement with the bare model instead"
    )
    group.add_argument("--seen-classes", action="store_true", help="let only classes that occur be predicted")


def _add_pose_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("poses and rows")
    group.add_argument(
        "--over", metavar="NAME",
        help="evaluate over rotation, scale, hue, brightness, contrast or gamma, not over the group",
    )  # fmt: skip
    group.add_argument(
        "--values", metavar="VALUES", help="with --over: 0:360:10 (start:stop:step, both ends) or 0.5,1,2"
    )
    group.add_argument(
        "--rows", metavar="NAMES", help="such as vanilla,adapted,oracle,equizero; default: the usual four"
    )
    group.add_argument(
        "--border", choices=["edge", "reflect", "constant"], default="edge", help="beyond the canvas"
    )


def run(args: argparse.Namespace) -> int:
    """Evaluate and print."""
    if args.data is None:
        raise UserError("--data is missing; give a folder of images, a Parquet file or a hub name")
    check_file_target("--json", args.json)
    check_folder_target("--figures", args.figures)
    check_folder_target("--report", args.report)
    _check_flags(args)
    values, rows, outputs = parsed_values(args.values), _names(args.rows), parsed_outputs(args.outputs)
    source = open_source(args, args.saved)
    if outputs is not None:
        source = type(source)(source.robust.replace(outputs=outputs), source.loaded)
    data = _open(args, source)
    classes = sorted(set(data.labels)) if args.seen_classes else None
    report = _evaluated(args, source, data, classes, values, rows)
    report = replace(report, setting=replace(report.setting, command=shlex.join(["upright", *args.words])))
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
    if args.report is not None:
        for path in _write_report(args, source, data, report, classes):
            if args.json != "-":
                print(f"report: {path}")
    report_skipped(data.skipped)
    return 0


def _check_flags(args: argparse.Namespace) -> None:
    """Raise UserError where flags do not go together, before anything is loaded."""
    from ..evaluation import TASKS, TRANSFORMATIONS

    if args.task not in TASKS:
        raise UserError(f"--task must be one of {', '.join(TASKS)}, got {args.task!r}")
    if args.over is not None and args.over not in TRANSFORMATIONS:
        raise UserError(f"--over must be one of {', '.join(TRANSFORMATIONS)}, got {args.over!r}")
    if args.values is not None and args.over is None:
        raise UserError("--values needs --over, which says what they are values of: --over rotation")
    if args.task != "classification":
        for flag in ("no_labels", "seen_classes"):
            if getattr(args, flag):
                raise UserError(f"--{flag.replace('_', '-')} goes with classification, not with {args.task}")


def parsed_values(text: str | None) -> list[float] | None:
    """Read ``start:stop:step``, both ends included, or numbers between commas.

    Raises:
        UserError: If it is neither.
    """
    if text is None:
        return None
    try:
        if ":" not in text:
            return [float(x) for x in text.split(",")]
        start, stop, step = (float(x) for x in text.split(":"))
        count = math.floor((stop - start) / step + 1e-9) + 1
        if 0 < count <= _MOST_VALUES:
            return [start + i * step for i in range(count)]
    except (ValueError, ZeroDivisionError, OverflowError):
        pass
    raise UserError(
        f"--values must be start:stop:step, such as 0:360:10, or numbers as 0.5,1,2, got {text!r}"
    )


def parsed_outputs(text: str | None) -> Any:
    """Read a kind, or ``entry=kind`` between commas.

    Raises:
        UserError: If some entries have names and others have not.
    """
    if text is None or "=" not in text:
        return text
    pairs = [entry.partition("=")[::2] for entry in text.split(",")]
    if not all(name and kind for name, kind in pairs):
        raise UserError(f"--outputs must be a kind, or entries as boxes=boxes,masks=mask, got {text!r}")
    return {name.strip(): kind.strip() for name, kind in pairs}


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def _evaluated(
    args: argparse.Namespace, source: Any, data: Any, classes: Any, values: Any, rows: list[str] | None
) -> Any:
    from ..evaluation import evaluate, evaluate_curve

    settings: dict[str, Any] = {
        "task": args.task,
        "batch_size": args.batch_size,
        "overhead": not args.no_overhead,
        "classes": classes,
        "border": args.border,
        "progress": args.json != "-" and console().is_terminal,
    }
    if rows is not None:
        settings["rows"] = rows
    if args.over is None:
        return evaluate(source.robust, data, leakage=not args.no_leakage, **settings)
    mean, std = normalisation(source.loaded.preprocess)
    return evaluate_curve(source.robust, data, args.over, values, mean=mean, std=std, **settings)


def _open(args: argparse.Namespace, source: Any) -> Any:
    from ..data import open_data

    if args.task != "classification":
        from ..evaluation import open_annotated

        return open_annotated(
            args.task,
            args.data,
            annotations=args.annotations,
            preprocess=source.loaded.preprocess,
            split=args.split,
            limit=args.limit,
        )
    if args.annotations is not None:
        raise UserError("--annotations needs a task that has them, such as --task detection")
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
    poses = [pose for row in report.rows.values() for pose in row.poses]
    if args.over is not None:
        drawn.append(report.plot_curve(folder / "curve.png"))
    elif all(pose.degrees is not None for pose in poses):
        drawn.append(report.plot_angles(folder / "angles.png"))
    drawn.append(report.plot_reliability(folder / "reliability.png"))
    if args.task != "classification":
        return drawn
    names = source.loaded.class_names or None
    gallery = plot_gallery(
        source.robust, data, folder / "gallery.png", names, classes=classes, mean=mean, std=std
    )
    return [*drawn, gallery]


def _write_report(args: argparse.Namespace, source: Any, data: Any, report: Any, classes: Any) -> list[Path]:
    """Write the page with a few pictures, spread evenly over the data, and the report's data beside it."""
    from torch.utils.data import Subset

    from ..data.sources import spread
    from ..evaluation import TRANSFORMATIONS, samples

    mean, std = normalisation(source.loaded.preprocess)
    poses = None
    if args.over is not None:
        poses = TRANSFORMATIONS[args.over].normalized(mean, std).elements(parsed_values(args.values))
    shown = samples(
        source.robust, Subset(data, spread(len(data), _SHOWN)), task=args.task, count=_SHOWN,
        class_names=source.loaded.class_names or None, classes=classes, mean=mean, std=std,
        poses=poses, border=args.border,
    )  # fmt: skip
    folder = Path(args.report)
    return [report.to_html(folder / "index.html", shown), report.save(folder / "report.json")]


def normalisation(preprocess: Any) -> tuple[Any, Any]:
    """Return mean and standard deviation that a preprocessing normalises by, or (None, None) if unknown."""
    holder = getattr(preprocess, "processor", preprocess)
    for mean, std in (("mean", "std"), ("image_mean", "image_std")):
        if getattr(holder, mean, None) is not None and getattr(holder, std, None) is not None:
            return getattr(holder, mean), getattr(holder, std)
    return None, None
