"""Wrong ways to evaluate, each of which a test must catch: name → what it replaces, and by what."""

import dataclasses

import torch

from upright.actions import act
from upright.evaluation import measures, orbit, poses, running
from upright.evaluation.metrics import Estimate
from upright.kinds import Image


def worst_is_the_mean(self, confidence, *, lower_is_better=False):
    """The mean over the poses for the worst of them."""
    return self.mean(confidence)


def worst_over_all_resamples(self, confidence, *, lower_is_better=False):
    """The best pose for the worst."""
    return Estimate(float(self.values.max()), 0.0, 1.0)


def turned_twice(self, g, pictures):
    """The transformation is applied twice."""
    g = g.reshape(1).expand(len(pictures))
    return act(g, act(g, Image(pictures))).data


def turned_back(self, g, pictures):
    """The transformation goes the wrong way."""
    return act(g.inverse().reshape(1).expand(len(pictures)), Image(pictures)).data


_run_row = running.run_row


def poses_are_free(robust, model, given):
    """Passes that find the pose are not counted."""
    made = _run_row(robust, model, given)
    calls = None if made.pose is None or made.pose.calls is None else made.pose.calls.cpu()
    return made if calls is None else dataclasses.replace(made, passes=made.passes - calls)


def one_pass_each(robust, model, given):
    """Every row is said to cost one pass."""
    made = _run_row(robust, model, given)
    return dataclasses.replace(made, passes=torch.ones_like(made.passes))


def any_pose_is_near(distance, allowed):
    """Every chosen pose counts as right."""
    return torch.ones_like(distance, dtype=torch.bool)


def only_equal_poses(chosen, other):
    """Between the elements of a finite group no pose is right."""
    return 0.0


CURVES = {
    "worst is the mean": (measures.Measured, "worst", worst_is_the_mean),
    "worst is the best": (measures.Measured, "worst", worst_over_all_resamples),
    "turned twice": (orbit.Orbit, "turn", turned_twice),
    "turned back": (orbit.Orbit, "turn", turned_back),
    "any pose is right": (poses, "near", any_pose_is_near),
    "only equal poses are right": (poses, "tolerance", only_equal_poses),
}

PASSES = {
    "poses are free": (running, "run_row", poses_are_free),
    "one pass each": (running, "run_row", one_pass_each),
}
