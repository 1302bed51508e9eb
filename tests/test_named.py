"""Several named canonicalizers a model: chosen by view or by context, saved together, switched off exactly.

Choices are made in a context variable: the tests run other threads and tasks, nest blocks and raise in them.
"""

import asyncio
import contextvars
import copy
import json
import pickle
import threading

import numpy as np
import pytest
import torch
from torch import nn

import upright
from test_hub import SMALL, Free, adapted, edit, model, picture, small
from upright import hub
from upright.adapter import Embedding
from upright.adapter.views import call_bare

OTHERS = {"flips": "D4", "eighths": "C8"}


def several():
    """A model with three canonicalizers that turn nearly every picture, each of another group."""
    robust = adapted(mode="top_k", top_k=2)
    for name, group in OTHERS.items():
        made = small(group)
        for p in made.parameters():
            nn.init.normal_(p, std=0.3)
        robust = robust.with_canonicalizer(name, made, mode="average" if name == "flips" else "canonical")
    return robust


def alone(robust, name):
    """The adapted model that has this canonicalizer only, made the ordinary way."""
    settings = {"default": {"mode": "top_k", "top_k": 2}, "flips": {"mode": "average"}, "eighths": {}}[name]
    one = robust.canonicalizers[name]
    return upright.adapt(robust.model, one.group, canonicalizer=one, **settings)


def test_names_are_listed_and_chosen():
    robust = several()
    assert {n: str(c.group) for n, c in robust.canonicalizers.items()} == {"default": "C4", **OTHERS}
    results = set()
    for name in robust.canonicalizers:
        view = robust.choose(name)
        assert view.name == name
        assert view.group == robust.canonicalizers[name].group
        assert set(view.canonicalizers) == set(robust.canonicalizers)
        assert view.canonicalizers[name] is robust.canonicalizers[name]
        expected = alone(robust, name)(picture())
        assert torch.equal(view(picture()), expected)
        with robust.using(name):
            assert torch.equal(robust(picture()), expected)
            assert torch.equal(robust.run(picture()).output, expected)
        results.add(expected.sum().item())
    assert len(results) == 3
    assert robust.choose("flips").choose("default").mode == "top_k"
    assert robust.choose("flips").choose("default").top_k == 2
    assert robust.choose("default") is robust


def test_views_leave_the_model_as_it_was():
    robust = adapted()
    before = robust(picture())
    more = robust.with_canonicalizer("flips", small("D4"))
    assert list(robust.canonicalizers) == ["default"]
    assert torch.equal(more(picture()), before)
    less = more.without_canonicalizer("flips")
    assert list(less.canonicalizers) == ["default"]
    assert less.others is None
    other = small("D4")
    again = more.with_canonicalizer("flips", other, mode="average")
    assert list(again.canonicalizers) == ["default", "flips"]
    assert again.canonicalizers["flips"] is other
    assert more.canonicalizers["flips"] is not other
    own = more.with_canonicalizer("default", other)
    assert (own.canonicalizer, own.name, str(own.group)) == (other, "default", "D4")
    assert more.replace(mode="average").canonicalizers == more.canonicalizers
    assert more.with_prior(upright.CategoricalPrior([3, 1, 1, 1])).alternatives == more.alternatives


def test_further_ones_are_named_built_and_loaded(tmp_path):
    hub.save(adapted().canonicalizer, tmp_path / "s")
    robust = adapted().with_canonicalizer("saved", str(tmp_path / "s"))
    assert robust.canonicalizers["saved"].config.options == SMALL["options"]
    robust = robust.with_canonicalizer("energy", "energy", "D4")
    assert str(robust.choose("energy").group) == "D4"
    assert robust.choose("energy")(picture()).shape == (4, 5)
    with pytest.raises(ValueError, match="group must be given to build the canonicalizer 'orbit'"):
        robust.with_canonicalizer("new", "orbit")
    with pytest.raises(ValueError, match="canonicalizer is one of C4, but group is C8"):
        robust.with_canonicalizer("new", str(tmp_path / "s"), "C8")


def test_mistakes_say_what_to_do():
    robust = several()
    for name in ("a b", "", "../x", "-x", "x" * 65, 3):
        with pytest.raises(ValueError, match="name must be at most 64 letters, digits"):
            robust.with_canonicalizer(name, small())
    with pytest.raises(TypeError, match="outputs is no setting of a canonicalizer; expected one of mode"):
        robust.with_canonicalizer("x", small(), outputs="mask")
    with pytest.raises(ValueError, match="top_k needs mode="):
        robust.with_canonicalizer("x", small(), top_k=2)
    with pytest.raises(TypeError, match="canonicalizer must be a Canonicalizer or a name, got Linear"):
        robust.with_canonicalizer("x", nn.Linear(2, 2))
    for call in (robust.choose, robust.using, robust.without_canonicalizer):
        with pytest.raises(ValueError, match="no canonicalizer 'x', only 'default', 'flips', 'eighths'; add"):
            call("x")
    with pytest.raises(ValueError, match="'default' is in use; choose another one first"):
        robust.without_canonicalizer("default")


def test_all_of_them_are_parts_of_the_module():
    robust = several()
    found = {id(p) for p in robust.parameters()}
    assert all(id(p) in found for one in robust.canonicalizers.values() for p in one.parameters())
    assert robust.double().canonicalizers["flips"].network.network.head.weight.dtype == torch.float64
    assert "flips" in repr(robust)
    assert sorted(k for k in adapted().state_dict() if not k.startswith("canonicalizer.")) == [
        "model.1.bias", "model.1.weight",
    ]  # fmt: skip


def test_bare_is_the_model_bit_for_bit():
    robust = several()
    x = picture()
    assert not torch.equal(robust(x), robust.model(x))
    with robust.bare():
        for view in (robust, robust.choose("flips"), robust.replace(mode="average")):
            assert torch.equal(view(x), robust.model(x))
        run = robust.run(x)
        assert torch.equal(run.output, robust.model(x))
        assert bool(run.pose.element.is_identity().all())
        assert run.passes.tolist() == [1] * 4
        upright_, pose = robust.canonicalize(x)
        assert torch.equal(upright_, x)
        assert bool(pose.element.is_identity().all())
        assert bool(robust.pose(x).element.is_identity().all())
    assert not torch.equal(robust(x), robust.model(x))


def test_bare_takes_and_returns_what_the_model_does():
    def odd(x, scale=1.0, *, note=None):
        return {"note": note, "shape": tuple(x.shape), "sum": x.sum() * scale}

    robust = upright.adapt(odd, "C4", canonicalizer=small(), outputs={"sum": "invariant"})
    with robust.bare():
        found = robust(torch.ones(2, 3), 2.0, note="kept")  # no picture at all
    assert found == {"note": "kept", "shape": (2, 3), "sum": torch.tensor(12.0)}
    turned = upright.adapt(lambda x: x.mean((2, 3)), "C8", canonicalizer=small("C8"))
    wide = torch.rand(2, 3, 8, 12)
    with pytest.raises(ValueError, match="needs square pictures"):
        turned(wide)
    with turned.bare():
        assert torch.equal(turned(wide), wide.mean((2, 3)))
        assert torch.equal(turned.canonicalize(wide)[0], wide)
        assert len(turned.run(wide).pose.element) == 2
        assert isinstance(turned(wide.numpy()), np.ndarray)


def test_blocks_nest_and_exceptions_undo_them():
    robust = several()
    expected = {name: alone(robust, name)(picture()) for name in robust.canonicalizers}
    bare = robust.model(picture())
    with robust.using("flips"):
        with robust.bare():
            assert torch.equal(robust(picture()), bare)
            with robust.using("eighths"):
                assert torch.equal(robust(picture()), expected["eighths"])
            assert torch.equal(robust(picture()), bare)
        assert torch.equal(robust(picture()), expected["flips"])
        with pytest.raises(KeyError), robust.bare():
            raise KeyError
        assert torch.equal(robust(picture()), expected["flips"])
    assert torch.equal(robust(picture()), expected["default"])
    assert not robust.switch.open


def test_other_models_are_left_alone():
    one, other = adapted(), adapted()
    copied = copy.deepcopy(one)
    view = one.with_canonicalizer("more", small("D4"))
    expected = one(picture())
    with one.bare():
        assert torch.equal(other(picture()), expected)
        assert torch.equal(copied(picture()), expected)
        assert torch.equal(view(picture()), one.model(picture()))
    again = pickle.loads(pickle.dumps(copied))  # as spawned workers get it
    assert torch.equal(again(picture()), expected)


def test_threads_do_not_disturb_each_other():
    robust = several()
    names = [*robust.canonicalizers, None]
    expected = {name: alone(robust, name)(picture()) for name in robust.canonicalizers}
    expected[None] = robust.model(picture())
    barrier = threading.Barrier(len(names) + 1)
    wrong = []

    def work(name):
        with robust.bare() if name is None else robust.using(name):
            barrier.wait(30)
            for _ in range(12):
                if not torch.equal(robust(picture()), expected[name]):
                    wrong.append(name)
            barrier.wait(30)

    threads = [threading.Thread(target=work, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    barrier.wait(30)
    for _ in range(12):  # this thread is in no block, while all the others are
        assert torch.equal(robust(picture()), expected["default"])
    barrier.wait(30)
    for thread in threads:
        thread.join(30)
    assert wrong == []
    assert not robust.switch.open


def test_tasks_do_not_disturb_each_other():
    robust = several()

    async def one(name):
        with robust.bare() if name is None else robust.using(name):
            await asyncio.sleep(0.01)
            return robust.run(picture()).output

    async def every():
        return await asyncio.gather(one("flips"), one(None), one("eighths"))

    flips, bare, eighths = asyncio.run(every())
    assert torch.equal(flips, alone(robust, "flips")(picture()))
    assert torch.equal(bare, robust.model(picture()))
    assert torch.equal(eighths, alone(robust, "eighths")(picture()))


def test_a_thread_takes_a_choice_along_where_it_is_given_the_context():
    robust = several()
    found = {}

    def work(name):
        found[name] = robust(picture())

    with robust.bare():
        context = contextvars.copy_context()
        threads = [
            threading.Thread(target=work, args=("own",)),
            threading.Thread(target=context.run, args=(work, "given")),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert torch.equal(found["own"], alone(robust, "default")(picture()))
    assert torch.equal(found["given"], robust.model(picture()))


@torch.no_grad()
def test_compiled_models_are_switched_off_too():
    scorer = nn.Sequential(nn.AvgPool2d(5), nn.Flatten(), nn.Linear(3 * 16, 4))
    robust = upright.adapt(
        model(), "C4", canonicalizer=upright.DiscreteCanonicalizer(scorer, "C4", size=None)
    )
    x = picture()
    expected = robust(x)
    assert not torch.equal(expected, robust.model(x))
    for whole in (False, True):
        torch.compiler.reset()
        compiled = torch.compile(robust, backend="eager", fullgraph=whole)
        assert torch.equal(compiled(x), expected)
        with robust.bare():
            if whole:
                with pytest.raises(Exception, match="ContextVar"):  # refused, never silently adapted
                    compiled(x)
            else:
                assert torch.equal(compiled(x), robust.model(x))
        assert torch.equal(compiled(x), expected)


def test_features_of_turned_pictures_are_refused():
    """What `embed` returns, of pictures one of which was turned, and of pictures left as they are."""
    group, alone = upright.Cyclic(4), torch.zeros(2, dtype=torch.bool)
    features = torch.rand(2, 3)

    def embedding(*numbers):
        pose = upright.Pose(group.element(torch.tensor(numbers)))
        return Embedding({"image_embeddings": features}, pose, (8, 8), [(8, 8)] * 2, alone, alone)

    def takes(image_embeddings, points):
        return image_embeddings, points

    found = call_bare(takes, (), {"image_embeddings": embedding(0, 0), "points": 3})
    assert found == (features, 3)
    with pytest.raises(ValueError, match="the bare model turns nothing back; call embed within"):
        call_bare(takes, (), {"image_embeddings": embedding(0, 1), "points": 3})


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_all_are_saved_and_loaded_together(tmp_path, dtype):
    robust = several().choose("flips")
    robust.canonicalizers["eighths"].temperature.fill_(1.5)
    robust.save_pretrained(tmp_path / "s", dtype=dtype)
    again = upright.load(tmp_path / "s", robust.model)
    assert list(again.canonicalizers) == list(robust.canonicalizers)
    assert again.name == "flips"
    assert not any(one.training for one in again.canonicalizers.values())
    for name in robust.canonicalizers:
        view, expected = again.choose(name), robust.choose(name)
        assert (view.mode, view.top_k, view.group) == (expected.mode, expected.top_k, expected.group)
        if dtype == "float32":
            assert torch.equal(view(picture()), expected(picture()))
        one = hub.load_canonicalizer(tmp_path / "s", name=name)
        assert torch.equal(one(picture()).log_probs, view.canonicalizer(picture()).log_probs)
    assert again.canonicalizers["eighths"].temperature == 1.5
    with pytest.raises(hub.LoadError, match="holds no canonicalizer 'x', only 'flips'"):
        hub.load_canonicalizer(tmp_path / "s", name="x")


def test_what_is_saved_has_no_ghosts(tmp_path):
    robust = several()
    robust.save_pretrained(tmp_path / "s")
    (tmp_path / "s" / "notes.txt").write_text("mine")
    robust.without_canonicalizer("flips").save_pretrained(tmp_path / "s")
    names = {p.name for p in (tmp_path / "s").iterdir()}
    assert names == {"notes.txt", hub.MANIFEST, hub.CARD, hub.WEIGHTS, "canonicalizer.eighths.safetensors"}
    adapted().save_pretrained(tmp_path / "s")
    assert {p.name for p in (tmp_path / "s").iterdir()} == {"notes.txt", hub.MANIFEST, hub.CARD, hub.WEIGHTS}
    assert hub.read_manifest(tmp_path / "s").schema_version == 1  # older versions of the library read it


def test_own_canonicalizers_are_given_by_name(tmp_path):
    own = Free()
    own.bias.data = torch.tensor([0.0, 5.0, 0.0, 0.0])
    robust = adapted().with_canonicalizer("own", own)
    robust.save_pretrained(tmp_path / "s")
    with pytest.raises(hub.LoadError, match="weights of a Free"):
        upright.load(tmp_path / "s", robust.model)
    again = upright.load(tmp_path / "s", robust.model, canonicalizer={"own": Free()})
    assert torch.equal(again.choose("own")(picture()), robust.choose("own")(picture()))
    with pytest.raises(hub.LoadError, match="holds no canonicalizer 'x', only default, own"):
        upright.load(tmp_path / "s", robust.model, canonicalizer={"x": Free()})


DAMAGE = {
    "no weights": (lambda f: (f / "canonicalizer.flips.safetensors").unlink(), "is not complete"),
    "damaged weights": (
        lambda f: (f / "canonicalizer.flips.safetensors").write_bytes(b"\x10" * 40),
        r"is damaged .*checksum",
    ),
    "swapped weights": (
        lambda f: (f / "canonicalizer.flips.safetensors").write_bytes((f / hub.WEIGHTS).read_bytes()),
        r"is damaged .*checksum",
    ),
    "unknown key": (lambda f: other(f, colour="red"), "unknown key 'colour'"),
    "a foreign key": (lambda f: other(f, schema_version=1), r"unknown key 'others.flips.schema_version'"),
    "a model of its own": (lambda f: other(f, model=None), r"unknown key 'others.flips.model'"),
    "no group": (lambda f: other(f, group=...), "lacks the key 'group'"),
    "another group": (lambda f: other(f, group="C8"), "canonicalizer of C8, but canonicalizer is one of D4"),
    "bad mode": (lambda f: other(f, adapter={"mode": "best"}), "settings that do not fit: mode must be"),
    "no dictionary": (lambda f: edit(f, others={"flips": 3}), "'flips' of the wrong type"),
    "the same name twice": (lambda f: edit(f, name="flips"), "names two canonicalizers 'flips'"),
    "a name that is a path": (lambda f: edit(f, name="../x"), "has a name that cannot be"),
    "a name of another type": (lambda f: edit(f, name=3), "'name' has a value of the wrong type"),
}


def other(folder, **changes):
    entry = json.loads((folder / hub.MANIFEST).read_text())["others"]["flips"]
    for key, value in changes.items():
        entry.pop(key, None)
        if value is not ...:
            entry[key] = value
    edit(folder, others={"flips": entry})


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_said_in_one_sentence(tmp_path, damage):
    change, message = DAMAGE[damage]
    robust = adapted().with_canonicalizer("flips", small("D4"))
    robust.save_pretrained(tmp_path / "s")
    change(tmp_path / "s")
    with pytest.raises(hub.LoadError, match=message) as caught:
        upright.load(tmp_path / "s", model())
    assert "\n" not in str(caught.value)


def test_info_lists_them(tmp_path, capsys):
    from upright.cli import main

    adapted().with_canonicalizer("flips", small("D4"), mode="average").save_pretrained(tmp_path / "s")
    assert main(["info", str(tmp_path / "s")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "used by default default" in shown
    assert "also flips D4, orbit, mode average" in shown
