"""Two Ray workers do what one process does: batches of ``ray.data``, and the parts of a run."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from cli_work import photo
from streaming_toys import always_right, folder, lying, rows, stands, table, tree
from upright.streaming import on_ray
from upright.streaming.on_ray import CanonicalizeBatch


def test_a_batch_of_encoded_pictures():
    cells = table(5).column("image").to_pylist()
    cells[2] = {"bytes": b"none", "path": "2.png"}
    batch = {"image": np.array(cells, object), "label": np.arange(5)}
    out = CanonicalizeBatch(always_right())(batch)
    assert list(out["label"]) == list(range(5))
    assert all(stands(out["image"][i]["bytes"], i) for i in (0, 1, 3, 4))
    assert out["image"][2] == cells[2]
    assert list(out["pose_action"]) == ["copied", "turned", "bad", "turned", "copied"]
    assert [out["pose_degrees"][i] for i in (0, 1, 3, 4)] == [0, 90, 270, 0]
    assert "identified" in out["pose_error"][2]
    plain = CanonicalizeBatch(always_right(), prefix="")({"image": [lying(1), None]})
    assert stands(plain["image"][0], 1)
    assert list(plain["error"]) == [None, "the cell is empty"]


def test_a_batch_of_arrays():
    pictures = [np.rot90(np.array(photo(i)), i % 4) for i in range(4)]
    out = CanonicalizeBatch(always_right(), column="x")({"x": pictures})
    assert all(np.array_equal(out["x"][i], np.array(photo(i))) for i in range(4))
    assert list(out["pose_degrees"]) == [0, 90, 180, 270]
    with pytest.raises(KeyError, match="no column 'image'; it has x"):
        CanonicalizeBatch(always_right())({"x": pictures})


@pytest.fixture(name="cluster", scope="module")
def two_workers():
    ray = pytest.importorskip("ray")
    paths = [str(Path(__file__).parent), *sys.path]
    env = {"PYTHONPATH": os.pathsep.join(p for p in paths if p), "OMP_NUM_THREADS": "1"}
    ray.init(
        num_cpus=4, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": env},
        configure_logging=False,
    )  # fmt: skip
    yield ray
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_two_workers_stream_the_parts(cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = str(Path(folder("in")).absolute())
    on_ray.canonicalize_here(source, "whole", always_right(), shard_size=2)
    output = str(Path("out").absolute())
    summaries = on_ray.canonicalize(source, output, always_right(), parts=2, shard_size=2)
    assert sum(summary.total for summary in summaries) == 12
    assert all(summary.items for summary in summaries)
    assert tree("out") == tree("whole")
    assert rows("out.manifest") == rows("whole.manifest")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_two_workers_map_batches(cluster, tmp_path):
    import pyarrow.parquet as pq

    pq.write_table(table(10), tmp_path / "a.parquet", row_group_size=5)
    data = cluster.data.read_parquet(str(tmp_path / "a.parquet")).repartition(2)
    done = data.map_batches(
        CanonicalizeBatch,
        fn_constructor_kwargs={"canonicalizer": always_right()},
        batch_size=5,
        concurrency=2,
    )
    found = sorted(done.take_all(), key=lambda row: int(row["image"]["path"][:-4]))
    assert len(found) == 10
    for i, row in enumerate(found):
        assert stands(row["image"]["bytes"], i)
        assert (row["label"], row["pose_degrees"]) == (i % 3, 90 * (i % 4))


def test_ray_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"install it: pip install 'upright\[ray\]'"):
        on_ray.canonicalize("in", "out", always_right(), parts=2)
