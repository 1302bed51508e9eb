"""Sessions of ONNX Runtime are predictors: they take the place of a model, and of a session."""

import numpy as np
import pytest
import torch

import upright
from onnx_toys import ONE, session
from picture_toys import GROUPS, canonicalizer, elements
from upright.integrations.onnx import AdaptedSession, SessionModel

OUTPUTS = {"mask": "mask", "scores": "logits"}


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("size", [(12, 12), (10, 14)])
@pytest.mark.parametrize("batch", [None, 1, 3])
def test_an_adapted_session_moves_with_the_picture(group, size, batch):
    robust = upright.adapt(session(batch), group, canonicalizer=canonicalizer(group), outputs=OUTPUTS)
    x = torch.rand(5, 3, *size)
    scale = torch.from_numpy(ONE)
    bare, pose = robust(x, scale), robust.pose(x, scale)
    assert set(bare) == {"mask", "scores"}
    assert (pose.element.value != 0).any()
    for g in elements(group):
        moved = robust(upright.act(g, upright.Image(x)).data, scale)
        assert torch.equal(moved["mask"], upright.act(g, upright.Mask(bare["mask"])).data)
        assert torch.equal(moved["scores"], bare["scores"])


def test_an_identity_pose_returns_the_bits_of_the_session():
    bare = session()
    robust = upright.adapt(bare, canonicalizer="identity", outputs=OUTPUTS)
    x = np.random.default_rng(0).random((3, 3, 9, 11), dtype=np.float32)
    expected = bare.run(None, {"pixels": x, "scale": ONE})
    found = robust(x, ONE)
    assert all(type(v) is np.ndarray for v in found.values())
    for array, reference in zip(found.values(), expected, strict=True):
        assert np.array_equal(array, reference)
        assert array.dtype == reference.dtype
    tensors = robust(torch.from_numpy(x), scale=torch.from_numpy(ONE))
    assert torch.equal(tensors["mask"], torch.from_numpy(expected[0]))


@pytest.mark.parametrize("batch", [2, 3, 7])
def test_fixed_batch_sizes_split_and_fill_up(batch):
    x = np.random.default_rng(0).random((7, 3, 8, 8), dtype=np.float32)
    fixed, free = SessionModel(session(batch)), session()
    expected = free.run(None, {"pixels": x, "scale": ONE})
    for count in (0, 1, 6, 7):
        found = fixed(x[:count], ONE)
        assert found["mask"].shape == (count, 2, 8, 8)
        assert np.allclose(found["mask"], expected[0][:count], atol=1e-5)
        assert np.allclose(found["scores"], expected[1][:count], atol=1e-5)


def test_an_adapted_session_takes_the_place_of_a_session():
    robust = AdaptedSession(
        upright.adapt(session(1), "C4", canonicalizer=canonicalizer("C4"), outputs=OUTPUTS)
    )
    x = np.random.default_rng(0).random((1, 3, 9, 11), dtype=np.float32)
    mask, scores = robust.run(None, {"pixels": x, "scale": ONE})
    turned = {"pixels": np.ascontiguousarray(np.rot90(x, 1, (2, 3))), "scale": ONE}
    assert np.array_equal(robust.run(["mask"], turned)[0], np.rot90(mask, 1, (2, 3)))
    assert np.array_equal(robust.run(["scores"], turned)[0], scores)
    assert [e.name for e in robust.get_inputs()] == ["pixels", "scale"]
    assert [e.name for e in robust.get_outputs()] == ["mask", "scores"]
    with pytest.raises(
        TypeError, match=r"input_feed must hold the inputs \['pixels', 'scale'\], got \['x'\]"
    ):
        robust.run(None, {"x": x})
    with pytest.raises(ValueError, match="output_names must be among"):
        robust.run(["boxes"], turned)


def test_dtypes_and_one_output():
    model = SessionModel(session(dtype="FLOAT16", second=False))
    x = torch.rand(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    found = model(x, torch.ones(1))
    assert isinstance(found, torch.Tensor)
    assert torch.equal(found, model(x.half(), torch.ones(1)))
    assert model(torch.rand(1, 3, 4, 4).bfloat16(), torch.ones(1)).shape == (1, 2, 4, 4)
    whole = SessionModel(session(dtype="UINT8", second=False))
    assert whole(torch.ones(1, 3, 4, 4, dtype=torch.uint8), torch.ones(1)).dtype == torch.float32
    with pytest.raises(TypeError, match="input 'pixels' must be uint8, got float32"):
        whole(torch.ones(1, 3, 4, 4), torch.ones(1))
    robust = upright.adapt(session(second=False), canonicalizer=canonicalizer("C4"), outputs="mask")
    assert robust(torch.rand(2, 3, 8, 8), scale=torch.ones(1)).shape == (2, 2, 8, 8)
    assert robust(torch.rand(0, 3, 8, 8), scale=torch.ones(1)).shape == (0, 2, 8, 8)


def test_messages_of_sessions():
    model = SessionModel(session(1, (8, 12)))
    with pytest.raises(
        ValueError, match=r"'pixels' must have shape \(1, 3, 8, 12\), got \(1, 3, 12, 8\); resize"
    ):
        model(np.zeros((1, 3, 12, 8), np.float32), ONE)
    with pytest.raises(TypeError, match=r"missing: \['scale'\], unknown: \['size'\]"):
        model(np.zeros((1, 3, 8, 12), np.float32), size=ONE)
    with pytest.raises(TypeError, match="takes 2 inputs"):
        model(ONE, ONE, ONE)
    with pytest.raises(TypeError, match="adapted session, got an adapted Linear"):
        AdaptedSession(upright.adapt(torch.nn.Linear(1, 1), canonicalizer="identity"))
    robust = upright.adapt(session(), canonicalizer="identity", outputs=OUTPUTS)
    with pytest.raises(TypeError, match="must be a torch module, got SessionModel; use setup='prior'"):
        upright.fit(robust, torch.rand(8, 3, 16, 16), setup="joint", progress=False)
    awkward = session(names=("input.1", "0"))
    named = upright.adapt(awkward, canonicalizer="identity", inputs={0: "image"}, outputs=OUTPUTS)
    assert named(torch.rand(1, 3, 8, 8), torch.ones(1))["mask"].shape == (1, 2, 8, 8)


def test_a_canonicalizer_is_fitted_without_running_the_session():
    bare = session()
    runs = []

    class InferenceSession:
        def run(self, *args):
            runs.append(args)
            return bare.run(*args)

        get_inputs = bare.get_inputs
        get_outputs = bare.get_outputs

    robust = upright.adapt(InferenceSession(), canonicalizer=canonicalizer("C4"), outputs=OUTPUTS)
    before = [p.clone() for p in robust.canonicalizer.parameters()]
    upright.fit(robust, torch.rand(8, 3, 16, 16), epochs=1, batch_size=4, augment=False, progress=False)
    assert not runs
    assert any(not torch.equal(a, b) for a, b in zip(before, robust.canonicalizer.parameters(), strict=True))
    robust(torch.rand(1, 3, 8, 8), torch.ones(1))
    assert len(runs) == 1
