"""Coordinates in an answer come back in any unit and either order."""

from functools import partial

import numpy as np
import pytest
import torch

import upright
from picture_toys import GROUPS, elements
from upright import Points
from upright.integrations.answers import PicturePose, move_answer


@pytest.mark.parametrize("group", GROUPS)
def test_units_agree_with_pixels(group):
    height, width = 30, 40
    box = np.array([4.0, 3.0, 10.0, 9.0])
    for g in elements(group):
        pose = PicturePose(g, (height, width), 1.0)
        pixels = np.array(pose.restore("boxes", box.tolist()))
        turned = (width, height) if int(g.group.grid_moves(g)) % 2 else (height, width)
        sides, own = np.array([width, height] * 2), np.array([turned[1], turned[0]] * 2)
        for scale in (1, 1000, 1024.0):
            found = pose.restore("boxes", (box / sides * scale).tolist(), scale=scale)
            assert np.allclose(found, pixels / own * scale)
        resized = pose.restore("boxes", (box * [2, 3, 2, 3]).tolist(), scale=(90, 80))
        assert np.allclose(resized, pixels)
        swapped = pose.restore("boxes", box[[1, 0, 3, 2]].tolist(), order="yx")
        assert np.allclose(np.array(swapped)[[1, 0, 3, 2]], pixels)
        whole = pose.restore({"p": "points"}, {"p": [[100, 250]]}, scale=1000)["p"][0]
        exact = pose.restore("points", [0.1, 0.25], scale=1)
        assert whole == [round(1000 * v) for v in exact]
        assert all(type(v) is int for v in whole)


def test_whole_numbers_are_rounded_not_cut():
    every = [[v, v] for v in range(1001)]
    for i, g in enumerate(elements("C4")[::2]):
        found = PicturePose(g, (37, 51), 1.0).restore("points", every, scale=1000)
        assert found == (every[::-1] if i else every)


def test_odd_angles_turn_in_pixels_whatever_the_unit():
    g = upright.Cyclic(8).elements()[1]
    pose = PicturePose(g, (50, 50), 1.0)
    exact = upright.act(g, Points(torch.tensor([[10.0, 20.0]], dtype=torch.float64), size=(50, 50))).data[0]
    assert np.allclose(pose.restore("points", [10.0, 20.0]), exact)
    assert np.allclose(np.array(pose.restore("points", [0.2, 0.4], scale=1)) * 50, exact)
    with pytest.raises(ValueError, match="not both"):
        pose.restore(partial(Points, normalized=True), [0.2, 0.4], scale=1)
    with pytest.raises(ValueError, match="oriented boxes come in pixels"):
        pose.restore("oriented_boxes", [1.0, 2.0, 3.0, 4.0, 0.0], order="yx")


def test_positions_name_entries_of_a_tuple():
    g = upright.Cyclic(4).elements()[2]
    moved = move_answer({0: "boxes"}, ([[0, 0, 2, 3]], [0.5]), g, (10, 20))
    assert moved == ([[18, 7, 20, 10]], [0.5])
