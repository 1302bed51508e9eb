"""Key points: heatmaps move as pictures, points as points.

A key point keeps its name: under a reflection the left wrist stays the left wrist. A model that tells left
from right by the handedness of what it sees names them as it sees the upright picture.
"""

from functools import partial

from ...kinds import Points
from .base import HIDDEN, Signature

KEYPOINTS = {
    "VitPoseForPoseEstimation": Signature(
        inputs={"pixel_values": "image", "labels": "image"}, outputs={"heatmaps": "image"}
    ),
    "SuperPointForKeypointDetection": Signature(
        inputs={"pixel_values": "image"},
        outputs={"keypoints": partial(Points, normalized=True), **HIDDEN},
        averages=False,
    ),
}
"""Pose estimation and key points of ``transformers``."""
