"""Time and parameters that adapting adds to Segment Anything, bare and adapted in one run.

    python -m benchmarks.promptable
    python -m benchmarks.promptable --models "SAM ViT-H" --groups C4 --networks default --repeats 1
    python -m benchmarks.promptable --models "SAM ViT-H" --device cuda --batch 4

One photo of 1024×1024, float32, evaluation, random weights of the exact architectures (they do not matter for
time). The image encoder is compared, which runs once a photo; prompts add the same to both. Two figures for
time: pairs of calls in turn (noisy where one call takes seconds), and the canonicalizer and the turning on
their own, as a share of the encoder's median.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import upright
from benchmarks.record import paired_ratio, parser, start, times_ms, write

NETWORKS: dict[str, dict[str, Any]] = {
    "default": {},
    "small": {"options": {"widths": (12, 20, 32, 32)}},
}
"""Canonicalizers: the default network, and one of less than 0.05% of the parameters of SAM ViT-B."""


def vision(smoke: bool, **sizes: Any) -> dict[str, Any]:
    if smoke:
        tiny = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "output_channels": 16}
        return {**tiny, "image_size": 64, "window_size": 2, "global_attn_indexes": [1], "num_pos_feats": 8}
    return {"image_size": 1024, **sizes}


def sam(smoke: bool, **sizes: Any) -> nn.Module:
    from transformers import SamConfig, SamModel

    prompt = {"image_size": 64, "hidden_size": 16} if smoke else {}
    decoder = {"hidden_size": 16, "num_attention_heads": 2, "mlp_dim": 16} if smoke else {}
    config = SamConfig(
        vision_config=vision(smoke, **sizes), prompt_encoder_config=prompt, mask_decoder_config=decoder
    )
    return SamModel(config).eval()


MODELS: dict[str, Callable[[bool], nn.Module]] = {
    "SAM ViT-B": sam,
    "SAM ViT-H": lambda smoke: sam(
        smoke,
        hidden_size=1280,
        num_hidden_layers=32,
        num_attention_heads=16,
        global_attn_indexes=[7, 15, 23, 31],
    ),
}


def finished(f: Callable[[], Any], device: str) -> Callable[[], Any]:
    """Wait for the device, so that a call ends when its work does."""

    def run() -> Any:
        out = f()
        if device == "cuda":
            torch.cuda.synchronize()
        return out

    return run


@torch.no_grad()
def overhead(
    model: nn.Module, settings: dict[str, Any], group: str, x: torch.Tensor, repeats: int
) -> dict[str, Any]:
    canonicalizer = upright.canonicalizer(group, **settings)
    robust = upright.adapt(model, group, canonicalizer=canonicalizer).to(x.device).eval()
    device = x.device.type
    times = paired_ratio(
        finished(lambda: robust.embed(x), device),
        finished(lambda: model.get_image_embeddings(x), device),
        repeats=repeats,
        warmup=int(repeats > 1),
    )
    g = robust.group.element(torch.ones(len(x), dtype=torch.long)).to(x.device)
    alone = times_ms(
        finished(lambda: (robust.pose(x), upright.act(g, upright.Image(x))), device), repeats=15 * repeats
    )
    low, middle, high = statistics.quantiles([100 * one / times["theirs_ms"] for one in alone], n=4)
    own = sum(p.numel() for p in canonicalizer.parameters())
    theirs = sum(p.numel() for p in model.parameters())
    return {
        "added_time_percent_of_pairs": round(100 * (times["ratio"] - 1), 2),
        "added_time_percent_of_pairs_q1": round(100 * (times["ratio_q1"] - 1), 2),
        "added_time_percent_of_pairs_q3": round(100 * (times["ratio_q3"] - 1), 2),
        "added_time_percent": round(middle, 3),
        "added_time_percent_q1": round(low, 3),
        "added_time_percent_q3": round(high, 3),
        "encoder_ms": times["theirs_ms"],
        "canonicalizer_and_turn_ms": round(statistics.median(alone), 2),
        "parameters": own,
        "added_parameters_percent": round(100 * own / theirs, 4),
        "repeats": repeats,
    }


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--models", nargs="+", default=["SAM ViT-B"], choices=list(MODELS))
    arguments.add_argument("--groups", nargs="+", default=["C4", "D4"])
    arguments.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    arguments.add_argument("--device", default="cpu")
    arguments.add_argument("--batch", type=int, default=1)
    arguments.add_argument("--repeats", type=int, default=5)
    options = arguments.parse_args()
    start(options)
    side = 64 if options.smoke else 1024
    x = torch.rand(options.batch, 3, side, side, device=options.device)
    figures = {}
    for name in options.models:
        model = MODELS[name](options.smoke).to(options.device)
        for group in options.groups:
            for network in options.networks:
                repeats = 2 if options.smoke else options.repeats
                figures[f"{name} {group} {network}"] = overhead(model, NETWORKS[network], group, x, repeats)
    large = "-vit-h" if options.models == ["SAM ViT-H"] else ""
    place = f"promptable{large}" if options.device == "cpu" else f"promptable{large}-{options.device}"
    write(place, figures, options, input=f"{options.batch}x3x{side}x{side} float32", device=options.device)


if __name__ == "__main__":
    main()
