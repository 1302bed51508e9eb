"""How much a server takes on: bytes, pixels, seconds, requests at once."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field, fields


def _workers() -> int:
    return max(1, min(4, os.cpu_count() or 1))


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a server refuses, so that no client can take more than a share of the machine.

    Attributes:
        max_bytes: Largest body of a request, in bytes (413 beyond it).
        max_pixels: Most pixels of a picture, known from its header before anything is decoded (413).
        max_seconds: Longest wait for an answer, in seconds (503 where it had not begun, else 504).
        workers: How many pictures are computed at the same time.
        queue: How many more may wait for a worker (503 with ``Retry-After`` beyond it).
        uploads: How many bodies may be on their way at the same time (503).
        connections: How many connections may be open (503).
        header_seconds: How long a client may take to send the head of a request (the connection is closed).
        read_seconds: How long it may take to send the body (408).
        write_seconds: How long it may leave an answer unread (the connection is closed).
    """

    max_bytes: int = 10 * 2**20
    max_pixels: int = 25_000_000
    max_seconds: float = 20.0
    workers: int = field(default_factory=_workers)
    queue: int = 32
    uploads: int = 32
    connections: int = 512
    header_seconds: float = 10.0
    read_seconds: float = 15.0
    write_seconds: float = 20.0

    def __post_init__(self) -> None:
        for entry in fields(self):
            value, least = getattr(self, entry.name), 0 if entry.name == "queue" else 1
            if entry.name.endswith("seconds"):
                if not (math.isfinite(value) and value > 0):
                    raise ValueError(f"{entry.name} must be a positive number of seconds, got {value}")
            elif isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{entry.name} must be an integer, at least {least}, got {value!r}")
