"""Answers of a store: numbered columns with the names of their series, as Arrow tables."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flexmeter.messages.rows import Rows
from flexmeter.storage.columns import Buckets, Conflicts, Versions
from flexmeter.storage.names import Labels
from flexmeter.storage.reports import Presence


def row_batch(labels: Labels, rows: Rows) -> pa.RecordBatch:
    """Return rows; a sigma that was not given is null."""
    columns = {
        **labels.columns(rows.series),
        "time_ms": pa.array(rows.time_ms),
        "value": pa.array(rows.value),
        "sigma": pa.array(rows.sigma, pa.float32(), mask=np.isnan(rows.sigma)),
        "quality": pa.array(rows.quality),
    }
    return pa.RecordBatch.from_pydict(columns)


def bucket_table(labels: Labels, found: Buckets) -> pa.Table:
    """Return the buckets of each series."""
    columns = {
        **labels.columns(found.series),
        "time_ms": found.time_ms,
        "count": found.count,
        "mean": found.total / found.count,
        "min": found.low,
        "max": found.high,
        "last": found.last,
    }
    return pa.table(columns)


def area_table(labels: Labels, found: Buckets) -> pa.Table:
    """Return buckets per quantity and phase over all series, in order of time."""
    names = labels.columns(found.series)
    table = pa.table(
        {
            "quantity": names["quantity"].cast(pa.string()),
            "phase": names["phase"].cast(pa.string()),
            "time_ms": found.time_ms,
            "count": found.count,
            "total": found.total,
            "low": found.low,
            "high": found.high,
        }
    )
    by = ["quantity", "phase", "time_ms"]
    joined = table.group_by(by).aggregate(
        [("low", "count"), ("count", "sum"), ("total", "sum"), ("low", "min"), ("high", "max")]
    )
    joined = joined.sort_by([(name, "ascending") for name in ("time_ms", "quantity", "phase")])
    return pa.table(
        {
            **{name: joined[name] for name in by},
            "series": joined["low_count"],
            "count": joined["count_sum"],
            "mean": joined["total_sum"].to_numpy() / joined["count_sum"].to_numpy(),
            "min": joined["low_min"],
            "max": joined["high_max"],
        }
    )


def version_table(labels: Labels, found: Versions) -> pa.Table:
    """Return replaced values."""
    columns = {
        **labels.columns(found.rows.series),
        "time_ms": found.rows.time_ms,
        "version": found.version,
        "value": found.rows.value,
        "sigma": found.rows.sigma,
        "quality": found.rows.quality,
        "received_ms": found.received_ms,
        "replaced_ms": found.replaced_ms,
        "reason": pa.array(found.reason, pa.string()),
    }
    return pa.table(columns)


def conflict_table(labels: Labels, found: Conflicts, received_ms: NDArray[np.int64]) -> pa.Table:
    """Return refused second values."""
    columns = {
        **labels.columns(found.series),
        "time_ms": found.time_ms,
        "stored_value": found.stored_value,
        "refused_value": found.refused_value,
        "received_ms": received_ms,
    }
    return pa.table(columns)


def quality_table(labels: Labels, found: Presence, refused: Conflicts) -> pa.Table:
    """Return per series what was expected, came, is missing, suspect or was refused."""
    received = found.received.sum(axis=1, dtype=np.int64)
    expected = np.full(found.series.size, found.start_ms.size, np.int64)
    place = np.searchsorted(found.series, refused.series)
    columns = {
        **labels.columns(found.series),
        "expected": expected,
        "received": received,
        "missing": expected - received,
        "suspect": found.suspect,
        "conflicts": np.bincount(place, minlength=found.series.size).astype(np.int64),
    }
    return pa.table(columns)
