"""How a pose is chosen: a canonicalizer maps inputs to a `Pose`, a value, and remembers nothing."""

from .base import Canonicalizer as Canonicalizer
from .base import IdentityCanonicalizer as IdentityCanonicalizer
from .clouds import CloudCanonicalizer as CloudCanonicalizer
from .continuous import ContinuousCanonicalizer as ContinuousCanonicalizer
from .discrete import DiscreteCanonicalizer as DiscreteCanonicalizer
from .energy import EnergyCanonicalizer as EnergyCanonicalizer
from .energy import energy_canonicalizer as energy_canonicalizer
from .estimators import ESTIMATORS as ESTIMATORS
from .frames import MinimalFrame as MinimalFrame
from .frames import PCAFrame as PCAFrame
from .network import NetworkCanonicalizer as NetworkCanonicalizer
from .order import SortedOrder as SortedOrder
from .pose import Pose as Pose
from .spherical import SphericalCanonicalizer as SphericalCanonicalizer
from .vector import VectorNeuronCanonicalizer as VectorNeuronCanonicalizer
from .volume import VolumeCanonicalizer as VolumeCanonicalizer
