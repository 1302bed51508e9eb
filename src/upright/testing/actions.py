"""The laws of an action: how elements move one kind."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..actions import act as library_act
from ..actions.registry import leaves
from ..groups.base import Element, Group
from ..groups.colour import CyclicHue
from ..groups.lie import LieGroup
from ..groups.planar import PlanarGroup
from ..groups.product import factors_of
from ..groups.projective import Homography
from ..kinds import Boxes, Image, Kind, Mask, OrientedBoxes, RegularField, VectorField
from ..kinds_space import LabelVolume, Volume
from .examples import crosses_border, example, is_exact
from .groups import pairs
from .tolerances import RESAMPLING, RESAMPLING_WAVES, errors, require, require_true, tolerance

Act = Callable[[Element, Any], Any]
MakeKind = Callable[[int, torch.Generator], Kind]
"""``make_x(batch, generator)`` returns a kind whose ``data`` has the leading axis ``batch``."""

_VOXELS = (Volume, LabelVolume)
_GRIDS = (Image, Mask, VectorField, RegularField, *_VOXELS)


def assert_action(
    group: Group,
    make_x: type[Kind] | MakeKind,
    *,
    act: Act = library_act,
    samples: int = 32,
    resampling: float | None = None,
    gradients: bool = True,
    compiled: bool = False,
    generator: torch.Generator | None = None,
) -> None:
    """Check that ``act`` is an action of a group on a kind.

    ``act(e, x)`` changes no bit; ``act(g @ h, x) = act(g, act(h, x))``; ``act(~g, act(g, x)) = x``; a batch,
    a list and an element for all agree with one call a sample; empty batches; nothing is changed in place;
    dtype, device and gradients, to Lie coordinates too. Where pixels are resampled, laws hold up to
    ``resampling``; where content leaves the canvas, on the pixels that never did; where boxes become hulls,
    two moves must contain the one move and share its centre (but for perspective).

    Kinds that the group is said to leave alone must keep every bit.

    Args:
        group: The group.
        make_x: The kind (its registered example is taken), or ``make_x(batch, generator) -> kind``.
        act: The function under test.
        samples: How many pairs are drawn where the group has too many for all.
        resampling: Allowed error of resampled pixels, relative to the largest value; default: by the table.
        gradients: Whether gradients are compared with finite differences (floating-point data only).
        compiled: Whether ``torch.compile(fullgraph=True)`` must trace the move and agree with it.
        generator: Source of the draws.

    Raises:
        AssertionError: If a law does not hold, or no element moved the example.
    """
    generator = generator or torch.Generator().manual_seed(0)
    make = _maker(group, make_x)
    if resampling is None:
        waves = crosses_border(group) and isinstance(make_x, type)
        resampling = RESAMPLING_WAVES if waves else RESAMPLING
    check = _Laws(group, act, make, resampling)
    g, h = pairs(group, max(samples, 64) if is_exact(group) else samples, generator)
    if _is_square(make(1, generator)):
        batches = [(g, h, make(len(g), generator))]
    else:  # a batch cannot mix elements that swap the sides with others
        batches = [(g[i].expand(2), h[i].expand(2), make(2, generator)) for i in range(len(g))]
    moved = [check.laws(*batch) for batch in batches]
    first = batches[0][2]
    if not leaves(group, type(first)) and bool((~g.is_identity()).any()):
        require_true(f"{check.name(first)}: some element moves the example", any(moved), "none did")
    for g_batch, _, x in batches[-4:]:
        check.batching(g_batch, x)
        check.preserves(g_batch, x)
    if gradients and first.data.is_floating_point():
        check.gradients(batches[-1][0], make(2, generator))
        if isinstance(group, LieGroup) and not leaves(group, type(first)):
            check.pose_gradients(group, make(2, generator), generator)
    if compiled:
        check.compiles(batches[-1][0], batches[-1][2])


class _Laws:
    """The checks of `assert_action`, with what they share."""

    def __init__(self, group: Group, act: Act, make: MakeKind, resampling: float) -> None:
        self.group, self.act, self.make, self.resampling = group, act, make, resampling

    def name(self, x: Kind) -> str:
        """Name the group and the kind for messages."""
        return f"{self.group} on {type(x).__name__}"

    def laws(self, g: Element, h: Element, x: Kind) -> bool:
        """Check identity, composition and inverse on a batch; return whether anything moved."""
        name, act = self.name(x), self.act
        still = act(self.group.identity(len(g)), x)
        require(f"{name}: act(e, x) is x, bit for bit", errors(still.data, x.data), 0)
        _same_frame(f"{name}: act(e, x)", still, x)
        moved, once, twice = act(g, x), act(g @ h, x), act(g, act(h, x))
        if leaves(self.group, type(x)):
            require(f"{name}: x is left as it is, bit for bit", errors(moved.data, x.data), 0, on=g)
        _same_frame(f"{name}: act(g @ h, x) against act(g, act(h, x))", once, twice)
        limit = self.limit(x)
        gap = self.gap(*self.inside(g, h, twice, once))
        require(f"{name}: act(g @ h, x) is act(g, act(h, x))", gap, limit, on=_Pairs(g, h))
        back = act(~g, moved)
        _same_frame(f"{name}: act(~g, act(g, x)) against x", back, x)
        require(f"{name}: act(~g, act(g, x)) is x", self.gap(*self.inside(~g, g, back, x)), limit, on=g)
        stays = g.is_identity()
        return (
            bool((errors(moved.data, x.data)[~stays] > 0).any()) if moved.data.shape == x.data.shape else True
        )

    def inside(self, g: Element, h: Element, twice: Kind, once: Kind) -> tuple[Kind, Kind]:
        """Return pictures moved by ``h``, then ``g``, without the pixels that came from beyond the canvas."""
        if not isinstance(twice, _GRIDS) or not crosses_border(self.group):
            return twice, once
        canvas = torch.ones(len(g), *twice.data.shape[-2:], dtype=torch.float64)
        kept = library_act(g, library_act(h, Mask(canvas))).data > 0.999
        share = float(kept.double().mean())
        require_true(
            f"{self.name(twice)}: enough stays on the canvas", share > 0.25, f"only {share:.0%} does"
        )
        kept = kept.view(len(g), *[1] * (twice.data.ndim - 3), *kept.shape[1:])
        return tuple(x.replace(data=torch.where(kept, x.data, 0).to(x.data.dtype)) for x in (twice, once))  # type: ignore[return-value]

    def limit(self, x: Kind) -> float:
        """Return the allowed error of two moves against one."""
        if isinstance(x, _GRIDS):
            if is_exact(self.group):
                computed = isinstance(x, VectorField) or (isinstance(x, Image) and _computes(self.group))
                return tolerance(x.data.dtype, float(x.data.abs().max())) if computed else 0.0
            scale = float(x.data.abs().max()) if x.data.is_floating_point() else 100.0
            rounding = 1.5 if not x.data.is_floating_point() else 2 * tolerance(x.data.dtype, scale)
            return 0.05 if _is_labels(x) else self.resampling * scale + rounding
        if not isinstance(x.data, Tensor) or not x.data.is_floating_point():
            return 0.0
        return 2 * tolerance(x.data.dtype, float(x.data.abs().max()) if x.data.numel() else 1.0)

    def gap(self, twice: Kind, once: Kind) -> Tensor:
        """Return how far two moves are from one, for each entry of the batch."""
        if isinstance(twice, Boxes) and isinstance(once, Boxes) and not is_exact(self.group):
            return _hull_gap(twice, once, _bends(self.group))
        if isinstance(twice, OrientedBoxes):
            turned = twice.data[..., 4] - once.data[..., 4]
            half = torch.remainder(turned + math.pi / 2, math.pi) - math.pi / 2  # a box turned by π is itself
            return torch.maximum(errors(twice.data[..., :4], once.data[..., :4]), errors(half, 0 * half))
        if _is_labels(twice) and not is_exact(self.group):
            differ: Tensor = twice.data != once.data
            return differ.double().flatten(1).mean(1)
        return errors(twice.data, once.data)

    def batching(self, g: Element, x: Kind) -> None:
        """Check that batches, lists, single elements and empty batches agree with one call a sample."""
        name, act = self.name(x), self.act
        moved = act(g, x)
        count = min(len(g), 6)
        at = [round(i * (len(g) - 1) / max(count - 1, 1)) for i in range(count)]
        limit = tolerance(x.data.dtype, 1.0)
        alone = [act(g[i], x.replace(data=x.data[i])) for i in at]
        for i, one in zip(at, alone, strict=True):
            gap = errors(one.data.unsqueeze(0), moved.data[i : i + 1])
            require(f"{name}: a batch is moved sample by sample", gap, limit, on=g[i : i + 1])
        listed = act(g[torch.tensor(at)], [x.replace(data=x.data[i]) for i in at])
        for one, entry in zip(alone, listed, strict=True):
            require(f"{name}: a list is moved entry by entry", errors(entry.data, one.data), limit)
        last = g[at[-1]]
        gap = errors(act(last, x).data, act(last.expand(len(g)), x).data)
        require(f"{name}: one element moves a whole batch alike", gap, limit, on=last.expand(len(g)))
        empty = act(g[:0], x.replace(data=x.data[:0])).data
        kept = empty.shape[0] == 0 and empty.dtype == x.data.dtype and empty.ndim == x.data.ndim
        require_true(
            f"{name}: an empty batch stays empty", kept, f"it became {tuple(empty.shape)}, {empty.dtype}"
        )

    def preserves(self, g: Element, x: Kind) -> None:
        """Check that nothing is changed in place and that dtype and device are kept."""
        name, before, numbers = self.name(x), copy.deepcopy(x.data), g.value.clone()
        moved = self.act(g, x)
        require(f"{name}: x is not changed in place", errors(x.data, before), 0, on=g)
        require_true(f"{name}: the element is not changed in place", torch.equal(g.value, numbers))
        require_true(f"{name}: the kind is kept", type(moved) is type(x), type(moved).__name__)
        kept = moved.data.dtype == x.data.dtype and moved.data.device == x.data.device
        require_true(f"{name}: dtype and device are kept", kept, f"{moved.data.dtype} on {moved.data.device}")

    def gradients(self, g: Element, x: Kind) -> None:
        """Check gradients against finite differences on two elements, in float64."""
        g = g[torch.tensor([len(g) // 2, len(g) - 1])]
        data = x.data.double().requires_grad_(True)

        def move(data: Tensor) -> Tensor:
            moved: Tensor = self.act(g, x.replace(data=data)).data
            return moved * 1.0

        try:
            torch.autograd.gradcheck(move, (data,), fast_mode=True, atol=1e-4, rtol=1e-3)
        except RuntimeError as error:
            raise AssertionError(
                f"{self.name(x)}: gradients are those of finite differences; {error}"
            ) from error

    def pose_gradients(self, group: LieGroup, x: Kind, generator: torch.Generator) -> None:
        """Check the gradient to Lie coordinates against a finite difference, in float64."""
        x = x.replace(data=x.data.double())
        c = 0.2 * torch.rand(len(x.data), group.coordinates, generator=generator, dtype=torch.float64) + 0.05
        weight = torch.rand(x.data.shape, generator=generator, dtype=torch.float64)
        step = 1e-6 * torch.rand(c.shape, generator=generator, dtype=torch.float64)

        def total(c: Tensor) -> Tensor:
            moved: Tensor = self.act(group.exp(c), x).data
            return (weight * moved).sum()

        c.requires_grad_(True)
        reached = total(c)
        law = f"{self.name(x)}: gradients reach the Lie coordinates"
        require_true(law, reached.requires_grad, "the graph is cut")
        (slope,) = torch.autograd.grad(reached, c)
        c = c.detach()
        difference = float(total(c + step) - total(c - step)) / 2
        error = torch.tensor([abs(float((slope * step).sum()) - difference)], dtype=torch.float64)
        scale = float(((slope * step).abs()).sum()) + 1e-9
        require(law, error / scale, 0.02)

    def compiles(self, g: Element, x: Kind) -> None:
        """Check that the move compiles into one graph and gives the same values."""
        torch.compiler.reset()
        compiled: Any = torch.compile(self.act, fullgraph=True, backend="aot_eager")
        law = f"{self.name(x)}: the compiled move is the eager one"
        limit = tolerance(x.data.dtype, 1.0) * 64
        require(law, errors(compiled(g, x).data, self.act(g, x).data), limit, on=g)


def _maker(group: Group, make_x: type[Kind] | MakeKind) -> MakeKind:
    """Return how examples are made."""
    if not isinstance(make_x, type):
        return make_x
    kind = make_x
    return lambda batch, generator: example(kind, group, batch=batch, generator=generator)


class _Pairs:
    """Names the pair ``(g, h)`` on which a law failed."""

    def __init__(self, g: Element, h: Element) -> None:
        self.g, self.h = g, h

    def __getitem__(self, i: int) -> tuple[Element, Element]:
        return self.g[i], self.h[i]


def _computes(group: Group) -> bool:
    """Say whether pixels are moved by arithmetic, and not only permuted, by a group that keeps the grid."""
    exact = [
        isinstance(f, PlanarGroup) or (isinstance(f, CyclicHue) and 3 % f.n == 0 and not f.is_normalized)
        for f in factors_of(group)
    ]
    return not all(exact)


def _is_labels(x: Kind) -> bool:
    return isinstance(x, (Mask, LabelVolume)) and not x.data.is_floating_point()


def _is_square(x: Kind) -> bool:
    if isinstance(x, _VOXELS):
        return len(set(x.data.shape[-3:])) == 1 and len(set(x.spacing)) == 1
    size = tuple(x.data.shape[-2:]) if isinstance(x, _GRIDS) else getattr(x, "size", (1, 1))
    return bool(size[0] == size[1])


def _same_frame(law: str, x: Kind, y: Kind) -> None:
    """Require equal shapes and equal canvases, or spacings."""
    found = [(tuple(v.data.shape), getattr(v, "size", getattr(v, "spacing", None))) for v in (x, y)]
    require_true(f"{law}: shape and canvas agree", found[0] == found[1], f"{found[0]} and {found[1]}")


def _bends(group: Group) -> bool:
    """Say whether a group has perspective, which moves the centres of boxes elsewhere."""
    return any(isinstance(factor, Homography) for factor in factors_of(group))


def _hull_gap(twice: Boxes, once: Boxes, bends: bool) -> Tensor:
    """Return by how much hulls of hulls fail to contain the hull or, unless space bends, share its centre."""
    (low, high), (inner_low, inner_high) = corners(twice), corners(once)
    centre = errors((low + high) / 2, (inner_low + inner_high) / 2)
    outside = torch.maximum((low - inner_low).clamp(min=0), (inner_high - high).clamp(min=0))
    return torch.maximum(0 * centre if bends else centre, errors(outside, 0 * outside))


def corners(x: Boxes) -> tuple[Tensor, Tensor]:
    """Return the top left and the bottom right corners of boxes of any format, in pixels, ``(…, N, 2)``."""
    data = x.data.double()
    if x.normalized:
        data = data * data.new_tensor([x.size[1], x.size[0]] * 2)
    first, second = data[..., :2], data[..., 2:]
    if x.format == "xyxy":
        return first, second
    return (first, first + second) if x.format == "xywh" else (first - second / 2, first + second / 2)
