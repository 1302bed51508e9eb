"""``upright export``: write a model to one file that runs without upright."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import UserError
from .sources import add_adapter_flags, add_model_flags, add_opening_flags, check_file_target, open_source

if TYPE_CHECKING:
    from torch import Tensor

    from ..adapter import Adapted
    from ..canonicalizers import Canonicalizer

_SUFFIXES = {".onnx": "onnx", ".pt2": "pt2"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument("saved", nargs="?", help="a saved folder, a ready-made canonicalizer or a hub name")
    parser.add_argument("--output", "-o", metavar="FILE", help="a .onnx or .pt2 file (required)")
    parser.add_argument(
        "--part", choices=("pipeline", "canonicalizer", "preprocessing"),
        help="pipeline: the adapted model; canonicalizer: pictures in, poses out; preprocessing: upright "
        "pictures and poses out, to be put before any engine. Default: pipeline where a model is known, "
        "else preprocessing",
    )  # fmt: skip
    parser.add_argument(
        "--dynamic", nargs="*", choices=("batch", "size", "square"), default=["batch"],
        help="what of the shape is left open; square: height and width, which are equal. Default: batch",
    )  # fmt: skip
    parser.add_argument("--poses", action="store_true", help="let a pipeline return the poses too")
    parser.add_argument("--picture", metavar="FILE", help="check on this picture instead of a made-up one")
    add_model_flags(parser)
    add_adapter_flags(parser)
    add_opening_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Export, and say what was written."""
    from ..deploy import export

    if args.output is None:
        raise UserError("--output is missing; say where to write: --output model.onnx")
    form: Any = _SUFFIXES.get(Path(args.output).suffix)
    if form is None:
        raise UserError(f"--output must end in .onnx or .pt2, got {args.output}")
    check_file_target("--output", args.output)
    subject, example, part = _subject(args)
    made = export(
        subject, args.output, example, format=form, part=part, dynamic=args.dynamic, poses=args.poses
    )
    print(f"{made.path}: {made.size / 1024:.0f} KiB, {part} of {subject.group}")
    for name, shape in made.inputs.items():
        print(f"  in:  {name} ({', '.join(map(str, shape))})")
    print(f"  out: {', '.join(made.outputs)}")
    engine = "ONNX Runtime" if form == "onnx" else "torch.export"
    print(f"  checked by {engine} on {made.checked} batches: worst difference {made.difference:.2g}")
    return 0


def _subject(args: argparse.Namespace) -> tuple[Adapted | Canonicalizer, Tensor, Any]:
    """Return what is exported, an example and the part."""
    from .. import hub
    from ..integrations import SquarePreprocess

    manifest = hub.read_manifest(hub.resolve(args.saved)) if args.saved is not None else None
    known = args.model or (manifest is not None and (manifest.model or {}).get("reference"))
    if known:
        source = open_source(args, args.saved)
        picture = _picture(args, 256)
        return source.robust, source.loaded.preprocess(picture).unsqueeze(0), args.part or "pipeline"
    if args.part == "pipeline" or args.saved is None:
        raise UserError("a pipeline needs a model; give --model, or --part preprocessing or canonicalizer")
    canonicalizer = hub.load_canonicalizer(args.saved, trust_code=args.trust_code)
    picture = _picture(args, args.size or 224)
    preprocess = SquarePreprocess(args.size or 224, (0.0,) * 3, (1.0,) * 3)
    return canonicalizer, preprocess(picture).unsqueeze(0), args.part or "preprocessing"


def _picture(args: argparse.Namespace, side: int) -> Any:
    """Return the picture that is named, or a made-up one."""
    from ..data.decode import UnreadablePictureError, read_picture

    if args.picture is None:
        return _made_up(side)
    try:
        return read_picture(args.picture)
    except UnreadablePictureError as error:
        raise UserError(f"--picture {args.picture} cannot be read: {error}") from error


def _made_up(side: int) -> Any:
    """Return a picture of sky and ground with blots: no turn of it looks like another."""
    import torch
    from PIL import Image

    source = torch.Generator().manual_seed(0)
    blots = torch.rand(1, 3, 8, 8, generator=source)
    smooth = torch.nn.functional.interpolate(blots, (side, side), mode="bicubic")[0]
    smooth[2] += torch.linspace(0.8, -0.4, side).unsqueeze(1)
    pixels = (smooth.clamp(0, 1) * 255).byte().permute(1, 2, 0)
    return Image.fromarray(pixels.numpy())
