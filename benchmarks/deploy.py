"""Ready-made canonicalizers as ONNX files: how near to torch, how quick, and what eight bits change.

    python -m benchmarks.deploy --threads 1

Each is exported alone, for pictures of 224 pixels in any number, and asked for the poses of test photos in
their four quarter turns, by torch and by ONNX Runtime, on the same batches. `photo-c4` is then written with
eight bits, whose ranges are measured on other photos. A pose follows if that of a turned photo is the pose of
the photo, turned; it is right if it is how the photo was turned.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from torch import Tensor

import upright
from benchmarks.pictures import photos
from benchmarks.record import paired_ratio, parser, start, write
from upright.integrations import SquarePreprocess

SIDE, BATCH = 224, 10
NAMES = ("photo-c4", "photo-d4", "photo-c8", "photo-so2")


def shown(split: str, limit: int) -> Tensor:
    """Photos ``(N, 3, 224, 224)`` in [0, 1]."""
    preprocess = SquarePreprocess(SIDE, (0.0,) * 3, (1.0,) * 3)
    return torch.stack([preprocess(picture) for picture in photos("imagenet1k-sample", split, limit)[0]])


def opened(path: Path, threads: int) -> Any:
    """A function from pictures to named arrays."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_outputs()]
    (taken,) = (entry.name for entry in session.get_inputs())
    return lambda x: dict(zip(names, session.run(None, {taken: x.numpy()}), strict=True))


def in_turns(x: Tensor) -> list[Tensor]:
    return [part.rot90(k, (2, 3)).contiguous() for part in x.split(BATCH) for k in range(4)]


def poses(run: Any, x: Tensor) -> Tensor:
    """What a file of quarter turns says of every photo in four turns: ``(N, 4)``."""
    said = [torch.from_numpy(run(part)["pose"]).view(-1) for part in in_turns(x)]
    return torch.cat([torch.stack(said[i : i + 4], 1) for i in range(0, len(said), 4)])


@torch.no_grad()
def exported(name: str, path: Path, x: Tensor, options: Any) -> dict[str, Any]:
    canonicalizer = upright.load_canonicalizer(name)
    written = upright.export(canonicalizer, path, x[:2], part="canonicalizer")
    run, worst = opened(path, options.threads or 1), 0.0
    for part in in_turns(x):
        ours = torch.from_numpy(run(part)["confidence"]).view(-1)
        worst = max(worst, float((ours - canonicalizer(part).confidence).abs().max()))
    times = paired_ratio(
        lambda: run(x[:BATCH]), lambda: canonicalizer(x[:BATCH]), repeats=3 if options.smoke else 15
    )
    return {"bytes": written.size, "confidence_worst_difference": worst, "time_onnx_by_torch": times}


def eight_bits(path: Path, x: Tensor, others: Tensor, options: Any) -> dict[str, Any]:
    small = path.with_name("small.onnx")
    made = upright.deploy.quantize(path, small, list(others.split(BATCH)))
    full, rounded = (opened(file, options.threads or 1) for file in (path, small))
    before, after = poses(full, x), poses(rounded, x)
    turns = torch.arange(4)
    figures: dict[str, Any] = {"agreement": float((before == after).double().mean())}
    for title, said in (("full precision", before), ("8 bits", after)):
        figures[title] = {
            "bytes": (path if title == "full precision" else small).stat().st_size,
            "pose_right": float((said == turns).double().mean()),
            "follows_quarter_turns": float(((said[:, :1] + turns) % 4 == said).double().mean()),
        }
    figures["agreement_on_photos_of_the_ranges"] = made.agreement
    figures["time_8_bits_by_full"] = paired_ratio(
        lambda: rounded(x[:BATCH]), lambda: full(x[:BATCH]), repeats=3 if options.smoke else 25
    )
    return figures


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--limit", type=int, default=150, help="test photos")
    options.add_argument("--ranges", type=int, default=64, help="photos on which ranges are measured")
    chosen = options.parse_args()
    start(chosen)
    if chosen.smoke:
        chosen.limit, chosen.ranges = BATCH, BATCH
    x, others = shown("test", chosen.limit), shown("train", chosen.ranges)
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in NAMES[: 1 if chosen.smoke else None]:
            path = Path(folder) / f"{name}.onnx"
            figures[name] = exported(name, path, x, chosen)
            print(name, figures[name], flush=True)
        figures["8 bits"] = eight_bits(Path(folder) / f"{NAMES[0]}.onnx", x, others, chosen)
    write("deploy", figures, chosen, pictures=len(x), ranges=len(others))


if __name__ == "__main__":
    main()
