"""``upright serve``: a page in the browser to try a model on, and a JSON endpoint."""

from __future__ import annotations

import argparse
import socket
from typing import TYPE_CHECKING, Any

from .errors import UserError, one_line
from .sources import (
    add_adapter_flags,
    add_model_flags,
    add_opening_flags,
    open_source,
    positive,
)

if TYPE_CHECKING:
    from ..serve import Limits, Service

_LIMITS = ("max_bytes", "max_pixels", "max_seconds", "workers", "queue")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument(
        "saved", nargs="?",
        help="a folder that 'upright adapt' wrote, or a hub name; else --model; else photos and photo-c4",
    )  # fmt: skip
    group = parser.add_argument_group("server")
    group.add_argument("--host", default="127.0.0.1", help="where to listen; default: this machine only")
    group.add_argument("--port", type=int, default=8000, help="0 takes a free one; default: 8000")
    group.add_argument(
        "--allow-host", action="append", metavar="NAME", default=[],
        help="a further name under which browsers may ask for the server",
    )  # fmt: skip
    group.add_argument("--open", action="store_true", help="open the page in a browser")
    group = parser.add_argument_group("limits")
    group.add_argument("--max-bytes", type=positive, metavar="N", help="of a picture; default: 10 MiB")
    group.add_argument("--max-pixels", type=positive, metavar="N", help="of a picture; default: 25 million")
    group.add_argument("--max-seconds", type=float, metavar="S", help="for an answer; default: 20")
    group.add_argument(
        "--workers", type=positive, metavar="N", help="pictures at once; default: cores, at most 4"
    )
    group.add_argument("--queue", type=int, metavar="N", help="how many more may wait; default: 32")
    group = parser.add_argument_group("task")
    group.add_argument(
        "--task", metavar="NAME",
        help="classification, segmentation, detection, instances or keypoints; default: what --outputs tells",
    )  # fmt: skip
    group.add_argument(
        "--outputs", metavar="KINDS",
        help="what the model returns: mask, or boxes=boxes,masks=mask; default: what is known of it",
    )  # fmt: skip
    group.add_argument(
        "--threshold", type=float, default=0.5, metavar="P", help="show things surer than that; default: 0.5"
    )
    add_model_flags(parser)
    add_adapter_flags(parser)
    add_opening_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Load, listen, serve."""
    from .. import serve

    limits = _limits(args)
    if not 0 <= args.port < 65536:
        raise UserError(f"--port must lie in 0…65535, got {args.port}; 0 takes a free one")
    listening = serve.listen(args.host, args.port)
    try:
        service = _service(args, limits)
        _announce(args, service, listening)
        serve.serve(service, listening, hosts=_hosts(args, listening))
    finally:
        listening.close()
    print("upright: stopped", flush=True)
    return 0


def task_of(outputs: Any) -> str:
    """Return the task whose answers a specification of outputs describes."""
    entries = set(outputs.values()) if isinstance(outputs, dict) else {outputs}
    if "points" in entries:
        return "keypoints"
    if "boxes" in entries:
        return "instances" if "mask" in entries else "detection"
    return "segmentation" if "mask" in entries else "classification"


def _limits(args: argparse.Namespace) -> Limits:
    from ..serve import Limits

    given = {name: getattr(args, name) for name in _LIMITS if getattr(args, name) is not None}
    try:
        return Limits(**given)
    except ValueError as error:
        raise UserError(f"--{str(error).replace('_', '-', 1)}") from error


def _service(args: argparse.Namespace, limits: Limits) -> Service:
    from ..evaluation import TASKS
    from ..serve import DRAWN, Service, defaults
    from .evaluate import parsed_outputs

    if args.task is not None and args.task not in DRAWN:
        known = "is not drawn" if args.task in TASKS else "is unknown"
        raise UserError(f"--task {args.task} {known}; give one of {', '.join(DRAWN)}")
    if not 0 <= args.threshold <= 1:
        raise UserError(f"--threshold must lie in 0…1, got {args.threshold}")
    settings: dict[str, Any] = {"limits": limits, "device": args.device, "threshold": args.threshold}
    if args.saved is None and args.model is None:
        if defaults.has_photo_model():
            args.model = defaults.PHOTO_MODEL
        else:
            return _digits(args, settings)
    outputs = parsed_outputs(args.outputs)
    saved = None if args.saved is None else _saved_outputs(args.saved)
    args.task = args.task or task_of(saved if outputs is None else outputs)
    source = open_source(args, args.saved)
    robust = source.robust if outputs is None else source.robust.replace(outputs=outputs)
    service = Service(robust, source.loaded, task=args.task, **settings)
    if args.task != "classification":
        _try(service)
    return service


def _digits(args: argparse.Namespace, settings: dict[str, Any]) -> Service:
    from ..serve import Service, defaults

    if args.group not in (None, "C4"):
        raise UserError(f"--group {args.group} needs a --model; without one, digits and C4 are served")
    print(
        "no network for photos here (pip install 'upright[demo]'): training on digits, some seconds",
        flush=True,
    )
    robust, loaded, pictures = defaults.digits()
    return Service(robust, loaded, pictures=pictures, **settings)


def _saved_outputs(saved: str) -> Any:
    from .. import hub

    encoded = hub.read_manifest(hub.resolve(saved)).adapter.get("outputs")
    if isinstance(encoded, dict) and "entries" in encoded:
        return {str(key): kind for key, kind in encoded["entries"] if isinstance(kind, str)}
    return encoded if isinstance(encoded, str) else None


def _try(service: Service) -> None:
    """Run the model once, so that misfits show before anybody asks."""
    from ..serve import Ask

    data, _ = next(iter(service.examples.values())).file()
    try:
        service.answer(data, Ask())
    except Exception as error:  # a user's model may fail in any way
        raise UserError(
            f"the model's output cannot be shown as {service.task}: {one_line(error)}; "
            "see --task and --outputs"
        ) from error


def _hosts(args: argparse.Namespace, listening: socket.socket) -> tuple[str, ...]:
    from ..serve import LOCAL

    bound = listening.getsockname()[0]
    if bound in ("0.0.0.0", "::") and not args.allow_host:
        return ()
    return (*LOCAL, args.host, f"[{bound}]" if ":" in bound else bound, *args.allow_host)


def _announce(args: argparse.Namespace, service: Service, listening: socket.socket) -> None:
    from ..serve import address_of

    address = address_of(listening)
    info = service.info()
    print(f"{info.model}, adapted to {info.group}, is at {address} (endpoint: {address}/docs)", flush=True)
    if not listening.getsockname()[0].startswith("127.") and listening.getsockname()[0] != "::1":
        print(
            "everyone who reaches this machine may use it: there is no password and no encryption", flush=True
        )
    print("Ctrl-C stops it", flush=True)
    if args.open:
        import webbrowser

        webbrowser.open(address)
