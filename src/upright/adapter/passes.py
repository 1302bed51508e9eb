"""At which poses the model runs on each picture, and how much each counts."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from .._checks import check_choice, check_fraction, check_positive
from ..canonicalizers.pose import Pose
from ..groups.base import Element
from ..groups.parse import parse_finite_group

Mode = Literal["canonical", "top_k", "weighted", "average"]
MODES: tuple[Mode, ...] = ("canonical", "top_k", "weighted", "average")
SETTINGS: dict[str, tuple[str, ...]] = {
    "top_k": ("top_k", "cover", "evidence"),
    "weighted": ("top_k", "cut", "evidence"),
}
"""Settings of `Adapted` that only some modes have."""
CUT = 0.2
"""Share of the likeliest pose's probability below which a pose does not count, in mode ``"weighted"``."""


def check_passes(
    mode: Mode, top_k: int | None, cover: float | None, cut: float | None, evidence: float
) -> None:
    """Raise ValueError unless the settings belong to the mode and lie in their ranges."""
    check_choice("mode", mode, MODES)
    given = {"top_k": top_k, "cover": cover, "cut": cut, "evidence": evidence or None}
    own = SETTINGS.get(mode, ())
    for name, setting in given.items():
        if setting is not None and name not in own:
            modes = " or ".join(repr(m) for m, names in SETTINGS.items() if name in names)
            raise ValueError(f"{name} needs mode={modes}, got mode={mode!r}")
    if top_k is not None:
        check_positive("top_k", top_k)
    for name, share in (("cover", cover), ("cut", cut)):
        if share is not None:
            check_fraction(name, share)


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
        group = parse_finite_group(pose.group)
        elements = group.elements(pose.element.device).expand(len(pose.element), group.order)
        weights = torch.full(elements.shape, 1.0 / group.order, device=pose.element.device)
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
