"""At which poses the model runs on each picture, and how much each counts."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from .._checks import check_choice, check_fraction, check_positive
from ..canonicalizers.pose import Pose
from ..groups.base import Element, FiniteGroup, Group
from ..groups.rotations import O2, SO2
from ..groups.subset import Arc

Mode = Literal["canonical", "top_k", "weighted", "average"]
MODES: tuple[Mode, ...] = ("canonical", "top_k", "weighted", "average")
SETTINGS: dict[str, tuple[str, ...]] = {
    "top_k": ("top_k", "cover", "evidence"),
    "weighted": ("top_k", "cut", "evidence"),
}
"""Settings of `Adapted` that only some modes have."""
SHARED = {"top_k", "weighted"}
"""Modes between which a model takes its settings along."""
GRID = 24
"""How many elements of SO2 or O2 the mode ``"average"`` takes where ``top_k`` is None."""
CUT = 0.2
"""Share of the likeliest pose's probability below which a pose does not count, in mode ``"weighted"``."""


def settings_of(mode: Mode, group: Group) -> tuple[str, ...]:
    """Return the names of the settings that a mode has, of those that only some modes have."""
    if mode == "average" and not isinstance(group, FiniteGroup):
        return ("top_k",)
    return SETTINGS.get(mode, ())


def check_passes(
    mode: Mode,
    group: Group,
    top_k: int | None,
    cover: float | None,
    cut: float | None,
    evidence: float,
) -> None:
    """Raise ValueError unless the settings belong to the mode and lie in their ranges.

    Raises TypeError if there is no average over the group.
    """
    check_choice("mode", mode, MODES)
    given = {"top_k": top_k, "cover": cover, "cut": cut, "evidence": evidence or None}
    own = settings_of(mode, group)
    for name, setting in given.items():
        if setting is not None and name not in own:
            modes = " or ".join(repr(m) for m, names in SETTINGS.items() if name in names)
            raise ValueError(f"{name} needs mode={modes}, got mode={mode!r}")
    if top_k is not None:
        check_positive("top_k", top_k)
    for name, share in (("cover", cover), ("cut", cut)):
        if share is not None:
            check_fraction(name, share)
    if mode == "average" and not isinstance(group, FiniteGroup):
        average_grid(group, top_k)


def plan_passes(
    pose: Pose,
    mode: Mode,
    *,
    top_k: int | None = None,
    cover: float | None = None,
    cut: float | None = None,
    gated: Tensor | None = None,
) -> tuple[Element, Tensor]:
    """Choose the poses of several passes.

    In mode ``"average"`` these are all elements of a finite group; of SO2 and O2, an `average_grid` that
    starts at the pose, so that the average is as equivariant as the pose is.

    Args:
        pose: The poses, batch shape ``(B,)``.
        mode: Another than ``"canonical"``.
        top_k: See `Adapted`.
        cover: See `Adapted`.
        cut: See `Adapted`.
        gated: Which pictures are left alone, shape ``(B,)``; their pose is the identity.

    Returns:
        Elements and their weights, both of shape ``(B, K)``, the chosen element first; a weight of 0 is a
        pass that is not made. Weights need not sum to 1.
    """
    if mode == "average":
        elements = _averaged(pose, top_k)
        weights = torch.full(elements.shape, 1.0 / elements.shape[1], device=pose.element.device)
    elif mode == "weighted":
        elements, probs = pose.top_k()
        weights = continuous_weights(probs, CUT if cut is None else cut, top_k)
    else:
        elements, weights = pose.top_k(top_k)
        if cover is not None:
            taken = torch.stack([weights[:, :rank].sum(1) for rank in range(weights.shape[1])], 1)
            weights = weights.masked_fill(taken >= cover, 0.0)
    if gated is not None:
        once = torch.zeros_like(weights)
        once[:, 0] = 1.0
        weights = torch.where(gated.unsqueeze(1), once, weights)
    return elements, weights


def average_grid(group: Group, count: int | None = None, device: Any = None) -> Element:
    """Return equally spaced elements of SO2 or O2, the identity first, shape ``(count,)``.

    In O2 one half of them is reflected.

    Args:
        group: ``SO2()`` or ``O2()``.
        count: How many; None: `GRID`.
        device: Where the elements live.

    Raises:
        TypeError: If the group is another: others have no equally spaced elements, or no end.
        ValueError: If the count is odd for O2.
    """
    if not isinstance(group, (SO2, O2)):
        raise TypeError(
            f"mode='average' needs a finite group, SO2 or O2, got {group}; use mode='top_k', which averages "
            "over the likeliest poses"
        )
    count = GRID if count is None else count
    if isinstance(group, O2) and count % 2:
        raise ValueError(f"top_k must be even for O2, one half of it being reflected, got {count}")
    angles = count // 2 if isinstance(group, O2) else count
    grid = Arc(180, group).grid(angles, device)
    order = torch.arange(angles, device=device).roll(-(angles // 2))
    return grid[torch.cat([order, order + angles])] if isinstance(group, O2) else grid[order]


def _averaged(pose: Pose, top_k: int | None) -> Element:
    """Return what the mode ``"average"`` averages over, shape ``(B, K)``."""
    group = pose.group
    if isinstance(group, FiniteGroup):
        return group.elements(pose.element.device).expand(len(pose.element), group.order)
    grid = average_grid(group, top_k, pose.element.device)
    return pose.element.reshape(-1, 1).compose(grid.reshape(1, -1))


def continuous_weights(probs: Tensor, cut: float, top_k: int | None = None) -> Tensor:
    """Weigh poses so that a pose comes and goes with weight 0: the weights of a weighted frame.

    ``w_i = max(0, p_i - c)``, where ``c`` is ``cut · max p``, or the probability of the pose that comes
    after the ``top_k`` likeliest if that is more. All of it is continuous in ``p``, and knows nothing of the
    order of poses, so that averages with these weights are as continuous as the probabilities, and as
    equivariant. With ``top_k`` there is no continuous way through a tie of more than ``top_k`` poses: there
    the first one is taken.

    Args:
        probs: Probabilities, the chosen pose first, the others in falling order, shape ``(B, K)``.
        cut: In 0…1; at 1 only the likeliest pose remains.
        top_k: Most poses; None: all.

    Returns:
        Weights, shape ``(B, K)``, not normalised; at least one a row is positive.

    Reference:
        Dym, Lawrence and Siegel 2024, "Equivariant Frames and the Impossibility of Continuous
        Canonicalization", arXiv 2402.16077, section 3.
    """
    level = cut * probs.amax(1, keepdim=True)
    if top_k is not None and top_k < probs.shape[1]:
        level = torch.maximum(level, probs.sort(1, descending=True).values[:, top_k : top_k + 1])
    weights = (probs - level).clamp(min=0.0)
    empty = weights.sum(1, keepdim=True) <= 0
    first = torch.zeros_like(weights)
    first[:, 0] = 1.0
    return torch.where(empty, first, weights)
