"""Bounds on what one question, one request and all together may take."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pyarrow as pa
from fastapi import Request

from flexmeter.api.platform import QueryLimits
from flexmeter.api.problems import Problem


class Gate:
    """Lets a few bulk questions through at once, and each for a while."""

    def __init__(self, limits: QueryLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits = limits
        self._clock = clock
        self._free = threading.Semaphore(limits.at_once)

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Take a place for one question, or refuse it with 429."""
        if not self._free.acquire(blocking=False):
            wait = {"Retry-After": "1"}
            raise Problem(429, f"{self.limits.at_once} questions are under way, come again", wait)
        try:
            yield
        finally:
            self._free.release()

    def bounded(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Pass batches on; the place is free again when the last is gone or nobody asks any more."""
        with self.passing():
            end = self._clock() + self.limits.seconds
            for batch in batches:
                if self._clock() > end:
                    raise Problem(503, f"took longer than {self.limits.seconds:g} s: ask for less")
                yield batch


async def limited_body(request: Request, most_bytes: int) -> bytes:
    """Return the body; one that is too large is refused before it is read to its end."""
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > most_bytes:
            raise Problem(413, f"body: more than {most_bytes} bytes")
        parts.append(part)
    return b"".join(parts)
