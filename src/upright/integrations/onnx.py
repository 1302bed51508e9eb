"""Sessions of ONNX Runtime as predictors, and adapted ones in the place of sessions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import Parameter, Signature
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from ..adapter.adapted import Adapted

_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(uint16)": np.uint16,
    "tensor(int16)": np.int16,
    "tensor(uint32)": np.uint32,
    "tensor(int32)": np.int32,
    "tensor(uint64)": np.uint64,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
}


def is_session(model: Any) -> bool:
    """Whether ``model`` is a session of ONNX Runtime, which is not imported for it."""
    return any(cls.__name__ == "InferenceSession" for cls in type(model).__mro__) and hasattr(model, "run")


class SessionModel:
    """A session of ONNX Runtime as a function of tensors or arrays. It computes no gradients.

    Arguments are the session's inputs, in their order or by name. They are converted to the dtypes that the
    session takes where nothing but precision can be lost. Where the session has a fixed batch size, batches
    are split, and filled up with copies of the last entry.

    Args:
        session: An ``onnxruntime.InferenceSession``.

    Attributes:
        inputs: Names of the inputs.
        outputs: Names of the outputs.
    """

    def __init__(self, session: Any) -> None:
        self.session = session
        self._inputs = {entry.name: entry for entry in session.get_inputs()}
        self.inputs: list[str] = list(self._inputs)
        self.outputs: list[str] = [entry.name for entry in session.get_outputs()]
        names = self.inputs if all(map(str.isidentifier, self.inputs)) else []
        self.__signature__ = Signature([Parameter(n, Parameter.POSITIONAL_OR_KEYWORD) for n in names])

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the session.

        Returns:
            The result where the session has one output, else a dictionary by the names of the outputs:
            arrays where the first argument is an array, else tensors on its device.

        Raises:
            TypeError: If an argument is missing, unknown or of a dtype that does not fit.
            ValueError: If a shape does not fit.
        """
        given = self._named(args, kwargs)
        first = next(iter(given.values()))
        feed = {name: self._array(name, value) for name, value in given.items()}
        results = self._run(feed)
        if isinstance(first, Tensor):
            made = [torch.from_numpy(r).to(first.device) if isinstance(r, np.ndarray) else r for r in results]
        else:
            made = results
        return made[0] if len(made) == 1 else dict(zip(self.outputs, made, strict=True))

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name}{_shape(entry)}" for name, entry in self._inputs.items())
        return f"SessionModel({shapes} -> {', '.join(self.outputs)})"

    def _named(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        if len(args) > len(self.inputs):
            raise TypeError(f"the session takes {len(self.inputs)} inputs {self.inputs}, got {len(args)}")
        given = {**dict(zip(self.inputs, args, strict=False)), **kwargs}
        missing = [n for n in self.inputs if n not in given]
        unknown = [n for n in given if n not in self._inputs]
        twice = [n for n in self.inputs[: len(args)] if n in kwargs]
        if missing or unknown or twice:
            raise TypeError(
                f"the session takes the inputs {self.inputs}; missing: {missing}, unknown: {unknown}, "
                f"given twice: {twice}"
            )
        return given

    def _array(self, name: str, value: Any) -> Any:
        """Return an argument as an array of the session's dtype."""
        entry = self._inputs[name]
        if isinstance(value, Tensor):
            value = value.detach().cpu()
            value = (value.float() if value.dtype == torch.bfloat16 else value).contiguous().numpy()
        array = np.asarray(value)
        wanted = _DTYPES.get(entry.type)
        if wanted is None or array.dtype == wanted:
            return array
        if not np.can_cast(array.dtype, wanted, "same_kind"):
            raise TypeError(
                f"input {name!r} must be {np.dtype(wanted)}, got {array.dtype}, which does not fit without "
                "loss; convert it yourself"
            )
        return array.astype(wanted)

    def _run(self, feed: dict[str, Any]) -> list[Any]:
        """Run the session on a batch, in parts where its batch size is fixed."""
        for name, value in feed.items():
            _check_shape(name, value, self._inputs[name])
        main = self.inputs[0]
        wanted = self._inputs[main].shape
        size = wanted[0] if wanted and isinstance(wanted[0], int) else None
        batch = len(feed[main]) if feed[main].ndim else 1
        if size is None or batch == size:
            return list(self.session.run(None, feed))
        split = [n for n, v in feed.items() if v.ndim and len(v) == batch and _fixed(self._inputs[n]) == size]
        parts = []
        for start in range(0, max(batch, 1), size):
            part = {
                n: _filled(v[start : start + size], size, v) if n in split else v for n, v in feed.items()
            }
            parts.append((min(size, batch - start), self.session.run(None, part)))
        return [
            self._joined(name, [(count, results[i]) for count, results in parts], size)
            for i, name in enumerate(self.outputs)
        ]

    def _joined(self, name: str, parts: list[tuple[int, Any]], size: int) -> Any:
        for _, result in parts:
            if not isinstance(result, np.ndarray) or result.ndim == 0 or len(result) != size:
                raise ValueError(
                    f"output {name!r} must have batch size {size} like the session's fixed batch, got "
                    f"{np.shape(result)}, so results of a larger batch cannot be put together; call it with "
                    f"{size} pictures at a time"
                )
        return np.concatenate([result[:count] for count, result in parts])


class AdaptedSession:
    """An adapted session that takes the place of an ``onnxruntime.InferenceSession``: arrays in, arrays out.

    Args:
        robust: What ``upright.adapt(session, …)`` returned.

    Example:
        >>> engine.session = AdaptedSession(upright.adapt(engine.session, "C4"))     # doctest: +SKIP
    """

    def __init__(self, robust: Adapted) -> None:
        if not isinstance(robust.model, SessionModel):
            raise TypeError(
                f"robust must be an adapted session, got an adapted {type(robust.model).__name__}; "
                "make it with upright.adapt(session, ...)"
            )
        self.robust = robust
        self._model = robust.model

    def run(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any], run_options: Any = None
    ) -> list[Any]:
        """Run it as a session is run.

        Args:
            output_names: Names of the outputs wanted; None: all.
            input_feed: Arrays by the names of the inputs.
            run_options: Not used.

        Returns:
            Arrays in the frame of the pictures as given.
        """
        names = self._model.inputs
        missing = [name for name in names if name not in input_feed]
        if missing or len(input_feed) != len(names):
            raise TypeError(f"input_feed must hold the inputs {names}, got {list(input_feed)}")
        with torch.no_grad():
            found = self.robust(*(torch.from_numpy(np.asarray(input_feed[name])) for name in names))
        results = found if isinstance(found, dict) else {self._model.outputs[0]: found}
        wanted = self._model.outputs if output_names is None else list(output_names)
        unknown = [name for name in wanted if name not in results]
        if unknown:
            raise ValueError(f"output_names must be among {self._model.outputs}, got {unknown}")
        return [r.numpy() if isinstance(r, Tensor) else r for r in (results[name] for name in wanted)]

    def get_inputs(self) -> Any:
        """Return what the session says of its inputs."""
        return self._model.session.get_inputs()

    def get_outputs(self) -> Any:
        """Return what the session says of its outputs."""
        return self._model.session.get_outputs()

    def get_modelmeta(self) -> Any:
        """Return what the session says of its model."""
        return self._model.session.get_modelmeta()

    def get_providers(self) -> Any:
        """Return where the session runs."""
        return self._model.session.get_providers()


def _shape(entry: Any) -> str:
    return "(" + ", ".join(str(s) if isinstance(s, int) else "?" for s in entry.shape) + ")"


def _fixed(entry: Any) -> int | None:
    return entry.shape[0] if entry.shape and isinstance(entry.shape[0], int) else None


def _check_shape(name: str, value: Any, entry: Any) -> None:
    """Raise unless all axes but the first have the lengths that the session wants."""
    if entry.shape is None:
        return
    fits = value.ndim == len(entry.shape) and all(
        not isinstance(want, int) or want == got
        for want, got in zip(entry.shape[1:], value.shape[1:], strict=True)
    )
    if not fits:
        raise ValueError(
            f"input {name!r} must have shape {_shape(entry)}, got {value.shape}; resize or pad pictures to "
            "it first, and to a square if they may have to be turned"
        )


def _filled(part: Any, size: int, whole: Any) -> Any:
    """Return a part with copies of its last entry up to the fixed batch size; zeros for an empty batch."""
    if len(part) == size:
        return part
    if not len(part):
        return np.zeros((size, *whole.shape[1:]), whole.dtype)
    return np.concatenate([part, np.repeat(part[-1:], size - len(part), 0)])
