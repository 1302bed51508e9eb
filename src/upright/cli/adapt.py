"""``upright adapt``: make a model equivariant and save how."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from .errors import UserError
from .sources import (
    adapt_ready,
    adapter_settings,
    add_adapter_flags,
    add_model_flags,
    check_fits,
    check_folder_target,
    open_model,
    positive,
    preprocess_settings,
    report_skipped,
    with_prior,
)
from .terminal import plural

if TYPE_CHECKING:
    from ..adapter import Adapted
    from ..integrations import LoadedModel


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument(
        "--output", "-o", metavar="FOLDER", help="where the adapted model is saved (required)"
    )
    parser.add_argument("--half", action="store_true", help="store the weights in half precision")
    add_model_flags(parser)
    add_adapter_flags(parser)
    group = parser.add_argument_group(
        "training (of the canonicalizer only, on upright pictures without labels)"
    )
    group.add_argument("--train", metavar="DATA", help="folder of images, Parquet file, or hub name")
    group.add_argument("--train-split", metavar="NAME", help="split of the training data")
    group.add_argument("--val", metavar="DATA", help="data for validation, likewise")
    group.add_argument("--val-split", metavar="NAME", help="split of the validation data")
    group.add_argument("--limit", type=positive, metavar="N", help="at most so many training pictures")
    group.add_argument("--network", metavar="NAME", help="network of a new canonicalizer; default: orbit")
    group.add_argument(
        "--thumbnail", type=positive, metavar="PIXELS", help="side of what it sees; default: 64"
    )
    group.add_argument("--epochs", type=positive, default=10, help="default: 10")
    group.add_argument("--max-steps", type=positive, metavar="N", help="stop after so many steps")
    group.add_argument("--batch-size", type=positive, default=128, metavar="N", help="default: 128")
    group.add_argument("--learning-rate", type=float, metavar="RATE", help="default: that of upright.fit")
    group.add_argument(
        "--patience", type=positive, metavar="N", help="stop after so many epochs without gain"
    )
    group.add_argument("--checkpoints", metavar="FOLDER", help="where training keeps its last checkpoint")
    group.add_argument("--resume", action="store_true", help="continue from the checkpoint, if there is one")
    group.add_argument("--no-augment", action="store_true", help="do not destroy compression artefacts")
    group.add_argument("--precision", default="32-true", help="such as bf16-mixed; default: 32-true")
    group.add_argument("--workers", type=int, default=0, metavar="N", help="processes that decode pictures")
    group.add_argument("--seed", type=int, default=0)


def run(args: argparse.Namespace) -> int:
    """Adapt, train if asked to, save."""
    from .. import hub

    if args.output is None:
        raise UserError("--output is missing; say where to save: --output robust")
    if args.model is None:
        raise UserError(
            "--model is missing; give efficientnet-lite0, a transformers name or folder, or module:callable"
        )
    check_folder_target("--output", args.output)
    check_folder_target("--checkpoints", args.checkpoints)
    hub.check_target(args.output)
    if args.resume and args.checkpoints is None:
        raise UserError("--resume needs --checkpoints, the folder of the checkpoint")
    loaded = open_model(args, args.model)
    if args.train is None:
        if args.network is not None or args.thumbnail is not None:
            raise UserError(
                "--network and --thumbnail make a new canonicalizer, which needs training; give --train DATA"
            )
        robust, note = adapt_ready(args, loaded), None
        check_fits(robust, loaded.preprocess)
    else:
        robust, note = _trained(args, loaded)
    saved = hub.save(
        robust, args.output, args.model, note,
        preprocess=preprocess_settings(args), dtype="float16" if args.half else "float32",
    )  # fmt: skip
    size = sum(f.stat().st_size for f in saved.iterdir() if f.is_file())
    print(f"{args.model} is now equivariant to {robust.group}: {saved} ({size / 1024:.0f} KiB)")
    if note:
        print(note.splitlines()[-1])
    code = " --trust-code" if ":" in args.model else ""
    print(f"next: upright evaluate {saved} --data DATA{code}, or upright predict {saved} PICTURES{code}")
    return 0


def _trained(args: argparse.Namespace, loaded: LoadedModel) -> tuple[Adapted, str]:
    """Train a canonicalizer, a new one or the one named, and describe the training."""
    from ..data import open_data
    from ..training import fit

    robust = _to_train(args, loaded)
    check_fits(robust, loaded.preprocess)
    data = open_data(
        args.train, transform=loaded.preprocess, labels=False, split=args.train_split, limit=args.limit
    )
    validation = None
    if args.val is not None:
        validation = open_data(args.val, transform=loaded.preprocess, labels=False, split=args.val_split)
    options: dict[str, Any] = {} if args.learning_rate is None else {"learning_rate": args.learning_rate}
    result = fit(
        robust,
        data,
        val_data=validation,
        epochs=args.epochs,
        max_steps=args.max_steps or -1,
        batch_size=args.batch_size,
        augment=not args.no_augment,
        patience=args.patience,
        output=args.checkpoints,
        resume=args.resume or None,
        seed=args.seed,
        precision=args.precision,
        num_workers=args.workers,
        **options,
    )
    robust = with_prior(args, robust.eval())
    report_skipped([*data.skipped, *(validation.skipped if validation is not None else [])])
    last = result.history[-1] if result.history else {}
    rate = last.get("val_identity_rate", last.get("identity_rate"))
    seen = "validation" if args.val else "training"
    measured = "" if rate is None else f"; {rate:.1%} of the {seen} pictures are left upright"
    return robust, (
        f"## Training\n\nTrained on {plural(len(data), 'picture')} of `{args.train}` for "
        f"{plural(len(result.history), 'epoch')} in {result.seconds:.0f} s{measured}."
    )


def _to_train(args: argparse.Namespace, loaded: LoadedModel) -> Adapted:
    from .. import hub
    from ..factory import adapt, canonicalizer

    if args.canonicalizer is not None:
        if args.network is not None or args.thumbnail is not None:
            raise UserError("--canonicalizer continues a saved one; leave --network and --thumbnail out")
        start = hub.load_canonicalizer(args.canonicalizer)
    else:
        settings = {} if args.thumbnail is None else {"size": args.thumbnail}
        start = canonicalizer(args.group or "C4", args.network or "orbit", **settings)
    return adapt(loaded.model, args.group or start.group, canonicalizer=start, **adapter_settings(args))
