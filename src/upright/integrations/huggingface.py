"""Image classifiers of ``transformers``, from the hub or a local folder."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import Tensor

from .._online import hub_answers
from .models import LoadedModel, ModelError
from .preprocess import centre_square


@dataclass(frozen=True)
class ProcessorPreprocess:
    """Applies an image processor to one picture.

    Attributes:
        processor: An image processor of ``transformers``.
        square: Whether to cut the centre square first, for processors that keep the picture's shape.
    """

    processor: Any
    square: bool = False

    def __call__(self, picture: Any) -> Tensor:
        """Return what the processor makes of an RGB picture, shape ``(C, H, W)``."""
        if self.square:
            picture = centre_square(picture)
        values: Tensor = self.processor(images=picture, return_tensors="pt")["pixel_values"][0]
        return values

    def invert(self, x: Tensor) -> Tensor:
        """Undo the normalisation: values in 0…1, the shape of ``x``."""
        if getattr(self.processor, "do_normalize", True):
            mean, std = self.processor.image_mean, self.processor.image_std
            x = x * x.new_tensor(std).view(-1, 1, 1) + x.new_tensor(mean).view(-1, 1, 1)
        return x.clamp(0, 1)


def load(reference: str) -> LoadedModel:
    """Load ``AutoModelForImageClassification`` and ``AutoImageProcessor``.

    Raises:
        ImportError: If ``transformers`` is missing.
        ModelError: If there is no such classifier, or it cannot be fetched.
    """
    if find_spec("transformers") is None:
        raise ImportError(f"to load {reference!r} as a transformers model: pip install 'upright[hf]'")
    local = _is_local(reference)  # before transformers, which takes seconds to import
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    with _quiet():
        try:
            model = AutoModelForImageClassification.from_pretrained(reference, local_files_only=local)
        except Exception as error:  # the hub client and transformers raise many kinds
            raise ModelError(
                _failure(reference, "holds no image classifier that can be loaded", error)
            ) from error
        try:
            processor = AutoImageProcessor.from_pretrained(reference, local_files_only=local)
        except Exception as error:
            raise ModelError(
                _failure(reference, "holds no image processor (preprocessor_config.json)", error)
            ) from error
        preprocess = _preprocess(reference, processor)
    names = {int(number): str(name) for number, name in (model.config.id2label or {}).items()}
    class_names = tuple(names.get(i, str(i)) for i in range(model.config.num_labels))
    return LoadedModel(model.eval(), preprocess, class_names, "pixel_values", reference)


def _is_local(reference: str) -> bool:
    """Return whether nothing is to be fetched: a folder, or the cache of a hub that does not answer."""
    from huggingface_hub import try_to_load_from_cache

    if Path(reference).is_dir():
        return True
    remedy = "or give a transformers folder, or 'module:callable'"
    try:
        answers = hub_answers(reference, "model")
    except LookupError as error:
        raise ModelError(f"{error}; {remedy}") from error
    if not answers and not isinstance(try_to_load_from_cache(reference, "config.json"), str):
        raise ModelError(
            f"no folder {reference!r} exists here, the hub cannot be reached, and its cache holds no model "
            f"of that name; check name and connection, {remedy}"
        )
    return not answers


def _preprocess(reference: str, processor: Any) -> ProcessorPreprocess:
    """Probe the processor with a picture that is not square; the model is to see squares."""
    from PIL import Image

    for square in (False, True):
        made = ProcessorPreprocess(processor, square)
        values = made(Image.new("RGB", (64, 48)))
        if values.ndim == 3 and values.shape[-1] == values.shape[-2]:
            return made
    raise ModelError(
        f"the image processor of {reference!r} makes pictures of shape {tuple(values.shape)}, but "
        "squares are needed so that every pose fits; set its size to a square, such as "
        "{'height': 224, 'width': 224}"
    )


def _failure(reference: str, what: str, error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    reason = text if len(text) <= 160 else text[:157] + "…"
    where = "the folder" if Path(reference).is_dir() else "the hub name"
    remedy = (
        "save model and image processor into it" if where == "the folder" else "check name and connection"
    )
    return f"{where} {reference!r} {what}; {remedy}, or use 'module:callable' ({reason})"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep loading bars and hints of ``transformers`` off the terminal."""
    from transformers.utils import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
