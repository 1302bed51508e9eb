"""What a model takes and returns that moves with the picture, as data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .spec import EntrySpec, Size

InputSpec = EntrySpec
"""A kind, or kinds by entry where an argument is a list of one dictionary a picture (targets)."""


@dataclass(frozen=True)
class Embeds:
    """How a model makes features of pictures once, to be used in many calls.

    Attributes:
        method: The model's method that takes pictures and returns features.
        arguments: The arguments of the call that take them instead of pictures, the main one first; if there
            are several, the method returns as many.
    """

    method: str
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """How a model that takes no pictures as such lays them out, as patches for example.

    Attributes:
        read: Returns the arguments, by name, with pictures in place of what the model takes.
        write: Returns the arguments, by name, as the model takes them.
    """

    read: Callable[[dict[str, Any]], dict[str, Any]]
    write: Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class Signature:
    """What a model class takes and returns that moves with the picture.

    Attributes:
        inputs: Kinds of the arguments by name, the picture first; arguments that a call leaves out are
            skipped, those not named are handed through untouched, and cut with the batch where they have one
            entry a picture. Arguments that do not belong to a picture each, such as the texts of CLIP, are
            ``partial(Invariant, axis=None)``.
        outputs: Kinds of the result's entries by name; entries that a result lacks are skipped, those not
            named are invariant and have one row a picture.
        padding: Name of the argument, a mask ``(B, H, W)`` of ones where there is picture and zeros where
            there is padding below or to the right of it, for models that take batches of differently sized
            pictures; None: there is no such argument.
        methods: Further methods of the model that take pictures, by name.
        averages: Whether results of several poses can be averaged entry by entry; not so for sets whose
            entries change places (queries of detectors).
        extents: Name of the argument, heights and widths ``(B, 2)`` of what the pictures fill of a canvas of
            fixed size from its top left corner; None: they fill all of it.
        embeds: How features of pictures are made once for many calls; None: they are not.
        layout: How the model lays out pictures, where it takes no pictures as such; None: it takes them.
        check: Raises ValueError if the arguments, by name, do not fit pictures of the given sizes.
    """

    inputs: Mapping[str, InputSpec]
    outputs: Mapping[str, EntrySpec] = field(default_factory=dict)
    padding: str | None = None
    methods: Mapping[str, Signature] = field(default_factory=dict)
    averages: bool = True
    extents: str | None = None
    embeds: Embeds | None = None
    layout: Layout | None = None
    check: Callable[[Mapping[str, Any], list[Size]], None] | None = None


def unwrapped(model: Any) -> Any:
    """Return the model inside ``torch.compile``, data-parallel and PEFT wrappers."""
    for _ in range(8):
        if hasattr(model, "get_base_model"):  # PEFT
            model = model.get_base_model()
        elif type(model).__name__ == "OptimizedModule":
            model = model._orig_mod
        elif type(model).__name__ in ("DataParallel", "DistributedDataParallel"):
            model = model.module
        else:
            break
    return model
