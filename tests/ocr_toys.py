"""An engine of OCR that reads bars from top to bottom, and pages for it and for real ones."""

import types
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

POSES = range(4)


def page(size):
    """A dark page ``(H, W, 3)`` with bars of their own grey levels, and a mark in its corner."""
    height, width = size
    made = np.zeros((height, width, 3), np.uint8)
    for i, level in enumerate((90, 30, 120, 60)):
        made[8 + 7 * i : 11 + 7 * i, 4 + i : width // 2 + 3 * i] = (level, level - 5, level + 5)
    made[0, 0] = 255
    return made


def bars(picture):
    """Read from top to bottom of what is given: ``(quad, text, score)``, corners clockwise from top left."""
    lines = []
    for level in np.unique(picture[..., 0]):
        if level in (0, 255):
            continue
        y, x = np.nonzero(picture[..., 0] == level)
        a, b, c, d = x.min(), y.min(), x.max() + 1, y.max() + 1
        lines.append(
            ([[int(a), int(b)], [int(c), int(b)], [int(c), int(d)], [int(a), int(d)]], f"{level}", 0.5)
        )
    return sorted(lines, key=lambda line: line[0][0][::-1])


def turned(points, size, pose):
    """Turn points by quarters, counter-clockwise on the screen: a formula of its own."""
    height, width = size
    for _ in range(pose):
        points = np.stack([points[..., 1], width - points[..., 0]], -1)
        height, width = width, height
    return points


@dataclass
class Output:
    """What RapidOCR returns, as far as it matters."""

    img: Any = None
    boxes: Any = None
    txts: Any = None
    scores: Any = None
    word_results: Any = (("", 1.0, None),)

    def to_markdown(self):
        return " ".join(t for _, t in sorted(zip(self.boxes[:, :, 1].min(1), self.txts, strict=True)))


class RapidOCR:
    """Stands in for the engine of that name: keeps its switches from call to call, as that does."""

    __module__ = "rapidocr.main"

    def __init__(self):
        self.use_det = self.use_rec = True
        self.use_cls, self.return_word_box, self.return_single_char_box = True, False, False
        self.text_score = 0.5
        self.cfg = types.SimpleNamespace(Det={"box_thresh": 0.5, "unclip_ratio": 1.6})
        self.used = []

    def load_img(self, picture):
        loaded = np.array(picture)
        return loaded[..., ::-1] if isinstance(picture, Pillow.Image) else loaded

    def update_params(self, **switches):
        for name, value in switches.items():
            setattr(self, name, value)

    def __call__(
        self, img_content, use_det=None, use_cls=None, use_rec=None, return_word_box=None,
        return_single_char_box=None, text_score=None, box_thresh=None, unclip_ratio=None,
    ):  # fmt: skip
        self.use_cls = self.use_cls if use_cls is None else use_cls
        self.return_word_box = self.return_word_box if return_word_box is None else return_word_box
        self.used.append((use_det, self.use_cls, use_rec, text_score, box_thresh, unclip_ratio))
        picture = self.load_img(img_content)
        lines = bars(picture)
        if not lines:
            return Output()
        quads, texts, scores = zip(*lines, strict=True)
        words = tuple(None for _ in lines)
        if self.return_word_box:
            words = tuple(((text, 0.9, quad), ("?", 0.1, None)) for quad, text, _ in lines)
        return Output(picture, np.array(quads, np.float32), texts, scores, words)


def text_page(size=(360, 260), seed=0, points=18):
    """Draw a page of words."""
    words = "the quick brown fox jumps over lazy dogs while rivers carry cold water to the sea".split()
    rng = np.random.default_rng(seed)
    made = Pillow.new("RGB", size[::-1], "white")
    draw, font = ImageDraw.Draw(made), ImageFont.load_default(points)
    lines = []
    for y in range(12, size[0] - 2 * points, int(1.7 * points)):
        line = str(rng.choice(words))
        while draw.textlength(longer := f"{line} {rng.choice(words)}", font=font) < size[1] - 30:
            line = longer
        draw.text((12, y), line, fill="black", font=font)
        lines.append(line)
    return made, lines
