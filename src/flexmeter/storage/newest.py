"""Newest value of every series in memory: answers `latest`, and tells new rows from old ones.

A row later than everything its series has cannot be a duplicate, so the common case needs no look
into the database.
"""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from flexmeter.messages.rows import Rows

NEVER_MS = np.iinfo(np.int64).min
"""Time of a series that has no value yet."""


class Newest:
    """Columns indexed by series number; safe to read while another thread updates."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._time_ms = np.full(0, NEVER_MS, np.int64)
        self._value = np.empty(0, np.float64)
        self._sigma = np.empty(0, np.float32)
        self._quality = np.empty(0, np.uint8)

    def reserve(self, count: int) -> None:
        """Make room for series up to number `count - 1`."""
        have = self._time_ms.size
        if count <= have:
            return
        more = max(count, 2 * have) - have
        with self._lock:
            self._time_ms = np.concatenate([self._time_ms, np.full(more, NEVER_MS, np.int64)])
            self._value = np.concatenate([self._value, np.full(more, np.nan)])
            self._sigma = np.concatenate([self._sigma, np.full(more, np.nan, np.float32)])
            self._quality = np.concatenate([self._quality, np.zeros(more, np.uint8)])

    def later(self, rows: Rows) -> NDArray[np.bool_]:
        """Return which rows are later than all their series has."""
        return np.asarray(rows.time_ms > self._time_ms[rows.series])

    def update(self, rows: Rows) -> None:
        """Take rows that are committed; of several for a series the latest counts."""
        if len(rows) == 0:
            return
        order = np.argsort(rows.time_ms, kind="stable")
        order = order[rows.time_ms[order] >= self._time_ms[rows.series[order]]]
        series = rows.series[order]
        with self._lock:
            # numpy assigns in order, so the last of equal numbers, the latest, stays
            self._time_ms[series] = rows.time_ms[order]
            self._value[series] = rows.value[order]
            self._sigma[series] = rows.sigma[order]
            self._quality[series] = rows.quality[order]

    def replace_all(self, rows: Rows, count: int) -> None:
        """Start anew from what the database has."""
        with self._lock:
            self._time_ms = np.full(0, NEVER_MS, np.int64)
        self.reserve(count)
        self.update(rows)

    def rows(self, series: NDArray[np.int32]) -> Rows:
        """Return the newest row of those of the series that have one."""
        with self._lock:
            known = series[self._time_ms[series] != NEVER_MS]
            return Rows(
                series=known,
                time_ms=self._time_ms[known],
                value=self._value[known],
                sigma=self._sigma[known],
                quality=self._quality[known],
            )

    def latest_ms(self) -> int | None:
        """Return the greatest time of all series, None without values."""
        latest = int(self._time_ms.max(initial=NEVER_MS))
        return None if latest == NEVER_MS else latest
