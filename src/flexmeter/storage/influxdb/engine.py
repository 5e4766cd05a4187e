"""The primitives of a store on InfluxDB.

A point is replaced by the next one of the same tags and time, and there are no transactions: what
belongs to rows is written before them, so that after a failure the rows are missing and come again.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flexmeter.errors import InputError, StorageError
from flexmeter.messages.rows import Rows
from flexmeter.storage import keys
from flexmeter.storage.base import Kind
from flexmeter.storage.columns import Batch, Buckets, Conflicts, Name, Versions
from flexmeter.storage.influxdb.client import Group, InfluxClient
from flexmeter.storage.influxdb.points import (
    bucket_lines,
    buckets_of,
    column,
    condition,
    numbers,
    row_lines,
    rows_of,
    text,
)
from flexmeter.storage.query import DAY_MS, Resolution, Span

Ids = NDArray[np.int32]
_SERIES_AT_ONCE = 5_000


class InfluxEngine:
    """One database of an InfluxDB server."""

    def __init__(self, client: InfluxClient) -> None:
        self._client = client

    @classmethod
    def open(cls, client: InfluxClient) -> InfluxEngine:
        """Create the database if it is missing."""
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,80}", client.database):
            raise InputError(f"database {client.database!r}: expected letters, digits, _ or -")
        client.ask(f'create database "{client.database}"')
        return cls(client)

    def names(self) -> list[Name]:
        """Return the names of all series; the place in the list is the number."""
        groups = self._client.ask("select source, meter, quantity, phase from series_names group by id")
        found = {
            int(group.tags["id"]): tuple(str(part) for part in row[1:]) for group in groups for row in group.values
        }
        names: list[Name] = []
        while len(names) in found:  # what a failed registration left behind a hole does not count
            source, meter, quantity, phase = found[len(names)]
            names.append((source, meter, quantity, phase))
        return names

    def add_names(self, first: int, names: Sequence[Name]) -> None:
        """Register series under the numbers `first`, `first + 1`, ..."""
        self._client.write(
            [
                f"series_names,id={number} source={text(source)},meter={text(meter)},"
                f"quantity={text(quantity)},phase={text(phase)} 0"
                for number, (source, meter, quantity, phase) in enumerate(names, first)
            ]
        )

    def newest(self, kind: Kind) -> Rows:
        """Return the row with the greatest time of every series that has one."""
        query = f"select value, sigma, quality from {kind} group by s order by time desc limit 1"
        return rows_of(self._client.ask(query))

    def oldest_ms(self, kind: Kind, from_ms: int = 0) -> int | None:
        """Return the least time of all rows from `from_ms` on, None without rows."""
        groups = self._client.ask(f"select first(value) from {kind} where time >= {from_ms}ms")
        return int(column(groups, "time", np.int64)[0]) if groups else None

    def find(self, kind: Kind, series: Ids, time_ms: NDArray[np.int64]) -> Rows:
        """Return the rows that are stored under these keys."""
        span = Span(int(time_ms.min()), int(time_ms.max()) + 1)
        nearby = self.scan(kind, np.unique(series), span)
        n = series.size
        wanted = Rows(series, time_ms, np.zeros(n), np.zeros(n, np.float32), np.zeros(n, np.uint8))
        return keys.take(nearby, keys.find(nearby, wanted) >= 0)

    def insert(self, kind: Kind, batch: Batch) -> None:
        """Add rows with new keys, their conflicts and stale marks."""
        found = batch.conflicts
        delivery = uuid.uuid4().hex
        columns = (found.series, found.time_ms, found.stored_value, found.refused_value)
        lines = [
            f"conflicts,s={series},n={delivery}-{place} stored={stored!r},refused={refused!r},"
            f"received={batch.received_ms}i {time_ms}"
            for place, (series, time_ms, stored, refused) in enumerate(zip(*(c.tolist() for c in columns), strict=True))
        ]
        lines += [f"{kind}_stale,mark={batch.mark} hour={hour_ms}i {hour_ms}" for hour_ms in batch.stale_hours]
        self._client.write(lines)
        self._client.write(row_lines(kind, batch.rows, batch.received_ms))

    def replace(self, kind: Kind, batch: Batch, reason: str) -> None:
        """Put these rows in force; copy what was stored under their keys to the versions."""
        rows = batch.rows
        span = Span(int(rows.time_ms.min()), int(rows.time_ms.max()) + 1)
        series = np.unique(rows.series)
        groups = self._groups(f"select value, sigma, quality, received from {kind} where", series, span, "s")
        received = _received(groups)
        before = self.versions(kind, series, span)
        lines = []
        stored = self.find(kind, rows.series, rows.time_ms)
        for place in range(len(stored)):
            row = keys.take(stored, np.array([place]))
            key = (int(row.series[0]), int(row.time_ms[0]))
            same = (before.rows.series == key[0]) & (before.rows.time_ms == key[1])
            kept = set(zip(before.rows.value[same].tolist(), before.received_ms[same].tolist(), strict=True))
            if (float(row.value[0]), received[key]) in kept:
                continue  # copied before a failure
            head, tail = row_lines(f"{kind}_versions", row, received[key])[0].split(",s=", 1)
            tags, fields, time_ms = tail.split(" ")
            lines.append(
                f"{head},s={tags},version={1 + int(same.sum())} {fields},replaced={batch.received_ms}i,"
                f"reason={text(reason)} {time_ms}"
            )
        self._client.write(lines)
        self.insert(kind, batch)

    def scan(self, kind: Kind, series: Ids | None, span: Span) -> Rows:
        """Return rows in order of time, then series."""
        return rows_of(self._groups(f"select value, sigma, quality from {kind} where", series, span, "s"))

    def aggregate(self, kind: Kind, series: Ids | None, span: Span, step_ms: int) -> Buckets:
        """Roll up values that are not suspect; buckets start at multiples of `step_ms`."""
        query = f"""select count(value), sum(value) as total, min(value) as low, max(value) as high,
            last(value) as last from {kind} where good = true and"""
        return buckets_of(self._groups(query, series, span, f"s, time({step_ms}ms) fill(none)"))

    def versions(self, kind: Kind, series: Ids | None, span: Span) -> Versions:
        """Return replaced values in order of time, series, version."""
        query = f"select value, sigma, quality, received, replaced, reason from {kind}_versions where"
        groups = self._groups(query, series, span, "s, version")
        version = numbers(groups, "version", np.int32)
        rows = Rows(
            series=numbers(groups, "s", np.int32),
            time_ms=column(groups, "time", np.int64),
            value=column(groups, "value", np.float64),
            sigma=column(groups, "sigma", np.float32),
            quality=column(groups, "quality", np.uint8),
        )
        order = np.lexsort((version, rows.series, rows.time_ms))
        reasons = column(groups, "reason", np.str_)
        return Versions(
            rows=keys.take(rows, order),
            version=version[order],
            received_ms=column(groups, "received", np.int64)[order],
            replaced_ms=column(groups, "replaced", np.int64)[order],
            reason=tuple(str(reasons[place]) for place in order),
        )

    def conflicts(self, series: Ids | None, span: Span) -> tuple[Conflicts, NDArray[np.int64]]:
        """Return refused readings, and when each was received [ms UTC]."""
        groups = self._groups("select stored, refused, received from conflicts where", series, span, "s, n")
        ids, time_ms = numbers(groups, "s", np.int32), column(groups, "time", np.int64)
        order = np.lexsort((ids, time_ms))
        found = Conflicts(
            series=ids[order],
            time_ms=time_ms[order],
            stored_value=column(groups, "stored", np.float64)[order],
            refused_value=column(groups, "refused", np.float64)[order],
        )
        return found, column(groups, "received", np.int64)[order]

    def roll_up(self, kind: Kind, step: Resolution, span: Span) -> None:
        """Compute the stored buckets of the span from the rows, days from the hours."""
        if step is Resolution.DAY:
            buckets = _days(self.rolled(kind, Resolution.HOUR, None, span))
        else:
            buckets = self.aggregate(kind, None, span, int(step))
        self._client.ask(f"delete from {kind}_buckets where step = '{int(step)}' and {condition(None, span)}")
        self._client.write(bucket_lines(f"{kind}_buckets", int(step), buckets))

    def rolled(self, kind: Kind, step: Resolution, series: Ids | None, span: Span) -> Buckets:
        """Return stored buckets that start within the span."""
        query = f"select count, total, low, high, last from {kind}_buckets where step = '{int(step)}' and"
        return buckets_of(self._groups(query, series, span, "s"))

    def stale(self, kind: Kind) -> list[tuple[int, int]]:
        """Return hour [ms UTC] and mark of the hours whose stored buckets are out of date."""
        groups = self._client.ask(f"select hour from {kind}_stale group by mark")
        marks: dict[int, int] = {}
        for hour_ms, mark in zip(column(groups, "hour", np.int64), numbers(groups, "mark", np.int64), strict=True):
            marks[int(hour_ms)] = max(int(mark), marks.get(int(hour_ms), 0))
        return sorted(marks.items())

    def freshen(self, kind: Kind, until_mark: int) -> None:
        """Forget stale marks up to this one."""
        for group in self._client.ask(f"select hour from {kind}_stale group by mark"):
            if int(group.tags["mark"]) <= until_mark:
                self._client.ask(f"delete from {kind}_stale where mark = '{group.tags['mark']}'")

    def note(self, name: str) -> int | None:
        """Return a number kept with `set_note`."""
        groups = self._client.ask(f"select number from notes where \"name\" = '{name}'")
        return int(column(groups, "number", np.int64)[0]) if groups else None

    def set_note(self, name: str, value: int) -> None:
        """Keep a number under a name."""
        self._client.write([f"notes,name={name} number={value}i 0"])

    def drop_before(self, kind: Kind, step: Resolution | None, time_ms: int) -> None:
        """Delete rows (step None) or stored buckets that lie before this time."""
        if step is None:
            self._client.ask(f"delete from {kind} where time < {time_ms}ms")
        else:
            self._client.ask(f"delete from {kind}_buckets where step = '{int(step)}' and time < {time_ms}ms")

    def tidy(self, kind: Kind) -> None:
        """Leave it to the server's own compaction."""

    def backup(self, target: Path) -> None:
        """Refuse: only the server's own `influxd backup` sees one state of the database."""
        raise StorageError(f"backup: use `influxd backup -portable -database {self._client.database} {target}`")

    def size_bytes(self) -> int | None:
        """Return None: the API does not tell."""
        return None

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _groups(self, query: str, series: Ids | None, span: Span, by: str) -> list[Group]:
        """Ask for some series at a time: their numbers stand in the query."""
        if series is None or series.size <= _SERIES_AT_ONCE:
            return self._client.ask(f"{query} {condition(series, span)} group by {by}")
        parts = np.array_split(series, -(-series.size // _SERIES_AT_ONCE))
        return [g for part in parts for g in self._client.ask(f"{query} {condition(part, span)} group by {by}")]


def _received(groups: Sequence[Group]) -> dict[tuple[int, int], int]:
    """Return when the value of each key was received."""
    columns = (
        numbers(groups, "s", np.int32),
        column(groups, "time", np.int64),
        column(groups, "received", np.int64),
    )
    return {(series, time_ms): at for series, time_ms, at in zip(*(c.tolist() for c in columns), strict=True)}


def _days(hours: Buckets) -> Buckets:
    """Join the buckets of hours, in order of time, to days."""
    start_ms = hours.time_ms // DAY_MS * DAY_MS
    order = np.lexsort((hours.time_ms, hours.series, start_ms))
    changes = (np.diff(hours.series[order]) != 0) | (np.diff(start_ms[order]) != 0)
    first = np.flatnonzero(np.concatenate([[True], changes])) if order.size else np.empty(0, np.intp)
    if first.size == 0:
        return Buckets.none()
    after = np.concatenate([first[1:], [order.size]]) - 1
    return Buckets(
        series=hours.series[order][first],
        time_ms=start_ms[order][first],
        count=np.add.reduceat(hours.count[order], first),
        total=np.add.reduceat(hours.total[order], first),
        low=np.minimum.reduceat(hours.low[order], first),
        high=np.maximum.reduceat(hours.high[order], first),
        last=hours.last[order][after],
    )
