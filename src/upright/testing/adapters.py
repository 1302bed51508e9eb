"""Laws of adapted models: any model becomes equivariant, and the identity changes no bit."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..adapter import Adapted
from ..adapter.call import Call, read_call
from ..adapter.result import read_result
from ..adapter.signature import InputSpec
from ..adapter.spec import OutputSpec, Size
from ..canonicalizers import Canonicalizer, IdentityCanonicalizer
from ..groups.base import Element, Group
from ..kinds import Image, Kind
from ..kinds_space import Volume
from .actions import MakeKind
from .models import _draw, _elements, redraw_weights
from .tolerances import errors, require, require_true

MakeInput = MakeKind | Callable[[int, torch.Generator], dict[str, Any]]
"""``make_x(batch, generator)`` returns an ``Image``, or the keyword arguments of a call."""


def assert_adapted(
    model: Callable[..., Any],
    canonicalizer: Canonicalizer,
    make_x: type[Kind] | MakeInput = Image,
    *,
    inputs: Mapping[Any, InputSpec] | None = None,
    outputs: OutputSpec = "logits",
    adapter: Callable[..., Any] = Adapted,
    share: float = 0.999,
    tolerance: float = 0.0,
    trials: int = 3,
    batch: int = 8,
    redraw: bool = True,
    generator: torch.Generator | None = None,
    **settings: Any,
) -> None:
    """Check that an arbitrary model, which is not equivariant, becomes so: ``Φ(act(g, x)) = act(g, Φ(x))``.

    Also: the bare model is *not* equivariant (else the check says nothing); with the identity canonicalizer
    the output is the bare model's, bit for bit and of its type; results have the shapes of the bare model's;
    an empty batch works where the bare model takes one; the pictures stay as they are.

    Args:
        model: The model: a module (copied, its weights drawn anew each trial) or any callable.
        canonicalizer: The canonicalizer.
        make_x: ``Image``, or ``make_x(batch, generator)`` that returns what the canonicalizer reads, an
            ``Image``, ``Cloud`` or ``Volume``, or a dictionary of keyword arguments.
        inputs: How arguments move, by name or position; see `upright.adapt`.
        outputs: How what the model returns moves; see `upright.adapt`.
        adapter: What builds the adapted model, called as ``adapter(model, canonicalizer, outputs=…,
            **settings)``, with ``inputs`` where they are given.
        share: Least share of inputs on which the law must hold (ties may break it).
        tolerance: Allowed absolute error; 0 asks for equal bits, which only exact moves give.
        trials: How many times weights and pictures are drawn.
        batch: Pictures a trial.
        redraw: Whether a module's weights are drawn anew.
        generator: Source of the draws.
        **settings: Further arguments of the adapter.

    Raises:
        AssertionError: If a law does not hold.

    Example:
        >>> import torch, upright
        >>> from upright.testing import assert_adapted
        >>> class Segmenter(torch.nn.Conv2d):
        ...     def forward(self, pixel_values):
        ...         return {"logits": super().forward(pixel_values)}
        >>> assert_adapted(
        ...     Segmenter(3, 2, 3, padding=1),
        ...     upright.canonicalizer("C4", size=16, options={"widths": [6, 8], "strides": [2, 2]}),
        ...     lambda batch, generator: {"pixel_values": torch.rand(batch, 3, 16, 24, generator=generator)},
        ...     inputs={"pixel_values": "image"},
        ...     outputs={"logits": "mask"},
        ... )
    """
    generator = generator or torch.Generator().manual_seed(0)
    settings = {**settings, "outputs": outputs, **({} if inputs is None else {"inputs": inputs})}
    found = _Found(canonicalizer.group, tolerance)
    for _ in range(trials):
        phi, used = _prepared(model, canonicalizer, redraw, generator)
        call = _drawn(phi, make_x, inputs, used, batch, generator)
        before = call.pictures.clone()
        with torch.no_grad():
            _check_identity(adapter, phi, used.group, call, settings)
            _check_moves(adapter(phi, used, **settings), phi, call, outputs, found, generator)
        require("pictures are not changed in place", errors(call.pictures, before), 0)
    found.check(share)


@dataclass
class _Found:
    """How often the law held, of the adapted and of the bare model."""

    group: Group
    tolerance: float
    held: int = 0
    compared: int = 0
    bare: int = 0
    moves: int = 0
    worst: float = 0.0

    def add(self, gaps: Tensor, bare: Tensor, *, moves: bool) -> None:
        """Count the differences of a batch from the law, ``(B,)`` each."""
        self.held += int((gaps <= self.tolerance).sum())
        self.bare += int((bare <= max(self.tolerance, 1e-6)).sum())
        self.worst = max(self.worst, float(gaps.nan_to_num(torch.inf).max()))
        self.compared += len(gaps)
        self.moves += moves

    def check(self, share: float) -> None:
        """Raise unless the law holds for the adapted model and not for the bare one."""
        require_true("pictures move, or the check says nothing", self.moves > 0)
        require_true(
            "the bare model is not equivariant, or the check says nothing",
            self.bare <= 0.9 * self.compared,
            f"it is on {self.bare} of {self.compared}",
        )
        require_true(
            f"{self.group}: Φ(act(g, x)) is act(g, Φ(x)) on {share:.1%} of inputs",
            self.held >= share * self.compared,
            f"it fails on {self.compared - self.held} of {self.compared}, by up to {self.worst:.3g}",
        )


def _check_moves(
    adapted: Any, phi: Any, call: Call, outputs: OutputSpec, found: _Found, generator: torch.Generator
) -> None:
    """Compare what is returned for moved pictures with what is returned, moved."""
    plain, out = phi(*call.args, **call.kwargs), adapted(*call.args, **call.kwargs)
    require_true("an adapted model returns what the model returns", type(out) is type(plain), str(type(out)))
    size = call.sizes[0]
    shapes = [[tuple(t.shape) for t in leaves(o)] for o in (out, plain)]
    require_true(
        "an adapted model returns the shapes that the model returns",
        isinstance(plain, list) or shapes[0] == shapes[1],
        f"{shapes[0]} for {shapes[1]}",
    )
    elements = _elements(found.group, 8, generator)
    for k in range(len(elements)):
        every = _spread(elements, k, call)
        moved = call.moved_back(every.inverse())
        gaps = [
            _gaps(f(*moved.args, **moved.kwargs), _moved(outputs, y, every, size), call.batch)
            for f, y in ((adapted, out), (phi, plain))
        ]
        same = moved.pictures.shape == call.pictures.shape and torch.equal(moved.pictures, call.pictures)
        found.add(gaps[0], gaps[1], moves=not same)


def _drawn(
    phi: Any, make_x: Any, inputs: Any, canonicalizer: Canonicalizer, batch: int, generator: torch.Generator
) -> Call:
    """Draw the arguments of a call."""
    x = _draw(make_x, canonicalizer.group, batch, generator)
    subject = canonicalizer.reads
    if isinstance(x, dict):
        return read_call(phi, inputs, (), x, subject=subject)
    return read_call(phi, inputs, (x.data.float(),), {}, subject=subject)


def _prepared(
    model: Callable[..., Any], c: Canonicalizer, redraw: bool, generator: torch.Generator
) -> tuple[Callable[..., Any], Canonicalizer]:
    used = copy.deepcopy(c).eval()
    if not isinstance(model, nn.Module):
        return model, used
    phi = copy.deepcopy(model).eval()
    if redraw:
        redraw_weights(phi, generator)
        redraw_weights(used, generator)
    return phi, used


def _spread(elements: Element, k: int, call: Call) -> Element:
    """Return another element for each picture; one for all where a batch cannot mix turns."""
    sides = {Image: call.pictures.shape[-2:], Volume: call.pictures.shape[-3:]}.get(call.subject, ())
    mixes = len(set(sides)) <= 1  # turned, all keep one shape
    return elements[(torch.arange(call.batch) * mixes + k) % len(elements)]


def _check_identity(
    adapter: Callable[..., Any], phi: Any, group: Any, call: Call, settings: Mapping[str, Any]
) -> None:
    still = adapter(phi, IdentityCanonicalizer(group), **settings)
    if getattr(still, "mode", "canonical") != "average":
        found, plain = still(*call.args, **call.kwargs), phi(*call.args, **call.kwargs)
        gaps = _gaps(found, plain, call.batch)
        require("with the identity canonicalizer the output is the model's, bit for bit", gaps, 0)
    none = call.select(torch.zeros(0, dtype=torch.long))
    try:
        phi(*none.args, **none.kwargs)
    except (RuntimeError, ValueError, IndexError, ZeroDivisionError):
        return  # the model itself takes no empty batch
    empty = leaves(still(*none.args, **none.kwargs))
    sizes = [tensor.shape[0] for tensor in empty if tensor.ndim]
    require_true("an empty batch gives empty results", all(s == 0 for s in sizes), str(sizes))


def _moved(outputs: OutputSpec, output: Any, g: Element, size: Size) -> Any:
    """Move a model's output on a canvas by ``g``, whatever its structure."""
    if isinstance(output, list):
        return [read_result(outputs, entry, size).moved(g[i]).output() for i, entry in enumerate(output)]
    return read_result(outputs, output, size).moved(g).output()


def _gaps(found: Any, expected: Any, batch: int) -> Tensor:
    """Return the largest difference for each picture, ``(B,)``; infinite if structures differ."""
    if isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected) == batch:
        entries = [_gaps(a, b, 1).amax() for a, b in zip(found, expected, strict=True)]
        return torch.stack(entries) if entries else torch.zeros(0, dtype=torch.float64)
    worst = torch.zeros(batch, dtype=torch.float64)
    pairs = list(zip(leaves(found), leaves(expected), strict=False))
    if len(leaves(found)) != len(leaves(expected)) or not pairs or type(found) is not type(expected):
        return torch.full((batch,), torch.inf, dtype=torch.float64)
    for a, b in pairs:
        gap = errors(a, b)
        worst = torch.maximum(worst, gap if len(gap) == batch else gap.amax().expand(batch))
    return worst


def leaves(output: Any) -> list[Tensor]:
    """Return the tensors of an output, in order: of dicts, tuples, lists and dataclasses."""
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, Mapping):
        return [leaf for entry in output.values() for leaf in leaves(entry)]
    if isinstance(output, (tuple, list)):
        return [leaf for entry in output for leaf in leaves(entry)]
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        return [leaf for field in dataclasses.fields(output) for leaf in leaves(getattr(output, field.name))]
    return []
