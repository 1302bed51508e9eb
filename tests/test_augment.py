"""Proves: the augmentation keeps the pose, adds nothing that tells it, and ignores the value range."""

import pytest
import torch

from upright.training import CropAndFlip, DestroyArtefacts
from upright.training.encode import reencoded

QUIET = {"colour": 0.0, "grey": 0.0, "noise": 0.0, "encode": 0.0}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def smooth(batch=64, channels=3, height=32, width=32, seed=0):
    coarse = torch.rand(batch, channels, 6, 6, generator=generator(seed))
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")


def orbit_distances(changed, original):
    """Return the distance of every changed picture to each element of the original's D4 orbit, (B, 8)."""
    views = [torch.rot90(x, k, (2, 3)) for x in (original, original.flip(-1)) for k in range(4)]
    return torch.stack([(changed - view).square().mean((1, 2, 3)) for view in views], 1)


@pytest.mark.parametrize("flip", [False, True])
def test_pictures_are_not_turned(flip):
    x = smooth(128) * 2 + torch.linspace(0, 1, 32).view(1, 1, -1, 1) + 0.5 * torch.linspace(0, 1, 32)
    nearest = orbit_distances(DestroyArtefacts(flip=flip, colour=0.05, grey=0.0)(x, generator()), x).argmin(1)
    mirrored = (nearest == 4).float().mean()
    assert bool(((nearest == 0) | (nearest == 4)).all())
    assert (0.3 < mirrored < 0.7) if flip else mirrored == 0


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(("scale", "offset"), [(255.0, 0.0), (4.0, -2.0), (1e-3, 7.0)])
def test_result_is_independent_of_the_value_range(channels, scale, offset):
    x = smooth(16, channels).double()
    change = DestroyArtefacts(flip=True, encode=1.0)
    plain, moved = change(x, generator()), change(scale * x + offset, generator())
    # one 8-bit level of the encoder may round differently here and there
    difference = ((moved - offset) / scale - plain).abs()
    assert difference.median() < 1e-5
    assert difference.quantile(0.99) < 0.05


def test_integers_are_taken_as_their_values():
    x = (smooth(8) * 255).clamp(0, 255).to(torch.uint8)
    change = DestroyArtefacts()
    assert torch.equal(change(x, generator()), change(x.float(), generator()))


def test_draws_come_from_the_generator_alone():
    x, change = smooth(8), DestroyArtefacts(flip=True, encode=0.5)
    before = torch.random.get_rng_state()
    one, two, other = change(x, generator(3)), change(x, generator(3)), change(x, generator(4))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(before, torch.random.get_rng_state())
    kept = x.clone()
    change(x, generator())
    assert torch.equal(x, kept)


@pytest.mark.parametrize(
    "shape", [(0, 3, 32, 32), (3, 3, 33, 20), (2, 3, 8, 8), (5, 2, 17, 17), (1, 1, 300, 200)]
)
def test_any_shape(shape):
    out = DestroyArtefacts(flip=True, encode=1.0)(torch.rand(shape), generator())
    assert out.shape == shape
    assert bool(torch.isfinite(out).all())


def test_flat_pictures_stay_finite_and_flat():
    out = DestroyArtefacts(encode=1.0)(torch.full((16, 3, 32, 32), 0.5), generator())
    assert (out - 0.5).abs().max() < 1e-4


def test_half_pictures_and_autocast_are_computed_in_float32():
    x = smooth(4)
    with torch.autocast("cpu", torch.bfloat16):
        inside = DestroyArtefacts()(x, generator())
    assert torch.equal(inside, DestroyArtefacts()(x, generator()))
    assert DestroyArtefacts()(x.bfloat16(), generator()).dtype == torch.float32


def test_resampling_treats_rows_columns_and_both_directions_alike():
    noise = torch.randn(6000, 1, 24, 24, generator=generator())
    out = DestroyArtefacts(**QUIET, rescale=2.0)(noise, generator(1))
    # the variance that resampling leaves, from side to side, and the roughness along each direction
    variance = out.square().mean((0, 1))
    profiles = [variance.mean(0), variance.mean(0).flip(0), variance.mean(1), variance.mean(1).flip(0)]
    for profile in profiles[1:]:
        assert (profiles[0] / profile - 1).abs().max() < 0.05
    rough = [(out.diff(dim=axis) ** 2).mean() for axis in (2, 3)]
    assert abs(rough[0] / rough[1] - 1) < 0.03


def test_high_frequencies_of_the_original_do_not_survive():
    checks = (torch.arange(64)[:, None] + torch.arange(64)) % 2.0  # the strongest trace of a pixel grid
    out = DestroyArtefacts(**QUIET, rescale=2.0, sharpen=0.0)(checks.expand(256, 1, 64, 64), generator())
    assert (out - 0.5).square().mean() < 0.4 * (checks - 0.5).square().mean()


def test_block_grid_of_the_encoder_carries_no_pose():
    # block seams turn with the picture: over many draws no direction is favoured
    x = torch.rand(
        512, 3, 30, 30, generator=generator()
    )  # 30 is no multiple of 8: the grid has an orientation
    error = (reencoded(x, 1.0, generator(1)) - x).square().mean((0, 1))
    for turn in range(1, 4):
        assert (error - torch.rot90(error, turn)).abs().mean() < 0.25 * error.mean()
    assert error.mean() > 1e-4


def test_encoding_touches_the_share_that_is_asked_for():
    x = torch.rand(400, 3, 16, 16, generator=generator())
    changed = (reencoded(x, 0.25, generator()) != x).flatten(1).any(1).float().mean()
    assert 0.17 < changed < 0.33
    assert torch.equal(reencoded(x, 0.0, generator()), x)
    near = (reencoded(smooth(64), 1.0, generator()) - smooth(64)).abs().mean()
    assert near < 0.06


def test_strips_longer_than_a_format_allows():
    x = smooth(300, height=240, width=16)  # 72,000 rows
    assert (reencoded(x, 1.0, generator()) - x).abs().mean() < 0.06


def test_wrong_shape():
    with pytest.raises(ValueError, match=r"pictures must have shape \(B, C, H, W\), got \(3, 8, 8\)"):
        DestroyArtefacts()(torch.rand(3, 8, 8))


def test_crop_and_flip_moves_by_whole_pixels():
    x = torch.arange(32.0).view(1, 1, 1, 32).expand(200, 1, 32, 32) + 100 * torch.arange(32.0).view(
        1, 1, 32, 1
    )
    out = CropAndFlip(padding=3)(x, generator())
    middle = out[:, 0, 16, 16]
    rows, columns = middle.div(100, rounding_mode="floor"), middle % 100
    assert set(rows.int().tolist()) == set(range(13, 20))
    forward = out[:, 0, 16, 17] > out[:, 0, 16, 16]
    assert 0.35 < forward.float().mean() < 0.65
    assert set(columns[forward].int().tolist()) == set(range(13, 20))
    assert bool((CropAndFlip(padding=3, flip=False)(x, generator())[:, 0, 16, 17] > 1600 - 400).all())
    assert torch.equal(CropAndFlip(padding=0, flip=False)(x, generator()), x)
