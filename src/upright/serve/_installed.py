"""Imported first: says what to install where a package is missing."""

from importlib.util import find_spec

_MISSING = [name for name in ("fastapi", "uvicorn", "python_multipart") if find_spec(name) is None]
if _MISSING:
    raise ImportError(f"upright.serve needs {', '.join(_MISSING)}: pip install 'upright[serve]'")
