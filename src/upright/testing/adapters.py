"""Laws of adapted models: any model becomes equivariant, and the identity changes no bit."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..actions import act
from ..adapter import Adapted
from ..adapter.result import read_result
from ..adapter.spec import OutputSpec
from ..canonicalizers import Canonicalizer, IdentityCanonicalizer
from ..groups.base import Element
from ..kinds import Image, Kind
from .actions import MakeKind
from .models import _draw, _elements, redraw_weights
from .tolerances import errors, require, require_true


def assert_adapted(
    model: Callable[..., Any],
    canonicalizer: Canonicalizer,
    make_x: type[Kind] | MakeKind = Image,
    *,
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
    the output is the bare model's, bit for bit and of its type; an empty batch works; the pictures stay as
    they are.

    Args:
        model: The model: a module (copied, its weights drawn anew each trial) or any callable.
        canonicalizer: The canonicalizer.
        make_x: ``Image``, or ``make_x(batch, generator) -> Image``.
        outputs: What the model returns; see `upright.adapt`.
        adapter: What builds the adapted model, called as ``adapter(model, canonicalizer, outputs=…,
            **settings)``.
        share: Least share of inputs on which the law must hold (ties may break it).
        tolerance: Allowed absolute error; 0 asks for equal bits.
        trials: How many times weights and pictures are drawn.
        batch: Pictures a trial.
        redraw: Whether a module's weights are drawn anew.
        generator: Source of the draws.
        **settings: Further arguments of the adapter.

    Raises:
        AssertionError: If a law does not hold.
    """
    generator = generator or torch.Generator().manual_seed(0)
    group, held, failed, worst, moves = canonicalizer.group, 0, 0, 0.0, 0
    bare_holds, compared = 0, 0
    for _ in range(trials):
        phi, used = _prepared(model, canonicalizer, redraw, generator)
        adapted = adapter(phi, used, outputs=outputs, **settings)
        x = _draw(make_x, group, batch, generator)
        x = x.replace(data=x.data.float())
        before = x.data.clone()
        with torch.no_grad():
            plain, out = phi(x.data), adapted(x.data)
            _check_identity(adapter, phi, group, x.data, plain, outputs, settings)
            require_true(
                "an adapted model returns what the model returns", type(out) is type(plain), str(type(out))
            )
            elements = _elements(group, 8, generator)
            for k in range(len(elements)):
                every = _spread(elements, k, batch, x.data.shape[-2] == x.data.shape[-1])
                moved = act(every, x).data
                gaps = _gaps(adapted(moved), _moved(outputs, out, every, x), batch)
                ok = gaps <= tolerance
                held, failed = held + int(ok.sum()), failed + int((~ok).sum())
                worst = max(worst, float(gaps.nan_to_num(torch.inf).max()))
                bare = _gaps(phi(moved), _moved(outputs, plain, every, x), batch)
                bare_holds, compared = (
                    bare_holds + int((bare <= max(tolerance, 1e-6)).sum()),
                    compared + batch,
                )
                moves += int(not torch.equal(moved, x.data)) if moved.shape == x.data.shape else 1
        require("pictures are not changed in place", errors(x.data, before), 0)
    require_true("pictures move, or the check says nothing", moves > 0)
    vacuous = bare_holds > 0.9 * compared
    require_true(
        "the bare model is not equivariant, or the check says nothing",
        not vacuous,
        f"it is on {bare_holds} of {compared}",
    )
    require_true(
        f"{group}: Φ(act(g, x)) is act(g, Φ(x)) on {share:.1%} of inputs",
        held >= share * (held + failed),
        f"it fails on {failed} of {held + failed}, by up to {worst:.3g}",
    )


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


def _spread(elements: Element, k: int, batch: int, is_square: bool) -> Element:
    """Return another element for each picture; one for all where a batch cannot mix turns."""
    return elements[(torch.arange(batch) * is_square + k) % len(elements)]


def _check_identity(
    adapter: Callable[..., Any],
    phi: Any,
    group: Any,
    x: Tensor,
    plain: Any,
    outputs: Any,
    settings: Mapping[str, Any],
) -> None:
    still = adapter(phi, IdentityCanonicalizer(group), outputs=outputs, **settings)
    if getattr(still, "mode", "canonical") != "average":
        gaps = _gaps(still(x), plain, len(x))
        require("with the identity canonicalizer the output is the model's, bit for bit", gaps, 0)
    empty = leaves(still(x[:0]))
    sizes = [tensor.shape[0] for tensor in empty if tensor.ndim]
    require_true("an empty batch gives empty results", all(s == 0 for s in sizes), str(sizes))


def _moved(outputs: OutputSpec, output: Any, g: Element, x: Kind) -> Any:
    """Move a model's output on the canvas of ``x`` by ``g``, whatever its structure."""
    size = (int(x.data.shape[-2]), int(x.data.shape[-1]))
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
