"""Predictors of clouds and particles: order and padding change nothing, and formulas are those of the papers.

References are written by hand, in loops, on the networks' weights.
"""

import numpy as np
import pytest
import torch

from upright.data import make_shapes
from upright.nets.egnn import EGNN
from upright.nets.particles import ParticleGNN, ParticleTransformer
from upright.nets.points import DGCNN, DGCNNParts, PointNet, PointNetParts, nearest

CLASSIFIERS = {
    "PointNet": lambda: PointNet(5, width=0.125),
    "PointNet bare": lambda: PointNet(5, width=0.125, transforms=False),
    "DGCNN": lambda: DGCNN(5, width=0.125, neighbours=6),
}
SEGMENTERS = {
    "PointNet": lambda: PointNetParts(4, classes=2, width=0.125),
    "DGCNN": lambda: DGCNNParts(4, classes=2, width=0.125, neighbours=6),
}
PREDICTORS = {
    "EGNN": lambda: EGNN(16, 2),
    "GNN": lambda: ParticleGNN(16, 2),
    "transformer": lambda: ParticleTransformer(16, 2),
}
torch.set_num_threads(1)


def lively(network):
    """Draw all weights anew: none near zero, scales of both signs, statistics other than 0 and 1."""
    with torch.no_grad():
        for p in network.parameters():
            p.normal_(0, 0.5 if p.ndim < 2 else 1.5 / p.shape[-1] ** 0.5)
        for m in network.modules():
            if isinstance(m, torch.nn.BatchNorm1d):
                m.weight.uniform_(1.2, 2).mul_(torch.randint(0, 2, m.weight.shape) * 2 - 1)
                m.running_mean.normal_(0, 0.5)
                m.running_var.uniform_(0.5, 1.5)
    return network.double().eval()


def clouds(*sizes, inputs=3):
    """Ragged clouds as a padded batch (padding far off), the mask, and one by one."""
    alone = [torch.randn(n, inputs, dtype=torch.float64) for n in sizes]
    x = torch.full((len(sizes), max(sizes) + 2, inputs), 9.0, dtype=torch.float64)
    mask = torch.zeros(x.shape[:2], dtype=torch.bool)
    for i, a in enumerate(alone):
        rows = torch.randperm(x.shape[1])[: len(a)]
        x[i, rows], mask[i, rows] = a, True
    return x, mask, alone


def systems(batch=3, count=5):
    x, v = torch.randn(2, batch, count, 3, dtype=torch.float64)
    return x, v, torch.randint(0, 2, (batch, count)).double() * 2 - 1


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_order_of_points_changes_nothing(name):
    network, x = lively(CLASSIFIERS[name]()), torch.randn(2, 20, 3, dtype=torch.float64)
    y = network(x)
    assert y.shape == (2, 5)
    assert (y[0] - y[1]).abs().max() > 1e-3
    torch.testing.assert_close(network(x[:, torch.randperm(20)]), y)


@pytest.mark.parametrize("name", SEGMENTERS)
def test_parts_follow_their_points(name):
    network, x = lively(SEGMENTERS[name]()), torch.randn(2, 20, 3, dtype=torch.float64)
    y, order = network(x, torch.tensor([0, 1])), torch.randperm(20)
    assert y.shape == (2, 20, 4)
    assert y.std(1).min() > 1e-4
    torch.testing.assert_close(network(x[:, order], torch.tensor([0, 1])), y[:, order])
    assert (network(x, torch.tensor([1, 1]))[0] - y[0]).abs().max() > 1e-4  # the class matters


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_padding_changes_no_class(name):
    network = lively(CLASSIFIERS[name]())
    x, mask, alone = clouds(3, 20, 11, 1)  # fewer points than neighbours, too
    expected = torch.cat([network(a[None]) for a in alone])
    torch.testing.assert_close(network(x, mask), expected)


@pytest.mark.parametrize("name", SEGMENTERS)
def test_padding_changes_no_part(name):
    network, labels = lively(SEGMENTERS[name]()), torch.tensor([0, 1, 1])
    x, mask, _ = clouds(3, 20, 11)
    y = network(x, labels, mask)
    for i in range(3):
        torch.testing.assert_close(y[i][mask[i]], network(x[i][mask[i]][None], labels[i : i + 1])[0])


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_padding_changes_no_statistic_in_training(name):
    torch.manual_seed(1)
    network = CLASSIFIERS[name]().double()
    fresh = {k: v.clone() for k, v in network.state_dict().items()}
    x, mask = torch.randn(3, 16, 3, dtype=torch.float64), torch.ones(3, 16, dtype=torch.bool)
    torch.manual_seed(2)  # the same values are dropped
    network.train()(x)
    expected = {k: v.clone() for k, v in network.state_dict().items()}
    network.load_state_dict(fresh)
    padded = torch.cat([x, torch.full((3, 5, 3), 50.0, dtype=torch.float64)], 1)
    torch.manual_seed(2)
    network(padded, torch.cat([mask, torch.zeros(3, 5, dtype=torch.bool)], 1))
    for key, value in network.state_dict().items():
        torch.testing.assert_close(value, expected[key], msg=lambda m, k=key: f"{k}: {m}")


def test_edges_follow_the_paper():
    """A layer on (x_i, x_j - x_i), written out for every point and every neighbour."""
    layer = lively(DGCNN(2, width=0.125, neighbours=4)).encoder.layers[1]
    x = torch.randn(1, 9, 8, dtype=torch.float64)
    a, b = layer.own.weight.detach().numpy(), layer.other.weight.detach().numpy()
    norm, points = layer.norm, x[0].numpy()
    scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach().numpy()
    bias = norm.bias.detach().numpy() - norm.running_mean.numpy() * scale
    expected = []
    for p in points:
        near = sorted(points, key=lambda q, p=p: np.sum((q - p) ** 2))[:4]
        assert (near[0] == p).all()
        rows = [np.concatenate([a + b, b], 1) @ np.concatenate([p, q - p]) * scale + bias for q in near]
        expected.append(np.max([np.where(r > 0, r, 0.2 * r) for r in rows], 0))
    torch.testing.assert_close(layer(x, None)[0], torch.from_numpy(np.stack(expected)))


def test_nearest_finds_the_nearest_and_never_padding():
    x = torch.tensor([[[0.0], [1.0], [3.0], [3.5]]])
    assert nearest(x, 2).tolist() == [[[0, 1], [1, 0], [2, 3], [3, 2]]]
    assert nearest(x, 9).shape == (1, 4, 4)
    found = nearest(x, 3, torch.tensor([[True, False, True, False]]))
    assert found[0, 0].tolist() == [0, 2, 0]
    assert found[0, 2].tolist() == [2, 0, 2]


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("x", [torch.zeros(2, 8, 3), torch.zeros(2, 1, 3), torch.zeros(0, 8, 3)])
def test_repeated_single_and_no_clouds_are_borne(name, x):
    y = CLASSIFIERS[name]().eval()(x)
    assert y.shape == (len(x), 5)
    assert y.isfinite().all()


def test_matrices_start_as_the_identity_and_the_penalty_measures_orthogonality():
    network, x = PointNet(5, width=0.125).eval(), torch.randn(2, 10, 3)
    torch.testing.assert_close(network.encoder.turn_points(x, None), torch.eye(3).expand(2, 3, 3))
    torch.testing.assert_close(network.penalty(x), torch.zeros(2))
    with torch.no_grad():
        network.encoder.turn_features.out.bias[1] = 0.5  # A = I + e_01 / 2
    torch.testing.assert_close(network.penalty(x), torch.full((2,), 0.5**4 + 2 * 0.5**2))
    assert PointNet(5, width=0.125, transforms=False).penalty(x).tolist() == [0, 0]


def test_features_of_points_are_used():
    network = lively(PointNet(3, inputs=5, width=0.125))
    x = torch.randn(2, 7, 5, dtype=torch.float64)
    changed = x.clone()
    changed[..., 4] += 1
    assert (network(x) - network(changed)).abs().max() > 1e-4


@pytest.mark.parametrize("name", ["PointNet bare", "DGCNN"])
def test_classifiers_learn(name):
    """Four classes of made-up shapes; chance is a quarter."""
    data = make_shapes(6, 48, classes=["airplane", "bottle", "table", "spiral stair"])
    network = CLASSIFIERS[name]()
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(40):
        loss = torch.nn.functional.cross_entropy(network(data.points), data.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        for _ in range(20):
            network(data.points)  # the statistics of batches catch up
    assert (network.eval()(data.points).argmax(-1) == data.labels).float().mean() > 0.8


@pytest.mark.parametrize("name", [*CLASSIFIERS, *PREDICTORS])
def test_every_weight_takes_part(name):
    network = {**CLASSIFIERS, **PREDICTORS}[name]().double()
    x, v, q = systems(count=12)
    y = network(x) if name in CLASSIFIERS else network(x, v, q)
    (y * torch.randn_like(y)).sum().backward()
    # the last layer's features lead nowhere in EGNN, as in the paper
    exempt = ("layers.1.update",) if name == "EGNN" else ()
    lost = [k for k, p in network.named_parameters() if p.grad is None and not k.startswith(exempt)]
    assert not lost


@pytest.mark.parametrize("name", PREDICTORS)
def test_particles_in_any_order_and_number(name):
    network = lively(PREDICTORS[name]())
    for batch, count in ((3, 5), (1, 2), (2, 9)):
        x, v, q = systems(batch, count)
        y, order = network(x, v, q), torch.randperm(count)
        assert y.shape == x.shape
        torch.testing.assert_close(network(x[:, order], v[:, order], q[:, order]), y[:, order])
        assert (network(x, -v, q) - y).abs().max() > 1e-3
        other = q.clone()
        other[:, 0] *= -1
        assert (network(x, v, other) - y).abs().amax((0, 2)).min() > 1e-5  # every particle feels it


@pytest.mark.parametrize("name", PREDICTORS)
def test_padding_moves_no_particle(name):
    network = lively(PREDICTORS[name]())
    rows, mask, alone = clouds(2, 5, 1, inputs=7)
    y = network(rows[..., :3], rows[..., 3:6], rows[..., 6], mask)
    for i, a in enumerate(alone):
        expected = network(a[None, :, :3], a[None, :, 3:6], a[None, :, 6])
        own = rows[i][mask[i]]
        order = [int((a == row).all(-1).nonzero()) for row in own]
        torch.testing.assert_close(y[i][mask[i]], expected[0][order])


@pytest.mark.parametrize("name", PREDICTORS)
def test_no_systems_are_borne(name):
    assert PREDICTORS[name]()(torch.zeros(0, 5, 3), torch.zeros(0, 5, 3), torch.zeros(0, 5)).shape == (
        0,
        5,
        3,
    )


def moved(x, v, q, reflect):
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    turn = turn * torch.sign(torch.linalg.det(turn)) * (-1 if reflect else 1)
    shift = torch.randn(3, dtype=torch.float64)
    return (x @ turn.T + shift, v @ turn.T, q), lambda y: y @ turn.T + shift


@pytest.mark.parametrize("reflect", [False, True])
def test_egnn_is_equivariant_and_the_others_are_not(reflect):
    system = systems()
    there, move = moved(*system, reflect)
    for name, make in PREDICTORS.items():
        network = lively(make())
        expected = move(network(*system))
        error = (network(*there) - expected).abs().max() / expected.abs().max()
        assert error < 1e-9 if name == "EGNN" else error > 1e-2


def test_egnn_follows_the_paper():
    """Equations 3 to 7 with velocities, particle by particle."""
    network = lively(EGNN(6, 2))
    positions, v, q = systems(1, 4)
    x, v, q = positions[0], v[0], q[0]
    h = network.embed(v.norm(dim=-1, keepdim=True))
    start = [[((x[i] - x[j]) ** 2).sum() for j in range(4)] for i in range(4)]
    for layer in network.layers:
        new_h, new_x = [], []
        for i in range(4):
            push, total = torch.zeros(3, dtype=torch.float64), 0
            for j in range(4):
                if i != j:
                    square = ((x[i] - x[j]) ** 2).sum()
                    edge = torch.stack([square, q[i] * q[j], start[i][j]])
                    m = layer.message(layer.own(h[i]) + layer.other(h[j]) + layer.edge(edge))
                    push = push + (x[i] - x[j]) * layer.shift(m) / 3
                    total = total + m
            new_x.append(x[i] + push + layer.speed(h[i]) * v[i])
            new_h.append(h[i] + layer.update(torch.cat([h[i], total])))
        x, h = torch.stack(new_x), torch.stack(new_h)
    torch.testing.assert_close(network(positions, v[None], q[None])[0], x)


def test_mistakes_are_told():
    network = PointNet(5, width=0.125)
    with pytest.raises(ValueError, match=r"points must have shape \(B, N, 3\), got \(2, 4, 5\)"):
        network(torch.zeros(2, 4, 5))
    with pytest.raises(ValueError, match="at least one point per cloud, got none"):
        network(torch.zeros(2, 0, 3))
    with pytest.raises(ValueError, match="got a cloud of padding only"):
        network(torch.zeros(2, 4, 3), torch.tensor([[True] * 4, [False] * 4]))
    with pytest.raises(ValueError, match=r"mask must be bool of shape \(2, 4\).* got torch.float32"):
        network(torch.zeros(2, 4, 3), torch.ones(2, 4))
    with pytest.raises(ValueError, match="labels must be given to a network with classes=2"):
        SEGMENTERS["DGCNN"]()(torch.zeros(2, 4, 3))
    with pytest.raises(ValueError, match=r"velocities must have shape \(2, 5, 3\) to match positions"):
        EGNN()(torch.zeros(2, 5, 3), torch.zeros(2, 4, 3), torch.zeros(2, 5))
    with pytest.raises(ValueError, match="heads must divide hidden=10, got 4"):
        ParticleTransformer(10)
