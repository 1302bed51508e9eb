"""Errors that are the user's to mend: one line and exit code 2."""

from __future__ import annotations

import errno


class UserError(Exception):
    """Something that the user asked for cannot be done; the message says why and what to do."""


USER_ERRORS = (UserError, ValueError, TypeError, OSError, ImportError)
"""The library raises these at its public boundary, with messages that say the remedy."""

_NO_ROOM = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}


def one_line(error: BaseException) -> str:
    """Return an error's message on one line."""
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}; what was there is kept: make room, and run it again"
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}; check the path and its permissions"
    return " ".join(str(error).split()) or type(error).__name__
