"""Every public check passes what is right, and catches what is wrong: mutants after real defects."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

import mutants
import mutants_models as models
import upright
from upright import Cyclic, Dihedral, Image, Points, hub
from upright.losses import moved_log_probs
from upright.nets import GroupCNN
from upright.testing import (
    assert_action,
    assert_adapted,
    assert_canonical,
    assert_consistent,
    assert_equivariant,
    assert_group,
    assert_round_trip,
    example,
    redraw_weights,
    register_example,
    tolerance,
)
from upright.testing.tolerances import errors, require


def caught(check, *args, match=None, **kwargs):
    """Require that a check fails, with a message that says what, on what, or by how much."""
    with pytest.raises(AssertionError, match=match) as found:
        check(*args, **kwargs)
    assert len(str(found.value)) > 15


@pytest.mark.parametrize("group", mutants.GROUPS, ids=lambda g: type(g).__name__)
def test_group_mutants(group):
    caught(assert_group, group)


@pytest.mark.parametrize(
    ("mutant", "group", "kind"), mutants.ACTIONS, ids=lambda v: getattr(v, "__name__", str(v))
)
def test_action_mutants(mutant, group, kind):
    assert_action(group, kind)
    caught(assert_action, group, kind, act=mutant)


@pytest.mark.parametrize("mutant", mutants.FRAMES, ids=lambda f: f.__name__)
def test_frame_mutants(mutant):
    def check():  # on some group: not every mutant shows on every one
        for group in (Dihedral(4), Cyclic(8), Dihedral(3)):
            assert_consistent(group, act=mutant)

    caught(check)


@pytest.mark.parametrize("mutant", models.NETWORKS, ids=lambda c: c.__name__)
def test_network_mutants(mutant):
    caught(assert_equivariant, mutant(), "C4")


def test_a_network_that_turns_the_other_way():
    def permuted(g, y):
        return moved_log_probs(y, g)

    assert_equivariant(GroupCNN("C4", widths=(3, 4)), "C4", outputs=permuted)
    caught(assert_equivariant, models.Transposed("C4", widths=(3, 4)), "C4", outputs=permuted)
    caught(
        assert_equivariant,
        models.FiltersThatDoNotTurn().double(),
        "C4",
        outputs=permuted,
        redraw=False,
    )


def test_equivariant_passes_what_is_right_and_leaves_the_module_alone():
    pool = nn.Sequential(nn.Conv2d(3, 5, 1), nn.BatchNorm2d(5), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    before = {k: v.clone() for k, v in pool.state_dict().items()}
    assert_equivariant(pool, "D4")
    assert all(torch.equal(before[k], v) for k, v in pool.state_dict().items())
    assert pool.training
    assert_equivariant(nn.Conv2d(3, 5, 1), "D4", outputs="image")
    caught(
        assert_equivariant,
        nn.Conv2d(3, 5, 3, padding=1),
        "D4",
        outputs="image",
        match=r"on Element\(D4, \d\)",
    )


def test_equivariant_refuses_inputs_that_do_not_move():
    def flat(batch, generator):
        return Image(torch.rand(batch, 3, 1, 1, generator=generator).expand(-1, -1, 8, 8))

    caught(assert_equivariant, lambda x: x.mean((2, 3)), "C4", flat, match="inputs move")


def test_equivariant_refuses_outputs_that_are_constant():
    caught(
        assert_equivariant,
        models.Constant(),
        "C4",
        match="depend on the input, or the check says nothing",
    )
    caught(assert_equivariant, models.NearlyConstant(), "C4", match="they vary by")


@pytest.mark.parametrize("mutant", models.CANONICALIZERS, ids=lambda c: c.__name__)
def test_canonicalizer_mutants(mutant):
    caught(assert_canonical, mutant())


def test_canonical_passes_what_is_right():
    assert_canonical(models.Scored())


class Model(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        head = nn.Sequential(nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(27, 4))
        self.head = nn.Conv2d(3, 3, 3, padding=1) if outputs == "image" else head

    def forward(self, x):
        return self.head(x)


@pytest.mark.parametrize(("mutant", "outputs"), models.ADAPTERS, ids=lambda v: getattr(v, "__name__", v))
def test_adapter_mutants(mutant, outputs):
    c = redraw_weights(models.Scored("C4"))
    assert_adapted(Model(outputs), c, outputs=outputs)
    caught(assert_adapted, Model(outputs), c, outputs=outputs, adapter=mutant)


@pytest.mark.parametrize("mutant", ["AppliesAnotherElement", "ScoresTheInverse", "IdentityOfD4", "Counts"])
def test_adapted_catches_canonicalizers_that_are_wrong(mutant):
    caught(assert_adapted, Model("logits"), getattr(models, mutant)(), match="it fails on")


def test_adapted_refuses_models_that_are_equivariant_anyway():
    caught(assert_adapted, nn.AdaptiveAvgPool2d(1), models.Scored("C4"), match="the check says nothing")


def saved(tmp_path):
    options = {"widths": (3, 4)}
    return upright.canonicalizer("D4", "group_cnn", size=16, options=options), tmp_path / "saved"


def test_round_trip_passes_what_is_right(tmp_path):
    c, path = saved(tmp_path)
    assert_round_trip(c, path)
    adapted = upright.adapt(Model("logits"), "D4", canonicalizer=c, mode="top_k", cover=0.9)
    assert_round_trip(adapted, tmp_path / "adapted")


def loses_the_last_weight(path):
    loaded = hub.load_canonicalizer(path)
    loaded.network.head.weight.data.zero_()
    return loaded


def reads_any_version(path):
    manifest = Path(path) / hub.MANIFEST
    data = {k: v for k, v in json.loads(manifest.read_text()).items() if k != "no_such_key"}
    copied = Path(path).with_name("copy")
    shutil.copytree(path, copied)
    (copied / hub.MANIFEST).write_text(json.dumps(data | {"schema_version": 1}))
    loaded = hub.load_canonicalizer(copied)
    shutil.rmtree(copied)
    return loaded


def forgets_the_estimator(path):
    loaded = hub.load_canonicalizer(path)
    loaded.estimator = "soft"
    return loaded


def half_precision(obj, path):
    return hub.save(obj, path, dtype="float16")


def spoils_what_it_saves(obj, path):
    hub.save(obj, path)
    obj.network.head.weight.data.zero_()


@pytest.mark.parametrize("load", [loses_the_last_weight, reads_any_version, forgets_the_estimator])
def test_loading_mutants(tmp_path, load):
    caught(assert_round_trip, *saved(tmp_path), load=load)


@pytest.mark.parametrize("save", [half_precision, spoils_what_it_saves])
def test_saving_mutants(tmp_path, save):
    caught(assert_round_trip, *saved(tmp_path), save=save)


def test_messages_say_which_law_on_which_element_and_by_how_much():
    with pytest.raises(AssertionError) as found:
        assert_action(Cyclic(4), Points, act=mutants.half_a_pixel_off)
    assert re.search(
        r"C4 on Points: .*, but the error is \S+, more than \S+, on .*Element\(C4, \d\)", str(found.value)
    )


def test_comparisons():
    assert errors(torch.tensor([1.0, 2]), torch.tensor([1.0, 2.5])).tolist() == [0, 0.5]
    assert errors(torch.tensor([2**53]), torch.tensor([2**53 + 1])).tolist() == [1]
    assert errors(torch.tensor([float("inf")]), torch.tensor([float("inf")])).tolist() == [0]
    assert errors(torch.ones(2, 0), torch.ones(2, 0)).tolist() == [0, 0]
    assert errors(torch.ones(2), torch.ones(3)).isinf().all()
    caught(
        require, "law", errors(torch.tensor([float("nan")]), torch.tensor([0.0])), 1e9, match="error is nan"
    )
    assert (
        tolerance(torch.uint8)
        == 0
        < tolerance(torch.float64)
        < tolerance(torch.float32)
        < tolerance(torch.half)
    )


def test_redrawn_weights_are_of_order_one():
    net = nn.Sequential(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 64, 3))
    for p in net.parameters():
        nn.init.zeros_(p)
    redraw_weights(net)
    assert 0.1 < net.eval()(torch.randn(4, 3, 16, 16)).std() < 10
    assert net[1].running_var.std() > 0.1


def test_registries_are_open():
    with pytest.raises(ValueError, match="an example of Image is registered already"):
        register_example(Image)(lambda request: None)
    with pytest.raises(KeyError, match="no example of int; add one with upright"):
        example(int, Cyclic(4))
