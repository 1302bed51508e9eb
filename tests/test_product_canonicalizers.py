"""Canonicalizers of products: adapted models, energies, training and saving."""

import pytest
import torch
from torch import nn

import upright
from upright import Boxes, Cyclic, Dihedral, Image, act
from upright.groups import (
    O2,
    SO2,
    Brightness,
    Contrast,
    CyclicHue,
    Gamma,
    Hue,
    Product,
    Scale,
)
from upright.testing import (
    assert_adapted,
    assert_canonical,
    assert_round_trip,
)
from upright.training.module import CanonicalizationModule

EXACT = [Product(Cyclic(4), CyclicHue(3)), Product(Dihedral(4), CyclicHue(3))]
FINITE = [*EXACT, Product(Cyclic(3), CyclicHue(2))]
OTHERS = [
    Product(SO2(), Scale()), Product(Dihedral(4), Gamma()), Product(O2(), Hue(), Contrast()),
    Product(Cyclic(4), Hue(), Brightness()), Product(CyclicHue(3), Gamma()), Product(Scale(), CyclicHue(6)),
]  # fmt: skip
SMALL = {"widths": [6, 8], "strides": [2, 2]}


class Classifier(nn.Module):
    """Looks at places and colours."""

    def __init__(self):
        super().__init__()
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(27, 4))

    def forward(self, x):
        return self.head(x)


def oblong(batch, generator):
    return Image(torch.rand(batch, 3, 14, 20, generator=generator))


@pytest.mark.parametrize("settings", [{}, {"mode": "top_k", "top_k": 3}, {"mode": "average"}], ids=str)
def test_adapted_models_are_equivariant_on_any_shape(settings):
    c = upright.canonicalizer("C4xhue3", size=12, options=SMALL)
    limit = 1e-5 if settings else 0.0
    assert_adapted(Classifier(), c, oblong, trials=1, tolerance=limit, **settings)
    if not settings:
        assert_canonical(c, make_x=lambda n, generator: Image(torch.rand(n, 3, 15, 15, generator=generator)))
        assert_adapted(nn.Conv2d(3, 2, 3, padding=1), c, oblong, outputs="mask", trials=1)


def boxes(x):
    first, sides = x.mean(1)[:, :4, :4].unflatten(2, (2, 2)).unbind(2)
    return {"boxes": torch.cat([8 * first, 8 * first + 3 * sides], -1)}


def test_boxes_follow_the_turn_and_not_the_hue(generator):
    c = upright.canonicalizer("C4xhue3", size=12, options=SMALL).eval()
    robust = upright.adapt(boxes, "C4xhue3", canonicalizer=c, outputs={"boxes": "boxes"})
    x = torch.rand(6, 3, 12, 12, generator=generator)
    for number in range(12):
        g = c.group.element(number)
        moved = robust(act(g.expand(6), Image(x)).data)["boxes"]
        expected = act(c.group.parts(g)[0].expand(6), Boxes(robust(x)["boxes"], size=(12, 12))).data
        torch.testing.assert_close(moved, expected)


@pytest.mark.parametrize("group", ["hue", "SO2xscale", "C4xgamma", "C4xhue3"])
def test_energies_serve_every_group(group, generator):
    robust = upright.adapt(Classifier(), group, canonicalizer="energy")
    run = robust.run(torch.rand(2, 3, 12, 12, generator=generator))
    assert run.output.shape == (2, 4)
    assert (run.pose.calls > 1).all()
    if group in ("hue", "C4xgamma"):
        with pytest.raises(ValueError, match=f"there is no network for {group}; take a finite group"):
            upright.canonicalizer(group)


def test_settings_of_the_orbit_network():
    assert upright.canonicalizer("C4xhue3", options={**SMALL, "mirror": True}).network.mirror
    with pytest.raises(ValueError, match="mirror=True makes the reflections of D4xhue3 tie"):
        upright.canonicalizer("D4xhue3", options={**SMALL, "mirror": True})
    with pytest.raises(ValueError, match=r"offset_degrees needs C<n> or D<n>, got C4xhue3"):
        upright.canonicalizer("C4xhue3", options={**SMALL, "offset_degrees": 45.0})
    with pytest.raises(ValueError, match=r"twice=True needs .* C<n> or D<n>, .*got C8xhue3"):
        upright.canonicalizer("C8xhue3", options={**SMALL, "twice": True})
    with pytest.raises(TypeError, match="finite planar group, got C4xhue3"):
        upright.canonicalizer("C4xhue3", "lite")


@pytest.mark.parametrize(
    ("group", "flip", "colour"),
    [
        ("C4", True, 0.2),
        ("D4", False, 0.2),
        ("hue3", True, 0.0),
        ("C4xhue3", True, 0.0),
        ("D4xhue3", False, 0.0),
    ],
)
def test_training_leaves_alone_what_tells_the_pose(group, flip, colour):
    c = upright.canonicalizer(group, size=12, options=SMALL)
    change = CanonicalizationModule(upright.adapt(Classifier(), group, canonicalizer=c)).augment
    assert (change.flip, change.colour, change.grey > 0) == (flip, colour, colour > 0)


def test_saving(tmp_path):
    c = upright.canonicalizer("C4xhue3", size=12, options=SMALL)
    assert_round_trip(upright.adapt(Classifier(), "C4xhue3", canonicalizer=c), tmp_path / "saved")


def scenes(count, generator):
    """Blue above, green below."""
    sky, grass = torch.tensor([0.3, 0.5, 0.9]), torch.tensor([0.2, 0.7, 0.2])
    halves = [colour.view(3, 1, 1).expand(3, 8, 16) for colour in (sky, grass)]
    return (torch.cat(halves, 1) + 0.1 * torch.randn(count, 3, 16, 16, generator=generator)).clamp(0, 1)


def test_fit_learns_turns_and_hues_at_once(generator):
    model = Classifier()
    c = upright.canonicalizer("C4xhue3", size=12, options=SMALL)
    robust = upright.adapt(model, "C4xhue3", canonicalizer=c)
    upright.fit(robust, scenes(128, generator), epochs=8, batch_size=32, learning_rate=2e-2, progress=False)
    x = scenes(60, generator)
    g = c.group.sample(60, generator=generator)
    moved = act(g, Image(x)).data
    with torch.no_grad():
        assert robust.pose(moved).element.equals(g).double().mean() > 0.9
        torch.testing.assert_close(robust(moved), robust(x))
