"""The small networks that run inside canonicalizers: thumbnails in, one score per group element out.

Each is equivariant by construction: when the picture moves by ``g``, the score of ``h`` moves to ``g @ h``.

==================  ============================  ==========================================
network             groups                        exact
==================  ============================  ==========================================
`OrbitScorer`       every C_n, D_n                quarter turns and flips; others: resampling
`OrbitComparer`     every C_n, D_n                the same
`OrbitVoter`        every C_n, D_n                the same
`MirrorTied`        D4                            always, with a network of C4 that is
`GroupCNN`          C1, C2, C4, D1, D2, D4        always, on odd and even sizes
`PolarNet`          every C_n, D_n                on the polar grid; the picture is resampled once
`PolarDensity`      SO2, O2                       quarter turns and flips; others: under a degree
`SteerableNet`      SO2, O2                       the same
`Glance`            SO2, every C_n                quarter turns; others: as far as it was learned
`LogPolarDensity`   scale, SO2xscale, O2xscale    quarter turns and flips; others: as measured
==================  ============================  ==========================================
"""

from .backbone import ResidualBackbone as ResidualBackbone
from .comparison import OrbitComparer as OrbitComparer
from .glance import Glance as Glance
from .group_cnn import GroupCNN as GroupCNN
from .lite import LiteBackbone as LiteBackbone
from .log_polar import LogPolarDensity as LogPolarDensity
from .mirror import MirrorTied as MirrorTied
from .orbit import OrbitScorer as OrbitScorer
from .polar import PolarNet as PolarNet
from .polar_density import PolarDensity as PolarDensity
from .spherical import SphericalDensity as SphericalDensity
from .steerable import SteerableNet as SteerableNet
from .thumbnail import thumbnail as thumbnail
from .vector_neurons import VectorNeurons as VectorNeurons
from .volume import VolumeBackbone as VolumeBackbone
from .voting import OrbitVoter as OrbitVoter
