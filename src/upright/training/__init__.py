"""Training of canonicalizers with Lightning, which is imported only when training starts.

``fit`` does everything; `upright.training.module.CanonicalizationModule` is the ``LightningModule`` for those
who want control.
"""

from .augment import CropAndFlip as CropAndFlip
from .augment import DestroyArtefacts as DestroyArtefacts
from .fit import FitResult as FitResult
from .fit import fit as fit
