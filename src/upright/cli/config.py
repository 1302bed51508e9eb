"""``--config file.yaml``: keys are the verb's flags, with dashes or underscores; flags on the line win."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from reprlib import repr as brief
from typing import Any

from .errors import UserError, one_line

_NOT_KEYS = {"help", "config", "debug"}


def apply_config(parser: argparse.ArgumentParser, argv: Sequence[str]) -> None:
    """Make the values of the configuration file named in ``argv``, if any, the defaults of ``parser``.

    Raises:
        UserError: If the file cannot be read, or has keys or values that the verb does not take.
    """
    path = _named(argv)
    if path is None:
        return
    known = {action.dest: action for action in parser._actions if action.dest not in _NOT_KEYS}
    defaults = {}
    for key, value in _read(path).items():
        name = str(key).replace("-", "_")
        if name not in known:
            names = ", ".join(sorted(dest.replace("_", "-") for dest in known))
            raise UserError(f"{path} has the unknown key {str(key)!r}; known keys: {names}")
        defaults[name] = _convert(path, known[name], value)
    parser.set_defaults(**defaults)


def _named(argv: Sequence[str]) -> str | None:
    for i, word in enumerate(argv):
        if word == "--config":
            if i + 1 == len(argv):
                raise UserError("--config needs a file: --config settings.yaml")
            return argv[i + 1]
        if word.startswith("--config="):
            return word.partition("=")[2]
    return None


def _read(path: str) -> dict[Any, Any]:
    import yaml

    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"--config {path} does not exist; give a YAML file whose keys are flags") from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"--config {path} is no readable YAML file: {one_line(error)}") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise UserError(
            f"--config {path} must hold keys and values, such as 'group: C4', got a {type(data).__name__}"
        )
    return data


def _convert(path: str, action: argparse.Action, value: Any) -> Any:
    """Convert a value as if it stood on the command line."""
    where = f"{path}: {action.dest.replace('_', '-')}"
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise UserError(f"{where} must be true or false, got {brief(value)}")
        return value
    several = action.nargs not in (None, "?")
    if isinstance(value, list) != several and not (several and isinstance(value, str)):
        raise UserError(f"{where} must be {'a list' if several else 'one value'}, got {brief(value)}")
    values = [_one(where, action, v) for v in (value if isinstance(value, list) else [value])]
    if isinstance(action.nargs, int) and len(values) != action.nargs:
        raise UserError(f"{where} must have {action.nargs} values, got {len(values)}")
    return values if several else values[0]


def _one(where: str, action: argparse.Action, value: Any) -> Any:
    if value is None or isinstance(value, (dict, list, bool)):
        raise UserError(
            f"{where} must be a word or a number, got {brief(value)}; leave the key out for the default"
        )
    kind: Any = action.type or str
    try:
        converted = kind(str(value))
    except (TypeError, ValueError, argparse.ArgumentTypeError):
        raise UserError(
            f"{where} must be of type {getattr(kind, '__name__', kind)}, got {brief(value)}"
        ) from None
    if action.choices is not None and converted not in action.choices:
        raise UserError(f"{where} must be one of {', '.join(map(str, action.choices))}, got {brief(value)}")
    return converted
