"""What a graph computes: the adapter's steps, without a choice that depends on values.

A graph that is traced once has to hold for every input, so nothing may look at a pose to decide what comes
next. Pictures that all exchange their sides, or all keep them, have a known shape; of pictures that are not
square, those two parts of a batch are therefore computed one after the other, each exactly as in the adapter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.fx.experimental.symbolic_shapes import statically_known_true

from ..actions import act
from ..actions.grid import SIGNED
from ..adapter import Adapted
from ..adapter.call import Call, is_invariant
from ..adapter.result import Result, batch_axis
from ..adapter.spec import wrap
from ..adapter.square import needs_square, placed_kind, taken_back
from ..canonicalizers import Canonicalizer, Pose
from ..canonicalizers.network import NetworkCanonicalizer
from ..groups.base import Element
from ..groups.planar import FinitePlanarGroup, PlanarGroup, SideCoset
from ..groups.product import planar_part, reflects
from ..kinds import Image, Kind

_assure: Any = torch._check  # tells the tracer what holds

Part = Literal["pipeline", "canonicalizer", "preprocessing"]
PARTS: tuple[Part, ...] = ("pipeline", "canonicalizer", "preprocessing")


class ExportError(ValueError):
    """A model cannot be exported as asked, or what was exported does not agree with it."""


@dataclass(frozen=True)
class Arguments:
    """The arguments of a call: tensors, which are inputs of the graph, and the rest, which is part of it.

    Attributes:
        args: Positional arguments, tensors left out.
        kwargs: Keyword arguments, tensors left out.
        tensors: Where the tensors belong, by the names of the graph's inputs.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    tensors: dict[str, int | str]

    @classmethod
    def of(cls, args: tuple[Any, ...], kwargs: Mapping[str, Any], names: list[str]) -> Arguments:
        """Read a call; ``names`` are those of the positional arguments."""
        named = [names[i] if i < len(names) else f"input_{i}" for i in range(len(args))]
        tensors: dict[str, int | str] = {n: i for i, n in enumerate(named) if isinstance(args[i], Tensor)}
        tensors |= {name: name for name, value in kwargs.items() if isinstance(value, Tensor)}
        return cls(
            tuple(None if isinstance(a, Tensor) else a for a in args),
            {k: None if isinstance(v, Tensor) else v for k, v in kwargs.items()},
            tensors,
        )

    def filled(self, values: tuple[Tensor, ...]) -> tuple[list[Any], dict[str, Any]]:
        """Return positional and keyword arguments with tensors in their places."""
        args, kwargs = list(self.args), dict(self.kwargs)
        for place, tensor in zip(self.tensors.values(), values, strict=True):
            if isinstance(place, int):
                args[place] = tensor
            else:
                kwargs[place] = tensor
        return args, kwargs


class CanonicalizerGraph(nn.Module):
    """Pictures, clouds or volumes in; the pose out, as tensors by name."""

    def __init__(self, canonicalizer: Canonicalizer) -> None:
        super().__init__()
        self.canonicalizer = canonicalizer

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """Return ``pose``, ``degrees``, ``reflected``, ``confidence`` and ``probabilities``."""
        return pose_tensors(self.canonicalizer(pictures), listed=True)


class PreprocessingGraph(nn.Module):
    """Pictures in; upright pictures and the pose out. ``square``: that they are is part of the graph."""

    def __init__(self, robust: Adapted, square: bool = False) -> None:
        super().__init__()
        self.robust, self.square = robust, square

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """Return ``upright`` and what `pose_tensors` gives."""
        if not torch.compiler.is_exporting():
            upright, pose = self.robust.canonicalize(pictures)
            if not isinstance(upright, Tensor):
                raise ExportError(
                    "upright pictures of one batch have several shapes; give one picture a call"
                )
            return {"upright": upright, **pose_tensors(pose)}
        call, _, pose = _read(self.robust, (pictures,), {}, self.square)
        if _may_swap(call, self.robust):
            if not statically_known_true(call.batch == 1):
                raise ExportError(
                    "upright pictures of one batch have several shapes where they are not square; export "
                    "with one picture a call, dynamic=('size',), or square ones, dynamic=('batch', 'square')"
                )
            upright = _turned_alone(pose.element.inverse(), call.pictures)
        else:
            upright = call.moved_back(pose.element).pictures
        return {"upright": upright, **pose_tensors(pose)}


class PipelineGraph(nn.Module):
    """What the adapted model takes in, what it returns out, by name; with ``poses`` also the pose."""

    def __init__(
        self, robust: Adapted, arguments: Arguments, poses: bool = False, square: bool = False
    ) -> None:
        super().__init__()
        self.robust, self.square = robust, square
        self.arguments, self.poses = arguments, poses

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Return the results by name."""
        args, kwargs = self.arguments.filled(inputs)
        if torch.compiler.is_exporting():
            output, pose = _run(self.robust, tuple(args), kwargs, self.square)
        else:
            run = self.robust.run(*args, **kwargs)
            output, pose = run.output, run.pose
        return {**named_tensors(output), **(pose_tensors(pose) if self.poses else {})}


def pose_tensors(pose: Pose, listed: bool = False) -> dict[str, Tensor]:
    """Return what a pose says, as tensors by name.

    Args:
        pose: The poses, batch shape ``(B,)``.
        listed: Whether to add the probabilities of all listed elements.

    Returns:
        ``pose``, the elements as they are written down (numbers of a finite group; the angle in radians of
        SO2); ``confidence`` ``(B,)``; for groups of the plane also ``degrees`` ``(B,)``, counter-clockwise,
        and, where there are any, ``reflected`` ``(B,)``.
    """
    tensors = {"pose": pose.element.value.clone()}
    plane = planar_part(pose.element)
    if plane is not None:
        group = plane.group
        assert isinstance(group, PlanarGroup)
        tensors["degrees"] = group.angle(plane).rad2deg().float()
        if reflects(group):
            tensors["reflected"] = group.is_reflected(plane)
    tensors["confidence"] = pose.confidence
    if listed and pose.log_probs is not None:
        tensors["probabilities"] = pose.probs
        if pose.candidates is not None:
            tensors["candidates"] = pose.candidates.value.clone()
    return tensors


def named_tensors(output: Any, prefix: str = "") -> dict[str, Tensor]:
    """Return the tensors of a model's output by name: ``output``, or the names or numbers of entries.

    Raises:
        TypeError: If the output is a list with one entry a picture, as of detectors, whose lengths differ.
    """
    if isinstance(output, Tensor):
        return {prefix or "output": output}
    if isinstance(output, list):
        raise TypeError(
            "the model returns a list with one entry a picture, whose number a graph cannot change; export "
            "part='preprocessing' and put it before the model, or let the model return tensors"
        )
    if isinstance(output, Mapping):
        entries: list[tuple[Any, Any]] = list(output.items())
    elif isinstance(output, tuple):
        names = getattr(output, "_fields", range(len(output)))
        entries = list(zip(names, output, strict=True))
    elif is_dataclass(output):
        entries = [(f.name, getattr(output, f.name)) for f in fields(output)]
    else:
        return {}
    found: dict[str, Tensor] = {}
    for key, entry in entries:
        name = f"{prefix}_{key}" if prefix else f"output_{key}" if isinstance(key, int) else str(key)
        found.update(named_tensors(entry, name))
    return found


def _run(robust: Adapted, args: tuple[Any, ...], kwargs: dict[str, Any], square: bool) -> tuple[Any, Pose]:
    """Compute what ``robust.run`` computes, in a graph."""
    if robust.mode != "canonical":
        raise ExportError(
            f"a graph runs the model once, mode='canonical', got mode={robust.mode!r}; export "
            "robust.replace(mode='canonical')"
        )
    call, size, pose = _read(robust, args, kwargs, square)
    result = _in_halves(robust, call, pose.element) if _may_swap(call, robust) else None
    if result is None:
        result = _conjugated(robust, call, pose.element)
    if size is not None:
        result = replace(result, kinds=[taken_back(kind, size, robust.canvas) for kind in result.kinds])
    return result.output(), pose


def _read(
    robust: Adapted, args: tuple[Any, ...], kwargs: dict[str, Any], square: bool
) -> tuple[Call, Any, Pose]:
    """Read a call and find the poses; with the pictures' size where they were placed on squares.

    Raises:
        ExportError: If the group needs squares and the canvas policy makes none.
    """
    call = robust._read(args, kwargs)
    if call.canvas is not None or call.extents is not None:
        raise ExportError("padded pictures cannot be cut out in a graph; call it without their padding")
    size = call.frame
    if square:
        _assure(size[0] == size[1])
    if call.subject is not Image or not needs_square(robust.group) or _is_square(call):
        return call, None, robust._decided(call).pose
    if robust.canvas == "bucket":
        raise ExportError(
            f"{robust.group} turns by more than quarter turns and needs square pictures, got {size[0]}×"
            f"{size[1]}; set canvas='pad' to place them on squares, or export with dynamic=('square',)"
        )
    values = {
        key: placed_kind(wrap(spec, call[key], size), size, robust.canvas).data  # type: ignore[arg-type]
        for key, spec in call.moved.items()
        if not is_invariant(spec)
    }
    on_square = call.with_values(values)
    network = robust.canonicalizer
    looks_at_centre = isinstance(network, NetworkCanonicalizer) and network.size and robust.canvas == "pad"
    return on_square, size, robust._decided(call if looks_at_centre else on_square).pose


def _is_square(call: Call) -> bool:
    """Say whether pictures are square, whatever their size will be."""
    return bool(statically_known_true(call.frame[0] == call.frame[1]))


def _may_swap(call: Call, robust: Adapted) -> bool:
    """Say whether some pictures may take another shape when they are turned back.

    Raises:
        ExportError: If they may, and the group is not one of quarter turns and flips alone.
    """
    group = robust.group
    if call.subject is not Image or needs_square(group) or _is_square(call):
        return False
    plane = planar_part(group.identity(1))
    if plane is None or not isinstance(plane.group, PlanarGroup) or plane.group.swaps_sides is not None:
        return False
    if not isinstance(group, FinitePlanarGroup):
        raise ExportError(f"pictures must be square in a graph for {group}; pad or resize them before")
    if robust.canvas != "bucket":
        raise ExportError(
            f"canvas={robust.canvas!r} shares one call of the model only where shapes differ, which a graph "
            "cannot know; export robust.replace(canvas='bucket')"
        )
    return True


def _conjugated(robust: Adapted, call: Call, g: Element) -> Result:
    """Turn back, run the model, turn forward."""
    back = call.moved_back(g)
    result = robust._result(back.send(robust.model), back.frame)
    return result.moved(g)


def _in_halves(robust: Adapted, call: Call, g: Element) -> Result:
    """Conjugate the pictures that keep their shape, then those that exchange their sides."""
    group = g.group
    assert isinstance(group, FinitePlanarGroup)
    swaps = group.quarter_turns(g) % 2 == 1
    index = [(~swaps).nonzero().squeeze(1), swaps.nonzero().squeeze(1)]
    halves = [
        _conjugated(robust, call.select(i), Element(SideCoset(group, swapped), g.value[i]))
        for i, swapped in zip(index, (False, True), strict=True)
    ]
    order = torch.cat(index).argsort()
    kinds = [_joined(pair, order) for pair in zip(*(half.kinds for half in halves), strict=True)]
    return replace(halves[0], kinds=kinds)


def _joined(halves: tuple[Kind, ...], order: Tensor) -> Kind:
    """Put what belongs to the two parts of a batch together again."""
    axis = batch_axis(halves[0])
    if axis is None or halves[0].data.ndim == 0:
        raise ExportError(
            "a result that belongs to all pictures together cannot be put together in a graph; leave it out, "
            "or export with square pictures"
        )
    return halves[0].replace(data=torch.cat([half.data for half in halves], axis).index_select(axis, order))


def _turned_alone(g: Element, picture: Tensor) -> Tensor:
    """Move one picture ``(1, C, H, W)`` by a quarter turn or flip; the shape is known when it is computed."""
    signed = SIGNED.get(picture.dtype)
    if signed is not None:
        return _turned_alone(g, picture.view(signed)).view(picture.dtype)
    group = g.group
    assert isinstance(group, FinitePlanarGroup)
    height, width = picture.shape[-2:]
    halves = [
        act(Element(SideCoset(group, swaps), g.value), Image(picture)).data.flatten(2)
        for swaps in (False, True)
    ]
    swapped = (group.quarter_turns(g) % 2).sum()  # 0 or 1
    pixels = torch.where(swapped == 1, halves[1], halves[0])
    odd: Any = swapped.item()
    _assure(odd >= 0)
    _assure(odd <= 1)
    rows = height + odd * (width - height)
    return pixels.reshape(*picture.shape[:2], rows, height + width - rows)
