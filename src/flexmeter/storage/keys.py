"""Arithmetic on keys (series, time) of rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from flexmeter.messages.rows import Rows


def take(rows: Rows, which: NDArray[np.bool_] | NDArray[np.intp]) -> Rows:
    """Return the rows a mask or an index names."""
    return Rows(
        series=rows.series[which],
        time_ms=rows.time_ms[which],
        value=rows.value[which],
        sigma=rows.sigma[which],
        quality=rows.quality[which],
    )


def once_each(rows: Rows) -> Iterator[NDArray[np.intp]]:
    """Split places of rows so that no key comes twice in a part; first comers are in the first.

    The places of a part are in order of time, then series, which is how rows compress best.
    """
    order = in_order(rows)
    while order.size:
        series, time_ms = rows.series[order], rows.time_ms[order]
        again = np.zeros(order.size, bool)
        again[1:] = (series[1:] == series[:-1]) & (time_ms[1:] == time_ms[:-1])
        if not again.any():
            yield order
            return
        yield order[~again]
        order = order[again]


def in_order(rows: Rows) -> NDArray[np.intp]:
    """Return the places of rows in order of time, then series; equal keys keep their order."""
    if len(rows) == 0:
        return np.empty(0, np.intp)
    first_ms = int(rows.time_ms.min())
    width = int(rows.series.max()) + 1
    if (int(rows.time_ms.max()) - first_ms) * width >= 2**62:
        return np.lexsort((rows.series, rows.time_ms))
    joined = (rows.time_ms - first_ms) * width + rows.series
    return np.argsort(joined, kind="stable")


def find(rows: Rows, among: Rows) -> NDArray[np.intp]:
    """Return for each row the place of its key in `among` (keys there are unique), -1 = not there."""
    group = _groups(np.concatenate([rows.series, among.series]), np.concatenate([rows.time_ms, among.time_ms]))
    place = np.full(group.size, -1, np.intp)
    place[group[len(rows) :]] = np.arange(len(among))
    return place[group[: len(rows)]]


def _groups(series: NDArray[np.int32], time_ms: NDArray[np.int64]) -> NDArray[np.intp]:
    """Number the keys: equal keys get equal numbers."""
    order = np.lexsort((time_ms, series))
    changes = (np.diff(series[order]) != 0) | (np.diff(time_ms[order]) != 0)
    group = np.empty(order.size, np.intp)
    group[order] = np.concatenate([[0], np.cumsum(changes)])[: order.size]
    return group
