"""What a teacher knows reaches a student, in the right pose; training sets align with themselves."""

import pytest
import torch
from torch import nn

import upright
from training_nets import orbit as orbit
from training_nets import shapes
from upright.canonicalizers import DiscreteCanonicalizer, EnergyCanonicalizer
from upright.groups.base import Element
from upright.search import Grid
from upright.training.distil import Taught, distil, targets, written
from upright.training.realign import realign

QUICK = {"batch_size": 32, "progress": False, "accelerator": "cpu", "augment": False, "learning_rate": 1e-2}


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def top_heavy(x):
    return -x[:, :, : x.shape[2] // 3].mean((1, 2, 3))


def striped(count=192, seed=0):
    """Pictures (N, 1, 8, 8), bright on one side, and the pose of each."""
    generator = torch.Generator().manual_seed(seed)
    x = 0.2 * torch.rand(count, 1, 8, 8, generator=generator)
    x[:, :, :2] += 1.0
    g = upright.Cyclic(4).sample(count, generator=generator)
    return upright.act(g, upright.Image(x)).data, g


class Plain(nn.Module):
    """Scores four poses, without any symmetry."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))

    def forward(self, x):
        return self.layers(x)


class Once(EnergyCanonicalizer):
    """Counts the pictures that it is asked about."""

    def __init__(self, **settings):
        super().__init__(top_heavy, "C4", **settings)
        self.asked = 0

    def forward(self, x):
        self.asked += len(x)
        return super().forward(x)


def student():
    torch.manual_seed(0)
    return DiscreteCanonicalizer(Plain(), "C4", size=8, channels=1)


def test_a_student_without_symmetry_learns_every_pose_from_one():
    x, g = striped()
    upright_only = upright.act(~g, upright.Image(x)).data
    teacher, taught = Once(temperature=0.05), student()
    result = distil(teacher, taught, upright_only, epochs=12, **QUICK)
    assert teacher.asked == len(x)  # once, whatever the number of epochs
    unseen, poses = striped(64, seed=1)
    with torch.no_grad():
        right = taught.eval()(unseen).element.equals(poses)
    assert float(right.float().mean()) > 0.95
    assert result.history[-1]["loss"] < 0.3 * result.history[0]["loss"]
    assert result.history[-1]["agreement"] > 0.95


def test_pictures_may_be_in_any_pose_and_labels_do_not_count():
    x, g = striped()
    taught = student()
    labels = torch.randint(9, (len(x),))
    distil(Once(temperature=0.05), taught, (x, labels), val_pictures=x[:32], epochs=8, **QUICK)
    assert float(taught.eval()(x).element.equals(g).float().mean()) > 0.95


def test_the_same_seed_gives_the_same_student():
    x, states = striped(64)[0], []
    for _ in range(2):
        taught = student()
        distil(Once(temperature=0.05), taught, x, epochs=1, seed=3, **QUICK)
        states.append(taught.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_the_loss_is_the_divergence_from_the_teacher():
    from upright.training.distillation import DistillationModule

    x, _ = striped(16)
    taught, teacher = student(), Once(temperature=0.3)
    answers = written(teacher(x))
    module = DistillationModule(taught, augment=False)
    with torch.no_grad():
        found = module._metrics(x, answers, None)
        p, log_q = teacher(x).probs, taught(x).log_probs
    expected = (p * (p.log() - log_q)).sum(1).mean()
    torch.testing.assert_close(found["loss"].float(), expected, atol=1e-5, rtol=1e-4)


def test_continuous_answers_are_spread_over_cells():
    group = upright.SO2()
    listed = group.element(degrees=torch.tensor([[90.0, 180.0]]))
    log_probs = torch.tensor([[0.75, 0.25]]).log()
    pose = upright.Pose(listed[:, 0], log_probs, candidates=listed)
    cells = group.element(degrees=torch.arange(0.0, 360.0, 5.0))
    p = targets(written(pose), cells).exp()
    torch.testing.assert_close(p.sum(1), torch.ones(1, dtype=torch.float64))
    assert int(p.argmax()) == 18
    near = cells.distance(group.element(degrees=180.0)) < torch.pi / 6
    assert float(p[0, near].sum()) == pytest.approx(0.25, abs=1e-3)


def test_a_continuous_student():
    c = upright.canonicalizer("SO2", channels=1, size=16)
    teacher = EnergyCanonicalizer(top_heavy, "SO2", Grid(12), temperature=0.02)
    x, _ = striped(64)
    result = distil(teacher, c, x, epochs=3, **{**QUICK, "learning_rate": 1e-3})
    assert result.history[-1]["loss"] < result.history[0]["loss"]


def test_answers_of_listed_elements_of_finite_groups():
    group = upright.Cyclic(4)
    listed = group.element(torch.tensor([[2, 0]]))
    pose = upright.Pose(listed[:, 0], torch.tensor([[0.9, 0.1]]).log(), candidates=listed)
    assert written(pose).exp()[0].tolist() == pytest.approx([0.1, 0, 0.9, 0])


def test_mistakes_are_named():
    x, _ = striped(8)
    with pytest.raises(ValueError, match="must share a group, got C4 and C8"):
        distil(Once(), upright.canonicalizer("C8", channels=1), x)
    with pytest.raises(TypeError, match="teacher must give a posterior"):
        Taught(upright.IdentityCanonicalizer("C4"), x, 4)
    with pytest.raises(ValueError, match="poses must have batch size 8"):
        realign(x, "C4", poses=upright.Cyclic(4).identity(3))
    with pytest.raises(ValueError, match="canonicalizer must be one of C4"):
        realign(x, "C4", canonicalizer=upright.canonicalizer("C8"))


def test_realign_sets_the_turned_part_upright():
    x, _ = shapes(256)
    generator = torch.Generator().manual_seed(3)
    g = upright.Cyclic(4).sample(len(x), generator=generator)
    turned = torch.rand(len(x), generator=generator) < 0.3
    g = Element(g.group, torch.where(turned, g.value, 0))
    given = upright.act(g, upright.Image(x)).data
    torch.manual_seed(0)
    c = upright.canonicalizer("C4", "training_nets:orbit", size=12, channels=1)
    found = realign(given, "C4", canonicalizer=c, rounds=3, epochs=10, settled=0.05, **QUICK)
    before, after = g.is_identity().float().mean(), found.poses.equals(g).float().mean()
    assert float(1 - after) < 0.7 * float(1 - before)
    assert found.converged == (found.history[-1]["changed"] <= 0.05)
    assert found.history[-1]["changed"] < found.history[0]["changed"]
