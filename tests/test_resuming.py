"""Proves: seeds decide, checkpoints are whole, and interrupted training goes on as if nothing had been."""

import json
import os

import lightning as L
import numpy as np
import pytest
import torch

from training_nets import Classifier, adapted, letters, one_thread, quick, same, shapes, state  # noqa: F401


class StopAfter(L.Callback):
    def __init__(self, epochs, error=KeyboardInterrupt):
        self.epochs, self.error = epochs, error

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == self.epochs:
            raise self.error


@pytest.mark.parametrize("setup", ["prior", "joint"])
def test_resumed_training_equals_uninterrupted_training(data, tmp_path, setup):
    options = {"setup": setup, "epochs": 4, "average": 0.9, "patience": 4, "val_data": shapes(64, seed=1)}
    whole = adapted(Classifier)
    expected = quick(whole, data, **options)
    parted = adapted(Classifier, seed=0)
    with pytest.raises(KeyboardInterrupt, match="the last checkpoint is kept"):
        quick(parted, data, **options, output=tmp_path, callbacks=[StopAfter(2)])
    assert json.loads((tmp_path / "history.json").read_text())[-1]["epoch"] == 2
    again = adapted(Classifier, seed=7)  # other weights: all must come from the checkpoint
    if setup == "prior":
        again.model.load_state_dict(whole.model.state_dict())
    torch.rand(10)
    result = quick(again, data, **options, output=tmp_path, resume=True)
    assert same(state(whole), state(again))
    assert result.history == expected.history
    assert result.temperature == expected.temperature


def test_seeds_decide_and_the_callers_state_is_kept(data):
    torch.manual_seed(5)
    np.random.seed(5)
    expected = torch.rand(1), np.random.rand()
    torch.manual_seed(5)
    np.random.seed(5)
    results = [adapted() for _ in range(3)]
    torch.manual_seed(5)
    for robust, seed in zip(results, (1, 1, 2), strict=True):
        quick(robust, data[0], epochs=1, seed=seed)
    assert (torch.rand(1), np.random.rand()) == expected
    assert "PL_GLOBAL_SEED" not in os.environ
    one, two, three = map(state, results)
    assert same(one, two)
    assert not same(one, three)


def test_checkpoints_hold_only_what_is_trained(data, tmp_path):
    result = quick(adapted(Classifier), data[0], epochs=1, output=tmp_path)
    assert result.checkpoint == tmp_path / "last.ckpt"
    keys = torch.load(result.checkpoint, weights_only=True)["state_dict"]
    assert all(key.startswith("canonicalizer.") for key in keys)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["history.json", "last.ckpt"]
    with pytest.raises(ValueError, match=r"the checkpoint must be one of .*'setup': 'joint'"):
        quick(adapted(Classifier), data, setup="joint", resume=result.checkpoint)
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        quick(adapted(), data[0], resume=tmp_path / "absent.ckpt")
    (tmp_path / "last.ckpt").write_bytes(b"rubbish")
    with pytest.raises(ValueError, match="is not a checkpoint that can be read"):
        quick(adapted(), data[0], resume=tmp_path)
    with pytest.raises(ValueError, match="resume=True needs output"):
        quick(adapted(), data[0], resume=True)


def test_failed_writing_leaves_the_earlier_checkpoint(tmp_path, monkeypatch):
    from upright.training.callbacks import AtomicCheckpoints

    AtomicCheckpoints().save_checkpoint({"a": torch.ones(2)}, tmp_path / "last.ckpt")

    def fail(value, file):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        AtomicCheckpoints().save_checkpoint({"a": torch.zeros(2)}, tmp_path / "last.ckpt")
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]
    assert torch.equal(AtomicCheckpoints().load_checkpoint(tmp_path / "last.ckpt")["a"], torch.ones(2))


def test_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(data, tmp_path):
    robust, calls = adapted(), []

    def poison(x, generator):
        calls.append(1)
        return x * (float("nan") if len(calls) > 20 else 1.0)  # sixteen steps an epoch: in the second

    with pytest.raises(FloatingPointError, match="the loss became nan at step 20; lower learning_rate"):
        quick(robust, data[0], augment=poison, output=tmp_path, epochs=3, calibrate=False)
    weights = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert weights["epoch"] == 0
    assert all(bool(torch.isfinite(t).all()) for t in weights["state_dict"].values())
    assert all(bool(torch.isfinite(p).all()) for p in robust.canonicalizer.parameters())
    assert not robust.canonicalizer.training


def test_early_stopping_keeps_the_best_weights(data):
    robust = adapted()
    validation = shapes(64, seed=1)[0]
    options = {"learning_rate": 0.1, "schedule": "constant", "calibrate": False}
    result = quick(robust, data[0], epochs=30, patience=1, val_data=validation, **options)
    rows = result.history
    assert len(rows) < 30
    best = min(rows, key=lambda row: row["val_loss"])
    assert best is not rows[-1]
    log_probs = robust.pose(validation).log_probs
    assert -log_probs[:, 0].mean().item() == pytest.approx(best["val_prior_loss"], abs=2e-3)
    with pytest.raises(ValueError, match="patience=1 needs val_data"):
        quick(adapted(), data[0], patience=1)


def test_average_is_what_remains_and_what_validation_sees(data):
    robust, validation = adapted(), shapes(64, seed=1)[0]
    plain = adapted()
    result = quick(robust, data[0], average=0.99, val_data=validation, calibrate=False)
    quick(plain, data[0], val_data=validation, calibrate=False)
    assert not same(state(robust), state(plain))
    rate = -robust.pose(validation).log_probs[:, 0].mean().item()
    assert rate == pytest.approx(result.history[-1]["val_prior_loss"], abs=1e-3)
    with pytest.raises(ValueError, match=r"average must lie in \(0, 1\)"):
        quick(adapted(), data[0], average=2.0)


def test_calibration_uses_pictures_that_are_not_trained_on(data):
    seen = []

    def watch(x, generator):
        seen.append(x)
        return x

    result = quick(adapted(), data[0], epochs=1, augment=watch, batch_size=8)
    assert result.temperature > 0
    distinct = torch.cat(seen).flatten(1).unique(dim=0)
    assert len(distinct) == 512 - 32
    robust = adapted()
    robust.canonicalizer.temperature.fill_(1.0)
    assert quick(robust, data[0], epochs=1, calibrate=False).temperature is None
    assert robust.canonicalizer.temperature == 1


def test_failure_restores_the_interrupt_handler_and_modes(data):
    import signal

    handler, robust = signal.getsignal(signal.SIGINT), adapted()
    with pytest.raises(KeyboardInterrupt):
        quick(robust, data[0], callbacks=[StopAfter(0)])
    assert signal.getsignal(signal.SIGINT) is handler
    assert not robust.canonicalizer.training
    with pytest.raises(RuntimeError, match="from outside"):
        quick(robust, data[0], callbacks=[StopAfter(0, RuntimeError("from outside"))])
