"""The adapter: conjugation of a model by a canonicalizer, ``Φ(x) = c(x) · φ(c(x)⁻¹ · x)``, and nothing else.

``spec`` says which arguments and results are moved, and as what; ``signature`` says it of
a model class as data; ``call`` carries one call's arguments;
``canvas`` lets pictures of different shapes share a model call; ``blend`` averages results over poses;
``adapted`` puts them together.
"""

from .adapted import Adapted as Adapted
from .adapted import Run as Run
from .signature import Signature as Signature
from .spec import KindSpec as KindSpec
