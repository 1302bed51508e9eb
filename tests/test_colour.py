"""Groups of colours obey their laws, and are what SciPy and NumPy, which know nothing of us, compute."""

import colorsys
import math
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import nn

import upright
from cases import DTYPES, name
from conftest import ROOT
from upright import Image, Mask, act
from upright._values import value
from upright.actions import registered_kinds
from upright.canonicalizers import DiscreteCanonicalizer
from upright.groups import Brightness, Contrast, CyclicHue, Element, FiniteGroup, Gamma, Hue, parse_group
from upright.kinds import Kind, RegularField
from upright.testing import (
    assert_action,
    assert_adapted,
    assert_canonical,
    assert_consistent,
    assert_group,
    assert_round_trip,
    example,
    redraw_weights,
)

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CONTINUOUS = [Hue(), Brightness(), Contrast(), Gamma()]
FINITE = [CyclicHue(1), CyclicHue(3), CyclicHue(12)]
NORMALIZED = [type(g)(mean=MEAN, std=STD) for g in CONTINUOUS] + [CyclicHue(3, mean=MEAN, std=STD)]
GROUPS = [*CONTINUOUS, *FINITE, *NORMALIZED]
SMALL = {"widths": [6, 8], "strides": [2, 2]}


def pictures(batch, generator, size=(6, 7), dtype=torch.float64):
    return torch.rand(batch, 3, *size, generator=generator, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("group", GROUPS, ids=name)
def test_laws(group):
    assert_group(group)
    for kind in registered_kinds(group):
        if kind is not RegularField or isinstance(group, FiniteGroup):
            assert_action(group, kind, samples=8)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=name)
@pytest.mark.parametrize("group", [CyclicHue(12), Brightness(), Contrast()], ids=name)
def test_laws_in_every_precision(group, dtype):
    assert_action(
        group, lambda n, generator: example(Image, group, batch=n, dtype=dtype, generator=generator)
    )


def test_all_kinds_agree_and_stay_where_they_are():
    assert_consistent(CyclicHue(3), sizes=((5, 8),))


@pytest.mark.parametrize("group", [CyclicHue(12), Gamma()], ids=name)
def test_compiles_into_one_graph(group):
    assert_action(group, Image, samples=4, gradients=False, compiled=True)


# --- against others: each check takes the action, so that mutants can be shown to fail it


def check_hue(act):
    """A turn about the axis (1, 1, 1), right-handed, red to green to blue."""
    generator = torch.Generator().manual_seed(1)
    x = pictures(5, generator)
    degrees = [0.0, 30.0, 120.0, 201.5, 359.0]
    turn = Rotation.from_rotvec(np.radians(degrees)[:, None] * np.ones(3) / math.sqrt(3)).as_matrix()
    expected = np.einsum("bij,bjhw->bihw", turn, x.numpy())
    moved = act(Hue().element(degrees=degrees), Image(x)).data
    np.testing.assert_allclose(moved.numpy(), expected, atol=1e-12)
    red = torch.tensor([1.0, 0, 0]).view(3, 1, 1)
    green = act(CyclicHue(6).element(2), Image(red)).data.flatten().tolist()
    assert green == [0, 1, 0]
    assert colorsys.rgb_to_hsv(*green)[0] == pytest.approx(1 / 3)


def check_gamma(act):
    x = pictures(4, torch.Generator().manual_seed(2))
    exponents = [0.4, 1.0, 1.7, 3.0]
    g = Gamma().element(exponents)
    expected = np.stack([p**e for p, e in zip(x.numpy(), exponents, strict=True)])
    np.testing.assert_allclose(act(g, Image(x)).data.numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(act(~g, act(g, Image(x))).data.numpy(), x.numpy(), atol=1e-12)
    dark = torch.tensor([-0.25, 0.0, 0.25]).view(3, 1, 1)
    assert act(Gamma().element(2.0), Image(dark)).data.flatten().tolist() == [-0.0625, 0.0, 0.0625]


def check_brightness_and_contrast(act):
    x = pictures(3, torch.Generator().manual_seed(3))
    numbers = np.array([-0.7, 0.0, 0.9])[:, None, None, None]
    moved = act(Brightness().element(numbers.ravel()), Image(x)).data
    np.testing.assert_allclose(moved.numpy(), x.numpy() + numbers, atol=1e-12)
    moved = act(Contrast().element(np.exp(numbers.ravel())), Image(x)).data
    np.testing.assert_allclose(moved.numpy(), 0.5 + np.exp(numbers) * (x.numpy() - 0.5), atol=1e-12)


def check_mask_stays(act):
    assert_action(Brightness(), Mask, act=act, samples=4)


def hue_turned_the_other_way(g, x):
    return act(~g if isinstance(g.group, (Hue, CyclicHue)) else g, x)


def power_of_the_parameter(g, x):
    """The exponent is 1 + t, so that its negative is not the inverse."""
    if not isinstance(g.group, Gamma) or not isinstance(x, Image):
        return act(g, x)
    power = (1 + g.value).view(*g.shape, 1, 1, 1)
    return x.replace(data=x.data.sign() * x.data.abs() ** power)


def brightness_of_masks(g, x):
    if not isinstance(x, Mask) or not g.shape:
        return act(g, x)
    return x.replace(data=act(g, Image(x.data.unsqueeze(1))).data.squeeze(1))


def clipped(g, x):
    moved = act(g, x)
    return moved.replace(data=moved.data.clamp(0, 1)) if isinstance(x, Image) else moved


def contrast_about_black(g, x):
    if not isinstance(g.group, Contrast):
        return act(g, x)
    return x.replace(data=x.data * g.value.exp().view(*g.shape, 1, 1, 1))


CHECKS = [check_hue, check_gamma, check_brightness_and_contrast, check_mask_stays]


@pytest.mark.parametrize("check", CHECKS, ids=lambda f: f.__name__)
def test_against_others(check):
    check(act)


@pytest.mark.parametrize(
    ("mutant", "check"),
    [
        (hue_turned_the_other_way, check_hue),
        (power_of_the_parameter, check_gamma),
        (brightness_of_masks, check_mask_stays),
        (clipped, check_hue),
        (contrast_about_black, check_brightness_and_contrast),
    ],
    ids=lambda f: f.__name__,
)
def test_mutants(mutant, check):
    with pytest.raises(AssertionError):
        check(mutant)


@pytest.mark.parametrize(
    ("mutant", "group"),
    [(power_of_the_parameter, Gamma()), (clipped, Brightness()), (clipped, Hue())],
    ids=lambda v: getattr(v, "__name__", str(v)),
)
def test_the_public_laws_catch_mutants(mutant, group):
    with pytest.raises(AssertionError, match="act"):
        assert_action(group, Image, act=mutant)


class InverseOfTheWrongSign(Hue):
    """Turning back turns on."""

    def inverse(self, g):
        return g


class MatrixOfTheInverse(CyclicHue):
    """The matrix turns the other way than the algebra says of its thirds."""

    def matrix(self, g, dtype=torch.float64):
        return super().matrix(Element(self, g.value * g.value % self.n), dtype)


@pytest.mark.parametrize(
    "group", [InverseOfTheWrongSign(), MatrixOfTheInverse(12)], ids=lambda g: type(g).__name__
)
def test_group_mutants(group):
    with pytest.raises(AssertionError):
        assert_group(group)


# --- exactness


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d != torch.bool], ids=name)
def test_thirds_of_a_turn_permute_the_channels(dtype, generator):
    x = (200 * pictures(3, generator)).to(dtype)
    for group, step in [(CyclicHue(3), 1), (CyclicHue(12), 4)]:
        for third in range(3):
            moved = act(group.element(third * step), Image(x[0])).data
            assert torch.equal(moved, x[0].roll(third, 0))
        moved = act(group.element(torch.tensor([0, 1, 2]) * step), Image(x)).data
        assert all(torch.equal(moved[i], x[i].roll(i, 0)) for i in range(3))


def test_thirds_are_exact_beside_others(generator):
    x = pictures(4, generator, dtype=torch.float32)
    g = CyclicHue(12).element(torch.tensor([1, 4, 8, 0]))
    moved = act(g, Image(x)).data
    assert torch.equal(moved[1], x[1].roll(1, 0))
    assert torch.equal(moved[2], x[2].roll(2, 0))
    assert torch.equal(moved[3], x[3])
    assert not torch.equal(moved[0], x[0])


@pytest.mark.parametrize("group", [Hue(), CyclicHue(12)], ids=name)
def test_greys_have_no_hue(group, generator):
    grey = torch.rand(9, 1, 5, 5, generator=generator)
    g = group.sample(9, generator=generator)
    assert torch.equal(act(g, Image(grey)).data, grey)
    assert torch.equal(act(g, Image(grey.expand(-1, 3, -1, -1))).data, grey.expand(-1, 3, -1, -1))
    pose = upright.canonicalizer("hue12", size=16, options=SMALL)(grey.expand(-1, 3, -1, -1))
    assert pose.is_tied.all()


def test_floats_are_not_clipped_and_bytes_are(generator):
    x = pictures(1, generator)
    g = Brightness().element(0.6)
    assert act(g, Image(x)).data.max() > 1
    torch.testing.assert_close(act(~g, act(g, Image(x))).data, x)
    bright = act(g, Image((255 * x).to(torch.uint8))).data
    assert bright.dtype == torch.uint8
    expected = (torch.floor(255 * x) + 0.6 * 255).round().clamp(0, 255)
    assert (bright.double() - expected).abs().max() <= 1
    assert bright.max() == 255


@pytest.mark.parametrize("group", NORMALIZED, ids=name)
def test_normalized_pictures_move_as_their_colours_do(group, generator):
    x = pictures(6, generator)
    plain = type(group)(**({"n": group.n} if isinstance(group, CyclicHue) else {}))
    g = group.sample(6, generator=generator)
    mean, std = (torch.tensor(v).double().view(3, 1, 1) for v in (MEAN, STD))
    moved = act(g, Image((x - mean) / std)).data * std + mean
    torch.testing.assert_close(moved, act(Element(plain, g.value), Image(x)).data)
    assert parse_group(str(group)) == group


def test_gradients_reach_the_coordinates(generator):
    for group in CONTINUOUS:
        x = Image(pictures(2, generator))

        def move(coordinates, group=group, x=x):
            return act(group.exp(coordinates), x).data

        for start in (0.3, 2 * math.pi / 3):  # thirds of a turn are index operations, and have a slope still
            at = torch.full((2, 1), start, dtype=torch.float64, requires_grad=True)
            assert torch.autograd.gradcheck(move, (at,), fast_mode=True, atol=1e-5)
        assert torch.allclose(group.log(group.exp(torch.tensor([[0.3]]))), torch.tensor(0.3).double())
        at = torch.zeros(2, 1, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(move(at).square().sum(), at)
        assert slope.isfinite().all()


def test_the_identity_of_black_pictures_has_finite_slopes():
    black = torch.zeros(1, 3, 2, 2, requires_grad=True)
    act(Gamma().element([0.5]), Image(black)).data.sum().backward()
    assert black.grad.isfinite().all()


@value
class Palette(Kind):
    """A kind of one's own that no group knows."""

    data: torch.Tensor


def test_kinds_of_ones_own_stay():
    palette = Palette(torch.rand(2, 4))
    assert act(Hue().element(degrees=20.0), palette).data.equal(palette.data)


def test_errors():
    with pytest.raises(ValueError, match=r"shape \(…, 3, H, W\).*got \(1, 4, 2, 2\)"):
        act(Hue().element(angle=1.0), Image(torch.rand(4, 2, 2)))
    with pytest.raises(ValueError, match=r"torch\.bool"):
        act(Brightness().element(0.1), Image(torch.ones(3, 2, 2, dtype=torch.bool)))
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        CyclicHue(0)
    with pytest.raises(TypeError, match=r"n must be an int, got float; write CyclicHue\(12\)"):
        CyclicHue(3.0)
    with pytest.raises(ValueError, match="std must be positive"):
        Hue(std=0.0)
    with pytest.raises(ValueError, match="mean must be one number, or one for each"):
        Hue(mean=(1.0, 2.0))
    with pytest.raises(TypeError, match="only one of them"):
        Hue().element(1.0, degrees=3.0)
    with pytest.raises(ValueError, match="a factor of gamma must be positive, got 0"):
        Gamma().element(0)
    with pytest.raises(ValueError, match="normalises three channels"):
        act(Brightness(mean=MEAN, std=STD).element(0.1), Image(torch.rand(1, 2, 2)))


@pytest.mark.parametrize("text", ["hue", "hue3", "HUE12", "brightness", "Contrast", "gamma", "hue6[0.5;0.2]"])
def test_names(text):
    group = parse_group(text)
    assert parse_group(str(group)) == group
    assert str(group).startswith(text.lower().partition("[")[0])


@pytest.mark.parametrize("text", ["hue0", "gamma3", "hue[1;0]", "hue[a;b]", "hue[0.5]", "brightness2"])
def test_names_that_mean_nothing(text):
    with pytest.raises(ValueError, match="unknown group"):
        parse_group(text)


# --- canonicalizers


def square(batch, generator):
    return Image(torch.rand(batch, 3, 20, 20, generator=generator))


class Segmenter(nn.Conv2d):
    """Looks at colours."""

    def __init__(self):
        super().__init__(3, 2, 3, padding=1)


def test_canonicalizers_by_name(tmp_path):
    c = upright.canonicalizer("hue3", size=16, options=SMALL)
    assert not c.standardize
    assert upright.canonicalizer("C4").standardize
    assert_canonical(c, make_x=square)
    assert_adapted(Segmenter(), c, square, outputs="mask")
    redraw_weights(c)
    with pytest.warns(UserWarning, match="no ready-made canonicalizer for hue12"):
        assert upright.adapt(Segmenter(), "hue12", outputs="mask").group == CyclicHue(12)
    normalized = upright.canonicalizer("hue3[0.5;0.2]", size=16, options=SMALL)
    assert_round_trip(
        upright.adapt(Segmenter(), normalized.group, canonicalizer=normalized), tmp_path / "saved"
    )


def test_twelve_hues_are_equivariant_to_rounding():
    c = upright.canonicalizer("hue12", size=16, options=SMALL)
    assert_canonical(c, make_x=square, trials=1)
    assert_adapted(Segmenter(), c, square, outputs="mask", tolerance=1e-4, trials=1, batch=4)


def scenes(count, generator):
    """Blue above, green below, noise on both: a colour cast is easy to see."""
    sky, grass = torch.tensor([0.3, 0.5, 0.9]), torch.tensor([0.2, 0.7, 0.2])
    x = torch.stack([sky.view(3, 1, 1).expand(3, 8, 16), grass.view(3, 1, 1).expand(3, 8, 16)], 1).flatten(
        1, 2
    )
    return (x + 0.1 * torch.randn(count, 3, 16, 16, generator=generator)).clamp(0, 1)


def test_fit_learns_what_colours_are_usual(generator):
    c = upright.canonicalizer("hue6", size=16, options=SMALL)
    assert isinstance(c, DiscreteCanonicalizer)
    as_bytes = (255 * scenes(128, generator)).round().to(torch.uint8)  # what files hold
    upright.fit(c, as_bytes, epochs=8, batch_size=32, learning_rate=2e-2, progress=False)
    x = scenes(60, generator)
    g = c.group.sample(60, generator=generator)
    with torch.no_grad():
        found = c.eval()(act(g, Image(x)).data).element
    assert found.equals(g).double().mean() > 0.9


def test_the_page_on_groups_of_ones_own(tmp_path, monkeypatch, generator):
    monkeypatch.chdir(tmp_path)
    section = (ROOT / "docs" / "groups.md").read_text().partition("## Add a group of your own\n")[2]
    section = section.partition("\n## ")[0]
    names = {"pictures": scenes(32, generator), "model": Segmenter(), "__name__": "page"}
    monkeypatch.setitem(sys.modules, "page", SimpleNamespace())  # where its dataclass says that it lives
    for block in re.findall(r"```python\n(.*?)```", section, re.DOTALL):
        exec(compile(block, "groups.md", "exec"), names)
    x = pictures(6, generator)
    tint, hue = names["Tint"](6).elements(), CyclicHue(6).elements()
    torch.testing.assert_close(act(tint, Image(x)).data, act(hue, Image(x)).data)
    assert names["again"].group == names["robust"].group
    x = torch.rand(4, 3, 20, 20, generator=generator)
    assert torch.equal(names["again"](x), names["robust"](x))
