"""Eight bits instead of thirty-two: ONNX files quantized by ONNX Runtime, and how well their poses agree."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._files import write_file
from .onnx_file import check_onnx


@dataclass(frozen=True)
class Quantized:
    """What was written.

    Attributes:
        path: The file.
        size: Its bytes.
        agreement: Share of the given pictures whose pose is that of the file in full precision.
        pictures: How many were given.
    """

    path: Path
    size: int
    agreement: float
    pictures: int


def quantize(
    source: str | os.PathLike[str], path: str | os.PathLike[str], pictures: Iterable[Tensor]
) -> Quantized:
    """Write an exported ONNX file again with convolutions of 8 bits.

    Weights are rounded channel by channel, activations by the ranges that they take on the given pictures, by
    ``onnxruntime.quantization``. Every turned copy of a picture is judged by the same rounded network, so
    quarter turns of a picture still turn its pose, but for near ties, in which the last bits of a thumbnail
    may be rounded either way.

    Args:
        source: What `export` wrote: a canonicalizer or preprocessing.
        path: The file to write.
        pictures: A hundred pictures or so, in batches that the file takes, as they will come in use.

    Raises:
        ImportError: If ``onnx`` or ``onnxruntime`` is missing.
        ValueError: If there are no pictures, or the file gives no poses.

    Example:
        >>> upright.deploy.quantize("pose.onnx", "pose8.onnx", pictures)            # doctest: +SKIP
    """
    try:
        import onnx
        from onnxruntime import quantization
    except ImportError as error:
        raise ImportError("files of 8 bits are written with onnx: pip install 'upright[onnx]'") from error
    batches = list(pictures)
    if not batches:
        raise ValueError("pictures must be given: the ranges of the activations are measured on them")
    full = Path(source).read_bytes()
    graph = onnx.load_from_string(full).graph
    names = [entry.name for entry in graph.input]
    if len(names) != 1 or "pose" not in {entry.name for entry in graph.output}:
        raise ValueError(
            f"{source} must take pictures alone and give poses, got inputs {names}; export it with "
            "part='canonicalizer', 'preprocessing' or poses=True"
        )
    wanted = [check_onnx(full, names, [batch]) for batch in batches]
    with tempfile.TemporaryDirectory() as folder, _quiet():
        made = Path(folder) / "int8.onnx"
        quantization.quantize_static(
            str(source), str(made), _reader(quantization, names[0], batches), per_channel=True,
            op_types_to_quantize=["Conv"],
            activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
            quant_format=quantization.QuantFormat.QDQ,
        )  # fmt: skip
        content = made.read_bytes()
    found = [check_onnx(content, names, [batch]) for batch in batches]
    same = torch.cat([_same(a["pose"], b["pose"]) for a, b in zip(wanted, found, strict=True)])
    return Quantized(write_file(path, content), len(content), float(same.double().mean()), len(same))


def _same(a: Tensor, b: Tensor) -> Tensor:
    return torch.isclose(a.double(), b.double(), atol=1e-6).flatten(1).all(1) if a.ndim > 1 else a == b


def _reader(quantization: Any, name: str, batches: list[Tensor]) -> Any:
    """Hand pictures to the library one batch after the other."""

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rest: Iterator[Tensor] = iter(batches)

        def get_next(self) -> Any:
            batch = next(self.rest, None)
            return None if batch is None else {name: batch.numpy()}

    return Reader()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the advice of ONNX Runtime's quantization off the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
