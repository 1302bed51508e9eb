"""Groups and their elements: what can happen to an input. Nothing here knows of images or models."""

from .base import Element as Element
from .base import FiniteGroup as FiniteGroup
from .base import Group as Group
from .lie import LieGroup as LieGroup
from .parse import parse_finite_group as parse_finite_group
from .parse import parse_group as parse_group
from .planar import Cyclic as Cyclic
from .planar import Dihedral as Dihedral
from .planar import FinitePlanarGroup as FinitePlanarGroup
from .planar import PlanarGroup as PlanarGroup
from .projective import Affine as Affine
from .projective import Homography as Homography
from .projective import PlaneMap as PlaneMap
from .projective import Scale as Scale
from .projective import Translation as Translation
from .projective import plane_homography as plane_homography
from .rotations import O2 as O2
from .rotations import SO2 as SO2
from .subset import Arc as Arc
from .subset import Ladder as Ladder
from .subset import Members as Members
from .subset import Subset as Subset
from .subset import Window as Window
