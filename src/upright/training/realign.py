"""``realign``: align a training set whose pictures do not all stand as they should."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from .._checks import check_batch, check_positive
from ..actions import act
from ..canonicalizers import Canonicalizer, Pose
from ..data import loader, open_data, split_batch
from ..factory import canonicalizer as build_canonicalizer
from ..groups.base import Element, FiniteGroup, Group
from ..groups.parse import parse_group
from ..kinds import Border, Image
from .fit import fit

NEAR_DEGREES = 5.0
"""How far a pose of a continuous group may move and still count as settled."""


@dataclass(frozen=True)
class Realigned:
    """What `realign` found.

    Attributes:
        poses: The pose of every picture, shape ``(N,)``: ``act(~poses, pictures)`` is the aligned set. Where
            no orientation is commoner than others, all poses together are known up to one common element.
        canonicalizer: The canonicalizer that was fitted last, in evaluation mode.
        history: A row a round: ``changed``, the share of pictures whose pose moved; ``confidence``, the mean
            probability of the poses; ``upright``, the share whose pose is the identity.
        converged: Whether the poses settled within the rounds.
    """

    poses: Element
    canonicalizer: Canonicalizer
    history: list[dict[str, float]] = field(repr=False)
    converged: bool


def realign(
    pictures: Any,
    group: Group | str = "C4",
    *,
    canonicalizer: Canonicalizer | None = None,
    poses: Element | None = None,
    rounds: int = 8,
    odds: float = 4.0,
    settled: float = 0.01,
    border: Border = "edge",
    batch_size: int = 128,
    seed: int = 0,
    **fitting: Any,
) -> Realigned:
    """Align pictures with each other: fit a canonicalizer to their poses, pose them anew by it, and so on.

    Each round fits from the same first weights to the pictures as they are posed by then. A canonicalizer
    that generalises learns what most pictures of a kind have in common and not the pose of each, and so
    moves those that stand apart. One that is fitted until it knows every picture by heart moves none.

    Args:
        pictures: Anything that `upright.data.open_data` takes; square where the group swaps sides. Labels do
            not count.
        group: The group, or its name.
        canonicalizer: The canonicalizer to fit, in place; default: that of `upright.canonicalizer`.
        poses: What is known of the poses to begin with, shape ``(N,)``, such as those of an
            `EnergyCanonicalizer`; default: all upright.
        rounds: The most rounds.
        odds: How much likelier than its present pose another must be for a picture to take it; 1: at all.
        settled: Stop when no more than this share of the poses moves.
        border: What lies outside the pictures, where the group resamples.
        batch_size: Pictures at once.
        seed: Decides weights, orders and augmentation; the same seed gives the same poses.
        **fitting: More arguments of `upright.fit`, such as ``epochs`` (default: 8) and ``learning_rate``.

    Returns:
        The poses, the canonicalizer, and how it went.

    Raises:
        ValueError: If the canonicalizer is one of another group, or ``poses`` do not fit the pictures.

    Reference:
        Schmidt and Stober 2025, "Robust canonicalization through bootstrapped data re-alignment", arXiv
        2510.08178.
    """
    check_positive("rounds", rounds)
    data, parsed = open_data(pictures), parse_group(group)
    if canonicalizer is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            canonicalizer = build_canonicalizer(parsed)
    if canonicalizer.group != parsed:
        raise ValueError(f"canonicalizer must be one of {parsed}, got one of {canonicalizer.group}")
    current = parsed.identity(len(data)) if poses is None else poses
    check_batch("poses", len(current), len(data), "pictures")
    first = copy.deepcopy(canonicalizer.state_dict())
    options = {"epochs": 8, "calibrate": False, "progress": False, **fitting}
    history: list[dict[str, float]] = []
    for number in range(rounds):
        posed = Posed(data, current, border)
        canonicalizer.load_state_dict(first)
        fit(canonicalizer, posed, batch_size=batch_size, seed=seed + number, **options)
        residual, confidence = _residuals(canonicalizer, posed, batch_size, odds)
        moved = ~_near(residual)
        current = current.compose(residual)
        row = {"changed": moved, "upright": _near(current), "confidence": confidence}
        history.append({"round": number + 1, **{key: float(x.double().mean()) for key, x in row.items()}})
        if history[-1]["changed"] <= settled:
            break
    return Realigned(current, canonicalizer.eval(), history, history[-1]["changed"] <= settled)


class Posed(Dataset[Any]):
    """Pictures turned back by poses.

    Args:
        pictures: A data set of pictures.
        poses: One pose a picture, shape ``(N,)``.
        border: What lies outside the pictures.
    """

    def __init__(self, pictures: Any, poses: Element, border: Border) -> None:
        self.pictures, self.back, self.border = pictures, poses.inverse(), border

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Tensor:
        picture = split_batch(self.pictures[index])[0]
        moved: Tensor = act(self.back[index], Image(picture, border=self.border)).data
        return moved


def _residuals(
    canonicalizer: Canonicalizer, data: Any, batch_size: int, odds: float
) -> tuple[Element, Tensor]:
    """Return by what pictures stand apart from their present poses, and the probability of the likeliest."""
    values, confidence = [], []
    with torch.no_grad(), _evaluating(canonicalizer):
        for pictures, _ in loader(data, batch_size):
            pose: Pose = canonicalizer(pictures)
            likeliest = pose.confidence
            keeps = likeliest < odds * pose.near_identity(_radius(pose.group))
            values.append(pose.left_alone(keeps).element.value)
            confidence.append(likeliest)
    return Element(canonicalizer.group, torch.cat(values)), torch.cat(confidence)


def _radius(group: Group) -> float:
    return 0.0 if isinstance(group, FiniteGroup) else math.radians(NEAR_DEGREES)


def _near(poses: Element) -> Tensor:
    """Say which poses are the identity; of continuous groups, to 5° or the like in the group's unit."""
    if isinstance(poses.group, FiniteGroup):
        return poses.is_identity()
    return poses.distance(poses.group.identity(device=poses.device)) <= _radius(poses.group)


@contextmanager
def _evaluating(module: torch.nn.Module) -> Iterator[None]:
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)
