"""Small models of every known class, made from their configurations; each file here lists ``ROWS``."""

import importlib
import pkgutil

from .rows import Row as Row

_FILES = sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name != "rows")
ROWS = [row for name in _FILES for row in importlib.import_module(f"{__name__}.{name}").ROWS]
