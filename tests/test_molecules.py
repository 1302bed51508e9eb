"""Molecules: atoms move with all they carry; calculators that know no symmetry become equivariant."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import upright
from upright import Cyclic
from upright.canonicalizers.frames import MinimalFrame, PCAFrame
from upright.groups.motions import E3, SE3
from upright.groups.space import O3, SO3

pytest.importorskip("ase")

from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixedLine
from ase.optimize import BFGS

from upright.integrations.molecules import (
    ModelCalculator,
    adapt_calculator,
    move_atoms,
    move_results,
    read_atoms,
    write_atoms,
)

GROUPS = [SO3(), O3(), SE3(), E3()]
REFLECTS = (O3, E3)
MOLECULES = ["CH3OH", "CH3CONH2", "NH3"]


class Crooked(Calculator):
    """Computes anything but physics: energies, forces, dipoles and stresses that depend on the frame."""

    implemented_properties = ("energy", "forces", "dipole", "stress", "charges", "magmoms")

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        x = self.atoms.positions * self.atoms.numbers[:, None]
        self.results = {
            "energy": float(np.sin(x @ [0.3, 0.5, 0.7]).sum() + (x[:, 0] ** 2).mean()),
            "forces": np.stack([np.sin(x[:, 1]), x[:, 0] * 0.1, np.cos(x[:, 2])], 1),
            "dipole": np.array([1.0, 2.0, 3.0]) + x[0],
            "stress": np.arange(6.0) + np.cos(x[:, 0]).sum(),
            "charges": np.tanh(x[:, 0] - x[:, 1]),
            "magmoms": np.stack([x[:, 2], np.sin(x[:, 0]), x[:, 1]], 1) * 0.1,
            "unheard_of": 3.0,
        }


def shaken(name, seed=0):
    """A molecule whose atoms are all off their places, so that it has no symmetry."""
    atoms = molecule(name)
    atoms.positions += np.random.default_rng(seed).normal(0, 0.1, atoms.positions.shape)
    return atoms


def matrix_and_shift(g):
    """R and t of an element, by its own matrix on homogeneous columns."""
    matrix = g.matrix().numpy()
    return matrix[:3, :3], matrix[:3, 3] if len(matrix) == 4 else np.zeros(3)


def full(stress):
    xx, yy, zz, yz, xz, xy = stress
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


@pytest.mark.parametrize("group", GROUPS, ids=str)
def test_atoms_move_with_all_they_carry(group, generator):
    g = group.sample(generator=generator)
    turn, shift = matrix_and_shift(g)
    handed = np.linalg.det(turn)
    atoms = bulk("Cu", "fcc", a=3.6).repeat(2)
    random = np.random.default_rng(0)
    atoms.set_momenta(random.normal(size=(8, 3)))
    atoms.set_initial_magnetic_moments(random.normal(size=(8, 3)))
    atoms.set_constraint(FixAtoms([1, 2]))
    atoms.new_array("seen", np.arange(8))
    atoms.new_array("normal", random.normal(size=(8, 3)))
    atoms.info["dipole"], atoms.info["name"] = np.array([1.0, 2.0, 3.0]), "copper"
    results = {
        "energy": -1.5, "forces": random.normal(size=(8, 3)), "stress": random.normal(size=6),
        "magmoms": random.normal(size=(8, 3)), "charges": random.normal(size=8),
    }  # fmt: skip
    atoms.calc = SinglePointCalculator(atoms, **results)
    before = atoms.positions.copy()
    moved = move_atoms(g, atoms, kinds={"normal": "vectors"})

    def same(got, want):
        assert np.allclose(got, want, atol=1e-12)

    same(moved.positions, before @ turn.T + shift)
    same(moved.cell.array, atoms.cell.array @ turn.T)
    same(moved.get_momenta(), atoms.get_momenta() @ turn.T)
    same(moved.arrays["normal"], atoms.arrays["normal"] @ turn.T)
    same(moved.get_initial_magnetic_moments(), handed * atoms.get_initial_magnetic_moments() @ turn.T)
    same(moved.info["dipole"], turn @ [1, 2, 3])
    assert moved.info["name"] == "copper"
    assert moved.arrays["seen"].tolist() == list(range(8))
    assert moved.constraints[0].index.tolist() == [1, 2]
    same(moved.get_forces(apply_constraint=False), results["forces"] @ turn.T)
    same(full(moved.get_stress()), turn @ full(results["stress"]) @ turn.T)
    same(moved.get_magnetic_moments(), handed * results["magmoms"] @ turn.T)
    same(moved.get_charges(), results["charges"])
    assert moved.get_potential_energy() == -1.5
    assert np.array_equal(atoms.positions, before)
    # distances across the borders of the cell stay, so the cell went along rightly
    same(moved.get_all_distances(mic=True), atoms.get_all_distances(mic=True))
    home = move_atoms(~g, moved, kinds={"normal": "vectors"})
    same(home.positions, before)


def test_magnetic_moments_along_one_axis_stay():
    atoms = shaken("H2O")
    atoms.set_initial_magnetic_moments([1.0, -1.0, 0.5])
    atoms.calc = SinglePointCalculator(atoms, magmoms=np.array([1.0, -1.0, 0.5]), magmom=0.5)
    moved = move_atoms(SO3().sample(generator=torch.Generator().manual_seed(1)), atoms)
    assert moved.get_initial_magnetic_moments().tolist() == [1.0, -1.0, 0.5]
    assert moved.get_magnetic_moments().tolist() == [1.0, -1.0, 0.5]
    assert moved.get_magnetic_moment() == 0.5


@pytest.mark.parametrize("mode", ["canonical", "weighted", "top_k"])
@pytest.mark.parametrize("group", GROUPS, ids=str)
def test_a_crooked_calculator_becomes_equivariant(group, mode, generator):
    calculator = adapt_calculator(Crooked(), group, mode=mode, top_k=None if mode == "canonical" else 3)
    properties = Crooked.implemented_properties
    for name in MOLECULES:
        atoms = shaken(name)
        g = group.sample(generator=generator)
        turned = move_atoms(g, atoms)
        got = {p: calculator.get_property(p, turned) for p in properties}
        want = {p: calculator.get_property(p, atoms) for p in properties}
        moved = move_results(g, want)
        bare = [{p: Crooked().get_property(p, a) for p in properties} for a in (turned, atoms)]
        off = move_results(g, bare[1])
        for p in properties:
            assert np.allclose(got[p], moved[p], atol=1e-5), (name, p)
            assert np.shape(got[p]) == np.shape(bare[0][p])
            assert np.abs(bare[0][p] - off[p]).max() > 1e-2, "or the check says nothing"
        turn, _ = matrix_and_shift(g)
        assert np.allclose(got["forces"], want["forces"] @ turn.T, atol=1e-5)
        assert np.allclose(full(got["stress"]), turn @ full(want["stress"]) @ turn.T, atol=1e-5)


def test_what_is_equivariant_already_stays_as_it_is():
    for make, atoms in [
        (EMT, shaken("CH3OH")),
        (LennardJones, shaken("CH3CONH2")),
        (EMT, bulk("Cu", "fcc", a=3.7, cubic=True)),
        (EMT, _rattled(bulk("Cu", "fcc", a=3.7, cubic=True))),
    ]:
        calculator = adapt_calculator(make(), "SE3", mode="weighted")
        for p in ("energy", "forces", "stress") if atoms.pbc.all() else ("energy", "forces"):
            want = make().get_property(p, atoms)
            assert np.allclose(calculator.get_property(p, atoms), want, atol=1e-8)
        assert "free_energy" in calculator.implemented_properties
        held = atoms.copy()
        held.set_constraint(FixedLine(0, [1, 0, 0]))  # which is ASE's to keep, not the calculator's
        fresh = adapt_calculator(make(), "SE3", mode="weighted")
        assert fresh.get_property("energy", held) == calculator.get_property("energy", atoms)


def _rattled(atoms):
    atoms.rattle(0.1, seed=3)
    return atoms


@pytest.mark.parametrize("frame", [PCAFrame, MinimalFrame])
@pytest.mark.parametrize("group", [SE3(), E3()], ids=str)
def test_symmetric_molecules_have_one_energy_and_turned_forces(frame, group, generator):
    """Their poses are as many as their symmetries: the average over them is that of one molecule."""
    for name in ["H2O", "NH3", "CH4", "C6H6", "H2CO", "CO2", "N2", "H"]:
        calculator = adapt_calculator(Crooked(), canonicalizer=frame(group), group=group, mode="weighted")
        atoms, g = molecule(name), group.sample(generator=generator)
        found = [
            {p: calculator.get_property(p, some) for p in ("energy", "forces")}
            for some in (atoms, move_atoms(g, atoms))
        ]
        assert abs(found[0]["energy"] - found[1]["energy"]) < 1e-5, name
        if name not in ("CO2", "N2", "H"):  # on a line, what lies across has no direction to turn to
            want = move_results(g, found[0])
            assert np.allclose(found[1]["forces"], want["forces"], atol=1e-5), name


def test_dynamics_and_optimisers_run():
    atoms = shaken("CH3OH")
    turned = move_atoms(SE3().sample(generator=torch.Generator().manual_seed(2)), atoms)
    energies = []
    for some in (atoms, turned):
        some.set_constraint(FixAtoms([0]))
        some.calc = adapt_calculator(EMT(), mode="weighted")
        BFGS(some, logfile=None).run(fmax=0.05, steps=60)
        energies.append(some.get_potential_energy())
        assert np.abs(some.get_forces()).max() < 0.06
    assert abs(energies[0] - energies[1]) < 1e-3


class Net(nn.Module):
    """A small network on coordinates as they are: it knows of no symmetry."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 4))

    def forward(self, positions, numbers, mask=None):
        y = self.body(torch.cat([positions, numbers.unsqueeze(-1).to(positions) / 8], -1))
        y = y if mask is None else y * mask.unsqueeze(-1)
        return {"energy": y[..., 3].sum(1), "forces": y[..., :3], "dipole": y[..., :3].sum(1)}


KINDS = {"energy": "invariant", "forces": "vectors", "dipole": "vectors"}


def test_a_network_serves_ase_adapted_either_way(generator):
    net = Net()
    atoms = shaken("CH3CONH2")
    g = SE3().sample(generator=generator)
    turned = move_atoms(g, atoms)
    turn, _ = matrix_and_shift(g)
    robust = upright.adapt(
        net, "SE3", canonicalizer=PCAFrame("SE3"), inputs={"positions": "cloud"}, outputs=KINDS
    )
    ways = {
        "calculator": adapt_calculator(ModelCalculator(net, tuple(KINDS))),
        "model": ModelCalculator(robust, tuple(KINDS)),
    }
    found = {}
    for way, calculator in ways.items():
        want, got = ({p: calculator.get_property(p, a) for p in KINDS} for a in (atoms, turned))
        assert abs(got["energy"] - want["energy"]) <= 1e-5
        assert isinstance(got["energy"], float)
        assert np.abs(got["forces"] - want["forces"] @ turn.T).max() <= 1e-5
        assert np.abs(got["dipole"] - turn @ want["dipole"]).max() <= 1e-5
        found[way] = want
    assert np.allclose(found["model"]["forces"], found["calculator"]["forces"], atol=1e-5)
    bare = ModelCalculator(net, tuple(KINDS))
    assert abs(bare.get_property("energy", atoms) - bare.get_property("energy", turned)) > 1e-2


def test_batches_of_unlike_molecules_go_there_and_back():
    molecules = [molecule(name) for name in ("H2O", "C6H6", "H")]
    batch = read_atoms(molecules, dtype=torch.float64)
    assert batch["positions"].shape == (3, 12, 3)
    assert batch["mask"].sum(1).tolist() == [3, 12, 1]
    assert batch["numbers"][1, 11] == 1
    for got, want in zip(write_atoms(**batch), molecules, strict=True):
        assert got == Atoms(numbers=want.numbers, positions=want.positions)
    assert read_atoms([])["positions"].shape == (0, 0, 3)


def test_periodic_systems_hand_their_cell_over():
    seen = {}

    def model(positions, numbers, cell):
        seen["cell"] = cell
        return {"energy": positions.sum((1, 2)) * 0, "forces": positions * 0}

    atoms = bulk("Cu", "fcc", a=3.6)
    assert ModelCalculator(model).get_property("energy", atoms) == 0.0
    assert torch.allclose(seen["cell"][0], torch.tensor(atoms.cell.array, dtype=torch.float32))


def test_mistakes_are_told():
    atoms = molecule("H2O")
    turn = SO3().sample()
    with pytest.raises(TypeError, match="g must be of a spatial group"):
        move_atoms(Cyclic(4).element(1), atoms)
    with pytest.raises(ValueError, match=r"g must be one element, of shape \(\), got \(2,\)"):
        move_atoms(SO3().sample(2), atoms)
    with pytest.raises(ValueError, match="mode must be one of"):
        adapt_calculator(EMT(), mode="average")
    with pytest.raises(ValueError, match="pass group='SO3'"):
        adapt_calculator(EMT(), "SE3", canonicalizer=PCAFrame("SO3"))
    with pytest.raises(TypeError, match="canonicalizer must be one of a spatial group"):
        adapt_calculator(EMT(), "C4", canonicalizer=upright.canonicalizer("C4", "identity"))
    with pytest.raises(TypeError, match="the model must return a dictionary"):
        ModelCalculator(lambda positions, numbers: positions).get_property("energy", atoms)
    with pytest.raises(PropertyNotImplementedError, match="but not"):
        ModelCalculator(lambda positions, numbers: {}).get_property("energy", atoms)
    with pytest.raises(ValueError, match="with a leading axis 1"):
        ModelCalculator(lambda positions, numbers: {"energy": torch.ones(())}).get_property("energy", atoms)
    named = atoms.copy()
    named.new_array("arrow", np.ones((3, 3)))
    with pytest.raises(ValueError, match=r"array 'arrow' of shape .* must have a kind"):
        move_atoms(turn, named)
    assert move_atoms(turn, named, kinds={"arrow": "invariant"}).arrays["arrow"].tolist() == [[1] * 3] * 3
    atoms.set_constraint(FixedLine(0, [1, 0, 0]))
    with pytest.raises(ValueError, match="constraints must be FixAtoms"):
        move_atoms(turn, atoms)


def test_the_page_runs():
    page = (Path(__file__).parents[1] / "docs" / "space.md").read_text()
    section = page.partition("## Molecules\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len(blocks) == 2
    names = {"upright": upright, "PCAFrame": PCAFrame, "calculator": Crooked(), "network": Net()}
    forces = []
    for block in blocks:
        atoms = names["atoms"] = shaken("CH3OH")
        exec(compile(block, "space.md", "exec"), names)
        forces.append(atoms.get_forces())
    assert np.allclose(forces[0], adapt_calculator(Crooked()).get_property("forces", shaken("CH3OH")))
    assert np.allclose(
        forces[1],
        adapt_calculator(ModelCalculator(names["network"])).get_property("forces", atoms),
        atol=1e-5,
    )
