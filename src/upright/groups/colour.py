"""Groups of colours: hue, brightness, contrast and gamma. They move the colours of pictures, nothing else.

Convention:
    Colours are RGB in 0…1. Predictors are often fed ``(colour - mean) / std``: the fields ``mean`` and
    ``std`` say so, and the colours are what is moved. Nothing is clipped, so that the laws hold: a move may
    leave 0…1, and its inverse comes back. Hue turns about the grey axis (the mean of R, G and B stays), red
    to green to blue: greys have no hue and stay, and so do greyscale pictures.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from .base import Element, FiniteGroup, Group
from .lie import LieGroup
from .rotations import ANGLE_TOLERANCE, CircleGroup

Channels = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class ColourGroup(Group):
    """Any group that moves colours, pixel by pixel.

    Args:
        mean: What was subtracted from the channels of the pictures; one number for all, or three.
        std: What they were divided by then, likewise.
    """

    mean: Channels = (0.0, 0.0, 0.0)
    std: Channels = (1.0, 1.0, 1.0)
    name: ClassVar[str]
    """What names begin with; see `parse_group`."""

    def __post_init__(self) -> None:
        for field in ("mean", "std"):
            given: Any = getattr(self, field)
            values = [given] * 3 if isinstance(given, (int, float)) else list(given)
            if len(values) != 3 or not all(math.isfinite(v) for v in values):
                raise ValueError(f"{field} must be one number, or one for each of R, G and B, got {given}")
            object.__setattr__(self, field, tuple(float(v) for v in values))
        if min(self.std) <= 0:
            raise ValueError(f"std must be positive, got {self.std}")

    @property
    def is_exact_on_grid(self) -> bool:
        """True: no pixel is resampled."""
        return True

    @property
    def is_normalized(self) -> bool:
        """Whether pictures hold something else than colours in 0…1."""
        return self.mean != (0.0, 0.0, 0.0) or self.std != (1.0, 1.0, 1.0)

    @property
    def treats_channels_alike(self) -> bool:
        """Whether ``mean`` and ``std`` are the same for all channels."""
        return len(set(self.mean)) == len(set(self.std)) == 1

    def __str__(self) -> str:
        if not self.is_normalized:
            return self.name
        scale = (v[:1] if len(set(v)) == 1 else v for v in (self.mean, self.std))
        mean, std = (",".join(map(repr, values)) for values in scale)
        return f"{self.name}[{mean};{std}]"


class HueGroup(ColourGroup):
    """What `Hue` and `CyclicHue` share: turns of the colour space about the grey axis."""

    dimension: ClassVar[int] = 3
    name: ClassVar[str] = "hue"

    @abstractmethod
    def angle(self, g: Element) -> Tensor:
        """Return the angles in radians, in ``[0, 2π)``, float64, shape ``g.shape``."""

    @abstractmethod
    def thirds(self, g: Element) -> Tensor:
        """Return the number of thirds of a turn, 0…2, or -1 where the angle is none; int64, ``g.shape``."""

    def weights(self, g: Element) -> Tensor:
        """Return what a channel takes of itself, of the previous and of the next one, ``(*g.shape, 3)``.

        Exact zeros and ones for thirds of a turn, which permute the channels; gradients reach the angle.
        """
        angle = self.angle(g)
        cos, sin = torch.cos(angle), torch.sin(angle)
        even, odd = (1 - cos) / 3, sin / math.sqrt(3)
        turned = torch.stack([(1 + 2 * cos) / 3, even + odd, even - odd], -1)
        thirds = self.thirds(g)
        exact = torch.eye(3, dtype=turned.dtype, device=turned.device)[thirds.clamp(min=0)]
        value = torch.where((thirds >= 0).unsqueeze(-1), exact, turned.detach())
        return value + (turned - turned.detach())

    def matrix(self, g: Element, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return the matrices that move ``(R, G, B)`` columns, shape ``(*g.shape, 3, 3)``."""
        own, previous, following = self.weights(g).unbind(-1)
        rows = [[own, following, previous], [previous, own, following], [following, previous, own]]
        return torch.stack([torch.stack(row, -1) for row in rows], -2).to(dtype)

    def distance(self, g: Element, h: Element) -> Tensor:
        """Return the angle between two hues in radians, in ``[0, π]``."""
        angle = self.angle(g.inverse().compose(h))
        return torch.minimum(angle, 2 * math.pi - angle)


@dataclass(frozen=True)
class Hue(CircleGroup, HueGroup):
    """All turns of hue; ``Element.value`` is the angle in radians in ``[0, 2π)``, float64.

    Args:
        mean: How pictures are normalised; see `ColourGroup`.
        std: Likewise.

    Example:
        >>> g = Hue().element(degrees=40.0)
        >>> (g @ g @ g).matrix() @ torch.tensor([1.0, 0.0, 0.0]).double()      # red becomes green
        tensor([0., 1., 0.], dtype=torch.float64)
    """

    def thirds(self, g: Element) -> Tensor:
        """Return the number of thirds of a turn, 0…2, or -1 where the angle is none; int64, ``g.shape``."""
        third = 2 * math.pi / 3
        nearest = (g.value.detach() / third).round()
        near = (g.value.detach() - nearest * third).abs() <= ANGLE_TOLERANCE
        return torch.where(near, nearest.long() % 3, -1)

    def generators(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return the generator of turns from red to green to blue, shape ``(1, 3, 3)``."""
        turn = torch.tensor([[[0, -1, 1], [1, 0, -1], [-1, 1, 0]]], dtype=torch.float64)
        return (turn / math.sqrt(3)).to(dtype)


@dataclass(frozen=True)
class CyclicHue(HueGroup, FiniteGroup):
    """Turns of hue by multiples of 360°/n; with ``n = 3`` they permute the channels, exactly.

    Args:
        n: Number of hues, at least 1.
        mean: How pictures are normalised; see `ColourGroup`.
        std: Likewise.

    Example:
        >>> import torch, upright
        >>> x = upright.Image(torch.tensor([0.9, 0.2, 0.1]).view(3, 1, 1))
        >>> upright.act(CyclicHue(3).element(1), x).data.flatten()
        tensor([0.1000, 0.9000, 0.2000])
    """

    n: int

    def __post_init__(self) -> None:
        if isinstance(self.n, bool) or not isinstance(self.n, int):
            raise TypeError(f"n must be an int, got {type(self.n).__name__}; write CyclicHue(12)")
        if self.n < 1:
            raise ValueError(f"n must be at least 1, got {self.n}; write CyclicHue(12)")
        super().__post_init__()

    @property
    def order(self) -> int:
        """Number of elements: ``n``."""
        return self.n

    def compose(self, g: Element, h: Element) -> Element:
        """Return ``g @ h``: first ``h``, then ``g``."""
        return Element(self, (g.value + h.value) % self.n)

    def inverse(self, g: Element) -> Element:
        """Return ``~g``."""
        return Element(self, -g.value % self.n)

    def angle(self, g: Element) -> Tensor:
        """Return the angles in radians, in ``[0, 2π)``, float64, shape ``g.shape``."""
        return g.value.double() * (2 * math.pi / self.n)

    def thirds(self, g: Element) -> Tensor:
        """Return the number of thirds of a turn, 0…2, or -1 where the angle is none; int64, ``g.shape``."""
        thirds = 3 * g.value
        return torch.where(thirds % self.n == 0, thirds // self.n, -1)

    def __str__(self) -> str:
        return super().__str__().replace("hue", f"hue{self.n}", 1)


class OneParameterGroup(ColourGroup, LieGroup):
    """What `Brightness`, `Contrast` and `Gamma` share: the reals under addition, float64.

    No distribution over all reals is uniform: `sample` draws from a normal distribution of standard deviation
    ``spread`` about the identity.
    """

    coordinates: ClassVar[int] = 1
    spread: ClassVar[float]

    def identity(self, *shape: int, device: Any = None) -> Element:
        """Return the identity, repeated over the batch shape ``shape``."""
        return Element(self, torch.zeros(shape, dtype=torch.float64, device=device))

    def sample(self, *shape: int, generator: torch.Generator | None = None, device: Any = None) -> Element:
        """Draw from a normal distribution of standard deviation ``spread``, with batch shape ``shape``."""
        return Element(self, self.spread * _drawn(torch.randn, shape, generator, device))

    def compose(self, g: Element, h: Element) -> Element:
        """Return ``g @ h``: first ``h``, then ``g``."""
        return Element(self, g.value + h.value)

    def inverse(self, g: Element) -> Element:
        """Return ``~g``."""
        return Element(self, -g.value)

    def distance(self, g: Element, h: Element) -> Tensor:
        """Return the difference of the parameters."""
        return (g.value - h.value).abs()

    def equal_values(self, a: Tensor, b: Tensor) -> Tensor:
        """Compare parameters, up to a tolerance of 1e-9."""
        return (a - b).abs() <= 1e-9

    def exp(self, coordinates: Tensor) -> Element:
        """Return the elements with the given parameters, shape ``(…, 1)``."""
        return Element(self, coordinates[..., 0].double())

    def log(self, g: Element) -> Tensor:
        """Return the parameters, shape ``(*g.shape, 1)``."""
        return g.value.unsqueeze(-1)

    def _scaled_by(self, factor: Any, device: Any) -> Element:
        given = torch.as_tensor(factor, dtype=torch.float64, device=device)
        if not bool((given > 0).all()):
            raise ValueError(f"a factor of {self} must be positive, got {factor}")
        return Element(self, given.log())


@dataclass(frozen=True)
class Brightness(OneParameterGroup):
    """``colour + t``; ``Element.value`` is t.

    Args:
        mean: How pictures are normalised; see `ColourGroup`.
        std: Likewise.

    Example:
        >>> import torch, upright
        >>> upright.act(Brightness().element(0.25), upright.Image(torch.full((3, 1, 1), 0.5))).data.flatten()
        tensor([0.7500, 0.7500, 0.7500])
    """

    dimension: ClassVar[int] = 2
    name: ClassVar[str] = "brightness"
    spread: ClassVar[float] = 0.2

    def element(self, shift: Any, *, device: Any = None) -> Element:
        """Return the elements that add ``shift``: numbers or tensors of any shape."""
        return Element(self, torch.as_tensor(shift, dtype=torch.float64, device=device))

    def matrix(self, g: Element, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return the matrices that move ``(colour, 1)`` columns, shape ``(*g.shape, 2, 2)``."""
        return _affine(torch.ones_like(g.value), g.value).to(dtype)

    def generators(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return the generator, shape ``(1, 2, 2)``."""
        return torch.tensor([[[0.0, 1.0], [0.0, 0.0]]], dtype=dtype)


@dataclass(frozen=True)
class Contrast(OneParameterGroup):
    """``1/2 + e^t (colour - 1/2)``: about middle grey; ``Element.value`` is t.

    Args:
        mean: How pictures are normalised; see `ColourGroup`.
        std: Likewise.

    Example:
        >>> import torch, upright
        >>> half = Contrast().element(factor=0.5)
        >>> upright.act(half, upright.Image(torch.ones(3, 1, 1))).data.flatten()
        tensor([0.7500, 0.7500, 0.7500])
    """

    dimension: ClassVar[int] = 2
    name: ClassVar[str] = "contrast"
    spread: ClassVar[float] = 0.4

    def element(self, factor: Any, *, device: Any = None) -> Element:
        """Return the elements that scale differences by ``factor``: positive numbers or tensors."""
        return self._scaled_by(factor, device)

    def matrix(self, g: Element, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return the matrices that move ``(colour, 1)`` columns, shape ``(*g.shape, 2, 2)``."""
        factor = g.value.exp()
        return _affine(factor, (1 - factor) / 2).to(dtype)

    def generators(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return the generator, shape ``(1, 2, 2)``."""
        return torch.tensor([[[1.0, -0.5], [0.0, 0.0]]], dtype=dtype)


@dataclass(frozen=True)
class Gamma(OneParameterGroup):
    """``colour ^ (e^t)``; ``Element.value`` is t, the logarithm of the usual gamma.

    Colours below 0, which other moves may give, keep their sign: ``-(|colour| ^ (e^t))``.

    Args:
        mean: How pictures are normalised; see `ColourGroup`.
        std: Likewise.

    Example:
        >>> import torch, upright
        >>> upright.act(Gamma().element(2.0), upright.Image(torch.full((3, 1, 1), 0.5))).data.flatten()
        tensor([0.2500, 0.2500, 0.2500])
    """

    dimension: ClassVar[int] = 1
    name: ClassVar[str] = "gamma"
    spread: ClassVar[float] = 0.4

    def element(self, gamma: Any, *, device: Any = None) -> Element:
        """Return the elements with the exponents ``gamma``: positive numbers or tensors of any shape."""
        return self._scaled_by(gamma, device)

    def matrix(self, g: Element, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return the matrices that move the logarithm of a colour, shape ``(*g.shape, 1, 1)``."""
        return g.value.exp()[..., None, None].to(dtype)

    def generators(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return the generator, shape ``(1, 1, 1)``."""
        return torch.ones(1, 1, 1, dtype=dtype)


def _affine(slope: Tensor, offset: Tensor) -> Tensor:
    rows = [torch.stack([slope, offset], -1), torch.stack([0 * slope, 0 * slope + 1], -1)]
    return torch.stack(rows, -2)


def _drawn(draw: Any, shape: tuple[int, ...], generator: torch.Generator | None, device: Any) -> Tensor:
    if device is None and generator is not None:
        device = generator.device
    drawn: Tensor = draw(shape, generator=generator, device=device, dtype=torch.float64)
    return drawn
