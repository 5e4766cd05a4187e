"""Columns into DuckDB (as Arrow tables) and out of it (as numpy arrays)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import duckdb
import numpy as np
import pyarrow as pa

from flexmeter.messages.rows import Rows
from flexmeter.storage.columns import Batch, Buckets, Conflicts
from flexmeter.storage.query import Span

_view_number = itertools.count()


@contextmanager
def view(cursor: duckdb.DuckDBPyConnection, table: pa.Table) -> Iterator[str]:
    """Give a table a name for queries; all cursors share the names, so each is used once."""
    name = f"given_{next(_view_number)}"
    cursor.register(name, table)
    try:
        yield name
    finally:
        cursor.unregister(name)


def keys_table(series: np.ndarray, time_ms: np.ndarray) -> pa.Table:
    """Return a table of keys."""
    return pa.table({"series": series, "time_ms": time_ms})


def batch_table(batch: Batch) -> pa.Table:
    """Return the rows in the columns of their table (see `schema.py` on the two value columns)."""
    rows = batch.rows
    with np.errstate(over="ignore", under="ignore"):  # such values simply do not fit
        narrow = rows.value.astype(np.float32)
    fits = bool(np.array_equal(narrow.astype(np.float64), rows.value))
    return pa.table(
        {
            "series": rows.series,
            "time_ms": rows.time_ms,
            "value32": narrow if fits else pa.nulls(len(rows), pa.float32()),
            "value64": pa.nulls(len(rows), pa.float64()) if fits else rows.value,
            "sigma": rows.sigma,
            "quality": rows.quality,
            "received_ms": np.full(len(rows), batch.received_ms, np.int64),
        }
    )


def conflicts_table(conflicts: Conflicts, received_ms: int) -> pa.Table:
    """Return conflicts in the columns of their table."""
    return pa.table(
        {
            "series": conflicts.series,
            "time_ms": conflicts.time_ms,
            "stored_value": conflicts.stored_value,
            "refused_value": conflicts.refused_value,
            "received_ms": np.full(conflicts.series.size, received_ms, np.int64),
        }
    )


def rows_of(result: duckdb.DuckDBPyConnection) -> Rows:
    """Return a result with the columns of rows."""
    columns = result.fetchnumpy()
    return Rows(
        series=np.asarray(columns["series"], np.int32),
        time_ms=np.asarray(columns["time_ms"], np.int64),
        value=np.asarray(columns["value"], np.float64),
        sigma=np.asarray(columns["sigma"], np.float32),
        quality=np.asarray(columns["quality"], np.uint8),
    )


def buckets_of(result: duckdb.DuckDBPyConnection) -> Buckets:
    """Return a result with the columns of buckets."""
    columns = result.fetchnumpy()
    return Buckets(
        series=np.asarray(columns["series"], np.int32),
        time_ms=np.asarray(columns["time_ms"], np.int64),
        count=np.asarray(columns["count"], np.int64),
        total=np.asarray(columns["total"], np.float64),
        low=np.asarray(columns["low"], np.float64),
        high=np.asarray(columns["high"], np.float64),
        last=np.asarray(columns["last"], np.float64),
    )


def where(series: np.ndarray | None, span: Span) -> tuple[str, list[object]]:
    """Return the condition on time and series, and its parameters.

    The bounds beside the list let DuckDB skip row groups by their least and greatest series.
    """
    condition = "time_ms >= ? and time_ms < ?"
    parameters: list[object] = [span.start_ms, span.end_ms]
    if series is not None:
        condition += " and series between ? and ? and series in (select unnest(?))"
        low, high = (int(series.min()), int(series.max())) if series.size else (0, -1)
        parameters += [low, high, series]
    return condition, parameters
