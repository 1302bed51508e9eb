"""Time and parameters that adapting adds to a frozen predictor, bare and adapted in one run.

    python -m benchmarks.overhead

Batch 8 of 3×224×224, float32, evaluation, random weights (they do not matter for time).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import upright
from benchmarks.models import resnet50, vision_transformer
from benchmarks.record import median_ms, paired_ratio, parser, start, write


@torch.no_grad()
def overhead(model: nn.Module, group: str, canonicalizer: Any, batch: int, repeats: int) -> dict[str, Any]:
    robust = upright.adapt(model, group, canonicalizer=canonicalizer).eval()
    x = torch.rand(batch, 3, 224, 224)
    g = robust.group.sample(batch, generator=torch.Generator().manual_seed(0))
    x = upright.act(g, upright.Image(x)).data
    times = paired_ratio(lambda: robust(x), lambda: model(x), repeats=repeats)
    own = sum(p.numel() for p in robust.canonicalizer.parameters())
    theirs = sum(p.numel() for p in model.parameters())
    pose = robust.pose(x).element
    return {
        "added_time_percent": round(100 * (times["ratio"] - 1), 2),
        "added_time_percent_q1": round(100 * (times["ratio_q1"] - 1), 2),
        "added_time_percent_q3": round(100 * (times["ratio_q3"] - 1), 2),
        "bare_ms": times["theirs_ms"],
        "canonicalizer_ms": round(median_ms(lambda: robust.pose(x), repeats=repeats), 2),
        "action_ms": round(median_ms(lambda: upright.act(~pose, upright.Image(x)), repeats=repeats), 2),
        "parameters": own,
        "added_parameters_percent": round(100 * own / theirs, 3),
        "repeats": repeats,
    }


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--repeats", type=int, default=7)
    options = arguments.parse_args()
    start(options)
    models = {"ResNet-50": resnet50, "ViT-B/16": vision_transformer}
    batch, repeats = (1, 2) if options.smoke else (8, options.repeats)
    figures = {}
    for name, make in list(models.items())[: 1 if options.smoke else 2]:
        model = make()
        for group in ("C4", "C8"):
            default = upright.canonicalizer(group)
            figures[f"{name} {group} default"] = overhead(model, group, default, batch, repeats)
        figures[f"{name} C4 photo-c4"] = overhead(model, "C4", "photo-c4", batch, repeats)
    write("overhead", figures, options, input=f"{batch}x3x224x224 float32")


if __name__ == "__main__":
    main()
