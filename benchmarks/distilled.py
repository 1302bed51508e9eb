"""An energy without training, and a network of a fortieth of its price that is taught by it: Tiny-ImageNet.

    python -m benchmarks.distilled --threads 1

The predictor is a published EfficientNet-Lite0. The energy is read from its own answers and layers: logit
energy, entropy, and discriminants of two layers, in closed form from upright references; the weights of
the sum are fitted on other training pictures. The network is taught the energy's posterior, without labels:
the blocks of ``photo-c4`` on thumbnails of 64 pixels, one look a picture, brought into a pose of its own by
coarse brightness (`upright.nets.OrbitVoter` with ``looks=1``), so that it follows quarter turns exactly. The
pictures it is taught on are the references; the energy that judges a picture has not seen it: three parts of
the references are judged each by the energy of the two others.

What the predictor says is kept in the cache, shared with `benchmarks.energies`. Costs are multiplications
with additions (``torch.utils.flop_counter``) and times; both count all poses that are looked at, and the
thumbnail.
"""

from __future__ import annotations

import argparse
import math
import time
from typing import Any

import torch
from recipes.photo_so2.network import Quick
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import upright
from benchmarks.energies import (
    GRID,
    FromTable,
    Setting,
    Table,
    at_all_poses,
    measured,
    summed,
    table,
)
from benchmarks.pictures import pictures
from benchmarks.record import paired_ratio, parser, rounded, start, write
from upright.canonicalizers import DiscreteCanonicalizer, EnergyCanonicalizer
from upright.energies import Discriminant, Energy, Entropy, Layers, LogitEnergy
from upright.energies.combine import fitted_weights
from upright.evaluation.degrade import reencoded
from upright.nets import LiteBackbone, OrbitVoter
from upright.nets.lite import ConvLayer
from upright.training import DestroyArtefacts, distil

SIZE, FROZEN, FOLDS = 64, 5, 3
"""Side of the thumbnails; blocks that stay as they are, besides the stem; parts of the references."""
COUNTS = (2000, 9000, 400, 0)
"""Pictures: of the test, references, to fit the weights of the sum."""
TERMS = ("logit energy", "entropy", "discriminant, middle", "discriminant, deep")
AUGMENT = DestroyArtefacts(flip=False, zoom=0.3, shift=0.1)


def single(setting: Setting, known: Table, keep: Tensor) -> dict[str, Energy]:
    """Return the terms of the energy, from the references that are kept."""
    found: dict[str, Energy] = {"logit energy": LogitEnergy(setting.model), "entropy": Entropy(setting.model)}
    for name, layer in zip(TERMS[2:], setting.layers[1:3], strict=True):
        turns = known[layer][keep].float()
        differences = (turns[:, :1] - turns[:, 1:]).flatten(0, 1)
        found[name] = Discriminant(Layers(setting.model, [layer], GRID), differences)
    return found


def temperature(energy: Energy, tune: Table) -> float:
    return 1 / max(1e-6, float(fitted_weights(at_all_poses(energy, tune).unsqueeze(-1))))


def posteriors(setting: Setting, known: Table, tune: Table) -> Tensor:
    """Return what energies say of references they have not seen, shape ``(N, 4)``."""
    count = len(known["labels"])
    part, found = torch.arange(count) % FOLDS, torch.zeros(count, 4, dtype=torch.float64)
    for fold in range(FOLDS):
        energy = summed(TERMS, single(setting, known, part != fold), tune)
        mine = {name: values[part == fold] for name, values in known.items()}
        found[part == fold] = torch.log_softmax(
            -at_all_poses(energy, mine).double() / temperature(energy, tune), 1
        )
    return found


class Pupil:
    """The network, which starts from ``photo-c4``, and its canonicalizers: to be taught, and to be used."""

    def __init__(self) -> None:
        self.backbone = LiteBackbone(folded=True)
        taken = upright.load_canonicalizer("photo-c4").network.network
        self.backbone.load_state_dict(taken.state_dict())
        for layer in self.backbone.modules():
            if isinstance(layer, ConvLayer):
                layer.__class__ = Quick
        self.classifier = nn.Sequential(self.backbone, nn.Linear(64, 4))
        self.taught = DiscreteCanonicalizer(self.classifier, "C4", size=SIZE)

    def learn(self, x: Tensor, posterior: Tensor, options: argparse.Namespace) -> dict[str, Any]:
        """Learn the posteriors of pictures ``(N, 3, H, W)`` and of their mirror images."""
        x, posterior = torch.cat([x, x.flip(-1)]), torch.cat([posterior, posterior[:, [0, 3, 2, 1]]])
        began = time.time()
        for epochs, rate, whole in ((1, 1e-3, False), (options.epochs, options.learning_rate, True)):
            for i, block in enumerate((self.backbone.stem, *self.backbone.blocks)):
                block.requires_grad_(whole and i > FROZEN)
            done = distil(
                FromTable(posterior), self.taught, x, augment=AUGMENT, epochs=epochs, batch_size=64,
                learning_rate=rate, average=0.998 if whole else None, progress=False, seed=options.seed,
                max_steps=2 if options.smoke else -1,
            )  # fmt: skip
            print({name: round(value, 4) for name, value in done.history[-1].items()}, flush=True)
        return {"epochs": options.epochs, "pictures": len(x) // 2, "seconds": round(time.time() - began)}

    def canonicalizer(self, looks: int = 1) -> DiscreteCanonicalizer:
        """Return the canonicalizer for use, in float32."""
        plain = LiteBackbone(folded=True)
        plain.load_state_dict(self.backbone.state_dict())
        network = nn.Sequential(plain, self.classifier[1]).eval()
        return DiscreteCanonicalizer(OrbitVoter(network, "C4", looks=looks), "C4", size=SIZE).eval()


@torch.no_grad()
def energies_of(canonicalizer: Any, x: Tensor) -> Tensor:
    return torch.cat([-canonicalizer(part).log_probs for part in x.split(100)])


def difference(a: Tensor, b: Tensor, test: Table, classes: Tensor) -> dict[str, float]:
    """Return how much better poses of least ``a`` are than of ``b``, in points, and its standard error."""
    y = torch.searchsorted(classes, test["labels"])
    right = (test["logits"][..., classes].argmax(-1) == y[:, None]).double()
    apart = 100 * (right.gather(1, a.argmin(1, True)) - right.gather(1, b.argmin(1, True)))[:, 0]
    return {"points": float(apart.mean()), "standard_error": float(apart.std()) / math.sqrt(len(apart))}


@torch.no_grad()
def checked(canonicalizer: Any, x: Tensor) -> dict[str, float]:
    """Say whether poses follow quarter turns, and whether they survive re-encoding after the turn."""
    still = canonicalizer(x).element.value
    follows, seen = [], []
    for turn in range(4):
        moved = x.rot90(turn, (2, 3))
        follows.append(canonicalizer(moved).element.value == (still + turn) % 4)
        seen.append(canonicalizer(reencoded(moved)).element.value == turn)
    return {
        "pictures": len(x),
        "follows": float(torch.stack(follows).double().mean()),
        "pose_accuracy": float((still == 0).double().mean()),
        "pose_accuracy_re_encoded": float(torch.stack(seen).double().mean()),
    }


@torch.no_grad()
def millions(model: Any, x: Tensor) -> float:
    """Return millions of multiplications with additions a picture."""
    with FlopCounterMode(display=False) as counter:
        model(x)
    return counter.get_total_flops() / 2e6 / len(x)


def cost(pupil: Any, energy: Energy, x: Tensor, repeats: int) -> dict[str, Any]:
    slow = EnergyCanonicalizer(energy, "C4")
    ours, theirs = millions(pupil, x), millions(slow, x)
    with torch.no_grad():
        ratio = paired_ratio(lambda: pupil(x), lambda: slow(x), repeats=repeats)
    return {"million_macs": ours, "of_the_energy": theirs, "share": ours / theirs, "time": ratio}


def taught(
    setting: Setting,
    energy: Energy,
    tables: tuple[Table, Table, Table],
    of_teacher: Tensor,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Teach the network, and return its figures."""
    (test, known, tune), classes = tables, setting.classes()
    said, count = posteriors(setting, known, tune), len(known["labels"])
    small = pictures("tiny-imagenet", "train", limit=count)[0]
    pupil = Pupil()
    figures: dict[str, Any] = {
        "energy_on_what_is_taught": float((said.argmax(1) == 0).double().mean()),
        "training": pupil.learn(small, said, options),
    }
    x = pictures("tiny-imagenet", "test", limit=len(test["labels"]))[0].float() / 255
    for name, looks in (("distilled", 1), ("distilled, four looks", 4)):
        found = energies_of(pupil.canonicalizer(looks), x)
        figures[name] = {
            **measured(found, test, classes, 1.0),
            "less_than_the_energy": difference(of_teacher, found, test, classes),
        }
        print(name, rounded(figures[name]), flush=True)
    ready = pupil.canonicalizer()
    figures["checked"] = checked(ready, x[: options.check])
    figures["cost"] = cost(ready, energy, setting.pictures("test", 0, 8)[0], 2 if options.smoke else 9)
    return figures


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--epochs", type=int, default=4, help="of teaching; 0: the energy alone")
    options.add_argument("--learning-rate", type=float, default=3e-4)
    options.add_argument("--check", type=int, default=200, help="pictures that are turned and re-encoded")
    chosen = options.parse_args()
    start(chosen)
    setting = Setting("tiny", chosen.smoke, COUNTS)
    test, known, tune = (table(setting, split) for split in ("test", "references", "tune"))
    classes, count = setting.classes(), len(known["labels"])
    terms = single(setting, known, torch.ones(count, dtype=torch.bool))
    energy = summed(TERMS, terms, tune)
    of_teacher = at_all_poses(energy, test)
    figures: dict[str, Any] = {
        "pictures": {"test": len(test["labels"]), "references": count, "tune": len(tune["labels"])},
        "energies": {
            name: measured(at_all_poses(term, test), test, classes, temperature(term, tune))
            for name, term in {**terms, "sum": energy}.items()
        },
        "calls": 4 * energy.calls,
    }
    print(rounded(figures), flush=True)
    if chosen.epochs:
        figures |= taught(setting, energy, (test, known, tune), of_teacher, chosen)
    write("distilled", rounded(figures), chosen, predictor="efficientnet-lite0, 224 px", border="edge")


if __name__ == "__main__":
    main()
