"""The front door: ``adapt`` a model, build a ``canonicalizer``."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from torch import nn

from ._checks import check_choice
from .adapter.adapted import Adapted
from .adapter.canvas import Canvas
from .adapter.passes import Mode
from .adapter.spec import KindSpec, OutputSpec
from .canonicalizers import (
    Canonicalizer,
    ContinuousCanonicalizer,
    DiscreteCanonicalizer,
    EnergyCanonicalizer,
    IdentityCanonicalizer,
    MinimalFrame,
    PCAFrame,
    SortedOrder,
    SphericalCanonicalizer,
    VectorNeuronCanonicalizer,
    VolumeCanonicalizer,
    energy_canonicalizer,
)
from .confidence.gate import Gate
from .groups.base import FiniteGroup, Group
from .groups.octahedral import CubeGroup
from .groups.parse import parse_group
from .groups.permutations import Permutations
from .groups.planar import PlanarGroup
from .groups.product import factors_of, moves_plane_only
from .groups.projective import Scale
from .groups.rotations import O2, SO2
from .groups.space import ContinuousSpatialGroup
from .kinds import Interpolation
from .nets import (
    Glance,
    GroupCNN,
    LiteBackbone,
    LogPolarDensity,
    MirrorTied,
    OrbitComparer,
    OrbitScorer,
    PolarDensity,
    PolarNet,
    ResidualBackbone,
    SteerableNet,
    VolumeBackbone,
)

N = TypeVar("N", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class CanonicalizerConfig:
    """How a canonicalizer is built: all that `canonicalizer` needs to build it again.

    Attributes:
        group: Name of the group.
        network: A name in `NETWORKS`, for continuous groups in `CONTINUOUS_NETWORKS`; ``"identity"``;
            ``"energy"``, with options of `energy_canonicalizer`; or ``"module:callable"`` for a network of
            one's own, which is called as ``callable(group, channels=…, **options)``.
        size: Side of the thumbnail; None hands the picture over as it is.
        channels: Channels of the thumbnail.
        standardize: Whether thumbnails are standardised.
        estimator: Gradient estimator while training; continuous groups need none.
        options: Arguments of the network.
        peaks: For continuous groups, further arguments of `ContinuousCanonicalizer`: ``candidates``,
            ``window_degrees`` and ``window_factor``.
    """

    group: str
    network: str = "orbit"
    size: int | None = 64
    channels: int = 3
    standardize: bool = True
    estimator: str = "straight_through"
    options: dict[str, Any] = field(default_factory=dict)
    peaks: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CanonicalizerConfig:
        """Read a configuration; unknown keys raise."""
        known = set(cls.__dataclass_fields__)
        unknown = sorted(set(data) - known)
        if unknown:
            raise ValueError(f"unknown configuration keys {unknown}; known keys: {sorted(known)}")
        return cls(**data)


def _orbit(
    group: FiniteGroup,
    *,
    channels: int = 3,
    offset_degrees: float = 0.0,
    blur: float = 0.0,
    interpolation: Interpolation = "bilinear",
    mirror: bool = False,
    twice: bool = False,
    vector: int | None = None,
    **options: Any,
) -> nn.Module:
    return OrbitScorer(
        ResidualBackbone(channels=channels, outputs=vector or 1, **options), group, vector=vector,
        offset_degrees=offset_degrees, blur=blur, interpolation=interpolation, mirror=mirror, twice=twice,
    )  # fmt: skip


def _lite(
    group: FiniteGroup, *, channels: int = 3, handed: bool = True, rays: int | None = None, **options: Any
) -> nn.Module:
    if rays is not None:
        return _lite_angles(group, channels=channels, rays=rays, **options)
    backbone = LiteBackbone(channels=channels, **options)
    if handed:
        return OrbitComparer(backbone, group, outputs=backbone.settings["outputs"])
    return MirrorTied(OrbitComparer(backbone, "C4", outputs=backbone.settings["outputs"]), group)


def _lite_angles(
    group: Group, *, channels: int = 3, rays: int = 64, looks: int = 4, window_degrees: float = 8.0,
    **options: Any,
) -> nn.Module:  # fmt: skip
    backbone = LiteBackbone(channels=channels, **options)
    network = nn.Sequential(backbone, nn.Linear(backbone.settings["outputs"], rays))
    return Glance(network, group, rays=rays, looks=looks, window_degrees=window_degrees)


def _document(group: FiniteGroup, **options: Any) -> nn.Module:
    from .integrations.documents import document_network

    return document_network(group, **options)


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "orbit": _orbit,
    "lite": _lite,
    "group_cnn": GroupCNN,
    "polar": PolarNet,
    "document": _document,
}
"""Networks by name; add one by adding an entry ``name: factory(group, *, channels, **options)``."""

CONTINUOUS_NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "polar": PolarDensity,
    "steerable": SteerableNet,
    "log_polar": LogPolarDensity,
    "lite": _lite_angles,
}
"""Networks of continuous groups by name, likewise: the first two of SO2 and O2, the third with scales, the
last of SO2."""

CLOUD_CANONICALIZERS: dict[str, Callable[..., Canonicalizer]] = {
    "spherical": SphericalCanonicalizer,
    "vector_neurons": VectorNeuronCanonicalizer,
    "pca": PCAFrame,
    "minimal": MinimalFrame,
}
"""What finds the pose of point clouds in SO3, O3, SE3 and E3; the last two need no training."""

ORDERS: dict[str, Callable[..., Canonicalizer]] = {"sorted": SortedOrder}
"""What finds the order of the members of sets, for permutations; without training."""

VOLUME_NETWORKS: dict[str, Callable[..., nn.Module]] = {"volume": VolumeBackbone}
"""Networks that judge volumes, for the octahedral groups: ``factory(*, channels, **options)``."""

DEFAULTS: dict[str, dict[str, Any]] = {"document": {"size": 256, "standardize": False}}
"""Settings of `CanonicalizerConfig` that a network of `NETWORKS` wants instead of the usual ones."""

_FEW = 8
"""Largest order of groups whose orbits are looked at in the larger default size."""


def canonicalizer(group: Group | str, network: str | None = None, **settings: Any) -> Canonicalizer:
    """Build an untrained canonicalizer that remembers how it was built (``.config``), to be saved.

    Args:
        group: The group, or its name.
        network: A name in `NETWORKS`, ``"identity"``, ``"energy"`` (the model's own energy, no training), or
            ``"module:callable"``; for SO2, O2, scale and products of them, a name in `CONTINUOUS_NETWORKS`.
            Default: ``"orbit"``; for SO2 and O2 ``"polar"``, with scale ``"log_polar"``. In space a name in
            `CLOUD_CANONICALIZERS`, by default the first, or for the octahedral groups in `VOLUME_NETWORKS`.
            For permutations a name in `ORDERS`.
        **settings: ``size``, ``channels``, ``standardize``, ``estimator``, ``options`` and ``peaks`` of
            `CanonicalizerConfig`. The default size is 64 for quarter turns and flips. For larger groups it is
            48, as their orbits are larger; where they resample, the orbit network blurs first, to drown the
            blur of turning. Thumbnails are standardised by default where the group moves the plane only:
            channels shifted and scaled one by one do not turn with a hue, so colours are seen as they are.

    Raises:
        ValueError: If the group or the network is unknown.
    """
    parsed = parse_group(group)
    network = network or _usual_network(parsed)
    if isinstance(parsed, CubeGroup):
        settings = {"size": 16, "channels": 1, "standardize": True, **settings}
    settings = {**DEFAULTS.get(network, {}), **settings}
    few = not isinstance(parsed, FiniteGroup) or parsed.order <= _FEW
    settings.setdefault("size", 64 if parsed.is_exact_on_grid and few else 48)
    settings.setdefault("standardize", moves_plane_only(parsed))
    if network == "orbit" and not parsed.is_exact_on_grid:
        settings["options"] = {"blur": 0.6, **settings.get("options", {})}
    return build(CanonicalizerConfig(group=str(parsed), network=network, **settings))


def _usual_network(group: Group) -> str:
    if isinstance(group, CubeGroup):
        return "volume"
    if isinstance(group, ContinuousSpatialGroup):
        return "spherical"
    if isinstance(group, Permutations):
        return "sorted"
    if isinstance(group, FiniteGroup):
        return "orbit"
    if isinstance(group, PlanarGroup):
        return "polar"
    if not all(isinstance(factor, (SO2, O2, Scale)) for factor in factors_of(group)):
        raise ValueError(
            f"there is no network for {group}; take a finite group, such as 'C8', 'hue12' or 'C4xhue3', or "
            '"energy", which needs no training'
        )
    return "log_polar"


def build(config: CanonicalizerConfig) -> Canonicalizer:
    """Build the canonicalizer of a configuration, untrained."""
    group = parse_group(config.group)
    made: Canonicalizer
    seen: dict[str, Any] = {name: getattr(config, name) for name in ("size", "channels", "standardize")}
    if config.network == "identity":
        made = IdentityCanonicalizer(group)
    elif config.network == "energy":
        made = energy_canonicalizer(group, **config.options)
    elif isinstance(group, ContinuousSpatialGroup):
        made = _network(config.network, CLOUD_CANONICALIZERS)(group, **config.options)
    elif isinstance(group, Permutations):
        made = _network(config.network, ORDERS)(group, **config.options)
    elif isinstance(group, CubeGroup):
        judge = _network(config.network, VOLUME_NETWORKS)(channels=config.channels, **config.options)
        made = VolumeCanonicalizer(group, judge, estimator=config.estimator, **seen)
    elif isinstance(group, FiniteGroup):
        network = _network(config.network, NETWORKS)(group, channels=config.channels, **config.options)
        made = DiscreteCanonicalizer(network, group, estimator=config.estimator, **seen)
    else:
        make = _network(config.network, CONTINUOUS_NETWORKS)
        network = make(group, channels=config.channels, **config.options)
        made = ContinuousCanonicalizer(network, group, **seen, **config.peaks)
    made.config = config  # type: ignore[assignment]
    return made


def _network(name: str, known: Mapping[str, Callable[..., N]]) -> Callable[..., N]:
    if ":" in name:
        module, _, attribute = name.partition(":")
        make: Callable[..., N] = getattr(importlib.import_module(module), attribute)
        return make
    check_choice("network", name, [*known, "identity", "energy", "module:callable"])
    return known[name]


def adapt(
    model: Callable[..., Any],
    group: Group | str = "C4",
    *,
    canonicalizer: Canonicalizer | str | None = None,
    mode: Mode = "canonical",
    top_k: int | None = None,
    cover: float | None = None,
    cut: float | None = None,
    evidence: float = 0.0,
    gate: Gate | None = None,
    canvas: Canvas = "bucket",
    inputs: Mapping[int | str, KindSpec] | None = None,
    outputs: OutputSpec | None = None,
) -> Adapted:
    """Make a model equivariant without changing it.

    Args:
        model: The predictor: a module or any callable that takes pictures ``(B, C, H, W)`` or a list of
            ``(C, H_i, W_i)``. What models of ``transformers`` take and return is known by their class. Or a
            session of ONNX Runtime; see `upright.integrations.onnx`. Or a ``RapidOCR``, which gives an
            `upright.integrations.ocr.AdaptedOCR`. For functions of single pictures whose
            answers are plain data, see `upright.black_box`.
        group: The transformations, such as ``"C4"`` (quarter turns), ``"C8"``, ``"D4"`` or ``"SO2"`` (any
            angle).
        canonicalizer: A canonicalizer; a name that `upright.canonicalizer` knows (built untrained), such as
            ``"energy"``: the pose about which the model itself is surest, which needs no training; or the
            name or folder of a saved one, such as ``"photo-c4"``. Default: the ready-made photo
            canonicalizer for C4, D4, C8 and SO2, for other groups an untrained one, to be fitted.
        mode: See `Adapted`, also for the remaining arguments.
        top_k: Most poses a picture may take, with ``mode="top_k"`` or ``"weighted"``; how many elements of
            SO2 or O2 are averaged over, with ``mode="average"``.
        cover: Probability that the poses taken must cover, with ``mode="top_k"``.
        cut: Share of the likeliest pose's probability that others must exceed, with ``mode="weighted"``.
        evidence: How much the model's own certainty counts, with ``mode="top_k"`` or ``"weighted"``.
        gate: Which pictures are left as they are; see `Gate`.
        canvas: How pictures that are not square share a call, and, where turns need squares, stand on them.
        inputs: Kinds of the arguments that are moved, by name or position. Default: what the model's class is
            known to take, or else the first is a picture.
        outputs: Kind of the result, or kinds by entry. Default: what the model's class is known to return, or
            else class scores.

    Returns:
        A module that is called like the model and returns what the model returns.

    Raises:
        ValueError: If the group is unknown, or the canonicalizer's group is another.
        TypeError: If the model is one of ``transformers`` of a class that is not known and neither ``inputs``
            nor ``outputs`` is given; the message shows what to write.

    Example:
        >>> import torch, upright
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 10))
        >>> robust = upright.adapt(model, "C4")
        >>> x = torch.rand(2, 3, 32, 32)
        >>> torch.equal(robust(x), robust(torch.rot90(x, 1, (2, 3))))
        True
    """
    from .integrations.ocr import adapt_ocr, is_rapid

    if is_rapid(model):
        if mode != "canonical" or any(setting is not None for setting in (gate, inputs, outputs)):
            raise ValueError(
                "an OCR engine is run once and known as it is; leave mode, gate, inputs and outputs"
            )
        engine: Any = adapt_ocr(model, group, canonicalizer=canonicalizer)
        return engine  # type: ignore[no-any-return]
    return assemble(
        model, choose_canonicalizer(canonicalizer, group), mode=mode, top_k=top_k, cover=cover, cut=cut,
        evidence=evidence, gate=gate, canvas=canvas, inputs=inputs, outputs=outputs,
    )  # fmt: skip


def assemble(model: Callable[..., Any], canonicalizer: Canonicalizer, **settings: Any) -> Adapted:
    """Put a model and a canonicalizer together, by what the model's class is known to take and return.

    Raises:
        TypeError: If the model is one of ``transformers`` of a class that is not known and neither ``inputs``
            nor ``outputs`` is given.
    """
    from .integrations.onnx import SessionModel, is_session
    from .integrations.signatures import check_known, signature_of

    model = SessionModel(model) if is_session(model) else model
    signature = signature_of(model)
    if signature is None and settings.get("inputs") is None and settings.get("outputs") is None:
        check_known(model)
    return Adapted(model, suited(canonicalizer, model), signature=signature, **settings)


def suited(canonicalizer: Canonicalizer, model: Callable[..., Any]) -> Canonicalizer:
    """Let a named energy be the model's, and note how it is built again, where it can be."""
    if not isinstance(canonicalizer, EnergyCanonicalizer):
        return canonicalizer
    made, options = canonicalizer.of(model), canonicalizer.options()
    if getattr(made, "config", None) is None and options is not None:
        config = CanonicalizerConfig(group=str(made.group), network="energy", options=options)
        made.config = config  # type: ignore[assignment]
    return made


def choose_canonicalizer(given: Canonicalizer | str | None, group: Group | str | None) -> Canonicalizer:
    """Return the canonicalizer that `adapt` uses, in evaluation mode.

    Args:
        given: See `adapt`.
        group: See `adapt`; None: that of the canonicalizer.

    Raises:
        ValueError: If the group is unknown or needed, or the canonicalizer's group is another.
        TypeError: If ``given`` is no canonicalizer and names none.
    """
    if given is not None and not isinstance(given, (Canonicalizer, str)):
        raise TypeError(f"canonicalizer must be a Canonicalizer or a name, got {type(given).__name__}")
    parsed = None if group is None else parse_group(group)
    chosen = _choose(given, parsed)
    if parsed is not None and chosen.group != parsed:
        raise ValueError(
            f"the canonicalizer is one of {chosen.group}, but group is {parsed}; pass group='{chosen.group}'"
        )
    return chosen.eval()


def _choose(given: Canonicalizer | str | None, group: Group | None) -> Canonicalizer:
    from .hub import READY_MADE, load_canonicalizer

    if isinstance(given, Canonicalizer):
        return given
    known = (NETWORKS, CONTINUOUS_NETWORKS, CLOUD_CANONICALIZERS, ORDERS, VOLUME_NETWORKS)
    built = {"identity", "energy", *(name for names in known for name in names)}
    if isinstance(given, str) and not (given in built or ":" in given):
        return load_canonicalizer(given)
    if group is None:
        raise ValueError(f"group must be given to build the canonicalizer {given!r}, such as 'C4'; got None")
    if given is None:
        ready = READY_MADE.get(str(group))
        if ready is not None:
            return load_canonicalizer(ready)
        if isinstance(group, Permutations):
            return canonicalizer(group)
        ready_at_once = "; canonicalizer='pca' needs no training" * isinstance(group, ContinuousSpatialGroup)
        warnings.warn(
            f"no ready-made canonicalizer for {group}: this one is untrained and turns inputs at random "
            f"until upright.fit(...) has trained it{ready_at_once}",
            stacklevel=4,
        )
    return canonicalizer(group, given)
