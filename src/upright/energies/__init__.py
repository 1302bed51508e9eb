"""Energies: how far a picture is from canonical, told by a frozen model without training; lower is better."""

from .base import Energy as Energy
from .base import Layers as Layers
from .base import Predictor as Predictor
from .base import Sum as Sum
from .base import as_energy as as_energy
from .combine import combined as combined
from .features import Discriminant as Discriminant
from .features import Mahalanobis as Mahalanobis
from .features import NearestFeatures as NearestFeatures
from .features import Similarity as Similarity
from .features import discriminant as discriminant
from .features import relative as relative
from .orbit import CHUNK as CHUNK
from .orbit import energies_at as energies_at
from .scores import ENERGIES as ENERGIES
from .scores import Entropy as Entropy
from .scores import LogitEnergy as LogitEnergy
from .scores import MaxLogit as MaxLogit
