"""What a report says in sentences: the headline, the line below it, and the tiles."""

from __future__ import annotations

from dataclasses import dataclass

from ..report import Report, RowMetrics
from ..tables import number

_EVERY = {
    "scale": "at every scale",
    "hue": "at every hue",
    "brightness": "at every brightness",
    "contrast": "at every contrast",
    "gamma": "at every gamma",
}


@dataclass(frozen=True)
class Tile:
    """A number with what it means.

    Attributes:
        name: What it is.
        value: The number.
        note: What it is compared with, in a few words.
        tone: ``"good"``, ``"bad"`` or empty.
    """

    name: str
    value: str
    note: str = ""
    tone: str = ""


def headline(report: Report) -> str:
    """Return in one sentence what adapting changed."""
    model = report.setting.model
    where = _everywhere(report)
    bare, adapted = report.rows.get("vanilla"), report.rows.get("adapted")
    if adapted is None:
        name, row = next(iter(report.rows.items()))
        return f"{model}, {row.label or name}: {_measured(report, row)} {where}"
    if bare is None:
        return f"{model}, adapted to {report.setting.group}: {_measured(report, adapted)} {where}"
    found, alone = _measured(report, adapted), _value(report, bare)
    verdict = compare(report)
    if verdict == "better":
        return f"Adapted, {model} {_holds(report)} {found} {where}; alone {alone}"
    if verdict == "worse":
        return f"Adapted, {model} does worse {where}: {found}, alone {alone}"
    said = f"adapting {model} changes nothing beyond the noise: {found}, alone {alone}"
    return f"{where[0].upper()}{where[1:]}, {said}"


def compare(report: Report) -> str:
    """Say whether the adapted model's mean is ``"better"``, ``"worse"`` or, within the noise, ``"same"``.

    Both ran on the same pictures: they differ where neither mean lies in the interval of the other.
    """
    bare, adapted = (report.rows[name].orbit_mean for name in ("vanilla", "adapted"))
    lower, higher = sorted((bare, adapted), key=lambda mean: mean.value)
    if not (lower.high < higher.value and lower.value < higher.low):
        return "same"
    return "better" if (higher is adapted) != report.setting.lower_is_better else "worse"


def summary(report: Report) -> list[str]:
    """Return the sentences below the headline."""
    s, rows = report.setting, report.rows
    said = [
        f"Mean over {_count(len(next(iter(rows.values())).poses), 'pose')} of {_count(s.pictures, 'picture')}"
        f", each with its {100 * s.confidence:g}% interval below."
    ]
    if not s.has_labels:
        said.append(
            "There are no labels: what counts as right is the bare model's own answer on the upright picture."
        )
    if report.gap_closed is not None:
        said.append(
            f"Were the true pose known, it would be {_value(report, rows['oracle'])}: "
            f"{value(report.gap_closed)} of that gap is closed."
        )
    elif {"vanilla", "adapted", "oracle"} <= set(rows):
        said.append("There is no gap between the bare model and the true pose beyond the noise.")
    return said


def tiles(report: Report) -> list[Tile]:
    """Return the numbers that matter most."""
    rows, share, chosen = report.rows, report.setting.is_share, report.canonicalizer
    bare, adapted = rows.get("vanilla"), rows.get("adapted")
    made = []
    if report.gap_closed is not None:
        tone = "good" if report.gap_closed > 0 else "bad"
        made.append(Tile("of the gap closed", value(report.gap_closed), "bare model to oracle", tone))
    if adapted is not None:
        worst = value(adapted.worst.accuracy.value, share)
        note = f"at {adapted.worst.label}"
        if bare is not None:
            note += f"; alone {value(bare.worst.accuracy.value, share)} at {bare.worst.label}"
        made.append(Tile("worst pose", worst, note))
        alone = "" if bare is None else f"alone {value(bare.changed)}"
        made.append(Tile("predictions that change with the pose", value(adapted.changed), alone))
    if chosen.pose_accuracy is not None:
        made.append(
            Tile(
                "poses found",
                value(chosen.pose_accuracy.value),
                f"upright left alone: {value(chosen.identity_rate.value)}",
            )
        )
    if report.overhead is not None:
        made.append(
            Tile(
                "time of the bare model",
                times(report.overhead.time_ratio),
                passes(report.overhead.passes),
            )
        )
    if report.leakage:
        moved = [name for name, check in report.leakage.items() if check.moved]
        note = "poses move: " + ", ".join(moved) if moved else "poses stay when pixels are degraded"
        made.append(Tile("leakage check", "flagged" if moved else "passed", note, "bad" if moved else "good"))
    return made


def _everywhere(report: Report) -> str:
    """Return the poses in words, as they end a sentence."""
    from ..curve import transformation_named

    poses = next(iter(report.rows.values())).poses
    if all(pose.degrees is not None for pose in poses):
        flips = any(pose.reflected for pose in poses)
        turns = any(pose.degrees for pose in poses)
        turned = "turned or flipped" if flips and turns else "flipped" if flips else "turned"
        return f"however pictures are {turned}"
    known = transformation_named(report)
    return "at every pose" if known is None else _EVERY.get(known.name, f"over {known.name}")


def _holds(report: Report) -> str:
    return "has" if report.setting.lower_is_better else "holds"


def _measured(report: Report, row: RowMetrics) -> str:
    """Return the mean of a row with the name of what was measured."""
    s, value = report.setting, _value(report, row)
    if not s.has_labels and s.metric == "accuracy":
        return f"{value} agreement with its upright answers"
    if not s.has_labels:
        return f"{s.metric} {value} against its upright answers"
    return f"{value} accuracy" if s.metric == "accuracy" else f"{s.metric} {value}"


def _value(report: Report, row: RowMetrics) -> str:
    return value(row.orbit_mean.value, report.setting.is_share)


def value(x: float, is_share: bool = True) -> str:
    """Return a number as it stands in a sentence: a share with its sign, without needless zeros."""
    text = number(x, is_share)
    return text.removesuffix(".0") + "%" if is_share else text


def times(ratio: float) -> str:
    """Return a ratio of times."""
    return f"×{ratio:.2f}" if ratio < 100 else f"×{ratio:.0f}"


def passes(x: float) -> str:
    """Return a number of passes a picture."""
    return "1 pass a picture" if x == 1 else f"{x:.3g} passes a picture"


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
