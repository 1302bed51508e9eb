"""What runs without upright: graphs of canonicalizers and adapted models, as ONNX files or torch programs."""

from .graph import ExportError as ExportError
from .int8 import Quantized as Quantized
from .int8 import quantize as quantize
from .writing import Exported as Exported
from .writing import export as export
