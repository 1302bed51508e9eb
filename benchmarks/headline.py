"""The headline table of Mondal et al. 2023 (arXiv 2310.01647): CIFAR-100, C8, the set-ups side by side.

    python -m benchmarks.headline train --output runs/headline-c8
    python -m benchmarks.headline lite --ready runs/headline-c8/canonicalizer
    python -m benchmarks.headline vit --ready runs/headline-c8/canonicalizer

Predictors: EfficientNet-Lite0 with ImageNet weights, and a small vision transformer trained here on upright
pictures; both are fine-tuned in every set-up with the same pictures, steps and rates. Pictures are shown and
turned at 64×64 pixels. The rows without and with prior train a small canonicalizer from nothing jointly with
the predictor, as the paper does. In the last two rows a canonicalizer trained before (``train``: upright
pictures without labels; an orbit scorer on the trunk of the published CIFAR-10 ResNet-20) stands in front of
the fine-tuned vanilla predictor, which is not touched any more.

Deviations from the paper: the predictors (there ResNet-50 and ViT-B), 64 instead of 224 pixels, a part of the
training pictures for a few epochs, at a rate of 0.05 (SGD). Test pictures were seen by nothing.
"""

from __future__ import annotations

import argparse
import copy
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import upright
from benchmarks.cifar import Jitter, Unit
from benchmarks.models import MEAN, STD
from benchmarks.pictures import CACHE, pictures
from benchmarks.record import parser, start, write
from upright.integrations.models import load_model

SIDE, CLASSES, COVER = 64, 100, 0.6
SETUPS = {
    "vanilla": "vanilla fine-tuning",
    "augment": "C8 augmentation",
    "joint_no_prior": "LC, no prior",
    "joint": "LC + prior",
}
READY = "vanilla behind a canonicalizer trained before"


class Shown(torch.utils.data.Dataset[Any]):
    """CIFAR pictures at 64 pixels, float in [0, 1], with labels."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Any:
        return shown(self.x[index : index + 1])[0], self.y[index]


def shown(x: Tensor) -> Tensor:
    return F.interpolate(x.float() / 255, size=SIDE, mode="bicubic", align_corners=False).clamp(0, 1)


class Normalised(nn.Module):
    """A network behind the usual normalisation, so that pictures stay in [0, 1] outside."""

    def __init__(self, model: nn.Module, mean: Any = MEAN, std: Any = STD) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.model((x - self.mean) / self.std)


class SmallViT(nn.Module):
    """Six transformer blocks of width 96 on 8×8 tokens, which three strided convolutions make."""

    def __init__(self, width: int = 96, depth: int = 6, heads: int = 4) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for a, b in ((3, width // 4), (width // 4, width // 2), (width // 2, width)):
            layers += [nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
        self.tokens = nn.Sequential(*layers)
        self.position = nn.Parameter(torch.randn(1, 64, width) * 0.02)
        block = nn.TransformerEncoderLayer(
            width, heads, 3 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, depth, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.tokens(x).flatten(2).mT + self.position
        return self.head(self.norm(self.blocks(x)).mean(1))


def lite() -> nn.Module:
    """EfficientNet-Lite0 with ImageNet weights and a new head."""
    model = load_model("efficientnet-lite0").model
    model._fc = nn.Linear(model._fc.in_features, CLASSES)
    nn.init.normal_(model._fc.weight, std=0.01)
    return Normalised(model, (0.498,) * 3, (0.502,) * 3).train()


def vit(options: argparse.Namespace, x: Tensor, y: Tensor) -> nn.Module:
    """A small transformer, trained on upright pictures once and kept."""
    cached = CACHE / f"headline-vit-{options.pretraining}.pt"
    model = Normalised(SmallViT())
    if cached.exists() and not options.smoke:
        model.load_state_dict(torch.load(cached, weights_only=True))
        return model
    tune(upright.adapt(model, "C8", canonicalizer="identity"), "vanilla", Shown(x, y), options,
         epochs=options.pretraining, optimizer="adamw", rate=1.5e-3)  # fmt: skip
    if not options.smoke:
        CACHE.mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), cached)
    return model


def tune(robust: upright.Adapted, setup: Any, data: Any, options: argparse.Namespace, *, epochs: int,
         optimizer: Any, rate: float) -> float:  # fmt: skip
    began = time.time()
    upright.fit(
        robust,
        data,
        setup=setup,
        epochs=epochs,
        max_steps=2 if options.smoke else -1,
        batch_size=64,
        optimizer=optimizer,
        learning_rate=2e-3 if optimizer == "adamw" else 0.05,
        predictor_learning_rate=rate,
        weight_decay=0.05 if optimizer == "adamw" else 5e-4,
        predictor_augment=Jitter(shift=8),
        augment=False,
        prior_weight=options.prior_weight,
        average=0.99,
        calibrate=False,
        seed=options.seed,
        progress=False,
    )
    return time.time() - began


@torch.no_grad()
def measured(robust: upright.Adapted, x: Tensor, y: Tensor, *, several: bool = True) -> dict[str, Any]:
    """Accuracy at the eight poses in one pass and, for canonicalizers, with adaptive top_k."""
    exact = not isinstance(robust.canonicalizer, upright.IdentityCanonicalizer)
    poses = list(robust.group.elements())[: 2 if exact else None]  # quarter turns change no answer then
    one, more, passes, rate = [], [], [], 0.0
    mixed = upright.Adapted(robust.model, robust.canonicalizer, mode="top_k", cover=COVER).eval()
    for g in poses:
        right, right_more = 0, 0
        for part, labels in zip(x.split(250), y.split(250), strict=True):
            moved = upright.act(g, upright.Image(shown(part))).data
            run = robust.run(moved)
            right += int((run.output.argmax(-1) == labels).sum())
            if exact and bool(g.is_identity()):
                rate += float((run.pose.element.is_identity() & ~run.pose.is_tied).float().sum())
            if exact and several:
                again = mixed.run(moved)
                right_more += int((again.output.argmax(-1) == labels).sum())
                passes.append(again.passes.float().mean())
        one.append(round(100 * right / len(x), 2))
        more.append(round(100 * right_more / len(x), 2))
    row: dict[str, Any] = {"upright": one[0], "orbit_mean": round(sum(one) / len(one), 2), "poses": one}
    if exact:
        row["identity_rate"] = round(rate / len(x), 4)
    if exact and several:
        row["adaptive"] = {
            "upright": more[0],
            "orbit_mean": round(sum(more) / len(more), 2),
            "passes": round(float(torch.stack(passes).mean()), 3),
        }
    return row


@torch.no_grad()
def oracle(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Any]:
    """The pose known: turned there and back, which costs interpolation at odd eighths."""
    accuracies = []
    for g in list(upright.Cyclic(8).elements())[:2]:
        right = 0
        for part, labels in zip(x.split(250), y.split(250), strict=True):
            there = upright.act(g, upright.Image(shown(part)))
            right += int((model(upright.act(~g, there).data).argmax(-1) == labels).sum())
        accuracies.append(round(100 * right / len(x), 2))
    return {"upright": accuracies[0], "orbit_mean": round(sum(accuracies) / 2, 2), "poses": accuracies}


def joint_canonicalizer() -> upright.Canonicalizer:
    return upright.canonicalizer("C8", size=32)


def scorer(size: int | None) -> upright.Canonicalizer:
    settings = {"depth": 20, "interpolation": "bicubic", "mirror": True, "selective": True}
    return upright.canonicalizer(
        "C8", "benchmarks.models:warm_scorer", size=size, standardize=False, options=settings
    )


def train(options: argparse.Namespace) -> None:
    """Train the canonicalizer of the last rows on upright pictures without labels."""
    x = torch.cat([pictures(name, "train")[0] for name in ("cifar100", "cifar10")])
    if options.smoke:
        x, options.steps = x[:256], 2
    made = scorer(None)
    result = upright.fit(
        made, Unit(x), max_steps=options.steps, epochs=1000, batch_size=64, optimizer="sgd",
        learning_rate=0.02, weight_decay=5e-4, augment=Jitter(subpixel=0.5), average=0.99,
        calibrate=True, precision="bf16-mixed", gradient_clip=None, seed=options.seed, progress=False,
        output=None if options.smoke else options.output, resume=not options.smoke,
        trainer_options={"limit_train_batches": 100},
    )  # fmt: skip
    print(result, result.history[-1:])
    if not options.smoke:
        upright.hub.save(made, options.output / "canonicalizer")


def table(options: argparse.Namespace) -> dict[str, Any]:
    x, y = pictures("cifar100", "train", limit=256 if options.smoke else None)
    test = pictures("cifar100", "test", limit=32 if options.smoke else options.limit)
    base = lite() if options.verb == "lite" else vit(options, x, y)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[: options.pictures]
    data, figures = Shown(x[order], y[order]), {}
    for setup, name in SETUPS.items():
        chosen: Any = joint_canonicalizer() if setup.startswith("joint") else "identity"
        robust = upright.adapt(copy.deepcopy(base), "C8", canonicalizer=chosen)
        seconds = tune(robust, setup, data, options, epochs=options.epochs, optimizer="sgd",
                       rate=options.rate)  # fmt: skip
        figures[name] = {**measured(robust.eval(), *test), "seconds": round(seconds)}
        print(name, figures[name], flush=True)
        if setup == "vanilla":
            figures |= ready_rows(robust.model, test, options)
    return figures


def ready_rows(model: nn.Module, test: Any, options: argparse.Namespace) -> dict[str, Any]:
    placed = scorer(32)
    if options.ready is not None:
        placed.load_state_dict(upright.load_canonicalizer(options.ready, trust_code=True).state_dict())
    rows = {
        READY: measured(upright.adapt(model, "C8", canonicalizer=placed).eval(), *test),
        "vanilla, pose known": oracle(model, *test),
    }
    print(rows, flush=True)
    return rows


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("verb", choices=["train", "lite", "vit"], nargs="?", default="vit")
    options.add_argument("--output", type=Path, default=Path("runs/headline-c8"))
    options.add_argument("--ready", type=Path, help="folder of the canonicalizer that `train` made")
    options.add_argument("--steps", type=int, default=700, help="of `train`")
    options.add_argument("--pictures", type=int, default=20000, help="training pictures of a predictor")
    options.add_argument("--epochs", type=int, default=2)
    options.add_argument("--pretraining", type=int, default=4, help="epochs over all pictures, transformer")
    options.add_argument("--rate", type=float, default=0.02, help="learning rate of the predictor")
    options.add_argument("--prior-weight", type=float, default=1.0)
    options.add_argument("--limit", type=int, default=2000, help="test pictures")
    chosen = options.parse_args()
    start(chosen)
    if chosen.verb == "train":
        train(chosen)
        return
    if chosen.ready is None and not chosen.smoke:
        raise SystemExit("--ready is missing; make the canonicalizer by: python -m benchmarks.headline train")
    notes = {"predictor": {"lite": "EfficientNet-Lite0", "vit": "small ViT"}[chosen.verb]}
    keep = ("pictures", "epochs", "pretraining", "rate", "prior_weight", "limit")
    notes |= {name: getattr(chosen, name) for name in keep}
    write(f"headline-{chosen.verb}", table(chosen), chosen, **notes)


if __name__ == "__main__":
    main()
