"""Scans in NIfTI files by ``nibabel``: read, reoriented with the affine that says where voxels lie, saved.

Convention:
    A file numbers its voxels (i, j, k); here they are x, y, z of a `Volume`, so that a file's array (I, J, K)
    is read as (C, D, H, W) = (1, K, J, I), and a series (I, J, K, T) as T channels. The affine takes (i, j,
    k, 1) to the world: to the patient's right, front and head (RAS+), usually in mm.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..actions import act
from ..groups.base import Element
from ..groups.octahedral import FullOctahedral
from ..groups.space import SpatialGroup
from ..kinds_space import LabelVolume, Volume

_WRITTEN = {
    torch.bool: torch.uint8,
    torch.float16: torch.float32,
    torch.bfloat16: torch.float32,
}
"""Dtypes that the format does not have, and what they are written as."""
_FARTHEST = 1e30
"""Affines with larger entries are damaged: lengths are sums of their squares."""


@dataclass(frozen=True)
class Scan:
    """Voxels and where they lie. Made by `read_scan`.

    Attributes:
        volume: The voxels, ``data`` of shape ``(C, D, H, W)``, with their spacing in the unit of the world.
        affine: From voxel indices (i, j, k, 1) to the world, shape ``(4, 4)``, float64.
        header: Header of the file, as ``nibabel`` has it.
    """

    volume: Volume
    affine: Tensor
    header: Any

    @property
    def codes(self) -> str:
        """Where the axes i, j, k run to: ``"RAS"`` is right, front, head, ``"L"`` left, ``"?"`` nowhere."""
        return "".join(code or "?" for code in _nibabel().aff2axcodes(self.affine.numpy()))

    @property
    def pose(self) -> Element:
        """How the voxels stand by the affine, up to the nearest axes: an element of `FullOctahedral`.

        It is the identity for RAS+, and ``scan.reoriented(~scan.pose)`` is RAS+.

        Raises:
            ValueError: If the affine leaves an axis without direction.
        """
        axes = _nibabel().io_orientation(self.affine.numpy())
        if not (axes == axes).all():
            raise ValueError(
                f"the affine must give every axis a direction, got {self.affine[:3, :3].tolist()}; set it"
            )
        to_world = torch.zeros(3, 3, dtype=torch.float64)
        for axis, (world, way) in enumerate(axes):
            to_world[int(world), axis] = way
        return FullOctahedral().nearest(to_world.mT)

    def world(self, index: Tensor) -> Tensor:
        """Return where voxels lie.

        Args:
            index: Indices (i, j, k), shape ``(…, 3)``; they need not be integers.

        Returns:
            Places in the world, shape ``(…, 3)``, float64.
        """
        return index.double() @ self.affine[:3, :3].mT + self.affine[:3, 3]

    def reoriented(self, g: Element) -> Scan:
        """Move the voxels by ``g`` and the affine against it: all that is seen stays where it is.

        Args:
            g: One element, shape ``()``, of a spatial group. The 48 orientations permute voxels; others
                resample once, on the same grid.

        Raises:
            TypeError: If ``g`` is of another group.
            ValueError: If ``g`` is a batch.
        """
        group = g.group
        if not isinstance(group, SpatialGroup):
            raise TypeError(f"g must be of a spatial group, such as FullOctahedral, got {group}")
        if g.shape:
            raise ValueError(f"g must be one element, of shape (), got {tuple(g.shape)}; index it")
        moved: Volume = act(g, self.volume)
        rotation = group.rotation(g).cpu()
        back = _back(rotation, group.translation(g).cpu(), self.volume, moved)
        return Scan(moved, self.affine @ back, _moved_header(self.header, self.affine, back, rotation))

    def with_data(self, data: Tensor) -> Scan:
        """Return other voxels in the same place: a segmentation, scores, a map.

        Args:
            data: Shape ``(C, D, H, W)`` or ``(D, H, W)``.

        Raises:
            ValueError: If depth, height and width are others.
        """
        sides = self.volume.data.shape[-3:]
        if data.ndim not in (3, 4) or data.shape[-3:] != sides:
            raise ValueError(
                f"data must have shape (C, {', '.join(map(str, sides))}) to lie where the scan does, got "
                f"{tuple(data.shape)}"
            )
        header = self.header.copy()
        header["cal_min"], header["cal_max"] = 0, 0  # the window in which the other voxels were shown
        return Scan(self.volume.replace(data=data.reshape(-1, *sides)), self.affine, header)

    def labels(self) -> LabelVolume:
        """Return the first channel as a segmentation, which moves without mixing labels."""
        return LabelVolume(self.volume.data[0], self.volume.spacing)

    def to_image(self) -> Any:
        """Return the scan as an image of ``nibabel``. Bool is written as uint8, half precision as float32."""
        nib = _nibabel()
        data = self.volume.data.detach().cpu()
        data = data.to(_WRITTEN.get(data.dtype, data.dtype))
        array = data.numpy().T  # (I, J, K, C)
        array = array[..., 0] if array.shape[-1] == 1 else array
        header = self.header.copy()
        header.set_data_dtype(array.dtype)
        header.set_slope_inter(1, 0)  # voxels are written as they are
        kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
        return kind(array, self.affine.numpy(), header)

    def save(self, path: str | Path) -> None:
        """Write a file, ``.nii`` or ``.nii.gz``."""
        _nibabel().save(self.to_image(), path)


def read_scan(source: Any, *, dtype: torch.dtype | None = None) -> Scan:
    """Read a scan.

    Args:
        source: Path of a file that ``nibabel`` reads, or an image of it, three- or four-dimensional.
        dtype: Dtype of the voxels; default: as they are stored, or float64 where the file scales them.

    Raises:
        ImportError: If ``nibabel`` is missing.
        ValueError: If the file is damaged or none of the kind, or the image has other than three or four
            axes, voxels that are no numbers, or an affine that is not finite.

    Example:
        >>> import nibabel, numpy
        >>> image = nibabel.Nifti1Image(numpy.zeros((4, 5, 6), "int16"), numpy.diag([-1.0, 1.0, 3.0, 1.0]))
        >>> scan = read_scan(image)
        >>> scan.codes, tuple(scan.volume.data.shape), scan.volume.spacing
        ('LAS', (1, 6, 5, 4), (3.0, 1.0, 1.0))
        >>> scan.reoriented(~scan.pose).codes
        'RAS'
    """
    nib = _nibabel()
    import numpy as np

    try:
        image = nib.load(source) if isinstance(source, (str, Path)) else source
        if not isinstance(image, nib.Nifti1Image):
            image = nib.Nifti1Image.from_image(image)
        if len(image.shape) not in (3, 4):
            raise ValueError(f"a scan must have shape (I, J, K) or (I, J, K, T), got {image.shape}")
        with np.errstate(all="ignore"):  # a damaged scale may be anything
            array = np.asanyarray(image.dataobj)
        if not (np.abs(image.affine) < _FARTHEST).all():
            raise ValueError(f"the affine must be finite, got {image.affine.tolist()}; set it")
        if array.dtype.kind not in "biufc":
            raise ValueError(f"voxels must be numbers, got {array.dtype}; split colours into channels first")
    except FileNotFoundError:
        raise
    except Exception as error:  # of a damaged file any kind
        if not isinstance(source, (str, Path)):
            raise
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"{source} is no readable scan: {reason}") from error
    array = array[..., None] if array.ndim == 3 else array
    data = torch.from_numpy(array.T.astype(array.dtype.newbyteorder("="), order="C", copy=True))
    affine = torch.from_numpy(np.array(image.affine, np.float64))
    sizes = nib.affines.voxel_sizes(image.affine).tolist()
    volume = Volume(data if dtype is None else data.to(dtype), (sizes[2], sizes[1], sizes[0]))
    return Scan(volume, affine, image.header.copy())


def _back(rotation: Tensor, shift: Tensor, before: Volume, after: Volume) -> Tensor:
    """Return the matrix that takes indices (i, j, k, 1) of the moved voxels to those they came from."""
    old, new = (rotation.new_tensor(volume.spacing[::-1]) for volume in (before, after))
    middle = [(rotation.new_tensor(tuple(volume.data.shape[:-4:-1])) - 1) / 2 for volume in (before, after)]
    made = torch.eye(4, dtype=torch.float64)
    made[:3, :3] = rotation.mT * (new / old[:, None])
    made[:3, 3] = middle[0] - made[:3, :3] @ middle[1] - (rotation.mT @ shift) / old
    return made


def _moved_header(header: Any, affine: Tensor, back: Tensor, rotation: Tensor) -> Any:
    """Return a header whose two affines, size of voxels, names of axes and order of slices follow."""
    made = header.copy()
    qform, code = header.get_qform(coded=True)
    made.set_qform((affine.numpy() if qform is None else qform) @ back.numpy(), int(code))
    sform, code = header.get_sform(coded=True)
    if sform is not None:
        made.set_sform(sform @ back.numpy(), int(code))
    old = header.get_dim_info()  # axes along which was read fast, read slowly, and cut into slices
    if bool((rotation.abs().amax(0) > 1 - 1e-6).all()):
        made.set_dim_info(*(None if axis is None else int(rotation[:, axis].abs().argmax()) for axis in old))
        if old[2] is not None and rotation[:, old[2]].sum() < 0:
            _reverse_slices(made, int(made.get_data_shape()[old[2]]))
    else:
        made.set_dim_info(None, None, None)
        made["slice_code"], made["slice_start"], made["slice_end"] = 0, 0, 0
    return made


def _reverse_slices(header: Any, count: int) -> None:
    """Number ``count`` slices the other way: increasing orders of their times become decreasing ones."""
    code = int(header["slice_code"])
    if code:
        header["slice_code"] = code + 1 if code % 2 else code - 1
        first, last = int(header["slice_start"]), int(header["slice_end"])
        header["slice_start"], header["slice_end"] = count - 1 - last, count - 1 - first


def _nibabel() -> Any:
    try:
        import nibabel
    except ImportError as error:
        raise ImportError("scans are read with nibabel: pip install 'upright[volumes]'") from error
    return nibabel
