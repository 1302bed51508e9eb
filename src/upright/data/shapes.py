"""A made-up family of solid objects: sixteen classes with parts, for tests and benchmarks without downloads.

The objects are synthetic: assembled from boxes, cones, balls and rings, with proportions, counts and styles
drawn at random. They are no substitute for scans or for ModelNet and ShapeNet (`upright.data.modelnet`,
`upright.data.shapenet`), and figures obtained on them say so.

Convention: right-handed axes; z points up, x to the front. Where solids overlap, points inside are kept, as
on the meshes of ShapeNet. The spiral stair winds one way only: it differs from its mirror image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from .._checks import check_choice, check_positive
from .clouds import CloudSet, normalized
from .meshes import Mesh, box, ellipsoid, frustum, joined, ring, sample_surface, turn

Random = np.random.Generator
Parts = Iterator[tuple[str, Mesh]]

SHAPES: dict[str, tuple[Callable[[Random], Parts], tuple[str, ...]]] = {}
"""Every class: what draws an object of it, and the names of its parts."""


def make_shapes(
    per_class: int = 50,
    points: int = 1024,
    *,
    classes: Sequence[str] | None = None,
    split: str = "train",
    noise: float = 0.0,
    seed: int = 0,
) -> CloudSet:
    """Draw objects and points on them.

    Objects depend on the seed, the split, their class and their number alone: asking for more adds some and
    changes none.

    Args:
        per_class: Objects of each class.
        points: Points on each object.
        classes: Which classes, in this order; default: all of `SHAPES`.
        split: "train" or "test": different draws from the same family.
        noise: Standard deviation of a shift of every point, added last; the objects' radius is 1.
        seed: Any integer from 0 on.

    Returns:
        Clouds about their centroid, of radius 1, float32, upright; class after class, with parts and normals.

    Raises:
        ValueError: If a class or the split is unknown, or a number is not positive.
    """
    names = list(SHAPES if classes is None else classes)
    for name in names:
        check_choice("classes", name, SHAPES)
    check_choice("split", split, ("train", "test"))
    check_positive("per_class", per_class)
    check_positive("points", points)
    part_names, parts_of = _part_numbers(names)
    clouds, shifts, normals, parts = [], [], [], []
    for name in names:
        for i in range(per_class):
            random = np.random.default_rng([seed, split == "test", list(SHAPES).index(name), i])
            mesh, part = make_mesh(name, random)
            drawn, normal, face = sample_surface(mesh, points, random)
            clouds.append(drawn)
            shifts.append(noise * random.standard_normal(drawn.shape))
            normals.append(normal)
            parts.append(np.asarray(parts_of[name])[part[face]])
    return CloudSet(
        (normalized(torch.from_numpy(np.stack(clouds))) + torch.from_numpy(np.stack(shifts))).float(),
        torch.arange(len(names)).repeat_interleave(per_class),
        names,
        parts=torch.from_numpy(np.stack(parts)),
        normals=torch.from_numpy(np.stack(normals)).float(),
        part_names=part_names,
        parts_of=parts_of,
    )


def make_mesh(name: str, random: Random) -> tuple[Mesh, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Draw one object.

    Args:
        name: A class of `SHAPES`.
        random: Where draws come from.

    Returns:
        Its surface, and the number of the part that each face belongs to, within its class, ``(F,)``.
    """
    check_choice("name", name, SHAPES)
    draw, names = SHAPES[name]
    pieces = list(draw(random))
    stretch = random.uniform(0.88, 1.14, 3)
    whole = joined([mesh for _, mesh in pieces])
    part = np.concatenate([np.full(len(mesh.faces), names.index(part)) for part, mesh in pieces])
    return Mesh(whole.vertices * stretch, whole.faces), part


def _part_numbers(names: Sequence[str]) -> tuple[list[str], dict[str, list[int]]]:
    """Number the parts of some classes from 0 on."""
    part_names: list[str] = []
    parts_of: dict[str, list[int]] = {}
    for name in names:
        own = SHAPES[name][1]
        parts_of[name] = list(range(len(part_names), len(part_names) + len(own)))
        part_names += [f"{name} {part}" for part in own]
    return part_names, parts_of


def _shape(*parts: str) -> Callable[[Callable[[Random], Parts]], Callable[[Random], Parts]]:
    def add(draw: Callable[[Random], Parts]) -> Callable[[Random], Parts]:
        SHAPES[draw.__name__.replace("_", " ").strip()] = draw, parts
        return draw

    return add


def _corners(depth: float, width: float, inset: float) -> list[tuple[float, float]]:
    return [(s * (depth / 2 - inset), t * (width / 2 - inset)) for s in (-1, 1) for t in (-1, 1)]


def _legs(r: Random, depth: float, width: float, height: float, thick: float) -> Iterator[Mesh]:
    """Yield four legs, square or round and tapering, below z = ``height``."""
    is_round = r.random() < 0.5
    foot = thick * r.uniform(0.5, 1.0)
    for x, y in _corners(depth, width, thick):
        if is_round:
            yield frustum(foot, thick, height, sides=10).moved(shift=(x, y, 0.0))
        else:
            yield box((2 * thick, 2 * thick, height), (x, y, height / 2))


def _stand(r: Random, height: float, foot: float, thick: float) -> Iterator[Mesh]:
    """Yield a foot and a column, up to z = ``height``."""
    base = r.uniform(0.03, 0.06)
    yield frustum(foot, foot * r.uniform(0.5, 1.0), base)
    yield frustum(thick, thick, height - base, base=base, sides=12)


@_shape("fuselage", "wings", "tail", "engines")
def _airplane(r: Random) -> Parts:
    length, radius = r.uniform(1.6, 2.2), r.uniform(0.1, 0.17)
    yield "fuselage", ellipsoid((length / 2, radius, radius))
    span, chord, sweep = r.uniform(0.7, 1.1), r.uniform(0.2, 0.38), r.uniform(0.0, 0.5)
    at, height = r.uniform(-0.1, 0.2), r.choice([-0.5, 0.6]) * radius
    for side in (-1, 1):
        wing = box((chord, span, 0.04), (0.0, side * span / 2, 0.0))
        yield "wings", wing.moved(rotation=turn("z", side * sweep), shift=(at, 0.0, height))
        tail = box((chord * 0.5, span * 0.35, 0.03), (0.0, side * span * 0.17, 0.0))
        shift = (-length * 0.44, 0.0, radius * 0.3)
        yield "tail", tail.moved(rotation=turn("z", side * sweep), shift=shift)
        for k in range(int(r.integers(1, 3)) if side == -1 else 0):
            for y in (-1, 1):
                nacelle = ellipsoid((chord * 0.45, 0.06, 0.06))
                out = (0.35 + 0.3 * k) * span
                back = math.tan(sweep) * out
                yield "engines", nacelle.moved(shift=(at + 0.1 - back, y * out, height - 0.08))
    fin = r.uniform(0.28, 0.42)
    yield "tail", box((chord * 0.55, 0.03, fin), (-length * 0.44, 0.0, fin / 2))


@_shape("mattress", "headboard", "legs")
def _bed(r: Random) -> Parts:
    length, width, high = r.uniform(1.8, 2.1), r.uniform(0.9, 1.8), r.uniform(0.2, 0.4)
    thick = r.uniform(0.15, 0.3)
    yield "mattress", box((length, width, thick), (0.0, 0.0, high + thick / 2))
    board = r.uniform(0.35, 0.8)
    yield "headboard", box((0.08, width, board), (-length / 2, 0.0, high + board / 2))
    if r.random() < 0.4:
        yield "headboard", box((0.06, width, board * 0.6), (length / 2, 0.0, high + board * 0.3))
    for leg in _legs(r, length, width, high, r.uniform(0.03, 0.06)):
        yield "legs", leg


@_shape("seat", "back", "legs")
def _bench(r: Random) -> Parts:
    depth, width, high = r.uniform(0.35, 0.5), r.uniform(1.3, 2.0), r.uniform(0.4, 0.5)
    for x in np.linspace(-depth / 2, depth / 2, int(r.integers(2, 5))):
        yield "seat", box((depth * 0.25, width, 0.05), (x, 0.0, high))
    lean = turn("y", -r.uniform(0.0, 0.25))
    for k in range(int(r.integers(1, 4))):
        slat = box((0.04, width, 0.1), (0.0, 0.0, 0.15 + 0.15 * k))
        yield "back", slat.moved(rotation=lean, shift=(-depth / 2, 0.0, high))
    apart = width * r.uniform(0.3, 0.45)
    for side in (-1, 1):
        yield "legs", box((depth, 0.08, high), (0.0, side * apart, high / 2))


@_shape("body", "neck", "cap")
def _bottle(r: Random) -> Parts:
    radius, high = r.uniform(0.2, 0.36), r.uniform(0.6, 1.1)
    neck, slope, length = radius * r.uniform(0.25, 0.5), r.uniform(0.1, 0.35), r.uniform(0.1, 0.35)
    sides = int(r.choice([4, 24], p=[0.2, 0.8]))
    yield "body", frustum(radius * r.uniform(0.85, 1.0), radius, high, sides=sides)
    yield "neck", frustum(radius, neck, slope, base=high, sides=sides)
    yield "neck", frustum(neck, neck, length, base=high + slope)
    yield "cap", frustum(neck * 1.2, neck * 1.2, r.uniform(0.05, 0.12), base=high + slope + length)


@_shape("body", "cabin", "wheels")
def _car(r: Random) -> Parts:
    length, width, high = r.uniform(1.7, 2.3), r.uniform(0.75, 0.95), r.uniform(0.25, 0.38)
    wheel = r.uniform(0.16, 0.22)
    yield "body", box((length, width, high), (0.0, 0.0, wheel + high / 2))
    kind, top = r.random(), wheel + high
    cabin, roof = length * r.uniform(0.4, 0.6), r.uniform(0.25, 0.38)
    at = -length * r.uniform(0.05, 0.15) if kind < 0.7 else length * 0.2
    taper = frustum(2**0.5 / 2, 2**0.5 / 2 * r.uniform(0.7, 0.95), 1.0, sides=4).moved(
        rotation=turn("z", math.pi / 4)
    )
    yield "cabin", Mesh(taper.vertices * (cabin, width * 0.95, roof) + (at, 0.0, top), taper.faces)
    for x in (-0.31, 0.31):
        for y in (-1, 1):
            tyre = frustum(wheel, wheel, 0.14, base=-0.07, sides=16).moved(rotation=turn("x", math.pi / 2))
            yield "wheels", tyre.moved(shift=(x * length, y * width / 2, wheel))


@_shape("seat", "back", "legs", "arms")
def _chair(r: Random) -> Parts:
    depth, width, high = r.uniform(0.42, 0.55), r.uniform(0.4, 0.6), r.uniform(0.4, 0.52)
    yield "seat", box((depth, width, r.uniform(0.04, 0.1)), (0.0, 0.0, high))
    tall, lean = r.uniform(0.4, 0.7), turn("y", -r.uniform(0.0, 0.3))
    bars = int(r.choice([1, 3, 4]))
    for y in np.linspace(-0.5, 0.5, bars) if bars > 1 else [0.0]:
        size = (0.04, width * (0.95 if bars == 1 else 0.14), tall)
        back = box(size, (0.0, y * width * 0.86, tall / 2))
        yield "back", back.moved(rotation=lean, shift=(-depth / 2 + 0.02, 0.0, high))
    if r.random() < 0.7:
        legs = _legs(r, depth, width, high, r.uniform(0.02, 0.035))
    else:
        legs = _stand(r, high, 0.28, r.uniform(0.03, 0.05))
    for leg in legs:
        yield "legs", leg
    if r.random() < 0.4:
        up = r.uniform(0.18, 0.25)
        for side in (-1, 1):
            yield "arms", box((depth * 0.9, 0.05, 0.04), (0.0, side * width / 2, high + up))
            yield "arms", box((0.04, 0.04, up), (depth * 0.35, side * width / 2, high + up / 2))


@_shape("body", "neck", "head")
def _guitar(r: Random) -> Parts:
    low, high, thick = r.uniform(0.24, 0.32), r.uniform(0.16, 0.24), r.uniform(0.05, 0.1)
    yield "body", ellipsoid((thick, low, low), (0.0, 0.0, low))
    yield "body", ellipsoid((thick, high, high), (0.0, 0.0, low * 1.7 + high * 0.6))
    top, length = low * 1.7 + high * 1.2, r.uniform(0.5, 0.75)
    yield "neck", box((0.04, 0.07, length), (thick * 0.7, 0.0, top + length / 2))
    head = box((0.03, r.uniform(0.11, 0.17), r.uniform(0.14, 0.2)), (0.0, 0.0, 0.08))
    yield "head", head.moved(rotation=turn("y", -0.2), shift=(thick * 0.7, 0.0, top + length))


@_shape("handle", "head")
def _hammer(r: Random) -> Parts:
    length, thick = r.uniform(0.9, 1.3), r.uniform(0.03, 0.06)
    yield "handle", frustum(thick * r.uniform(1.0, 1.5), thick, length, sides=12)
    front, back, radius = r.uniform(0.2, 0.32), r.uniform(0.12, 0.3), r.uniform(0.07, 0.11)
    face = frustum(radius, radius, front, sides=12).moved(rotation=turn("y", math.pi / 2))
    yield "head", face.moved(shift=(0.0, 0.0, length))
    tip = frustum(radius * 0.9, radius * r.uniform(0.1, 0.5), back, sides=4)
    yield "head", tip.moved(rotation=turn("y", -math.pi / 2), shift=(0.0, 0.0, length))


@_shape("walls", "roof", "chimney")
def _house(r: Random) -> Parts:
    depth, width, high = r.uniform(0.8, 1.4), r.uniform(0.7, 1.1), r.uniform(0.5, 0.9)
    yield "walls", box((depth, width, high), (0.0, 0.0, high / 2))
    roof, over = r.uniform(0.3, 0.6), 1.1
    pyramid = frustum(2**0.5 / 2, 0.0, 1.0, sides=4).moved(rotation=turn("z", math.pi / 4))
    if r.random() < 0.6:  # a ridge: the tip is drawn out along x
        tips = pyramid.vertices[:, 2:] > 0.5
        sides = np.sign(pyramid.vertices[[0, 1, 2, 3, 0, 1, 2, 3, 8, 9], :1].round(6))
        pyramid = Mesh(pyramid.vertices + tips * sides * (0.5, 0.0, 0.0), pyramid.faces)
    yield (
        "roof",
        Mesh(pyramid.vertices * (depth * over, width * over, roof) + (0.0, 0.0, high), pyramid.faces),
    )
    if r.random() < 0.8:
        at = (depth * r.uniform(0.15, 0.35), width * r.uniform(-0.25, 0.25))
        yield "chimney", box((0.12, 0.12, roof * 1.1), (*at, high + roof * 0.55))


@_shape("foot", "stem", "shade")
def _lamp(r: Random) -> Parts:
    high, foot = r.uniform(0.7, 1.5), r.uniform(0.18, 0.3)
    base = r.uniform(0.03, 0.1)
    yield "foot", frustum(foot, foot * r.uniform(0.3, 1.0), base)
    yield "stem", frustum(0.025, 0.025, high - base, base=base, sides=10)
    wide, shade = r.uniform(0.2, 0.36), r.uniform(0.22, 0.4)
    lampshade = frustum(wide, wide * r.uniform(0.3, 0.9), shade, base=-shade / 2)
    if r.random() < 0.5:
        yield "shade", lampshade.moved(shift=(0.0, 0.0, high))
    else:  # a reading lamp: the shade hangs on an arm
        reach = r.uniform(0.25, 0.5)
        yield "stem", box((reach, 0.05, 0.05), (reach / 2, 0.0, high))
        yield "shade", lampshade.moved(rotation=turn("y", -r.uniform(0.0, 0.5)), shift=(reach, 0.0, high))


@_shape("screen", "stand")
def _monitor(r: Random) -> Parts:
    width, high, thick = r.uniform(0.8, 1.3), r.uniform(0.5, 0.75), r.uniform(0.04, 0.1)
    lift = r.uniform(0.15, 0.3)
    screen = box((thick, width, high), (0.0, 0.0, high / 2))
    yield "screen", screen.moved(rotation=turn("y", -r.uniform(0.0, 0.15)), shift=(0.0, 0.0, lift))
    yield "stand", box((0.05, 0.12, lift + high * 0.4), (-0.05, 0.0, (lift + high * 0.4) / 2))
    if r.random() < 0.5:
        yield "stand", frustum(r.uniform(0.15, 0.25), 0.12, 0.04)
    else:
        yield "stand", box((r.uniform(0.2, 0.35), r.uniform(0.3, 0.5), 0.03), (0.0, 0.0, 0.015))


@_shape("body", "handle")
def _mug(r: Random) -> Parts:
    radius, high, wall = r.uniform(0.3, 0.42), r.uniform(0.6, 1.0), 0.04
    top = radius * r.uniform(0.9, 1.2)
    outer, inner = frustum(radius, top, high), frustum(radius - wall, top - wall, high - wall, base=wall)
    sides = 24
    yield "body", Mesh(outer.vertices, outer.faces[: 3 * sides])  # open above
    yield "body", Mesh(inner.vertices, inner.faces[: 3 * sides, ::-1])  # seen from inside
    bow = ring(high * r.uniform(0.22, 0.3), r.uniform(0.03, 0.05), start=-math.pi / 2, stop=math.pi / 2)
    yield "handle", bow.moved(shift=((radius + top) / 2, 0.0, high / 2))


@_shape("hull", "nose", "fins")
def _rocket(r: Random) -> Parts:
    radius, high, nose = r.uniform(0.14, 0.24), r.uniform(0.9, 1.5), r.uniform(0.25, 0.5)
    yield "hull", frustum(radius, radius * r.uniform(0.8, 1.0), high)
    yield "nose", frustum(radius, 0.0, nose, base=high)
    count, fin, tall = int(r.integers(3, 5)), r.uniform(0.15, 0.3), r.uniform(0.2, 0.4)
    for k in range(count):
        blade = box((fin, 0.03, tall), (radius + fin / 2, 0.0, tall * 0.4))
        yield "fins", blade.moved(rotation=turn("z", 2 * math.pi * k / count))


@_shape("pole", "steps")
def _spiral_stair(r: Random) -> Parts:
    high, reach = r.uniform(1.4, 2.0), r.uniform(0.45, 0.7)
    yield "pole", frustum(0.06, 0.06, high, sides=12)
    count, turns = int(r.integers(9, 15)), r.uniform(0.8, 1.3)
    for k in range(count):
        step = box((reach, r.uniform(0.14, 0.2), 0.03), (reach / 2, 0.0, high * (k + 0.5) / count))
        yield "steps", step.moved(rotation=turn("z", 2 * math.pi * turns * k / count))


@_shape("top", "legs")
def _table(r: Random) -> Parts:
    depth, width, high = r.uniform(0.6, 1.2), r.uniform(0.8, 1.8), r.uniform(0.35, 0.8)
    thick, is_round = r.uniform(0.03, 0.08), r.random() < 0.3
    if is_round:
        yield "top", frustum(depth / 2, depth / 2, thick, base=high)
        depth, width = depth * 0.7, depth * 0.7
    else:
        yield "top", box((depth, width, thick), (0.0, 0.0, high + thick / 2))
    if r.random() < 0.7:
        legs = _legs(r, depth, width, high, r.uniform(0.025, 0.05))
    else:
        legs = _stand(r, high, depth * 0.35, r.uniform(0.04, 0.08))
    for leg in legs:
        yield "legs", leg


@_shape("trunk", "crown")
def _tree(r: Random) -> Parts:
    high, thick = r.uniform(0.3, 0.8), r.uniform(0.05, 0.1)
    yield "trunk", frustum(thick, thick * 0.8, high, sides=12)
    wide, tall = r.uniform(0.3, 0.5), r.uniform(0.7, 1.1)
    if r.random() < 0.5:
        count = int(r.integers(1, 4))
        for k in range(count):
            share = tall / count
            yield "crown", frustum(wide * (1 - 0.25 * k), 0.0, share * 1.3, base=high + share * k)
    else:
        for _ in range(int(r.integers(1, 4))):
            x, y = r.uniform(-0.15, 0.15, 2)
            wider, taller = wide * r.uniform(0.7, 1.0, 2), tall * r.uniform(0.35, 0.5)
            yield "crown", ellipsoid((*wider, taller), (x, y, high + tall * r.uniform(0.35, 0.5)))
