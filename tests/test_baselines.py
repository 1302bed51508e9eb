"""Every baseline is a row: it does what its formula says, and says what it costs, counted independently."""

import copy

import pytest
import torch
from torch import nn

import mutants_evaluation
import upright
from evaluation_toys import CLASSES, OnlyUpright, ReadsMark, marked, quick, toy, values
from upright import evaluation
from upright.actions import act
from upright.baselines import (
    Fitting,
    Localizer,
    Weigher,
    WeightedAverage,
    fit_classifier,
    fit_transformer,
    fit_weights,
    plain_classifier,
)
from upright.evaluation import ROWS, Row, rows
from upright.evaluation.poses import disagreements, errors
from upright.evaluation.running import build_rows, run_row
from upright.groups import SO2


class Sees(nn.Module):
    """Class scores that depend on everything in the picture; counts the pictures that it saw."""

    def __init__(self, side=8, classes=3):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(3 * side * side, classes, generator=generator))
        self.seen = 0

    def forward(self, x):
        self.seen += len(x)
        return x.flatten(1) @ self.weight


def photos(count=4, side=8):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def robust(group="C4", **settings):
    return upright.adapt(Sees(), group, canonicalizer=upright.canonicalizer(group, size=8), **settings)


def turned(x, g):
    return act(g.reshape(1).expand(len(x)), upright.Image(x)).data


def probabilities(model, x, group):
    """What the model says at every pose, ``(B, |G|, K)``, by hand."""
    return torch.stack([model(turned(x, g.inverse())).softmax(-1) for g in group.elements()], 1)


# --- rows


def output(name, model, x):
    return run_row(model, build_rows(model, {name: ROWS[name]})[name], x)


def test_averages_by_hand():
    model, x = robust(), photos(24)
    p = probabilities(model.model, x, model.group)
    entropy = torch.special.entr(p).sum(-1, keepdim=True)
    posterior = model.canonicalizer(x).log_probs.exp().unsqueeze(-1)
    expected = {
        "average": p.mean(1),
        "posterior": (posterior * p).sum(1),
        "lambda": (torch.exp(-4 * entropy) * p).sum(1) / torch.exp(-4 * entropy).sum(1),
        "equizero": p[torch.arange(24), entropy[..., 0].argmin(1)],
    }
    for name, by_hand in expected.items():
        assert torch.allclose(output(name, model, x).output.softmax(-1), by_hand, atol=1e-5), name
    augmented = output("tta", model, x)
    pairs = [(p[:, 0] + p[:, i]) / 2 for i in (1, 2, 3)]
    assert sum(torch.allclose(augmented.output.softmax(-1), pair, atol=1e-5) for pair in pairs) == 1


@pytest.mark.parametrize("group", ["C4", "D4"])
def test_rows_that_are_equivariant_are(group):
    report = quick(robust(group), (photos(), torch.zeros(4).long()), rows=list(ROWS))
    changes = {name: row.largest_difference for name, row in report.rows.items()}
    for name in ("average", "posterior", "lambda", "equizero", "oracle"):
        assert changes[name] < 1e-4, name
    assert changes["vanilla"] > 0.1
    assert changes["tta"] > 0.01  # a mean over some elements only


def check_passes():
    """What rows say they cost is what the model sees."""
    model, x = robust(), photos()
    trained = [
        Row.fixed("weights", WeightedAverage(model, Weigher())),
        Row("classifier", lambda r: r.replace(canonicalizer=plain_classifier("C4", size=8).eval())),
        Row("continuous", lambda r: rows.augmented(upright.adapt(r.model, SO2(), canonicalizer="identity"))),
    ]
    stated = {}
    for row in [*ROWS.values(), *trained]:
        if row.name in ("oracle",):
            continue
        model.model.seen = 0
        stated[row.name] = run_row(model, row.build(model), x).passes.tolist()
        assert stated[row.name] == [model.model.seen // len(x)] * len(x), row.name
    cost = {name: passes[0] for name, passes in stated.items()}
    assert cost == {
        "vanilla": 1, "equizero": 5, "average": 4, "posterior": 4, "lambda": 4, "tta": 2, "adapted": 1,
        "weights": 4, "classifier": 1, "continuous": 8,
    }  # fmt: skip


def test_passes():
    check_passes()


@pytest.mark.parametrize("name", mutants_evaluation.PASSES)
def test_undercounted_passes_are_caught(name, monkeypatch):
    where, attribute, mutant = mutants_evaluation.PASSES[name]
    monkeypatch.setattr(where, attribute, mutant)
    monkeypatch.setitem(globals(), attribute, mutant)
    with pytest.raises(AssertionError):
        check_passes()


def test_rows_report_their_costs():
    model = robust()
    data = (photos(6), torch.zeros(6).long())
    weights = Row.fixed("weights", WeightedAverage(model, Weigher()))
    named = ["vanilla", "adapted", "equizero", "tta", weights]
    report = upright.evaluate(model, data, rows=named, leakage=False)
    assert report.rows["vanilla"].cost is None
    parameters = sum(p.numel() for p in model.canonicalizer.parameters())
    assert {name: row.cost.parameters for name, row in report.rows.items() if row.cost} == {
        "adapted": parameters, "equizero": 0, "tta": 0, "weights": 8 * 16 + 16 + 16 + 1,
    }  # fmt: skip
    assert all(row.cost.milliseconds > 0 and row.cost.runs >= 3 for row in report.rows.values() if row.cost)
    assert report.rows["equizero"].cost.time_ratio > 1
    assert report.rows["equizero"].passes == 5
    assert list(report.choosers) == ["equizero", "weights"]
    assert evaluation.Report.from_dict(report.to_dict()) == report
    text = str(report)
    assert "Cost of each row, a picture" in text
    assert "pose that the model likes best" in text
    assert upright.evaluate(model, data, overhead=False, leakage=False).rows["adapted"].cost is None


def test_a_row_of_ones_own(monkeypatch):
    mirrored = Row("mirrored", lambda r: lambda x: r.model(x.flip(-1)), "flipped first")
    monkeypatch.setitem(ROWS, "mirrored", mirrored)
    x, labels = marked(10)
    report = quick(toy(), (x, labels), rows=["mirrored", Row.fixed("again", OnlyUpright())])
    assert values(report.rows["mirrored"]) == [0, 0, 0, 0]
    assert values(report.rows["again"]) == [1, 0, 0, 0]
    assert report.rows["mirrored"].label == "flipped first"
    assert report.rows["mirrored"].passes == 1
    with pytest.raises(ValueError, match=r"rows must be .*'mirrored'.*, got 'bare'"):
        quick(toy(), (x, labels), rows=["bare"])


def test_rows_of_continuous_groups():
    class Upright(upright.Canonicalizer):
        def forward(self, x):
            return upright.Pose(self.group.identity(len(x)))

    model = upright.adapt(Sees(), SO2(), canonicalizer=Upright(SO2()))
    report = quick(model, (photos(2), torch.zeros(2).long()), rows=["average", "tta", "adapted"],
                   poses=SO2().element(degrees=torch.tensor([0.0, 90.0])))  # fmt: skip
    assert [row.passes for row in report.rows.values()] == [24, 8, 1]
    assert report.rows["average"].largest_difference < 1e-3  # 90° is among the 24 angles


def test_poses_of_affine_maps_are_compared_with_turns():
    turns = upright.Cyclic(4).elements()
    maps = torch.cat([turns.matrix(), torch.zeros(4, 2, 1)], -1).expand(3, 4, 2, 3)
    assert errors(upright.Affine().element(maps), turns).max() < 1e-9
    assert errors(upright.Affine().identity(3, 4), turns)[:, 1:].min() > 1
    assert disagreements(upright.Affine().identity(3, 4), turns)[:, 1:].min() > 1


def test_modules_of_rows_run_in_evaluation_mode_and_return_to_theirs():
    drop = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(192, 3))
    report = quick(robust(), photos(), rows=["adapted", Row.fixed("drop", drop)])
    assert report.rows["drop"].poses[0] is not None
    assert drop.training
    drop.eval()
    again = quick(robust(), photos(), rows=["adapted", Row.fixed("drop", drop)])
    assert again.rows == report.rows


# --- trained


QUICK = Fitting(epochs=12, batch_size=16, learning_rate=1e-2)


def striped(count=48, side=12):
    """Bright above; class 1 has a dark stripe in its right half."""
    x = 0.1 * torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(2))
    x[:, :, : side // 3] += 0.8
    labels = torch.arange(count) % 2
    x[labels == 1, :, side // 2 :, 2 * side // 3 :] += 0.5
    return x, labels


def test_the_classifier_learns_poses_and_its_equivariance_error_shows():
    x, labels = striped()
    chooser = fit_classifier("C4", x, size=12, fitting=QUICK)
    assert not chooser.training
    model = upright.adapt(Sees(12, 2), "C4", canonicalizer=ReadsTop())
    plain = Row("plain", lambda r: r.replace(canonicalizer=chooser), "rotation classifier")
    report = quick(model, (x, labels), rows=["adapted", plain])
    found = report.choosers["plain"]
    assert found.pose_accuracy.value > 0.9
    assert [pose.accuracy.value > 0.8 for pose in found.poses] == [True] * 4
    noise = quick(model, photos(40, 12), rows=["adapted", plain]).choosers["plain"]
    assert noise.equivariance < 0.9  # nothing in it turns with the picture
    again = fit_classifier("C4", x, size=12, fitting=QUICK)
    assert all(torch.equal(a, b) for a, b in zip(chooser.parameters(), again.parameters(), strict=True))


class ReadsTop(upright.Canonicalizer):
    """Turns the brightest side up."""

    def __init__(self):
        super().__init__("C4")

    def forward(self, x):
        sides = [x[:, :, :4], x[..., :4], x[:, :, -4:], x[..., -4:]]
        scores = torch.stack([side.mean((1, 2, 3)) for side in sides], 1) * 50
        return upright.Pose(self.group.element(scores.argmax(1)), scores.log_softmax(-1))


def test_the_localizer_begins_with_the_identity_and_learns():
    x, labels = striped()
    start = Localizer(size=12)
    assert start(x).element.is_identity().all()
    assert len(start(x[:0]).element) == 0
    before = Sees(12, 2)
    kept = copy.deepcopy(before.state_dict())
    joint = Fitting(epochs=25, batch_size=16, learning_rate=5e-3)
    made = fit_transformer(before, (x, labels), size=12, fitting=joint)
    assert all(torch.equal(kept[name], value) for name, value in before.state_dict().items())
    assert not torch.equal(made.model.weight, before.weight)
    assert not made.canonicalizer(x).element.is_identity().all()
    accuracy = (made(x).argmax(1) == labels).float().mean()
    assert accuracy > 0.8
    row = Row.fixed("transformer", made, "spatial transformer")
    adapted = upright.adapt(before, "C4", canonicalizer=ReadsTop())
    report = quick(adapted, (x, labels), rows=["vanilla", "adapted", row])
    assert report.rows["transformer"].passes == 1
    assert report.choosers["transformer"].equivariance < 0.9
    frozen = fit_transformer(before, (x, labels), size=12, train_model=False, group="SO2", augment=None,
                             fitting=Fitting(epochs=1, batch_size=48))  # fmt: skip
    assert torch.equal(frozen.model.weight, before.weight)
    assert frozen.group == SO2()


def test_the_localizer_samples_as_the_published_one():
    x = photos(2, 9)
    theta = torch.tensor([[1.1, 0.2, 0.1], [-0.15, 0.9, -0.2]]).expand(2, 2, 3)
    grid = nn.functional.affine_grid(theta, list(x.shape), align_corners=False)
    published = nn.functional.grid_sample(x, grid, padding_mode="border", align_corners=False)
    back = upright.parse_group("affine").element(theta.double()).inverse()
    assert torch.allclose(act(back, upright.Image(x)).data, published, atol=1e-5)


def test_weights_by_hand_and_learnt():
    model, x = robust(), photos()
    made = WeightedAverage(model, lambda scores: scores[..., 0])
    p = probabilities(model.model, x, model.group)
    scores = torch.stack([model.model(turned(x, g.inverse())) for g in model.group.elements()], 1)
    weights = scores[..., 0].softmax(1).unsqueeze(-1)
    run = made.run(x)
    assert torch.allclose(run.output.exp(), (weights * p).sum(1), atol=1e-5)
    assert torch.allclose(run.pose.probs, weights[..., 0], atol=1e-5)
    assert run.passes.tolist() == [4] * 4
    for g in model.group.elements():
        assert torch.allclose(made(turned(x, g)), run.output, atol=1e-4)


def test_learnt_weights_find_the_pose_at_which_the_model_is_right():
    class Unsure(OnlyUpright):
        """Less sure of what it says where it is wrong."""

        def forward(self, x):
            number = (x[:, 0, 4, 4] * 20).round().long()
            good = (x[:, 0, 0, 0] > 0.9) & ((x[:, 0, 0, 1] - 0.75).abs() < 0.1)
            scores = nn.functional.one_hot(torch.where(good, number, number + 1) % CLASSES, CLASSES)
            return scores * torch.where(good, 5.0, 3.0).unsqueeze(1)

    model = upright.adapt(Unsure(), "C4", canonicalizer=ReadsMark("C4"))
    made = fit_weights(model, marked(20), fitting=Fitting(epochs=60, learning_rate=1e-1))
    learnt = Row.fixed("learnt", made, "average by learnt weights")
    report = quick(model, marked(20), rows=["average", "adapted", learnt])
    assert values(report.rows["average"])[0] == 0
    assert values(report.rows["learnt"]) == [1.0] * 4
    assert report.rows["learnt"].changed == 0
    assert report.rows["learnt"].passes == 4


def test_mistakes():
    with pytest.raises(ValueError, match="is trained with labels, and the data has none"):
        fit_weights(robust(), photos())
    with pytest.raises(TypeError, match="group must be finite"):
        fit_classifier("SO2", photos())
    with pytest.raises(TypeError, match="model must be a torch module to be trained"):
        fit_transformer(lambda x: x, (photos(), torch.zeros(4).long()))
    with pytest.raises(TypeError, match="group must be a Lie group such as"):
        Localizer("C4")
    with pytest.raises(ValueError, match="epochs must be positive, got 0"):
        Fitting(epochs=0)
    with pytest.raises(ValueError, match="must have one shape"):
        fit_weights(robust(), ([photos(1)[0], photos(1, 9)[0]], torch.zeros(2).long()))
