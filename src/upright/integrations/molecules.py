"""Molecules and materials through ASE: atoms that move with all they carry, calculators made equivariant.

Convention:
    Units are those of ASE: Å, eV, e. A cell moves like three arrows; a shift moves atoms and not their cell.
    Stresses are ``(…, 3, 3)`` or in the order of Voigt: xx, yy, zz, yz, xz, xy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._checks import check_choice
from ..actions import act
from ..adapter.passes import plan_passes
from ..adapter.spec import KindSpec, kind_class
from ..canonicalizers import Canonicalizer
from ..canonicalizers.frames import PCAFrame
from ..groups.base import Element, Group
from ..groups.parse import parse_group
from ..groups.space import SpatialGroup
from ..kinds import Invariant, Kind
from ..kinds_space import Cloud, PseudoVectors, Tensors, Vectors

try:
    from ase import Atoms
    from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.constraints import FixAtoms
except ImportError as error:
    raise ImportError("molecules are read with ase: pip install 'upright[molecules]'") from error

PROPERTIES: dict[str, type[Kind]] = {
    "energy": Invariant,
    "free_energy": Invariant,
    "energies": Invariant,
    "charges": Invariant,
    "forces": Vectors,
    "momenta": Vectors,
    "dipole": Vectors,
    "polarization": Vectors,
    "magmom": PseudoVectors,
    "magmoms": PseudoVectors,
    "initial_magmoms": PseudoVectors,
    "stress": Tensors,
    "stresses": Tensors,
    "dielectric_tensor": Tensors,
    "polarizability": Tensors,
    "born_effective_charges": Tensors,
}
"""How what ASE knows by name moves. Magnetic moments that are numbers, along one axis, stay as they are."""

_AXES = {"magmom": 1, "magmoms": 2, "initial_magmoms": 2}
"""How many axes magnetic moments have that are vectors."""
_FULL = [[0, 5, 4], [5, 1, 3], [4, 3, 2]]
_VOIGT = ([0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1])
MODES = ("canonical", "top_k", "weighted")

Kinds = Mapping[str, KindSpec]


def read_atoms(
    molecules: Sequence[Any], *, dtype: torch.dtype = torch.float32, device: Any = None
) -> dict[str, Tensor]:
    """Read molecules into the tensors of a batch, as models take them.

    Args:
        molecules: ``ase.Atoms``, not necessarily of one size.
        dtype: Dtype of the positions.
        device: Where the tensors live.

    Returns:
        ``positions``, shape ``(B, N, 3)`` (a `Cloud`); ``numbers``, the atomic numbers, ``(B, N)``, 0 where
        a molecule has fewer atoms; ``mask``, where there are atoms, ``(B, N)``, bool.

    Example:
        >>> from ase.build import molecule
        >>> batch = read_atoms([molecule("H2O"), molecule("CH4")])
        >>> batch["numbers"].tolist()
        [[8, 1, 1, 0, 0], [6, 1, 1, 1, 1]]
    """
    most = max((len(atoms) for atoms in molecules), default=0)
    positions = np.zeros((len(molecules), most, 3))
    numbers = np.zeros((len(molecules), most), np.int64)
    for row, atoms in enumerate(molecules):
        positions[row, : len(atoms)] = atoms.positions
        numbers[row, : len(atoms)] = atoms.numbers
    counts = torch.tensor([len(atoms) for atoms in molecules], device=device)
    return {
        "positions": torch.from_numpy(positions).to(device, dtype),
        "numbers": torch.from_numpy(numbers).to(device),
        "mask": torch.arange(most, device=device) < counts.unsqueeze(-1),
    }


def write_atoms(positions: Tensor, numbers: Tensor, mask: Tensor | None = None) -> list[Any]:
    """Return the molecules of a batch; the inverse of `read_atoms`.

    Args:
        positions: Shape ``(B, N, 3)``.
        numbers: Atomic numbers, shape ``(B, N)``.
        mask: Where there are atoms, shape ``(B, N)``; None: where the number is not 0.
    """
    present = numbers > 0 if mask is None else mask.bool()
    return [
        Atoms(numbers=n[p].cpu().numpy(), positions=x[p].detach().cpu().double().numpy())
        for x, n, p in zip(positions, numbers, present, strict=True)
    ]


def move_atoms(g: Element, atoms: Any, *, kinds: Kinds | None = None) -> Any:
    """Move a molecule: positions, cell, momenta, magnetic moments, and the results that were read with it.

    Args:
        g: One element, shape ``()``, of a spatial group.
        atoms: ``ase.Atoms``; it stays as it is. A calculator that computes does not come along.
        kinds: How arrays, results and entries of ``atoms.info`` move that are not in `PROPERTIES`.

    Returns:
        The moved ``ase.Atoms``.

    Raises:
        TypeError: If ``g`` is of another group.
        ValueError: If an array with three columns has no known kind, or a constraint is not one of fixed
            atoms.

    Example:
        >>> from ase.build import molecule
        >>> from upright.groups.space import SO3
        >>> atoms, half_turn = molecule("H2O"), SO3().from_euler("x", [180.0], degrees=True)
        >>> bool(abs(move_atoms(half_turn, atoms).positions + atoms.positions).max() < 1e-12)
        True
    """
    _check_element(g)
    for constraint in atoms.constraints:
        if not isinstance(constraint, FixAtoms):
            raise ValueError(
                f"constraints must be FixAtoms to be moved, got {type(constraint).__name__}, which may name "
                "directions; remove it with atoms.set_constraint() and set it anew"
            )
    moved = atoms.copy()
    moved.arrays["positions"][:] = _act(g, Cloud, atoms.positions)
    moved.set_cell(_act(g, Vectors, np.asarray(atoms.cell)))
    moved.set_celldisp(_act(g, Vectors, np.asarray(atoms.get_celldisp()).reshape(1, 3)))
    for name, array in atoms.arrays.items():
        if name not in ("positions", "numbers"):
            moved.arrays[name] = _moved(g, name, array, kinds, strict=True)
    for name, entry in atoms.info.items():
        moved.info[name] = _moved(g, name, entry, kinds)
    if isinstance(atoms.calc, SinglePointCalculator):
        moved.calc = SinglePointCalculator(moved, **move_results(g, atoms.calc.results, kinds=kinds))
    return moved


def move_results(g: Element, results: Mapping[str, Any], *, kinds: Kinds | None = None) -> dict[str, Any]:
    """Move what a calculator computed.

    Args:
        g: One element, shape ``()``, of a spatial group.
        results: Results by the names of ASE. Those without a known kind stay out.
        kinds: How results move that are not in `PROPERTIES`.

    Returns:
        The moved results.
    """
    _check_element(g)
    known = {**PROPERTIES, **(kinds or {})}
    return {name: _moved(g, name, entry, kinds) for name, entry in results.items() if name in known}


class AdaptedCalculator(Calculator):  # type: ignore[misc]
    """A calculator made equivariant: energies do not change with the frame, forces and dipoles turn with it.

    Molecules are computed in the frame of their pose, and what is computed is turned back. A molecule with
    symmetry has several poses that are as good: energies are the same in all of them if the calculator does
    not care about the order of atoms; arrows need their average, ``mode="weighted"``. Build it with
    `adapt_calculator`.

    Args:
        calculator: Any ASE calculator; it stays as it is.
        canonicalizer: A canonicalizer of clouds.
        mode: ``"canonical"`` computes once; ``"top_k"`` and ``"weighted"`` average over several frames, the
            latter so that results change continuously.
        top_k: Most frames; None: all of the pose.
        kinds: How results move that are not in `PROPERTIES`.
    """

    def __init__(
        self,
        calculator: Any,
        canonicalizer: Canonicalizer,
        *,
        mode: str = "canonical",
        top_k: int | None = None,
        kinds: Kinds | None = None,
    ) -> None:
        super().__init__()
        check_choice("mode", mode, MODES)
        if not isinstance(canonicalizer.group, SpatialGroup):
            raise TypeError(f"canonicalizer must be one of a spatial group, got {canonicalizer.group}")
        self.calculator, self.canonicalizer = calculator, canonicalizer.eval()
        self.mode, self.top_k, self.kinds = mode, top_k, kinds
        known = {**PROPERTIES, **(kinds or {})}
        offered = getattr(calculator, "implemented_properties", PROPERTIES)
        self.implemented_properties = [name for name in offered if name in known]

    def calculate(
        self, atoms: Any = None, properties: Sequence[str] = ("energy",), system_changes: Any = all_changes
    ) -> None:
        """Compute properties, as ASE asks for them."""
        super().calculate(atoms, properties, system_changes)
        bare = self.atoms.copy()
        bare.set_constraint()
        elements, weights = self._passes(bare)
        total: dict[str, Any] = {}
        for g, weight in zip(elements, weights.tolist(), strict=True):
            for name, entry in self._computed(g, bare, properties).items():
                total[name] = total.get(name, 0.0) + weight * entry
        self.results = total

    def _passes(self, atoms: Any) -> tuple[Element, Tensor]:
        """Return the frames of one molecule and their weights, which sum to 1, both of shape ``(K,)``."""
        with torch.no_grad():
            pose = self.canonicalizer(torch.from_numpy(atoms.positions).unsqueeze(0))
        if self.mode == "canonical":
            return pose.element, torch.ones(1, dtype=torch.float64)
        elements, weights = plan_passes(pose, self.mode, top_k=self.top_k)  # type: ignore[arg-type]
        used = weights[0] > 0
        weights = weights[0, used].double()
        return elements[0][used], weights / weights.sum()

    def _computed(self, g: Element, atoms: Any, properties: Sequence[str]) -> dict[str, Any]:
        """Compute in the frame ``g`` and turn back: what was asked for, and what came with it."""
        seen = move_atoms(g.inverse(), atoms, kinds=self.kinds)
        found = {name: self.calculator.get_property(name, seen) for name in properties}
        found = {**getattr(self.calculator, "results", {}), **found}
        return move_results(g, found, kinds=self.kinds)


def adapt_calculator(
    calculator: Any,
    group: Group | str = "SE3",
    *,
    canonicalizer: Canonicalizer | None = None,
    mode: str = "canonical",
    top_k: int | None = None,
    kinds: Kinds | None = None,
) -> AdaptedCalculator:
    """Make an ASE calculator equivariant.

    Args:
        calculator: Any ASE calculator, such as a `ModelCalculator` of a model that is not equivariant.
        group: ``"SO3"``, ``"O3"``, ``"SE3"`` or ``"E3"``.
        canonicalizer: A canonicalizer of clouds; default: `PCAFrame`. Of a periodic system it sees the atoms
            of the cell as they are listed.
        mode: See `AdaptedCalculator`. Where atoms change smoothly, as in dynamics, take ``"weighted"``.
        top_k: Most frames, with ``mode="top_k"`` or ``"weighted"``.
        kinds: How results move that are not in `PROPERTIES`, by name.

    Raises:
        ValueError: If the canonicalizer is one of another group.

    Example:
        >>> from ase.build import molecule
        >>> from ase.calculators.emt import EMT
        >>> atoms = molecule("CH3OH")
        >>> atoms.calc = adapt_calculator(EMT())
        >>> atoms.get_forces().shape
        (6, 3)
    """
    parsed = parse_group(group)
    chosen = PCAFrame(parsed) if canonicalizer is None else canonicalizer
    if chosen.group != parsed:
        raise ValueError(
            f"the canonicalizer is one of {chosen.group}, but group is {parsed}; pass group='{chosen.group}'"
        )
    return AdaptedCalculator(calculator, chosen, mode=mode, top_k=top_k, kinds=kinds)


class ModelCalculator(Calculator):  # type: ignore[misc]
    """A model of PyTorch as a calculator, for ASE's optimisers and dynamics.

    Args:
        model: Called as ``model(positions=…, numbers=…)`` with tensors ``(1, N, 3)`` and ``(1, N)``, with
            ``cell=…``, ``(1, 3, 3)``, where the system is periodic. It returns a dictionary of tensors by
            the names of ASE, each with a leading axis 1. An adapted model will do; its ``inputs`` are then
            ``{"positions": "cloud"}`` and its ``outputs`` such as ``{"energy": "invariant", "forces":
            "vectors"}``.
        properties: What the model returns that ASE may ask for.
        dtype: Dtype of positions and cell.
        device: Where the model lives.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        properties: Sequence[str] = ("energy", "forces"),
        *,
        dtype: torch.dtype = torch.float32,
        device: Any = None,
    ) -> None:
        super().__init__()
        self.model, self.dtype, self.device = model, dtype, device
        self.implemented_properties = list(properties)

    def calculate(
        self, atoms: Any = None, properties: Sequence[str] = ("energy",), system_changes: Any = all_changes
    ) -> None:
        """Run the model."""
        super().calculate(atoms, properties, system_changes)
        given = read_atoms([self.atoms], dtype=self.dtype, device=self.device)
        del given["mask"]
        if self.atoms.pbc.any():
            cell = torch.from_numpy(np.array(self.atoms.cell))
            given["cell"] = cell.unsqueeze(0).to(self.device, self.dtype)
        output = self.model(**given)
        if not isinstance(output, Mapping):
            raise TypeError(
                f"the model must return a dictionary of {self.implemented_properties}, got "
                f"{type(output).__name__}"
            )
        missing = [name for name in properties if name not in output]
        if missing:
            raise PropertyNotImplementedError(f"the model returned {list(output)}, but not {missing}")
        self.results = {
            name: _plain(name, output[name]) for name in self.implemented_properties if name in output
        }


def _plain(name: str, entry: Tensor) -> Any:
    """Return a result of one molecule as ASE has it: a float, or an array of float64."""
    array = entry.detach().cpu().double().numpy()
    if array.ndim == 0 or array.shape[0] != 1:
        raise ValueError(f"the model must return {name} with a leading axis 1, got shape {array.shape}")
    return float(array.item()) if array.size == 1 and name.endswith("energy") else array[0]


def _check_element(g: Element) -> None:
    if not isinstance(g.group, SpatialGroup):
        raise TypeError(f"g must be of a spatial group, such as SE3, got {g.group}")
    if g.shape:
        raise ValueError(f"g must be one element, of shape (), got {tuple(g.shape)}; index it")


def _moved(g: Element, name: str, entry: Any, kinds: Kinds | None, *, strict: bool = False) -> Any:
    """Move what has a name; ``strict``: three columns of no known kind raise."""
    given = (kinds or {}).get(name)
    kind = kind_class(given) if given is not None else PROPERTIES.get(name)
    if kind is None:
        if strict and np.ndim(entry) > 1:
            raise ValueError(
                f"array {name!r} of shape {np.shape(entry)} must have a kind to be moved; pass "
                f"kinds={{{name!r}: 'vectors'}}, or 'invariant'"
            )
        return entry
    if issubclass(kind, Invariant) or np.ndim(entry) < _AXES.get(name, 0):
        return entry
    return _act(g, kind, entry)


def _act(g: Element, kind: type[Kind], entry: Any) -> Any:
    array = np.asarray(entry, np.float64)
    voigt = issubclass(kind, Tensors) and array.shape[-1] == 6
    data = torch.from_numpy(np.ascontiguousarray(array[..., _FULL] if voigt else array))
    moved = act(g, kind(data)).data.numpy()  # type: ignore[call-arg]
    return moved[(..., *_VOIGT)] if voigt else moved
