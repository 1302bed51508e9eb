"""Where pictures come from: one way to open any source, one way to make batches of it.

``open_data`` turns a folder, a Parquet file, a hub name or tensors into a data set of (picture, label);
``loader`` makes batches (pictures, labels or None) of any of them.
Point clouds: `make_shapes` draws made-up objects; `modelnet` and `shapenet` read the files of those sets.
"""

from .batches import Batch as Batch
from .batches import loader as loader
from .batches import split_batch as split_batch
from .clouds import CloudSet as CloudSet
from .decode import UnreadablePictureError as UnreadablePictureError
from .decode import read_picture as read_picture
from .decode import to_tensor as to_tensor
from .sets import NO_LABEL as NO_LABEL
from .sets import PictureSet as PictureSet
from .sets import TensorSet as TensorSet
from .shapes import make_shapes as make_shapes
from .sources import open_data as open_data
