"""The primitives of a store on ClickHouse.

There are no transactions over several tables: what belongs to rows is inserted before them, so that
after a failure the rows are missing and come again.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flexmeter.errors import InputError, StorageError
from flexmeter.messages.quantities import Quality
from flexmeter.messages.rows import Rows
from flexmeter.storage.base import Kind
from flexmeter.storage.clickhouse.client import ClickhouseClient
from flexmeter.storage.clickhouse.schema import statements
from flexmeter.storage.columns import Batch, Buckets, Conflicts, Name, Versions
from flexmeter.storage.query import DAY_MS, Resolution, Span

Ids = NDArray[np.int32]
T = TypeVar("T", bound=np.generic)
_KEYS_AT_ONCE = 5_000


class ClickhouseEngine:
    """One database of a ClickHouse server."""

    def __init__(self, client: ClickhouseClient, database: str) -> None:
        self._client = client
        self._db = f"`{database}`"

    @classmethod
    def open(cls, client: ClickhouseClient, database: str) -> ClickhouseEngine:
        """Create the database and the tables that are missing."""
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,80}", database):
            raise InputError(f"database {database!r}: expected letters, digits, _ or -")
        for statement in statements(f"`{database}`"):
            client.run(statement)
        return cls(client, database)

    def names(self) -> list[Name]:
        """Return the names of all series; the place in the list is the number."""
        table = self._client.ask(f"select id, source, meter, quantity, phase from {self._db}.series final order by id")
        ids = _array(table, "id", np.int32)
        whole = int(np.argmin(ids == np.arange(ids.size))) if (ids != np.arange(ids.size)).any() else ids.size
        parts = [_texts(table, name) for name in ("source", "meter", "quantity", "phase")]
        return [(a, b, c, d) for a, b, c, d in zip(*parts, strict=True)][:whole]

    def add_names(self, first: int, names: Sequence[Name]) -> None:
        """Register series under the numbers `first`, `first + 1`, ..."""
        parts = dict(zip(("source", "meter", "quantity", "phase"), zip(*names, strict=True), strict=True))
        ids = np.arange(first, first + len(names), dtype=np.int32)
        columns = {name: pa.array(values, pa.string()) for name, values in parts.items()}
        self._insert("series", {"id": ids, **columns, "version": _now(ids.size)})

    def newest(self, kind: Kind) -> Rows:
        """Return the row with the greatest time of every series that has one."""
        return self._rows(
            f"""select series, max(r.time_ms) as time_ms, argMax(value, r.time_ms) as value,
                argMax(sigma, r.time_ms) as sigma, argMax(quality, r.time_ms) as quality
                from {self._db}.{kind} as r final group by series order by series"""
        )

    def oldest_ms(self, kind: Kind, from_ms: int = 0) -> int | None:
        """Return the least time of all rows from `from_ms` on, None without rows."""
        found = self._client.ask(
            f"select time_ms from {self._db}.{kind} where time_ms >= {from_ms} order by time_ms limit 1"
        )
        return int(_array(found, "time_ms", np.int64)[0]) if found.num_rows else None

    def find(self, kind: Kind, series: Ids, time_ms: NDArray[np.int64]) -> Rows:
        """Return the rows that are stored under these keys."""
        return Rows.concatenate(
            [
                self._rows(
                    f"select series, time_ms, value, sigma, quality from {self._db}.{kind} final "
                    f"where (series, time_ms) in ({keys})"
                )
                for keys in _key_lists(series, time_ms)
            ]
        )

    def insert(self, kind: Kind, batch: Batch) -> None:
        """Add rows with new keys, their conflicts and stale marks."""
        found, rows = batch.conflicts, batch.rows
        if found.series.size:
            columns = {name: getattr(found, name) for name in Conflicts.__slots__}
            received = np.full(found.series.size, batch.received_ms, np.int64)
            self._insert("conflicts", {**columns, "received_ms": received})
        if batch.stale_hours:
            hours = np.array(batch.stale_hours, np.int64)
            self._insert(f"{kind}_stale", {"hour_ms": hours, "mark": np.full(hours.size, batch.mark, np.int64)})
        if len(rows):
            columns = {name: getattr(rows, name) for name in Rows.__slots__}
            received = np.full(len(rows), batch.received_ms, np.int64)
            self._insert(kind, {**columns, "received_ms": received, "version": _now(len(rows))})

    def replace(self, kind: Kind, batch: Batch, reason: str) -> None:
        """Put these rows in force; copy what was stored under their keys to the versions."""
        text = reason.replace("\\", "\\\\").replace("'", "\\'")
        versions = f"{self._db}.{kind}_versions"
        for keys in _key_lists(batch.rows.series, batch.rows.time_ms):
            # what a failure between copying and inserting left is not copied again
            self._client.run(
                f"""insert into {versions}
                    select r.series, r.time_ms, 1 + v.number, r.value, r.sigma, r.quality, r.received_ms,
                    {batch.received_ms}, '{text}'
                    from (select * from {self._db}.{kind} final where (series, time_ms) in ({keys})) as r
                    left join (select series, time_ms, toInt32(count()) as number,
                        argMax(value, version) as copied, argMax(received_ms, version) as at
                        from {versions} final where (series, time_ms) in ({keys})
                        group by series, time_ms) as v
                    on r.series = v.series and r.time_ms = v.time_ms
                    where not (v.number > 0 and v.copied = r.value and v.at = r.received_ms)"""
            )
        self.insert(kind, batch)

    def scan(self, kind: Kind, series: Ids | None, span: Span) -> Rows:
        """Return rows in order of time, then series."""
        return self._rows(
            f"""select series, time_ms, value, sigma, quality from {self._db}.{kind} final
                where {_where(series, span)} order by time_ms, series"""
        )

    def aggregate(self, kind: Kind, series: Ids | None, span: Span, step_ms: int) -> Buckets:
        """Roll up values that are not suspect; buckets start at multiples of `step_ms`."""
        return self._buckets(self._aggregate(kind, _where(series, span), step_ms))

    def versions(self, kind: Kind, series: Ids | None, span: Span) -> Versions:
        """Return replaced values in order of time, series, version."""
        table = self._client.ask(
            f"""select * from {self._db}.{kind}_versions final where {_where(series, span)}
                order by time_ms, series, version"""
        )
        return Versions(
            rows=_rows(table),
            version=_array(table, "version", np.int32),
            received_ms=_array(table, "received_ms", np.int64),
            replaced_ms=_array(table, "replaced_ms", np.int64),
            reason=tuple(_texts(table, "reason")),
        )

    def conflicts(self, series: Ids | None, span: Span) -> tuple[Conflicts, NDArray[np.int64]]:
        """Return refused readings, and when each was received [ms UTC]."""
        table = self._client.ask(
            f"select * from {self._db}.conflicts where {_where(series, span)} order by time_ms, series"
        )
        found = Conflicts(
            series=_array(table, "series", np.int32),
            time_ms=_array(table, "time_ms", np.int64),
            stored_value=_array(table, "stored_value", np.float64),
            refused_value=_array(table, "refused_value", np.float64),
        )
        return found, _array(table, "received_ms", np.int64)

    def roll_up(self, kind: Kind, step: Resolution, span: Span) -> None:
        """Compute the stored buckets of the span from the rows, days from the hours."""
        if step is Resolution.DAY:
            query = f"""select series, intDiv(b.time_ms, {DAY_MS}) * {DAY_MS} as time_ms, sum(b.count) as count,
                sum(b.total) as total, min(b.low) as low, max(b.high) as high, argMax(b.last, b.time_ms) as last
                from {self._db}.{kind}_buckets as b final where step_ms = {int(Resolution.HOUR)}
                and b.time_ms >= {span.start_ms} and b.time_ms < {span.end_ms} group by series, time_ms"""
        else:
            query = self._aggregate(kind, _where(None, span), int(step))
        self._client.run(
            f"""insert into {self._db}.{kind}_buckets
                select toInt32({int(step)}), series, time_ms, toInt64(count), total, low, high, last,
                toUInt64({time.time_ns()}) from ({query})"""
        )

    def rolled(self, kind: Kind, step: Resolution, series: Ids | None, span: Span) -> Buckets:
        """Return stored buckets that start within the span."""
        return self._buckets(
            f"""select series, time_ms, count, total, low, high, last from {self._db}.{kind}_buckets final
                where step_ms = {int(step)} and {_where(series, span)} order by time_ms, series"""
        )

    def stale(self, kind: Kind) -> list[tuple[int, int]]:
        """Return hour [ms UTC] and mark of the hours whose stored buckets are out of date."""
        table = self._client.ask(
            f"select hour_ms, max(mark) as mark from {self._db}.{kind}_stale group by hour_ms order by hour_ms"
        )
        hours, marks = _array(table, "hour_ms", np.int64), _array(table, "mark", np.int64)
        return list(zip(hours.tolist(), marks.tolist(), strict=True))

    def freshen(self, kind: Kind, until_mark: int) -> None:
        """Forget stale marks up to this one."""
        self._delete(f"{kind}_stale", f"mark <= {until_mark}")

    def note(self, name: str) -> int | None:
        """Return a number kept with `set_note`."""
        found = self._client.ask(f"select value from {self._db}.notes final where name = '{name}'")
        return int(_array(found, "value", np.int64)[0]) if found.num_rows else None

    def set_note(self, name: str, value: int) -> None:
        """Keep a number under a name."""
        self._insert("notes", {"name": pa.array([name]), "value": np.array([value], np.int64), "version": _now(1)})

    def drop_before(self, kind: Kind, step: Resolution | None, time_ms: int) -> None:
        """Delete rows (step None) or stored buckets that lie before this time."""
        if step is None:
            self._delete(kind, f"time_ms < {time_ms}")
        else:
            self._delete(f"{kind}_buckets", f"step_ms = {int(step)} and time_ms < {time_ms}")

    def tidy(self, kind: Kind) -> None:
        """Leave it to the server's own merges."""

    def backup(self, target: Path) -> None:
        """Refuse: the server writes its backups to disks of its own."""
        raise StorageError(f"backup to {target}: use ClickHouse's own BACKUP DATABASE {self._db} TO Disk(...)")

    def size_bytes(self) -> int | None:
        """Return the size of the active parts."""
        found = self._client.ask(
            f"""select toInt64(sum(bytes_on_disk)) as size from system.parts
                where active and database = '{self._db.strip("`")}'"""
        )
        return int(_array(found, "size", np.int64)[0])

    def close(self) -> None:
        """Release the connection."""
        self._client.close()

    def _aggregate(self, kind: Kind, condition: str, step_ms: int) -> str:
        return f"""select series, start_ms as time_ms, count, total, low, high, last from (
            select series, intDiv(time_ms, {step_ms}) * {step_ms} as start_ms, count() as count,
            sum(value) as total, min(value) as low, max(value) as high, argMax(value, time_ms) as last
            from {self._db}.{kind} final
            where {condition} and bitAnd(quality, {int(Quality.QUESTIONABLE)}) = 0
            group by series, start_ms) order by start_ms, series"""

    def _insert(self, table: str, columns: dict[str, NDArray[np.generic] | pa.Array]) -> None:
        self._client.insert(f"{self._db}.{table}", pa.table(columns))

    def _delete(self, table: str, condition: str) -> None:
        self._client.run(f"alter table {self._db}.{table} delete where {condition} settings mutations_sync = 1")

    def _rows(self, query: str) -> Rows:
        return _rows(self._client.ask(query))

    def _buckets(self, query: str) -> Buckets:
        table = self._client.ask(query)
        return Buckets(
            series=_array(table, "series", np.int32),
            time_ms=_array(table, "time_ms", np.int64),
            count=_array(table, "count", np.int64),
            total=_array(table, "total", np.float64),
            low=_array(table, "low", np.float64),
            high=_array(table, "high", np.float64),
            last=_array(table, "last", np.float64),
        )


def _rows(table: pa.Table) -> Rows:
    return Rows(
        series=_array(table, "series", np.int32),
        time_ms=_array(table, "time_ms", np.int64),
        value=_array(table, "value", np.float64),
        sigma=_array(table, "sigma", np.float32),
        quality=_array(table, "quality", np.uint8),
    )


def _array(table: pa.Table, name: str, kind: type[T]) -> NDArray[T]:
    return np.asarray(table[name].to_numpy(), kind)


def _texts(table: pa.Table, name: str) -> list[str]:
    return [text.decode() if isinstance(text, bytes) else str(text) for text in table[name].to_pylist()]


def _now(count: int) -> NDArray[np.uint64]:
    """Return a version that grows with every insert of this process and of the ones after it."""
    return np.full(count, time.time_ns(), np.uint64)


def _key_lists(series: Ids, time_ms: NDArray[np.int64]) -> Iterable[str]:
    for first in range(0, series.size, _KEYS_AT_ONCE):
        part = slice(first, first + _KEYS_AT_ONCE)
        pairs = zip(series[part].tolist(), time_ms[part].tolist(), strict=True)
        yield ", ".join(f"({number}, {at})" for number, at in pairs)


def _where(series: Ids | None, span: Span) -> str:
    within = f"time_ms >= {span.start_ms} and time_ms < {span.end_ms}"
    if series is None:
        return within
    if series.size == 0:
        return f"{within} and 0"
    return f"{within} and series in ({', '.join(map(str, series.tolist()))})"
