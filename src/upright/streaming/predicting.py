"""Class scores of all pictures of a source, streamed to files, with the pose of each."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..adapter import Adapted
from ..data import read_picture
from ..groups.planar import PlanarGroup
from .fingerprint import described, fingerprint
from .items import Item, Part
from .ledger import Format, Ledger
from .run import BAD, Job, Pace, Result, Summary, run
from .stores import Source, check_apart, open_store


@dataclass(frozen=True)
class Answer:
    """What is known of one picture.

    Attributes:
        prediction: Name of the likeliest class, or its number.
        number: Number of the class.
        confidence: Its probability (softmax of the model's scores).
        degrees: By how much the picture is turned, counter-clockwise.
        reflected: Whether it is mirrored (before being turned).
        pose_confidence: Probability of that pose.
        passes: How many times the model ran.
        gated: Whether the picture was left as it is, for its pose is not clear.
        flagged: Whether its pose is doubtful.
    """

    prediction: str
    number: int
    confidence: float
    degrees: float
    reflected: bool
    pose_confidence: float
    passes: int
    gated: bool
    flagged: bool


COLUMNS = {
    "path": "string",
    "prediction": "string",
    "number": "int64",
    "confidence": "double",
    "degrees": "double",
    "reflected": "bool",
    "pose_confidence": "double",
    "passes": "int64",
    "gated": "bool",
    "flagged": "bool",
    "status": "string",
    "error": "string",
}
"""A row of the predictions: an `Answer`, whether it could be used (``ok`` or ``bad``), why not."""


@torch.inference_mode()
def answers(robust: Adapted, pictures: Sequence[Tensor], names: Sequence[str], device: Any) -> list[Answer]:
    """Classify pictures.

    Args:
        robust: The adapted model, which returns class scores.
        pictures: What the model takes, each ``(C, H, W)``; those of one shape share a batch.
        names: Names of the classes, as far as they are known.
        device: Where the model is.

    Raises:
        ValueError: If the model fails on them.
    """
    from ..evaluation.scores import call, class_scores

    if len({x.shape for x in pictures}) > 1:
        return [answer for x in pictures for answer in answers(robust, [x], names, device)]
    x = torch.stack(list(pictures)).to(device)
    try:
        result = call(robust, robust.run, x)
    except RuntimeError as error:
        told = " ".join(str(error).split())
        raise ValueError(f"the model failed on pictures of shape {tuple(x.shape[1:])}: {told}") from error
    confidence, number = class_scores(robust, result.output, len(pictures)).softmax(-1).max(-1)
    g, group = result.pose.element, robust.group
    assert isinstance(group, PlanarGroup)
    degrees, reflected = group.angle(g).rad2deg(), group.is_reflected(g)
    return [
        Answer(
            prediction=names[k] if k < len(names) else str(k),
            number=k,
            confidence=round(float(confidence[i]), 6),
            degrees=round(float(degrees[i]), 6),
            reflected=bool(reflected[i]),
            pose_confidence=round(float(result.pose.confidence[i]), 6),
            passes=int(result.passes[i]),
            gated=result.gated is not None and bool(result.gated[i]),
            flagged=result.flagged is not None and bool(result.flagged[i]),
        )
        for i, k in enumerate(number.tolist())
    ]


class Predict(Job[Answer]):
    """Classifies pictures.

    Args:
        robust: The adapted model, which returns class scores.
        preprocess: Makes a tensor ``(C, H, W)`` of an RGB PIL picture.
        names: Names of the classes, as far as they are known.
        device: Where the model is.
    """

    columns = COLUMNS
    counted = "status"

    def __init__(
        self,
        robust: Adapted,
        preprocess: Callable[[Any], Tensor],
        names: Sequence[str] = (),
        device: Any = "cpu",
    ) -> None:
        self.robust, self.preprocess, self.names, self.device = robust, preprocess, tuple(names), device

    def settings(self) -> dict[str, Any]:
        """Return what decides about predictions."""
        robust = self.robust
        return {
            "task": "predict",
            "group": str(robust.group),
            "model": fingerprint(robust.model),
            "canonicalizer": fingerprint(robust.canonicalizer),
            "deployment_prior": repr(robust.canonicalizer.deployment_prior),
            "preprocess": described(self.preprocess),
            "classes": len(self.names),
            "gate": described(robust.gate),
            **{n: getattr(robust, n) for n in ("mode", "top_k", "cover", "cut", "evidence", "canvas")},
        }

    def see(self, data: bytes) -> Tensor:
        """Decode a picture to what the model takes."""
        return self.preprocess(read_picture(data))

    def judge(self, seen: list[Tensor]) -> list[Answer]:
        """Classify a batch."""
        return answers(self.robust, seen, self.names, self.device)

    def finish(self, item: Item, data: bytes, verdict: Answer) -> Result:
        """Make the row."""
        return Result({**asdict(verdict), "status": "ok", "error": None})

    def failed(self, item: Item, error: str) -> dict[str, Any]:
        """Return the row of a bad item."""
        return {**dict.fromkeys(COLUMNS), "status": BAD, "error": error}


def predict(
    robust: Adapted,
    source: Source,
    output: str | os.PathLike[str],
    preprocess: Callable[[Any], Tensor],
    *,
    names: Sequence[str] = (),
    format: Format = "parquet",
    column: str | None = None,
    retry_bad: bool = False,
    limit: int | None = None,
    shard_size: int | None = None,
    part: str = "1/1",
    batch_size: int = 32,
    workers: int | None = None,
    device: Any = "cpu",
    progress: bool = False,
    dry_run: bool = False,
) -> Summary:
    """Classify all pictures of a source, however they lie; a call that was killed is resumed by the next.

    Args:
        robust: The adapted model, which returns class scores.
        source: See `upright.canonicalize`.
        output: The folder of the predictions: a file with a row a picture (`COLUMNS`) for every shard.
        preprocess: Makes a tensor ``(C, H, W)`` of an RGB PIL picture.
        names: Names of the classes, as far as they are known.
        format: How the files are written: ``"parquet"``, ``"jsonl"`` or ``"csv"``.
        column: See `upright.canonicalize`, also for the remaining arguments.
        retry_bad: Do shards with bad items again, that may be good by now.
        limit: At most so many pictures, the first ones.
        shard_size: How many pictures are finished together, and lie in a file.
        part: ``"i/n"``: only every n-th shard, from the i-th.
        batch_size: Pictures that are judged together.
        workers: Threads that decode.
        device: Where the model is.
        progress: Show a progress bar, on a terminal.
        dry_run: Write nothing: look at the first 64 pictures that are left.

    Returns:
        What the run came to.

    Raises:
        FileNotFoundError: If the source does not exist, or holds no pictures.
        FileExistsError: If the output holds something else.
        ValueError: If a run with other settings was begun there, another process is at work on the part, or
            an argument does not fit.
    """
    record = Path(output).expanduser()
    check_apart(source, record)
    return run(
        Predict(robust.eval(), preprocess, names, device),
        open_store(source, column=column, shard_size=shard_size, limit=limit),
        Ledger(record, COLUMNS, format),
        None,
        part=Part.parse(part),
        pace=Pace(batch_size=batch_size, workers=workers),
        retry_bad=retry_bad,
        notes={"from": str(source)},
        progress=progress,
        dry_run=dry_run,
    )
