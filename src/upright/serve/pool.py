"""A bounded number of workers and of places in the queue; whoever finds none is told when to come back."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from .limits import Limits
from .refused import RefusedError

T = TypeVar("T")


class GoneError(Exception):
    """The client has left; no one waits for the answer."""


class Pool:
    """Threads that compute, so that the loop that reads and writes never waits.

    A place is held from admission until the computation has really ended: a computation that nobody waits for
    any more, because it took too long, still counts.

    Args:
        limits: How many workers and places there are, and how long an answer may take.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._threads = ThreadPoolExecutor(limits.workers, thread_name_prefix="upright-serve")
        self._lock = threading.Lock()
        self._held = 0
        self._seconds = 0.1

    @property
    def held(self) -> int:
        """How many computations run or wait."""
        return self._held

    @property
    def retry_after(self) -> int:
        """After how many seconds a place should be free, by how long computations took of late."""
        wait = self._seconds * max(1, self._held) / self._limits.workers
        return max(1, min(60, math.ceil(wait)))

    async def run(self, work: Callable[[], T], gone: Callable[[], Awaitable[Any]]) -> T:
        """Compute in a worker.

        Args:
            work: What to compute.
            gone: Returns when the client has left; what has not begun by then is not begun.

        Raises:
            RefusedError: If all places are taken (503), or the time is up (503 if nothing had begun, 504).
            GoneError: If the client has left.
        """
        future = self._admit(work)
        left: asyncio.Future[Any] = asyncio.ensure_future(gone())
        answer = asyncio.wrap_future(future)
        try:
            await asyncio.wait(
                {answer, left}, timeout=self._limits.max_seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if answer.done():
                return answer.result()
            waiting = future.cancel()
            if left.done():
                raise GoneError
            if waiting:
                raise self._busy()
            raise RefusedError(
                504, "too_slow", f"the answer took more than {self._limits.max_seconds:g} s; send less"
            )
        finally:
            left.cancel()
            answer.cancel()

    def close(self) -> None:
        """Let what runs end, and drop what waits."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _admit(self, work: Callable[[], T]) -> Future[T]:
        with self._lock:
            if self._held >= self._limits.workers + self._limits.queue:
                raise self._busy()
            self._held += 1
        try:
            future = self._threads.submit(self._timed, work)
        except BaseException:
            self._release()
            raise
        future.add_done_callback(lambda _: self._release())
        return future

    def _timed(self, work: Callable[[], T]) -> T:
        began = time.perf_counter()
        try:
            return work()
        finally:
            self._seconds += 0.2 * (time.perf_counter() - began - self._seconds)

    def _release(self) -> None:
        with self._lock:
            self._held -= 1

    def _busy(self) -> RefusedError:
        return RefusedError(
            503, "busy", "all workers are busy; ask again in a moment", retry_after=self.retry_after
        )
