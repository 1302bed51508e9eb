"""What canonicalization is compared with, where that has to be trained: each is fitted by one call.

Each becomes a row of an evaluation by `upright.evaluation.Row`. Baselines that need no training are rows
already; see `upright.evaluation.ROWS`.
"""

from .classifier import fit_classifier as fit_classifier
from .classifier import plain_classifier as plain_classifier
from .loop import Fitting as Fitting
from .transformer import Localizer as Localizer
from .transformer import fit_transformer as fit_transformer
from .weights import Weigher as Weigher
from .weights import WeightedAverage as WeightedAverage
from .weights import fit_weights as fit_weights
