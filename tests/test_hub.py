"""Saved folders come back as they were; damaged, foreign and newer ones say so; a crash keeps the old one."""

import json
import os
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

import upright
from upright import _files, hub
from upright.adapter.spec import kind_class
from upright.kinds import Boxes

SMALL = {"size": 16, "options": {"widths": [4, 8], "strides": [2, 2]}}


def small(group="C4", network="orbit", **settings):
    options = {"orbit": SMALL["options"], "polar": {}, "group_cnn": {}, "identity": {}}[network]
    return upright.canonicalizer(group, network, size=16, options=options, **settings).eval()


def model():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 20 * 20, 5))


def adapted(**settings):
    torch.manual_seed(0)
    made = upright.adapt(model(), "C4", canonicalizer=small(), **settings)
    for p in made.canonicalizer.parameters():
        nn.init.normal_(p, std=0.3)
    return made


def picture(n=4):
    return torch.rand(n, 3, 20, 20, generator=torch.Generator().manual_seed(1))


class Free(upright.Canonicalizer):
    """A canonicalizer of a user's own making."""

    def __init__(self):
        super().__init__("C4")
        self.bias = nn.Parameter(torch.arange(4.0))

    def forward(self, x):
        log_probs = self.bias.log_softmax(0).expand(len(x), 4)
        return upright.Pose(self.group.element(log_probs.argmax(-1)), log_probs)


def make_network(group, *, channels, width=3):
    from upright.nets import OrbitScorer

    pool = [nn.Conv2d(channels, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 1)]
    return OrbitScorer(nn.Sequential(*pool), group)


@pytest.mark.parametrize("network", ["orbit", "polar", "group_cnn", "identity"])
@pytest.mark.parametrize("group", ["C4", "D4"])
def test_round_trip(tmp_path, network, group):
    made = small(group, network)
    robust = upright.adapt(model(), group, canonicalizer=made)
    robust.save_pretrained(tmp_path / "saved")
    again = upright.load(tmp_path / "saved", robust.model)
    assert again.canonicalizer.config == made.config
    assert not again.canonicalizer.training
    assert torch.equal(again(picture()), robust(picture()))
    assert sorted(p.name for p in (tmp_path / "saved").iterdir()) == sorted(
        [hub.WEIGHTS, hub.MANIFEST, hub.CARD]
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["saved"]


def test_settings_come_back(tmp_path):
    made = adapted(
        mode="top_k", top_k=3, cover=0.8, evidence=0.5, canvas="pad", inputs={"x": "image", 1: "mask"},
        outputs={"boxes": partial(Boxes, format="cxcywh", normalized=True), 1: upright.Mask},
    )  # fmt: skip
    made.canonicalizer.temperature.fill_(1.25)
    made.canonicalizer.deployment_prior = upright.CategoricalPrior([4, 2, 1, 1])
    hub.save(made, tmp_path / "s")
    again = upright.load(tmp_path / "s", made.model)
    for name in ("mode", "top_k", "cover", "evidence", "canvas", "inputs"):
        assert getattr(again, name) == getattr(made, name)
    assert [kind_class(k) for k in again.outputs.values()] == [Boxes, upright.Mask]
    assert again.outputs["boxes"].keywords == {"format": "cxcywh", "normalized": True}
    assert list(again.outputs) == ["boxes", 1]
    assert again.canonicalizer.temperature == 1.25
    assert again.canonicalizer.deployment_prior == made.canonicalizer.deployment_prior


@pytest.mark.parametrize("prior", [upright.IdentityPrior(), upright.UniformPrior(max_degrees=90.0)])
def test_priors_come_back(tmp_path, prior):
    made = adapted()
    made.canonicalizer.deployment_prior = prior
    hub.save(made, tmp_path / "s")
    assert hub.load_canonicalizer(tmp_path / "s").deployment_prior == prior


@pytest.mark.parametrize(("dtype", "share", "step"), [("float16", 0.85, 1e-3), ("int8", 0.75, 1 / 250)])
def test_fewer_bits_are_smaller_and_load_as_float32(tmp_path, dtype, share, step):
    made = adapted()
    hub.save(made, tmp_path / "full")
    hub.save(made, tmp_path / "less", dtype=dtype)
    size = {n: (tmp_path / n / hub.WEIGHTS).stat().st_size for n in ("full", "less")}
    assert size["less"] < share * size["full"]
    again = upright.load(tmp_path / "less", made.model)
    assert {p.dtype for p in again.parameters()} == {torch.float32}
    for a, b in zip(again.canonicalizer.parameters(), made.canonicalizer.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=step * float(b.detach().abs().max()) + 1e-6)
    with pytest.raises(ValueError, match="dtype must be one of"):
        hub.save(made, tmp_path / "x", dtype="int4")


def test_half_precision_keeps_what_does_not_fit(tmp_path):
    made = adapted()
    made.canonicalizer.network.network.head.weight.data.fill_(1e6)
    hub.save(made, tmp_path / "s", dtype="float16")
    loaded = hub.load_canonicalizer(tmp_path / "s")
    assert torch.equal(loaded.network.network.head.weight, made.canonicalizer.network.network.head.weight)


def test_loading_leaves_the_random_state_alone(tmp_path):
    hub.save(adapted(), tmp_path / "s")
    state = torch.random.get_rng_state()
    hub.load_canonicalizer(tmp_path / "s")
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_canonicalizer_alone(tmp_path):
    hub.save(adapted().canonicalizer, tmp_path / "s", card="Measured on **nothing**.")
    robust = upright.adapt(model(), "C4", canonicalizer=str(tmp_path / "s"))
    assert robust.mode == "canonical"
    assert "Measured on **nothing**." in (tmp_path / "s" / hub.CARD).read_text()


def test_canonicalizers_of_ones_own(tmp_path):
    own = Free()
    own.bias.data = torch.tensor([0.0, 5.0, 0.0, 0.0])
    robust = upright.adapt(model(), "C4", canonicalizer=own)
    hub.save(robust, tmp_path / "s")
    with pytest.raises(hub.LoadError, match=r"weights of a Free .* pass it as canonicalizer="):
        upright.load(tmp_path / "s", robust.model)
    again = upright.load(tmp_path / "s", robust.model, canonicalizer=Free())
    assert torch.equal(again(picture()), robust(picture()))


def test_networks_of_ones_own_run_only_when_trusted(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    made = upright.canonicalizer("C4", "test_hub:make_network", size=16, options={"width": 5})
    hub.save(made, tmp_path / "s")
    with pytest.raises(hub.LoadError, match="pass trust_code=True"):
        hub.load_canonicalizer(tmp_path / "s")
    again = hub.load_canonicalizer(tmp_path / "s", trust_code=True)
    assert torch.equal(again(picture()).log_probs, made.eval()(picture()).log_probs)


def edit(folder, **changes):
    data = json.loads((folder / hub.MANIFEST).read_text())
    for key, value in changes.items():
        if value is ...:
            del data[key]
        else:
            data[key] = (
                {**data[key], **value}
                if isinstance(value, dict) and isinstance(data.get(key), dict)
                else value
            )
    (folder / hub.MANIFEST).write_text(json.dumps(data))


def truncate(folder):
    data = (folder / hub.WEIGHTS).read_bytes()
    (folder / hub.WEIGHTS).write_bytes(data[: len(data) // 2])


def reweigh(folder, change):
    """Write other weights, with the right checksum."""
    from safetensors.torch import load, save

    state = load((folder / hub.WEIGHTS).read_bytes())
    change(state)
    (folder / hub.WEIGHTS).write_bytes(save(state))
    edit(folder, weights={"sha256": None})


DAMAGE = {
    "truncated weights": (truncate, "is damaged .*checksum"),
    "truncated weights without checksum": (
        lambda f: (truncate(f), edit(f, weights={"sha256": None})),
        "is damaged .*save or download it again",
    ),
    "no weights": (lambda f: (f / hub.WEIGHTS).unlink(), "is not complete"),
    "lacks a tensor": (lambda f: reweigh(f, lambda s: s.pop("temperature")), "lacks temperature"),
    "extra tensor": (lambda f: reweigh(f, lambda s: s.update(more=torch.ones(2))), "holds more"),
    "wrong shape": (
        lambda f: reweigh(f, lambda s: s.update(temperature=torch.ones(2))),
        r"shape \(\), got \(2,\)",
    ),
    "not finite": (
        lambda f: reweigh(f, lambda s: s["temperature"].fill_(float("nan"))),
        "not finite in temperature",
    ),
    "no manifest": (lambda f: (f / hub.MANIFEST).unlink(), "was not saved by upright"),
    "invalid JSON": (lambda f: (f / hub.MANIFEST).write_text('{"library": "upr'), "cannot be read"),
    "binary manifest": (lambda f: (f / hub.MANIFEST).write_bytes(b"\xff\xfe\x00"), "cannot be read"),
    "foreign JSON": (
        lambda f: (f / hub.MANIFEST).write_text('{"model_type": "vit"}'),
        "was not written by upright",
    ),
    "JSON of another shape": (lambda f: (f / hub.MANIFEST).write_text("[1]"), "was not written by upright"),
    "newer schema": (
        lambda f: edit(f, schema_version=3),
        "reads up to schema 2; upgrade with: pip install -U",
    ),
    "bad schema": (lambda f: edit(f, schema_version="1"), "schema_version must be a positive integer"),
    "unknown key": (lambda f: edit(f, colour="red"), "unknown key 'colour'; known keys"),
    "unknown configuration key": (
        lambda f: edit(f, canonicalizer={"depth": 3}),
        r"unknown configuration keys \['depth'\]",
    ),
    "unknown adapter key": (lambda f: edit(f, adapter={"speed": 1}), "unknown key 'adapter.speed'"),
    "missing key": (lambda f: edit(f, group=...), "lacks the key 'group'"),
    "wrong type": (lambda f: edit(f, group=4), "'group' has a value of the wrong type"),
    "unknown network": (
        lambda f: edit(f, canonicalizer={"network": "magic"}),
        "cannot be built: network must be one",
    ),
    "unknown group": (lambda f: edit(f, canonicalizer={"group": "X4"}), "unknown group 'X4'"),
    "two groups": (lambda f: edit(f, group="C8"), "canonicalizer of C8, but canonicalizer is one of C4"),
    "bad option": (lambda f: edit(f, canonicalizer={"options": {"depth": 3}}), "cannot be built"),
    "bad mode": (
        lambda f: edit(f, adapter={"mode": "best"}),
        "adapter settings that do not fit: mode must be",
    ),
    "bad kind": (lambda f: edit(f, adapter={"outputs": "sound"}), "unknown kind 'sound'"),
    "bad preprocessing": (
        lambda f: edit(f, model={"preprocess": {"mean": 0.5}}),
        "preprocess has values of the wrong type",
    ),
    "bad prior": (lambda f: edit(f, state={"deployment_prior": {"prior": "x"}}), "deployment prior"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_said_in_one_sentence(tmp_path, damage):
    change, message = DAMAGE[damage]
    hub.save(adapted(), tmp_path / "s")
    change(tmp_path / "s")
    with pytest.raises(hub.LoadError, match=message) as caught:
        upright.load(tmp_path / "s", model())
    assert "\n" not in str(caught.value)


def test_names_that_stand_for_nothing(tmp_path, monkeypatch):
    with pytest.raises(hub.LoadError, match="no saved canonicalizer 'photo-c99'"):
        hub.load_canonicalizer("photo-c99")
    with pytest.raises(hub.LoadError, match="no saved canonicalizer"):
        hub.load_canonicalizer(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(hub.LoadError, match="is a file"):
        upright.load(tmp_path / "file", model())

    import huggingface_hub

    def offline(*args, **kwargs):
        raise OSError("no connection\nand a second line")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(hub.LoadError, match=r"could not be fetched from the hub \(no connection\)"):
        hub.load_canonicalizer("someone/something")


def test_hub_names_are_downloaded(tmp_path, monkeypatch):
    import huggingface_hub

    made = adapted()
    hub.save(made, tmp_path / "cache")
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda repo_id, **kwargs: str(tmp_path / "cache")
    )
    again = upright.load("someone/something", made.model)
    assert torch.equal(again(picture()), made(picture()))


def test_ready_made_names(tmp_path, monkeypatch):
    hub.save(adapted().canonicalizer, tmp_path / "weights" / "photo-c4")
    monkeypatch.setattr(hub, "READY_MADE", {"C4": "photo-c4"})
    monkeypatch.setattr(hub.resources, "files", lambda package: tmp_path)
    robust = upright.adapt(model(), "C4")
    assert robust.canonicalizer.config.options == SMALL["options"]


def test_ready_made_weights_are_listed_only_if_they_are_there():
    for group, name in hub.READY_MADE.items():
        assert str(hub.load_canonicalizer(name).group) == group


def test_a_model_is_needed(tmp_path):
    hub.save(adapted(), tmp_path / "s")
    with pytest.raises(hub.LoadError, match="does not say which model"):
        upright.load(tmp_path / "s")
    hub.save(adapted(), tmp_path / "s", model_reference="somewhere:make")
    with pytest.raises(hub.LoadError, match=r"names the code 'somewhere:make' for its model; pass model="):
        upright.load(tmp_path / "s")


def test_other_folders_are_not_overwritten(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("all my work")
    with pytest.raises(FileExistsError, match="files that upright did not write"):
        hub.save(adapted(), tmp_path / "thesis")
    with pytest.raises(FileExistsError, match="is a file"):
        hub.save(adapted(), tmp_path / "thesis" / "chapter.tex")
    assert [p.name for p in (tmp_path / "thesis").iterdir()] == ["chapter.tex"]


def test_saving_again_replaces_and_keeps_other_files(tmp_path):
    hub.save(adapted(), tmp_path / "s")
    (tmp_path / "s" / "report.json").write_text("{}")
    made = adapted(mode="average")
    hub.save(made, tmp_path / "s")
    assert upright.load(tmp_path / "s", made.model).mode == "average"
    assert (tmp_path / "s" / "report.json").read_text() == "{}"


class Killed(BaseException):
    """Stands for the process being killed."""


@pytest.mark.parametrize("call", range(8))
@pytest.mark.parametrize("function", ["fsync", "rename", "replace"])
def test_a_crash_leaves_the_old_folder_whole(tmp_path, monkeypatch, function, call):
    old = adapted()
    hub.save(old, tmp_path / "s")
    count = iter(range(100))
    real = getattr(os, function)

    def dies(*args):
        if next(count) == call:
            raise Killed
        return real(*args)

    monkeypatch.setattr(_files.os, function, dies)
    new = adapted(mode="average")
    died = False
    try:
        hub.save(new, tmp_path / "s")
    except Killed:
        died = True
    monkeypatch.undo()
    again = upright.load(tmp_path / "s", old.model)
    assert again.mode in (("canonical", "average") if died else ("average",))
    assert torch.equal(again.canonicalizer(picture()).log_probs, old.canonicalizer(picture()).log_probs)
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def test_first_save_leaves_nothing_behind_on_a_crash(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        hub.save(adapted(), tmp_path / "s")
    assert list(tmp_path.iterdir()) == []


def test_options_must_be_plain_data(tmp_path):
    made = small()
    object.__setattr__(made, "config", upright.CanonicalizerConfig(group="C4", options={"act": nn.ReLU()}))
    with pytest.raises(TypeError, match="must be plain data"):
        hub.save(made, tmp_path / "s")
    assert list(tmp_path.iterdir()) == []
