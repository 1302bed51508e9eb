"""What can be found on a picture: one file a task, one row a name."""

from __future__ import annotations

from collections.abc import Callable

from .base import Task as Task
from .classification import classification as classification
from .depth import depth as depth
from .detection import detection as detection
from .detection import instances as instances
from .detection import keypoints as keypoints
from .retrieval import retrieval as retrieval
from .segmentation import segmentation as segmentation
from .text import text as text

TASKS: dict[str, Callable[[], Task]] = {
    "classification": classification,
    "segmentation": segmentation,
    "detection": detection,
    "instances": instances,
    "keypoints": keypoints,
    "text": text,
    "retrieval": retrieval,
    "depth": depth,
}
"""Tasks by name; those with settings of their own are made by calling the function."""
