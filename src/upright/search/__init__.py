"""Searches for the pose of least energy, behind one contract: `Search.find`."""

from .base import Found as Found
from .base import Search as Search
from .bayesian import BayesianSearch as BayesianSearch
from .gradient import GradientSearch as GradientSearch
from .grid import Grid as Grid
from .random import RandomSearch as RandomSearch

SEARCHES: dict[str, type[Search]] = {
    "grid": Grid,
    "random": RandomSearch,
    "gradient": GradientSearch,
    "bayesian": BayesianSearch,
}
"""Searches by name; add one by adding an entry ``name: callable(**settings)``."""
