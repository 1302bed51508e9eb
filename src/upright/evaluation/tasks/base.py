"""What a task is: targets, how they move, and what is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ...actions import act
from ...adapter import Adapted, KindSpec
from ...adapter.spec import Size, kind_class, wrap
from ...groups.base import Element
from ...kinds import Kind
from ..measures import Metric, as_metric
from ..scores import find

Read = Callable[[Any, list[Size]], Any]
"""``read(output, sizes)``: one reading a picture (a tensor with a batch axis, or a list), from what the model
returned for pictures of the given canvases. What comes is in the frame of the pictures already."""


def _as_it_is(x: Any, *_: Any) -> Any:
    return x


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is to be found on a picture, and how well it was found.

    The model's output comes back in the frame of the picture, by the adapter; the target is moved with the
    picture here; both are compared there.

    Attributes:
        name: What it is called.
        metrics: What is measured, the first first: functions of (prediction, target) of one picture, whose
            mean is taken; `torchmetrics` objects; or `upright.evaluation.Metric`.
        target: Kind of the targets, or kinds by entry where targets are dicts; entries that are not named are
            invariant.
        entry: Kind of the entry of the model's output that ``read`` is given; None: the whole output.
        read: Makes one reading a picture of the output.
        decide: Makes predictions of readings (the likeliest class of class scores, say); equivariance is
            judged by both.
        prepare: Brings one target into the form that ``target`` describes, given the picture's canvas.
        refer: Makes a target of a prediction, for data without targets; None: targets are needed.
        valid: Says which predictions are none, since the model returned what is no number.
        check: Raises if targets do not fit the readings of their pictures.
        outputs: Number of class scores of a reading; None where there is none.
        lists: Whether the model is called with lists of pictures, unless the data brings batches.
        moves: A kind as which some entry of the model's output must move; None: nothing must.

    Example:
        >>> import torch, upright
        >>> from upright.evaluation import Task
        >>> brightest = lambda x: torch.stack([x.flatten(1).argmax(1) % 4, x.flatten(1).argmax(1) // 4], 1)
        >>> robust = upright.adapt(lambda x: brightest(x)[:, None] + 0.5, "C4", canonicalizer="identity",
        ...                        outputs="points")
        >>> distance = lambda found, true: (found - true).norm(dim=-1).mean()
        >>> spot = lambda i: torch.eye(16)[i].view(1, 4, 4)
        >>> data = [(spot(i), torch.tensor([[i % 4 + 0.5, i // 4 + 0.5]])) for i in range(16)]
        >>> finding = Task(name="finding", target="points", metrics=[distance])
        >>> report = upright.evaluate(robust, data, task=finding, overhead=False, leakage=False)
        >>> report.rows["oracle"].orbit_mean.value
        0.0
    """

    name: str
    metrics: Sequence[Any]
    target: KindSpec | Mapping[str, KindSpec] = "invariant"
    entry: type[Kind] | None = None
    read: Read = field(default=_as_it_is)
    decide: Callable[[Any], Any] = _as_it_is
    prepare: Callable[[Any, Size], Any] = _as_it_is
    refer: Callable[[Any], Any] | None = None
    valid: Callable[[Any], bool] | None = None
    check: Callable[[Sequence[Any], Any], None] | None = None
    outputs: Callable[[Any], int | None] = lambda readings: None
    lists: bool = False
    moves: type[Kind] | None = None

    def __post_init__(self) -> None:
        if not self.metrics:
            raise ValueError("metrics must hold at least one metric, got none")
        object.__setattr__(self, "metrics", tuple(as_metric(metric) for metric in self.metrics))
        for spec in self.target.values() if isinstance(self.target, Mapping) else [self.target]:
            kind_class(spec)

    @property
    def metric(self) -> Metric:
        """The first metric: the one of the report's tables and figures."""
        first: Metric = self.metrics[0]
        return first

    def readings(self, robust: Adapted, output: Any, sizes: list[Size]) -> Sequence[Any]:
        """Return one reading a picture of what the model returned for pictures of these canvases.

        Raises:
            ValueError: If there are more or fewer.
        """
        found = output if self.entry is None else find(robust, output, self.entry)
        readings: Sequence[Any] = self.read(found, sizes)
        if not hasattr(readings, "__len__") or len(readings) != len(sizes):
            got = len(readings) if hasattr(readings, "__len__") else type(readings).__name__
            raise ValueError(
                f"the model must return one {self.name} result a picture, {len(sizes)}, got {got}; pass a "
                "task whose read=... makes a list of them"
            )
        return readings

    def placed(self, target: Any, size: Size) -> Any:
        """Return a target as kinds on the canvas of its picture."""
        prepared = self.prepare(target, size)
        if not isinstance(self.target, Mapping):
            return wrap(self.target, prepared, size)
        if not isinstance(prepared, Mapping):
            raise TypeError(
                f"targets of {self.name} must be dicts with {sorted(self.target)}, "
                f"got {type(prepared).__name__}"
            )
        return {name: wrap(self.target.get(name, "invariant"), x, size) for name, x in prepared.items()}

    def moved(self, g: Element, target: Any) -> Any:
        """Return the plain data of a target, shaped by `placed`, moved by one element."""
        moved = act(g, target)
        return {k: kind.data for k, kind in moved.items()} if isinstance(moved, dict) else moved.data

    def is_valid(self, prediction: Any) -> bool:
        """Say whether a prediction is one."""
        if self.valid is not None:
            return self.valid(prediction)
        return not any(x.is_floating_point() and bool(x.isnan().any()) for x in _tensors(prediction))


def differences(found: Sequence[Any], expected: Sequence[Any]) -> tuple[Tensor, Tensor]:
    """Return largest and mean absolute difference of readings, picture by picture, each ``(B,)``, float64.

    Numbers are compared as such; of labels (integers, bools) the share that differs is taken. NaN where
    readings are not finite, of different shapes, or no tensors.
    """
    if isinstance(found, Tensor) and isinstance(expected, Tensor):
        gap = _gap(found, expected)
        return (gap.amax(1), gap.mean(1)) if gap is not None and gap.shape[1] else _unknown(len(found))
    rows = []
    for one, other in zip(found, expected, strict=True):
        gaps = [_gap(x[None], y[None]) for x, y in zip(_tensors(one), _tensors(other), strict=False)]
        flat = (
            None
            if None in gaps or not gaps
            else torch.cat([gap.flatten() for gap in gaps if gap is not None])
        )
        known = flat is not None and flat.numel() > 0
        rows.append(
            (float(flat.max()), float(flat.mean())) if known and flat is not None else (torch.nan,) * 2
        )
    largest, mean = torch.tensor(rows, dtype=torch.float64).view(-1, 2).unbind(1)
    return largest, mean


def same(found: Any, expected: Any) -> bool:
    """Say whether two predictions are the same: labels and texts exactly, numbers up to a thousandth."""
    left, right = pytree.tree_leaves(found), pytree.tree_leaves(expected)
    return len(left) == len(right) and all(_same_leaf(x, y) for x, y in zip(left, right, strict=True))


def _same_leaf(x: Any, y: Any) -> bool:
    if not (isinstance(x, Tensor) and isinstance(y, Tensor)):
        return bool(x == y)
    if x.shape != y.shape or not x.is_floating_point():
        return torch.equal(x, y)
    scale = float(y.detach().abs().nan_to_num(0.0, 0.0, 0.0).max()) if y.numel() else 0.0
    return torch.allclose(x.double(), y.double(), rtol=1e-3, atol=1e-3 * scale)


def _gap(x: Tensor, y: Tensor) -> Tensor | None:
    """Return absolute differences, shape ``(B, …)`` flattened behind the batch axis."""
    if x.shape != y.shape:
        return None
    if not x.is_floating_point():
        return (x != y).double().flatten(1).cpu()
    x, y = x.double(), y.double()
    gap = torch.where(x == y, 0.0, (x - y).abs())  # classes masked by -inf are equal
    return gap.flatten(1).cpu()


def _unknown(count: int) -> tuple[Tensor, Tensor]:
    return torch.full((count,), torch.nan).double(), torch.full((count,), torch.nan).double()


def _tensors(x: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(x) if isinstance(leaf, Tensor)]
