"""The adapter: conjugation of a model by a canonicalizer, ``Φ(x) = c(x) · φ(c(x)⁻¹ · x)``, and nothing else.

``spec`` says which arguments and results are moved, and as what; ``signature`` says it of a model class;
``typed`` knows tensors of torchvision; ``call`` carries the arguments of one call; ``canvas`` lets pictures
of different shapes share a call; ``extent`` turns pictures within a canvas of fixed size; ``embedding`` keeps
features with their pose; ``passes`` says at which poses the model runs; ``result`` averages results over
poses; ``adapted`` puts them together.
"""

from .adapted import Adapted as Adapted
from .adapted import Run as Run
from .embedding import Embedding as Embedding
from .signature import Signature as Signature
from .spec import KindSpec as KindSpec
