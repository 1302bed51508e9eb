"""The action alone against the best plain PyTorch for the same result, beside the memory-bandwidth floor.

    python -m benchmarks.geometry

Competitors for quarter turns and flips: ``torch.stack`` of ``torch.rot90`` per picture; one gather by a
prepared index; per element of the group one masked ``torch.rot90``. For 45 degrees: ``affine_grid`` and
``grid_sample``. The floor is one read and one write of the batch, measured as ``x.clone()``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.record import median_ms, paired_ratio, parser, start, write
from upright import Cyclic, Dihedral, Image, act

BATCHES = ((32, 3, 32), (8, 3, 224), (1, 3, 1024))


def rot90_each(x: Tensor, moves: list[tuple[int, bool]]) -> Tensor:
    return torch.stack(
        [
            torch.rot90(p.flip(-1) if flip else p, turn, (-2, -1))
            for p, (turn, flip) in zip(x, moves, strict=True)
        ]
    )


def rot90_one(x: Tensor, moves: list[tuple[int, bool]]) -> Tensor:
    """All pictures move alike."""
    turn, flip = moves[0]
    return torch.rot90(x.flip(-1) if flip else x, turn, (-2, -1))


def rot90_masked(x: Tensor, moves: list[tuple[int, bool]]) -> Tensor:
    out = torch.empty_like(x)
    for move in set(moves):
        at = torch.tensor([i for i, m in enumerate(moves) if m == move])
        out[at] = rot90_one(x[at], [move])
    return out


def gather(table: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    def run(x: Tensor, numbers: Tensor) -> Tensor:
        index = table.index_select(0, numbers).unsqueeze(1).expand(-1, x.shape[1], -1)
        return x.flatten(-2).gather(-1, index).view_as(x)

    return run


def exact(batch: int, channels: int, side: int, repeats: int) -> dict[str, Any]:
    x, group = torch.randn(batch, channels, side, side), Dihedral(4)
    g = group.sample(batch, generator=torch.Generator().manual_seed(1))
    moves = [(int(v) % 4, int(v) >= 4) for v in g.value]
    pixels = torch.arange(side * side).view(1, side, side).expand(8, -1, -1)
    table = rot90_each(pixels, [(i % 4, i >= 4) for i in range(8)]).flatten(1)
    gathered = gather(table)
    rivals: dict[str, Callable[[], Tensor]] = {
        "stack of rot90": lambda: rot90_each(x, moves),
        "gather": lambda: gathered(x, g.value),
        "masked rot90": lambda: rot90_masked(x, moves),
    }
    if len(set(moves)) == 1:
        rivals["one rot90"] = lambda: rot90_one(x, moves)
    ours = lambda: act(g, Image(x)).data  # noqa: E731
    assert all(torch.equal(ours(), rival()) for rival in rivals.values())
    return against(ours, rivals, x, repeats)


def resampled(batch: int, channels: int, side: int, repeats: int) -> dict[str, Any]:
    x, g = torch.randn(batch, channels, side, side), Cyclic(8).element(torch.ones(batch, dtype=torch.long))
    inverse = g.matrix(torch.float32).transpose(1, 2)

    def plain() -> Tensor:
        theta = torch.cat([inverse, torch.zeros(batch, 2, 1)], 2)
        grid = F.affine_grid(theta, list(x.shape), align_corners=False)
        return F.grid_sample(x, grid, padding_mode="border", align_corners=False)

    ours = lambda: act(g, Image(x)).data  # noqa: E731
    assert torch.allclose(ours(), plain(), atol=1e-3)
    return against(ours, {"affine_grid + grid_sample": plain}, x, repeats)


def against(
    ours: Callable[[], Tensor], rivals: dict[str, Callable[[], Tensor]], x: Tensor, repeats: int
) -> dict[str, Any]:
    best = min(rivals, key=lambda name: median_ms(rivals[name], repeats=repeats))
    figures = {"best_rival": best, **paired_ratio(ours, rivals[best], repeats=repeats)}
    floor = median_ms(lambda: x.clone(), repeats=repeats)
    return {**figures, "floor_ms": round(floor, 4), "times_floor": round(figures["ours_ms"] / floor, 1)}


def main() -> None:
    options = parser(__doc__ or "").parse_args()
    start(options)
    batches = BATCHES[:1] if options.smoke else BATCHES
    repeats = 5 if options.smoke else 101
    figures = {}
    for batch, channels, side in batches:
        name = f"{batch}x{channels}x{side}x{side}"
        figures[f"{name} quarter turns and flips"] = exact(batch, channels, side, repeats)
        figures[f"{name} 45 degrees"] = resampled(batch, channels, side, repeats)
    write("geometry", figures, options)


if __name__ == "__main__":
    main()
