"""Views of an adapted model: other settings, priors and named canonicalizers around the same model."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from typing_extensions import Self

from ..canonicalizers.base import Canonicalizer, IdentityCanonicalizer
from ..confidence.gate import Gate
from ..groups.base import Group
from ..priors import Prior
from .arrays import as_arrays, as_tensors, holds_arrays
from .canvas import Canvas
from .embedding import Embedding
from .passes import SHARED, Mode, settings_of
from .run import Run
from .spec import OutputSpec
from .switch import OFF, Switch

if TYPE_CHECKING:
    from .adapted import Adapted

OWN: dict[str, Any] = {
    "mode": "canonical",
    "top_k": None,
    "cover": None,
    "cut": None,
    "evidence": 0.0,
    "gate": None,
    "canvas": "bucket",
}
"""Settings that every named canonicalizer has for itself, and what they usually are."""
DEFAULT = "default"
"""What a canonicalizer is called that was given no name."""


class Alternative(nn.Module):
    """A named canonicalizer of an adapted model, and how it is used, while another one is in use.

    Args:
        name: Its name.
        canonicalizer: The canonicalizer.
        settings: Those of `OWN`.
    """

    def __init__(self, name: str, canonicalizer: Canonicalizer, settings: Mapping[str, Any]) -> None:
        super().__init__()
        self.name = name
        self.canonicalizer = canonicalizer
        self.settings = dict(settings)

    def extra_repr(self) -> str:
        """Name it, its group and its mode."""
        return f"{self.name!r}, group={self.canonicalizer.group}, mode={self.settings['mode']!r}"


class Still(IdentityCanonicalizer):
    """Stands for a canonicalizer that is switched off."""

    def __init__(self, of: Canonicalizer) -> None:
        super().__init__(of.group)
        self.reads = of.reads  # type: ignore[misc]


class Views(nn.Module):
    """What makes other adapted models of an adapted model. All of them share the model and all weights."""

    model: Callable[..., Any]
    canonicalizer: Canonicalizer
    name: str
    others: nn.ModuleList | None
    switch: Switch
    mode: Mode
    gate: Gate | None
    canvas: Canvas
    inputs: Mapping[Any, Any] | None
    outputs: OutputSpec | None

    @property
    def canonicalizers(self) -> dict[str, Canonicalizer]:
        """All canonicalizers by name; the one that is used by default comes first."""
        return {self.name: self.canonicalizer, **{a.name: a.canonicalizer for a in self.alternatives}}

    @property
    def alternatives(self) -> tuple[Alternative, ...]:
        """The canonicalizers that are not used by default."""
        others: Any = () if self.others is None else self.others
        return tuple(others)

    def replace(self, **changes: Any) -> Self:
        """Return an adapted model with other settings; the model and the canonicalizers are shared."""
        names = ["model", "canonicalizer", "mode", "gate", "canvas", "inputs", "outputs", "signature"]
        names += ["name", "switch"]
        mode = changes.get("mode", self.mode)
        if mode == self.mode or {mode, self.mode} <= SHARED:
            names += settings_of(mode, changes.get("canonicalizer", self.canonicalizer).group)
        settings: dict[str, Any] = {name: getattr(self, name) for name in names}
        return type(self)(**{**settings, "others": self.alternatives, **changes})

    def with_prior(self, prior: Prior | None) -> Self:
        """Return an adapted model that decides under a deployment prior; see `Canonicalizer.with_prior`."""
        return self.replace(canonicalizer=self.canonicalizer.with_prior(prior))

    def with_canonicalizer(
        self,
        name: str,
        canonicalizer: Canonicalizer | str,
        group: Group | str | None = None,
        **settings: Any,
    ) -> Self:
        """Return an adapted model that has a further canonicalizer, or another one of that name.

        What is used by default stays; see `choose` and `using`.

        Args:
            name: What it is called from now on: letters, digits, ``-`` and ``_``.
            canonicalizer: As in `upright.adapt`: a canonicalizer, the name or folder of a saved one, or the
                name of a network.
            group: Its group, which may be another; needed where ``canonicalizer`` names a network.
            **settings: ``mode``, ``top_k``, ``cover``, ``cut``, ``evidence``, ``gate`` and ``canvas`` of
                `upright.adapt`, for this one alone.

        Raises:
            ValueError: If the name is none, a setting does not fit, or the group is not known.
            TypeError: If a setting is not one of those, or something is of another type.
        """
        from ..factory import choose_canonicalizer, suited

        check_name(name)
        unknown = sorted(set(settings) - set(OWN))
        if unknown:
            raise TypeError(
                f"{unknown[0]} is no setting of a canonicalizer; expected one of {', '.join(OWN)}: "
                "inputs and outputs are those of the model"
            )
        chosen = suited(choose_canonicalizer(canonicalizer, group), self.model)
        own = {**OWN, **settings}
        if name == self.name:
            return self.replace(**own, canonicalizer=chosen)
        self.replace(**own, canonicalizer=chosen, others=())  # raises where they do not fit
        rest = [other for other in self.alternatives if other.name != name]
        return self.replace(others=(*rest, Alternative(name, chosen, own)))

    def without_canonicalizer(self, name: str) -> Self:
        """Return an adapted model that lacks a canonicalizer.

        Raises:
            ValueError: If there is none of that name, or it is the one that is used by default.
        """
        self._check_known(name)
        if name == self.name:
            raise ValueError(f"{name!r} is in use; choose another one first: robust.choose('<name>')")
        return self.replace(others=tuple(other for other in self.alternatives if other.name != name))

    def choose(self, name: str) -> Self:
        """Return an adapted model that uses another of its canonicalizers by default, for a call or for good.

        Raises:
            ValueError: If there is none of that name.
        """
        self._check_known(name)
        if name == self.name:
            return self
        mine = Alternative(
            self.name, self.canonicalizer, {setting: getattr(self, setting) for setting in OWN}
        )
        (other,) = (a for a in self.alternatives if a.name == name)
        others = tuple(mine if a is other else a for a in self.alternatives)
        return self.replace(**other.settings, name=name, canonicalizer=other.canonicalizer, others=others)

    def using(self, name: str) -> AbstractContextManager[None]:
        """Return a block in which this model and all its views use the canonicalizer of that name.

        It holds in the thread or task that opens it, and in no other; blocks nest, and end with exceptions.

        Raises:
            ValueError: If there is none of that name.
        """
        self._check_known(name)
        return self.switch.to(name)

    def bare(self) -> AbstractContextManager[None]:
        """Return a block in which this model and all its views are the bare model, bit for bit.

        It holds in the thread or task that opens it, and in no other; blocks nest, and end with exceptions.

        Example:
            >>> import torch, upright
            >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 10))
            >>> robust, x = upright.adapt(model, "C4"), torch.rand(2, 3, 32, 32)
            >>> with robust.bare():
            ...     torch.equal(robust(x), model(x))
            True
        """
        return self.switch.to(OFF)

    def _view(self) -> Self | None:
        """Return the view that this context chooses; None: the bare model."""
        name = self.switch.choice(self.name)
        return None if name is OFF else self.choose(name)

    def _in_use(self) -> Self:
        """Return the view that this context chooses; for the bare model one that moves nothing."""
        if not self.switch.open:
            return self
        view = self._view()
        if view is not None:
            return view
        still = Still(self.canonicalizer)
        return self.replace(**OWN, canonicalizer=still, others=(), switch=Switch())

    @property
    def _is_bare(self) -> bool:
        """Whether this view stands for the bare model."""
        return isinstance(self.canonicalizer, Still)

    def _check_known(self, name: str) -> None:
        if name not in self.canonicalizers:
            raise ValueError(
                f"there is no canonicalizer {name!r}, only {', '.join(map(repr, self.canonicalizers))}; add "
                "one with robust.with_canonicalizer(name, canonicalizer)"
            )


def call_bare(model: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a model with the arguments of an adapted one: arrays as tensors, features of embeddings.

    Raises:
        ValueError: If features are of pictures that were turned.
    """
    if holds_arrays(args, kwargs):
        args, kwargs = as_tensors((args, kwargs))
        return as_arrays(call_bare(model, args, kwargs))
    features: dict[str, Any] = {}
    for name, entry in kwargs.items():
        if isinstance(entry, Embedding) and not bool(entry.pose.element.is_identity().all()):
            raise ValueError(
                f"{name} holds features of pictures that were turned, and the bare model turns nothing back; "
                "call embed within robust.bare() too"
            )
        features.update(entry.features if isinstance(entry, Embedding) else {name: entry})
    return model(*args, **features)


def run_view(view: Adapted, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Run:
    """Run what a context chose; of the bare model, say that nothing was moved."""
    if not view._is_bare:
        return view.run(*args, **kwargs)
    pose = view.pose(*args, **kwargs)
    passes = torch.ones(len(pose.element), dtype=torch.long, device=pose.element.device)
    return Run(call_bare(view.model, args, kwargs), pose, passes)


def check_names(name: str, others: Sequence[Alternative]) -> None:
    """Raise ValueError unless all are names, and differ."""
    names = [name, *(other.name for other in others)]
    for one in names:
        check_name(one)
    if len(set(names)) < len(names):
        raise ValueError(f"names of canonicalizers must differ, got {names}")


def check_name(name: str) -> None:
    """Raise ValueError unless a canonicalizer can be called so: names become names of files."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}", name):
        raise ValueError(
            f"name must be at most 64 letters, digits, '-' and '_', not starting with '-', got {name!r}"
        )
