"""The two interfaces of the data storage.

    pipeline, API  ->  Store (one tenant)  ->  Engine (one database)
                       store.py: the rules     duckdb/, postgresql/, influxdb/, clickhouse/

A store belongs to one tenant and has a database of its own. One process owns it; one thread writes
at a time, any number of threads ask. A method that writes has committed when it returns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flexmeter.messages.rows import Rows, SeriesKey, WriteResult
from flexmeter.storage.columns import Batch, Buckets, Conflicts, Name, Versions
from flexmeter.storage.query import Resolution, Selection, Span

Kind = Literal["readings", "estimates"]
"""Readings of meters and results of state estimation lie in tables of their own."""
KINDS: tuple[Kind, ...] = ("readings", "estimates")


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

        A row whose key is there with another value is not stored but recorded as a conflict,
        except for rows flagged `Quality.CORRECTED`: they replace it, and are counted as stored.
        Numbers that `series_ids` never gave, or values that are not finite, raise StorageError and nothing is stored.
        """

    def correct(self, rows: Rows, reason: str) -> WriteResult:
        """Put corrected readings in force; what they replace is kept as an older version."""

    def write_estimates(self, rows: Rows) -> WriteResult:
        """Store estimates; a different estimate of a key replaces the one before.

        What is replaced is kept as an older version; an estimate that was in force before (a late
        second delivery) is a duplicate.
        """

    def series(self, chosen: Selection) -> pa.Table:
        """Return the chosen series: `series, source, meter, quantity, phase`."""

    def readings(self, chosen: Selection, span: Span, kind: Kind = "readings") -> Iterator[pa.RecordBatch]:
        """Yield `time_ms, value, sigma, quality` in order of time then series, in bounded memory."""

    def latest(self, chosen: Selection, kind: Kind = "readings") -> pa.Table:
        """Return the newest value of every chosen series, from memory."""

    def aggregate(self, chosen: Selection, span: Span, step: Resolution, kind: Kind = "readings") -> pa.Table:
        """Return per series and bucket `time_ms, count, mean, min, max, last`.

        Values flagged as suspect are left out. The span is widened to whole buckets.
        """

    def aggregate_area(self, chosen: Selection, span: Span, step: Resolution, kind: Kind = "readings") -> pa.Table:
        """Return per quantity, phase and bucket `time_ms, series, count, mean, min, max`.

        All chosen series together; `series` says how many had a value.
        """

    def versions(self, chosen: Selection, span: Span, kind: Kind = "readings") -> pa.Table:
        """Return replaced values, version 1 being the first.

        Columns: `time_ms, version, value, sigma, quality, received_ms, replaced_ms, reason`.
        """

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


class Engine(Protocol):
    """What a database has to offer; `store.py` does the rest.

    `series` is an array of series numbers, or None for all. Every writing method is one
    transaction, durable on return, and may be repeated after a failure without harm. Methods that
    only ask may be called from any thread while another thread writes. Failures of the database
    raise StorageError.
    """

    def names(self) -> list[Name]:
        """Return the names of all series; the place in the list is the number."""

    def add_names(self, first: int, names: Sequence[Name]) -> None:
        """Register series under the numbers `first`, `first + 1`, ..."""

    def newest(self, kind: Kind) -> Rows:
        """Return the row with the greatest time of every series that has one."""

    def oldest_ms(self, kind: Kind, from_ms: int = 0) -> int | None:
        """Return the least time of all rows from `from_ms` on, None without rows."""

    def find(self, kind: Kind, series: NDArray[np.int32], time_ms: NDArray[np.int64]) -> Rows:
        """Return the rows that are stored under these keys."""

    def insert(self, kind: Kind, batch: Batch) -> None:
        """Add rows with new keys, their conflicts and stale marks."""

    def replace(self, kind: Kind, batch: Batch, reason: str) -> None:
        """Put these rows in force; move what was stored under their keys to the versions."""

    def scan(self, kind: Kind, series: NDArray[np.int32] | None, span: Span) -> Rows:
        """Return rows in order of time, then series."""

    def aggregate(self, kind: Kind, series: NDArray[np.int32] | None, span: Span, step_ms: int) -> Buckets:
        """Roll up values that are not suspect; buckets start at multiples of `step_ms`."""

    def versions(self, kind: Kind, series: NDArray[np.int32] | None, span: Span) -> Versions:
        """Return replaced values in order of time, series, version."""

    def conflicts(self, series: NDArray[np.int32] | None, span: Span) -> tuple[Conflicts, NDArray[np.int64]]:
        """Return refused readings, and when each was received [ms UTC]."""

    def roll_up(self, kind: Kind, step: Resolution, span: Span) -> None:
        """Compute the stored buckets of the span, whole multiples of the step, from the rows."""

    def rolled(self, kind: Kind, step: Resolution, series: NDArray[np.int32] | None, span: Span) -> Buckets:
        """Return stored buckets that start within the span."""

    def stale(self, kind: Kind) -> list[tuple[int, int]]:
        """Return hour [ms UTC] and mark of the hours whose stored buckets are out of date."""

    def freshen(self, kind: Kind, until_mark: int) -> None:
        """Forget stale marks up to this one."""

    def note(self, name: str) -> int | None:
        """Return a number kept with `set_note`."""

    def set_note(self, name: str, value: int) -> None:
        """Keep a number under a name."""

    def drop_before(self, kind: Kind, step: Resolution | None, time_ms: int) -> None:
        """Delete rows (step None) or stored buckets that lie before this time."""

    def tidy(self, kind: Kind) -> None:
        """Do what the database needs from time to time, while reading and writing go on."""

    def backup(self, target: Path) -> None:
        """Write a consistent copy of the database into an empty folder."""

    def size_bytes(self) -> int | None:
        """Return the space on disk, None if the database does not tell."""

    def close(self) -> None:
        """Release the database."""
