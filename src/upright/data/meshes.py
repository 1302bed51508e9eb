"""Triangle meshes, a few solids, and points drawn evenly from a surface."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Mesh:
    """A surface of triangles.

    Attributes:
        vertices: Corners, shape ``(V, 3)``, float64.
        faces: Numbers of three corners each, counter-clockwise as seen from outside, shape ``(F, 3)``.
    """

    vertices: Floats
    faces: Integers

    def moved(self, *, rotation: Floats | None = None, shift: Sequence[float] = (0.0, 0.0, 0.0)) -> Mesh:
        """Return the mesh turned by a matrix ``(3, 3)`` about the origin, then shifted."""
        turned = self.vertices if rotation is None else self.vertices @ rotation.T
        return Mesh(turned + np.asarray(shift, dtype=np.float64), self.faces)

    def crossed(self) -> Floats:
        """Return the normal of each face times twice its area, shape ``(F, 3)``."""
        a, b, c = self.vertices[self.faces].swapaxes(0, 1)
        return np.cross(b - a, c - a)


def joined(meshes: Sequence[Mesh]) -> Mesh:
    """Return one mesh that holds all faces, in order."""
    starts = np.cumsum([0, *(len(m.vertices) for m in meshes[:-1])])
    return Mesh(
        np.concatenate([m.vertices for m in meshes]),
        np.concatenate([m.faces + start for m, start in zip(meshes, starts, strict=True)]),
    )


def sample_surface(mesh: Mesh, points: int, random: np.random.Generator) -> tuple[Floats, Floats, Integers]:
    """Draw points evenly from a surface.

    Args:
        mesh: At least one face of positive area.
        points: How many, N.
        random: Where draws come from.

    Returns:
        Points and outward normals, both ``(N, 3)``, and the face that each lies on, ``(N,)``.

    Raises:
        ValueError: If the mesh has no area.
    """
    crossed = mesh.crossed()
    areas = np.linalg.norm(crossed, axis=1)
    total = areas.sum()
    if not total > 0:
        raise ValueError(f"mesh must have a face of positive area, got {len(mesh.faces)} faces without one")
    ends = np.cumsum(areas)
    face = np.searchsorted(ends, random.random(points) * ends[-1], side="right")
    face = np.minimum(face, np.flatnonzero(areas)[-1])  # a draw may be rounded up to the very end
    root, along = np.sqrt(random.random((points, 1))), random.random((points, 1))
    a, b, c = mesh.vertices[mesh.faces[face]].swapaxes(0, 1)
    drawn = (1 - root) * a + root * (1 - along) * b + root * along * c
    return drawn, crossed[face] / areas[face, None], face


def box(size: Sequence[float], center: Sequence[float] = (0.0, 0.0, 0.0)) -> Mesh:
    """Return a box with sides along the axes; ``size`` is its three lengths."""
    return Mesh(_BOX * np.asarray(size) / 2 + np.asarray(center), _BOX_FACES)


def frustum(low: float, high: float, height: float, *, base: float = 0.0, sides: int = 24) -> Mesh:
    """Return a closed cone, cut off or not, along z.

    Args:
        low: Radius at the bottom; 0 for a tip.
        high: Radius at the top.
        height: Its height.
        base: The z of its bottom.
        sides: Number of sides; 4 makes a pyramid.
    """
    angles = 2 * math.pi * np.arange(sides) / sides
    circle = np.stack([np.cos(angles), np.sin(angles), np.zeros(sides)], 1)
    up = np.array([0.0, 0.0, 1.0])
    vertices = np.concatenate([
        low * circle + base * up, high * circle + (base + height) * up, [base * up, (base + height) * up],
    ])  # fmt: skip
    i = np.arange(sides)
    j, bottom, top = (i + 1) % sides, np.full(sides, 2 * sides), np.full(sides, 2 * sides + 1)
    quads = [[i, j, sides + j], [i, sides + j, sides + i], [j, i, bottom], [sides + i, sides + j, top]]
    return Mesh(vertices, np.concatenate([np.stack(q, 1) for q in quads]))


def ellipsoid(radii: Sequence[float], center: Sequence[float] = (0.0, 0.0, 0.0)) -> Mesh:
    """Return an ellipsoid with axes along x, y and z."""
    return Mesh(_BALL.vertices * np.asarray(radii) + np.asarray(center), _BALL.faces)


def ring(
    major: float, minor: float, *, start: float = 0.0, stop: float = 2 * math.pi, steps: int = 12
) -> Mesh:
    """Return a piece of a torus in the plane of x and z, from angle ``start`` to ``stop`` (x towards z)."""
    bend = np.linspace(start, stop, steps + 1)[:, None]
    around = (2 * math.pi * np.arange(8) / 8)[None]
    radius = major + minor * np.cos(around)
    grid = np.stack([radius * np.cos(bend), minor * np.sin(around) + 0 * bend, radius * np.sin(bend)], -1)
    return Mesh(grid.reshape(-1, 3), _grid_faces(steps, 8))


def turn(axis: str, angle: float) -> Floats:
    """Return the rotation by an angle in radians about "x", "y" or "z", right-handed, ``(3, 3)``."""
    c, s, k = math.cos(angle), math.sin(angle), "xyz".index(axis)
    matrix, i, j = np.eye(3), (k + 1) % 3, (k + 2) % 3
    matrix[[i, j, i, j], [i, j, j, i]] = c, c, -s, s
    return matrix


def _grid_faces(rows: int, columns: int) -> Integers:
    """Return the triangles of a grid of ``rows + 1`` closed rings with ``columns`` vertices each."""
    r, c = (x.ravel() for x in np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"))
    a, b = r * columns + c, r * columns + (c + 1) % columns
    return np.concatenate([np.stack([a, b, b + columns], 1), np.stack([a, b + columns, a + columns], 1)])


def _ball(rows: int, columns: int) -> Mesh:
    """Return a unit ball, from its south to its north pole."""
    up = np.linspace(-math.pi / 2, math.pi / 2, rows + 1)[:, None]
    around = (2 * math.pi * np.arange(columns) / columns)[None]
    grid = [np.cos(up) * np.cos(around), np.cos(up) * np.sin(around), np.sin(up) + 0 * around]
    return Mesh(np.stack(grid, -1).reshape(-1, 3), _grid_faces(rows, columns))


_BOX = np.array([[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)])
_BOX_FACES = np.array([
    [0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1],
    [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3],
])  # fmt: skip
_BALL = _ball(8, 16)
