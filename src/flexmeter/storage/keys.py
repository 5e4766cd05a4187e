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
    """Split places of rows so that no key comes twice in a part; first comers are in the first."""
    places = np.arange(len(rows))
    if len(rows) and _unique(rows):
        yield places
        return
    group = _groups(rows.series, rows.time_ms)
    while places.size:
        _, first = np.unique(group[places], return_index=True)
        yield places[np.sort(first)]
        places = np.delete(places, first)


def find(rows: Rows, among: Rows) -> NDArray[np.intp]:
    """Return for each row the place of its key in `among` (keys there are unique), -1 = not there."""
    group = _groups(np.concatenate([rows.series, among.series]), np.concatenate([rows.time_ms, among.time_ms]))
    place = np.full(group.size, -1, np.intp)
    place[group[len(rows) :]] = np.arange(len(among))
    return place[group[: len(rows)]]


def _unique(rows: Rows) -> bool:
    """Tell whether all keys differ; one sort of one column, since this is the way of every row."""
    first_ms = int(rows.time_ms.min())
    width = int(rows.series.max()) + 1
    if (int(rows.time_ms.max()) - first_ms) * width >= 2**62:
        return bool(np.unique(_groups(rows.series, rows.time_ms)).size == len(rows))
    joined = np.sort((rows.time_ms - first_ms) * width + rows.series)
    return not bool((joined[1:] == joined[:-1]).any())


def _groups(series: NDArray[np.int32], time_ms: NDArray[np.int64]) -> NDArray[np.intp]:
    """Number the keys: equal keys get equal numbers."""
    order = np.lexsort((time_ms, series))
    changes = (np.diff(series[order]) != 0) | (np.diff(time_ms[order]) != 0)
    group = np.empty(order.size, np.intp)
    group[order] = np.concatenate([[0], np.cumsum(changes)])[: order.size]
    return group
