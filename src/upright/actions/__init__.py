"""How an element moves a kind: ``act(g, x)``. One kernel per (group family, kind), one open registry.

``grid`` moves pixels, ``planar`` registers the planar groups' kernels for every kind, ``projective`` those of
scales, shifts, affine maps and homographies. ``volume`` moves voxels, ``space`` registers groups of space,
``permutations`` those of the members of sets.
``mixture`` carries gradients from a moved value back into the pose.
"""

from . import colour as colour
from . import permutations as permutations
from . import planar as planar
from . import product as product
from . import projective as projective
from . import space as space
from .mixture import act_mixed as act_mixed
from .registry import act as act
from .registry import leave as leave
from .registry import register_action as register_action
from .registry import registered_kinds as registered_kinds
