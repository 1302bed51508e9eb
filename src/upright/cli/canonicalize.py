"""``upright canonicalize``: set all pictures of a source upright."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from .errors import UserError, one_line
from .sources import positive
from .streams import add_stream_flags, one_or_many, report

if TYPE_CHECKING:
    from ..canonicalizers import Canonicalizer
    from ..confidence import Gate
    from ..priors import Prior


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument(
        "sources", nargs="*", metavar="source",
        help="a folder of pictures, Parquet files or tar files (WebDataset), at any depth; or such files",
    )  # fmt: skip
    parser.add_argument("--out", "-o", metavar="FOLDER", help="where to, in the layout of the source")
    parser.add_argument(
        "--manifest", metavar="FOLDER", help="where the poses are written; default: that of --out + .manifest"
    )
    parser.add_argument("--manifest-only", action="store_true", help="write the poses, but no pictures")
    group = parser.add_argument_group("poses")
    group.add_argument(
        "--canonicalizer", metavar="NAME", default="photo-c4",
        help="photo-c4 (default), photo-d4, photo-c8, photo-so2, document-c4, or a saved one",
    )  # fmt: skip
    group.add_argument("--trust-code", action="store_true", help="run module:callable names that it holds")
    group.add_argument(
        "--min-confidence", "--gate", type=float, metavar="P", dest="min_confidence",
        help="leave pictures alone whose pose is less probable than that",
    )  # fmt: skip
    group.add_argument("--flag", type=float, metavar="P", help="the same, but turn them and mark them")
    group.add_argument(
        "--deployment-prior", "--upright-share", type=_prior, metavar="P", dest="deployment_prior",
        help="share of upright pictures, such as 0.95, or that of every pose: 0.9,0.04,0.02,0.04",
    )  # fmt: skip
    group.add_argument(
        "--within-degrees",
        type=float,
        default=0.0,
        metavar="D",
        help="leave pictures alone that are near upright",
    )
    group = parser.add_argument_group("pictures")
    group.add_argument(
        "--exif", action="store_true",
        help="rewrite the EXIF orientation of JPEG and TIFF files instead of pixels: no loss at all",
    )  # fmt: skip
    group.add_argument(
        "--quality",
        type=positive,
        metavar="Q",
        help="of what is compressed again; default: that of the source",
    )
    group.add_argument(
        "--also",
        nargs="+",
        default=[],
        metavar="NAME",
        help="columns or extensions that move along, such as masks",
    )
    group.add_argument("--keep-bad", action="store_true", help="write bad items as they are")
    add_stream_flags(parser, "column of a table, or extension in a tar file, that holds the picture")
    group = parser.add_argument_group("running")
    group.add_argument("--batch-size", type=positive, default=32, metavar="N", help="default: 32")
    group.add_argument("--limit", type=positive, metavar="N", help="at most so many pictures, the first ones")
    group.add_argument("--device", default="cpu", help="such as cuda or cuda:1; default: cpu")


def run(args: argparse.Namespace) -> int:
    """Stream, and say what came of it."""
    from ..streaming import canonicalize

    if args.manifest_only and args.manifest is None:
        if args.out is None:
            raise UserError("--manifest-only needs a place: --manifest FOLDER")
        args.manifest = args.out
    if args.out is None and not args.manifest_only:
        raise UserError("--out is missing; say where to: --out upright-photos")
    chosen = _canonicalizer(args)
    summary = canonicalize(
        one_or_many(args.sources),
        None if args.manifest_only else args.out,
        chosen,
        manifest=args.manifest,
        gate=_gate(args),
        deployment_prior=_deployment_prior(args, chosen),
        within_degrees=args.within_degrees,
        exif=args.exif,
        quality=args.quality,
        column=args.column,
        also=args.also,
        keep_bad=args.keep_bad,
        retry_bad=args.retry_bad,
        limit=args.limit,
        shard_size=args.shard_size,
        part=args.part,
        batch_size=args.batch_size,
        workers=args.workers,
        progress=not args.quiet,
        dry_run=args.dry_run,
    )
    return report(summary, "judged" if args.manifest_only else "written")


def _canonicalizer(args: argparse.Namespace) -> Canonicalizer:
    import torch

    from .. import hub

    chosen = hub.load_canonicalizer(args.canonicalizer, trust_code=args.trust_code)
    try:
        return chosen.to(torch.device(args.device))
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {args.device} is not usable here: {one_line(error)}") from error


def _gate(args: argparse.Namespace) -> Gate | None:
    from ..confidence import Gate

    if args.min_confidence is not None and args.flag is not None:
        raise UserError(
            "--min-confidence and --flag say different things of the same pictures; give one of them"
        )
    if args.min_confidence is not None:
        return Gate(args.min_confidence)
    return None if args.flag is None else Gate(args.flag, "flag")


def _deployment_prior(args: argparse.Namespace, chosen: Canonicalizer) -> Prior | None:
    from ..confidence import deployment_prior
    from ..priors import CategoricalPrior

    shares = args.deployment_prior
    if shares is None:
        return None
    return deployment_prior(chosen.group, upright=shares[0]) if len(shares) == 1 else CategoricalPrior(shares)


def _prior(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]
