"""How a pose is chosen: a canonicalizer maps inputs to a `Pose`, a value, and remembers nothing."""

from .base import Canonicalizer as Canonicalizer
from .base import IdentityCanonicalizer as IdentityCanonicalizer
from .discrete import DiscreteCanonicalizer as DiscreteCanonicalizer
from .estimators import ESTIMATORS as ESTIMATORS
from .pose import Pose as Pose
