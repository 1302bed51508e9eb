"""Which network inside a canonicalizer? Equivariance, identity rate on held-back upright pictures, time.

    python -m benchmarks.networks --group C4
    python -m benchmarks.networks --group C8

Each is trained from scratch on the same upright CIFAR-10 and CIFAR-100 training pictures for the same number
of steps, without labels, and measured on CIFAR-10 test pictures.
"""

from __future__ import annotations

from typing import Any

import torch

import upright
from benchmarks.cifar import HELD_BACK, Unit
from benchmarks.pictures import pictures
from benchmarks.record import median_ms, parser, start, write

CANDIDATES: dict[str, dict[str, Any]] = {
    "orbit": {"network": "orbit", "options": {"blur": 0.0}},
    "orbit, blurred": {"network": "orbit", "options": {"blur": 0.6}},
    "orbit, offset": {"network": "orbit", "options": {"blur": 0.0, "offset_degrees": 22.5}},
    "group_cnn": {"network": "group_cnn", "options": {"widths": (12, 16, 24, 32)}},
    "polar": {"network": "polar", "options": {"widths": (24, 40, 48), "rays": 64, "rings": 16}},
}
GROUPS = {"C4": ("orbit", "group_cnn", "polar"), "C8": ("orbit", "orbit, blurred", "orbit, offset", "polar")}


@torch.no_grad()
def measured(c: upright.Canonicalizer, x: torch.Tensor) -> dict[str, Any]:
    c.eval()
    group = c.group
    still = torch.cat([c(part).element.value for part in x.split(500)])
    tied = torch.cat([c(part).is_tied for part in x.split(500)])
    right, same = [], []
    for g in list(group.elements())[1:]:
        moved = torch.cat(
            [c(upright.act(g, upright.Image(part)).data).element.value for part in x.split(500)]
        )
        want = (g.expand(len(x)) @ upright.Element(group, still)).value
        same.append(float((moved == want).float().mean()))
        right.append(float((moved == g.value).float().mean()))
    batch = x[:128]
    return {
        "identity_rate": round(float(((still == 0) & ~tied).float().mean()), 4),
        "pose_accuracy_turned": round(sum(right) / len(right), 4),
        "same_canonical_element": [round(s, 4) for s in same],
        "parameters": sum(p.numel() for p in c.parameters()),
        "ms_for_128": round(median_ms(lambda: c(batch), repeats=9), 2),
    }


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--group", choices=list(GROUPS), default="C4")
    options.add_argument("--steps", type=int, default=200)
    chosen = options.parse_args()
    start(chosen)
    own = pictures("cifar10", "train")[0][HELD_BACK:]
    data = torch.cat([own, pictures("cifar100", "train")[0]])
    test = pictures("cifar10", "test", limit=64 if chosen.smoke else 2000)[0].float() / 255
    figures: dict[str, Any] = {}
    for name in GROUPS[chosen.group]:
        torch.manual_seed(chosen.seed)
        made = upright.canonicalizer(chosen.group, size=32, **CANDIDATES[name])
        result = upright.fit(
            made,
            Unit(data),
            max_steps=2 if chosen.smoke else chosen.steps,
            batch_size=16 if chosen.smoke else 128,
            learning_rate=3e-3,
            precision="bf16-mixed",
            calibrate=False,
            progress=False,
            seed=chosen.seed,
        )
        figures[name] = {
            **measured(made, test),
            "training_images_per_second": round(result.images_per_second, 1),
        }
        print(chosen.group, name, figures[name], flush=True)
    name = f"networks-{chosen.group.lower()}"
    write(name, figures, chosen, steps=chosen.steps, batch=128, border="edge", interpolation="bilinear")


if __name__ == "__main__":
    main()
