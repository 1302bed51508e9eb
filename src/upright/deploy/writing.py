"""Write a canonicalizer, what prepares pictures by it, or an adapted model to a file that runs alone."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .._checks import check_choice
from .._files import write_file
from .._version import __version__
from ..adapter import Adapted
from ..adapter.call import positional_names
from ..adapter.signature import unwrapped
from ..canonicalizers import Canonicalizer
from ..kinds import Image
from .graph import (
    PARTS,
    Arguments,
    CanonicalizerGraph,
    ExportError,
    Part,
    PipelineGraph,
    PreprocessingGraph,
)
from .onnx_file import check_onnx, onnx_bytes

Format = Literal["onnx", "pt2"]
FORMATS: tuple[Format, ...] = ("onnx", "pt2")
DYNAMIC = ("batch", "size", "square")
"""What of the shape of pictures may be left open; ``"square"``: height and width, which are equal."""


_LIKELY = 1e-2
"""Probability above which candidates are compared."""


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: The file.
        size: Its bytes.
        inputs: Shapes of the inputs by name; what is open has a name.
        outputs: Names of the outputs.
        difference: Largest difference from the torch model on the checked inputs, as a part of the largest
            value (of at least 1) of each output.
        checked: How many batches were compared.
    """

    path: Path
    size: int
    inputs: dict[str, tuple[int | str, ...]]
    outputs: tuple[str, ...]
    difference: float
    checked: int


def export(
    model: Adapted | Canonicalizer,
    path: str | os.PathLike[str],
    example: Any,
    *,
    format: Format = "onnx",
    part: Part = "pipeline",
    dynamic: Sequence[str] = ("batch",),
    poses: bool = False,
    tolerance: float = 1e-3,
) -> Exported:
    """Write a model to one file that runs without upright: by ONNX Runtime, or by ``torch.export.load``.

    The file is checked against the model on the example, turned in every way that keeps its shape, before it
    takes its name; if anything fails, an older file stays as it is. It says, as metadata, the version of
    upright, the group, and the names of the group's elements' inputs and outputs.

    Args:
        model: An adapted model, with ``mode="canonical"``; or a canonicalizer.
        path: The file to write.
        example: What the model takes: a tensor, a tuple of positional or a dictionary of keyword arguments.
            Arguments that are no tensors become part of the file.
        format: ``"onnx"``, or ``"pt2"``, a ``torch.export`` program.
        part: ``"pipeline"``, the adapted model: what it takes in, what it returns out. ``"canonicalizer"``:
            pictures in, poses out. ``"preprocessing"``: pictures in, ``upright`` pictures and poses out, to
            be put before any other engine.
        dynamic: What of the shape of pictures is left open: ``"batch"``, and ``"size"`` or, where all are
            square, ``"square"``, of which faster graphs are made.
        poses: Whether a pipeline also returns the poses.
        tolerance: Largest difference that is taken for rounding, as `Exported.difference` is measured.

    Returns:
        What was written and how well it agrees.

    Raises:
        ExportError: If the model does something that a graph cannot hold, or the file disagrees.
        ImportError: If ``onnx`` or ``onnxscript`` is missing.

    Example:
        >>> import torch, upright
        >>> c = upright.load_canonicalizer("photo-c4")
        >>> upright.export(c, "pose.onnx", torch.rand(1, 3, 224, 224))              # doctest: +SKIP
    """
    check_choice("format", format, FORMATS)
    check_choice("part", part, PARTS)
    dynamic = (dynamic,) if isinstance(dynamic, str) else tuple(dynamic)
    for name in dynamic:
        check_choice("dynamic", name, DYNAMIC)
    if {"size", "square"} <= set(dynamic):
        raise ValueError("dynamic leaves either 'size' or 'square' open, got both")
    graph, values = _graph(model, example, part, poses, "square" in dynamic)
    names = list(graph.arguments.tensors) if isinstance(graph, PipelineGraph) else ["pictures"]
    training = model.training
    graph.eval()
    try:
        with torch.no_grad():
            wanted = list(graph(*values))
            traced, shapes = _trace_inputs(graph, values, dynamic)
            program = _traced(graph, traced, shapes)
            described = {
                "upright.version": __version__,
                "upright.group": str(model.group),
                "upright.part": part,
                "upright.inputs": ",".join(names),
                "upright.outputs": ",".join(wanted),
            }
            content = _pt2(program, described) if format == "pt2" else onnx_bytes(
                program, names, wanted, _axis_names(shapes, dynamic), described
            )  # fmt: skip
            batches = _checked_inputs(graph, values, dynamic)
            results = [graph(*batch) for batch in batches]
            if format == "onnx":
                found = [check_onnx(content, names, batch) for batch in batches]
            else:
                loaded = torch.export.load(io.BytesIO(content)).module()
                found = [loaded(*batch) for batch in batches]
    finally:
        graph.train(training)
    difference = max(_difference(want, got) for want, got in zip(results, found, strict=True))
    if not difference <= tolerance:
        raise ExportError(
            f"the exported graph differs from the model by {difference:.3g}, more than tolerance="
            f"{tolerance}; nothing was written. If the example is noise, poses may tie: give real pictures"
        )
    target = write_file(path, content)
    open_ = _axis_names(shapes, dynamic)
    inputs = {
        name: tuple(axes.get(i, int(n)) for i, n in enumerate(value.shape))
        for name, value, axes in zip(names, values, open_, strict=True)
    }
    return Exported(target, len(content), inputs, tuple(wanted), difference, len(batches))


def _graph(model: Any, example: Any, part: Part, poses: bool, square: bool) -> tuple[Any, tuple[Tensor, ...]]:
    """Return what is traced, and its inputs."""
    if not isinstance(model, (Adapted, Canonicalizer)):
        raise TypeError(f"model must be an adapted model or a Canonicalizer, got {type(model).__name__}")
    if isinstance(model, Canonicalizer) and part == "pipeline":
        part = "canonicalizer"
    if part == "pipeline":
        args, kwargs = ((), dict(example)) if isinstance(example, Mapping) else (example, {})
        args = args if isinstance(args, tuple) else (args,)
        arguments = Arguments.of(args, kwargs, positional_names(unwrapped(model.model)))
        values = [*args, *kwargs.values()]
        pipeline = PipelineGraph(model, arguments, poses, square)
        return pipeline, tuple(v for v in values if isinstance(v, Tensor))
    if isinstance(example, Mapping):
        example = next(iter(example.values()))
    picture = example[0] if isinstance(example, tuple) else example
    if not isinstance(picture, Tensor):
        raise TypeError(f"example must be a tensor of pictures, got {type(picture).__name__}")
    if part == "canonicalizer":
        return CanonicalizerGraph(getattr(model, "canonicalizer", model)), (picture,)
    if isinstance(model, Canonicalizer):
        model = Adapted(nn.Identity(), model, outputs="invariant")
    return PreprocessingGraph(model, square), (picture,)


def _trace_inputs(
    graph: Any, values: tuple[Tensor, ...], dynamic: Sequence[str]
) -> tuple[tuple[Tensor, ...], list[dict[int, str]]]:
    """Return inputs to trace with, of no special shape, and what of each is open, by axis."""
    batch, size = values[0].shape[0], values[0].shape[-2:]
    grids = getattr(graph, "canonicalizer", None) or graph.robust.canonicalizer
    pictures = grids.reads is Image
    if not pictures and set(dynamic) - {"batch"}:
        raise ExportError(
            "clouds and volumes are exported in the shape of the example; leave 'batch' open only"
        )
    traced, shapes = [], []
    for value in values:
        axes: dict[int, str] = {}
        if "batch" in dynamic and value.ndim and value.shape[0] == batch:
            axes[0] = "batch"
            value = torch.cat([value] * 2) if batch == 1 else value
        if pictures and set(dynamic) & {"size", "square"} and value.ndim > 2 and value.shape[-2:] == size:
            sides = ("height", "width") if "size" in dynamic else ("side", "side")
            axes |= {value.ndim - 2: sides[0], value.ndim - 1: sides[1]}
            if "size" in dynamic and size[0] == size[1]:
                value = torch.cat([value, value[..., : max(32, size[1] // 2)]], -1)
        traced.append(value)
        shapes.append(axes)
    return tuple(traced), shapes


def _traced(graph: nn.Module, values: tuple[Tensor, ...], shapes: list[dict[int, str]]) -> Any:
    dims = tuple({axis: torch.export.Dim.DYNAMIC for axis in axes} or None for axes in shapes)
    given: Any = {"inputs": dims} if isinstance(graph, PipelineGraph) else dims
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.export(graph, values, dynamic_shapes=given, strict=False)
    except (ExportError, TypeError, NotImplementedError):
        raise
    except Exception as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ExportError(
            f"this cannot be traced as one graph: {reason.strip()} If sizes are open, try a fixed one "
            "(dynamic=('batch',)); or export part='preprocessing' and leave the model outside"
        ) from error


def _axis_names(shapes: list[dict[int, str]], dynamic: Sequence[str]) -> list[dict[int, str]]:
    return shapes if dynamic else [{} for _ in shapes]


def _pt2(program: Any, described: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files=dict(described))
    return buffer.getvalue()


def _checked_inputs(
    graph: Any, values: tuple[Tensor, ...], dynamic: Sequence[str]
) -> list[tuple[Tensor, ...]]:
    """Return the example, and pictures turned in ways that keep the shape, or any way where it is open."""
    batches = [values]
    first = values[0]
    grids = getattr(graph, "canonicalizer", None) or graph.robust.canonicalizer
    if grids.reads is not Image or len(values) > 1:
        return batches
    free = first.shape[-1] == first.shape[-2] or "size" in dynamic
    batches += [(first.rot90(turns, (-2, -1)),) for turns in ((1, 2, 3) if free else (2,))]
    if "batch" in dynamic:
        batches.append((torch.cat([first, first.flip(-1), first.rot90(2, (-2, -1))]),))
    return batches


def _difference(want: Mapping[str, Tensor], got: Mapping[str, Tensor]) -> float:
    """Return the largest difference, as a part of the largest value of at least 1; shapes must agree."""
    worst = 0.0
    for name, expected in want.items():
        found = got[name]
        if found.shape != expected.shape:
            raise ExportError(
                f"the exported graph returns {name} of shape {tuple(found.shape)} where the model returns "
                f"{tuple(expected.shape)}; nothing was written"
            )
        if name == "candidates":  # which of the unlikely ones comes first is left to rounding
            likely = want["probabilities"] > _LIKELY
            expected, found = expected[likely], found[likely]
        if expected.numel():
            expected, found = expected.double(), found.double()
            scale = max(1.0, float(expected.abs().max()))
            gap = torch.where(expected == found, 0.0, (expected - found).abs())  # infinities agree
            worst = max(worst, float(gap.max()) / scale)
    return worst
