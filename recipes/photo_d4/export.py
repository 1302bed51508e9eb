"""Save the network of ``photo-c4`` as a ready-made canonicalizer of quarter turns and flips; no training.

    python -m recipes.photo_d4.export --output src/upright/weights/photo-d4

`upright.nets.MirrorTied` brings one of two mirror images to the network, the same of both. The card is
``CARD.md`` beside this file.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import upright
from upright.hub import save

CARD = Path(__file__).with_name("CARD.md")


def packed() -> upright.DiscreteCanonicalizer:
    """Return the canonicalizer of D4, with weights and temperature of ``photo-c4``."""
    turns = upright.load_canonicalizer("photo-c4")
    made = upright.canonicalizer("D4", "lite", size=turns.size, options={"folded": True, "handed": False})
    assert isinstance(made, upright.DiscreteCanonicalizer)
    made.network.network.load_state_dict(turns.network.state_dict())
    made.temperature.copy_(turns.temperature)
    return made.eval()


def main() -> None:
    """Run the command line."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--output", type=Path, required=True)
    given = options.parse_args()
    print(save(packed(), given.output, card=CARD.read_text(encoding="utf-8"), dtype="int8"))


if __name__ == "__main__":
    main()
