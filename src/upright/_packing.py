"""How weights are written: as they are, in half precision, or as bytes with a scale for every row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

StoredDtype = Literal["float32", "float16", "int8"]
"""``"float16"``: matrices and filters in half precision. ``"int8"``: those in bytes, vectors in half."""
_BYTES, _SCALE = ".int8", ".scale"
_HALVED_FROM: dict[StoredDtype, int] = {"float32": 99, "float16": 2, "int8": 1}  # dimensions


def pack(state: Mapping[str, Tensor], dtype: StoredDtype) -> dict[str, Tensor]:
    """Return what is written for a state: copies on the CPU, integers and single numbers as they are.

    A matrix or filter ``w`` in bytes becomes ``w.int8`` and ``w.scale``, ``(rows,)``: a row is their product.
    What does not fit in half precision is kept in float32.
    """
    written: dict[str, Tensor] = {}
    for name, tensor in state.items():
        value = tensor.detach().cpu()
        if value.is_floating_point():
            value = value.float()
        if dtype == "int8" and value.is_floating_point() and value.ndim >= 2:
            written |= _in_bytes(name, value)
        else:
            half = value.is_floating_point() and value.ndim >= _HALVED_FROM[dtype]
            written[name] = (_halved(value) if half else value).contiguous().clone()
    return written


def unpack(written: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state that was written; the inverse of `pack` up to rounding.

    Raises:
        ValueError: If a scale is missing or does not belong to its bytes.
    """
    state: dict[str, Tensor] = {}
    for name, tensor in written.items():
        if name.endswith(_BYTES):
            plain = name.removesuffix(_BYTES)
            scale = written.get(plain + _SCALE)
            if scale is None or tensor.ndim < 2 or scale.shape != tensor.shape[:1]:
                raise ValueError(f"{name} has no scale for each of its rows")
            state[plain] = tensor.float() * _column(scale.float(), tensor.ndim)
        elif not (name.endswith(_SCALE) and name.removesuffix(_SCALE) + _BYTES in written):
            state[name] = tensor
    return state


def _in_bytes(name: str, value: Tensor) -> dict[str, Tensor]:
    largest = value.flatten(1).abs().amax(1) if value.numel() else value.new_zeros(len(value))
    scale = _halved((largest / 127).clamp(min=6.2e-5))  # the smallest normal number in half precision
    steps = (value / _column(scale.float(), value.ndim)).round().clamp(-127, 127)
    if not bool(value.isfinite().all()):
        return {name: value.contiguous().clone()}
    return {name + _BYTES: steps.char().contiguous(), name + _SCALE: scale}


def _halved(value: Tensor) -> Tensor:
    half = value.half()
    return half if bool(half.isfinite().all()) else value


def _column(scale: Tensor, ndim: int) -> Tensor:
    return scale.view(-1, *[1] * (ndim - 1))
