"""Predictors of point clouds: PointNet and DGCNN, for classes and for parts.

They know nothing of rotations; what makes them equivariant goes around them. Both take any number of points
and, with a mask, clouds of different sizes in one batch: padding changes nothing, in training or evaluation.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._checks import check_axis, check_positive, check_tensor


class PointNet(nn.Module):
    """Classifies clouds: one small network for every point, then the maximum over points.

    Args:
        classes: Number of classes.
        inputs: Numbers per point: 3, or more where points bear features.
        transforms: Whether points and their features first go through matrices that small networks choose.
        width: Multiplies the widths of all layers.
        dropout: Share of hidden values dropped in training.

    Reference:
        Qi et al., PointNet: Deep Learning on Point Sets for 3D Classification and Segmentation,
        arXiv:1612.00593, figure 2.
    """

    def __init__(
        self,
        classes: int,
        *,
        inputs: int = 3,
        transforms: bool = True,
        width: float = 1.0,
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        self.encoder = _PointNetEncoder(inputs, transforms, width)
        self.head = _head(self.encoder.pooled, classes, width, dropout, F.relu)

    def forward(self, points: Tensor, mask: Tensor | None = None) -> Tensor:
        """Classify clouds.

        Args:
            points: Shape ``(B, N, inputs)``; the first three numbers are the position.
            mask: True where a row is a point and False where it is padding, ``(B, N)``.

        Returns:
            Logits, ``(B, classes)``.
        """
        _check(points, mask, self.encoder.inputs)
        logits: Tensor = self.head(self.encoder(points, mask)[1])
        return logits

    def penalty(self, points: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return how far the matrices of features are from orthogonal, ``(B,)``; train with 0.001 of it."""
        _check(points, mask, self.encoder.inputs)
        if self.encoder.turn_features is None:
            return points.new_zeros(len(points))
        matrix: Tensor = self.encoder.turn_features(self.encoder.local(points, mask), mask)
        identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
        return (matrix @ matrix.mT - identity).flatten(1).square().sum(-1)


class _Parts(nn.Module):
    """What judges every point from its own features and those of the whole cloud."""

    classes: int
    head: nn.Module
    out: nn.Module

    def _judged(self, local: Tensor, whole: Tensor, labels: Tensor | None, mask: Tensor | None) -> Tensor:
        whole = torch.cat([whole, _one_hot(labels, self.classes, whole)], -1)
        spread = whole[:, None].expand(-1, local.shape[1], -1)
        logits: Tensor = self.out(self.head(torch.cat([local, spread], -1), mask))
        return logits


class PointNetParts(_Parts):
    """Says of every point which part it belongs to, from its own features and those of the whole cloud.

    Args:
        parts: Number of parts.
        classes: Number of classes that clouds come from, where these are known; 0: not known.
        inputs: Numbers per point.
        transforms: As in `PointNet`.
        width: Multiplies the widths of all layers.

    Reference:
        Qi et al., arXiv:1612.00593, figure 2, lower branch.
    """

    def __init__(
        self, parts: int, *, classes: int = 0, inputs: int = 3, transforms: bool = True, width: float = 1.0
    ) -> None:
        super().__init__()
        self.classes = classes
        self.encoder = _PointNetEncoder(inputs, transforms, width)
        widths = [self.encoder.kept + self.encoder.pooled + classes, *_scaled((512, 256, 128), width)]
        self.head = _Rows(widths, F.relu)
        self.out = nn.Linear(widths[-1], parts)

    def forward(self, points: Tensor, labels: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Judge every point.

        Args:
            points: Shape ``(B, N, inputs)``.
            labels: Classes of the clouds, ``(B,)``; needed exactly if the network has ``classes``.
            mask: True where a row is a point, ``(B, N)``.

        Returns:
            Logits, ``(B, N, parts)``; those of padding mean nothing.
        """
        _check(points, mask, self.encoder.inputs)
        local, whole = self.encoder(points, mask)
        return self._judged(local, whole, labels, mask)


class DGCNN(nn.Module):
    """Classifies clouds by edges to nearest neighbours, looked up anew among the features of every layer.

    Clouds with fewer points than neighbours use all points that there are.

    Args:
        classes: Number of classes.
        inputs: Numbers per point.
        neighbours: How many nearest points, the point itself included, each point looks at.
        width: Multiplies the widths of all layers.
        dropout: Share of hidden values dropped in training.

    Reference:
        Wang et al., Dynamic Graph CNN for Learning on Point Clouds, arXiv:1801.07829, figure 3.
    """

    def __init__(
        self,
        classes: int,
        *,
        inputs: int = 3,
        neighbours: int = 20,
        width: float = 1.0,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.encoder = _EdgeEncoder(inputs, (64, 64, 128, 256), neighbours, width)
        self.head = _head(2 * self.encoder.pooled, classes, width, dropout, _leaky)

    def forward(self, points: Tensor, mask: Tensor | None = None) -> Tensor:
        """Classify clouds.

        Args:
            points: Shape ``(B, N, inputs)``.
            mask: True where a row is a point, ``(B, N)``.

        Returns:
            Logits, ``(B, classes)``.
        """
        _check(points, mask, self.encoder.inputs)
        rows = self.encoder(points, mask)[1]
        logits: Tensor = self.head(torch.cat([_maximum(rows, mask), _mean(rows, mask)], -1))
        return logits


class DGCNNParts(_Parts):
    """Says of every point which part it belongs to, from edges to nearest neighbours.

    Args:
        parts: Number of parts.
        classes: Number of classes that clouds come from, where these are known; 0: not known.
        inputs: Numbers per point.
        neighbours: As in `DGCNN`.
        width: Multiplies the widths of all layers.

    Reference:
        Wang et al., arXiv:1801.07829, figure 3, lower branch, without its transformer of the points.
    """

    def __init__(
        self, parts: int, *, classes: int = 0, inputs: int = 3, neighbours: int = 20, width: float = 1.0
    ) -> None:
        super().__init__()
        self.classes = classes
        self.encoder = _EdgeEncoder(inputs, (64, 64, 64), neighbours, width)
        widths = [self.encoder.kept + self.encoder.pooled + classes, *_scaled((256, 256, 128), width)]
        self.head = _Rows(widths, _leaky)
        self.out = nn.Linear(widths[-1], parts)

    def forward(self, points: Tensor, labels: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Judge every point; as `PointNetParts`.

        Args:
            points: Shape ``(B, N, inputs)``.
            labels: Classes of the clouds, ``(B,)``; needed exactly if the network has ``classes``.
            mask: True where a row is a point, ``(B, N)``.

        Returns:
            Logits, ``(B, N, parts)``; those of padding mean nothing.
        """
        _check(points, mask, self.encoder.inputs)
        local, rows = self.encoder(points, mask)
        return self._judged(local, _maximum(rows, mask), labels, mask)


def nearest(x: Tensor, count: int, mask: Tensor | None = None) -> Tensor:
    """Return the numbers of the nearest rows, the row itself included.

    Args:
        x: Rows, shape ``(B, N, C)``.
        count: How many; all N where there are fewer.
        mask: True where a row is a point, ``(B, N)``. Padding is never a neighbour: where points run out, a
            row is its own neighbour again.

    Returns:
        Numbers of rows, shape ``(B, N, min(count, N))``.
    """
    distance = torch.cdist(x.detach(), x.detach())
    if mask is not None:
        distance = distance.masked_fill(~mask[:, None], torch.inf)
    least, index = distance.topk(min(count, x.shape[1]), largest=False)
    own = torch.arange(x.shape[1], device=x.device)[None, :, None]
    return torch.where(least.isinf(), own, index)


class _Rows(nn.Module):
    """Linear layers, each with batch normalisation and an activation, on every row that is a point."""

    def __init__(self, widths: list[int], activation: Any) -> None:
        super().__init__()
        pairs = list(pairwise(widths))
        self.linear = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in pairs)
        self.norms = nn.ModuleList(nn.BatchNorm1d(b) for _, b in pairs)
        self.activation = activation

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        rows = x.flatten(0, -2) if mask is None else x[mask]
        for linear, norm in zip(self.linear, self.norms, strict=True):
            rows = self.activation(norm(linear(rows)))
        if mask is None:
            return rows.reshape(*x.shape[:-1], rows.shape[-1])
        return rows.new_zeros(*x.shape[:-1], rows.shape[-1]).index_put((mask,), rows)


class _Turn(nn.Module):
    """Chooses a matrix by which points or features are multiplied, ``(B, k, k)``; at first the identity."""

    def __init__(self, size: int, width: float) -> None:
        super().__init__()
        self.size = size
        widths = _scaled((64, 128, 1024, 512, 256), width)
        self.rows = _Rows([size, *widths[:3]], F.relu)
        self.whole = _Rows(widths[2:], F.relu)
        self.out = nn.Linear(widths[-1], size * size)
        nn.init.zeros_(self.out.weight)
        with torch.no_grad():
            self.out.bias.copy_(torch.eye(size).flatten())

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        pooled = _maximum(self.rows(x, mask), mask)
        matrix: Tensor = self.out(self.whole(pooled))
        return matrix.reshape(len(x), self.size, self.size)


class _PointNetEncoder(nn.Module):
    def __init__(self, inputs: int, transforms: bool, width: float) -> None:
        super().__init__()
        check_positive("width", width)
        low, high = _scaled((64, 64), width), _scaled((64, 128, 1024), width)
        self.inputs, self.kept, self.pooled = inputs, low[-1], high[-1]
        self.turn_points = _Turn(3, width) if transforms else None
        self.turn_features = _Turn(low[-1], width) if transforms else None
        self.low, self.high = _Rows([inputs, *low], F.relu), _Rows([low[-1], *high], F.relu)

    def local(self, points: Tensor, mask: Tensor | None) -> Tensor:
        """Describe every point by itself."""
        if self.turn_points is not None:
            xyz = points[..., :3]
            turned = xyz @ self.turn_points(xyz, mask)
            points = torch.cat([turned, points[..., 3:]], -1)
        low: Tensor = self.low(points, mask)
        return low

    def forward(self, points: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        local = self.local(points, mask)
        if self.turn_features is not None:
            local = local @ self.turn_features(local, mask)
        return local, _maximum(self.high(local, mask), mask)


class _EdgeConv(nn.Module):
    """The maximum over neighbours j of a layer on (x_i, x_j - x_i), as one matrix for i and one for j."""

    def __init__(self, inputs: int, outputs: int, neighbours: int) -> None:
        super().__init__()
        self.neighbours = neighbours
        self.own = nn.Linear(inputs, outputs, bias=False)
        self.other = nn.Linear(inputs, outputs, bias=False)
        self.norm = nn.BatchNorm1d(outputs)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        index = nearest(x, self.neighbours, mask)
        batch = torch.arange(len(x), device=x.device)[:, None, None]
        edges = self.own(x)[:, :, None] + self.other(x)[batch, index]  # (B, N, k, C)
        rows = edges.flatten(0, 1) if mask is None else edges[mask]
        found = _leaky(self.norm(rows.flatten(0, 1))).reshape(rows.shape).amax(1)
        if mask is None:
            return found.reshape(*x.shape[:2], found.shape[-1])
        return found.new_zeros(*x.shape[:2], found.shape[-1]).index_put((mask,), found)


class _EdgeEncoder(nn.Module):
    def __init__(self, inputs: int, widths: tuple[int, ...], neighbours: int, width: float) -> None:
        super().__init__()
        check_positive("width", width)
        check_positive("neighbours", neighbours)
        layers = [inputs, *_scaled(widths, width)]
        self.inputs, self.kept, self.pooled = inputs, sum(layers[1:]), *_scaled((1024,), width)
        self.layers = nn.ModuleList(_EdgeConv(a, b, neighbours) for a, b in pairwise(layers))
        self.joint = _Rows([self.kept, self.pooled], _leaky)

    def forward(self, points: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        found, x = [], points
        for layer in self.layers:
            x = layer(x, mask)
            found.append(x)
        local = torch.cat(found, -1)
        return local, self.joint(local, mask)


def _head(inputs: int, outputs: int, width: float, dropout: float, activation: Any) -> nn.Sequential:
    wide, narrow = _scaled((512, 256), width)
    return nn.Sequential(
        _Rows([inputs, wide], activation),
        nn.Dropout(dropout),
        _Rows([wide, narrow], activation),
        nn.Dropout(dropout),
        nn.Linear(narrow, outputs),
    )


def _scaled(widths: tuple[int, ...], width: float) -> list[int]:
    return [max(1, round(w * width)) for w in widths]


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)


def _maximum(rows: Tensor, mask: Tensor | None) -> Tensor:
    return (rows if mask is None else rows.masked_fill(~mask[..., None], -torch.inf)).amax(1)


def _mean(rows: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return rows.mean(1)
    return rows.masked_fill(~mask[..., None], 0).sum(1) / mask.sum(1, keepdim=True)


def _one_hot(labels: Tensor | None, classes: int, like: Tensor) -> Tensor:
    if (labels is None) != (classes == 0):
        raise ValueError(
            f"labels must {'be given' if classes else 'be None'} to a network with classes={classes}, "
            f"got {'None' if labels is None else tuple(labels.shape)}"
        )
    if labels is None:
        return like.new_zeros(len(like), 0)
    return F.one_hot(labels.long(), classes).to(like.dtype)


def _check(points: Tensor, mask: Tensor | None, inputs: int) -> None:
    check_tensor("points", points, f"(B, N, {inputs})", 3)
    check_axis("points", points, -1, inputs, f"(B, N, {inputs})")
    if not points.shape[1]:
        raise ValueError("points must hold at least one point per cloud, got none")
    if mask is None:
        return
    if mask.dtype != torch.bool or mask.shape != points.shape[:2]:
        raise ValueError(
            f"mask must be bool of shape {tuple(points.shape[:2])} to match points, "
            f"got {mask.dtype} of shape {tuple(mask.shape)}"
        )
    if not bool(mask.any(1).all()):
        raise ValueError("mask must keep at least one point per cloud, got a cloud of padding only")
