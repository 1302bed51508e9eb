"""Draw the pictures of ``docs/concepts.md`` with the library itself.

python docs/draw.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from matplotlib.patches import Rectangle
from torch import Tensor

import upright
from upright.demo.photos import bundled_photos
from upright.evaluation.style import COLOURS, GREY, INK, canvas, save

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
CAT, COFFEE, FLOWER, ASTRONAUT = 0, 1, 7, 4


def photo(number: int, side: int = 224) -> Tensor:
    """Return the middle square of a bundled photo, shape ``(3, side, side)``."""
    from upright.data import to_tensor

    picture = bundled_photos()[number]
    edge = min(picture.size)
    left, top = (picture.width - edge) // 2, (picture.height - edge) // 2
    return to_tensor(picture.crop((left, top, left + edge, top + edge)).resize((side, side)))


def show(axes: Any, x: Tensor, title: str = "", nearest: bool = False) -> None:
    """Draw one picture."""
    axes.imshow(x.permute(1, 2, 0).clamp(0, 1).numpy(), interpolation="nearest" if nearest else "antialiased")
    axes.set_title(title, fontsize=10, color=INK, pad=5)
    axes.set_axis_off()


def bars(axes: Any, probabilities: Tensor, labels: list[str]) -> None:
    """Draw the probabilities of poses."""
    best = int(probabilities.argmax())
    colours = [COLOURS["adapted"] if i == best else "#C9CED6" for i in range(len(labels))]
    axes.bar(range(len(labels)), probabilities.tolist(), color=colours, width=0.7)
    axes.set_ylim(0, 1.15)
    axes.set_xticks(range(len(labels)), labels, fontsize=8.5, color=GREY)
    axes.set_yticks([])
    most = float(probabilities[best])
    axes.text(best, most + 0.03, f"{100 * most:.0f}%", ha="center", fontsize=9, color=INK)
    axes.tick_params(length=0)
    for name, side in axes.spines.items():
        side.set_visible(name == "bottom")
        side.set_color("#C9CED6")


def orbit() -> Any:
    """Four poses of one photo, what the canonicalizer says, and one canonical form."""
    chooser, x = upright.load_canonicalizer("photo-c4"), photo(COFFEE)
    figure = canvas(8.4, 5.6)
    every = upright.parse_group("C4").elements()
    given = upright.act(every, upright.Image(x.expand(4, -1, -1, -1))).data
    pose = chooser(given)
    back = upright.act(pose.element.inverse(), upright.Image(given)).data
    for i in range(4):
        left = 0.13 + 0.22 * i
        show(figure.add_axes((left, 0.66, 0.19, 0.285)), given[i], f"g = {90 * i}°")
        bars(figure.add_axes((left, 0.42, 0.19, 0.17)), pose.probs[i], ["0°", "90°", "180°", "270°"])
        show(figure.add_axes((left, 0.03, 0.19, 0.285)), back[i])
    for y, text in ((0.80, "as given"), (0.50, "c(g·x)"), (0.17, "canonical:\nthe same")):
        figure.text(0.02, y, text, fontsize=10.5, color=INK, va="center", fontweight="bold")
    assert all(torch.equal(back[0], one) for one in back)
    return figure


def kinds() -> Any:
    """A quarter turn of pixels, a point and a box on a grid of 3 by 4 pixels."""
    shades = torch.linspace(0.35, 0.95, 12).view(1, 3, 4)
    x = torch.cat([shades, 0.55 + 0.4 * shades, 1.1 - 0.3 * shades])
    g = upright.parse_group("C4").element(1)
    point = upright.Points(torch.tensor([[3.5, 0.5]]), size=(3, 4))
    box = upright.Boxes(torch.tensor([[1.0, 1.0, 3.0, 2.0]]), size=(3, 4))
    figure = canvas(7.2, 3.1)
    places = ((0.04, "x"), (0.56, "g·x, a quarter turn counter-clockwise"))
    moved = [(upright.Image(x), point, box), tuple(upright.act(g, k) for k in (upright.Image(x), point, box))]
    for (left, title), (image, spot, corners) in zip(places, moved, strict=True):
        height, width = image.data.shape[-2:]
        axes = figure.add_axes((left, 0.06, 0.40, 0.80))
        axes.imshow(
            image.data.permute(1, 2, 0).numpy(), extent=(0, width, height, 0), interpolation="nearest"
        )
        x0, y0, x1, y1 = corners.data.flatten().tolist()
        axes.add_patch(
            Rectangle(
                (x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=COLOURS["vanilla"], linewidth=3, zorder=5
            )
        )
        a, b = spot.data.flatten().tolist()
        axes.plot(a, b, "o", color=INK, markersize=9)
        axes.annotate(f"({a:g}, {b:g})", (a, b), (0, 10), textcoords="offset points", ha="center", fontsize=9)
        axes.set_title(title, fontsize=10.5, color=INK)
        axes.set_xticks(range(width + 1))
        axes.set_yticks(range(height + 1))
        axes.grid(color="white", linewidth=1)
        axes.tick_params(length=0, labelsize=8, labelcolor=GREY)
        axes.set_anchor("C")
    return figure


def corners() -> Any:
    """A photo turned by 30° with each border."""
    x, g = photo(CAT), upright.SO2().element(degrees=30.0)
    figure = canvas(8.4, 2.5)
    show(figure.add_axes((0.01, 0.02, 0.235, 0.84)), x, "x")
    for i, border in enumerate(("edge", "reflect", "constant"), 1):
        turned = upright.act(g, upright.Image(x, border=border)).data
        show(figure.add_axes((0.01 + 0.249 * i, 0.02, 0.235, 0.84)), turned, f'border="{border}"')
    return figure


def ties() -> Any:
    """A photo that has an up, a flower that hardly has, a pattern that has none."""
    chooser = upright.load_canonicalizer("photo-c4")
    steps = torch.linspace(-1, 1, 224)
    rings = (torch.cos(12 * (steps[None] ** 2 + steps[:, None] ** 2).sqrt()) / 2 + 0.5).expand(3, -1, -1)
    rings = (rings + rings.flip(1)) / 2  # the same bits from every side
    rings = (rings + rings.transpose(1, 2)) / 2
    rings = torch.stack([rings.rot90(k, (1, 2)) for k in range(4)]).double().mean(0).float()
    figure = canvas(7.6, 3.9)
    for i, (x, title) in enumerate(
        ((photo(ASTRONAUT), "clear"), (photo(FLOWER), "in doubt"), (rings, "a tie"))
    ):
        pose = chooser(x[None])
        left = 0.02 + 0.33 * i
        show(figure.add_axes((left, 0.37, 0.30, 0.55)), x, title)
        bars(figure.add_axes((left + 0.03, 0.09, 0.24, 0.22)), pose.probs[0], ["0°", "90°", "180°", "270°"])
        if bool(pose.is_tied[0]):
            figure.text(left + 0.15, 0.005, "pose.is_tied", fontsize=9, color=COLOURS["vanilla"], ha="center",
                        fontfamily="monospace")  # fmt: skip
    return figure


def passes() -> Any:
    """Accuracy over passes, from the record of the benchmark ``baselines``."""
    record = json.loads((ROOT / "benchmarks" / "results" / "baselines.json").read_text())
    names = {
        "vanilla": "bare",
        "equizero": "pose that the model likes best",
        "average": "mean over the group",
        "lambda": "mean by certainty",
        "adapted": "adapted, one pass",
        "top_k": "adapted, adaptive top_k",
        "oracle": "true pose known",
    }
    below = {"oracle": 2, "adapted": -12}
    figure = canvas(7.0, 3.6)
    axes = figure.add_axes((0.09, 0.16, 0.88, 0.78))
    for name, label in names.items():
        row = record["figures"][name]
        colour = COLOURS.get(name, COLOURS["adapted"] if name == "top_k" else COLOURS["average"])
        axes.plot(row["passes"], row["orbit_mean"], "o", color=colour, markersize=9)
        place, off = (row["passes"], row["orbit_mean"]), (9, below.get(name, -4))
        axes.annotate(label, place, off, textcoords="offset points", fontsize=9.5, color=INK)
    axes.set_xlabel("passes of the model a picture", fontsize=10, color=INK)
    axes.set_ylabel("mean accuracy over poses, %", fontsize=10, color=INK)
    axes.set_xlim(0.7, 7.4)
    axes.set_ylim(48, 96)
    axes.grid(color="#E3E5E8", linewidth=0.8)
    axes.tick_params(length=0, labelsize=9, labelcolor=GREY)
    for side in axes.spines.values():
        side.set_visible(False)
    return figure


def main() -> None:
    """Draw all of them."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    for draw in (orbit, kinds, corners, ties, passes):
        figure = draw()
        figure.set_dpi(130)
        kind = "png" if draw in (kinds, passes) else "jpg"  # photos
        print(save(figure, IMAGES / f"concept-{draw.__name__}.{kind}"))


if __name__ == "__main__":
    main()
