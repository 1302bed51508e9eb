"""Packed weights come back: exactly in float32, within half a step of the scale in bytes."""

import pytest
import torch

from upright._packing import pack, unpack


def state():
    rng = torch.Generator().manual_seed(0)
    filters = torch.randn(6, 3, 2, 2, generator=rng) * torch.logspace(-3, 3, 6).view(-1, 1, 1, 1)
    return {
        "conv.weight": filters,
        "conv.bias": torch.randn(6, generator=rng),
        "temperature": torch.tensor(1.2345678),
        "count": torch.tensor([3, 4]),
        "rows.weight": torch.tensor([[0.0, 0.0], [1.0, -1.0]]),
    }


def test_float32_is_exact():
    for name, value in unpack(pack(state(), "float32")).items():
        assert torch.equal(value, state()[name])


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_small_ones_are_close(dtype):
    found = unpack(pack(state(), dtype))
    assert set(found) == set(state())
    for name, value in state().items():
        largest = value.flatten(1).abs().amax(1) if value.ndim > 1 else value.abs()
        off = (found[name] - value).abs()
        bound = largest / 200 + 1e-4
        assert bool((off <= (bound.view(-1, *[1] * (value.ndim - 1)) if value.ndim else bound)).all()), name
    assert torch.equal(found["temperature"], state()["temperature"])
    assert torch.equal(found["count"], state()["count"])


def test_bytes_take_a_quarter():
    weights = {"w": torch.randn(64, 512)}
    size = {d: sum(t.numel() * t.itemsize for t in pack(weights, d).values()) for d in ("float32", "int8")}
    assert size["int8"] * 3.9 < size["float32"]


def test_values_that_do_not_fit_are_kept():
    weights = {"w": torch.tensor([[1e8, 1.0]]), "v": torch.tensor([1e8]), "inf": torch.tensor([[torch.inf]])}
    found = unpack(pack(weights, "int8"))
    assert torch.equal(found["v"], weights["v"])
    assert torch.equal(found["inf"], weights["inf"])
    torch.testing.assert_close(found["w"], weights["w"], rtol=0, atol=1e6)


def test_bytes_without_their_scales_are_refused():
    packed = pack(state(), "int8")
    del packed["conv.weight.scale"]
    with pytest.raises(ValueError, match=r"conv.weight.int8 has no scale for each of its rows"):
        unpack(packed)
    packed["conv.weight.scale"] = torch.ones(5)
    with pytest.raises(ValueError, match="no scale"):
        unpack(packed)
