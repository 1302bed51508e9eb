"""The laws of a group."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import torch
from torch import Tensor

from ..groups.base import Element, FiniteGroup, Group
from ..groups.lie import LieGroup
from ..groups.space import SpatialGroup
from .tolerances import errors, require, require_true

_SMALL = 24
"""Up to this order, groups are checked on every element."""


def assert_group(group: Group, *, samples: int = 256, generator: torch.Generator | None = None) -> None:
    """Check the laws of a group.

    Identity, inverse on both sides, associativity, closure; ``matrix`` is a faithful homomorphism into the
    invertible matrices; ``distance`` is a metric, invariant on the left and, if the group says so, on the
    right; sampling stays in the group and follows its generator; elements broadcast and may be empty; the
    group is hashable and holds no tensors. Of a Lie group also: ``exp`` of a line is a one-parameter group,
    its matrices are the exponentials of the generators, `log` comes back, and gradients pass. Of a spatial
    group also: its rotations are orthogonal, its determinants are theirs, and +1 if it says so.

    Args:
        group: The group.
        samples: How many pairs and triples are drawn where there are too many for all.
        generator: Source of the draws.

    Raises:
        AssertionError: If a law does not hold.
    """
    generator = generator or torch.Generator().manual_seed(0)
    g, h, k = _triples(group, samples, generator)
    e = group.identity(len(g))
    for law, left, right in [
        ("e @ g is g", e @ g, g),
        ("g @ e is g", g @ e, g),
        ("g @ ~g is the identity", g @ ~g, e),
        ("~g @ g is the identity", ~g @ g, e),
        ("(g @ h) @ k is g @ (h @ k)", (g @ h) @ k, g @ (h @ k)),
        ("~(g @ h) is ~h @ ~g", ~(g @ h), ~h @ ~g),
    ]:
        require(f"{group}: {law}", _gap(left, right), 1e-9, on=g)
    _check_matrices(group, g, h, e)
    _check_distance(group, g, h, k)
    _check_sampling(group)
    _check_value(group)
    if isinstance(group, FiniteGroup):
        _check_numbers(group, g, h)
    if isinstance(group, LieGroup):
        _check_lie(group, generator)
    if isinstance(group, SpatialGroup):
        _check_space(group, g, h)


def pairs(group: Group, samples: int, generator: torch.Generator) -> tuple[Element, Element]:
    """Return all pairs of elements if they are few, else drawn ones, each of shape ``(P,)``."""
    if not isinstance(group, FiniteGroup):
        return group.sample(samples, generator=generator), group.sample(samples, generator=generator)
    n = group.order
    if n * n <= samples:
        numbers = torch.cartesian_prod(torch.arange(n), torch.arange(n)).view(-1, 2)
        return group.element(numbers[:, 0]), group.element(numbers[:, 1])
    every = torch.arange(samples) % n if n <= samples else torch.randperm(n, generator=generator)[:samples]
    return group.element(every), group.sample(samples, generator=generator)


def _triples(group: Group, samples: int, generator: torch.Generator) -> tuple[Element, Element, Element]:
    g, h = pairs(group, max(samples, _SMALL**2), generator)
    times = max(1, samples // len(g))
    g, h = (Element(group, x.value.repeat(times, *[1] * group.value_ndim)) for x in (g, h))
    return g, h, group.sample(len(g), generator=generator)


def _gap(g: Element, h: Element) -> Tensor:
    """Return 0 where elements are equal, the larger of their distance and their matrices' difference else."""
    if g.shape != h.shape:
        return torch.full((1,), torch.inf)
    apart = torch.maximum(errors(g.matrix(), h.matrix()), g.distance(h).double())
    if isinstance(g.group, FiniteGroup):
        return torch.where(g.equals(h), apart, torch.ones_like(apart))
    return apart


def _check_matrices(group: Group, g: Element, h: Element, e: Element) -> None:
    side = group.dimension
    found = tuple(g.matrix().shape)
    require_true(
        f"{group}: matrix(g) has shape (*, {side}, {side})", found == (len(g), side, side), str(found)
    )
    product = g.matrix() @ h.matrix()
    require(f"{group}: matrix(g @ h) is matrix(g) @ matrix(h)", errors((g @ h).matrix(), product), 1e-9, on=g)
    unit = torch.eye(side, dtype=torch.float64).expand(len(e), -1, -1)
    require(f"{group}: matrix(e) is the unit matrix", errors(e.matrix(), unit), 1e-12)
    require(f"{group}: matrix(~g) inverts matrix(g)", errors((~g).matrix() @ g.matrix(), unit), 1e-9, on=g)
    same = errors(g.matrix(), h.matrix()) < 1e-9
    require(
        f"{group}: different elements have different matrices", (same & (_gap(g, h) > 1e-6)).double(), 0, on=g
    )
    require_true(f"{group}: matrix follows dtype", g.matrix(torch.float32).dtype == torch.float32)


def _check_distance(group: Group, g: Element, h: Element, k: Element) -> None:
    apart = g.distance(h)
    require_true(
        f"{group}: distance is float64 of the batch shape",
        apart.dtype == torch.float64 and apart.shape == g.shape,
    )
    zero = torch.zeros_like(apart)
    require(f"{group}: distance(g, g) is 0", errors(g.distance(g), zero), 1e-6, on=g)
    require(f"{group}: distance is not negative", (-apart).clamp(min=0) + 0 * apart, 0, on=g)
    require(f"{group}: distance is symmetric", errors(apart, h.distance(g)), 1e-6, on=g)
    require(
        f"{group}: distance(k g, k h) is distance(g, h)", errors(apart, (k @ g).distance(k @ h)), 1e-6, on=g
    )
    right = errors(apart, (g @ k).distance(h @ k))
    if group.is_bi_invariant:
        require(f"{group}: distance(g k, h k) is distance(g, h)", right, 1e-6, on=g)
    else:
        law = f"{group}: distance is not invariant on the right, as is_bi_invariant says"
        require_true(law, bool((right > 1e-6).any()), "it is on all pairs")
    detour = g.distance(k) + k.distance(h)
    require(f"{group}: distance keeps the triangle inequality", (apart - detour).clamp(min=0), 1e-6, on=g)
    different = errors(g.matrix(), h.matrix()) > 1e-6
    require(f"{group}: different elements are apart", (different & ~(apart > 1e-9)).double(), 0, on=g)


def _check_sampling(group: Group) -> None:
    first, second = (group.sample(64, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    require_true(f"{group}: sample follows its generator", torch.equal(first.value, second.value))
    require(f"{group}: sample(…) has inverses", _gap(first @ ~first, group.identity(64)), 1e-9, on=first)
    moved = bool((_gap(first, group.identity(64)) > 0).any())
    trivial = isinstance(group, FiniteGroup) and group.order == 1
    require_true(f"{group}: sample draws more than the identity", moved or trivial)
    if isinstance(group, FiniteGroup):
        drawn = group.sample(64 * group.order, generator=torch.Generator().manual_seed(2)).value
        counts = drawn.bincount(minlength=group.order)
        require_true(
            f"{group}: sample is uniform",
            len(counts) == group.order and int(counts.min()) >= 16,
            f"it drew {counts.tolist()}",
        )


def _check_value(group: Group) -> None:
    require_true(
        f"{group}: a group is hashable and equal to itself", hash(group) == hash(group) and group == group
    )
    fields: dict[str, Any] = {}
    if dataclasses.is_dataclass(group):
        fields = {f.name: getattr(group, f.name) for f in dataclasses.fields(group)}
    held = [name for name, entry in {**vars(group), **fields}.items() if isinstance(entry, Tensor)]
    require_true(f"{group}: a group holds no tensors", not held, f"it holds {held}")
    require_true(f"{group}: an equal copy is equal", copy.deepcopy(group) == group)
    e = group.identity(2, 1)
    require_true(f"{group}: elements broadcast", (e @ group.identity(1, 3)).shape == (2, 3))
    require_true(f"{group}: batches may be empty", (group.identity(0) @ ~group.identity(0)).shape == (0,))
    require_true(f"{group}: identity(…) is the identity", bool(e.is_identity().all()))


def _check_lie(group: LieGroup, generator: torch.Generator) -> None:
    count = group.coordinates
    found = tuple(group.generators().shape)
    law = f"{group}: there is a generator of the group's dimension for each coordinate"
    require_true(law, found == (count, group.dimension, group.dimension), str(found))
    c = 0.6 * torch.rand(64, count, generator=generator, dtype=torch.float64) - 0.3
    g, e = group.exp(c), group.identity(64)
    require(f"{group}: exp(0) is the identity", _gap(group.exp(0 * c), e), 1e-12)
    require(
        f"{group}: exp(c / 3) @ exp(2c / 3) is exp(c)", _gap(group.exp(c / 3) @ group.exp(2 * c / 3), g), 1e-9
    )
    require(f"{group}: exp(-c) is ~exp(c)", _gap(group.exp(-c), ~g), 1e-9)
    require(f"{group}: log(exp(c)) is c", errors(group.log(g), c), 1e-9, on=g)
    algebra = torch.tensordot(c, group.generators(), 1)
    matrices = torch.linalg.matrix_exp(algebra)
    law = f"{group}: matrix(exp(c)) is the exponential of the generators"
    require(law, errors(g.matrix(), matrices), 1e-9, on=g)
    slopes: Any = torch.autograd.functional.jacobian(  # type: ignore[no-untyped-call]
        lambda c: group.exp(c).matrix(), torch.zeros(count, dtype=torch.float64)
    )
    law = f"{group}: gradients of matrix(exp(c)) at 0 are the generators"
    require(law, errors(slopes.movedim(-1, 0), group.generators()), 1e-9)


def _check_space(group: SpatialGroup, g: Element, h: Element) -> None:
    turn, shift, moved = group.rotation(g), group.translation(g), g.matrix()
    unit = torch.eye(3, dtype=torch.float64).expand(len(g), 3, 3)
    require(f"{group}: rotation(g) is orthogonal", errors(turn.mT @ turn, unit), 1e-9, on=g)
    law = f"{group}: matrix(g) starts with rotation(g)"
    require(law, errors(moved[:, :3, :3], turn), 1e-12, on=g)
    column = moved[:, :3, 3] if moved.shape[-1] == 4 else torch.zeros_like(shift)
    require(f"{group}: translation(g) is the shift of matrix(g)", errors(column, shift), 1e-12, on=g)
    sides = torch.linalg.det(turn)
    law = f"{group}: determinant(g) is that of rotation(g)"
    require(law, errors(group.determinant(g), sides), 1e-9, on=g)
    if group.is_proper:
        require(f"{group}: no element reflects, as is_proper says", errors(sides, sides.abs()), 0, on=g)
    else:
        law = f"{group}: some elements reflect, as is_proper says"
        require_true(law, bool((sides < 0).any()), "none of those drawn does")
    other = group.rotation(h)
    chord = torch.linalg.matrix_norm(turn - other)  # 2 sqrt(2) sin(angle / 2) where handedness is the same
    law = f"{group}: distance is at least the angle between rotations, in radians, and tells handedness"
    require(law, (chord - 2**0.5 * g.distance(h)).clamp(min=0), 1e-9, on=g)
    between = turn.mT @ other
    cosine = (between.diagonal(dim1=-2, dim2=-1).sum(-1) * torch.linalg.det(between) - 1) / 2
    require(
        f"{group}: angle(~g @ h) is that of the rotation",
        errors(group.angle(~g @ h).cos(), cosine),
        1e-9,
        on=g,
    )


def _check_numbers(group: FiniteGroup, g: Element, h: Element) -> None:
    n = group.order
    require_true(
        f"{group}: elements() are numbered 0 … order - 1", group.elements().value.tolist() == list(range(n))
    )
    require_true(f"{group}: element 0 is the identity", bool(group.element(0).is_identity()))
    for law, value in [("g @ h", (g @ h).value), ("~g", (~g).value), ("sample", group.sample(64).value)]:
        inside = (value >= 0) & (value < n)
        require(
            f"{group}: {law} stays in the group", (~inside).double(), 0, on=g if len(g) == len(inside) else ""
        )
    for i in range(min(n, _SMALL)):
        row = (group.element(i).expand(n) @ group.elements()).value
        require_true(
            f"{group}: g @ … permutes the elements",
            len(set(row.tolist())) == n,
            f"element {i} gives {row.tolist()}",
        )
