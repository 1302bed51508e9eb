"""How sure a pose is, and what follows: gates that leave inputs alone, priors of the poses met in use.

``gate`` says which inputs are left as they are; ``deployment`` makes priors, given or estimated from inputs
without labels. `upright.evaluation` measures both: ``calibration``, ``accuracy_by_share``.
"""

from .deployment import EstimatedPrior as EstimatedPrior
from .deployment import NearUprightPrior as NearUprightPrior
from .deployment import deployment_prior as deployment_prior
from .deployment import estimate_prior as estimate_prior
from .gate import Gate as Gate
from .gate import Gated as Gated
