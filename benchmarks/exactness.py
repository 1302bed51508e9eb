"""Is it exact? Pixels, boxes, points, fields; arbitrary models adapted; oriented hulls at 45 degrees.

    python -m benchmarks.exactness

Every reference is computed by another route (NumPy index operations, float64 corners), never by the library.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import upright
from benchmarks.record import parser, start, write
from upright import Boxes, Cyclic, Dihedral, Element, Image, Mask, Points, VectorField, act


def turned(x: np.ndarray, g: Element) -> np.ndarray:
    """Flip, then quarter turns, by NumPy."""
    turns, flip = int(g.value) % 4, int(g.value) // 4
    return np.rot90(np.flip(x, -1) if flip else x, turns, (-2, -1))


def kinds_are_exact(sizes: list[tuple[int, int]]) -> dict[str, Any]:
    """Count the (element, canvas, kind) cases whose result differs in any bit from the reference."""
    wrong, cases = [], 0
    for height, width in sizes:
        for g in Dihedral(4).elements():
            for kind, same in _cases(g, height, width):
                cases += 1
                if not same:
                    wrong.append(f"{kind} {height}x{width} {g}")
    return {"cases": cases, "wrong": wrong}


def _cases(g: Element, height: int, width: int) -> list[tuple[str, bool]]:
    cases = []
    for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.uint8, torch.int64, torch.bool):
        x = torch.randint(0, 255, (3, height, width)).to(dtype)
        numbers = torch.arange(height * width).reshape(1, height, width)
        order = torch.from_numpy(turned(numbers.numpy(), g).copy()).flatten()
        want = x.flatten(1)[:, order].reshape(3, *turned(numbers.numpy(), g).shape[1:])
        cases.append((f"Image {dtype}", torch.equal(act(g, Image(x)).data, want)))
        cases.append((f"Mask {dtype}", torch.equal(act(g, Mask(x[0])).data, want[0])))
    row, column = torch.randint(height, ()), torch.randint(width, ())
    marked = np.zeros((1, height, width))
    marked[0, row, column] = 1
    _, new_row, new_column = (int(v[0]) for v in np.nonzero(turned(marked, g)))
    point = torch.tensor([[column + 0.5, row + 0.5]])
    moved = act(g, Points(point, (height, width))).data
    cases.append(("Points", torch.equal(moved, torch.tensor([[new_column + 0.5, new_row + 0.5]]))))
    for form in ("xyxy", "xywh", "cxcywh"):
        size = {"xyxy": (1, 1), "xywh": (0, 0), "cxcywh": (0.5, 0.5)}[form]
        pixel = lambda c, r, f=form, s=size: torch.tensor(  # noqa: E731
            [[c, r, c + 1, r + 1]] if f == "xyxy" else [[c + s[0], r + s[1], 1, 1]], dtype=torch.float32
        )
        box = act(g, Boxes(pixel(int(column), int(row)), (height, width), format=form)).data
        cases.append((f"Boxes {form}", torch.equal(box, pixel(new_column, new_row))))
    flow = torch.randn(2, height, width)
    first, second = turned(flow[0].numpy(), g), turned(flow[1].numpy(), g)
    matrix = g.matrix().round().numpy()
    want = np.stack(
        [matrix[0, 0] * first + matrix[0, 1] * second, matrix[1, 0] * first + matrix[1, 1] * second]
    )
    cases.append(
        ("VectorField", np.array_equal(act(g, VectorField(flow)).data.numpy(), want.astype(np.float32)))
    )
    return cases


class Arbitrary(nn.Module):
    """A model with no symmetry at all: position-dependent weights everywhere."""

    def __init__(self, size: int, dense: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.position = nn.Parameter(torch.empty(6, size, size))
        self.head = nn.Linear(6 * size * size, 10)
        self.dense = dense

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.conv(x) * self.position)
        return y if self.dense else self.head(y.flatten(1))


@torch.no_grad()
def models_are_equivariant(group: str, network: str, draws: int, batch: int, size: int) -> dict[str, Any]:
    """Share of inputs whose output is equal in every bit, over all elements, weights re-drawn each time."""
    equal = total = 0
    for draw in range(draws):
        canonicalizer = upright.canonicalizer(group, network, size=24)
        model = Arbitrary(size, dense=bool(draw % 2))
        for parameter in [*model.parameters(), *canonicalizer.parameters()]:
            parameter.normal_(0, 0.5)
        robust = upright.adapt(
            model, group, canonicalizer=canonicalizer, outputs="image" if draw % 2 else "logits"
        )
        x = torch.randn(batch, 3, size, size)
        y = robust(x)
        for g in robust.group.elements():
            moved = robust(act(g, Image(x)).data)
            want = act(g, Image(y)).data if draw % 2 else y
            same = (moved == want).flatten(1).all(1)
            equal, total = equal + int(same.sum()), total + batch
    return {"inputs": total, "equal": equal, "share": round(equal / total, 5)}


def hull_iou(count: int) -> float:
    """Least IoU, over random boxes and all odd multiples of 45 degrees, with the hull of float64 corners."""
    worst = 1.0
    for k in (1, 3, 5, 7):
        g = Cyclic(8).element(k)
        centre = torch.rand(count, 2, dtype=torch.float64) * 200
        sides = torch.rand(count, 2, dtype=torch.float64) * 80 + 1
        boxes = torch.cat([centre - sides / 2, centre + sides / 2], 1)
        got = act(g, Boxes(boxes.float(), (200, 200))).data.double()
        angle = math.pi / 4 * k
        corners = boxes[:, [[0, 1], [2, 1], [2, 3], [0, 3]]] - 100
        x = math.cos(angle) * corners[..., 0] + math.sin(angle) * corners[..., 1]
        y = -math.sin(angle) * corners[..., 0] + math.cos(angle) * corners[..., 1]
        hull = torch.stack([x.amin(1), y.amin(1), x.amax(1), y.amax(1)], 1) + 100
        worst = min(worst, float(_iou(got, hull).min()))
    return worst


def _iou(a: Tensor, b: Tensor) -> Tensor:
    sides = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0)
    shared = sides.prod(1)
    return shared / ((a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - shared)


def main() -> None:
    options = parser(__doc__ or "").parse_args()
    start(options)
    draws, batch = (2, 8) if options.smoke else (20, 64)
    figures = {
        "kinds": kinds_are_exact([(7, 7), (8, 8), (5, 8), (9, 6), (32, 48), (33, 31)]),
        "adapted_models": {
            f"{group} {network}": models_are_equivariant(group, network, draws, batch, 24)
            for group in ("C4", "D4")
            for network in ("orbit", "group_cnn", "polar")
        },
        "worst_hull_iou_at_45_degrees": round(hull_iou(10 if options.smoke else 1000), 6),
    }
    write("exactness", figures, options)


if __name__ == "__main__":
    main()
