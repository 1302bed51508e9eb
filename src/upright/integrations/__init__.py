"""Models by reference: what well-known model libraries load, take and return."""

from .models import LoadedModel as LoadedModel
from .models import ModelError as ModelError
from .models import load_model as load_model
from .preprocess import SquarePreprocess as SquarePreprocess
