"""Key points."""

from dataclasses import replace
from functools import partial

from upright import Points

from .classification import MAPS, VIT
from .rows import Row, make, transformers


def _vitpose(size):
    def build():
        hf = transformers()
        settings = {k: v for k, v in VIT.items() if k != "intermediate_size"}
        backbone = hf.VitPoseBackboneConfig(
            **{**settings, "image_size": size, "patch_size": [8, 8], "mlp_ratio": 2}, out_features=["stage2"]
        )
        return hf.VitPoseForPoseEstimation(hf.VitPoseConfig(backbone_config=backbone, num_labels=5)).eval()

    return build


_ROWS = [
    Row("VitPoseForPoseEstimation", _vitpose([32, 32]), outputs={"heatmaps": "image"}, sizes=((32, 32),)),
    Row(
        "SuperPointForKeypointDetection",
        make(
            "SuperPointForKeypointDetection",
            "SuperPointConfig",
            encoder_hidden_sizes=[8, 8, 8, 8],
            decoder_hidden_size=8,
            descriptor_decoder_dim=8,
            max_keypoints=12,
        ),
        outputs={"keypoints": partial(Points, normalized=True), **MAPS},
        tolerance=1e-6,
    ),
]

ROWS = [replace(row, hidden=True) for row in _ROWS]
