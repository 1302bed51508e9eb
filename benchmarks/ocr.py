"""RapidOCR on pages turned by quarters: bare, with its angle classifier, adapted by ``document-c4``, oracle.

    python -m benchmarks.ocr --threads 1

Scanned receipts (``receipts/test.parquet``: pictures, and lines of quads and texts) and rendered pages of one
to three columns. A quarter turn permutes pixels, so that everything follows from two tables per page: what
the engine reads at each of four poses (with and without its angle classifier), and which pose the
canonicalizer finds at each. The adapted engine itself is then run on one page at all poses and must agree
with the tables, quads included.

Character accuracy is 1 - edit distance / length of the longer text (``rapidfuzz``), without white space and
in capitals, as the receipts were written down. "Order kept": the page as one text, line after line; rendered
pages row by row across columns, as the engine reads. "Any order": characters that both texts share / length
of the longer, wherever they stand. Readings are kept in the cache, so that a run that was cut short, or one
on more pages, goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image, ImageDraw, ImageFont
from rapidfuzz.distance import Levenshtein
from rapidocr import RapidOCR
from torch import Tensor

import upright
from benchmarks.photo import interval
from benchmarks.pictures import CACHE
from benchmarks.record import DATA, parser, rounded, start, write

WORDS = (
    "the quick brown fox jumps over a lazy dog while many small rivers carry cold water from high "
    "mountains toward quiet seas where old ships wait for better weather and crews tell long stories about "
    "distant islands strange animals forgotten cities of stone 1874 and prices of 25.90 or 310"
).split()
ANGLE_CLASSIFIER = {"off": False, "on": True}


@dataclass
class Page:
    """A page, upright, ``(H, W, 3)``, and the lines that it holds in the order of reading."""

    picture: np.ndarray[Any, Any]
    lines: list[str]

    def at(self, pose: int) -> np.ndarray[Any, Any]:
        return np.ascontiguousarray(np.rot90(self.picture, pose))


def receipts(limit: int) -> list[Page]:
    """Return scanned receipts, small ones first."""
    rows = pq.read_table(DATA / "receipts" / "test.parquet").to_pylist()
    pages = []
    for row in rows:
        picture = np.array(Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB"))
        pages.append(Page(picture, [line["text"] for line in json.loads(row["lines"])]))
    return sorted(pages, key=lambda page: page.picture.size)[:limit]


def rendered(count: int, seed: int, small: bool = False) -> list[Page]:
    """Draw pages of one to three columns, every fourth with light print on a dark ground."""
    pages = []
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        columns, size = 1 + number % 3, int(rng.integers(18, 25))
        width, height = (330, 220) if small else (int(rng.integers(500, 900)), int(rng.integers(500, 900)))
        ink, paper = ((235,) * 3, (25, 25, 40)) if number % 4 == 3 else ((20,) * 3, (250, 250, 245))
        picture = Image.new("RGB", (width, height), paper)
        draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size)
        margin, gap, lines = 30, 40, []
        room = (width - 2 * margin - gap * (columns - 1)) / columns
        for row in range(int((height - 2 * margin) / (1.7 * size))):
            for column in range(columns):
                if rng.random() < 0.1:
                    continue
                line, full = "", room * (0.5 if rng.random() < 0.15 else 1.0)
                while True:
                    longer = f"{line} {rng.choice(WORDS)}".strip()
                    if draw.textlength(longer, font=font) > full:
                        break
                    line = longer
                if line:
                    at = (margin + column * (room + gap), margin + row * 1.7 * size)
                    draw.text(at, line, font=font, fill=ink)
                    lines.append(line)
        pages.append(Page(np.array(picture), lines))
    return pages


def engine(threads: int) -> Any:
    options = {f"EngineConfig.onnxruntime.{kind}_op_num_threads": threads for kind in ("intra", "inter")}
    return RapidOCR(params={**options, "Global.log_level": "error"})


def reading(ocr: Any, page: Page, pose: int, classifier: str) -> list[str]:
    """Return the lines that the bare engine reads at a pose; kept in the cache."""
    turned = page.at(pose)
    digest = hashlib.sha256(turned.tobytes() + str(turned.shape).encode()).hexdigest()[:24]
    file = CACHE / "ocr" / f"{digest}-{classifier}.json"
    if not file.exists():
        found = ocr(turned[..., ::-1], use_cls=ANGLE_CLASSIFIER[classifier])
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"lines": list(found.txts or ())}))
    lines: list[str] = json.loads(file.read_text())["lines"]
    return lines


def poses(canonicalizer: Any, pages: list[Page]) -> tuple[Tensor, Tensor]:
    """Return the poses found at each pose and their confidence, both ``(N, 4)``."""
    found, sure = [], []
    for page in pages:
        for pose in range(4):
            seen = upright.straighten(page.at(pose), canonicalizer)[1]
            found.append(seen.element.value)
            sure.append(seen.confidence)
    return torch.cat(found).view(-1, 4), torch.cat(sure).view(-1, 4)


def plain(lines: list[str]) -> str:
    return "".join("".join(lines).upper().split())


def order_kept(read: list[str], true: list[str]) -> float:
    return float(Levenshtein.normalized_similarity(plain(read), plain(true)))


def any_order(read: list[str], true: list[str]) -> float:
    a, b = Counter(plain(read)), Counter(plain(true))
    return (a & b).total() / max(a.total(), b.total(), 1)


def accuracy(ocr: Any, pages: list[Page], found: Tensor, score: Any) -> dict[str, Any]:
    """Return accuracy by pose, and the share of the oracle gap that adapting closes."""
    figures: dict[str, Any] = {}
    tables = {}
    for classifier in ANGLE_CLASSIFIER:
        rows = [[score(reading(ocr, p, k, classifier), p.lines) for k in range(4)] for p in pages]
        bare = torch.tensor(rows, dtype=torch.float64)
        left = (torch.arange(4) - found) % 4  # the pose in which the engine sees the page
        tables[classifier] = {
            "bare": bare,
            "adapted": bare.gather(1, left),
            "oracle": bare[:, :1].expand(-1, 4),
        }
        figures[f"angle classifier {classifier}"] = {
            name: {"poses": table.mean(0).tolist(), "orbit_mean": float(table.mean())}
            for name, table in tables[classifier].items()
        }
    for classifier, table in tables.items():
        mean = {name: values.mean(1) for name, values in table.items()}
        rows_by_name = {"vanilla": mean["bare"], "oracle": mean["oracle"], "adapted": mean["adapted"]}
        total = {name: float(row.mean()) for name, row in rows_by_name.items()}
        gap = total["oracle"] - total["vanilla"]
        figures[f"angle classifier {classifier}"] |= {
            "gap_closed": (total["adapted"] - total["vanilla"]) / gap if gap else None,
            "gap_closed_95": interval(rows_by_name, "adapted"),
            "upright_loss": float((table["bare"][:, 0] - table["adapted"][:, 0]).mean()),
            "standard_error_of_adapted": float(
                mean["adapted"].std(correction=0) / max(len(pages) - 1, 1) ** 0.5
            ),
        }
    return figures


def agreement(ocr: Any, canonicalizer: Any, page: Page) -> dict[str, bool]:
    """Run the adapted engine at all poses: do texts, their order and quads turn exactly?"""
    adapted = upright.adapt(ocr, "C4", canonicalizer=canonicalizer)
    first, same_text, same_quads = None, True, True
    for pose, g in enumerate(adapted.group.elements()):
        result = adapted(page.at(pose)[..., ::-1], use_cls=False)
        first = result if first is None else first
        height, width = page.picture.shape[:2]
        quads = upright.Points(torch.from_numpy(first.boxes).flatten(0, 1), size=(height, width))
        moved = upright.act(g, quads).data.view(-1, 4, 2)
        same_text &= result.txts == first.txts
        same_quads &= bool(torch.equal(moved, torch.from_numpy(result.boxes)))
    found = int(upright.straighten(page.picture, canonicalizer)[1].element.value)
    table = reading(ocr, page, -found % 4, "off")
    return {"texts": same_text, "quads": same_quads, "as_in_tables": list(first.txts) == table}


def cost(ocr: Any, networks: dict[str, Any], page: Page, repeats: int = 2) -> dict[str, float]:
    """Return seconds of processor time for a page, and the canonicalizer's share of the adapted."""
    calls = {"bare": lambda: ocr(page.picture, use_cls=False)}
    for name, network in networks.items():
        calls[f"canonicalizer_{name}"] = lambda network=network: upright.straighten(page.picture, network)
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            began = time.process_time()
            call()
            taken[name].append(time.process_time() - began)
    median = {name: float(np.median(seconds)) for name, seconds in taken.items()}
    adapted = median["bare"] + median["canonicalizer_voted"]
    return {
        **median,
        "pages_per_second_bare": 1 / median["bare"],
        "pages_per_second_adapted": 1 / adapted,
        "canonicalizer_share": median["canonicalizer_voted"] / adapted,
        "height": page.picture.shape[0],
        "width": page.picture.shape[1],
    }


def measure(
    name: str, pages: list[Page], more: list[Page], ocr: Any, networks: dict[str, Any]
) -> dict[str, Any]:
    """Read ``pages``; find the poses of ``more`` too, which is cheap."""
    ocr(pages[0].picture[:64])  # opens its networks
    figures: dict[str, Any] = {"pages_read": len(pages), "pages_posed": len(more)}
    for number, page in enumerate(pages):
        for pose in range(4):
            for classifier in ANGLE_CLASSIFIER:
                reading(ocr, page, pose, classifier)
        print(f"{name}: page {number + 1} of {len(pages)} read", flush=True)
    for kind, network in networks.items():
        found, sure = poses(network, more)
        figures[f"poses_{kind}"] = {
            "right": float((found == torch.arange(4)).double().mean()),
            "turn_exactly": float(((found - torch.arange(4)) % 4 == found[:, :1]).double().mean()),
            "confidence_mean": float(sure.mean()),
            "confidence_least": float(sure.min()),
        }
        if kind == "voted":
            chosen = found[: len(pages)]
    figures["order_kept"] = accuracy(ocr, pages, chosen, order_kept)
    figures["any_order"] = accuracy(ocr, pages, chosen, any_order)
    smallest = min(pages, key=lambda page: page.picture.size)
    figures["adapted_engine_itself"] = agreement(ocr, networks["voted"], smallest)
    figures["cpu_seconds"] = cost(ocr, networks, smallest)
    return figures


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--rendered", type=int, default=40, help="rendered pages that are read")
    options.add_argument("--receipts", type=int, default=40, help="receipts that are read, small ones first")
    options.add_argument("--posed", type=int, default=40, help="pages of each kind whose poses are found")
    given = options.parse_args()
    start(given)
    ocr = engine(given.threads)
    networks = {
        "voted": upright.load_canonicalizer("document-c4"),
        "single": upright.canonicalizer("C4", "document", options={"vote": False}).eval(),
    }
    if given.smoke:
        given.rendered, given.posed, given.receipts = 1, 1, 0
    sets = {"rendered": (rendered(max(given.rendered, given.posed), given.seed, given.smoke), given.rendered)}
    if given.receipts:
        sets["receipts"] = (receipts(max(given.receipts, given.posed)), given.receipts)
    figures = {
        name: measure(name, pages[:read], pages, ocr, networks) for name, (pages, read) in sets.items()
    }
    write("ocr", rounded(figures), given, note="times are processor time on one thread, of one page")


if __name__ == "__main__":
    main()
