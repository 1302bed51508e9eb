"""What is exported computes what the model computes, by ONNX Runtime and as a torch program alone.

Pictures turn in every way, batches and sizes differ from those traced, and quarter turns stay exact.
"""

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import upright
from upright.actions.grid import _gather_rectangles, permuted
from upright.canonicalizers.orthogonal import _nearest_in_graph, determinant, jacobi, nearest_orthogonal
from upright.deploy import ExportError
from upright.groups.planar import SideCoset
from upright.nets.thumbnail import _thumbnail_of_any_size, thumbnail

traces = pytest.mark.skipif(
    tuple(int(n) for n in torch.__version__.split(".")[:2]) < (2, 13),
    reason="torch 2.7 cannot trace the networks; 2.13 is the oldest that was seen to",
)

SMALL = {
    "group_cnn": {"widths": (3, 4)},
    "polar": {"widths": (3, 4), "rings": 4},
}
NETWORKS = [("D4", "group_cnn"), ("C8", "polar"), ("SO2", "polar")]


class Dense(nn.Module):
    """A mask that knows where up is, with a stride: not equivariant."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3, stride=2, padding=1)

    def forward(self, x):
        return self.conv(x)


def canonicalizer(group, network="group_cnn", size=16):
    """A small canonicalizer whose weights say something."""
    made = upright.canonicalizer(group, network, size=size, options=SMALL[network]).eval()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3)
    return made


def pictures(*shape):
    """Smooth pictures, of which no turn looks like another."""
    blots = torch.rand(*shape[:2], 6, 6)
    return nn.functional.interpolate(blots, shape[2:], mode="bicubic").clamp(0, 1)


def session(path):
    return pytest.importorskip("onnxruntime").InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@traces
@pytest.mark.parametrize(("group", "network"), NETWORKS)
def test_canonicalizers_compile_whole(group, network):
    torch.compiler.reset()
    c = canonicalizer(group, network, 24)
    robust = upright.adapt(Dense(), group, canonicalizer=c, outputs="mask").eval()
    x = pictures(2, 3, 32, 32)
    with torch.no_grad():
        compiled = torch.compile(robust, fullgraph=True, backend="eager")(x)
        torch.testing.assert_close(compiled, robust(x), atol=1e-4, rtol=1e-4)


@traces
def test_pipeline_of_any_size_is_exact(tmp_path):
    """Sizes and shapes other than those traced; masks go back bit for bit where the model's are."""
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    robust = upright.adapt(Dense(), "D4", canonicalizer=canonicalizer("D4"), outputs="mask").eval()
    made = upright.export(
        robust, tmp_path / "m.onnx", pictures(1, 3, 30, 40), dynamic=("batch", "size"), poses=True
    )
    assert made.inputs == {"x": ("batch", 3, "height", "width")}
    assert made.outputs == ("output", "pose", "degrees", "reflected", "confidence")
    assert made.difference < 1e-5
    run = session(made.path)
    for shape in [(1, 3, 24, 24), (4, 3, 24, 37), (3, 3, 41, 26), (1, 3, 19, 44)]:
        x = pictures(*shape)
        x[-1] = x[-1].flip(-1)
        with torch.no_grad():
            want = robust.run(x)
        mask, pose, *_ = run.run(None, {"x": x.numpy()})
        assert np.array_equal(pose, want.pose.element.value.numpy())
        assert mask.shape == tuple(want.output.shape)
        np.testing.assert_allclose(mask, want.output.numpy(), atol=1e-5)
    meta = run.get_modelmeta().custom_metadata_map
    assert (meta["upright.group"], meta["upright.version"]) == ("D4", upright.__version__)
    assert runtime.__version__


@traces
def test_preprocessing_turns_pixels_without_arithmetic(tmp_path):
    pytest.importorskip("onnxscript")
    c = canonicalizer("C4")
    x = (255 * pictures(1, 3, 30, 46)).byte()
    made = upright.export(c, tmp_path / "p.onnx", x, part="preprocessing", dynamic=("size",))
    run = session(made.path)
    seen = set()
    for turns in range(4):
        turned = x.rot90(turns, (2, 3))
        upright_picture, pose, degrees, confidence = run.run(None, {"pictures": turned.numpy()})
        back = act_back(c, turned)
        assert np.array_equal(upright_picture, back.numpy())  # bit for bit, in the shape it has upright
        assert degrees.item() == 90 * pose.item()
        assert 0.25 <= confidence.item() <= 1
        seen.add(pose.item())
    assert seen == {0, 1, 2, 3}


def act_back(c, x):
    with torch.no_grad():
        g = c(x).element
    return upright.act(~g, upright.Image(x)).data


@traces
def test_resampling_pipeline(tmp_path):
    """C8 resamples; pictures that are not square lie on squares, as the adapter places them."""
    pytest.importorskip("onnxscript")
    model = Dense()
    robust = upright.adapt(
        model, "C8", canonicalizer=canonicalizer("C8", "polar"), outputs="mask", canvas="pad"
    ).eval()
    made = upright.export(robust, tmp_path / "m.onnx", pictures(2, 3, 24, 32))
    assert made.difference < 1e-4
    with pytest.raises(ValueError, match="canvas='pad'"):
        upright.export(robust.replace(canvas="bucket"), tmp_path / "n.onnx", pictures(2, 3, 24, 32))
    assert not (tmp_path / "n.onnx").exists()


@traces
@pytest.mark.parametrize(("group", "network"), NETWORKS[1:])
def test_canonicalizers_trace_with_open_shapes(tmp_path, group, network):
    made = upright.export(
        canonicalizer(group, network, 24), tmp_path / "c.pt2", pictures(1, 3, 32, 32), format="pt2",
        dynamic=("batch", "size"),
    )  # fmt: skip
    assert made.difference < 1e-2
    extra = {"upright.group": ""}
    torch.export.load(made.path, extra_files=extra)
    assert extra["upright.group"] == group


@traces
def test_volumes_trace(tmp_path):
    cube = upright.canonicalizer("octahedral", size=8).eval()
    made = upright.export(cube, tmp_path / "v.pt2", torch.rand(2, 1, 10, 10, 10), format="pt2")
    assert made.difference < 1e-4


def test_axes_in_graphs_are_those_of_lapack():
    """Of ordinary, nearly diagonal and nearly flat matrices; exactly equal extents too."""
    m = torch.randn(300, 3, 3, dtype=torch.float64)
    m[:100, :, 2] *= 1e-5
    spread = m @ m.mT
    spread[100:200] = torch.diag_embed(spread[100:200].diagonal(dim1=1, dim2=2)) + 1e-4 * spread[100:200]
    spread[0] = torch.eye(3)
    values, axes = jacobi(spread)
    scale = spread.abs().amax((1, 2), keepdim=True)
    torch.testing.assert_close(values / scale[..., 0], torch.linalg.eigvalsh(spread) / scale[..., 0])
    torch.testing.assert_close(axes @ torch.diag_embed(values) @ axes.mT / scale, spread / scale)
    for reflects in (True, False):
        got, want = _nearest_in_graph(m, reflects), nearest_orthogonal(m, reflects)
        torch.testing.assert_close(got, want, atol=1e-9, rtol=0)
        assert torch.allclose(determinant(got), torch.linalg.det(want))


@traces
@pytest.mark.parametrize("network", ["pca", "vector_neurons", "spherical"])
def test_clouds_export(tmp_path, network):
    """Frames of clouds, by arithmetic that ONNX has: rotations and centres follow the cloud."""
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    c = upright.canonicalizer("SE3", network).eval()
    x = torch.randn(2, 30, 3) * torch.tensor([1.0, 0.7, 0.4]) + torch.rand(2, 30, 3) ** 2
    made = upright.export(c, tmp_path / "c.onnx", x, part="canonicalizer")
    assert made.difference < (1e-9 if network == "pca" else 1e-5)  # networks answer in float32
    assert made.inputs == {"pictures": ("batch", 30, 3)}
    more = torch.cat([x, x @ upright.parse_group("SO3").sample(1).value[0].float()])
    pose, *_ = session(made.path).run(None, {"pictures": more.numpy()})
    np.testing.assert_allclose(pose, c(more).element.value.detach().numpy(), atol=1e-5)


@traces
def test_eight_bits(tmp_path):
    """Rounded weights, and still a turn of the picture is a turn of the pose, but for near ties."""
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    c = upright.canonicalizer("C4", size=16, options={"widths": (8, 8), "strides": (2, 2)}).eval()
    x = pictures(6, 3, 20, 20)
    full = upright.export(c, tmp_path / "full.onnx", x, part="canonicalizer")
    made = upright.deploy.quantize(full.path, tmp_path / "int8.onnx", x.split(3))
    assert made.pictures == 6
    assert made.agreement >= 0.5
    run = session(made.path)
    types = {node.op_type for node in pytest.importorskip("onnx").load(made.path).graph.node}
    assert "QuantizeLinear" in types
    poses = [run.run(["pose"], {"pictures": x.rot90(k, (2, 3)).numpy()})[0] for k in range(4)]
    follow = np.stack([poses[k] == (poses[0] + k) % 4 for k in range(4)])
    assert follow.mean() > 0.8  # near ties may be rounded either way
    with pytest.raises(ValueError, match="pictures must be given"):
        upright.deploy.quantize(full.path, tmp_path / "none.onnx", [])


def test_thumbnails_of_any_size_are_those_of_the_adapter():
    generator = torch.Generator().manual_seed(1)
    for _ in range(30):
        height, width = (int(n) for n in torch.randint(5, 400, (2,), generator=generator))
        x = torch.rand(1, 1, height, width)
        got = _thumbnail_of_any_size(x, 12, torch.float32)
        torch.testing.assert_close(got, thumbnail(x, 12), atol=2e-6, rtol=0)


def test_rectangles_move_as_one_by_one():
    x = torch.arange(2 * 3 * 4 * 5).view(2, 3, 4, 5)
    for first in range(8):
        for second in range(first % 2, 8, 2):
            moved = _gather_rectangles(x, torch.tensor([first, second]), bool(first % 2))
            assert torch.equal(moved, torch.stack([permuted(x[0], first), permuted(x[1], second)]))


def test_side_cosets_are_the_elements_that_swap():
    group = upright.Dihedral(4)
    for swaps in (False, True):
        coset = SideCoset(group, swaps)
        g = upright.Element(coset, torch.arange(int(swaps), 8, 2))
        whole = upright.Element(group, g.value)
        assert coset.swaps_sides is swaps
        assert torch.equal(g.inverse().value, whole.inverse().value)
        assert (g.inverse().value % 2 == swaps).all()
        assert torch.equal(g.compose(g.inverse()).value, group.identity(4).value)
        box = upright.Boxes(torch.tensor([[[1.0, 2.0, 5.0, 4.0]]]).expand(4, 1, 4), size=(6, 10))
        moved, expected = upright.act(g, box), upright.act(whole, box)
        assert torch.equal(moved.data, expected.data)
        assert moved.size == expected.size
    with pytest.raises(ValueError, match="C4 or D4"):
        SideCoset(upright.Cyclic(8), True)


@traces
def test_disagreement_writes_nothing(tmp_path):
    """A file that does not agree, or cannot be made, leaves the older one as it was."""
    target = tmp_path / "c.pt2"
    target.write_bytes(b"old")
    c = canonicalizer("C4")
    with pytest.raises(ExportError, match="differs"):
        upright.export(c, target, pictures(1, 3, 20, 20), format="pt2", tolerance=-1.0)
    robust = upright.adapt(Dense(), canonicalizer=c, outputs="mask", mode="average")
    with pytest.raises(ValueError, match="mode='canonical'"):
        upright.export(robust, target, pictures(1, 3, 20, 20))
    listed = upright.adapt(lambda x: [{"boxes": torch.zeros(1, 4)} for _ in x], canonicalizer=c)
    with pytest.raises(TypeError, match="preprocessing"):
        upright.export(listed.replace(outputs={"boxes": "boxes"}), target, pictures(1, 3, 20, 20))
    with pytest.raises(ValueError, match="several shapes"):
        upright.export(c, target, pictures(2, 3, 20, 24), part="preprocessing")
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"format": "tflite"}, "format must be one of"),
        ({"part": "head"}, "part must be one of"),
        ({"dynamic": ("width",)}, "dynamic must be one of"),
        ({"dynamic": ("size", "square")}, "got both"),
    ],
)
def test_mistakes_are_named(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        upright.export(canonicalizer("C4"), tmp_path / "c.onnx", pictures(1, 3, 20, 20), **settings)


@traces
def test_command_line(tmp_path, capsys):
    pytest.importorskip("onnxscript")
    from upright.cli import main

    saved = tmp_path / "saved"
    upright.hub.save(canonicalizer("C4"), saved)
    target = tmp_path / "p.onnx"
    assert main(["export", str(saved), "--output", str(target), "--size", "32"]) == 0
    said = capsys.readouterr().out
    assert "preprocessing of C4" in said
    assert "in:  pictures (batch, 3, 32, 32)" in said
    assert "worst difference" in said
    assert session(target).run(None, {"pictures": np.zeros((2, 3, 32, 32), np.float32)})[0].shape[0] == 2
    for flags, message in [
        ([str(saved)], "--output is missing"),
        ([str(saved), "--output", "x.tflite"], "must end in"),
        ([str(saved), "--output", str(target), "--part", "pipeline"], "needs a model"),
        ([str(saved), "--output", str(target), "--picture", __file__], "test_export.py cannot be read"),
    ]:
        assert main(["export", *flags]) == 2
        assert message in capsys.readouterr().err


def test_two_batches_in_flight():
    """Nothing is kept between calls: threads do not see each other's poses."""
    robust = upright.adapt(Dense(), canonicalizer=canonicalizer("C4"), outputs="mask").eval()
    batches = [pictures(3, 3, 24, 24), pictures(3, 3, 24, 24).rot90(1, (2, 3))]
    with torch.no_grad():
        wanted = [robust(x) for x in batches]
    found = [[], []]

    def work(i):
        with torch.no_grad():
            found[i].extend(robust(batches[i]) for _ in range(20))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for want, got in zip(wanted, found, strict=True):
        assert len(got) == 20
        assert all(torch.equal(want, one) for one in got)


def test_data_parallel_changes_nothing():
    """DataParallel wraps an adapted model; its threads compute what one device does."""
    robust = upright.adapt(Dense(), canonicalizer=canonicalizer("C4"), outputs="mask").eval()
    wrapped = nn.DataParallel(robust)
    x = torch.cat([pictures(2, 3, 24, 24), pictures(2, 3, 24, 24).rot90(1, (2, 3))])

    def run(replica, part):
        with torch.no_grad():
            return replica(part)

    with torch.no_grad():
        want = robust(x)
        assert torch.equal(wrapped(x), want)
    replicas = [robust._replicate_for_data_parallel() for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        parts = list(pool.map(run, replicas, [x[:2], x[2:]]))
    assert torch.equal(torch.cat(parts), want)


WORKER = """
import sys, torch, torch.distributed as dist, upright
from torch import nn
from torch.nn.parallel import DistributedDataParallel
rank, store = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
torch.manual_seed(0)
c = upright.canonicalizer("C4", size=16)
model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
robust = DistributedDataParallel(upright.adapt(model, canonicalizer=c).train(), find_unused_parameters=True)
x = torch.rand(8, 3, 20, 20)
loss = robust(x[rank * 4 : rank * 4 + 4]).square().mean()
loss.backward()
total = sum(float(p.grad.abs().sum()) for p in robust.parameters() if p.grad is not None)
print(f"{total:.6f}")
dist.destroy_process_group()
"""


def test_two_processes_train_together(tmp_path):
    """DistributedDataParallel over gloo: gradients of both halves of a batch arrive in both processes."""
    if not torch.distributed.is_gloo_available():
        pytest.skip("torch was built without gloo")
    started = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(rank), str(tmp_path / "store")],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=100) for process in started]
    finally:
        for process in started:
            process.kill()
    assert all(process.returncode == 0 for process in started), [err[-800:] for _, err in said]
    totals = {out.strip().splitlines()[-1] for out, _ in said}
    assert len(totals) == 1
    assert float(totals.pop()) > 0


@traces
def test_the_page_runs(tmp_path, monkeypatch):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    import re

    text = (Path(__file__).parents[1] / "docs" / "export.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 2
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(upright, "adapt", small_adapt(upright.adapt))
    names = {"model": Dense().eval(), "photo": pictures(1, 3, 48, 48)}
    for block in blocks:
        exec(compile(block, "export.md", "exec"), names)
    assert np.array_equal(names["mask"].shape, names["expected"].shape)
    np.testing.assert_allclose(names["mask"], names["expected"], atol=1e-5)
    assert json.loads(json.dumps(names["about"]))["upright.group"] == "C4"


def small_adapt(adapt):
    """A small canonicalizer in the place of the ready-made one, which takes seconds to export."""
    return lambda model, group="C4", **settings: adapt(
        model, group, **{"canonicalizer": canonicalizer("C4"), **settings}
    )
