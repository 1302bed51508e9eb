"""How exactly does a continuous pose follow? SO2 on Tiny-ImageNet, at random angles; with scales, if asked.

    python -m benchmarks.pose_error --steps 750 --threads 1
    python -m benchmarks.pose_error --group SO2xscale --steps 400 --threads 1

A polar network is trained without labels on upright training pictures, then met with held-out pictures
``x`` and the same turned by random angles, ``act(g, x)``. ``disc``: what lies outside the inscribed disc was
greyed before turning, softly, so that both hold the same content; ``full``: as turned pictures are, with the
edge repeated. Figures:

* pose error: the angle between ``c(act(g, x))`` and ``g @ c(x)``, in degrees; the share above 15° saw
  another hill of the density.
* canonical form: the root mean square difference, inside the disc, between the canonical forms of turned and
  unturned picture, divided by what remains where the true angle is used (resampling only).
* ablations without training anew: one look instead of four (``mirror``, ``twice``), other blurs than that of
  training, other smoothing windows, and the peak's cell instead of its refined top.

With ``--group SO2xscale`` pictures are turned by any angle and scaled by 1/2…2 together, and errors are given
in degrees and in percent of scale, also apart for enlarged and shrunk pictures. ``context``: ``x`` is the
middle of a picture, enlarged by √2, so that what surrounds it, where it shrinks, is what was there; scales
are drawn from 1/√2…√2.
"""

from __future__ import annotations

import argparse
import copy
import math
from typing import Any

import torch
from torch import Tensor

import upright
from benchmarks.cifar import Jitter
from benchmarks.pictures import pictures
from benchmarks.record import parser, start, write
from benchmarks.turns import quantiles, train, turned
from upright.nets.thumbnail import disc

SETTINGS = {"size": 40}
TRUNK = {"widths": (16, 24, 32, 32), "rings": 12}
STEADY = {"mirror": True, "twice": True}


def greyed(x: Tensor, soft: float = 3.0) -> Tensor:
    """Fade what lies outside the inscribed disc to the mean colour over a few pixels."""
    side = x.shape[-1]
    u = torch.arange(side) + 0.5 - side / 2
    inside = ((side / 2 - 1 - (u[:, None] ** 2 + u**2).sqrt()) / soft).clamp(0, 1)
    return x * inside + (1 - inside) * x.mean((-1, -2), keepdim=True)


@torch.no_grad()
def pose(c: upright.Canonicalizer, x: Tensor) -> upright.Element:
    return upright.Element(c.group, torch.cat([c(part).element.value for part in x.split(100)]))


@torch.no_grad()
def followed(c: upright.Canonicalizer, x: Tensor, g: upright.Element) -> dict[str, Any]:
    """Measure pictures against turned ones."""
    moved = turned(x, g)
    still, after = pose(c, x), pose(c, moved)
    wanted = g @ still
    inside = disc(x.shape[-1], x)
    own, theirs, true = turned(x, ~still), turned(moved, ~after), turned(moved, ~wanted)
    apart = [(((a - own) ** 2) * inside).mean((1, 2, 3)).sqrt() for a in (theirs, true)]
    ratio = apart[0] / apart[1]
    return {
        "pose_error_degrees": quantiles(torch.rad2deg(wanted.distance(after))),
        "canonical_form_over_resampling": {
            "median": round(float(ratio.median()), 3),
            "percentile_95": round(float(ratio.quantile(0.95)), 3),
        },
    }


def ablations(c: Any, x: Tensor, g: upright.Element) -> dict[str, Any]:
    """Measure variants of one trained canonicalizer."""
    moved, rows = turned(x, g), {}
    variants: dict[str, Any] = {f"window {w:g}°": {"window_degrees": w} for w in (4.0, 12.0, 20.0)}
    if getattr(c.network, "twice", False):
        variants |= {"one look": {"twice": False, "mirror": False}, "mirror only": {"twice": False}}
    variants |= {f"blur {b:g}": {"blur": b} for b in (0.0, 0.6, 1.4)}
    for name, changes in variants.items():
        other = copy.deepcopy(c)
        for key, value in changes.items():
            part = other.network.trunk if key == "blur" else other.network if key in STEADY else other
            setattr(part, key, value)
        rows[name] = quantiles(torch.rad2deg((g @ pose(other, x)).distance(pose(other, moved))))
    step = 2 * math.pi / c.rays
    cells = [upright.Element(c.group, (pose(c, y).value / step).round() % c.rays * step) for y in (x, moved)]
    rows["not refined"] = quantiles(torch.rad2deg((g @ cells[0]).distance(cells[1])))
    return rows


def errors(g: upright.Element, still: upright.Element, after: upright.Element) -> dict[str, Any]:
    """Summarise the errors of angle and scale, where poses should follow ``g``."""
    wanted = g.group.parts(g @ still)
    turn, scale = (a.distance(b) for a, b in zip(wanted, g.group.parts(after), strict=True))
    degrees, percent = torch.rad2deg(turn), 100 * (scale.exp() - 1)
    at = torch.tensor([0.5, 0.9, 0.95], dtype=torch.float64)
    found = percent.quantile(at).tolist()
    names = ("median", "percentile_90", "percentile_95")
    off = {"share_above_25": round(float((percent > 25).double().mean()), 4)}
    return {
        "pictures": len(turn),
        "degrees": quantiles(degrees),
        "percent_of_scale": {n: round(v, 2) for n, v in zip(names, found, strict=True)} | off,
    }


def followed_scaled(c: Any, x: Tensor, g: upright.Element, hidden: float = 1.0) -> dict[str, Any]:
    """Measure pictures against turned and scaled ones; ``hidden``: by how much they are enlarged first."""
    none, scale = g.group.parts(g.group.identity(len(x)))
    first = g.group.joined(none, scale.group.element(torch.full((len(x),), hidden)))
    still, after = pose(c, turned(x, first)), pose(c, turned(x, g @ first))
    factor = g.group.parts(g)[1].value
    parts = {"enlarged": factor > 0, "shrunk": factor < 0, "within √2": factor.abs() <= math.log(2) / 2}
    return {
        "all": errors(g, still, after),
        **{name: errors(g[keep], still[keep], after[keep]) for name, keep in parts.items() if keep.any()},
    }


def measure_scaled(options: argparse.Namespace) -> dict[str, Any]:
    """Train and measure angles and scales together."""
    x = pictures("tiny-imagenet", "train", limit=256 if options.smoke else None)[0]
    test = pictures("tiny-imagenet", "test", limit=24 if options.smoke else options.limit)[0].float() / 255
    group: Any = upright.parse_group(options.group)
    g = group.sample(len(test), generator=torch.Generator().manual_seed(options.seed))
    angle, scale = group.parts(g)
    half = group.joined(angle, upright.Element(scale.group, scale.value / 2))
    settings = {**SETTINGS, "options": {"blur": options.blur, "rays": options.rays}}
    c: Any = upright.canonicalizer(group, **settings)
    untrained, seconds = copy.deepcopy(c).eval(), 0.0
    if options.canonicalizer is not None:
        c = upright.load_canonicalizer(options.canonicalizer)
    else:
        destroy = upright.training.DestroyArtefacts(flip=True, zoom=0.0, shift=0.02, encode=0.0)
        seconds = train(
            c, x, None, options, steps=options.steps, augment=destroy, learning_rate=options.learning_rate
        )
        if not options.smoke:
            upright.hub.save(c, options.output)
    c.eval()
    return {
        "disc": followed_scaled(c, greyed(test), g),
        "full": followed_scaled(c, test, g),
        "context": followed_scaled(c, test, half, math.sqrt(2)),
        "untrained, full": followed_scaled(untrained, test, g)["all"],
        "upright pictures": errors(group.identity(len(test)), group.identity(len(test)), pose(c, test)),
        "cells": {
            "degrees": 360 / c.rays,
            "percent_of_scale": round(100 * (c.largest ** (2 / (c.scales - 1)) - 1), 1),
        },
        "settings": settings,
        "training": {"steps": options.steps, "batch": 64, "seconds_of_one_core": round(seconds)},
        "parameters": sum(p.numel() for p in c.parameters()),
    }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    x = pictures("tiny-imagenet", "train", limit=256 if options.smoke else None)[0]
    test = pictures("tiny-imagenet", "test", limit=24 if options.smoke else options.limit)[0].float() / 255
    g = upright.SO2().sample(len(test), generator=torch.Generator().manual_seed(options.seed))
    steady = STEADY if options.network == "polar" else {}
    settings = {**SETTINGS, "options": {**TRUNK, **steady, "blur": options.blur, "rays": options.rays}}
    c = upright.canonicalizer("SO2", options.network, **settings)
    untrained = copy.deepcopy(c).eval()
    seconds = 0.0
    if options.canonicalizer is not None:
        c = upright.load_canonicalizer(options.canonicalizer)
    else:
        seconds = train(
            c, x, None, options, steps=options.steps, augment=Jitter(subpixel=0.5),
            learning_rate=options.learning_rate,
        )  # fmt: skip
        if not options.smoke:
            upright.hub.save(c, options.output)
    c.eval()
    away = torch.rad2deg(pose(c, test).distance(c.group.identity()))
    return {
        "pictures": len(test),
        "disc": followed(c, greyed(test), g),
        "full": followed(c, test, g),
        "untrained, disc": followed(untrained, greyed(test), g)["pose_error_degrees"],
        "upright_within_15_degrees": round(float((away <= 15).double().mean()), 4),
        "ablations, disc": ablations(c, greyed(test), g),
        "settings": settings,
        "training": {"steps": options.steps, "batch": 64, "seconds_of_one_core": round(seconds)},
        "parameters": sum(p.numel() for p in c.parameters()),
    }


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--group", choices=["SO2", "SO2xscale"], default="SO2")
    options.add_argument("--network", choices=["polar", "steerable"], default="polar")
    options.add_argument("--steps", type=int, default=1500)
    options.add_argument("--learning-rate", type=float, default=4e-3)
    options.add_argument("--blur", type=float, default=1.0)
    options.add_argument("--rays", type=int, default=64)
    options.add_argument("--limit", type=int, default=500)
    options.add_argument("--output", default="runs/so2-tiny")
    options.add_argument("--canonicalizer", help="measure this saved one instead of training")
    chosen = options.parse_args()
    start(chosen)
    if chosen.group != "SO2":
        write("pose-error-scale", measure_scaled(chosen), chosen, border="edge", interpolation="bilinear")
        return
    name = "pose-error" if chosen.network == "polar" else f"pose-error-{chosen.network}"
    write(name, measure(chosen), chosen, border="edge", interpolation="bilinear")


if __name__ == "__main__":
    main()
