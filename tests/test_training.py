"""Proves: training touches what it is asked to touch, learns, stops, resumes and fails as it says."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import upright
from training_nets import Classifier, Plain, adapted, letters, one_thread, quick, same, shapes, state  # noqa: F401
from upright.training import CropAndFlip
from upright.training.module import SETUPS, CanonicalizationModule
from upright.training.poses import identity_metrics

TESTS = Path(__file__).parent


# What is trained, and what is left alone


def test_importing_upright_does_not_import_lightning():
    code = "import sys, upright; sys.exit('lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_frozen_canonicalizer_stays_as_it_is_while_the_predictor_is_trained(data):
    network = nn.Sequential(nn.BatchNorm2d(1), Plain())
    canonicalizer = upright.DiscreteCanonicalizer(
        upright.nets.OrbitScorer(network, "C4"), "C4", size=12, channels=1
    )
    robust = upright.adapt(Classifier(), "C4", canonicalizer=canonicalizer.requires_grad_(False))
    before, predictor = state(canonicalizer), state(robust.model)
    quick(robust, data, setup="joint", epochs=1, calibrate=False)
    assert same(before, state(canonicalizer))
    assert not same(predictor, state(robust.model))


def test_prior_training_learns_poses_without_labels_and_without_the_predictor(data):
    robust = adapted()
    robust.model.train()
    robust.model.norm.eval()
    robust.model.layer.weight.requires_grad_(False)
    before = state(robust.model)
    result = quick(robust, data[0], epochs=8, val_data=shapes(128, seed=1)[0])
    assert same(before, state(robust.model))
    assert (robust.model.training, robust.model.norm.training) == (True, False)
    assert not robust.model.layer.weight.requires_grad
    assert robust.model.layer.bias.requires_grad
    assert not robust.canonicalizer.training
    assert result.history[-1]["val_identity_rate"] > 0.85 > result.history[0]["val_identity_rate"]
    assert result.images_per_second > 0
    x = shapes(100, seed=2)[0]
    for turns in range(4):  # the pose follows the picture: the rate above is no tie
        index = robust.pose(torch.rot90(x, turns, (2, 3))).element.value
        assert (index == turns).float().mean() > 0.85


@pytest.mark.parametrize("setup", SETUPS)
def test_every_setup_trains_its_part_and_only_that(data, setup):
    robust = adapted(Classifier)
    poses, model = state(robust.canonicalizer.network), state(robust.model)
    result = quick(robust, data, setup=setup, predictor_augment=CropAndFlip(padding=1, flip=False))
    assert same(poses, state(robust.canonicalizer.network)) == (setup in ("augment", "vanilla"))
    assert same(model, state(robust.model)) == (setup == "prior")
    row = result.history[-1]
    assert ("accuracy" in row) == (setup != "prior")
    assert ("identity_rate" in row) == (setup in ("prior", "joint", "joint_no_prior"))
    assert len(result.history) == 2
    assert all(np.isfinite(value) for value in row.values())
    assert (result.temperature is not None) == (setup in ("prior", "joint"))


def test_set_ups_differ_in_what_they_give_on_turned_pictures(data):
    x, y = shapes(200, seed=3)
    upright_, turned = {}, {}
    for setup in ("joint", "vanilla", "augment"):
        robust = adapted(Classifier)
        quick(robust, data, setup=setup, epochs=10, predictor_learning_rate=1e-2)
        call = (robust if setup == "joint" else robust.model).eval()
        upright_[setup], turned[setup] = (
            (call(pictures).argmax(1) == y).float().mean().item()
            for pictures in (x, torch.rot90(x, 1, (2, 3)))
        )
    assert upright_["vanilla"] > 0.9
    assert turned["vanilla"] < 0.5
    assert turned["augment"] > 0.6
    assert turned["joint"] == upright_["joint"] > 0.75


def test_no_prior_gives_the_canonicalizer_gradients_of_the_task_alone(data):
    robust = adapted(Classifier)
    robust.model.dropout.p = 0.0
    module = CanonicalizationModule(robust, setup="joint_no_prior", augment=False)
    loss = module.train()._metrics(*data, torch.Generator())["loss"]
    assert torch.allclose(loss, module._metrics(*data, torch.Generator())["task_loss"])
    loss.backward()
    assert robust.canonicalizer.network.network.layers[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("estimator", ["gumbel", "soft", "score_function"])
def test_other_estimators(data, estimator):
    robust = adapted(Classifier, estimator=estimator)
    before = state(robust.canonicalizer.network)
    quick(robust, data, setup="joint_no_prior", epochs=1)
    assert not same(before, state(robust.canonicalizer.network))


def test_score_function_gradient_is_added_to_the_task(data):
    robust = adapted(Classifier, estimator="score_function")
    module = CanonicalizationModule(robust, setup="joint_no_prior", augment=False).train()
    module._metrics(*data, torch.Generator())["loss"].backward()
    assert robust.canonicalizer.network.network.layers[0].weight.grad.abs().sum() > 0


def test_orthogonality_and_consistency_are_added(data):
    torch.manual_seed(0)
    options = {"vector": 8, "widths": (4, 8), "strides": (1, 2)}
    c = upright.canonicalizer("C8", size=12, channels=1, options=options)
    result = upright.fit(
        c, data[0], epochs=1, progress=False, orthogonality_weight=1.0, consistency_weight=1.0
    )
    assert result.history[-1]["orthogonality_loss"] > 0
    assert result.history[-1]["consistency_loss"] > 0
    total = sum(result.history[-1][name] for name in ("prior_loss", "orthogonality_loss", "consistency_loss"))
    assert abs(total - result.history[-1]["loss"]) < 1e-3
    with pytest.raises(ValueError, match="orthogonality_weight needs a network that gives vectors"):
        quick(adapted(), data[0], orthogonality_weight=1.0)


def test_consistency_expects_the_posterior_to_move_with_the_picture(data):
    robust = adapted(group="C8")
    module = CanonicalizationModule(robust, augment=False, consistency_weight=1.0)
    x = shapes(64)[0]
    pose = robust.canonicalizer(x)
    loss = module._consistency(pose, x, torch.Generator().manual_seed(0))
    shuffled = upright.Pose(pose.element, pose.log_probs[torch.randperm(64)].roll(3, 1))
    assert loss < module._consistency(shuffled, x, torch.Generator().manual_seed(0))


def test_ties_are_no_identity():
    group = upright.Cyclic(4)
    tied = upright.Pose(group.identity(3), torch.full((3, 4), 0.25).log())
    clear = upright.Pose(group.identity(1), torch.tensor([[0.7, 0.1, 0.1, 0.1]]).log())
    assert {k: float(v) for k, v in identity_metrics(tied).items()} == {"identity_rate": 0.0, "ties": 1.0}
    assert {k: float(v) for k, v in identity_metrics(clear).items()} == {"identity_rate": 1.0, "ties": 0.0}


def test_priors(data):
    robust = adapted()
    result = quick(robust, data[0], epochs=6, prior=upright.CategoricalPrior([0, 1, 0, 0]))
    assert result.temperature is None  # calibration measures against the identity
    assert (robust.pose(data[0]).element.value == 1).float().mean() > 0.7


# Precision, processes, data


def test_mixed_precision_scores_in_float32(data):
    robust = adapted(network="orbit", options={"widths": (8, 16), "strides": (1, 2)})
    result = quick(robust, data[0], precision="bf16-mixed", epochs=6)
    assert {p.dtype for p in robust.parameters()} == {torch.float32}
    assert result.history[-1]["ties"] == 0
    turned = torch.rot90(data[0], 1, (2, 3))
    index = robust.pose(turned).element.value
    assert (index == 1).float().mean() > 0.9


@pytest.mark.parametrize(
    ("network", "options"),
    [
        ("orbit", {"widths": (8, 16), "strides": (1, 2)}),
        ("group_cnn", {"widths": (4, 4)}),
        ("polar", {"widths": (8, 8)}),
    ],
)
def test_every_network_trains_and_leaves_contiguous_weights(data, network, options):
    robust = adapted(network=network, options=options)
    assert quick(robust, data[0], epochs=1).history[-1]["prior_loss"] < 1.5
    assert all(p.is_contiguous() for p in robust.canonicalizer.state_dict().values())
    assert all(p.grad is None for p in robust.canonicalizer.parameters())


TWO_PROCESSES = """
import sys, torch, upright
from training_nets import adapted, shapes

if __name__ == "__main__":
    torch.set_num_threads(1)
    robust = adapted()
    result = upright.fit(robust, shapes(128)[0], epochs=2, batch_size=16, devices=2, strategy=sys.argv[1],
                         accelerator="cpu", augment=False, progress=False, seed=3, calibrate=False)
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        loss = result.history[-1]["prior_loss"]
        torch.save((robust.canonicalizer.state_dict(), loss), sys.argv[2] + "/weights.pt")
"""


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "ddp_spawn"])
def test_two_processes_train_as_one(tmp_path, strategy):
    (tmp_path / "script.py").write_text(TWO_PROCESSES)
    env = {**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(tmp_path / "script.py"), strategy, str(tmp_path)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    weights, loss = torch.load(tmp_path / "weights.pt")
    robust = adapted()
    alone = upright.fit(robust, shapes(128)[0], epochs=2, batch_size=32, accelerator="cpu", augment=False,
                        progress=False, seed=3, calibrate=False)  # fmt: skip
    assert same(state(robust.canonicalizer), weights, tolerance=1e-4)
    assert loss == pytest.approx(alone.history[-1]["prior_loss"], abs=1e-3)


def test_any_data_is_taken(data, tmp_path):
    x, y = data
    for source in (x, TensorDataset(x, y), DataLoader(TensorDataset(x, y), batch_size=64, shuffle=True)):
        assert quick(adapted(), source, epochs=1).history[-1]["loss"] > 0
    from PIL import Image

    for i in range(40):  # photos of many shapes, larger than what the canonicalizer sees
        width = 40 + i
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (70, width, 3), np.uint8)).save(
            tmp_path / f"{i}.png"
        )
    c = upright.canonicalizer("C4", size=16, options={"widths": (4, 8), "strides": (2, 2)})
    result = upright.fit(c, tmp_path, epochs=1, batch_size=16, progress=False)
    assert result.history[-1]["step"] == 2


def test_progress_bar_shows_running_means(data, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    quick(adapted(), data[0], epochs=1, progress=True)
    assert "identity_rate: 0." in capsys.readouterr().out


def test_uint8_pictures_and_max_steps(data):
    result = quick(adapted(), (data[0] * 255).clamp(0, 255).to(torch.uint8), max_steps=3)
    assert result.history[-1]["step"] == 3


# Errors


def test_errors_say_what_to_do(data):
    with pytest.raises(ValueError, match="setup='joint' needs labels, got pictures without any"):
        quick(adapted(Classifier), data[0], setup="joint")
    with pytest.raises(ValueError, match=r"setup must be one of 'prior'.*got 'both'"):
        quick(adapted(), data[0], setup="both")
    with pytest.raises(TypeError, match="setup='vanilla' trains the predictor, which must be a torch module"):
        quick(adapted(lambda x: x), data, setup="vanilla")
    with pytest.raises(ValueError, match="has nothing to train"):
        quick(upright.adapt(Classifier(), "C4", canonicalizer="identity"), data[0])
    with pytest.raises(ValueError, match="epochs must be positive"):
        quick(adapted(), data[0], epochs=0)
    with pytest.raises(ValueError, match="optimizer must be one of"):
        quick(adapted(), data[0], optimizer="lion")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        quick(adapted(), "/nowhere/at/all")
