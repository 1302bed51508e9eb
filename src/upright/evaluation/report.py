"""The report: frozen dataclasses of plain numbers, that print as tables and are saved as JSON."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._files import write_file
from .confusion import Confusion
from .leakage import Leakage
from .metrics import Bin, Estimate
from .overhead import Overhead, RowCost

if TYPE_CHECKING:
    from .samples import Sample

SCHEMA_VERSION = 4


@dataclass(frozen=True)
class PoseAccuracy:
    """Accuracy at one pose, or whatever else the task's metric is.

    Attributes:
        element: Number of the element in its group; of elements of a continuous group, their place.
        degrees: Angle by which pictures were turned, counter-clockwise; None where the group has no angle.
        reflected: Whether they were flipped left-right first.
        accuracy: The metric with its interval.
        value: The number that tells the poses apart: degrees, a factor; None where there is none.
        name: What the pose is called; None: by its angle, or its number.
    """

    element: int
    degrees: float | None
    reflected: bool
    accuracy: Estimate
    value: float | None = None
    name: str | None = None

    @property
    def label(self) -> str:
        """The pose in a few characters, such as ``90°``, ``flip 90°`` or ``×1.25``."""
        if self.name is not None:
            return self.name
        name = f"#{self.element}" if self.degrees is None else f"{self.degrees:g}°"
        return f"flip {name}" if self.reflected else name


@dataclass(frozen=True)
class MetricScores:
    """One metric of one row.

    Attributes:
        upright: The metric on pictures as they are.
        orbit_mean: Its mean over all poses, upright among them; the interval knows that poses of one picture
            are not independent.
        turned_mean: Its mean over all poses but upright; None if there are no others.
        worst: The pose at which it is worst.
        poses: Every pose, upright first.
        is_share: Whether it lies in 0…1 and is shown in per cent.
        worst_case: The metric at its worst pose; its interval is that of resamples of the pictures, each with
            its own worst pose.
    """

    upright: Estimate
    orbit_mean: Estimate
    turned_mean: Estimate | None
    worst: PoseAccuracy
    poses: tuple[PoseAccuracy, ...]
    is_share: bool
    worst_case: Estimate | None = None


@dataclass(frozen=True)
class RowMetrics:
    """How one way to run the model did, by the task's first metric.

    Attributes:
        upright: Accuracy, or whatever the metric is, on pictures as they are.
        orbit_mean: Its mean over all poses, upright among them; the interval knows that poses of one picture
            are not independent.
        turned_mean: Its mean over all poses but upright; None if there are no others.
        worst: The pose at which it is worst.
        poses: Every pose, upright first.
        changed: Equivariance error: share of (picture, pose) whose prediction differs from that at upright,
            moved with the picture.
        largest_difference: Largest absolute difference of any score from that at upright.
        mean_difference: Mean absolute difference of the scores from those at upright; of labels, the share
            that differs.
        passes: Passes of the predictor a picture, those that find the pose among them.
        invalid: Number of (picture, pose) whose scores were not numbers; they count as wrong and as changed.
        further: The task's other metrics, by name.
        worst_case: The metric at its worst pose; its interval is that of resamples of the pictures, each with
            its own worst pose.
        cost: What it costs against the bare model; None if it was not measured.
        label: What the row is called in tables; empty: by its key.
    """

    upright: Estimate
    orbit_mean: Estimate
    turned_mean: Estimate | None
    worst: PoseAccuracy
    poses: tuple[PoseAccuracy, ...]
    changed: float
    largest_difference: float
    mean_difference: float
    passes: float
    invalid: int
    further: dict[str, MetricScores] = field(default_factory=dict)
    worst_case: Estimate | None = None
    cost: RowCost | None = None
    label: str = field(default="", compare=False)


@dataclass(frozen=True)
class CanonicalizerMetrics:
    """How well poses were chosen. A tie is never counted as right, nor as the identity.

    Of a finite group, the right pose is the true one, or the nearest to it where poses in between are
    evaluated. Of a continuous group, poses within ``tolerance`` are right.

    Attributes:
        identity_rate: Share of upright pictures that were left alone.
        pose_accuracy: Share of turned pictures whose true pose was chosen; None if nothing was turned.
        poses: Share of right choices at every pose, upright first.
        equivariance: Share of turned pictures with ``c(gx) = g c(x)``; None if nothing was turned.
        equivariance_at: The same at every pose; 1 at the first, upright.
        tied_upright: Share of upright pictures whose two likeliest poses were equally likely.
        tied: The same over all pictures and poses.
        confidence: Mean probability of the chosen pose.
        calibration_error: Expected calibration error of that probability over all pictures and poses.
        bins: The reliability diagram.
        tolerance: How far a right pose may lie from the true one, in radians or the group's own unit.
        pose_error: Median distance of chosen poses from the true ones, of turned pictures, in that unit.
        equivariance_error: Median distance of ``c(gx)`` from ``g c(x)``, in that unit.
        confusion: Which pose was taken for which; None where that makes no table.
    """

    identity_rate: Estimate
    pose_accuracy: Estimate | None
    poses: tuple[PoseAccuracy, ...]
    equivariance: float | None
    equivariance_at: tuple[float, ...]
    tied_upright: float
    tied: float
    confidence: float
    calibration_error: float
    bins: tuple[Bin, ...]
    tolerance: float = 0.0
    pose_error: float | None = None
    equivariance_error: float | None = None
    confusion: Confusion | None = None


@dataclass(frozen=True)
class Setting:
    """What was evaluated, on what, and how: all that a figure needs beside it.

    Attributes:
        model: Class of the predictor.
        group: Name of the group.
        mode: Mode of the adapter, with its settings.
        pictures: Number of pictures.
        size: ``"224×224"``; ``"mixed"`` where pictures differ.
        reference: ``"labels"``, or ``"bare model upright"``: without labels, accuracies are the agreement
            with the bare model's predictions on the upright pictures.
        classes: Number of classes that were scored over; None where there are none.
        border: What lies outside the canvas of a turned picture.
        interpolation: How pixels between the grid were found; quarter turns and flips need none.
        confidence: Coverage of all intervals.
        skipped: Pictures that could not be read.
        device: Where the model ran.
        dtype: Number format of the pictures.
        threads: CPU threads of PyTorch.
        machine: Processor and system.
        torch: Version of PyTorch.
        seconds: Time of the whole evaluation.
        created: Date and time, UTC, ISO 8601.
        task: What was to be found.
        metric: What was measured.
        is_share: Whether the metric lies in 0…1 and is shown in per cent.
        lower_is_better: Whether the metric is an error.
        poses: Group of the evaluated poses; empty: the group.
        library: Version of upright.
        command: Command that evaluated; empty where it was called from Python.
    """

    model: str
    group: str
    mode: str
    pictures: int
    size: str
    reference: str
    classes: int | None
    border: str
    interpolation: str
    confidence: float
    skipped: int
    device: str
    dtype: str
    threads: int
    machine: str
    torch: str
    seconds: float
    created: str
    task: str = "classification"
    metric: str = "accuracy"
    is_share: bool = True
    lower_is_better: bool = False
    poses: str = ""
    library: str = ""
    command: str = ""

    @property
    def has_labels(self) -> bool:
        """Whether accuracies are against labels."""
        return self.reference == "labels"


@dataclass(frozen=True)
class Report:
    """What `upright.evaluate` found. ``print(report)`` shows it, `save` writes it, `load` reads it.

    Attributes:
        setting: What was evaluated and how.
        rows: One entry a row, in the order in which they were named.
        gap_closed: (adapted − vanilla) / (oracle − vanilla) of the orbit means; None where a row is missing
            or the gap is within the noise.
        canonicalizer: How well poses were chosen.
        overhead: Cost against the bare model; None if it was not measured.
        leakage: The leakage check, by degradation; empty if it was not made.
        choosers: How well other rows chose poses, by row, where they choose any.
    """

    setting: Setting
    rows: dict[str, RowMetrics]
    gap_closed: float | None
    canonicalizer: CanonicalizerMetrics
    overhead: Overhead | None = None
    leakage: dict[str, Leakage] = field(default_factory=dict)
    choosers: dict[str, CanonicalizerMetrics] = field(default_factory=dict)

    def table(self) -> Any:
        """Return the report as a `rich` renderable: a group of tables."""
        from .tables import report_tables

        return report_tables(self)

    def __str__(self) -> str:
        from .tables import as_text

        return as_text(self.table())

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data, with the versions of its layout and of the library."""
        from .._version import __version__

        head = {"schema_version": SCHEMA_VERSION, "library_version": __version__}
        return {**head, **dataclasses.asdict(self)}

    def to_json(self) -> str:
        """Return the report as JSON text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False, ensure_ascii=False) + "\n"

    def save(self, path: str | Path) -> Path:
        """Write the report as JSON, in one step: the file is never half-written.

        Args:
            path: The file; missing folders are made.

        Returns:
            The path.
        """
        text = self.to_json()
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        return write_file(path, text)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Report:
        """Read a report from plain data.

        Raises:
            ValueError: If the layout is of another version, or the data is not a report.
        """
        version = data.get("schema_version") if isinstance(data, Mapping) else None
        if version not in range(1, SCHEMA_VERSION + 1):  # what older ones lack has defaults
            raise ValueError(
                f"a report must have schema_version {SCHEMA_VERSION}, got {version!r}; it was written by "
                "another version of upright or is no report: evaluate again, or install that version"
            )
        body = {k: v for k, v in data.items() if k not in ("schema_version", "library_version")}
        report = _read(cls, body, "report")
        assert isinstance(report, Report)
        return report

    @classmethod
    def load(cls, path: str | Path) -> Report:
        """Read a report that `save` wrote.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is no report, or of another version.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"{path} must be a report written by Report.save, got no valid JSON: {error}"
            ) from error
        return cls.from_dict(data)

    def to_html(self, path: str | Path, samples: Sequence[Sample] = ()) -> Path:
        """Write the report as one page that needs nothing else; see `upright.evaluation.write_page`."""
        from .html import write_page

        return write_page(self, path, samples)

    def plot_angles(self, path: str | Path) -> Path:
        """Draw accuracy over angle as a polar plot; see `upright.evaluation.plot_angles`."""
        from .figures import plot_angles

        return plot_angles(self, path)

    def plot_curve(self, path: str | Path) -> Path:
        """Draw the metric over the number that tells the poses apart; see `upright.evaluation.plot_curve`."""
        from .curve import plot_curve

        return plot_curve(self, path)

    def plot_reliability(self, path: str | Path) -> Path:
        """Draw the reliability diagram of the poses; see `upright.evaluation.plot_reliability`."""
        from .figures import plot_reliability

        return plot_reliability(self, path)


def _read(kind: Any, data: Any, where: str) -> Any:
    """Build a value of an annotated type from plain data; the inverse of ``dataclasses.asdict``."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        rest = [a for a in arguments if a is not type(None)]
        return None if data is None else _read(rest[0], data, where)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        _check_type(data, Mapping, where)
        hints = typing.get_type_hints(kind)
        fields = dataclasses.fields(kind)
        names = {f.name for f in fields}
        missing = {
            f.name for f in fields
            if f.default is f.default_factory is dataclasses.MISSING and f.name not in data
        }  # fmt: skip
        if missing or not set(data) <= names:
            raise ValueError(
                f"{where} must have the entries {sorted(names)}; missing: {sorted(missing)}, "
                f"unknown: {sorted(set(data) - names)}"
            )
        return kind(**{name: _read(hints[name], entry, f"{where}.{name}") for name, entry in data.items()})
    if origin is tuple:
        _check_type(data, (list, tuple), where)
        return tuple(_read(arguments[0], entry, f"{where}[{i}]") for i, entry in enumerate(data))
    if origin is dict:
        _check_type(data, Mapping, where)
        return {key: _read(arguments[1], entry, f"{where}.{key}") for key, entry in data.items()}
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    _check_type(data, kind, where)
    return data


def _check_type(data: Any, kind: Any, where: str) -> None:
    if not isinstance(data, kind):
        expected = getattr(kind, "__name__", "list")
        raise ValueError(
            f"{where} must be of type {expected}, got {type(data).__name__}; the report is damaged"
        )
