"""Laws of models: equivariance, and what a canonicalizer has to satisfy."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..actions import act
from ..adapter.spec import KindSpec, wrap
from ..canonicalizers import Canonicalizer, Pose
from ..groups.base import Element, FiniteGroup, Group
from ..groups.parse import parse_finite_group, parse_group
from ..groups.permutations import Permutations
from ..groups.planar import PlanarGroup
from ..groups.space import SpatialGroup
from ..kinds import Image, Kind
from ..losses import moved_log_probs
from .actions import MakeKind
from .examples import example, is_exact
from .tolerances import errors, require, require_true

MoveOutput = Callable[[Element, Tensor], Tensor]
"""``move(g, y)`` moves outputs ``y`` with leading axis ``B`` by elements of shape ``(B,)``."""


@torch.no_grad()
def redraw_weights(module: nn.Module, generator: torch.Generator | None = None) -> nn.Module:
    """Re-initialise a module in place, so that every weight matters.

    Initial weights near zero, biases of zero and norms that do nothing make a check of equivariance vacuous.
    Matrices and filters keep the variance of what they are fed; biases and running means are normal, scales
    and running variances lie in 0.5…1.5. Other buffers stay.

    Args:
        module: The module.
        generator: Source of the draws.

    Returns:
        The module.
    """
    for parameter in module.parameters():
        if parameter.ndim >= 2:
            fan_in = max(parameter[0].numel(), 1)
            drawn = torch.randn(parameter.shape, generator=generator) * (2 / fan_in) ** 0.5
        else:
            drawn = torch.rand(parameter.shape, generator=generator) + 0.5
        parameter.copy_(drawn)
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        last = name.rpartition(".")[2]
        if last in ("bias", "running_mean"):
            tensor.copy_(0.3 * torch.randn(tensor.shape, generator=generator))
        elif last == "running_var":
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return module


def assert_equivariant(
    f: Callable[[Tensor], Tensor],
    group: Group | str,
    make_x: type[Kind] | MakeKind = Image,
    *,
    outputs: KindSpec | MoveOutput = "invariant",
    elements: Element | None = None,
    trials: int = 3,
    tolerance: float = 1e-8,
    redraw: bool = True,
    dtype: torch.dtype = torch.float64,
    generator: torch.Generator | None = None,
) -> None:
    """Check that ``f(act(g, x)) = act(g, f(x))``, on random weights and in float64.

    Args:
        f: A module, which is copied, or a function of tensors.
        group: The group, or its name.
        make_x: The kind that ``f`` takes, or ``make_x(batch, generator) -> kind``.
        outputs: What ``f`` returns: a kind (on the canvas of its input), or ``move(g, y) -> y``.
        elements: Elements to move by, shape ``(B,)``, such as the quarter turns of SO2, which resample
            nothing; default: all of a small group but the identity, drawn ones of others.
        trials: How many times weights and inputs are drawn.
        tolerance: Allowed error, relative to how much the outputs vary between inputs.
        redraw: Whether the module's weights are drawn anew (`redraw_weights`).
        dtype: Dtype of weights and inputs.
        generator: Source of the draws.

    Raises:
        AssertionError: If the law does not hold; if no input moved; if the outputs do not depend on the
            input.
    """
    parsed = parse_group(group)
    generator = generator or torch.Generator().manual_seed(0)
    for trial in range(trials):
        model = f
        if isinstance(f, nn.Module):
            model = copy.deepcopy(f).to(dtype).eval()
            if redraw:
                redraw_weights(model, generator)
        g = _elements(parsed, 16, generator) if elements is None else elements
        x = _draw(make_x, parsed, len(g), generator)
        x = x.replace(data=x.data.to(dtype))
        moved = act(g, x)
        stands = _unmoved(x, moved, g)
        require(f"{parsed}: inputs move, or the check says nothing", stands.double(), 0, on=g)
        with torch.no_grad():
            before, after = model(x.data), model(moved.data)
        size = getattr(x, "size", tuple(x.data.shape[-2:]))
        expected = _move_output(outputs, g, before, size)
        varies = before - before.mean(0, keepdim=True)
        scale = float(varies.abs().max())
        largest = float(before.abs().max())
        require_true(
            f"{parsed}: outputs depend on the input, or the check says nothing",
            not scale <= 1e-6 * largest and scale > 0,
            f"they vary by {scale:.3g} about values of up to {largest:.3g} (trial {trial})",
        )
        law = f"{parsed}: f(act(g, x)) is act(g, f(x)) (trial {trial}, relative to {scale:.3g})"
        require(law, errors(after, expected) / scale, tolerance, on=g)


def assert_canonical(
    c: Canonicalizer,
    group: Group | str | None = None,
    make_x: type[Kind] | MakeKind | None = None,
    *,
    share: float = 1.0,
    tolerance: float | None = 1e-4,
    degrees: tuple[float, float] = (2.0, 10.0),
    trials: int = 3,
    redraw: bool = True,
    generator: torch.Generator | None = None,
) -> None:
    """Check that a canonicalizer brings every moved copy of an input to one form, and stores nothing.

    ``c(act(g, x)) = g @ c(x)`` or, where they differ, the canonical forms are equal (the stabiliser);
    posteriors permute alike, are normalised, and the chosen element is the likeliest; two calls in evaluation
    agree whatever the random state; a batch agrees with its parts, of any size; nothing is kept on the module
    or changed in place.

    Poses of continuous groups of the plane follow to 1e-4 rad under quarter turns and, in O2, flips. Under
    drawn elements, which resample, the median and the 95th percentile of the pose error, the distance from
    ``c(act(g, x))`` to ``g @ c(x)``, are bounded.

    Poses of clouds under groups of space and permutations are elements of the group, so that a rotation is
    no reflection, those that are listed too; they follow in float64 to 1e-6 of the size of the cloud.

    Args:
        c: The canonicalizer; it is copied and run in float64 and evaluation.
        group: Elements to move by; default, and for continuous groups: the canonicalizer's group.
        make_x: The kind that it takes, or ``make_x(batch, generator) -> kind``; default: what it ``reads``.
        share: Least share of inputs without ties on which the poses must follow.
        tolerance: Allowed error of log-probabilities, relative to their size; None: not compared.
        degrees: For continuous groups: allowed median and 95th percentile of the pose error.
        trials: How many times weights and inputs are drawn.
        redraw: Whether weights are drawn anew (`redraw_weights`).
        generator: Source of the draws.

    Raises:
        AssertionError: If a law does not hold, or all inputs stand alike.
    """
    parsed = c.group if group is None else parse_group(group)
    generator = generator or torch.Generator().manual_seed(0)
    make_x = c.reads if make_x is None else make_x
    if isinstance(c.group, (SpatialGroup, Permutations)) and not isinstance(c.group, FiniteGroup):
        from .clouds import check_clouds

        check_clouds(
            [_redrawn(c, redraw, generator) for _ in range(trials)], make_x, share, tolerance, generator
        )
        return
    if isinstance(c.group, PlanarGroup) and not isinstance(c.group, FiniteGroup):
        from .continuous import check_continuous

        check_continuous([_redrawn(c, redraw, generator) for _ in range(trials)], make_x, degrees, generator)
        return
    chosen, follows, counted = set(), 0, 0
    for _ in range(trials):
        used = _redrawn(c, redraw, generator)
        g = _elements(parsed, 16, generator)
        x = _draw(make_x, parsed, len(g), generator)
        x = x.replace(data=x.data.double())
        moved = act(g, x)
        pose, after = _poses(used, x.data, moved.data)
        expected = Element(c.group, g.value).compose(pose.element)
        right = expected.equals(after.element)
        same = errors(_canonical(pose, x).data, _canonical(after, moved).data) <= 1e-6  # the stabiliser
        clear = ~(pose.is_tied | after.is_tied)
        follows += int(((right | same) & clear).sum())
        counted += int(clear.sum())
        chosen |= set(pose.element.value.tolist())
        if tolerance is not None and pose.log_probs is not None and after.log_probs is not None:
            scale = max(1.0, float(pose.log_probs.abs().max()))
            gap = errors(after.log_probs, moved_log_probs(pose.log_probs, Element(c.group, g.value))) / scale
            require(f"{parsed}: log-probabilities move with the input", gap, tolerance, on=g)
    law = f"{parsed}: c(act(g, x)) is g @ c(x) on {share:.1%} of inputs without ties"
    require_true(law, follows >= share * counted and counted > 0, f"it is on {follows} of {counted}")
    alike = len(chosen) < 2 and parse_finite_group(c.group).order > 1
    require_true(
        f"{parsed}: poses differ between inputs, or the check says nothing", not alike, f"all are {chosen}"
    )


def _poses(c: Canonicalizer, x: Tensor, moved: Tensor) -> tuple[Pose, Pose]:
    """Return the poses of inputs and of moved inputs, after checking that ``c`` is a pure function."""
    kept, before = _state(c), x.clone()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        pose = c(x)
        after = c(moved)
        torch.manual_seed(2)
        again, part = c(x), _of_another_size(c, x[:1])
    require("x is not changed in place", errors(x, before), 0)
    changed = [name for name, value in _state(c).items() if not _same(kept.get(name), value)]
    require_true("a canonicalizer keeps no state between calls", not changed, f"{changed} changed")
    value = pose.element.value
    if isinstance(c.group, FiniteGroup):
        inside = bool(((value >= 0) & (value < c.group.order)).all())
        require_true("poses are elements of the group", inside, str(value.tolist()))
    same = errors(value, again.element.value)
    require("two calls in evaluation choose the same pose", same, 0, on=pose.element)
    if pose.log_probs is not None and again.log_probs is not None and part.log_probs is not None:
        require("two calls in evaluation agree", errors(pose.log_probs, again.log_probs), 1e-9)
        total = pose.log_probs.logsumexp(-1)
        require("posteriors are normalised", errors(total, 0 * total), 1e-5)
        scale = max(1.0, float(pose.log_probs.abs().max()))
        require("a batch agrees with its parts", errors(pose.log_probs[:1], part.log_probs) / scale, 1e-6)
        gap = pose.log_probs.amax(-1) - pose.log_prob()
        require("the chosen element is the likeliest", gap.double(), 1e-6, on=pose.element)
    return pose, after


def _of_another_size(c: Canonicalizer, x: Tensor) -> Pose:
    try:
        pose: Pose = c(x)
    except (RuntimeError, ValueError, IndexError) as error:
        raise AssertionError(f"a batch of {len(x)} is taken, as one of any size: {error}") from error
    require_true("one pose for each input", pose.element.shape == (len(x),), str(tuple(pose.element.shape)))
    return pose


def _redrawn(c: Canonicalizer, redraw: bool, generator: torch.Generator) -> Canonicalizer:
    used = copy.deepcopy(c).double().eval()
    if redraw:
        redraw_weights(used, generator)
    return used


def _canonical(pose: Pose, x: Kind) -> Any:
    return act(pose.element.inverse(), x)


def _state(c: nn.Module) -> dict[str, Any]:
    """Return everything that hangs on a module and its parts: plain attributes, and copies of tensors."""
    state: dict[str, Any] = {}
    for path, part in c.named_modules():
        for name, value in vars(part).items():
            if name not in ("_parameters", "_buffers", "_modules"):
                state[f"{path}.{name}"] = value.clone() if isinstance(value, Tensor) else value
    state.update({name: tensor.clone() for name, tensor in c.state_dict(keep_vars=False).items()})
    return state


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and bool(torch.equal(a, b))
    return a is b or bool(type(a) is type(b) and isinstance(a, (int, float, str)) and a == b)


def _elements(group: Group, count: int, generator: torch.Generator) -> Element:
    """Return all elements but the identity, or drawn ones; two at least, so that outputs can vary."""
    if isinstance(group, FiniteGroup) and 1 < group.order <= count:
        every = group.element(torch.arange(1, group.order))
        return every if len(every) > 1 else every.expand(4)
    return group.sample(count, generator=generator)


def _draw(make_x: type[Kind] | MakeKind, group: Group, batch: int, generator: torch.Generator) -> Any:
    if isinstance(make_x, type):
        size = (24, 24) if is_exact(group) else None
        return example(make_x, group, batch=batch, size=size, dtype=torch.float64, generator=generator)
    return make_x(batch, generator)


def _unmoved(x: Kind, moved: Kind, g: Element) -> Tensor:
    """Say which inputs a move that is not the identity left as they are, shape ``(B,)``."""
    if x.data.shape != moved.data.shape:
        return torch.zeros(len(g), dtype=torch.bool)
    return (errors(x.data, moved.data) == 0) & ~g.is_identity()


def _move_output(outputs: Any, g: Element, y: Tensor, size: tuple[int, int]) -> Tensor:
    is_kind = isinstance(outputs, (str, type)) or hasattr(outputs, "func")
    moved: Tensor = act(g, wrap(outputs, y, size)).data if is_kind else outputs(g, y)
    return moved
