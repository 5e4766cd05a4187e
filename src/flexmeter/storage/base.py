"""The two interfaces of the data storage.

    pipeline, API  ->  Store (one tenant)  ->  Engine (one database)
                       store.py: the rules     duckdb/, postgresql/, influxdb/, clickhouse/

A store belongs to one tenant and has a database of its own. One process owns it; one thread writes
at a time, any number of threads ask. A method that writes has committed when it returns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flexmeter.messages.rows import Rows, SeriesKey, WriteResult
from flexmeter.storage.query import Resolution, Selection, Span

Kind = Literal["readings", "estimates"]
"""Readings of meters and results of state estimation lie in tables of their own."""


def estimate_source(level: str, area: str) -> str:
    """Return the `source` under which the series of an estimate are named.

    A device name has no slash, so an estimate and a device never share a series.
    """
    return f"{level}/{area}"


class Store(Protocol):
    """Readings and estimates of one tenant.

    Answers are Arrow tables. Those of series carry the columns `source, meter, quantity, phase`
    (dictionary-encoded) beside their own; times are int64 [ms UTC], values in SI units.
    """

    tenant: str

    def series_ids(self, keys: Sequence[SeriesKey]) -> NDArray[np.int32]:
        """Return the number of each key; new keys are registered durably first.

        A key of another tenant raises StorageError.
        """

    def write(self, rows: Rows) -> WriteResult:
        """Store readings: durable on return, idempotent on (series, time), first value wins.

        A row whose key is there with another value is not stored but recorded as a conflict.
        Numbers that `series_ids` never gave raise StorageError and nothing is stored.
        """

    def correct(self, rows: Rows, reason: str) -> WriteResult:
        """Put corrected readings in force; what they replace is kept as an older version."""

    def write_estimates(self, rows: Rows) -> WriteResult:
        """Store estimates. A second, different estimate of a key replaces the first, which is kept
        as an older version; one that was in force before is a duplicate."""

    def series(self, chosen: Selection) -> pa.Table:
        """Return the chosen series: `series, source, meter, quantity, phase`."""

    def readings(
        self, chosen: Selection, span: Span, kind: Kind = "readings"
    ) -> Iterator[pa.RecordBatch]:
        """Yield `time_ms, value, sigma, quality` in order of time then series, in bounded memory."""

    def latest(self, chosen: Selection, kind: Kind = "readings") -> pa.Table:
        """Return the newest value of every chosen series, from memory."""

    def aggregate(
        self, chosen: Selection, span: Span, step: Resolution, kind: Kind = "readings"
    ) -> pa.Table:
        """Return per series and bucket `time_ms, count, mean, min, max, last`.

        Values flagged as suspect are left out. The span is widened to whole buckets.
        """

    def aggregate_area(
        self, chosen: Selection, span: Span, step: Resolution, kind: Kind = "readings"
    ) -> pa.Table:
        """Return per quantity, phase and bucket `time_ms, series, count, mean, min, max` over all
        chosen series."""

    def versions(self, chosen: Selection, span: Span, kind: Kind = "readings") -> pa.Table:
        """Return what was replaced: `time_ms, version, value, sigma, quality, received_ms,
        replaced_ms, reason`; version 1 is the first value."""

    def conflicts(self, chosen: Selection, span: Span) -> pa.Table:
        """Return refused second values: `time_ms, stored_value, refused_value, received_ms`."""

    def quality(self, chosen: Selection, span: Span, interval_ms: int) -> pa.Table:
        """Return per series `expected, received, missing, suspect, conflicts`.

        A series is expected to have one value in every interval that starts within the span.
        """

    def gaps(self, chosen: Selection, span: Span, interval_ms: int) -> pa.Table:
        """Return runs of missing intervals per series: `start_ms, end_ms, missing`."""

    def read_success(self, chosen: Selection, span: Span, interval_ms: int) -> pa.Table:
        """Return per interval `time_ms, expected, received, rate` over the chosen series."""

    def maintain(self) -> None:
        """Bring roll-ups up to date and drop what retention no longer keeps."""

    def export(self, span: Span, target: Path, kind: Kind = "readings") -> int:
        """Write the span to one Parquet file; return the number of rows."""

    def backup(self, target: Path) -> None:
        """Write a consistent copy into an empty folder, while reading and writing go on."""

    def close(self) -> None:
        """Release the database; later calls raise StorageError."""
