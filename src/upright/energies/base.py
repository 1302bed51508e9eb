"""The energy contract: one number a picture, lower where the picture is more canonical."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from .._checks import check_tensor

Predictor = Callable[[Tensor], Any]
"""What an energy asks: a frozen model, or any callable on pictures ``(N, C, H, W)``."""


class Energy(ABC):
    """How far pictures are from canonical; lower is more canonical.

    Energies can be added, subtracted and scaled: ``Entropy(model) + 0.5 * LogitEnergy(model)``. A sum asks
    every model once a picture, however many terms read its answer. Models are frozen: run in evaluation mode,
    never changed, and no part of the module tree that is saved or trained.
    """

    @property
    @abstractmethod
    def predictors(self) -> tuple[Predictor, ...]:
        """What is asked about every picture."""

    @abstractmethod
    def measure(self, pictures: Tensor, answers: Answers) -> Tensor:
        """Return the energies of pictures ``(N, C, H, W)``, shape ``(N,)``, from what the predictors say."""

    @property
    def calls(self) -> int:
        """How often a model runs for one picture."""
        return len({id(_underlying(p)) for p in self.predictors})

    def __call__(self, pictures: Tensor) -> Tensor:
        """Return the energies of pictures.

        Args:
            pictures: Shape ``(N, C, H, W)``, as the predictors take them.

        Returns:
            Energies, shape ``(N,)``, float32 or float64; gradients flow to the pictures where they are asked
            for.

        Raises:
            ValueError: If the energy of a picture is not one number.
        """
        check_tensor("pictures", pictures, "(N, C, H, W)", 4)
        found = self.measure(pictures, Answers(pictures, self.predictors))
        if found.shape != pictures.shape[:1]:
            raise ValueError(
                f"an energy must be one number a picture, shape ({len(pictures)},), got {tuple(found.shape)}"
            )
        return found if found.dtype.itemsize >= 4 else found.float()

    def __add__(self, other: Energy | Callable[[Tensor], Tensor]) -> Energy:
        return Sum((*_terms(self), *_terms(as_energy(other))))

    def __sub__(self, other: Energy | Callable[[Tensor], Tensor]) -> Energy:
        return self + (-as_energy(other))

    def __mul__(self, factor: float) -> Energy:
        return Sum(tuple((factor * weight, term) for weight, term in _terms(self)))

    def __neg__(self) -> Energy:
        return self * -1.0

    __radd__ = __add__
    __rmul__ = __mul__


@dataclass(frozen=True)
class Sum(Energy):
    """A weighted sum of energies.

    Attributes:
        terms: Pairs of a weight and an energy.
    """

    terms: tuple[tuple[float, Energy], ...]

    @property
    def predictors(self) -> tuple[Predictor, ...]:
        """What any of the terms asks."""
        return tuple(p for _, term in self.terms for p in term.predictors)

    def measure(self, pictures: Tensor, answers: Answers) -> Tensor:
        """Return the weighted sum of the terms."""
        total = [weight * term.measure(pictures, answers) for weight, term in self.terms]
        return sum(total[1:], start=total[0])


@dataclass(frozen=True, eq=False)
class Custom(Energy):
    """Any function of pictures ``(N, C, H, W)`` that returns one number each.

    Attributes:
        function: The function; it counts as one predictor call a picture.
    """

    function: Callable[[Tensor], Tensor]

    @property
    def predictors(self) -> tuple[Predictor, ...]:
        """The function."""
        return (self.function,)

    def measure(self, pictures: Tensor, answers: Answers) -> Tensor:
        """Return what the function returns."""
        found = answers(self.function)
        if not isinstance(found, Tensor):
            raise TypeError(f"an energy must return a tensor (N,), got {type(found).__name__}")
        return found


def as_energy(energy: Energy | Callable[[Tensor], Tensor]) -> Energy:
    """Return an energy as it is, and any other callable as a `Custom` energy.

    Raises:
        TypeError: If it is neither.
    """
    if isinstance(energy, Energy):
        return energy
    if not callable(energy):
        raise TypeError(f"energy must be an Energy or a callable on pictures, got {type(energy).__name__}")
    return Custom(energy)


@dataclass(frozen=True, eq=False)
class Layers:
    """Reads layers inside a model: their maps, pooled to a grid, side by side as one vector a picture.

    Attributes:
        model: The model.
        layers: Modules of it, by name or themselves, whose outputs are maps ``(N, C, H, W)``, vectors
            ``(N, C)`` or tokens ``(N, T, C)``.
        grid: Side of the grid that maps are pooled to; 1 forgets the layout, more keeps as much of it.
    """

    model: nn.Module
    layers: Sequence[str | nn.Module]
    grid: int = 1

    def __call__(self, pictures: Tensor) -> Tensor:
        """Return the features, shape ``(N, D)``."""
        features: Tensor = Answers(pictures, (self,))(self)
        return features

    def modules(self) -> list[nn.Module]:
        """Return the modules that are read.

        Raises:
            AttributeError: If the model has no module of a name.
        """
        return [self.model.get_submodule(m) if isinstance(m, str) else m for m in self.layers]

    def pooled(self, output: Any) -> Tensor:
        """Return what one layer gave as vectors ``(N, D)``."""
        found = read(output)
        if found.ndim == 4:
            return nn.functional.adaptive_avg_pool2d(found, self.grid).flatten(1)
        return found if found.ndim == 2 else found.mean(1)


class Answers:
    """What predictors say about one batch; each model runs once, when first asked.

    Args:
        pictures: The batch, shape ``(N, C, H, W)``.
        predictors: Those that will be asked.
    """

    def __init__(self, pictures: Tensor, predictors: Sequence[Predictor]) -> None:
        self.pictures = pictures
        self.readers = [p for p in predictors if isinstance(p, Layers)]
        self._known: dict[int, Any] = {}

    def __call__(self, predictor: Predictor) -> Any:
        """Return the answer of one of the predictors."""
        model = _underlying(predictor)
        if id(model) not in self._known:
            self._run(model)
        return self._known[id(predictor)]

    def _run(self, model: Predictor) -> None:
        readers = [r for r in self.readers if r.model is model]
        seen: dict[int, Any] = {}
        wanted = {id(m): m for r in readers for m in r.modules()}
        handles = [m.register_forward_hook(_keeping(seen)) for m in wanted.values()]
        try:
            with evaluating(model):
                self._known[id(model)] = model(self.pictures)
        finally:
            for handle in handles:
                handle.remove()
        for reader in readers:
            self._known[id(reader)] = _beside([reader.pooled(seen[id(m)]) for m in reader.modules()])


def read(output: Any, names: Sequence[str] = ("logits",)) -> Tensor:
    """Return the tensor of a model's output that energies read.

    Args:
        output: A tensor, a tuple (its first entry), or a mapping or dataclass (the first of ``names`` that it
            has, or else its first entry).
        names: Entries to prefer.

    Raises:
        TypeError: If there is no tensor there.
    """
    found = output
    if dataclasses.is_dataclass(found) and not isinstance(found, (type, Mapping)):
        found = {f.name: getattr(found, f.name) for f in dataclasses.fields(found)}
    if isinstance(found, Mapping):
        present = [found[name] for name in names if found.get(name) is not None]
        found = next(iter(present or found.values()), None)
    elif isinstance(found, (tuple, list)):
        found = found[0] if found else None
    if not isinstance(found, Tensor):
        raise TypeError(
            f"an energy reads a tensor, or the first of a tuple or mapping, but the model returned "
            f"{type(output).__name__} with {type(found).__name__}; wrap the model in a function that returns "
            "scores or features"
        )
    return found


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Run a module in evaluation mode and give every part its own mode back; others are run as they are."""
    parts = [m for m in model.modules() if m.training] if isinstance(model, nn.Module) else []
    for part in parts:
        part.training = False
    try:
        yield
    finally:
        for part in parts:
            part.training = True


def _underlying(predictor: Any) -> Any:
    return predictor.model if isinstance(predictor, Layers) else predictor


def _keeping(seen: dict[int, Any]) -> Callable[[nn.Module, Any, Any], None]:
    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        seen[id(module)] = output

    return keep


def _beside(parts: list[Tensor]) -> Tensor:
    from torch import cat

    return cat([part.float() if part.dtype.itemsize < 4 else part for part in parts], 1)


def _terms(energy: Energy) -> tuple[tuple[float, Energy], ...]:
    return energy.terms if isinstance(energy, Sum) else ((1.0, energy),)
