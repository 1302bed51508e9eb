"""A gate leaves inputs alone bit for bit, in every mode and for every kind, before the model runs."""

import json
import math

import pytest
import torch

import upright
from adapter_toys import Classifier, Dense, Known, Localizer, small
from cli_work import lines, work_folder  # noqa: F401
from upright import SO2, Adapted, CategoricalPrior, Cyclic, Gate, Image, Pose, VonMisesPrior, act
from upright.canonicalizers import Canonicalizer
from upright.cli import main
from upright.confidence import Gated

PROBS = torch.tensor(
    [[0.05, 0.9, 0.03, 0.02], [0.3, 0.4, 0.2, 0.1], [0.1, 0.25, 0.4, 0.25], [0.8, 0.1, 0.05, 0.05]]
)
POSES = [1, 1, 2, 0]
MODES = [
    {"mode": "canonical"},
    {"mode": "top_k", "top_k": 3},
    {"mode": "top_k", "cover": 0.95, "evidence": 1.0},
    {"mode": "weighted"},
    {"mode": "average"},
]


class Watched(torch.nn.Module):
    """Remembers every picture that it is shown."""

    def __init__(self, model):
        super().__init__()
        self.model, self.seen = model, []

    def forward(self, x):
        self.seen += list(x)
        return self.model(x)

    def shown(self, picture):
        return sum(x.shape == picture.shape and torch.equal(x, picture) for x in self.seen)


def known():
    return Known("C4", POSES, PROBS.log())


def check_left_alone(adapted, x, gated):
    """The bare model's bits, one look at the picture as it came, and no other change."""
    model = Watched(adapted.model)
    watched = adapted.replace(model=model)
    with torch.no_grad():
        run, free = watched.run(x), adapted.replace(gate=None).run(x)
        square = x.shape[-2] == x.shape[-1]  # other pictures meet the model in buckets of one shape
        together = square or adapted.mode == "average"
        bare = adapted.model(x) if together else torch.cat([adapted.model(x[:1]), adapted.model(x[1:])])
    assert run.gated.tolist() == gated
    for i, alone in enumerate(gated):
        if alone or square:
            assert torch.equal(run.output[i], (bare if alone else free.output)[i])
        else:
            assert torch.allclose(run.output[i], free.output[i], atol=1e-5)
        if alone:
            assert int(run.passes[i]) == 1
            assert int(run.pose.element.value[i]) == 0
            turns = [torch.rot90(x[i], -k, (1, 2)) for k in range(4)]
            assert [model.shown(turn) for turn in turns] == [1, 0, 0, 0]
        else:
            assert run.passes[i] == free.passes[i]
            assert run.pose.element.value[i] == free.pose.element.value[i]


@pytest.mark.parametrize("size", [(12, 12), (10, 16)], ids=str)
@pytest.mark.parametrize("settings", MODES, ids=str)
def test_doubtful_class_scores_are_left_alone(settings, size):
    adapted = Adapted(Classifier().eval(), known(), gate=Gate(threshold=0.5), **settings)
    check_left_alone(adapted, torch.rand(4, 3, *size), [False, True, True, False])


@pytest.mark.parametrize("settings", [MODES[0], MODES[1], MODES[3], MODES[4]], ids=str)
@pytest.mark.parametrize("kind", ["mask", "image", "vector_field"])
def test_doubtful_maps_are_left_alone(kind, settings):
    adapted = Adapted(Dense().eval(), known(), gate=Gate(threshold=0.5), outputs=kind, **settings)
    check_left_alone(adapted, torch.rand(4, 3, 12, 12), [False, True, True, False])


@pytest.mark.parametrize(("kind", "columns"), [("boxes", 4), ("points", 2)])
def test_doubtful_places_are_left_alone(kind, columns):
    adapted = Adapted(Localizer(columns).eval(), known(), gate=Gate(threshold=0.5), outputs=kind)
    check_left_alone(adapted, torch.rand(4, 3, 12, 12), [False, True, True, False])


class InvertedGate(Gate):
    """Leaves alone what is clear."""

    def decide(self, pose, prior=None):
        wrong = ~super().decide(pose, prior).gated
        return Gated(pose.left_alone(wrong), wrong, ~wrong)


class GateThatOnlyTells(Gate):
    """Says what it would leave alone, and lets it be turned."""

    def decide(self, pose, prior=None):
        return Gated(
            pose, super().decide(pose, prior).gated, torch.zeros(len(pose.element), dtype=torch.bool)
        )


class GateAfterTheModel(Adapted):
    """Runs the model at the pose, then puts the bare model's output in the place of it."""

    def run(self, x):
        run = Adapted.run(self.replace(gate=None), x)
        if self.gate is None:
            return run
        marks = self.gate.decide(run.pose)
        kept = torch.where(marks.gated.unsqueeze(1), self.model(x), run.output)
        passes = torch.where(marks.gated, 1, run.passes)
        return upright.adapter.Run(kept, marks.pose, passes, marks.gated, marks.flagged)

    def replace(self, **changes):
        made = Adapted.replace(self, **changes)
        return made if changes.get("gate", self.gate) is None else GateAfterTheModel(**vars_of(made))


def vars_of(adapted):
    names = ("model", "canonicalizer", "mode", "top_k", "cover", "cut", "evidence", "gate")
    return {name: getattr(adapted, name) for name in names}


@pytest.mark.parametrize("mutant", ["inverted", "only tells", "after the model"])
@pytest.mark.parametrize("settings", [MODES[0], MODES[1]], ids=str)
def test_broken_gates_are_caught(mutant, settings):
    gate = {"inverted": InvertedGate, "only tells": GateThatOnlyTells}.get(mutant, Gate)(threshold=0.5)
    kind = GateAfterTheModel if mutant == "after the model" else Adapted
    adapted = kind(Classifier().eval(), known(), gate=gate, **settings)
    with pytest.raises(AssertionError):
        check_left_alone(adapted, torch.rand(4, 3, 12, 12), [False, True, True, False])


def test_flagging_changes_nothing_but_the_marks():
    model, x = Classifier().eval(), torch.rand(4, 3, 12, 12)
    free = Adapted(model, known()).run(x)
    run = Adapted(model, known(), gate=Gate(threshold=0.5, below="flag")).run(x)
    assert torch.equal(run.output, free.output)
    assert run.flagged.tolist() == [False, True, True, False]
    assert not run.gated.any()
    assert free.gated is None
    assert free.flagged is None


def test_clearly_upright_saves_passes():
    adapted = Adapted(Classifier().eval(), known(), mode="average", gate=Gate(upright=0.75))
    run = adapted.run(torch.rand(4, 3, 12, 12))
    assert run.gated.tolist() == [False, False, False, True]
    assert run.passes.tolist() == [4, 4, 4, 1]


def test_poses_far_from_the_prior_are_flagged():
    c = Known("C4", POSES, PROBS.log())
    c.deployment_prior = CategoricalPrior([0.9, 0.08, 0.01, 0.01])
    run = Adapted(Classifier().eval(), c, gate=Gate(rare=0.05)).run(torch.rand(4, 3, 12, 12))
    assert run.flagged.tolist() == [False, False, True, False]  # 0.08 / 0.9 is above 0.05
    with pytest.raises(ValueError, match="rare needs a deployment prior"):
        Adapted(Classifier().eval(), known(), gate=Gate(rare=0.05)).run(torch.rand(4, 3, 12, 12))


@torch.no_grad()
@pytest.mark.parametrize("group", ["C4", "D4"])
def test_what_is_not_left_alone_stays_equivariant(group):
    """Confidence is the same in all poses, so that a picture is left alone in all of them or in none."""
    model, c, x = Classifier().eval(), small(group), torch.rand(16, 3, 12, 12)
    threshold = float(c(x).confidence.median())
    adapted = Adapted(model, c, gate=Gate(threshold=threshold))
    first = adapted.run(x)
    assert 0 < int(first.gated.sum()) < 16
    changed = 0
    for g in c.group.elements():
        moved = act(g, Image(x)).data
        run = adapted.run(moved)
        assert torch.equal(run.gated, first.gated)
        assert torch.equal(run.output[~run.gated], first.output[~first.gated])
        assert torch.equal(run.output[run.gated], model(moved)[run.gated])
        changed += int((run.output[run.gated] != first.output[first.gated]).any(1).sum())
    assert changed  # what is left alone is not equivariant


class Peaks(Canonicalizer):
    """Angles with probabilities, chosen by the test; the likeliest first."""

    def __init__(self, degrees, probs, prior=None):
        super().__init__("SO2")
        self.listed, self.probs, self.deployment_prior = SO2().element(degrees=degrees), probs, prior

    def forward(self, x):
        return Pose(self.listed[:, 0], self.probs.log(), candidates=self.listed)


def test_small_angles_are_left_alone():
    degrees = torch.tensor([[2.0, 180.0], [40.0, 357.0], [0.0, 90.0]])
    probs = torch.tensor([[0.8, 0.2], [0.9, 0.1], [0.6, 0.4]])
    c, model, x = Peaks(degrees, probs), Classifier().eval(), torch.rand(3, 3, 12, 12)
    gate = Gate(upright=0.7, within=math.radians(5))
    run = Adapted(model, c, gate=gate).run(x)
    assert run.gated.tolist() == [True, False, False]
    assert torch.equal(run.output[0], model(x)[0])
    assert run.pose.element.is_identity().tolist() == [True, False, True]
    run = Adapted(model, c, gate=Gate(threshold=0.85), mode="top_k").run(x)
    assert run.gated.tolist() == [True, False, True]
    assert run.passes.tolist() == [1, 2, 1]
    assert torch.equal(run.output[[0, 2]], model(x)[[0, 2]])


def test_rare_angles_are_flagged():
    degrees, probs = torch.tensor([[3.0], [80.0]]), torch.ones(2, 1)
    c = Peaks(degrees, probs, VonMisesPrior(0.0, 20.0))
    run = Adapted(Classifier().eval(), c, gate=Gate(rare=0.01)).run(torch.rand(2, 3, 12, 12))
    assert run.flagged.tolist() == [False, True]


def test_left_alone_keeps_the_posterior():
    pose = Pose(Cyclic(4).element(torch.tensor(POSES)), PROBS.log())
    alone = pose.left_alone(torch.tensor([True, False, True, False]))
    assert alone.element.value.tolist() == [0, 1, 0, 0]
    assert torch.allclose(alone.confidence, torch.tensor([0.05, 0.4, 0.1, 0.8]))
    assert torch.equal(alone.probs, pose.probs)
    listed = SO2().element(degrees=torch.tensor([[10.0, 0.0, 50.0], [20.0, 30.0, 40.0]]))
    probs = torch.tensor([[0.5, 0.3, 0.2], [0.6, 0.3, 0.1]])
    pose = Pose(listed[:, 0], probs.log(), candidates=listed)
    alone = pose.left_alone(torch.tensor([True, True]))
    assert alone.element.is_identity().all()
    assert torch.allclose(alone.confidence, torch.tensor([0.3, 0.0]))
    assert torch.allclose(alone.probs.sum(-1), torch.ones(2))
    assert sorted(alone.candidates.value[0].tolist())[:2] == [0.0, 0.0]
    kept = pose.left_alone(torch.tensor([False, False]))
    assert torch.equal(kept.element.value, pose.element.value)
    assert torch.equal(kept.confidence, pose.confidence)
    elements, weights = alone.top_k(2)
    assert elements.shape == weights.shape == (2, 2)


def test_everything_that_tells_the_pose_tells_the_same():
    adapted = Adapted(Classifier().eval(), known(), gate=Gate(threshold=0.5))
    x = torch.rand(4, 3, 12, 12)
    straight, pose = adapted.canonicalize(x)
    assert pose.element.value.tolist() == [1, 0, 0, 0]
    assert adapted.pose(x).element.value.tolist() == [1, 0, 0, 0]
    assert torch.equal(straight[1:], x[1:])
    assert torch.equal(straight[0], torch.rot90(x[0], -1, (1, 2)))


def test_features_computed_ahead_are_left_alone_with_their_picture():
    pytest.importorskip("transformers")
    from test_promptable import adapted

    robust = adapted("SamModel", "C4").replace(gate=Gate(threshold=1.0))
    x, points = torch.rand(2, 3, 64, 64), torch.tensor([[[[10.0, 20.0]]], [[[30.0, 40.0]]]])
    with torch.no_grad():
        features = robust.embed(x)
        run = robust.run(image_embeddings=features, input_points=points)
        bare = robust.model(pixel_values=x, input_points=points)
    assert run.gated.tolist() == [True, True]
    assert torch.equal(run.output.pred_masks, bare.pred_masks)
    assert features.select(torch.tensor([1])).gated.tolist() == [True]


def test_gates_rest_while_training():
    c = small("C4").train()
    adapted = Adapted(Classifier(), c, gate=Gate(threshold=1.0))
    run = adapted.run(torch.rand(4, 3, 12, 12))
    assert not run.gated.any()
    run.output.sum().backward()
    c.eval()
    assert adapted.run(torch.rand(4, 3, 12, 12)).gated.all()


def test_empty_batches():
    adapted = Adapted(Classifier().eval(), small("C4"), gate=Gate(threshold=0.5))
    run = adapted.run(torch.rand(0, 3, 12, 12))
    assert run.gated.shape == run.flagged.shape == run.passes.shape == (0,)


def test_gates_are_saved(tmp_path):
    gate = Gate(threshold=0.4, below="flag", upright=0.9, within=0.1, rare=0.02)
    robust = upright.adapt(Classifier(), "C4", canonicalizer=small("C4"), mode="weighted", cut=0.3, gate=gate)
    robust = robust.with_prior(upright.deployment_prior("C4", upright=0.9))
    robust.save_pretrained(tmp_path / "saved")
    again = upright.load(tmp_path / "saved", robust.model)
    assert again.gate == gate
    assert (again.mode, again.cut) == ("weighted", 0.3)
    assert again.canonicalizer.deployment_prior == robust.canonicalizer.deployment_prior
    x = torch.rand(4, 3, 12, 12)
    robust.eval()
    assert torch.equal(again.run(x).flagged, robust.run(x).flagged)


def test_damaged_gates_say_so(tmp_path):
    upright.adapt(Classifier(), "C4", canonicalizer=small("C4")).save_pretrained(tmp_path / "saved")
    file = tmp_path / "saved" / "upright.json"
    for bad in ({"threshold": 3}, {"what": 1}, 0.5):
        data = json.loads(file.read_text())
        data["adapter"]["gate"] = bad
        file.write_text(json.dumps(data))
        with pytest.raises(upright.manifest.LoadError, match="adapter settings that do not fit"):
            upright.load(tmp_path / "saved", Classifier())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "must do something"),
        ({"threshold": 1.5}, "threshold must lie in 0…1, got 1.5"),
        ({"upright": -1}, "upright must lie in 0…1"),
        ({"threshold": 0.5, "below": "drop"}, "below must be one of 'leave', 'flag'"),
        ({"threshold": 0.5, "within": -1}, "within must be a distance"),
    ],
)
def test_gates_of_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        Gate(**settings)


def test_only_gates_are_gates():
    with pytest.raises(TypeError, match="gate must be a Gate, got float"):
        Adapted(Classifier(), known(), gate=0.5)


def test_command_line(work, capsys):
    command = ["predict", "saved", "photos", "--trust-code", "--json", "-"]
    assert main([*command, "--gate", "1.0"]) == 0
    rows = json.loads(lines(capsys)[0])["predictions"]
    assert all(row["gated"] and row["degrees"] == 0 for row in rows)
    assert main([*command, "--flag", "1.0", "--upright-share", "0.25"]) == 0
    rows = json.loads(lines(capsys)[0])["predictions"]
    assert all(row["flagged"] and not row["gated"] for row in rows)
    assert [row["degrees"] for row in rows] == [0, 90, 180, 270]
    assert main([*command, "--upright-share", "1.0"]) == 0
    assert {row["degrees"] for row in json.loads(lines(capsys)[0])["predictions"]} == {0}
    assert main([*command, "--estimate-share"]) == 0
    out, err = lines(capsys)
    assert "of the pictures stand upright" in err[0]
    assert [row["degrees"] for row in json.loads(out)["predictions"]] == [0, 90, 180, 270]
    assert main([*command, "--estimate-share", "--upright-share", "0.5"]) == 2
    assert main([*command, "--gate", "0.5", "--flag", "0.5"]) == 2
