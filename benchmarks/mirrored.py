"""Photos turned by quarters and mirrored: a published EfficientNet-Lite0 with the ready-made ``photo-d4``.

    python -m benchmarks.mirrored --threads 1

Elements of D4 permute pixels, and the canonicalizer follows them exactly, so that everything follows from the
pose it chooses for a picture and the predictor's answers to its eight moved copies. The adapted model itself
is then run on some pictures at all eight poses and must agree. Also: which of two mirror images is chosen (a
matter of brightness, not of content), and whether it is the same for both.
"""

from __future__ import annotations

from typing import Any

import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

import upright
from benchmarks.photo import SETS, Among, answers, interval, load
from benchmarks.record import DATA, parser, rounded, start, write
from upright.integrations.models import load_model


@torch.no_grad()
def measure(
    model: Any, x: Tensor, y: Tensor, upright_y: Tensor, mirrored_y: Tensor, c: Any, check: int
) -> dict[str, Any]:
    """Return the figures of one set, from the answers to the four turns of pictures and of mirror images.

    Args:
        model: The predictor.
        x: Pictures.
        y: Labels.
        upright_y: Answers to the pictures turned back by 0 to 3 quarters, ``(N, 4, K)``.
        mirrored_y: The same of their mirror images.
        c: The canonicalizer.
        check: How many pictures the adapted model is run on.
    """
    group, turns = c.group, torch.arange(4)
    poses = [c(part) for part in x.split(50)]
    pose = torch.cat([p.element.value for p in poses])
    confidence = torch.cat([p.log_probs.exp().amax(1) for p in poses])
    right = torch.cat([(said.argmax(-1) == y[:, None]).double() for said in (upright_y, mirrored_y)], 1)
    # what is seen turned back by R^r is entry r; by R^r F: the mirror image turned back by -r
    seen = torch.where(pose < 4, pose, 4 + (-pose % 4))
    at_pose = torch.cat([right[:, -turns % 4], right[:, 4 + (-turns % 4)]], 1)
    found = right.gather(1, seen[:, None])[:, 0]
    rows = {"vanilla": at_pose.mean(1), "oracle": right[:, 0], "one_pass": found}
    mean = {name: float(row.mean()) for name, row in rows.items()}
    robust, same = upright.adapt(model, "D4", canonicalizer=c), []
    expected, still = found[:check].bool(), pose[:check]
    for g in group.elements():
        moved = upright.act(g.expand(check), upright.Image(x[:check])).data
        run = robust.run(moved)
        followed = run.pose.element.value == (g.expand(check) @ group.element(still)).value
        same.append(followed & ((run.output.argmax(-1) == y[:check]) == expected))
    return {
        "pictures": len(y),
        "orbit_mean": mean,
        "vanilla_poses": at_pose.mean(0).tolist(),
        "gap_closed": (mean["one_pass"] - mean["vanilla"]) / (mean["oracle"] - mean["vanilla"]),
        "gap_closed_95": interval(rows, "one_pass"),
        "identity_or_mirror_rate": float((pose % 4 == 0).double().mean()),
        "mirrored_rate": float((pose >= 4).double().mean()),
        "mean_confidence": float(confidence.mean()),
        "library_agrees_and_follows": float(torch.stack(same).double().mean()),
    }


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--canonicalizer", default="photo-d4", help="a ready-made name or a saved folder")
    options.add_argument("--limit", type=int, default=1000, help="pictures of Tiny-ImageNet")
    options.add_argument("--check", type=int, default=8, help="pictures of each set for the adapted models")
    given = options.parse_args()
    start(given)
    if given.smoke:
        given.limit, given.check = 12, 2
    loaded = load_model("efficientnet-lite0")
    assert isinstance(loaded.model, nn.Module)
    predictor = loaded.model.to(memory_format=torch.channels_last)
    c, figures = upright.load_canonicalizer(given.canonicalizer), {}
    for name in SETS:
        x, y = load(name, "test", given.limit, loaded.preprocess)
        classes = torch.arange(1000)
        if name == "tiny_imagenet":
            column = pq.read_table(DATA / SETS[name] / "train.parquet", columns=["label"])["label"]
            classes = torch.tensor(sorted(set(column.to_pylist())))
        y = torch.searchsorted(classes, y)
        said = [answers(predictor, z, f"{name}-{key}")[..., classes]
                for key, z in (("test", x), ("test-mirrored", x.flip(-1)))]  # fmt: skip
        figures[name] = measure(Among(predictor, classes), x, y, *said, c, given.check)
        print(name, rounded(figures[name]), flush=True)
    write("mirrored", rounded(figures), given, predictor="efficientnet-lite0, 224 px, crop 0.875, float32")


if __name__ == "__main__":
    main()
