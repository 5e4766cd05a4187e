"""Completeness of readings: quality, gaps and read-success rate per interval."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flexmeter.errors import InputError
from flexmeter.messages.quantities import Quality
from flexmeter.messages.rows import Rows
from flexmeter.storage.query import Span

MOST_CELLS = 100_000_000
"""Series times intervals that one question may cover (one byte each)."""


@dataclass(frozen=True, slots=True)
class Presence:
    """Which series had a value in which interval.

    Attributes
    ----------
    series : (n,) ascending.
    start_ms : (m,) [ms UTC] starts of the intervals.
    received : (n, m) whether there was a value.
    suspect : (n,) number of values flagged questionable.
    """

    series: NDArray[np.int32]
    start_ms: NDArray[np.int64]
    received: NDArray[np.bool_]
    suspect: NDArray[np.int64]


def presence(parts: Iterable[Rows], series: NDArray[np.int32], span: Span, interval_ms: int) -> Presence:
    """Count rows into intervals that start at multiples of `interval_ms` within the span."""
    if interval_ms <= 0:
        raise InputError(f"interval: {interval_ms} ms, expected more than 0")
    count = span.buckets(interval_ms)
    if count * max(series.size, 1) > MOST_CELLS:
        raise InputError(f"{series.size} series over {count} intervals: ask for at most {MOST_CELLS} in all")
    first_ms = -(-span.start_ms // interval_ms) * interval_ms
    received = np.zeros((series.size, count), bool)
    suspect = np.zeros(series.size, np.int64)
    for rows in parts:
        interval = (rows.time_ms - first_ms) // interval_ms
        inside = (interval >= 0) & (interval < count)
        place = np.searchsorted(series, rows.series[inside])
        received[place, interval[inside]] = True
        doubtful = (rows.quality[inside] & np.uint8(Quality.QUESTIONABLE)) != 0
        np.add.at(suspect, place[doubtful], 1)
    start_ms = first_ms + interval_ms * np.arange(count, dtype=np.int64)
    return Presence(series, start_ms, received, suspect)


def gaps(found: Presence, interval_ms: int) -> tuple[NDArray[np.int32], dict[str, pa.Array]]:
    """Return series and start, end and length of every run of intervals without a value."""
    absent = ~found.received
    edge = np.diff(np.pad(absent, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    row, first = np.nonzero(edge == 1)
    _, after = np.nonzero(edge == -1)
    start_ms = found.start_ms[first] if row.size else np.empty(0, np.int64)
    length = (after - first).astype(np.int64)
    columns = {
        "start_ms": pa.array(start_ms),
        "end_ms": pa.array(start_ms + length * interval_ms),
        "missing": pa.array(length),
    }
    return found.series[row], columns


def read_success(found: Presence) -> pa.Table:
    """Return per interval how many of the series had a value, and the share (nan without series)."""
    expected, intervals = found.received.shape
    received = found.received.sum(axis=0, dtype=np.int64)
    rate = received / expected if expected else np.full(intervals, np.nan)
    return pa.table(
        {
            "time_ms": found.start_ms,
            "expected": np.full(intervals, expected, np.int64),
            "received": received,
            "rate": rate,
        }
    )
