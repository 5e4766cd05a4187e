"""From a window of checked messages to committed rows: the interface between Event Source and store.

Two implementations: `DirectWriter` (this process owns the store) and `stream.StreamWriter` (writers elsewhere).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from flexmeter.messages.rows import Rows, WriteResult
from flexmeter.pipeline.check import Checked, Kind, Layout
from flexmeter.storage.base import Store

_MAX_LAYOUTS = 200_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a commit did: which messages brought something new, and the counts of single values."""

    new: Sequence[bool]
    stored: int
    duplicate: int
    conflict: int


class Writer(Protocol):
    """Commits windows; durable on return. Raises `StorageError` if nothing was committed or it is unknown what."""

    async def commit(self, window: Sequence[Checked]) -> Outcome:
        """Make the messages of a window durable."""


class DirectWriter:
    """Writes to a store of this process in one thread, while the loop gathers the next window."""

    def __init__(self, store: Store) -> None:
        self._batcher = Batcher(store)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"writer-{store.tenant}")

    async def commit(self, window: Sequence[Checked]) -> Outcome:
        """Commit in the writer's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._batcher.write, window)

    def close(self) -> None:
        """Wait for a commit under way and end the thread."""
        self._thread.shutdown()


class Batcher:
    """Turns windows into rows of numbered series and writes them, readings and estimates apart."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._series: dict[Layout, NDArray[np.int32]] = {}

    def write(self, window: Sequence[Checked]) -> Outcome:
        """Write a window; durable on return."""
        new = np.zeros(len(window), dtype=bool)
        totals = np.zeros(3, dtype=np.int64)
        kinds: tuple[Kind, ...] = ("readings", "estimates")
        for kind in kinds:
            places = np.array([i for i, one in enumerate(window) if one.kind == kind], dtype=np.intp)
            if not places.size:
                continue
            rows, owner = self._rows([window[i] for i in places])
            result = self._store.write(rows) if kind == "readings" else self._store.write_estimates(rows)
            new[places] = _new_messages(result, owner, places.size)
            totals += (result.stored, result.duplicate, result.conflict)
        return Outcome(new.tolist(), *totals.tolist())

    def _rows(self, window: Sequence[Checked]) -> tuple[Rows, NDArray[np.intp]]:
        """Return the rows of a window and which message each came from; missing values are left out."""
        sizes = np.array([one.values.size for one in window])
        owner = np.repeat(np.arange(len(window)), sizes)
        times = np.array([one.time_ms for one in window], dtype=np.int64)
        values = np.concatenate([one.values for one in window])
        self._number([one.layout for one in window])
        series = np.concatenate([self._series[one.layout] for one in window])
        sigma = np.full(values.size, np.nan, dtype=np.float32)
        quality = np.array([one.quality_of_all for one in window], dtype=np.uint8)[owner]
        if any(one.sigma is not None or one.quality is not None for one in window):
            _fill(window, sizes, sigma, quality)
        rows = Rows(series, times[owner], values, sigma, quality)
        there = ~np.isnan(values)
        if there.all():
            return rows, owner
        kept = Rows(rows.series[there], rows.time_ms[there], rows.value[there], rows.sigma[there], rows.quality[there])
        return kept, owner[there]

    def _number(self, layouts: Sequence[Layout]) -> None:
        """Learn the series numbers of all layouts, in one request for the new ones."""
        if len(self._series) >= _MAX_LAYOUTS:
            self._series.clear()
        new = list(dict.fromkeys(layout for layout in layouts if layout not in self._series))
        if not new:
            return
        keys = [layout.keys() for layout in new]
        numbers = self._store.series_ids([key for part in keys for key in part])
        ends = np.cumsum([len(part) for part in keys])
        self._series.update(zip(new, np.split(numbers, ends[:-1]), strict=True))


def _fill(
    window: Sequence[Checked], sizes: NDArray[np.intp], sigma: NDArray[np.float32], quality: NDArray[np.uint8]
) -> None:
    start = 0
    for one, size in zip(window, sizes.tolist(), strict=True):
        if one.sigma is not None:
            sigma[start : start + size] = one.sigma
        if one.quality is not None:
            quality[start : start + size] |= one.quality
        start += size


def _new_messages(result: WriteResult, owner: NDArray[np.intp], count: int) -> NDArray[np.bool_]:
    """Return which of the messages brought at least one new row."""
    if result.duplicate == result.conflict == 0:
        return np.ones(count, dtype=bool)
    if result.stored == 0:
        return np.zeros(count, dtype=bool)
    assert result.new is not None, "a store must say which rows are new when some are and some are not"
    return np.bincount(owner[result.new], minlength=count) > 0
