"""The canonicalizer that needs no training: the pose that a frozen model finds most canonical."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .._checks import check_choice, check_positive, check_tensor
from ..energies import CHUNK, ENERGIES, Energy, as_energy
from ..groups.base import Element, FiniteGroup, Group
from ..groups.parse import parse_group
from ..kinds import Border
from ..priors import Prior
from ..search import SEARCHES, Found, Grid, RandomSearch, Search
from .base import Canonicalizer
from .pose import Pose


class EnergyCanonicalizer(Canonicalizer):
    """Chooses the pose of least energy over the orbit, and weighs the others by ``exp(-energy / T)``.

    For a finite group every element is looked at, so that turned copies of a picture have the same energies,
    permuted: the canonicalizer is exactly equivariant where the group moves pixels exactly, whatever the
    energy. `Pose.calls` counts how often models ran. Energies and models are not trained, saved or moved.

    Args:
        energy: An `Energy` or any callable on pictures ``(N, C, H, W)`` that returns ``(N,)``; or a name in
            `upright.energies.ENERGIES`, which stands for that energy of the model that is adapted.
        group: The group, or its name.
        search: How the orbit is searched. Default: `Grid` for finite groups, else `RandomSearch`.
        temperature: Of the posterior; see `calibrate`.
        prior: What is known of the poses met in use; it multiplies the posterior.
        learned: A trained canonicalizer of the same finite group whose posterior is multiplied with that of
            the energy: the two err on different pictures.
        chunk: Most moved pictures that are held, and handed to the model, at once.
        border: What lies outside the pictures.

    Reference:
        Schmidt and Stober 2024, arXiv 2405.03730; Singhal et al. 2025, arXiv 2507.10375.

    Example:
        >>> import torch
        >>> top_heavy = lambda x: -x[:, :, : x.shape[2] // 2].mean((1, 2, 3))
        >>> c = EnergyCanonicalizer(top_heavy, "C4")
        >>> x = torch.zeros(1, 1, 4, 4)
        >>> x[..., 0] = 1  # bright on the left: turned by a quarter
        >>> pose = c(x)
        >>> pose.element, pose.calls
        (Element(C4, [1]), tensor([4]))
    """

    temperature: Tensor
    is_exact_on_grid = True

    def __init__(
        self,
        energy: Energy | Callable[[Tensor], Tensor] | str,
        group: Group | str,
        search: Search | None = None,
        temperature: float = 1.0,
        prior: Prior | None = None,
        *,
        learned: Canonicalizer | None = None,
        chunk: int = CHUNK,
        border: Border = "edge",
    ) -> None:
        super().__init__(parse_group(group))
        check_positive("temperature", temperature)
        check_positive("chunk", chunk)
        if isinstance(energy, str):
            check_choice("energy", energy, ENERGIES)
        if search is None:
            search = Grid() if self.group.is_finite else RandomSearch()
        if not isinstance(search, Search):
            raise TypeError(f"search must be a Search such as Grid(), got {type(search).__name__}")
        if learned is not None and not isinstance(self.group, FiniteGroup):
            raise TypeError(f"learned needs a finite group, got {self.group}")
        if learned is not None and learned.group != self.group:
            raise ValueError(f"learned must be a canonicalizer of {self.group}, got one of {learned.group}")
        self.energy: Energy | str = energy if isinstance(energy, str) else as_energy(energy)
        self.search, self.chunk, self.border = search, chunk, border
        self.deployment_prior, self.learned = prior, learned
        self.register_buffer("temperature", torch.tensor(float(temperature)))

    def of(self, model: Callable[..., Any]) -> EnergyCanonicalizer:
        """Return the canonicalizer with a named energy taken to be that of ``model``; others as they are."""
        if not isinstance(self.energy, str):
            return self
        view = copy.copy(self)
        view.energy, view.named = ENERGIES[self.energy](model), self.energy
        return view

    def options(self) -> dict[str, Any] | None:
        """Return what `energy_canonicalizer` builds it from again, as plain data; None: it cannot.

        It can where the energy is a named one of the model, and nothing but settings goes into the search.
        """
        name = self.energy if isinstance(self.energy, str) else self.named
        search = next((key for key, kind in SEARCHES.items() if type(self.search) is kind), None)
        if name is None or search is None or self.learned is not None:
            return None
        settings = {f.name: getattr(self.search, f.name) for f in fields(self.search)}  # type: ignore[arg-type]
        settings = {key: value for key, value in settings.items() if value is not None}
        if not all(isinstance(value, (int, float, str)) for value in settings.values()):
            return None
        return {"energy": name, "search": search, "chunk": self.chunk, "border": self.border, **settings}

    named: str | None = None
    """Name of the energy, where it was given by name."""

    @torch.no_grad()
    def forward(self, x: Tensor | Sequence[Tensor]) -> Pose:
        """Choose the poses.

        Args:
            x: Pictures, shape ``(B, C, H, W)``, as the energy's model takes them, or a sequence of
                ``(C, H_i, W_i)``.

        Returns:
            Poses of batch shape ``(B,)``, with the poses that were looked at and what they cost.
        """
        found, extra = self._found(x)
        scores = extra - found.energies.double() / self.temperature.double()
        log_probs = F.log_softmax(scores, -1).float()
        calls = found.visits * self._energy().calls
        # without a posterior (energies that are NaN) the first one: the identity, or what comes next to it
        index = torch.where(log_probs.isnan().any(-1), 0, scores.argmax(-1))
        if self._lists_group(found):
            return Pose(Element(self.group, index), log_probs, calls=calls)
        order = torch.arange(scores.shape[1], device=index.device).expand_as(scores).clone()
        order[:, 0] = index  # the chosen one first, in exchange for the first
        order.scatter_(1, index.unsqueeze(1), torch.zeros_like(order[:, :1]))
        order[:, 0] = index
        rows = torch.arange(len(order), device=index.device).unsqueeze(1)
        listed = found.candidates[rows, order]
        return Pose(listed[:, 0], log_probs.gather(1, order), candidates=listed, calls=calls)

    @torch.no_grad()
    def calibrate(self, pictures: Iterable[Tensor]) -> float:
        """Fit the temperature on batches of upright pictures of a finite group.

        Minimises the cross-entropy of the identity (Guo et al. 2017, arXiv 1706.04599); what ``learned``
        says is left as it is.

        Args:
            pictures: Batches of pictures, each ``(B, C, H, W)``.

        Returns:
            The temperature, which is also stored with the weights.
        """
        if not isinstance(self.group, FiniteGroup):
            raise TypeError(f"calibrate needs a finite group, got {self.group}")
        looked = [self._found(batch, prior=False) for batch in pictures]
        if not all(self._lists_group(found) for found, _ in looked):
            raise ValueError("calibrate needs a search of the whole group; use search=Grid()")
        energies = torch.cat([found.energies for found, _ in looked]).double()
        extra = torch.cat([more for _, more in looked])
        spread = float(energies.std(1).mean().clamp(min=1e-12))
        candidates = spread * torch.logspace(-3, 3, 301, dtype=torch.float64)
        losses = [-F.log_softmax(extra - energies / t, -1)[:, 0].mean() for t in candidates]
        fitted = float(candidates[torch.stack(losses).argmin()])
        self.temperature.fill_(fitted)
        return fitted

    def extra_repr(self) -> str:
        """Name the energy, the group and the search."""
        return f"energy={self.named or self.energy!r}, group={self.group}, search={self.search}"

    def _energy(self) -> Energy:
        if isinstance(self.energy, str):
            raise ValueError(
                f"energy {self.energy!r} is one of the model that is adapted, and there is none yet; use "
                "upright.adapt(model, canonicalizer=…), or .of(model)"
            )
        return self.energy

    def _found(self, x: Tensor | Sequence[Tensor], prior: bool = True) -> tuple[Found, Tensor]:
        """Search, and return what prior and learned posterior add to the scores, ``(B, K)``."""
        energy = self._energy()
        if not isinstance(x, Tensor):
            if not len(x):
                x = torch.zeros(0, 1, 1, 1)
            else:
                parts = [self._found(picture.unsqueeze(0), prior) for picture in x]
                return _together([found for found, _ in parts]), torch.cat([more for _, more in parts])
        check_tensor("x", x, "(B, C, H, W)", 4)
        found = self.search.find(energy, x, self.group, chunk=self.chunk, border=self.border)
        extra = torch.zeros_like(found.energies, dtype=torch.float64)
        if prior and self.deployment_prior is not None:
            extra = extra + self.deployment_prior.log_density(found.candidates).to(extra)
        if self.learned is not None:
            posterior: Pose = self.learned(x)
            if posterior.log_probs is None:
                raise TypeError(f"learned must give a posterior, {type(self.learned).__name__} gives none")
            extra = extra + posterior.log_probs.to(extra).gather(1, found.candidates.value.to(extra.device))
        return found, extra

    def _lists_group(self, found: Found) -> bool:
        if not isinstance(self.group, FiniteGroup):
            return False
        numbers = found.candidates.value
        every = torch.arange(self.group.order, device=numbers.device)
        return numbers.shape[1] == len(every) and bool((numbers == every).all())


def energy_canonicalizer(
    group: Group,
    *,
    energy: str = "logit",
    search: str | None = None,
    chunk: int = CHUNK,
    border: Border = "edge",
    **settings: Any,
) -> EnergyCanonicalizer:
    """Build the canonicalizer of a named energy of the model that will be adapted.

    Args:
        group: The group.
        energy: A name in `upright.energies.ENERGIES`.
        search: A name in `upright.search.SEARCHES`; None: the default of `EnergyCanonicalizer`.
        chunk: See `EnergyCanonicalizer`.
        border: See `EnergyCanonicalizer`.
        **settings: Of the search.
    """
    if search is None and settings:
        raise ValueError(f"settings {sorted(settings)} need a search; name one of {', '.join(SEARCHES)}")
    if search is not None:
        check_choice("search", search, SEARCHES)
    made = None if search is None else SEARCHES[search](**settings)
    return EnergyCanonicalizer(energy, group, made, chunk=chunk, border=border)


def _together(parts: list[Found]) -> Found:
    """Put what was found for single pictures together."""
    value = torch.cat([found.candidates.value for found in parts])
    return Found(
        Element(parts[0].candidates.group, value),
        torch.cat([found.energies for found in parts]),
        torch.cat([found.visits for found in parts]),
    )
