"""One picture in, one answer out: everything between is a value, so any number of threads may ask."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from .._version import __version__
from ..adapter import Adapted
from ..canonicalizers import Pose
from ..evaluation.scores import call
from ..evaluation.tasks import Task
from ..groups.base import Element, FiniteGroup
from ..groups.planar import PlanarGroup
from ..integrations import LoadedModel
from ..pictures import turn
from .examples import Example, examples
from .limits import Limits
from .pictures import FORMATS, data_url, decoded, reduced, viewed
from .readings import DRAWN, Reader, frame_seen, made_reading, task_by_name
from .schema import (
    Answer,
    Asked,
    ExampleInfo,
    Info,
    LimitsInfo,
    PoseReading,
    PoseShare,
)

_CELLS = 72
_SHOWN = 360


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What a request asks for, beside the picture.

    Attributes:
        degrees: By how much the picture is turned before any model sees it, counter-clockwise.
        flip: Whether it is flipped left-right before that.
        square: Whether only its centre square is taken.
        top: How many classes are named.
        bare: Whether the bare model is asked too.
        canonical: Whether the picture is returned as the model is shown it.
    """

    degrees: float = 0.0
    flip: bool = False
    square: bool = False
    top: int = 5
    bare: bool = True
    canonical: bool = False


class Service:
    """Answers what a model says of a picture, bare and adapted.

    Args:
        robust: The adapted model, which is put into evaluation mode; its group must turn or flip the plane.
        loaded: The model with its preprocessing and class names.
        task: What the model does: a name in `upright.serve.DRAWN`, or a task of one's own that reads its
            output, such as ``upright.evaluation.detection(read=…)``.
        threshold: From which score on things are shown.
        device: Where pictures go; the model must be there.
        limits: What is refused.
        title: What the model is called; default: its reference.

    Raises:
        TypeError: If the group does not turn the plane.
    """

    def __init__(
        self,
        robust: Adapted,
        loaded: LoadedModel,
        *,
        task: str | Task = "classification",
        threshold: float = 0.5,
        device: str = "cpu",
        limits: Limits | None = None,
        title: str | None = None,
        pictures: tuple[Example, ...] | None = None,
    ) -> None:
        if not isinstance(robust.group, PlanarGroup):
            raise TypeError(
                f"the page turns pictures in the plane, and {robust.group} does not; "
                "serve one of C<n>, D<n>, SO2 or O2"
            )
        self.robust, self.loaded, self.device = robust.eval(), loaded, device
        made = task_by_name(task) if isinstance(task, str) else task
        self.task = DRAWN[0] if made is None else made.name
        self._task = None if self.task == DRAWN[0] else made
        self.limits = Limits() if limits is None else limits
        self.title = title or loaded.reference or type(loaded.model).__name__
        self.examples = {example.name: example for example in (pictures or examples())}
        self._read = Reader(
            robust=robust, task=self._task, names=tuple(loaded.class_names), threshold=threshold
        )

    def answer(self, data: bytes, ask: Ask) -> Answer:
        """Answer one request; takes the time that the model takes.

        Args:
            data: The bytes of a picture file.
            ask: What to do with it.

        Raises:
            RefusedError: If it is no picture that can be read within the limits.
        """
        began = time.perf_counter()
        picture = viewed(decoded(data, self.limits), ask.degrees, ask.flip, ask.square)
        bare, adapted, pose = self._readings(picture, ask)
        canonical = None
        if ask.canonical:
            canonical = data_url(turn(pose.element[0].inverse(), reduced(picture, _SHOWN)))
        return Answer(
            width=picture.width,
            height=picture.height,
            asked=Asked(degrees=ask.degrees, flip=ask.flip, square=ask.square),
            bare=bare,
            adapted=adapted[0],
            pose=self._pose(pose, *adapted[1:]),
            canonical=canonical,
            seconds=round(time.perf_counter() - began, 5),
        )

    def info(self) -> Info:
        """Say what is served."""
        group = self.robust.group
        assert isinstance(group, PlanarGroup)
        poses = None
        if isinstance(group, FiniteGroup):
            elements = group.elements()
            poses = sorted({round(x, 6) for x in group.angle(elements).rad2deg().tolist()})
        limits = self.limits
        return Info(
            version=__version__,
            model=self.title,
            task=self.task,
            classes=len(self.loaded.class_names),
            group=str(group),
            reflections=bool(group.is_reflected(_some(group)).any()),
            poses=poses,
            mode=self.robust.mode,
            canonicalizer_parameters=sum(p.numel() for p in self.robust.canonicalizer.parameters()),
            formats=list(FORMATS),
            limits=LimitsInfo(**{name: getattr(limits, name) for name in LimitsInfo.model_fields}),
            examples=[ExampleInfo(name=e.name, title=e.title) for e in self.examples.values()],
        )

    @torch.inference_mode()
    def _readings(self, picture: Image.Image, ask: Ask) -> Any:
        made = self.loaded.preprocess(picture)
        frame = frame_seen(self.loaded.preprocess, picture, made)
        x: Any = (
            [made.to(self.device)]
            if self._task is not None and self._task.lists
            else made[None].to(self.device)
        )
        bare = None
        if ask.bare:
            began = time.perf_counter()
            fields = self._read(call(self.robust, self.robust.model, x), frame, ask.top)
            bare = made_reading(1, 1e3 * (time.perf_counter() - began), fields)
        began = time.perf_counter()
        run = call(self.robust, self.robust.run, x)
        fields = self._read(run.output, frame, ask.top)
        adapted = made_reading(int(run.passes[0]), 1e3 * (time.perf_counter() - began), fields)
        return bare, (adapted, _first(run.gated), _first(run.flagged)), run.pose

    def _pose(self, pose: Pose, gated: bool, flagged: bool) -> PoseReading:
        shares, continuous = _posterior(pose)
        (chosen,) = _described(pose.element[:1], pose.confidence[:1])
        return PoseReading(
            degrees=chosen.degrees,
            reflected=chosen.reflected,
            confidence=chosen.probability,
            tied=bool(pose.is_tied[0]),
            gated=gated,
            flagged=flagged,
            continuous=continuous,
            posterior=shares,
        )


def _some(group: PlanarGroup) -> Element:
    if isinstance(group, FiniteGroup):
        return group.elements()
    return group.sample(64, generator=torch.Generator().manual_seed(0))


def _first(marks: Tensor | None) -> bool:
    return marks is not None and bool(marks[0])


def _posterior(pose: Pose) -> tuple[list[PoseShare], bool]:
    """Return poses and their probabilities, and whether they are cells of a density."""
    if pose.grid is not None and pose.log_density is not None:
        shares = _described(pose.grid, pose.log_density[0].exp())
        return _binned(shares), True
    elements, probabilities = pose.top_k()
    shares = _described(elements[0], probabilities[0])
    return sorted(shares, key=lambda share: (share.reflected, share.degrees)), False


def _described(elements: Element, probabilities: Tensor) -> list[PoseShare]:
    group = elements.group
    assert isinstance(group, PlanarGroup)
    degrees = (group.angle(elements).rad2deg() % 360).tolist()
    rows = zip(degrees, group.is_reflected(elements).tolist(), probabilities.tolist(), strict=True)
    return [
        PoseShare(degrees=round(d, 4), reflected=r, probability=round(p, 6) if p == p else 0.0)
        for d, r, p in rows
    ]


def _binned(shares: list[PoseShare]) -> list[PoseShare]:
    """Sum a density over cells that are wide enough to be drawn."""
    cells: dict[tuple[bool, int], float] = {}
    for share in shares:
        key = (share.reflected, round(share.degrees * _CELLS / 360) % _CELLS)
        cells[key] = cells.get(key, 0.0) + share.probability
    return [
        PoseShare(degrees=360 * cell / _CELLS, reflected=reflected, probability=round(p, 6))
        for (reflected, cell), p in sorted(cells.items())
    ]
