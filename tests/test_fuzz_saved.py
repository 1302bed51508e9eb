"""Whatever stands in saved folders, reports, settings and checkpoints: loaded, or refused in one sentence.

Nothing of it is run, nothing is unpickled, and no file makes the library take more memory than it holds.
"""

import ast
import io
import json
import pickle
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import upright
from damage import attempt, bounded, damaged, odd_json
from test_hub import adapted, edit, model, small
from upright import hub
from upright._budget import LEAST, Budget
from upright.cli.config import _read
from upright.cli.errors import UserError

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A saved folder of two canonicalizers, without checksums, its manifest and its weights as they were."""
    folder = tmp_path_factory.mktemp("saved") / "s"
    gate = upright.Gate(0.3)
    robust = adapted(mode="top_k", top_k=2, gate=gate, outputs={"scores": "logits"})
    robust.canonicalizer.deployment_prior = upright.CategoricalPrior([4, 2, 1, 1])
    hub.save(robust.with_canonicalizer("flips", small("D4")), folder)
    data = json.loads((folder / hub.MANIFEST).read_text())
    data["weights"]["sha256"] = data["others"]["flips"]["weights"]["sha256"] = None
    (folder / hub.MANIFEST).write_text(json.dumps(data))
    return folder, data, (folder / hub.WEIGHTS).read_bytes()


def load(folder):
    return attempt(lambda: upright.load(folder, model()), hub.LoadError)


def test_what_is_damaged_here_can_be_loaded(saved):
    assert list(load(saved[0]).canonicalizers) == ["default", "flips"]


@bounded(250)
@given(data=st.data())
def test_odd_manifests(saved, data):
    folder, manifest, weights = saved
    (folder / hub.WEIGHTS).write_bytes(weights)
    (folder / hub.MANIFEST).write_text(json.dumps(data.draw(odd_json(manifest))))
    load(folder)


@bounded(100)
@given(data=st.data())
def test_damaged_manifests(saved, data):
    folder, manifest, _ = saved
    (folder / hub.MANIFEST).write_bytes(data.draw(damaged(json.dumps(manifest).encode())))
    load(folder)


@bounded(120)
@given(data=st.data())
def test_damaged_weights(saved, data):
    folder, manifest, weights = saved
    (folder / hub.MANIFEST).write_text(json.dumps(manifest))
    length = int.from_bytes(weights[:8], "little") + 8
    head = data.draw(damaged(weights[:length]))  # all that tells tensors apart stands in the head
    (folder / hub.WEIGHTS).write_bytes(head + weights[length:])
    load(folder)
    (folder / hub.WEIGHTS).write_bytes(data.draw(damaged(weights)))
    robust = load(folder)
    if robust is not None:
        assert all(bool(p.isfinite().all()) for p in robust.canonicalizer.parameters())


@pytest.mark.parametrize(
    "text", ["[" * 200_000, '{"a":' * 100_000, '{"library": "upright"}', "", "\ufeff{}", "NaN"]
)
def test_manifests_of_no_sense(saved, text):
    folder, manifest, _ = saved
    (folder / hub.MANIFEST).write_text(text)
    assert load(folder) is None
    (folder / hub.MANIFEST).write_text(json.dumps(manifest))


BOMBS = {
    "wide": {"options": {"widths": [60_000, 60_000], "strides": [2, 2]}},
    "wide, lite": {"network": "lite", "options": {"blocks": 14, "width": 10**6}},
    "many classes": {"options": {"vector": 10**10}},
    "channels": {"channels": 10**9},
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_manifests_of_a_few_bytes_take_no_memory(tmp_path, bomb):
    resource = pytest.importorskip("resource")
    hub.save(adapted().canonicalizer, tmp_path / "s")
    edit(tmp_path / "s", canonicalizer=BOMBS[bomb])
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(hub.LoadError):
        hub.load_canonicalizer(tmp_path / "s")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400 * 1024  # KiB
    assert time.process_time() - start < 5


@pytest.mark.parametrize("group", ["C1000000000", "D1000000000", "hue999999999"])
def test_large_groups_take_no_memory_until_they_are_used(tmp_path, group):
    resource = pytest.importorskip("resource")
    hub.save(adapted().canonicalizer, tmp_path / "s")
    edit(tmp_path / "s", canonicalizer={"group": group}, group=group)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    attempt(lambda: hub.load_canonicalizer(tmp_path / "s"), hub.LoadError)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400 * 1024  # KiB


def test_the_budget_counts_before_memory_is_taken():
    calls = [
        lambda n: torch.empty(n, 2), lambda n: torch.zeros((n, 2)), lambda n: torch.ones(size=(n, 2)),
        lambda n: torch.full((n, 2), 1.0), lambda n: torch.rand(n, 2), lambda n: torch.arange(n * 2),
        lambda n: torch.arange(0, 4 * n, 2), lambda n: torch.eye(n, 2), lambda n: torch.nn.Linear(n, 2),
    ]  # fmt: skip
    for call in calls:
        with Budget(0):
            call(3)
            with pytest.raises(
                ValueError, match=r"asks for a tensor of [\d,]+ numbers, more than the 16,777"
            ):
                call(10**13)
    with Budget(LEAST + 5):
        assert torch.empty(LEAST + 5, device="meta").numel() == LEAST + 5


class Runs:
    """What a pickle can do: call any function when it is read."""

    def __reduce__(self):
        return exec, ("raise SystemError('it was unpickled')",)


def pickled(path, content):
    """Write a file as `torch.save` does, or as `pickle` does."""
    file = io.BytesIO()
    torch.save(content, file) if path.suffix != ".pkl" else pickle.dump(content, file)
    path.write_bytes(file.getvalue())


def test_pickles_are_not_read_in_any_place(tmp_path, saved):
    from upright.evaluation.annotations import read_map
    from upright.training.callbacks import AtomicCheckpoints

    folder, manifest, weights = saved
    (folder / hub.MANIFEST).write_text(json.dumps(manifest))
    for suffix in ("pt", "pkl"):
        pickled(tmp_path / f"x.{suffix}", {"weights": Runs()})
        data = (tmp_path / f"x.{suffix}").read_bytes()
        (folder / hub.WEIGHTS).write_bytes(data)
        with pytest.raises(hub.LoadError, match="is damaged"):
            upright.load(folder, model())
        with pytest.raises(ValueError, match="is not a checkpoint that can be read"):
            AtomicCheckpoints().load_checkpoint(tmp_path / f"x.{suffix}")
    import numpy as np

    np.save(tmp_path / "m.npy", np.array([[Runs()]], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"m\.npy cannot be read: Object arrays cannot be loaded"):
        read_map(tmp_path / "m.npy", (1, 1))
    (folder / hub.WEIGHTS).write_bytes(weights)


def test_resuming_runs_nothing_and_says_what_is_wrong(tmp_path):
    """A checkpoint of Lightning is a pickle; `fit` reads tensors and plain data of it, and nothing else."""
    pictures = torch.rand(8, 3, 20, 20)
    options = {"max_steps": 1, "batch_size": 4, "progress": False}
    upright.fit(adapted(), pictures, output=tmp_path / "run", **options)
    last = tmp_path / "run" / "last.ckpt"
    content = torch.load(last, weights_only=True)  # all of it is plain
    assert "state_dict" in content
    pickled(last, {**content, "callbacks": Runs()})
    for damage in (None, lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"PK" * 40):
        if damage is not None:
            last.write_bytes(damage(last.read_bytes()))
        with pytest.raises(ValueError, match=r"last\.ckpt is not a checkpoint that can be read"):
            upright.fit(adapted(), pictures, output=tmp_path / "run", resume=True, **options)


READERS = {
    ("torch", "load"): "weights_only",
    ("np", "load"): "allow_pickle",
    ("numpy", "load"): "allow_pickle",
}
FORBIDDEN = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}


def unsafe(tree):
    """Return lines that read pickles, or run what a file says."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [node.lineno for name in names if name.partition(".")[0] in FORBIDDEN]
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec"):
            found.append(node.lineno)
        if not (isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name)):
            continue
        module, name = node.func.value.id, node.func.attr
        given_ = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
        wanted = READERS.get((module, name))
        if wanted is not None and given_.get(wanted) is not (wanted == "weights_only"):
            found.append(node.lineno)
        if module == "yaml" and name in ("load", "load_all", "full_load", "unsafe_load"):
            found.append(node.lineno)
        if given_.get("allow_pickle") is True or given_.get("weights_only") is False:
            found.append(node.lineno)
    return found


def test_no_line_reads_pickles():
    places = [p for folder in ("src", "benchmarks", "recipes") for p in (ROOT / folder).rglob("*.py")]
    assert len(places) > 200
    found = [f"{p.relative_to(ROOT)}:{line}" for p in places for line in unsafe(ast.parse(p.read_text()))]
    assert found == []


LINES = [
    "import pickle", "from joblib import load", "torch.load(f)", "torch.load(f, weights_only=False)",
    "np.load(f)", "np.load(f, allow_pickle=True)", "yaml.load(f, Loader=yaml.Loader)", "eval(text)",
    "read(f)(f)\nx.read(f, allow_pickle=True)",
]  # fmt: skip


@pytest.mark.parametrize("line", LINES)
def test_lines_that_would_are_found(line):
    assert unsafe(ast.parse(line))
    assert not unsafe(ast.parse("torch.load(f, weights_only=True)\nnp.load(f, allow_pickle=False)"))


@pytest.fixture(scope="module")
def report():
    data = torch.rand(6, 3, 20, 20), torch.arange(6) % 5
    made = upright.evaluate(adapted(), data, leakage_limit=None, overhead=False, progress=False)
    return json.loads(made.to_json())


@bounded(150)
@given(data=st.data())
def test_odd_and_damaged_reports(tmp_path, report, data):
    path = tmp_path / "report.json"
    path.write_text(json.dumps(data.draw(odd_json(report))))
    attempt(lambda: upright.Report.load(path), ValueError)
    path.write_bytes(data.draw(damaged(json.dumps(report).encode())))
    attempt(lambda: upright.Report.load(path), ValueError)


def test_deeply_nested_reports(tmp_path):
    (tmp_path / "r.json").write_text("[" * 200_000)
    with pytest.raises(ValueError, match=r"r\.json must be a report"):
        upright.Report.load(tmp_path / "r.json")


SETTINGS = b"group: C4\nsize: [1, 2]\nmodel: &a x\nb: {c: *a}\nd: !!python/name:os.system\n"


@bounded(120)
@given(data=st.data())
def test_damaged_settings(tmp_path, data):
    path = tmp_path / "c.yaml"
    path.write_bytes(data.draw(damaged(SETTINGS, SETTINGS.replace(b"d: !!python/name:os.system\n", b""))))
    found = attempt(lambda: _read(str(path)), UserError)
    assert found is None or isinstance(found, dict)


@pytest.mark.parametrize(
    "text", ["a: !!python/object/apply:os.system ['exit 3']", "a: !!python/name:os.system", "[" * 5_000]
)
def test_settings_of_no_sense_are_refused(tmp_path, text):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(UserError, match=r"c\.yaml is no readable YAML file"):
        _read(str(tmp_path / "c.yaml"))


def test_settings_that_grow_when_they_are_shown(tmp_path, capsys):
    """Ten lines of ten aliases each: a billion words, if anyone writes them out."""
    from upright.cli import main

    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    (tmp_path / "c.yaml").write_text("\n".join([*lines, "group: *a8"]))
    for text in ((tmp_path / "c.yaml").read_text(), "group: &a0 [" + "x" * 10**6 + "]"):
        (tmp_path / "c.yaml").write_text(text)
        assert main(["adapt", "--config", str(tmp_path / "c.yaml")]) != 0
        assert len(capsys.readouterr().err) < 2000
