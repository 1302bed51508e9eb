"""Pictures with NaN or infinity: left as they are, with no confidence, and nobody else in the batch notices.

Clouds are refused: there a coordinate that is no number has no place.
"""

import pytest
import torch
from torch import nn

import upright

SMALL = {"widths": [4, 8], "strides": [2, 2]}
MAKERS = {
    "orbit C4": lambda: upright.canonicalizer("C4", size=16, options=SMALL),
    "orbit C8": lambda: upright.canonicalizer("C8", size=16, options=SMALL),
    "group_cnn D4": lambda: upright.canonicalizer("D4", "group_cnn", size=16),
    "polar C8": lambda: upright.canonicalizer("C8", "polar", size=16),
    "polar SO2": lambda: upright.canonicalizer("SO2", size=16),
    "polar O2": lambda: upright.canonicalizer("O2", size=16),
    "steerable SO2": lambda: upright.canonicalizer("SO2", "steerable", size=16),
    "log_polar": lambda: upright.canonicalizer("SO2xscale", size=16),
    "hues": lambda: upright.canonicalizer("hue12", size=16, options=SMALL),
    "energy": lambda: upright.canonicalizer("C4", "energy"),
}
BAD = {
    "a pixel is NaN": lambda x: x[0, 3, 3].fill_(torch.nan),
    "all is NaN": lambda x: x.fill_(torch.nan),
    "a pixel is infinite": lambda x: x[0, 3, 3].fill_(torch.inf),
    "a pixel is -infinite": lambda x: x[2, 0, 0].fill_(-torch.inf),
    "both": lambda x: x[:2, 3, 3].copy_(torch.tensor([torch.inf, torch.nan])),
}  # fmt: skip
MODES = ("canonical", "top_k", "weighted", "average")


def model():
    torch.manual_seed(0)
    parts = [
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(64, 5),
    ]
    return nn.Sequential(*parts)


@torch.no_grad()
@pytest.mark.parametrize("maker", MAKERS)
def test_pictures_that_are_not_finite_are_left_as_they_are(maker):
    canonicalizer, x = MAKERS[maker]().eval(), torch.rand(3, 3, 16, 16)
    modes = MODES if str(canonicalizer.group) != "SO2xscale" else MODES[:3]
    for mode in modes:
        robust = upright.adapt(model(), canonicalizer.group, canonicalizer=canonicalizer, mode=mode)
        expected = robust.run(x)
        for name, spoil in BAD.items():
            spoiled = x.clone()
            spoil(spoiled[1])
            run = robust.run(spoiled)
            assert bool(run.pose.element[1].is_identity()), name
            assert bool(run.pose.confidence[1].isnan()), name
            assert not bool(run.output[1].isfinite().all()), name  # never a plausible answer
            others = [0, 2]
            assert torch.equal(run.output[others], expected.output[others]), name
            assert run.pose.element[others].equals(expected.pose.element[others]).all(), name
            upright_, _ = robust.canonicalize(spoiled)
            assert torch.equal(upright_[1].nan_to_num(7, 8, 9), spoiled[1].nan_to_num(7, 8, 9)), name


def ignores(x):
    """A model that makes nothing of what is not finite, and tells the top from the bottom."""
    x = torch.nan_to_num(x, 0.0, 0.0, 0.0)
    return torch.stack([x[..., :8, :].mean((1, 2, 3)), x.mean((1, 2, 3))], 1)


@torch.no_grad()
@pytest.mark.parametrize("mode", MODES[:3])
@pytest.mark.parametrize("maker", ["orbit C4", "orbit C8", "polar SO2"])
def test_a_model_that_takes_them_gets_them_as_they_are(maker, mode):
    canonicalizer = MAKERS[maker]().eval()
    gates = [None, upright.Gate(0.01), upright.Gate(0.01, below="flag")]
    x = torch.rand(2, 3, 16, 16)
    x[0, 0, 3, 3] = torch.nan
    for gate in gates:
        robust = upright.adapt(
            ignores, canonicalizer.group, canonicalizer=canonicalizer, mode=mode, gate=gate
        )
        run = robust.run(x)
        assert torch.equal(run.output[0], ignores(x)[0])
        assert run.passes[0] == 1
        if gate is not None:
            marks = run.gated if gate.below == "leave" else run.flagged
            assert marks.tolist() == [True, False]


@torch.no_grad()
@pytest.mark.parametrize("search", ["grid", "random", "gradient", "bayesian"])
def test_energies_over_all_angles(search):
    if search == "bayesian":
        pytest.importorskip("bayes_opt")
    options = {"bayesian": {"starts": 3, "steps": 2}, "gradient": {"steps": 2}}.get(search, {})
    made = upright.search.SEARCHES[search](**options)
    canonicalizer = upright.EnergyCanonicalizer(lambda x: x[:, :, :8].square().mean((1, 2, 3)), "SO2", made)
    x = torch.rand(3, 3, 16, 16)
    expected = canonicalizer(x)
    for value in (torch.nan, torch.inf, -torch.inf):
        spoiled = x.clone()
        spoiled[1, :, 7:9, 7:9] = value  # in the middle, where every pose shows it
        pose = canonicalizer(spoiled)
        assert bool(pose.element[1].is_identity())
        assert bool(pose.confidence[1].isnan())
        assert torch.equal(pose.element.value[[0, 2]], expected.element.value[[0, 2]])


def test_energies_of_which_some_are_nan():
    canonicalizer = upright.EnergyCanonicalizer(
        lambda x: torch.where(x[:, 0, 0, 0] > 0.5, 1.0, torch.nan), "C4"
    )
    x = torch.zeros(2, 1, 8, 8)
    x[0, 0, :, 0], x[1] = 1.0, 1.0
    pose = canonicalizer(x)
    assert pose.element.value.tolist() == [0, 0]
    assert pose.confidence.isnan().tolist() == [True, False]


@torch.no_grad()
def test_what_lies_on_a_picture_moves_and_keeps_to_its_row():
    canonicalizer, boxes = MAKERS["orbit C8"]().eval(), torch.rand(3, 5, 4) * 8
    boxes[..., 2:] += boxes[..., :2]

    def echo(x, boxes):
        return {"boxes": boxes, "size": x.mean((1, 2, 3))}

    inputs, outputs = {"x": "image", "boxes": "boxes"}, {"boxes": "boxes", "size": "invariant"}
    robust = upright.adapt(echo, "C8", canonicalizer=canonicalizer, inputs=inputs, outputs=outputs)
    x = torch.rand(3, 3, 16, 16)
    expected = robust(x, boxes)["boxes"]
    boxes[1, 2, 0], boxes[1, 4] = torch.nan, torch.inf
    found = robust(x, boxes)["boxes"]
    assert torch.equal(found[[0, 2]], expected[[0, 2]])
    assert torch.equal(found[1, [0, 1, 3]], expected[1, [0, 1, 3]])
    assert not bool(found[1, [2, 4]].isfinite().all(-1).any())


@torch.no_grad()
@pytest.mark.parametrize("group", ["SO3", "E3"])
@pytest.mark.parametrize("network", ["pca", "minimal", "vector_neurons", "spherical"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_clouds_that_are_not_finite_are_refused(group, network, value):
    canonicalizer = upright.canonicalizer(group, network).eval()
    robust = upright.adapt(lambda x: x, group, canonicalizer=canonicalizer, outputs="cloud")
    clouds = torch.rand(3, 8, 3)
    clouds[1, 2, 0] = value
    with pytest.raises(ValueError, match="coordinates must be finite; those of cloud 1 are not"):
        robust(clouds)


@torch.no_grad()
def test_volumes_that_are_not_finite_are_left_as_they_are():
    canonicalizer = upright.canonicalizer("octahedral", size=8).eval()
    robust = upright.adapt(lambda x: x.mean((2, 3, 4)), "octahedral", canonicalizer=canonicalizer)
    x = torch.rand(2, 1, 8, 8, 8)
    expected = robust.run(x)
    x[1, 0, 2, 3, 4] = torch.nan
    run = robust.run(x)
    assert bool(run.pose.element[1].is_identity())
    assert torch.equal(run.output[0], expected.output[0])
    assert bool(run.output[1].isnan().all())


def test_training_says_so():
    """A loss that is no number stops training, rather than spoiling the weights."""
    robust = upright.adapt(model(), "C4", canonicalizer=MAKERS["orbit C4"]())
    x = torch.rand(8, 3, 16, 16)
    x[3] = torch.nan
    before = [p.clone() for p in robust.canonicalizer.parameters()]
    with pytest.raises(FloatingPointError, match="loss"):
        upright.fit(robust, x, max_steps=3, batch_size=8, progress=False)
    after = list(robust.canonicalizer.parameters())
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))
