"""The primitives of a store on DuckDB."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flexmeter.errors import StorageError
from flexmeter.messages.quantities import Quality
from flexmeter.messages.rows import Rows
from flexmeter.storage.base import KINDS, Kind
from flexmeter.storage.columns import Batch, Buckets, Conflicts, Name, Versions
from flexmeter.storage.duckdb.errors import storage_errors, transaction
from flexmeter.storage.duckdb.schema import CREATE, VALUE
from flexmeter.storage.duckdb.tables import (
    batch_table,
    buckets_of,
    conflicts_table,
    keys_table,
    rows_of,
    view,
    where,
)
from flexmeter.storage.duckdb.tiers import Tiers
from flexmeter.storage.query import DAY_MS, Resolution, Span

Ids = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class DuckdbOptions:
    """Limits of one database: memory [MB], threads, and new rows from which on they are sorted."""

    memory_mb: int = 1024
    threads: int = 2
    sort_rows: int = 3_000_000


class DuckdbEngine:
    """One DuckDB file. Writes share one connection, every question gets a cursor of its own."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, path: Path, sort_rows: int) -> None:
        self._connection = connection
        self._path = path
        self._sort_rows = sort_rows
        self._tiers = {kind: Tiers(connection, kind) for kind in KINDS}

    @classmethod
    def open(cls, path: Path, options: DuckdbOptions | None = None) -> DuckdbEngine:
        """Open or create the file; what was committed before a crash is there again."""
        options = options or DuckdbOptions()
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": f"{options.memory_mb}MB",
            "threads": options.threads,
            "temp_directory": f"{path}.tmp",
            "autoinstall_known_extensions": False,
        }
        with storage_errors(f"cannot open {path.name}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            connection = duckdb.connect(str(path), config=config)
            connection.execute(CREATE)
            return cls(connection, path, options.sort_rows)

    def names(self) -> list[Name]:
        """Return the names of all series; the place in the list is the number."""
        with self._asking() as cursor:
            found = cursor.execute("select source, meter, quantity, phase from series order by id").fetchall()
        return [(source, meter, quantity, phase) for source, meter, quantity, phase in found]

    def add_names(self, first: int, names: Sequence[Name]) -> None:
        """Register series under the numbers `first`, `first + 1`, ..."""
        source, meter, quantity, phase = zip(*names, strict=True)
        ids = np.arange(first, first + len(names), dtype=np.int32)
        columns = [pa.array(part, pa.string()) for part in (source, meter, quantity, phase)]
        table = pa.table([pa.array(ids), *columns], names=["id", "source", "meter", "quantity", "phase"])
        with self._transaction() as connection:
            connection.execute("delete from series where id >= ?", [first])
            connection.from_arrow(table).insert_into("series")

    def newest(self, kind: Kind) -> Rows:
        """Return the row with the greatest time of every series that has one."""
        with self._asking() as cursor:
            return rows_of(
                cursor.execute(
                    f"""select series, max(time_ms) as time_ms, arg_max({VALUE}, time_ms) as value,
                        arg_max(sigma, time_ms) as sigma, arg_max(quality, time_ms) as quality
                        from ({self._tiers[kind].newest_query()}) group by series"""
                )
            )

    def oldest_ms(self, kind: Kind, from_ms: int = 0) -> int | None:
        """Return the least time of all rows from `from_ms` on, None without rows."""
        return self._number(f"select min(time_ms) from {kind}_rows where time_ms >= ?", [from_ms])

    def find(self, kind: Kind, series: Ids, time_ms: NDArray[np.int64]) -> Rows:
        """Return the rows that are stored under these keys."""
        low, high = int(time_ms.min()), int(time_ms.max())
        with self._asking() as cursor, view(cursor, keys_table(series, time_ms)) as wanted:
            return rows_of(
                cursor.execute(
                    f"""select series, time_ms, {VALUE} as value, sigma, quality
                        from {kind}_rows join {wanted} using (series, time_ms)
                        where time_ms between ? and ?""",
                    [low, high],
                )
            )

    def insert(self, kind: Kind, batch: Batch) -> None:
        """Add rows with new keys, their conflicts and stale marks."""
        with self._tiers[kind].appending, self._transaction() as connection:
            self._add(connection, kind, batch)

    def replace(self, kind: Kind, batch: Batch, reason: str) -> None:
        """Put these rows in force; move what was stored under their keys to the versions."""
        keys = keys_table(batch.rows.series, batch.rows.time_ms)
        bounds = [int(batch.rows.time_ms.min()), int(batch.rows.time_ms.max())]
        tiers = self._tiers[kind]
        with tiers.moving, tiers.appending, self._transaction() as connection, view(connection, keys) as given:
            connection.execute(
                f"""insert into {kind}_versions
                    select series, time_ms, 1 + (select count(*) from {kind}_versions v
                        where v.series = r.series and v.time_ms = r.time_ms),
                    {VALUE}, sigma, quality, received_ms, ?, ?
                    from {kind}_rows r join {given} using (series, time_ms)
                    where time_ms between ? and ?""",
                [batch.received_ms, reason, *bounds],
            )
            for table in (f"{kind}_newest", *tiers.tables()):
                connection.execute(
                    f"""delete from {table} using {given} where {table}.series = {given}.series
                        and {table}.time_ms = {given}.time_ms and {table}.time_ms between ? and ?""",
                    bounds,
                )
            self._add(connection, kind, batch)

    def scan(self, kind: Kind, series: Ids | None, span: Span) -> Rows:
        """Return rows in order of time, then series."""
        condition, parameters = where(series, span)
        with self._asking() as cursor:
            return rows_of(
                cursor.execute(
                    f"""select series, time_ms, {VALUE} as value, sigma, quality from {kind}_rows
                        where {condition} order by time_ms, series""",
                    parameters,
                )
            )

    def aggregate(self, kind: Kind, series: Ids | None, span: Span, step_ms: int) -> Buckets:
        """Roll up values that are not suspect; buckets start at multiples of `step_ms`."""
        condition, parameters = where(series, span)
        with self._asking() as cursor:
            return buckets_of(cursor.execute(_aggregate_rows(kind, condition), [step_ms, *parameters]))

    def versions(self, kind: Kind, series: Ids | None, span: Span) -> Versions:
        """Return replaced values in order of time, series, version."""
        condition, parameters = where(series, span)
        with self._asking() as cursor:
            columns = cursor.execute(
                f"select * from {kind}_versions where {condition} order by time_ms, series, version",
                parameters,
            ).fetchnumpy()
        return Versions(
            rows=Rows(*(columns[name] for name in Rows.__slots__)),
            version=columns["version"],
            received_ms=columns["received_ms"],
            replaced_ms=columns["replaced_ms"],
            reason=tuple(columns["reason"]),
        )

    def conflicts(self, series: Ids | None, span: Span) -> tuple[Conflicts, NDArray[np.int64]]:
        """Return refused readings, and when each was received [ms UTC]."""
        condition, parameters = where(series, span)
        with self._asking() as cursor:
            columns = cursor.execute(
                f"select * from conflicts where {condition} order by time_ms, series", parameters
            ).fetchnumpy()
        found = Conflicts(*(columns[name] for name in Conflicts.__slots__))
        return found, columns["received_ms"]

    def roll_up(self, kind: Kind, step: Resolution, span: Span) -> None:
        """Compute the stored buckets of the span from the rows, days from the hours."""
        condition, parameters = where(None, span)
        with self._transaction(own=True) as connection:
            connection.execute(
                f"delete from {kind}_buckets where step_ms = ? and {condition}",
                [int(step), *parameters],
            )
            if step is Resolution.DAY:
                query = f"""select {DAY_MS}, series, time_ms - time_ms % {DAY_MS} as start,
                    sum(count)::bigint, sum(total), min(low), max(high), arg_max(last, time_ms)
                    from {kind}_buckets where step_ms = {int(Resolution.HOUR)} and {condition}
                    group by series, start"""
                connection.execute(f"insert into {kind}_buckets {query}", parameters)
            else:
                query = f"select {int(step)}, * from ({_aggregate_rows(kind, condition)})"
                connection.execute(f"insert into {kind}_buckets {query}", [int(step), *parameters])

    def rolled(self, kind: Kind, step: Resolution, series: Ids | None, span: Span) -> Buckets:
        """Return stored buckets that start within the span."""
        condition, parameters = where(series, span)
        with self._asking() as cursor:
            return buckets_of(
                cursor.execute(
                    f"select * exclude (step_ms) from {kind}_buckets "
                    f"where step_ms = ? and {condition} order by time_ms, series",
                    [int(step), *parameters],
                )
            )

    def stale(self, kind: Kind) -> list[tuple[int, int]]:
        """Return hour [ms UTC] and mark of the hours whose stored buckets are out of date."""
        with self._asking() as cursor:
            found = cursor.execute(
                f"select hour_ms, max(mark) from {kind}_stale group by hour_ms order by hour_ms"
            ).fetchall()
        return [(hour, mark) for hour, mark in found]

    def freshen(self, kind: Kind, until_mark: int) -> None:
        """Forget stale marks up to this one."""
        with self._transaction(own=True) as connection:
            connection.execute(f"delete from {kind}_stale where mark <= ?", [until_mark])

    def note(self, name: str) -> int | None:
        """Return a number kept with `set_note`."""
        return self._number("select max(value) from notes where name = ?", [name])

    def set_note(self, name: str, value: int) -> None:
        """Keep a number under a name."""
        with self._transaction(own=True) as connection:
            connection.execute("delete from notes where name = ?", [name])
            connection.execute("insert into notes values (?, ?)", [name, value])

    def drop_before(self, kind: Kind, step: Resolution | None, time_ms: int) -> None:
        """Delete rows (step None) or stored buckets that lie before this time."""
        tiers = self._tiers[kind]
        with tiers.moving, self._transaction(own=True) as connection:
            if step is None:
                for table in tiers.tables():
                    connection.execute(f"delete from {table} where time_ms < ?", [time_ms])
            else:
                connection.execute(
                    f"delete from {kind}_buckets where step_ms = ? and time_ms < ?",
                    [int(step), time_ms],
                )

    def tidy(self, kind: Kind) -> None:
        """Sort rows that came since, when they are many."""
        with storage_errors(f"cannot sort {self._path.name}"):
            self._tiers[kind].sort(self._sort_rows)

    def backup(self, target: Path) -> None:
        """Copy every table as of now, in one transaction, into a new file of the same name."""
        copy = target / self._path.name
        if copy.exists():
            raise StorageError(f"backup: {copy.name} is there already")
        with self._asking() as cursor:
            cursor.execute(f"attach '{_quoted(copy)}' as copy")
            try:
                cursor.execute(f"copy from database {_catalog(cursor)} to copy")
            finally:
                cursor.execute("detach copy")

    def size_bytes(self) -> int | None:
        """Return the size of the file and of its write-ahead log."""
        files = (self._path, self._path.with_name(self._path.name + ".wal"))
        return sum(file.stat().st_size for file in files if file.exists())

    def close(self) -> None:
        """Write what is in the log into the file and release it."""
        with storage_errors(f"cannot close {self._path.name}"):
            self._connection.close()
        shutil.rmtree(f"{self._path}.tmp", ignore_errors=True)

    def _add(self, connection: duckdb.DuckDBPyConnection, kind: Kind, batch: Batch) -> None:
        if len(batch.rows):
            connection.from_arrow(batch_table(batch)).insert_into(self._tiers[kind].new)
        if batch.conflicts.series.size:
            table = conflicts_table(batch.conflicts, batch.received_ms)
            connection.from_arrow(table).insert_into("conflicts")
        for hour_ms in batch.stale_hours:
            connection.execute(f"insert into {kind}_stale values (?, ?)", [hour_ms, batch.mark])

    def _number(self, query: str, parameters: list[object] | None = None) -> int | None:
        with self._asking() as cursor:
            found = cursor.execute(query, parameters or []).fetchone()
        return None if found is None or found[0] is None else int(found[0])

    @contextmanager
    def _asking(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with storage_errors(f"cannot read {self._path.name}"):
            cursor = self._connection.cursor()
            try:
                yield cursor
            finally:
                cursor.close()

    @contextmanager
    def _transaction(self, own: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        """Commit what is done within; `own` uses a connection beside the writer's."""
        with storage_errors(f"cannot write {self._path.name}"):
            connection = self._connection.cursor() if own else self._connection
            try:
                with transaction(connection):
                    yield connection
            finally:
                if own:
                    connection.close()


def _aggregate_rows(kind: Kind, condition: str) -> str:
    """Return the query that rolls up rows; its first parameter is the width of a bucket [ms]."""
    return f"""select series, start_ms as time_ms, count, total, low, high, last from (
        select series, time_ms - time_ms % (?::bigint) as start_ms, count(*) as count,
        sum({VALUE}) as total, min({VALUE}) as low, max({VALUE}) as high,
        arg_max({VALUE}, time_ms) as last
        from {kind}_rows where {condition} and quality & {int(Quality.QUESTIONABLE)} = 0
        group by series, start_ms) order by start_ms, series"""


def _catalog(cursor: duckdb.DuckDBPyConnection) -> str:
    found = cursor.execute("select current_database()").fetchone()
    return f'"{found[0]}"' if found else "main"


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
