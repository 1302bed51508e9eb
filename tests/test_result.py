"""What a model returns keeps its structure: tuples, dataclasses, lists of dicts, text."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass, field

import pytest
import torch
from torch import nn

from adapter_toys import SHAPES, Classifier, Dense, Known, detector, pictures, small, spot_finder
from cases import name
from upright import Adapted
from upright.testing import assert_adapted


@dataclass
class Output:
    logits: torch.Tensor
    mask: torch.Tensor
    note: str = "kept"
    extra: tuple = ()
    made: int = field(default=3, init=False)


Named = namedtuple("Named", ["logits", "mask"])


class Many(nn.Module):
    def __init__(self, build):
        super().__init__()
        self.classifier, self.dense, self.build = Classifier(), Dense(), build

    def forward(self, x):
        return self.build(self.classifier(x), self.dense(x))


BUILDS = {
    "tuple": (lambda a, b: (a, b), {0: "logits", 1: "image"}),
    "named tuple": (Named, {0: "logits", 1: "image"}),
    "dict": (lambda a, b: {"logits": a, "mask": b}, {"logits": "logits", "mask": "image"}),
    "ordered dict": (lambda a, b: OrderedDict(logits=a, mask=b), {"mask": "image"}),
    "dataclass": (lambda a, b: Output(a, b, extra=(a, {"deep": [a]})), {"mask": "image"}),
    "nested": (lambda a, b: {"logits": a, "maps": [b, {"half": b[..., ::1]}]}, {"maps": "image"}),
}


@pytest.mark.parametrize("size", [(12, 12), (10, 16)], ids=name)
@pytest.mark.parametrize("structure", BUILDS)
def test_structures_are_the_models_own(structure, size):
    build, outputs = BUILDS[structure]
    assert_adapted(Many(build), small("D4"), pictures(*size), outputs=outputs, trials=2)


def test_dataclasses_keep_their_other_fields():
    build, outputs = BUILDS["dataclass"]
    model = Many(build).eval()
    out = Adapted(model, Known("C4", [0, 1, 0]), outputs=outputs)(torch.rand(3, 3, 8, 12))
    assert isinstance(out, Output)
    assert (out.note, out.made) == ("kept", 3)
    assert torch.equal(out.extra[1]["deep"][0], out.extra[0])  # tensors of all buckets, also in depth
    assert out.extra[0].shape[0] == 3


def test_transformers_outputs():
    outputs = pytest.importorskip("transformers.modeling_outputs")

    def model(pixel_values, **kwargs):
        grey = pixel_values.mean((1, 2, 3))[:, None]
        return outputs.ImageClassifierOutput(
            logits=grey * torch.arange(1.0, 4), hidden_states=(pixel_values,)
        )

    adapted = Adapted(model, Known("C4", [1, 2]))
    out = adapted(pixel_values=torch.rand(2, 3, 6, 6), return_dict=True)
    assert isinstance(out, outputs.ImageClassifierOutput)
    assert out.logits.shape == (2, 3)
    assert out.loss is None
    assert out.hidden_states[0].shape == (2, 3, 6, 6)


@pytest.mark.parametrize("as_list", [False, True])
@pytest.mark.parametrize("canvas", ["bucket", "pad"])
@pytest.mark.parametrize("size", SHAPES, ids=name)
def test_detectors_return_a_list_of_dicts(size, canvas, as_list):
    x = torch.rand(5, 3, *size)
    adapted = Adapted(
        detector, Known("D4", [0, 1, 5, 2, 3]), outputs={"boxes": "boxes", "masks": "mask"}, canvas=canvas
    )
    out = adapted(list(x) if as_list else x)
    assert isinstance(out, list)
    assert len(out) == 5
    for found, p in zip(out, x, strict=True):
        expected = spot_finder(p[None])
        assert torch.equal(found["boxes"][0], expected["box"][0, 0])
        assert torch.equal(found["masks"], expected["mask"])
        assert (found["labels"] == 3).all()


def test_pictures_of_different_sizes():
    x = [torch.rand(3, 4, 6), torch.rand(3, 7, 5), torch.rand(3, 5, 5)]
    adapted = Adapted(detector, Known("D4", [1, 4, 6]), outputs={"boxes": "boxes", "masks": "mask"})
    for found, p in zip(adapted(x), x, strict=True):
        assert torch.equal(found["boxes"][0], spot_finder(p[None])["box"][0, 0])

    def stacked(pictures):  # boxes of all pictures in one tensor, each on the canvas of its own
        return torch.cat([spot_finder(p[None])["box"] for p in pictures])

    found = Adapted(stacked, Known("D4", [1, 4, 6]), outputs="boxes")(x)
    assert torch.equal(found, stacked(x))


def test_models_that_return_text():
    adapted = Adapted(lambda x: ["upright"] * len(x), Known("C4", [0, 1]))
    assert adapted(torch.rand(2, 3, 4, 4)) == ["upright"] * 2
    assert Adapted(lambda x: "one answer", Known("C4", [0, 1]))(torch.rand(2, 3, 4, 4)) == "one answer"


def test_output_errors():
    x, c = torch.rand(2, 3, 8, 8), Known("C4", [0, 1])
    with pytest.raises(TypeError, match=r"names entries .*, but the model returned one tensor"):
        Adapted(Classifier(), c, outputs={"logits": "logits"})(x)
    with pytest.raises(KeyError, match="which the model did not return; it returned"):
        Adapted(lambda x: {"a": x}, c, outputs={"b": "image"})(x)
    with pytest.raises(KeyError, match="which the model did not return"):
        Adapted(lambda x: (x,), c, outputs={1: "image"})(x)
    with pytest.raises(ValueError, match="returned a list of 3 entries for 2 pictures"):
        Adapted(lambda x: [1, 2, 3], c)(x)
    with pytest.raises(
        TypeError, match="needs a tensor, tuple, dict or dataclass, but the model returned object"
    ):
        Adapted(lambda x: object(), c, outputs="mask")(x)
    wide = torch.rand(2, 3, 6, 9)
    for kind, shape in (("oriented_boxes", (2, 1, 5)), ("vector_field", (2, 2, 9, 9))):
        with pytest.raises(ValueError, match="canvas='stretch' cannot take"):
            Adapted(lambda x, shape=shape: torch.zeros(shape), c, outputs=kind, canvas="stretch")(wide)
