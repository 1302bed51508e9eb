"""Runs rows on one batch of pictures, at one pose after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..adapter import Adapted
from ..adapter.spec import kind_class
from ..canonicalizers import Canonicalizer, Pose
from ..groups.base import Element, FiniteGroup
from ..kinds import Invariant
from .rows import Proposals, Row, group_average
from .scores import call


@dataclass(frozen=True)
class Output:
    """What a row returned for a batch.

    Attributes:
        output: What the model returned, in the frame of the pictures.
        passes: How many times the predictor ran on each picture, shape ``(B,)``.
        pose: The poses, where the row chose any.
    """

    output: Any
    passes: Tensor
    pose: Pose | None = None


class Runner:
    """Runs rows on one batch of pictures at one pose after the other.

    Args:
        robust: The adapted model.
        built: What each row runs, as `build_rows` made it.
        start: The upright pictures, shape ``(B, C, H, W)`` or a list of ``(C, H_i, W_i)``.
        is_exact: Whether pictures turned by the group's elements hold the same pixels in another order.
    """

    def __init__(self, robust: Adapted, built: Mapping[str, Any], start: Any, *, is_exact: bool) -> None:
        self.robust, self.built, self.start, self.is_exact = robust, built, start, is_exact
        self.first = self._bare(start)
        self._average: Output | None = None

    def run(self, name: str, g: Element, given: Any, back: Callable[[], Any]) -> Output:
        """Run one row.

        Args:
            name: Name of the row.
            g: The element by which pictures were turned.
            given: The turned pictures.
            back: Called without arguments, returns them turned back by ``g``.
        """
        upright = bool(g.is_identity())
        if name == "vanilla":
            return self.first if upright else self._bare(given)
        if name == "oracle":
            if upright or _equal(back(), self.start):
                return self.replayed(self.first, g, given)
            known = self.robust.replace(**_known(g))
            return Output(call(known, known, given), torch.ones_like(self.first.passes))
        if name == "average":
            return self._averaged(g, given, upright)
        return run_row(self.robust, self.built[name], given)

    def replayed(self, upright: Output, g: Element, given: Any) -> Output:
        """Return an output on the upright pictures, moved with them by ``g``; nothing is run."""
        if bool(g.is_identity()) or not _moves(self.robust):
            return upright
        known = self.robust.replace(model=Replay(upright.output), **_known(g))
        return Output(call(known, known, given), upright.passes)

    def _bare(self, x: Any) -> Output:
        output = call(self.robust, self.robust.model, x)
        return Output(output, torch.ones(len(x), dtype=torch.long))

    def _averaged(self, g: Element, given: Any, upright: bool) -> Output:
        if self._average is not None and self.is_exact and not upright:
            return self.replayed(self._average, g, given)
        made = run_row(self.robust, self.built["average"], given)
        self._average = self._average or made
        return made


def build_rows(robust: Adapted, rows: Mapping[str, Row]) -> dict[str, Any]:
    """Make what each row runs."""
    return {name: row.build(robust) for name, row in rows.items()}


def run_row(robust: Adapted, model: Any, given: Any) -> Output:
    """Run what a row runs on pictures; every pass of the predictor counts, those that find the pose too."""
    if not hasattr(model, "run"):
        return Output(call(robust, model, given), torch.ones(len(given), dtype=torch.long))
    run = call(robust, model.run, given)
    calls = None if run.pose is None else run.pose.calls
    passes = run.passes.cpu() if calls is None else run.passes.cpu() + calls.cpu()
    chooser = getattr(model, "canonicalizer", None)
    chooses = model is robust or not (chooser is robust.canonicalizer or isinstance(chooser, Proposals))
    return Output(run.output, passes, run.pose if chooses else None)


class KnownPose(Canonicalizer):
    """Says of every picture that it stands as one given element.

    Args:
        g: The element.
    """

    def __init__(self, g: Element) -> None:
        super().__init__(g.group)
        self.element = g

    def forward(self, x: Any) -> Pose:
        """Return the element for every picture."""
        device = x[0].device if len(x) else self.element.device
        return Pose(self.element.to(device).reshape(1).expand(len(x)))


def _known(g: Element) -> dict[str, Any]:
    return {"canonicalizer": KnownPose(g), "mode": "canonical", "gate": None}


class Replay(nn.Module):
    """Returns the same whatever it is called with.

    Args:
        output: What it returns.
    """

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the output."""
        return self.output


def averages(robust: Adapted, x: Any) -> bool:
    """Say whether outputs can be averaged over poses, by trying on pictures ``x``."""
    if isinstance(robust.group, FiniteGroup) and robust.group.order == 1:
        return True
    try:
        call(robust, group_average(robust), x)
    except (TypeError, ValueError):  # boxes, points, labels and sets have no average
        return False
    return True


def moved_kinds(robust: Adapted) -> list[Any]:
    """Return the kinds of an adapted model's results, as classes, or functions where they depend on data."""
    return [kind_class(spec) for spec in _specs(robust.returns)]


def _specs(spec: Any) -> list[Any]:
    return [one for entry in spec.values() for one in _specs(entry)] if isinstance(spec, Mapping) else [spec]


def _moves(robust: Adapted) -> bool:
    """Say whether outputs move with the picture."""
    kinds = moved_kinds(robust)
    return not all(isinstance(kind, type) and issubclass(kind, Invariant) for kind in kinds)


def _equal(x: Any, y: Any) -> bool:
    if isinstance(x, Tensor):
        return torch.equal(x, y)
    return all(torch.equal(one, other) for one, other in zip(x, y, strict=True))
