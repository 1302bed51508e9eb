"""The spatial transformer: a network that predicts an affine map, trained jointly with the model it serves.

It is a canonicalizer of the affine group that is not equivariant: what is looked up where is the same as in
the original, and results come back to the frame of the picture besides.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..actions import act
from ..adapter import Adapted
from ..adapter.spec import OutputSpec
from ..canonicalizers import Canonicalizer, Pose
from ..evaluation.scores import call, find
from ..groups.base import Group
from ..groups.lie import LieGroup
from ..groups.parse import parse_group
from ..groups.projective import Affine
from ..kinds import Image, Logits
from ..nets import ResidualBackbone
from ..nets.thumbnail import standardized, thumbnail
from .loop import Fitting, each, labelled


class Localizer(Canonicalizer):
    """Predicts the map by which a picture is resampled, from a thumbnail; at first it predicts the identity.

    Args:
        group: A Lie group with an action on pictures, or its name; the network predicts coordinates of its
            Lie algebra, so that every map has an inverse.
        network: Maps thumbnails ``(B, channels, size, size)`` to coordinates; default: a residual network.
        size: Side of the thumbnail in pixels.
        channels: Channels of the thumbnail.

    Reference:
        Jaderberg et al. 2015, Spatial transformer networks, arXiv 1506.02025.
    """

    group: LieGroup

    def __init__(
        self,
        group: Group | str | None = None,
        *,
        network: nn.Module | None = None,
        size: int = 32,
        channels: int = 3,
    ) -> None:
        parsed = Affine() if group is None else parse_group(group)
        if not isinstance(parsed, LieGroup):
            raise TypeError(f"group must be a Lie group such as Affine() or SO2(), got {parsed}")
        super().__init__(parsed)
        if network is None:
            network = ResidualBackbone(channels=channels, outputs=parsed.coordinates)
            nn.init.zeros_(network.head.weight)
            nn.init.zeros_(network.head.bias)
        self.network, self.size, self.channels = network, size, channels

    def forward(self, x: Tensor | Sequence[Tensor]) -> Pose:
        """Return the maps."""
        seen = [thumbnail(part, self.size, torch.float32) for part in each(x)]
        if not seen:
            return Pose(self.group.identity(0))
        standard = standardized(torch.cat(seen)).expand(-1, self.channels, -1, -1)
        return Pose(self.group.exp(self.network(standard)))


def fit_transformer(
    model: nn.Module,
    data: Any,
    *,
    augment: Group | str | None = "C4",
    group: Group | str | None = None,
    train_model: bool = True,
    outputs: OutputSpec | None = None,
    loss: Callable[[Any, Tensor], Tensor] | None = None,
    size: int = 32,
    channels: int = 3,
    fitting: Fitting | None = None,
) -> Adapted:
    """Train a spatial transformer in front of a copy of a model, jointly, with labels.

    Args:
        model: The predictor; it is copied, and left as it is.
        data: Labelled pictures, upright, of one shape: anything that `upright.data.open_data` takes.
        augment: Pictures are turned by random elements of this group while training; None: they are not.
        group: What is predicted; default: affine maps.
        train_model: Whether the copy of the model is trained along; else it stays frozen.
        outputs: See `upright.adapt`.
        loss: Called as ``loss(output, labels)``; default: the cross-entropy of class scores.
        size: Side of the localizer's thumbnail in pixels.
        channels: Channels of the pictures.
        fitting: How both are trained; the learning rate is that of the localizer, the model's is a tenth.

    Returns:
        The copy behind its spatial transformer, in evaluation mode; an adapted model like any other, but not
        an equivariant one.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch module to be trained, got {type(model).__name__}")
    how, generator = fitting or Fitting(), (fitting or Fitting()).generator()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(how.seed)
        localizer = Localizer(group, size=size, channels=channels)
    made = Adapted(copy.deepcopy(model), localizer, outputs=outputs)
    for weight in made.model.parameters():  # type: ignore[attr-defined]
        weight.requires_grad_(train_model)
    turns = None if augment is None else parse_group(augment)

    def step(batch: tuple[Any, Tensor | None]) -> Tensor:
        x, labels = labelled(batch)
        if turns is not None:
            x = act(turns.sample(len(x), generator=generator), Image(x)).data
        output = call(made, made, x)
        if loss is not None:
            return loss(output, labels)
        return F.cross_entropy(find(made, output, Logits), labels)

    how.run(made, lambda: how.batches(data, generator), step, slower=made.model)
    return made
