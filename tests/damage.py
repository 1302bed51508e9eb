"""Damaged files: bytes changed as disks, networks and enemies do, and values that no reader expects."""

import copy
import json

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

ODD_BYTES = [
    b"-1",
    b"999999999",
    b"NaN",
    b"null",
    b"[]",
    b"{}",
    b'"x"',
    b"1e999",
    b"\xff" * 4,
    b"\0" * 4,
    b"\n",
]
ODD_VALUES = [
    None, True, -1, 0, 2**63, 10**30, 0.5, -0.0, float("nan"), float("inf"), "", "x", "../x", "\0", "é" * 50,
    [], {}, [[]], [None], {"a": {}}, [float("nan")] * 4, [2**40] * 2, [-5], list(range(40)),
]  # fmt: skip


def bounded(examples):
    """Settings of a test that finishes fast and is the same on every machine."""
    skipped = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=skipped
    )


def _changes(length):
    place = st.integers(0, max(0, length - 1))
    return st.lists(
        st.one_of(
            st.tuples(st.just("flip"), place, st.integers(0, 7)),
            st.tuples(st.just("cut"), place, st.just(None)),
            st.tuples(st.just("drop"), place, st.integers(1, 20)),
            st.tuples(st.just("insert"), place, st.binary(min_size=1, max_size=8)),
            st.tuples(st.just("write"), place, st.sampled_from(ODD_BYTES)),
            st.tuples(st.just("swap"), place, place),
        ),
        min_size=1,
        max_size=6,
    )


@st.composite
def damaged(draw, *originals):
    """Draw one of the files, changed in a few places."""
    data = bytearray(draw(st.sampled_from(originals)))
    for kind, at, what in draw(_changes(len(data))):
        at = min(at, len(data))
        if kind == "flip" and at < len(data):
            data[at] ^= 1 << what
        elif kind == "cut":
            del data[at:]
        elif kind == "drop":
            del data[at : at + what]
        elif kind == "insert":
            data[at:at] = what
        elif kind == "write":
            data[at : at + len(what)] = what
        elif kind == "swap":
            other = min(what, len(data))
            data[at : at + 4], data[other : other + 4] = data[other : other + 4], data[at : at + 4]
    return bytes(data)


def places(tree, path=()):
    """Return where the values of nested data are."""
    found = [path] if path else []
    entries = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, entry in entries:
        found += places(entry, (*path, key))
    return found


@st.composite
def odd_json(draw, tree):
    """Draw nested data, one or two of whose values are others, or gone."""
    made = json.loads(json.dumps(tree))
    for _ in range(draw(st.integers(1, 2))):
        *path, last = draw(st.sampled_from(places(made)))
        holder = made
        for key in path:
            holder = holder[key]
        if draw(st.booleans()) and draw(st.booleans()):
            del holder[last]
        else:
            holder[last] = copy.deepcopy(draw(st.sampled_from(ODD_VALUES)))
        if not places(made):
            break
    return made


def attempt(call, *kinds, says=("",)):
    """Return what a reader makes of a file, or None where it refuses in a line that says one of the words."""
    try:
        return call()
    except kinds as error:
        text = str(error)
    assert text
    assert "\n" not in text
    assert any(word in text for word in says), text
    return None
