"""The adapted model: a model conjugated by a canonicalizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from .._checks import check_choice
from ..canonicalizers.base import Canonicalizer
from ..canonicalizers.network import NetworkCanonicalizer
from ..canonicalizers.pose import Pose
from ..confidence.gate import Gate, Gated
from ..groups.base import Element, Group
from ..groups.planar import PlanarGroup
from ..groups.product import planar_part
from ..kinds import Logits
from .arrays import as_arrays, as_tensors, holds_arrays
from .call import Call, positional_names, read_call
from .canvas import CANVASES, Canvas, place
from .embedding import Embedding
from .passes import Mode, check_passes, plan_passes
from .pretrained import Pretrained
from .result import Result, blend, merge, read_result
from .run import Run as Run
from .signature import InputSpec, Signature, unwrapped
from .spec import OutputSpec, Size, check_outputs
from .square import off_squares, on_squares
from .subject import PICTURE_NAMES, volume_buckets
from .switch import Switch
from .views import DEFAULT, Alternative, Views, call_bare, check_names, run_view


class Adapted(Views, Pretrained):
    """A model made equivariant: called like the model, returns what the model returns.

    ``Φ(x) = c(x) · φ(c(x)⁻¹ · x)``; where the pose is the identity, the output is the model's own, bit for
    bit. Build it with `upright.adapt`.

    Attributes:
        model: The predictor φ, untouched: a module or any callable.
        canonicalizer: The canonicalizer c.
        mode: ``"canonical"`` runs the model once, at the likeliest pose. ``"top_k"`` averages its outputs
            over the likeliest poses, weighted by their probabilities. ``"weighted"`` does so with weights
            that vanish before a pose is dropped, so that the output changes continuously with the input.
            ``"average"`` averages over the whole group; of SO2 and O2, over a grid of equally spaced angles
            that starts at the pose, so that the average follows as exactly as the pose does.
        top_k: For ``"top_k"`` and ``"weighted"``: the most poses a picture may take; None: all. For
            ``"average"`` over SO2 or O2: how many elements the grid has, in O2 one half of them reflected;
            None: 24.
        cover: For ``"top_k"``: stop as soon as the poses taken cover this probability, so that clear pictures
            cost one pass; None: always take ``top_k``.
        cut: For ``"weighted"``: a pose counts by as much as its probability exceeds ``cut`` times that of the
            likeliest pose; None: 0.2. At 1 only the likeliest is taken.
        evidence: For both, on class scores: weights are multiplied by ``exp(-evidence · H)``, ``H`` the
            entropy in nats of the model's prediction at that pose. The model is usually surest upright.
        gate: Which pictures are left as they are, in evaluation; None: none.
        canvas: How pictures that are not square share a call: ``"bucket"``, ``"pad"`` or ``"stretch"``.
            Where turns need squares, ``"pad"`` and ``"stretch"`` place pictures on them; ``"bucket"`` raises.
        inputs: Kinds of the arguments that are moved, by name or position; None: what ``signature`` says, or
            the first is a picture.
        outputs: Kind of the result, or kinds by entry; None: what ``signature`` says, or class scores.
        signature: What the model's class is known to take and return. Its methods and data can then be
            reached as if they were the adapted model's own.
        name: What the canonicalizer is called among several.
        others: The other canonicalizers; see `with_canonicalizer`, `choose` and `using`.
        switch: What all views of this model share, to choose by context; None: one of its own.

    Reference:
        Kaba et al. 2023, arXiv 2211.06489, equation 2; Mondal et al. 2023, arXiv 2310.01647.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        canonicalizer: Canonicalizer,
        *,
        mode: Mode = "canonical",
        top_k: int | None = None,
        cover: float | None = None,
        cut: float | None = None,
        evidence: float = 0.0,
        gate: Gate | None = None,
        canvas: Canvas = "bucket",
        inputs: Mapping[int | str, InputSpec] | None = None,
        outputs: OutputSpec | None = None,
        signature: Signature | None = None,
        name: str = DEFAULT,
        others: Sequence[Alternative] = (),
        switch: Switch | None = None,
    ) -> None:
        super().__init__()
        if not callable(model):
            raise TypeError(f"model must be callable, got {type(model).__name__}")
        if not isinstance(canonicalizer, Canonicalizer):
            raise TypeError(f"canonicalizer must be a Canonicalizer, got {type(canonicalizer).__name__}")
        check_choice("canvas", canvas, CANVASES)
        check_passes(mode, canonicalizer.group, top_k, cover, cut, evidence)
        if gate is not None and not isinstance(gate, Gate):
            raise TypeError(f"gate must be a Gate, got {type(gate).__name__}; write gate=upright.Gate(…)")
        check_names(name, others)
        check_outputs(inputs or {})
        check_outputs("logits" if outputs is None else outputs)
        if mode != "canonical" and outputs is None and signature is not None and not signature.averages:
            raise ValueError(
                f"{type(unwrapped(model)).__name__} returns a set whose entries change places from pose to "
                f"pose, so results cannot be averaged as mode={mode!r} does; use mode='canonical'"
            )
        self.model = model
        self.canonicalizer = canonicalizer
        self.mode, self.top_k, self.cover, self.cut, self.evidence = mode, top_k, cover, cut, evidence
        self.gate = gate
        self.canvas, self.inputs, self.outputs, self.signature = canvas, inputs, outputs, signature
        self.name, self.switch = name, switch or Switch()
        self.others = nn.ModuleList(others) if others else None

    @property
    def group(self) -> Group:
        """The group of transformations under which the model is now equivariant."""
        return self.canonicalizer.group

    @property
    def reads(self) -> Mapping[Any, Any] | None:
        """Kinds of the arguments that are moved: as given, or else those of the signature."""
        return self.inputs if self.inputs is not None or self.signature is None else self.signature.inputs

    @property
    def returns(self) -> OutputSpec:
        """Kinds of the results: as given, or else those of the signature."""
        if self.outputs is not None:
            return self.outputs
        return "logits" if self.signature is None else self.signature.outputs

    def __getattr__(self, name: str) -> Any:
        """Reach methods and data of a model whose class is known: its configuration, its text tower."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            signature = self.__dict__.get("signature")
            if signature is None or name.startswith("_"):
                raise
        model = unwrapped(self.model)
        if signature.embeds is not None and name == signature.embeds.method:
            return self.embed
        if name in signature.methods:
            return self.replace(
                model=getattr(model, name), signature=signature.methods[name], inputs=None, outputs=None
            )
        found = getattr(model, name)
        takes = set(positional_names(found)).intersection(PICTURE_NAMES) if callable(found) else set()
        if takes or isinstance(found, nn.Module):
            raise AttributeError(
                f"{name} of {type(model).__name__} is not adapted; to call it on pictures as they "
                f"are, use <adapted>.model.{name}"
            )
        return found

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model; see its own documentation for arguments and results."""
        if self.switch.open and self._view() is None:
            return call_bare(self.model, args, kwargs)  # whatever the model takes, read or not
        return self.run(*args, **kwargs).output

    def run(self, *args: Any, **kwargs: Any) -> Run:
        """Call the model and return the output together with the poses and the number of passes.

        Arrays in the place of tensors are handed over as tensors, and the output's tensors are arrays then.
        """
        if holds_arrays(args, kwargs):
            args, kwargs = as_tensors((args, kwargs))
            run = self.run(*args, **kwargs)
            return replace(run, output=as_arrays(run.output))
        if (view := self._in_use()) is not self:
            return run_view(view, args, kwargs)
        call, sizes, found = self._prepared(args, kwargs)
        pose, marks = found.pose, (None, None) if self.gate is None else (found.gated, found.flagged)
        if self.mode == "canonical" or call.batch == 0:
            result = self._conjugate(call, pose.element, pose.weights)
            passes = torch.ones(call.batch, dtype=torch.long, device=pose.element.device)
        else:
            ranked, weights = plan_passes(
                pose, self.mode, top_k=self.top_k, cover=self.cover, cut=self.cut, gated=found.gated
            )
            result, passes = self._several(call, ranked, weights)
        if sizes is not None:
            result = off_squares(result, sizes, self.canvas, self._result)
        return Run(result.output(), pose, passes, *marks)

    def pose(self, *args: Any, **kwargs: Any) -> Pose:
        """Return the poses of the pictures among the arguments, without running the model."""
        return self._in_use()._prepared(args, kwargs)[2].pose

    def canonicalize(self, *args: Any, **kwargs: Any) -> tuple[Any, Pose]:
        """Return the upright pictures (a tensor, or a list where their shapes differ) and the poses."""
        if (view := self._in_use()) is not self:
            return view.canonicalize(*args, **kwargs)
        call, _, found = self._prepared(args, kwargs)
        pose = found.pose
        mixed = volume_buckets(call.pictures, pose.element) is not None
        if isinstance(call.pictures, Tensor) and not mixed and self._swaps(call, pose.element) is None:
            return call.moved_back(pose.element).pictures, pose
        one = [
            call.select(torch.tensor([i])).moved_back(pose.element[i : i + 1]).pictures[0]
            for i in range(call.batch)
        ]
        return one, pose

    def embed(self, *args: Any, **kwargs: Any) -> Embedding:
        """Compute what the model makes of pictures before it is asked, to be used in many calls.

        Args:
            *args: The pictures, as the model takes them.
            **kwargs: Further arguments of the model, of which those that say where pictures are padded count.

        Returns:
            Features and poses, to be handed to the adapted model in the argument that takes features.

        Raises:
            TypeError: If the model's class is not known to compute features ahead.
            ValueError: If the mode is another than ``"canonical"``, or the pictures are not square.
        """
        if (view := self._in_use()) is not self:
            return view.embed(*args, **kwargs)
        embeds = None if self.signature is None else self.signature.embeds
        if embeds is None:
            raise TypeError(
                f"{type(unwrapped(self.model)).__name__} is not known to compute features ahead; "
                "call the adapted model on pictures"
            )
        _check_embedding_mode(self.mode)
        call = self._read(args, kwargs)
        height, width = call.frame
        if height != width:
            raise ValueError(f"pictures must be square to be embedded, got {height}×{width}; pad them first")
        found = self._decided(call)
        back = call.moved_back(found.pose.element)
        features = getattr(unwrapped(self.model), embeds.method)(back.pictures)
        several = len(embeds.arguments) > 1
        named = dict(zip(embeds.arguments, features if several else [features], strict=True))
        return Embedding(named, found.pose, call.frame, call.sizes, found.gated, found.flagged)

    def extra_repr(self) -> str:
        """Name the group and the mode."""
        return f"group={self.group}, mode={self.mode!r}, canvas={self.canvas!r}"

    def _read(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        signature = self.signature if self.inputs is None else None
        subject = self.canonicalizer.reads
        return read_call(self.model, self.reads, args, kwargs, signature, subject).without_padding()

    def _prepared(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Call, list[Size] | None, Gated]:
        """Read a call and find the poses; with the pictures' sizes where they were placed on squares.

        Networks look at the centre of pictures, which padding leaves where it is, and see it without that.
        """
        call = self._read(args, kwargs)
        placed = None if self._is_bare else on_squares(call, self.group, self.canvas)
        if placed is None:
            return call, None, self._decided(call)
        looks_at_centre = isinstance(self.canonicalizer, NetworkCanonicalizer) and self.canonicalizer.size
        return placed, call.sizes, self._decided(call if looks_at_centre and self.canvas == "pad" else placed)

    def _decided(self, call: Call) -> Gated:
        """Find the poses, and leave alone what the gate does not let through, before the model runs."""
        if isinstance(call.pictures, Embedding):
            _check_embedding_mode(self.mode)
            return Gated(call.pictures.pose, call.pictures.gated, call.pictures.flagged)
        pose: Pose = self.canonicalizer(call.seen)
        if self.gate is not None and pose.weights is None:  # weights: poses are drawn for training
            return self.gate.decide(pose, self.canonicalizer.deployment_prior)
        none = torch.zeros(pose.element.shape, dtype=torch.bool, device=pose.element.device)
        return Gated(pose, none, none)

    def _result(self, output: Any, size: Size) -> Result:
        return read_result(
            self.returns, output, size, strict=self.outputs is not None or self.signature is None
        )

    def _several(self, call: Call, ranked: Element, weights: Tensor) -> tuple[Result, Tensor]:
        """Run the model rank by rank, each time on the pictures that need another pose, and blend.

        Returns the results and the number of passes of each picture, shape ``(B,)``.
        """
        everyone = torch.arange(call.batch, device=weights.device)
        parts, index, shares = [self._conjugate(call, ranked[:, 0])], [everyone], [weights[:, 0]]
        for rank in range(1, weights.shape[1]):
            open_ = (weights[:, rank] > 0).nonzero().squeeze(1)
            if len(open_):
                parts.append(self._conjugate(call.select(open_), ranked[open_, rank]))
                index.append(open_)
                shares.append(weights[open_, rank])
        passes = torch.cat(index).bincount(minlength=call.batch)
        if self.evidence:
            shares = [w * self._evidence(part) for w, part in zip(shares, parts, strict=True)]
        return blend(parts, index, shares), passes

    def _evidence(self, part: Result) -> Tensor:
        """Return ``exp(-evidence · H)`` of the model's predictions, shape ``(B,)``."""
        logits = next((k.data for k in part.kinds if isinstance(k, Logits)), None)
        if logits is None:
            raise TypeError("evidence needs class scores; name them with outputs='logits' or set evidence=0")
        entropy = torch.special.entr(torch.softmax(logits.float(), -1)).sum(-1)  # (B, …)
        return torch.exp(-self.evidence * entropy.reshape(len(entropy), -1).mean(-1))

    def _conjugate(self, call: Call, g: Element, weights: Tensor | None = None) -> Result:
        """Turn back, run the model, turn forward."""
        if call.canvas is not None:
            return self._conjugate_cut(call, g, call.canvas)
        buckets = volume_buckets(call.pictures, g)
        if buckets is not None:
            return merge([self._conjugate(call.select(i), g[i.to(g.device)]) for i in buckets], buckets)
        swaps = self._swaps(call, g)
        if swaps is not None:
            return self._conjugate_shapes(call, g, swaps)
        back = call.moved_back(g, weights)
        output = back.send(self.model)
        if isinstance(output, list):
            return self._moved_list(output, back, g)
        result = self._result(output, back.frame)
        if back.extents is not None:
            return result.within(g, back.extents)
        return result.moved(g, weights, back.sizes)

    def _conjugate_cut(self, call: Call, g: Element, canvas: Size) -> Result:
        """Conjugate pictures cut out of their padding: one call of the model for each upright size."""
        back = call.moved_back(g)
        sizes = back.sizes
        index = [torch.tensor([i for i, s in enumerate(sizes) if s == size]) for size in sorted(set(sizes))]
        parts = []
        for i in index:
            one = back.select(i).stacked()
            result = self._result(self.model(*one.args, **one.kwargs), one.sizes[0])
            parts.append(result.spread(g[i.to(g.device)], canvas))
        return merge(parts, index)

    def _moved_list(self, output: list[Any], back: Call, g: Element) -> Result:
        """Move the results of models that return one entry per picture (detectors)."""
        if len(output) != back.batch:
            raise ValueError(f"the model returned a list of {len(output)} entries for {back.batch} pictures")
        moved = []
        for i, (entry, size) in enumerate(zip(output, back.sizes, strict=True)):
            moved.append(self._result(entry, size).moved(g[i]).output())
        return Result(self.returns, moved, [])

    def _unplaced(self, output: Any, back: Call, g: Element, size: Size, part: slice) -> Result:
        """Take a part of the results on a common canvas back to the pictures' own, and move them."""
        own = back.sizes[0]
        if isinstance(output, list):
            entries = [self._result(entry, size) for entry in output[part]]
            entries = [entry.unplaced(own, size, self.canvas).moved(g[i]) for i, entry in enumerate(entries)]
            return Result(self.returns, [entry.output() for entry in entries], [])
        result = self._result(output, size).select(part)
        return result.unplaced(own, size, self.canvas).moved(g)

    def _swaps(self, call: Call, g: Element) -> Tensor | None:
        """Return which pictures change shape when turned back, unless all do or none does."""
        if not isinstance(call.pictures, Tensor) or call.batch == 0:
            return None
        height, width = call.pictures.shape[-2:]
        plane = planar_part(g)
        if height == width or plane is None:
            return None
        group = plane.group
        assert isinstance(group, PlanarGroup)
        swaps = group.quarter_turns(plane) % 2 == 1
        return swaps if bool(swaps.any()) and not bool(swaps.all()) else None

    def _conjugate_shapes(self, call: Call, g: Element, swaps: Tensor) -> Result:
        """Conjugate a batch whose upright pictures have two shapes, by the canvas policy."""
        index = [(~swaps).nonzero().squeeze(1), swaps.nonzero().squeeze(1)]
        if self.canvas == "bucket":
            return merge([self._conjugate(call.select(i), g[i]) for i in index], index)
        if len(call.moved) > 1:
            raise ValueError(
                f"canvas={self.canvas!r} moves pictures only; use canvas='bucket' for models with prompts"
            )
        backs = [call.select(i).moved_back(g[i]) for i in index]
        size = (max(call.sizes[0]), max(call.sizes[0]))
        placed = torch.cat([place(back.pictures, size, self.canvas) for back in backs])
        together = call.select(torch.cat(index)).with_values({next(iter(call.moved)): placed})
        output = self.model(*together.args, **together.kwargs)
        parts, start = [], 0
        for back, i in zip(backs, index, strict=True):
            parts.append(self._unplaced(output, back, g[i], size, slice(start, start + len(i))))
            start += len(i)
        return merge(parts, index)


def _check_embedding_mode(mode: Mode) -> None:
    if mode != "canonical":
        raise ValueError(
            f"features hold one pose of each picture and need mode='canonical', got mode={mode!r}; "
            "call the adapted model on pictures"
        )
