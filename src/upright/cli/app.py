"""The entry point: verbs, and how errors reach the user."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from .._version import __version__
from .config import apply_config
from .errors import USER_ERRORS, UserError, one_line

VERBS: dict[str, str] = {
    "adapt": "make a model equivariant and save how",
    "evaluate": "measure a model at every pose, bare and adapted",
    "predict": "classify pictures however they lie, and say how they lie",
    "serve": "try a model in the browser: turn a picture and see what it says; with a JSON endpoint",
    "canonicalize": "set all pictures of a folder, of Parquet or of tar files upright",
    "export": "write a model, or what turns pictures before it, to one ONNX or torch file",
    "demo": "see what it does, on real photos and on digits, in a few minutes",
    "info": "show what is installed, or what a saved folder holds",
}
"""Verbs and what they do. ``cli/<verb>.py`` has ``add_arguments(parser)`` and ``run(args) -> int``."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line and are raised."""

    def error(self, message: str) -> NoReturn:
        """Raise UserError with the message and where to find help."""
        raise UserError(f"{message} (see: {self.prog} --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name; default: those of the process.

    Returns:
        0; 2 after an error of the user's, 1 after one of the program's, 3 where some items of a stream are
        bad, 130 after Ctrl-C.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in given
    try:
        with contextlib.nullcontext() if debug else _quiet():
            return _run(given)
    except KeyboardInterrupt:
        print("upright: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except USER_ERRORS as error:
        if debug:
            raise
        print(f"upright: error: {one_line(error)}", file=sys.stderr)
        return 2
    except Exception as error:
        if debug:
            raise
        print(
            f"upright: internal error: {type(error).__name__}: {one_line(error)}; --debug shows where",
            file=sys.stderr,
        )
        return 1


def build_parser(verb: str | None) -> tuple[Parser, Parser | None, Any]:
    """Build the parser; only the module of ``verb`` is imported.

    Returns:
        The parser, the parser of the verb, and the module of the verb.
    """
    parser = Parser(
        prog="upright",
        description="Make any pretrained model equivariant to known transformations, without changing or "
        "retraining it.",
    )
    parser.add_argument("--version", action="version", version=f"upright {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="verb", parser_class=Parser)
    chosen: Parser | None = None
    module: Any = None
    for name, text in VERBS.items():
        sub = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if name == verb:
            module = importlib.import_module(f"{__package__}.{name}")
            module.add_arguments(sub)
            sub.add_argument(
                "--config", metavar="FILE", help="YAML file whose keys are these flags; flags win"
            )
            sub.add_argument("--debug", action="store_true", help="show the traceback of errors")
            chosen = sub
    return parser, chosen, module


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep warnings and log lines of libraries (retries of the hub, say) off the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _run(argv: list[str]) -> int:
    verb = next((word for word in argv if not word.startswith("-")), None)
    parser, chosen, module = build_parser(verb)
    if chosen is None and not {"-h", "--help", "--version"} & set(argv):
        if verb is None:
            parser.print_help()
            return 0
        raise UserError(f"unknown verb {verb!r}; verbs: {', '.join(VERBS)}")
    try:
        if chosen is None or argv[0] != verb:
            parser.parse_args(argv)  # --help and --version
            raise UserError(f"flags go after the verb: upright {verb} {argv[0]}")
        apply_config(chosen, argv)
        args = chosen.parse_intermixed_args(argv[1:])
    except SystemExit as stop:
        return int(stop.code or 0)
    args.words = argv
    return int(module.run(args))
