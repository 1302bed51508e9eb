"""Average precision, by ``faster-coco-eval``, and the similarity of key points that it uses.

Convention:
    Instances of a picture are a dict of plain tensors on the CPU: ``labels`` ``(N,)``, and as needed
    ``boxes`` ``(N, 4)`` xyxy in pixels, ``masks`` ``(N, H, W)`` bool, ``keypoints`` ``(N, K, 3)``, ``scores``
    ``(N,)`` for predictions, ``area`` and ``iscrowd`` ``(N,)`` for targets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from .measures import Metric, Records

COCO_SIGMAS = (
    0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087,
    0.089, 0.089,
)  # fmt: skip
"""How far apart annotators put each of the 17 key points of COCO, as a share of the person's scale."""


@dataclass(frozen=True)
class AveragePrecision(Metric):
    """Average precision over recall 0…1, its mean over classes and thresholds.

    Attributes:
        name: What it is called in tables.
        by: What instances are matched by.
        threshold: The overlap (or key point similarity) from which on an instance is found; None: the mean
            over 0.50, 0.55, …, 0.95.
        sigmas: For key points: see `COCO_SIGMAS`.

    Reference:
        Lin et al. 2014, arXiv 1405.0312; https://cocodataset.org/#detection-eval.
    """

    name: str
    by: Literal["bbox", "segm", "keypoints"]
    threshold: float | None = None
    sigmas: tuple[float, ...] | None = None
    lower_is_better: bool = False
    is_share: bool = True

    def record(self, prediction: Mapping[str, Any], target: Mapping[str, Any]) -> tuple[Any, Any]:
        """Return predicted and true instances as annotations."""
        return self._annotations(prediction, scored=True), self._annotations(target, scored=False)

    def values(self, records: Records, weights: Tensor) -> Tensor:
        """Return the average precision, shape ``(R, P)``."""
        return torch.stack([self._at_one_pose(column, weights) for column in records], 1)

    @property
    def resamples(self) -> int:
        """How many resamples make an interval: fewer than of metrics that are means."""
        return 100

    def _at_one_pose(self, column: Sequence[Any], weights: Tensor) -> Tensor:
        """Match once, then accumulate the matches of the pictures of every resample."""
        evaluation = self._matched(column)
        matches = evaluation._evalImgs_cpp  # classes, then pictures; there is one range of areas
        classes = len(matches) // len(column)
        found = []
        for row in weights:
            drawn = torch.arange(len(column)).repeat_interleave(row.long()).tolist()
            evaluation._evalImgs_cpp = [matches[c * len(column) + i] for c in range(classes) for i in drawn]
            evaluation.accumulate()
            precision = torch.as_tensor(evaluation.eval["precision"]).double()
            defined = precision[precision > -1]
            found.append(defined.mean() if len(defined) else torch.tensor(torch.nan).double())
        return torch.stack(found)

    def _matched(self, column: Sequence[Any]) -> Any:
        try:
            from faster_coco_eval import COCO, COCOeval_faster
        except ImportError as error:
            raise ImportError("mAP needs faster-coco-eval; pip install 'upright[metrics]'") from error
        classes = sorted({a["category_id"] for pair in column for side in pair for a in side})
        sides = []
        for side in (1, 0):  # targets, predictions
            numbered = [{**a, "image_id": i} for i, pair in enumerate(column) for a in pair[side]]
            coco = COCO()
            coco.dataset = {
                "images": [{"id": i, "height": 0, "width": 0} for i in range(len(column))],
                "categories": [{"id": c, "name": str(c)} for c in classes],
                "annotations": [{**a, "id": i + 1} for i, a in enumerate(numbered)],
            }
            coco.createIndex()
            sides.append(coco)
        evaluation = COCOeval_faster(*sides, self.by, separate_eval=True, kpt_oks_sigmas=self._spread())
        p = evaluation.params
        p.imgIds, p.catIds, p.maxDets = list(range(len(column))), classes, [p.maxDets[-1]]
        p.areaRng, p.areaRngLbl = [[0.0, 1e10]], ["all"]
        if self.threshold is not None:
            p.iouThrs = p.iouThrs[:1] * 0 + self.threshold
        evaluation.evaluate()
        return evaluation

    def _spread(self) -> list[float] | None:
        return None if self.sigmas is None else list(self.sigmas)

    def _annotations(self, instances: Mapping[str, Any], *, scored: bool) -> list[dict[str, Any]]:
        """Return the instances of a picture in COCO's form."""
        count = len(instances["labels"])
        columns: dict[str, list[Any]] = {"category_id": [int(c) + 1 for c in instances["labels"]]}
        if scored:
            columns["score"] = instances["scores"].tolist()
        else:
            columns["iscrowd"] = instances.get("iscrowd", torch.zeros(count)).long().tolist()
        if self.by == "segm":
            columns["segmentation"] = [_encoded(mask) for mask in instances["masks"]]
            columns["area"] = instances["masks"].flatten(1).sum(1).tolist() if count else []
        else:
            boxes = instances["boxes"].double()
            columns["bbox"] = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1).tolist()
            columns["area"] = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).tolist()
        if self.by == "keypoints":
            columns["keypoints"] = instances["keypoints"].double().flatten(1).tolist()
            columns["num_keypoints"] = (instances["keypoints"][..., 2] > 0).sum(1).tolist()
            if not scored:
                columns["area"] = instances["area"].double().tolist()
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def similarity(found: Tensor, true: Tensor, area: Tensor, sigmas: Sequence[float]) -> Tensor:
    """Return the object key point similarity (OKS) of every prediction with every target.

    Args:
        found: Predicted key points, shape ``(M, K, 3)``.
        true: Labelled key points, shape ``(N, K, 3)``; those of visibility 0 do not count.
        area: Area of the labelled instances in pixels, shape ``(N,)``.
        sigmas: Spread of every key point, ``K`` numbers.

    Returns:
        Similarities in 0…1, shape ``(M, N)``, float64; NaN for instances without labelled key points.

    Reference:
        https://cocodataset.org/#keypoints-eval.
    """
    squared = (found[:, None, :, :2].double() - true[None, :, :, :2].double()).square().sum(-1)  # (M, N, K)
    spread = (2 * torch.tensor(sigmas, dtype=torch.float64)).square()
    close = torch.exp(-squared / (2 * spread * area.double()[None, :, None]))
    labelled = (true[None, ..., 2] > 0).double()
    return (close * labelled).sum(-1) / labelled.sum(-1)


def _encoded(mask: Tensor) -> Any:
    import numpy as np
    from faster_coco_eval.core import mask as codec

    return codec.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
