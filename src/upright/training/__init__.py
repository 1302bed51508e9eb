"""Training of canonicalizers with Lightning, which is imported only when training starts.

``fit`` does everything; `upright.training.module.CanonicalizationModule` is the ``LightningModule`` for those
who want control. ``distil`` teaches a fast canonicalizer what a slow one answers.
"""

from .augment import CropAndFlip as CropAndFlip
from .augment import DestroyArtefacts as DestroyArtefacts
from .augment import JitterPoints as JitterPoints
from .distil import distil as distil
from .fit import FitResult as FitResult
from .fit import fit as fit
from .realign import Realigned as Realigned
from .realign import realign as realign
