"""Pictures as people hold them."""

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

import upright
from upright.pictures import straighten, turn
from upright.testing import redraw_weights


def picture(mode="RGB", size=(7, 5)):
    values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Pillow.fromarray(values).convert(mode)


@pytest.mark.parametrize("group", ["C4", "D4"])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "RGBA", "I;16"])
def test_all_forms_turn_alike_and_keep_their_mode(group, mode):
    pil = Pillow.fromarray(np.arange(35, dtype=np.uint16).reshape(5, 7)) if mode == "I;16" else picture(mode)
    array = np.array(pil)
    for g in upright.parse_group(group).elements():
        moved = turn(g, pil)
        assert moved.mode == pil.mode
        assert np.array_equal(np.array(moved), turn(g, array))
        if mode == "P":
            assert moved.getpalette() == pil.getpalette()
        if mode == "RGB":
            tensor = torch.from_numpy(array).permute(2, 0, 1)
            assert torch.equal(turn(g, tensor), torch.from_numpy(np.array(moved)).permute(2, 0, 1))
        assert np.array_equal(np.array(turn(~g, moved)), array)


def test_odd_angles_resample_once_and_keep_the_canvas():
    g = upright.Cyclic(8).elements()[1]
    moved = turn(g, picture("RGB", (8, 8)))
    assert moved.size == (8, 8)
    expected = turn(g, np.array(picture("RGB", (8, 8))))
    assert np.array_equal(np.array(moved), expected)


@pytest.mark.parametrize("group", ["C4", "D4"])
def test_a_turned_picture_is_straightened_to_the_same_bits(group):
    canonicalizer = redraw_weights(upright.canonicalizer(group)).eval()
    given = picture("RGB", (40, 30))
    straight, pose = straighten(given, canonicalizer)
    assert all(turn(g, given) is not given for g in upright.parse_group(group).elements())
    assert np.array_equal(np.array(turn(pose.element[0], straight)), np.array(given))
    elements = upright.parse_group(group).elements()
    several, poses = straighten([turn(g, given) for g in elements], canonicalizer)
    assert len(several) == len(elements) == len(poses.element)
    for found in several:
        assert found.size == straight.size
        assert np.array_equal(np.array(found), np.array(straight))


def test_exif_orientation_is_applied_once(tmp_path):
    given = picture("RGB", (40, 30))
    exif = Pillow.Exif()
    exif[0x0112] = 6  # shown turned clockwise by a quarter
    given.save(tmp_path / "p.png", exif=exif)
    with Pillow.open(tmp_path / "p.png") as opened:
        straight, _ = straighten(opened, upright.canonicalizer("C4", "identity"))
    assert np.array_equal(np.array(straight), np.rot90(np.array(given), -1))
    assert straight.getexif().get(0x0112) is None


def test_what_is_no_picture_is_refused():
    with pytest.raises(TypeError, match=r"PIL\.Image\.open"):
        straighten("photo.jpg", upright.canonicalizer("C4", "identity"))
    with pytest.raises(ValueError, match=r"\(H, W, C\)"):
        turn(upright.Cyclic(4).elements()[1], np.zeros((2, 3, 4, 5)))
