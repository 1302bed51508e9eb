"""Average, fold, calibrate and save the trained network as a ready-made canonicalizer, its weights in bytes.

    python -m recipes.photo_c4.export runs/photo-c4/{plain,overlaid}.safetensors --output FOLDER

The temperature is fitted on the training pictures that were held back from training; the test pictures are
not touched. The card is ``CARD.md`` beside this file.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

import upright
from recipes.photo_c4.data import held_back
from recipes.photo_c4.train import SIZE
from upright.hub import save
from upright.nets import LiteBackbone, OrbitComparer

CARD = Path(__file__).with_name("CARD.md")


def packed(weights: Sequence[Path], size: int) -> upright.DiscreteCanonicalizer:
    """Return the canonicalizer of the mean of training checkpoints, its batch normalisation folded."""
    trained = OrbitComparer(LiteBackbone(), "C4")
    states = [load_file(file) for file in weights]
    mean = {k: torch.stack([s[k].double() for s in states]).mean(0) for k in states[0]}
    trained.load_state_dict(mean)
    made = upright.canonicalizer("C4", "lite", size=size, options={"folded": True})
    assert isinstance(made, upright.DiscreteCanonicalizer)
    assert isinstance(trained.network, LiteBackbone)
    trained.network = trained.network.fold()
    made.network.load_state_dict(trained.state_dict())
    return made.eval()


@torch.no_grad()
def identity_rate(canonicalizer: upright.Canonicalizer, x: Tensor) -> float:
    """Return the share of upright pictures that are left alone, ties not counted."""
    poses = [canonicalizer(part) for part in x.split(50)]
    return float(torch.cat([p.element.is_identity() & ~p.is_tied for p in poses]).float().mean())


def main() -> None:
    """Run the command line."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("weights", type=Path, nargs="+", help="checkpoints of one run, averaged")
    options.add_argument("--output", type=Path, required=True)
    options.add_argument("--size", type=int, default=SIZE)
    options.add_argument("--limit", type=int, help="held-back pictures of each set; default: all")
    options.add_argument("--threads", type=int, default=1)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    canonicalizer = packed(given.weights, given.size)
    sets = {name: x[: given.limit] for name, x in held_back().items()}
    temperature = canonicalizer.calibrate([part for x in sets.values() for part in x.split(50)])
    card = CARD.read_text(encoding="utf-8") if CARD.exists() else None
    save(canonicalizer, given.output, card=card, dtype="int8")
    stored = upright.load_canonicalizer(given.output)
    for name, x in sets.items():
        exact, rounded = identity_rate(canonicalizer, x), identity_rate(stored, x)
        print(f"{name}: {len(x)} held-back pictures, identity rate {exact:.4f}, as stored {rounded:.4f}")
    total = sum(file.stat().st_size for file in given.output.iterdir())
    print(f"temperature {temperature:.3f}, {total} bytes in {given.output}")


if __name__ == "__main__":
    main()
