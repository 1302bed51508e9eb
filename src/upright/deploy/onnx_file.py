"""ONNX files of traced graphs: named, described, checked by ONNX Runtime."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

OPSET = 18
_LARGEST = 2**31 - 1


def onnx_bytes(
    program: Any,
    inputs: Sequence[str],
    outputs: Sequence[str],
    axes: Sequence[Mapping[int, str]],
    metadata: Mapping[str, str],
) -> bytes:
    """Convert a traced program.

    Args:
        program: What ``torch.export.export`` returned.
        inputs: Names of the inputs.
        outputs: Names of the outputs.
        axes: Names of the open axes of each input.
        metadata: What the file says about itself.

    Raises:
        ImportError: If a package is missing.
        NotImplementedError: If the graph holds an operation that ONNX has not.
        ValueError: If it exceeds what one file can hold.
    """
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise ImportError(f"ONNX files are written with {missing[0]}: pip install 'upright[onnx]'")
    with warnings.catch_warnings(), _quiet():
        warnings.simplefilter("ignore")
        try:
            made = torch.onnx.export(
                program, input_names=list(inputs), output_names=list(outputs), opset_version=OPSET,
                dynamo=True, verbose=False,
            )  # fmt: skip
        except Exception as error:
            found = [line.strip() for line in _causes(error) if "No ONNX function found" in line]
            reason = found[0] if found else str(error).strip().splitlines()[0]
            raise NotImplementedError(
                f"ONNX cannot hold an operation of this graph ({reason}); export format='pt2'"
            ) from error
    assert made is not None
    proto: Any = made.model_proto
    _name_axes(proto.graph, axes)
    for key, value in metadata.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value
    proto.producer_name = "upright"
    proto.producer_version = metadata.get("upright.version", "")
    _without_places(proto)
    if proto.ByteSize() > _LARGEST:
        raise ValueError(
            f"the graph takes {proto.ByteSize() / 2**30:.1f} GiB and one ONNX file holds at most 2; export "
            "part='preprocessing' and leave the model outside"
        )
    content: bytes = proto.SerializeToString()
    return content


def check_onnx(content: bytes, inputs: Sequence[str], values: Sequence[Tensor]) -> dict[str, Tensor]:
    """Run a file's content by ONNX Runtime; tensors by the names of the outputs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    fed = {name: value.detach().cpu().numpy() for name, value in zip(inputs, values, strict=True)}
    names = [entry.name for entry in session.get_outputs()]
    results = session.run(None, {entry.name: fed[entry.name] for entry in session.get_inputs()})
    return {name: torch.from_numpy(result) for name, result in zip(names, results, strict=True)}


def _name_axes(graph: Any, axes: Sequence[Mapping[int, str]]) -> None:
    """Give open axes of inputs their names, wherever the same symbol stands alone."""
    names: dict[str, str] = {}
    for entry, open_ in zip(graph.input, axes, strict=True):
        for axis, name in open_.items():
            names[entry.type.tensor_type.shape.dim[axis].dim_param] = name
    for entry in [*graph.input, *graph.output, *graph.value_info]:
        for dim in entry.type.tensor_type.shape.dim:
            if dim.dim_param in names:
                dim.dim_param = names[dim.dim_param]


def _without_places(proto: Any) -> None:
    """Leave out where in the sources each node comes from: it is long, and names the maker's folders."""
    graphs = [proto.graph]
    while graphs:
        graph = graphs.pop()
        for node in graph.node:
            node.ClearField("metadata_props")
            node.ClearField("doc_string")
            graphs.extend(attribute.g for attribute in node.attribute if attribute.HasField("g"))
        for entry in [*graph.value_info, *graph.input, *graph.output]:
            entry.ClearField("metadata_props")
        graph.ClearField("metadata_props")
    for function in proto.functions:
        for node in function.node:
            node.ClearField("metadata_props")


def _causes(error: BaseException | None) -> list[str]:
    lines: list[str] = []
    while error is not None:
        lines += str(error).splitlines()
        error = error.__cause__
    return lines


@contextlib.contextmanager
def _quiet() -> Any:
    """Keep what the exporter prints and logs off the terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
