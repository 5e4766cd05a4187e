"""Rows as points of InfluxDB, and groups of an answer as columns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from flexmeter.messages.quantities import Quality
from flexmeter.messages.rows import Rows
from flexmeter.storage.columns import Buckets
from flexmeter.storage.influxdb.client import Group
from flexmeter.storage.query import Span

Ids = NDArray[np.int32]
T = TypeVar("T", bound=np.generic)


def row_lines(measurement: str, rows: Rows, received_ms: int) -> list[str]:
    """Return a point per row; `good` says that the value is not suspect, for aggregates."""
    suspect = (rows.quality & np.uint8(Quality.QUESTIONABLE)) != 0
    columns = (rows.series, rows.time_ms, rows.value, rows.sigma.astype(float), rows.quality, ~suspect)
    return [
        f"{measurement},s={series} value={value!r},quality={quality}i,good={good},received={received_ms}i"
        f"{'' if math.isnan(sigma) else f',sigma={sigma!r}'} {time_ms}"
        for series, time_ms, value, sigma, quality, good in zip(*(c.tolist() for c in columns), strict=True)
    ]


def bucket_lines(measurement: str, step_ms: int, buckets: Buckets) -> list[str]:
    """Return a point per bucket."""
    columns = (getattr(buckets, name).tolist() for name in Buckets.__slots__)
    return [
        f"{measurement},step={step_ms},s={series} count={count}i,total={total!r},low={low!r},high={high!r},"
        f"last={last!r} {time_ms}"
        for series, time_ms, count, total, low, high, last in zip(*columns, strict=True)
    ]


def text(value: str) -> str:
    """Return a string field."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def rows_of(groups: Iterable[Group]) -> Rows:
    """Return groups by series, of columns value, sigma, quality, in order of time, then series."""
    return in_order(
        Rows(
            series=numbers(groups, "s", np.int32),
            time_ms=column(groups, "time", np.int64),
            value=column(groups, "value", np.float64),
            sigma=column(groups, "sigma", np.float32),
            quality=column(groups, "quality", np.uint8),
        )
    )


def in_order(rows: Rows) -> Rows:
    """Return rows in order of time, then series."""
    order = np.lexsort((rows.series, rows.time_ms))
    return Rows(*(getattr(rows, name)[order] for name in Rows.__slots__))


def buckets_of(groups: Iterable[Group]) -> Buckets:
    """Return groups by series with the columns of buckets; intervals without values are left out."""
    count = column(groups, "count", np.float64)
    there = count > 0
    columns = {name: column(groups, name, np.float64)[there] for name in ("total", "low", "high", "last")}
    found = Buckets(
        series=numbers(groups, "s", np.int32)[there],
        time_ms=column(groups, "time", np.int64)[there],
        count=count[there].astype(np.int64),
        **columns,
    )
    order = np.lexsort((found.series, found.time_ms))
    return Buckets(*(getattr(found, name)[order] for name in Buckets.__slots__))


def column(groups: Iterable[Group], name: str, kind: type[T]) -> NDArray[T]:
    """Return one column of all groups, nan for what is missing."""
    found = [
        np.nan if row[place] is None else row[place]
        for group in groups
        for place in [group.columns.index(name)]
        for row in group.values
    ]
    return np.array(found, kind)


def numbers(groups: Iterable[Group], tag: str, kind: type[T]) -> NDArray[T]:
    """Return a tag that is a number, once per row."""
    return np.array([int(group.tags[tag]) for group in groups for _ in group.values], kind)


def condition(series: Ids | Sequence[int] | None, span: Span) -> str:
    """Return the condition on time and series."""
    within = f"time >= {span.start_ms}ms and time < {span.end_ms}ms"
    if series is None:
        return within
    if len(series) == 0:
        return f"{within} and s = ''"
    return f"{within} and s =~ /^({'|'.join(map(str, series))})$/"
