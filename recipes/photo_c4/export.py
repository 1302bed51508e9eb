"""Fold, calibrate and save the trained network as a ready-made canonicalizer.

    python -m recipes.photo_c4.export runs/photo-c4/model.safetensors --output src/upright/weights/photo-c4

The temperature is fitted on the training pictures that were held back from training; the test pictures are
not touched. The card is ``CARD.md`` beside this file.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

import upright
from recipes.photo_c4.data import held_back
from upright.hub import save
from upright.nets import LiteBackbone, OrbitVoter

CARD = Path(__file__).with_name("CARD.md")


def packed(weights: Path, size: int) -> upright.DiscreteCanonicalizer:
    """Return the canonicalizer of a training checkpoint, its batch normalisation folded."""
    trained = LiteBackbone()
    trained.load_state_dict(load_file(weights))
    made = upright.canonicalizer("C4", "lite", size=size, options={"folded": True})
    assert isinstance(made, upright.DiscreteCanonicalizer)
    assert isinstance(made.network, OrbitVoter)
    made.network.network.load_state_dict(trained.fold().state_dict())
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
    options.add_argument("weights", type=Path)
    options.add_argument("--output", type=Path, required=True)
    options.add_argument("--size", type=int, default=96)
    options.add_argument("--limit", type=int, help="held-back pictures of each set; default: all")
    options.add_argument("--threads", type=int, default=1)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    canonicalizer = packed(given.weights, given.size)
    sets = {name: x[: given.limit] for name, x in held_back().items()}
    temperature = canonicalizer.calibrate([part for x in sets.values() for part in x.split(50)])
    for name, x in sets.items():
        print(
            f"{name}: {len(x)} held-back pictures, identity rate {identity_rate(canonicalizer, x):.4f}",
            flush=True,
        )
    card = CARD.read_text(encoding="utf-8") if CARD.exists() else None
    save(canonicalizer, given.output, card=card, dtype="float16")
    total = sum(file.stat().st_size for file in given.output.iterdir())
    print(f"temperature {temperature:.3f}, {total} bytes in {given.output}")


if __name__ == "__main__":
    main()
