"""Depth estimation."""

from dataclasses import replace

from .classification import MAPS, PYRAMID, SQUARE, VIT
from .rows import Row, make, transformers

_DEEP = {**VIT, "num_hidden_layers": 4}
_NECK = {"neck_hidden_sizes": [8, 8, 8, 8], "fusion_hidden_size": 8}
_STAGES = ["stage1", "stage2", "stage3", "stage4"]
_DEPTH = {"predicted_depth": "mask"}


def _depth_anything():
    hf = transformers()
    backbone = hf.Dinov2Config(**_DEEP, out_features=_STAGES, reshape_hidden_states=False)
    config = hf.DepthAnythingConfig(
        backbone_config=backbone, patch_size=8, reassemble_hidden_size=16, head_hidden_size=4, **_NECK
    )
    return hf.DepthAnythingForDepthEstimation(config).eval()


def _zoedepth():
    hf = transformers()
    backbone = hf.BeitConfig(**_DEEP, out_features=_STAGES, reshape_hidden_states=False)
    config = hf.ZoeDepthConfig(
        backbone_config=backbone, bottleneck_features=8, num_relative_features=4, bin_embedding_dim=8,
        num_attractors=[4, 2, 1, 1],
        bin_configurations=[{"n_bins": 8, "min_depth": 0.001, "max_depth": 10.0, "name": "nyu"}], **_NECK,
    )  # fmt: skip
    return hf.ZoeDepthForDepthEstimation(config).eval()


_ROWS = [
    Row(
        "DPTForDepthEstimation",
        make("DPTForDepthEstimation", "DPTConfig", backbone_out_indices=[0, 1, 2, 3], **_NECK, **_DEEP),
        outputs=_DEPTH,
        sizes=SQUARE,
    ),
    Row("DepthAnythingForDepthEstimation", _depth_anything, outputs=_DEPTH),
    Row(
        "GLPNForDepthEstimation",
        make("GLPNForDepthEstimation", "GLPNConfig", **PYRAMID),
        outputs={**_DEPTH, **MAPS},
        sizes=((32, 32), (32, 64)),
    ),
    Row("ZoeDepthForDepthEstimation", _zoedepth, outputs=_DEPTH, sizes=SQUARE),
]

ROWS = [replace(row, hidden=True) for row in _ROWS]
