"""Calibrate and save the trained network as ``photo-so2`` and ``photo-c8``, its weights in bytes.

    python -m recipes.photo_so2.export runs/photo-so2/network.safetensors --output src/upright/weights

The temperatures are fitted on training pictures that were held back from training, turned by whole cells;
test pictures are not touched. The cards are ``CARD.md`` beside this file with ``SO2.md`` or ``C8.md``.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

import upright
from recipes.photo_c4.data import held_back
from recipes.photo_so2.network import OUTPUTS, RAYS, SIZE
from recipes.photo_so2.train import loss_of
from upright.hub import save

HERE = Path(__file__).parent
NAMES = {"SO2": "photo-so2", "C8": "photo-c8"}


def packed(weights: Path, group: str) -> Any:
    """Return the canonicalizer of a group with the trained weights, not calibrated."""
    options: dict[str, Any] = {"folded": True, "outputs": OUTPUTS, "rays": RAYS}
    made = upright.canonicalizer(group, "lite", size=SIZE, options=options)
    network: Any = made.network
    network.network.load_state_dict(load_file(weights))
    return made.eval()


@torch.no_grad()
def turned_scores(canonicalizer: Any, x: Tensor, seed: int = 0) -> Tensor:
    """Return the scores of pictures at random elements, moved back as if the pictures stood upright."""
    cells, rng, parts = canonicalizer.cells(), torch.Generator().manual_seed(seed), []
    count = len(cells)
    for part in x.split(32):
        steps = torch.randint(count, (len(part),), generator=rng)
        g = upright.SO2().element(degrees=steps.double() * (360 / count))
        scores, _ = canonicalizer.scores(upright.act(g, upright.Image(part)).data)
        parts.append(scores.gather(1, (torch.arange(count) + steps.unsqueeze(1)) % count))
    return torch.cat(parts).double()


def calibrate(canonicalizer: Any, scores: Tensor) -> float:
    """Fit the temperature on scores of pictures that stand upright."""

    def loss(t: float) -> float:
        if str(canonicalizer.group) == "SO2":
            return float(loss_of(scores / t, torch.zeros(len(scores))))
        return float(F.cross_entropy(scores / t, torch.zeros(len(scores), dtype=torch.long)))

    best = min(torch.logspace(-1, 1, 201).tolist(), key=loss)
    canonicalizer.temperature.fill_(best)
    return best


def card(group: str) -> str:
    """Return the card: what both share, what a group is told apart by, and its table."""
    text = (HERE / "CARD.md").read_text(encoding="utf-8")
    own, table = (HERE / f"{group}.md").read_text(encoding="utf-8").split("\n\n", 1)
    return text.replace("@OWN@", own).replace("@TABLE@", table.strip())


def main() -> None:
    """Run the command line."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("weights", type=Path)
    options.add_argument("--output", type=Path, required=True, help="folder of the two folders")
    options.add_argument("--limit", type=int, default=250, help="held-back pictures of each set")
    options.add_argument("--threads", type=int, default=1)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    x = torch.cat([pictures[: given.limit] for pictures in held_back().values()])
    for group, name in NAMES.items():
        canonicalizer = packed(given.weights, group)
        temperature = calibrate(canonicalizer, turned_scores(canonicalizer, x))
        save(canonicalizer, given.output / name, card=card(group), dtype="int8")
        size = sum(file.stat().st_size for file in (given.output / name).iterdir())
        print(f"{name}: temperature {temperature:.3f}, {size} bytes")


if __name__ == "__main__":
    main()
