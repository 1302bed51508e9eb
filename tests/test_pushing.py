"""What is pushed to the hub comes back bit for bit; an absent hub, and one that refuses, say so at once.

The hub is a server of the tests' own (`hub_toys`), asked through the real client.
"""

import inspect
import json
import re
import socket
import time
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub import ModelCard

import upright
from hub_toys import TOKEN, serving
from test_hub import adapted, model, picture, small
from upright import hub


@pytest.fixture
def served(monkeypatch, tmp_path):
    with serving(monkeypatch, tmp_path / "cache") as made:
        yield made


def several():
    return adapted().with_canonicalizer("flips", small("D4"), mode="average")


def test_what_is_pushed_comes_back(served, tmp_path):
    robust = several()
    address = robust.push_to_hub("me/robust", token=TOKEN, private=True, commit_message="First", dtype="int8")
    ((sha, files, summary),) = served.commits["me/robust"]
    assert address == f"{served.address}/me/robust/commit/{sha}"
    assert summary == "First"
    assert served.private == {"me/robust": True}
    assert set(files) == {hub.CARD, hub.WEIGHTS, hub.MANIFEST, "canonicalizer.flips.safetensors"}
    again = upright.Adapted.from_pretrained("me/robust", robust.model, token=TOKEN)
    hub.save(robust, tmp_path / "here", dtype="int8")
    here = upright.load(tmp_path / "here", robust.model)
    for name in ("default", "flips"):
        assert torch.equal(again.choose(name)(picture()), here.choose(name)(picture()))
    alone = upright.load_canonicalizer("me/robust", name="flips", token=TOKEN)
    assert str(alone.group) == "D4"


def test_names_that_are_gone_go_from_the_repository(served):
    robust = several()
    robust.push_to_hub("me/robust", token=TOKEN)
    first = served.sha("me/robust")
    robust.without_canonicalizer("flips").push_to_hub("me/robust", token=TOKEN)
    assert set(served.files("me/robust")) == {hub.CARD, hub.WEIGHTS, hub.MANIFEST}
    assert list(upright.load("me/robust", robust.model).canonicalizers) == ["default"]
    older = upright.load("me/robust", robust.model, revision=first)
    assert list(older.canonicalizers) == ["default", "flips"]


def test_saving_and_pushing_at_once(served, tmp_path):
    robust = adapted()
    address = robust.save_pretrained(tmp_path / "s", push_to_hub=True, repo_id="me/s", token=TOKEN)
    assert address.startswith(f"{served.address}/me/s/commit/")
    assert served.files("me/s")[hub.WEIGHTS] == (tmp_path / "s" / hub.WEIGHTS).read_bytes()
    assert robust.save_pretrained(tmp_path / "s") is None


def test_a_saved_folder_is_pushed_as_it_is(served, tmp_path):
    hub.save(adapted(), tmp_path / "s")
    hub.push_to_hub(tmp_path / "s", "me/s", token=TOKEN)
    kept = {p.name: p.read_bytes() for p in (tmp_path / "s").iterdir()}
    assert served.files("me/s") == kept
    with pytest.raises(TypeError, match="'dtype' goes with models; a saved folder is uploaded as it is"):
        hub.push_to_hub(tmp_path / "s", "me/s", token=TOKEN, dtype="int8")
    (tmp_path / "thesis").mkdir()
    with pytest.raises(hub.LoadError, match="was not saved by upright"):
        hub.push_to_hub(tmp_path / "thesis", "me/s", token=TOKEN)


def test_the_cache_serves_when_the_hub_is_gone(served, monkeypatch):
    robust = adapted()
    robust.push_to_hub("me/robust", token=TOKEN)
    upright.load("me/robust", robust.model)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # discard: nothing there
    start = time.monotonic()
    again = upright.load("me/robust", robust.model)
    assert torch.equal(again(picture()), robust(picture()))
    asked = len(served.asked)
    again = upright.load("me/robust", robust.model, local_files_only=True)
    assert torch.equal(again(picture()), robust(picture()))
    assert len(served.asked) == asked
    for settings, why in (({}, "cannot be reached"), ({"local_files_only": True}, "is not asked")):
        with pytest.raises(hub.LoadError, match=rf"'me/other' .* \(it {why}.*cache here does not hold it"):
            upright.load("me/other", robust.model, **settings)
    with pytest.raises(ConnectionError, match=r"cannot be reached at http.* nothing was uploaded"):
        robust.push_to_hub("me/robust", token=TOKEN)
    assert time.monotonic() - start < 20


def test_a_machine_without_network_says_so_at_once(monkeypatch, tmp_path):
    def absent(*args, **kwargs):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", absent)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    start = time.monotonic()
    with pytest.raises(hub.LoadError, match="could not be fetched from the hub"):
        upright.load("me/robust", model())
    with pytest.raises(ConnectionError, match="nothing was uploaded"):
        adapted().push_to_hub("me/robust")
    assert time.monotonic() - start < 10


def test_refusals_say_what_to_do(served):
    with pytest.raises(PermissionError, match=r"does not let you write to 'me/robust' .*hf auth login"):
        adapted().push_to_hub("me/robust", token="hf_wrong")
    with pytest.raises(ValueError, match="repo_id must be 'name' or 'owner/name', got 'a/b/c'"):
        adapted().push_to_hub("a/b/c", token=TOKEN)
    with pytest.raises(hub.LoadError, match="the hub has no model 'me/typo'"):
        upright.load("me/typo", model())
    adapted().push_to_hub("me/robust", token=TOKEN)
    with pytest.raises(hub.LoadError, match="'me/robust' is no folder here and could not be fetched"):
        upright.load("me/robust", model(), revision="no-such-branch")
    with pytest.raises(TypeError, match="unknown argument 'revison'; expected one of cache_dir"):
        upright.load("me/robust", model(), revison="main")


def test_foreign_and_damaged_repositories_are_refused(served, tmp_path):
    served.commits["me/vit"] = [("1" * 40, {"config.json": b"{}", "README.md": b"hi"}, "")]
    served.private["me/vit"] = False
    with pytest.raises(hub.LoadError, match="was not saved by upright"):
        upright.load("me/vit", model())
    adapted().push_to_hub("me/robust", token=TOKEN)
    files = served.files("me/robust")
    files[hub.WEIGHTS] = files[hub.WEIGHTS][:-1] + b"\0"
    with pytest.raises(hub.LoadError, match=r"is damaged .*checksum"):
        upright.load("me/robust", model())


def test_manifests_of_the_hub_open_no_other_file(tmp_path):
    robust = several()
    hub.save(robust, tmp_path / "s")
    data = json.loads((tmp_path / "s" / hub.MANIFEST).read_text())
    others = {"../../x": data["others"]["flips"]}
    data["others"] = others
    (tmp_path / "s" / hub.MANIFEST).write_text(json.dumps(data))
    with pytest.raises(hub.LoadError, match="has a name that cannot be"):
        upright.load(tmp_path / "s", robust.model)


def test_the_mixin_of_the_hub_is_called_alike():
    mixin, ours = huggingface_hub.ModelHubMixin, upright.Adapted
    theirs = {
        n: set(inspect.signature(getattr(mixin, n)).parameters) for n in ("push_to_hub", "from_pretrained")
    }
    settings = set(hub.Upload.__annotations__) | {"self", "repo_id"}
    own = {"config", "model_card_kwargs"}  # `report` and `card` take their place
    assert theirs["push_to_hub"] - own == settings
    fetched = set(hub.Download.__annotations__) | {"pretrained_model_name_or_path", "model_kwargs"}
    assert theirs["from_pretrained"] == fetched
    for name in ("save_pretrained", "from_pretrained", "push_to_hub"):
        first = [list(inspect.signature(getattr(kind, name)).parameters)[:2] for kind in (mixin, ours)]
        assert first[0][0] == first[1][0]
    saving = inspect.signature(mixin.save_pretrained).parameters
    assert {"save_directory", "push_to_hub", "repo_id"} <= set(saving) & set(
        inspect.signature(ours.save_pretrained).parameters
    )


def test_cards_are_read_by_the_hub_client(served):
    adapted().push_to_hub("me/robust", token=TOKEN, model_reference="google/vit-base-patch16-224")
    card = ModelCard(served.files("me/robust")[hub.CARD].decode())
    assert card.data.library_name == "upright"
    assert card.data.tags == ["equivariance", "canonicalization", "C4"]
    assert card.data.base_model == "google/vit-base-patch16-224"


def test_the_page(served, monkeypatch, tmp_path):
    """What ``docs/hub.md`` says of the hub runs, in its order."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    robust = adapted()
    data = torch.rand(6, 3, 20, 20), torch.arange(6) % 5
    report = upright.evaluate(robust, data, leakage_limit=None, overhead=False, progress=False)
    report.save("report.json")
    names = {"upright": upright, "robust": robust, "model": robust.model}
    names["report"] = upright.Report.load("report.json")
    (block,) = re.findall(
        r"```py\n(.*?)```", (Path(__file__).parents[1] / "docs" / "hub.md").read_text(), re.S
    )
    exec(compile(block, "hub.md", "exec"), names)
    assert len(served.commits["me/robust"]) == 3
    (_, first, _), (_, second, _), (_, third, _) = served.commits["me/robust"]
    assert first[hub.WEIGHTS] == third[hub.WEIGHTS]
    assert b"worst pose" in first[hub.CARD]
    assert second[hub.CARD] == third[hub.CARD] == (tmp_path / "robust" / hub.CARD).read_bytes()
    assert torch.equal(names["robust"](picture()), robust(picture()))
