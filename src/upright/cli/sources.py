"""Flags that verbs share, and what they open: the model, the adapted model, the device."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from .errors import UserError, one_line

if TYPE_CHECKING:
    from ..adapter import Adapted
    from ..integrations import LoadedModel

MODEL_HELP = "efficientnet-lite0, a hub name or folder of a transformers image classifier, or module:callable"


@dataclass(frozen=True)
class Source:
    """An adapted model with the model's preprocessing and class names.

    Attributes:
        robust: The adapted model.
        loaded: The model as it was loaded.
    """

    robust: Adapted
    loaded: LoadedModel


def positive(text: str) -> int:
    """Read a positive integer."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """Add what names a model and how its pictures are made."""
    group = parser.add_argument_group(
        "model", "'upright adapt' keeps --size, --mean and --std in the folder that it saves"
    )
    group.add_argument("--model", metavar="REFERENCE", help=MODEL_HELP)
    group.add_argument(
        "--size", type=positive, help="side of the model's input in pixels, with module:callable"
    )
    group.add_argument("--mean", type=float, nargs=3, metavar="M", help="normalisation, for values in 0…1")
    group.add_argument("--std", type=float, nargs=3, metavar="S", help="normalisation, for values in 0…1")


def add_adapter_flags(parser: argparse.ArgumentParser) -> None:
    """Add how the model is adapted."""
    group = parser.add_argument_group("adaptation")
    group.add_argument("--group", help="C<n> (turns by 360°/n) or D<n> (turns and flips); default: C4")
    group.add_argument(
        "--canonicalizer",
        metavar="NAME",
        help="a ready-made or saved one; default: the ready-made one of the group",
    )
    group.add_argument(
        "--mode", choices=["canonical", "top_k", "weighted", "average"],
        help="one pass; the likeliest poses; the same with weights that change continuously; all",
    )  # fmt: skip
    group.add_argument(
        "--top-k", type=positive, metavar="K", help="with top_k, weighted: most poses a picture may take"
    )
    group.add_argument(
        "--cover", type=float, metavar="P", help="with top_k: probability that the poses must cover"
    )
    group.add_argument(
        "--cut", type=float, metavar="P", help="with weighted: share of the likeliest that others must exceed"
    )
    group.add_argument(
        "--evidence", type=float, metavar="E",
        help="with top_k, weighted: weight of the model's own certainty",
    )  # fmt: skip
    group.add_argument(
        "--upright-share", type=float, metavar="P",
        help="share of upright pictures in use, such as 0.95: the best decision then",
    )  # fmt: skip
    group.add_argument(
        "--gate", type=float, metavar="P", help="leave pictures alone whose pose is less probable than that"
    )
    group.add_argument("--flag", type=float, metavar="P", help="the same, but turn them and mark them")
    group.add_argument(
        "--canvas", choices=["bucket", "pad", "stretch"], help="for pictures that are not square"
    )


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """Add how a saved model is opened and run."""
    group = add_opening_flags(parser)
    group.add_argument(
        "--batch-size", type=positive, default=32, metavar="N", help="pictures a batch; default: 32"
    )
    group.add_argument("--limit", type=positive, metavar="N", help="at most so many pictures")


def add_opening_flags(parser: argparse.ArgumentParser) -> Any:
    """Add how a saved model is opened; return the group of flags."""
    group = parser.add_argument_group("running")
    group.add_argument(
        "--trust-code", action="store_true", help="run module:callable names that a saved folder holds"
    )
    group.add_argument("--device", default="cpu", help="such as cuda or cuda:1; default: cpu")
    return group


def add_source_flags(parser: argparse.ArgumentParser) -> None:
    """Add all that `open_source` reads."""
    add_model_flags(parser)
    add_adapter_flags(parser)
    add_run_flags(parser)


def open_model(
    args: argparse.Namespace, reference: str, stored: Mapping[str, Any] | None = None
) -> LoadedModel:
    """Load a model, with the preprocessing that the flags ask for, or else that was ``stored`` with it."""
    from ..integrations import SquarePreprocess, load_model

    loaded = load_model(reference)
    if (args.mean is None) != (args.std is None):
        raise UserError("--mean and --std go together; give both, as the model was trained")
    if args.std is not None and min(args.std) <= 0:
        raise UserError(f"--std must be positive, got {args.std}")
    changes = {**(stored or {}), **preprocess_settings(args)}
    if not changes:
        return loaded
    if not isinstance(loaded.preprocess, SquarePreprocess):
        raise UserError(
            f"--size, --mean and --std do not apply to {reference!r}, which brings its own preprocessing"
        )
    changes = {name: tuple(v) if isinstance(v, list) else v for name, v in changes.items()}
    return replace(loaded, preprocess=replace(loaded.preprocess, **changes))


def preprocess_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Return how the flags say that pictures are made for the model."""
    return _given(args, "size", "mean", "std")


def adapter_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of `Adapted` that the flags give."""
    settings = _given(args, "mode", "top_k", "cover", "cut", "evidence", "canvas")
    if "mode" not in settings and {"top_k", "cover", "cut", "evidence"} & set(settings):
        settings["mode"] = "weighted" if "cut" in settings else "top_k"
    if args.gate is not None and args.flag is not None:
        raise UserError("--gate and --flag say different things of the same pictures; give one of them")
    if args.gate is not None or args.flag is not None:
        from ..confidence import Gate

        below = "leave" if args.flag is None else "flag"
        settings["gate"] = Gate(args.gate if args.flag is None else args.flag, below)  # type: ignore[arg-type]
    return settings


def with_prior(args: argparse.Namespace, robust: Adapted) -> Adapted:
    """Let the model decide under the share of upright pictures that the flags give."""
    if args.upright_share is None:
        return robust
    from ..confidence import deployment_prior

    return robust.with_prior(deployment_prior(robust.group, upright=args.upright_share))


def _given(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def open_source(args: argparse.Namespace, saved: str | None) -> Source:
    """Open a saved folder, or a model with a ready-made canonicalizer.

    Raises:
        UserError: If neither a folder nor a model is given, or the flags contradict each other.
    """
    if saved is None:
        if args.model is None:
            raise UserError("no model: give a folder that 'upright adapt' wrote, or --model")
        loaded = open_model(args, args.model)
        return _ready(args, loaded, adapt_ready(args, loaded))
    from .. import hub
    from ..groups import parse_group

    path = hub.resolve(saved)
    manifest = hub.read_manifest(path)
    if args.group is not None and str(parse_group(args.group)) != manifest.group:
        raise UserError(f"{saved} is of {manifest.group}, but --group is {args.group}; leave --group out")
    if args.canonicalizer is not None:
        raise UserError(
            f"{saved} holds a canonicalizer; leave --canonicalizer out, or give --model without a folder"
        )
    reference = args.model or (manifest.model or {}).get("reference")
    if not reference:
        raise UserError(f"{saved} does not say which model it belongs to; give --model")
    if args.model is None and ":" in reference and not args.trust_code:
        raise UserError(
            f"{saved} names the code {reference!r} for its model; give --trust-code to run it, or --model"
        )
    of_this_model = reference == (manifest.model or {}).get("reference")
    loaded = open_model(args, reference, (manifest.model or {}).get("preprocess") if of_this_model else None)
    robust = hub.load(path, loaded.model, trust_code=args.trust_code)
    settings = adapter_settings(args)
    if settings:
        robust = robust.replace(**settings)
    return _ready(args, loaded, with_prior(args, robust))


def adapt_ready(args: argparse.Namespace, loaded: LoadedModel) -> Adapted:
    """Adapt with the canonicalizer that is named, or with the ready-made one of the group."""
    from .. import hub
    from ..factory import adapt
    from ..groups import parse_group

    if args.canonicalizer is not None:
        trust = getattr(args, "trust_code", False)
        chosen = hub.load_canonicalizer(args.canonicalizer, trust_code=trust)
        robust = adapt(
            loaded.model, args.group or chosen.group, canonicalizer=chosen, **adapter_settings(args)
        )
        return with_prior(args, robust)
    group = parse_group(args.group or "C4")
    if str(group) not in hub.READY_MADE:
        ready = ", ".join(sorted(hub.READY_MADE)) or "no group"
        raise UserError(
            f"no ready-made canonicalizer for {group} (there is one for: {ready}); train one with "
            "'upright adapt --train DATA', or name a saved one with --canonicalizer"
        )
    return with_prior(args, adapt(loaded.model, group, **adapter_settings(args)))


def check_fits(robust: Adapted, preprocess: Callable[[Any], torch.Tensor], device: str = "cpu") -> None:
    """Run the model once on a grey picture, so that misfits show before anything long starts.

    Raises:
        UserError: If the model does not take what the preprocessing makes, or returns no class scores.
    """
    from PIL import Image

    from ..evaluation.scores import call, class_scores

    x = preprocess(Image.new("RGB", (64, 48), (128, 128, 128)))
    if not isinstance(x, torch.Tensor) or x.ndim != 3:
        got = tuple(x.shape) if isinstance(x, torch.Tensor) else type(x).__name__
        raise UserError(f"the model's preprocessing must make a tensor (C, H, W) of a picture, got {got}")
    try:
        with torch.inference_mode():
            class_scores(robust, call(robust, robust.model, x[None].to(device)), 1)
            robust.canonicalizer(x[None].to(device))
    except Exception as error:  # a user's model may fail in any way
        raise UserError(
            f"the model does not take pictures of shape {tuple(x.shape)}: {one_line(error)}; "
            "set --size, --mean and --std, or let module:callable return (model, preprocess)"
        ) from error


def _ready(args: argparse.Namespace, loaded: LoadedModel, robust: Adapted) -> Source:
    try:
        robust.to(torch.device(args.device))
        if not isinstance(robust.model, nn.Module) and args.device != "cpu":
            raise UserError(f"--device {args.device} cannot move a model that is no torch module")
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {args.device} is not usable here: {one_line(error)}") from error
    robust.eval()
    if getattr(args, "task", "classification") == "classification":
        check_fits(robust, loaded.preprocess, args.device)
    return Source(robust, loaded)


def check_file_target(flag: str, target: str | None) -> None:
    """Raise UserError unless a file can be written there; ``-`` is the terminal."""
    if target is None or target == "-":
        return
    path = Path(target)
    if path.is_dir():
        raise UserError(f"{flag} {target} is a folder; give a file in it")
    if not path.parent.is_dir():
        raise UserError(f"{flag} {target}: the folder {path.parent} does not exist; make it first")


def check_folder_target(flag: str, target: str | None) -> None:
    """Raise UserError unless a folder is there or can be made."""
    if target is None:
        return
    path = Path(target)
    if path.exists() and not path.is_dir():
        raise UserError(f"{flag} {target} is a file; give a folder")
    if not path.exists() and not path.absolute().parent.is_dir():
        raise UserError(f"{flag} {target}: the folder {path.parent} does not exist; make it first")


def report_skipped(skipped: list[tuple[str, str]], shown: int = 5) -> None:
    """Say on stderr which pictures could not be read."""
    import sys

    if not skipped:
        return
    plural = "picture" if len(skipped) == 1 else "pictures"
    print(f"upright: skipped {len(skipped)} unreadable {plural}:", file=sys.stderr)
    for path, reason in skipped[:shown]:
        print(f"  {path}: {reason}", file=sys.stderr)
    if len(skipped) > shown:
        print(f"  and {len(skipped) - shown} more", file=sys.stderr)
