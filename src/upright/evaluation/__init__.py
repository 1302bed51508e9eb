"""How much it helped: every way to run the model, at every pose, into one `Report`, tables and figures."""

from .figures import plot_angles as plot_angles
from .figures import plot_reliability as plot_reliability
from .gallery import plot_gallery as plot_gallery
from .leakage import Leakage as Leakage
from .metrics import Estimate as Estimate
from .orbit import ROWS as ROWS
from .overhead import Overhead as Overhead
from .overhead import measure_overhead as measure_overhead
from .protocol import evaluate as evaluate
from .report import CanonicalizerMetrics as CanonicalizerMetrics
from .report import PoseAccuracy as PoseAccuracy
from .report import Report as Report
from .report import RowMetrics as RowMetrics
from .report import Setting as Setting
