"""The plain rotation classifier: an ordinary network that learns to say how a picture was turned.

Nothing in it turns with the picture, so that ``c(g·x) = g·c(x)`` holds as far as it was learnt: the report's
equivariance says how far.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..actions import act
from ..canonicalizers import DiscreteCanonicalizer
from ..groups.base import FiniteGroup, Group
from ..groups.parse import parse_finite_group
from ..kinds import Image
from ..nets import ResidualBackbone
from ..nets.thumbnail import thumbnail
from .loop import Fitting, each


def plain_classifier(
    group: Group | str, *, network: nn.Module | None = None, size: int = 64, channels: int = 3
) -> DiscreteCanonicalizer:
    """Build an untrained classifier of poses that is not equivariant.

    Args:
        group: A finite group, or its name.
        network: Maps thumbnails ``(B, channels, size, size)`` to scores ``(B, |G|)``; default: the residual
            network of the library's own canonicalizers, seeing every picture once.
        size: Side of the thumbnail in pixels.
        channels: Channels of the thumbnail.

    Returns:
        A canonicalizer, to be adapted with: ``upright.adapt(model, group, canonicalizer=…)``.
    """
    parsed: FiniteGroup = parse_finite_group(group)
    made = network if network is not None else ResidualBackbone(channels=channels, outputs=parsed.order)
    return DiscreteCanonicalizer(made, parsed, size=size, channels=channels)


def fit_classifier(
    group: Group | str,
    data: Any,
    *,
    network: nn.Module | None = None,
    size: int = 64,
    channels: int = 3,
    fitting: Fitting | None = None,
) -> DiscreteCanonicalizer:
    """Train a network to say by which element a picture was turned (Gidaris et al. 2018, arXiv 1803.07728).

    Args:
        group: A finite group, or its name.
        data: Upright pictures: anything that `upright.data.open_data` takes; labels are not used.
        network: See `plain_classifier`.
        size: Side of the thumbnail in pixels.
        channels: Channels of the thumbnail.
        fitting: How it is trained.

    Returns:
        The trained canonicalizer, in evaluation mode.

    Example:
        >>> import torch, upright
        >>> from upright.baselines import Fitting, fit_classifier
        >>> chooser = fit_classifier("C4", torch.rand(8, 3, 16, 16), size=16, fitting=Fitting(epochs=1))
        >>> robust = upright.adapt(torch.nn.Flatten(), "C4", canonicalizer=chooser)
    """
    how = fitting or Fitting()
    generator = how.generator()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(how.seed)
        made = plain_classifier(group, network=network, size=size, channels=channels)

    def loss(batch: tuple[Any, Tensor | None]) -> Tensor:
        seen = torch.cat([thumbnail(x, size, torch.float32) for x in each(batch[0])])
        g = made.group.sample(len(seen), generator=generator)
        scores, _ = made.scores(act(g, Image(seen)).data)
        return F.cross_entropy(scores, g.value)

    how.run(made, lambda: how.batches(data, generator), loss)
    return made
