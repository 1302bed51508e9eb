"""Groups and their elements: what can happen to an input. Nothing here knows of images or models."""

from .base import Element as Element
from .base import FiniteGroup as FiniteGroup
from .base import Group as Group
from .parse import parse_group as parse_group
from .planar import Cyclic as Cyclic
from .planar import Dihedral as Dihedral
from .planar import FinitePlanarGroup as FinitePlanarGroup
from .planar import PlanarGroup as PlanarGroup
