"""Pictures as people hold them, PIL images, arrays and tensors: turned by an element, and set upright."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from .actions import act
from .canonicalizers import Canonicalizer, Pose
from .groups.base import Element
from .groups.planar import PlanarGroup
from .hub import load_canonicalizer
from .kinds import Image

P = TypeVar("P")


def turn(g: Element, picture: P) -> P:
    """Turn one picture.

    Args:
        g: One element, without batch axis.
        picture: A PIL image (any mode; quarter turns and flips keep mode and palette, others make RGB of
            palettes), an array ``(H, W)`` or ``(H, W, C)``, or a tensor ``(C, H, W)``.

    Returns:
        The moved picture, of the same type; quarter turns and flips are exact and swap height and width.

    Raises:
        TypeError: If it is no picture.
    """
    if isinstance(picture, Tensor):
        return cast(P, act(g, Image(picture)).data)
    if isinstance(picture, np.ndarray):
        _check_array(picture)
        pixels = picture if picture.ndim == 3 else picture[..., None]
        channels_first = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
        turned = np.ascontiguousarray(act(g, Image(channels_first)).data.numpy().transpose(1, 2, 0))
        return cast(P, turned if picture.ndim == 3 else turned[..., 0])
    return cast(P, _turn_pil(g, picture))


def straighten(pictures: Any, canonicalizer: Canonicalizer | str = "photo-c4") -> tuple[Any, Pose]:
    """Set pictures upright before anything else sees them: before a processor, an OCR engine, a request.

    Args:
        pictures: One picture, or a list of them; see `turn`. An EXIF orientation is applied first.
        canonicalizer: A canonicalizer, or the name or folder of a saved one.

    Returns:
        The upright pictures, as given: one, or a list, of the same types; and the poses, with a batch axis.
        `turn` with ``pose.element[i]`` takes picture ``i`` back to the user's frame, `upright.act` boxes,
        points and masks.
    """
    if not isinstance(canonicalizer, Canonicalizer):
        canonicalizer = load_canonicalizer(canonicalizer)
    several = isinstance(pictures, Sequence) and not isinstance(pictures, (str, bytes))
    given = [_as_seen(p) for p in (pictures if several else [pictures])]
    with torch.no_grad():
        pose: Pose = canonicalizer([_as_tensor(p) for p in given])
    back = pose.element.inverse()
    upright = [turn(back[i], p) for i, p in enumerate(given)]
    return (upright if several else upright[0]), pose


def _as_seen(picture: Any) -> Any:
    """Apply the EXIF orientation of a PIL image."""
    if isinstance(picture, (Tensor, np.ndarray)):
        return picture
    from PIL import ExifTags, ImageOps
    from PIL import Image as Pillow

    if not isinstance(picture, Pillow.Image):
        raise TypeError(
            f"a picture must be a PIL image, an array (H, W[, C]) or a tensor (C, H, W), "
            f"got {type(picture).__name__}; open files with PIL.Image.open first"
        )
    picture.load()  # some formats hold EXIF data behind the pixels
    if picture.getexif().get(ExifTags.Base.Orientation, 1) == 1:
        return picture
    return ImageOps.exif_transpose(picture)


def _as_tensor(picture: Any) -> Tensor:
    """Return what a canonicalizer of RGB pictures sees: ``(3, H, W)``, dtype kept."""
    if isinstance(picture, np.ndarray):
        _check_array(picture)
        pixels = picture if picture.ndim == 3 else picture[..., None]
        picture = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
    elif not isinstance(picture, Tensor):
        colours = picture if picture.mode == "RGB" else picture.convert("RGB")
        picture = torch.from_numpy(np.array(colours)).permute(2, 0, 1)
    if picture.ndim != 3:
        raise ValueError(f"a picture must be a tensor (C, H, W), got shape {tuple(picture.shape)}")
    seen: Tensor = picture
    return seen[:3] if seen.shape[0] >= 3 else seen[:1].expand(3, -1, -1)


def _check_array(picture: np.ndarray[Any, Any]) -> None:
    if picture.ndim not in (2, 3):
        raise ValueError(f"a picture must be an array (H, W) or (H, W, C), got shape {picture.shape}")


def _turn_pil(g: Element, picture: Any) -> Any:
    from PIL import Image as Pillow

    picture = _as_seen(picture)
    if not isinstance(g.group, PlanarGroup):
        raise TypeError(f"a picture is turned by an element of a planar group, got one of {g.group}")
    move = int(g.group.grid_moves(g))
    if move < 0:
        keeps = picture.mode in ("L", "RGB", "RGBA", "F")
        pixels = picture if keeps else picture.convert("RGB")
        return Pillow.fromarray(turn(g, np.array(pixels)))
    steps = [Pillow.Transpose.ROTATE_90, Pillow.Transpose.ROTATE_180, Pillow.Transpose.ROTATE_270]
    if move >= 4:
        picture = picture.transpose(Pillow.Transpose.FLIP_LEFT_RIGHT)
    if move % 4:
        return picture.transpose(steps[move % 4 - 1])
    return picture if move else picture.copy()  # never the picture that was given
