"""The primitives of a store on PostgreSQL."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import LiteralString, cast

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg.conninfo import conninfo_to_dict

from flexmeter.errors import StorageError
from flexmeter.messages.quantities import Quality
from flexmeter.messages.rows import Rows
from flexmeter.storage.base import Kind
from flexmeter.storage.columns import Batch, Buckets, Conflicts, Name, Versions
from flexmeter.storage.postgresql.connections import Connection, Connections
from flexmeter.storage.postgresql.schema import CREATE, HAS_TIMESCALE, TIMESCALE
from flexmeter.storage.postgresql.wire import Types, packed, unpacked
from flexmeter.storage.query import DAY_MS, Resolution, Span

Ids = NDArray[np.int32]
Array = NDArray[np.generic]
ROWS: Types = {"series": ">i4", "time_ms": ">i8", "value": ">f8", "sigma": ">f4", "quality": ">i2"}
STORED: Types = {**ROWS, "received_ms": ">i8"}
KEYS: Types = {"series": ">i4", "time_ms": ">i8"}
CONFLICTS: Types = {**KEYS, "stored_value": ">f8", "refused_value": ">f8", "received_ms": ">i8"}
BUCKETS: Types = {**KEYS, "count": ">i8", "total": ">f8", "low": ">f8", "high": ">f8", "last": ">f8"}
BACKUP_FILE = "flexmeter.pgdump"


class PostgresqlEngine:
    """One database; the server decides who may connect (TLS, password) by its own rules."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._connections = Connections(conninfo)

    @classmethod
    def open(cls, conninfo: str) -> PostgresqlEngine:
        """Connect and create the tables that are missing; hypertables where TimescaleDB is there."""
        engine = cls(conninfo)
        with engine._connections.changing() as connection:
            connection.execute("select pg_advisory_xact_lock(715517)")  # two at once would collide
            connection.execute(CREATE)
            found = connection.execute(HAS_TIMESCALE).fetchone()
            if found is not None and found[0]:
                connection.execute(TIMESCALE)
        return engine

    def names(self) -> list[Name]:
        """Return the names of all series; the place in the list is the number."""
        with self._connections.asking() as connection:
            found = connection.execute("select source, meter, quantity, phase from series order by id").fetchall()
        return [(str(source), str(meter), str(quantity), str(phase)) for source, meter, quantity, phase in found]

    def add_names(self, first: int, names: Sequence[Name]) -> None:
        """Register series under the numbers `first`, `first + 1`, ..."""
        with self._connections.changing() as connection:
            connection.execute("delete from series where id >= %s", [first])
            with connection.cursor().copy("copy series from stdin") as copy:
                for number, name in enumerate(names, first):
                    copy.write_row((number, *name))

    def newest(self, kind: Kind) -> Rows:
        """Return the row with the greatest time of every series that has one.

        One step back in the primary key per series, not a scan of all rows.
        """
        query = f"""select r.series, r.time_ms, r.value, r.sigma, r.quality from series s
            cross join lateral (select * from {kind} where series = s.id
                order by time_ms desc limit 1) r order by r.series"""
        return self._rows(query)

    def oldest_ms(self, kind: Kind, from_ms: int = 0) -> int | None:
        """Return the least time of all rows from `from_ms` on, None without rows."""
        return self._number(
            f"""select min(r.time_ms) from series s cross join lateral
                (select time_ms from {kind} where series = s.id and time_ms >= %s order by time_ms limit 1) r""",
            [from_ms],
        )

    def find(self, kind: Kind, series: Ids, time_ms: NDArray[np.int64]) -> Rows:
        """Return the rows that are stored under these keys."""
        return self._rows(
            f"""select series, time_ms, value, sigma, quality from {kind}
                join unnest(%s::integer[], %s::bigint[]) as given(series, time_ms)
                using (series, time_ms)""",
            [series.tolist(), time_ms.tolist()],
        )

    def insert(self, kind: Kind, batch: Batch) -> None:
        """Add rows with new keys, their conflicts and stale marks."""
        with self._connections.changing() as connection:
            _add(connection, kind, batch)

    def replace(self, kind: Kind, batch: Batch, reason: str) -> None:
        """Put these rows in force; move what was stored under their keys to the versions."""
        given = "unnest(%s::integer[], %s::bigint[]) as given(series, time_ms)"
        keys = [batch.rows.series.tolist(), batch.rows.time_ms.tolist()]
        with self._connections.changing() as connection:
            connection.execute(
                _sql(f"""insert into {kind}_versions
                    select r.series, r.time_ms, 1 + (select count(*) from {kind}_versions v
                        where v.series = r.series and v.time_ms = r.time_ms),
                    r.value, r.sigma, r.quality, r.received_ms, %s, %s
                    from {kind} r join {given} using (series, time_ms)"""),
                [batch.received_ms, reason, *keys],
            )
            connection.execute(
                _sql(f"""delete from {kind} r using {given}
                    where r.series = given.series and r.time_ms = given.time_ms"""),
                keys,
            )
            _add(connection, kind, batch)

    def scan(self, kind: Kind, series: Ids | None, span: Span) -> Rows:
        """Return rows in order of time, then series."""
        condition, parameters = _where(series, span)
        query = f"select series, time_ms, value, sigma, quality from {kind} where {condition}"
        return self._rows(f"{query} order by time_ms, series", parameters)

    def aggregate(self, kind: Kind, series: Ids | None, span: Span, step_ms: int) -> Buckets:
        """Roll up values that are not suspect; buckets start at multiples of `step_ms`."""
        condition, parameters = _where(series, span)
        return self._buckets(_aggregate_rows(kind, condition, step_ms), parameters)

    def versions(self, kind: Kind, series: Ids | None, span: Span) -> Versions:
        """Return replaced values in order of time, series, version."""
        condition, parameters = _where(series, span)
        query = f"""select series, time_ms, value, sigma, quality, version, received_ms, replaced_ms, reason
            from {kind}_versions where {condition} order by time_ms, series, version"""
        with self._connections.asking() as connection:
            found = connection.execute(_sql(query), parameters).fetchall()
        columns = list(zip(*found, strict=True)) or [()] * 9
        return Versions(
            rows=Rows(
                series=np.array(columns[0], np.int32),
                time_ms=np.array(columns[1], np.int64),
                value=np.array(columns[2], np.float64),
                sigma=np.array(columns[3], np.float32),
                quality=np.array(columns[4], np.uint8),
            ),
            version=np.array(columns[5], np.int32),
            received_ms=np.array(columns[6], np.int64),
            replaced_ms=np.array(columns[7], np.int64),
            reason=tuple(str(reason) for reason in columns[8]),
        )

    def conflicts(self, series: Ids | None, span: Span) -> tuple[Conflicts, NDArray[np.int64]]:
        """Return refused readings, and when each was received [ms UTC]."""
        condition, parameters = _where(series, span)
        columns = self._columns(
            f"""select series, time_ms, stored_value, refused_value, received_ms from conflicts
                where {condition} order by time_ms, series""",
            parameters,
            CONFLICTS,
        )
        found = Conflicts(
            series=columns["series"].astype(np.int32),
            time_ms=columns["time_ms"].astype(np.int64),
            stored_value=columns["stored_value"].astype(np.float64),
            refused_value=columns["refused_value"].astype(np.float64),
        )
        return found, columns["received_ms"].astype(np.int64)

    def roll_up(self, kind: Kind, step: Resolution, span: Span) -> None:
        """Compute the stored buckets of the span from the rows, days from the hours."""
        condition, parameters = _where(None, span)
        if step is Resolution.DAY:
            query = f"""select series, time_ms - time_ms %% {DAY_MS} as start_ms, sum(count)::bigint, sum(total),
                min(low), max(high), (array_agg(last order by time_ms desc))[1]
                from {kind}_buckets where step_ms = {int(Resolution.HOUR)} and {condition}
                group by series, start_ms"""
        else:
            query = _aggregate_rows(kind, condition, int(step))
        with self._connections.changing() as connection:
            connection.execute(
                _sql(f"delete from {kind}_buckets where step_ms = {int(step)} and {condition}"), parameters
            )
            connection.execute(_sql(f"insert into {kind}_buckets select {int(step)}, b.* from ({query}) b"), parameters)

    def rolled(self, kind: Kind, step: Resolution, series: Ids | None, span: Span) -> Buckets:
        """Return stored buckets that start within the span."""
        condition, parameters = _where(series, span)
        return self._buckets(
            f"""select series, time_ms, count, total, low, high, last from {kind}_buckets
                where step_ms = {int(step)} and {condition} order by time_ms, series""",
            parameters,
        )

    def stale(self, kind: Kind) -> list[tuple[int, int]]:
        """Return hour [ms UTC] and mark of the hours whose stored buckets are out of date."""
        query = f"select hour_ms, max(mark) from {kind}_stale group by hour_ms order by hour_ms"
        with self._connections.asking() as connection:
            found = connection.execute(_sql(query)).fetchall()
        return [(cast(int, hour_ms), cast(int, mark)) for hour_ms, mark in found]

    def freshen(self, kind: Kind, until_mark: int) -> None:
        """Forget stale marks up to this one."""
        self._change(f"delete from {kind}_stale where mark <= %s", [until_mark])

    def note(self, name: str) -> int | None:
        """Return a number kept with `set_note`."""
        return self._number("select value from notes where name = %s", [name])

    def set_note(self, name: str, value: int) -> None:
        """Keep a number under a name."""
        self._change(
            "insert into notes values (%s, %s) on conflict (name) do update set value = excluded.value", [name, value]
        )

    def drop_before(self, kind: Kind, step: Resolution | None, time_ms: int) -> None:
        """Delete rows (step None) or stored buckets that lie before this time."""
        if step is None:
            self._change(f"delete from {kind} where time_ms < %s", [time_ms])
        else:
            self._change(f"delete from {kind}_buckets where step_ms = %s and time_ms < %s", [int(step), time_ms])

    def tidy(self, kind: Kind) -> None:
        """Leave it to the server's own vacuum."""

    def backup(self, target: Path) -> None:
        """Write a dump with `pg_dump`, which sees one state of the database; `pg_restore` reads it."""
        program = shutil.which("pg_dump")
        if program is None:
            raise StorageError("backup: pg_dump is not installed, it comes with the PostgreSQL client")
        names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD", "dbname": "PGDATABASE"}
        given = conninfo_to_dict(self._conninfo)
        # in the environment, since every user of the machine can read a command line
        secrets = {names[key]: str(value) for key, value in given.items() if key in names}
        command = [program, "--format=custom", "--file", str(target / BACKUP_FILE)]
        done = subprocess.run(command, env={**os.environ, **secrets}, capture_output=True, text=True, check=False)
        if done.returncode:
            raise StorageError(f"backup: pg_dump: {done.stderr.strip().splitlines()[0]}")

    def size_bytes(self) -> int | None:
        """Return the space that the server counts for the database."""
        return self._number("select pg_database_size(current_database())")

    def close(self) -> None:
        """Close the connections."""
        self._connections.close()

    def _change(self, query: str, parameters: Sequence[object]) -> None:
        with self._connections.changing() as connection:
            connection.execute(_sql(query), parameters)

    def _number(self, query: str, parameters: Sequence[object] = ()) -> int | None:
        with self._connections.asking() as connection:
            found = connection.execute(_sql(query), parameters).fetchone()
        return None if found is None or found[0] is None else cast(int, found[0])

    def _columns(self, query: str, parameters: Sequence[object], types: Types) -> dict[str, Array]:
        with self._connections.asking() as connection:
            # COPY takes no parameters from the server's side, so they are put in by the client
            composed = psycopg.ClientCursor(connection).mogrify(_sql(query), parameters)
            statement = _sql(f"copy ({composed}) to stdout (format binary)")
            with connection.cursor().copy(statement) as copy:
                content = b"".join(bytes(part) for part in copy)
        return unpacked(content, types)

    def _rows(self, query: str, parameters: Sequence[object] = ()) -> Rows:
        columns = self._columns(query, parameters, ROWS)
        return Rows(
            series=columns["series"].astype(np.int32),
            time_ms=columns["time_ms"].astype(np.int64),
            value=columns["value"].astype(np.float64),
            sigma=columns["sigma"].astype(np.float32),
            quality=columns["quality"].astype(np.uint8),
        )

    def _buckets(self, query: str, parameters: Sequence[object]) -> Buckets:
        columns = self._columns(query, parameters, BUCKETS)
        return Buckets(
            series=columns["series"].astype(np.int32),
            time_ms=columns["time_ms"].astype(np.int64),
            count=columns["count"].astype(np.int64),
            total=columns["total"].astype(np.float64),
            low=columns["low"].astype(np.float64),
            high=columns["high"].astype(np.float64),
            last=columns["last"].astype(np.float64),
        )


def _add(connection: Connection, kind: Kind, batch: Batch) -> None:
    rows, found = batch.rows, batch.conflicts
    received = {"received_ms": np.full(1, batch.received_ms, np.int64)}
    if len(rows):
        columns = {name: getattr(rows, name) for name in ROWS}
        _copy_in(connection, kind, {**columns, **received}, STORED)
    if found.series.size:
        columns = {name: getattr(found, name) for name in Conflicts.__slots__}
        _copy_in(connection, "conflicts", {**columns, **received}, CONFLICTS)
    for hour_ms in batch.stale_hours:
        connection.execute(_sql(f"insert into {kind}_stale values (%s, %s)"), [hour_ms, batch.mark])


def _copy_in(connection: Connection, table: str, columns: dict[str, Array], types: Types) -> None:
    statement = _sql(f"copy {table} ({', '.join(types)}) from stdin (format binary)")
    with connection.cursor().copy(statement) as copy:
        copy.write(packed(columns, types))


def _where(series: Ids | None, span: Span) -> tuple[str, list[object]]:
    if series is None:
        return "time_ms >= %s and time_ms < %s", [span.start_ms, span.end_ms]
    return "series = any(%s::integer[]) and time_ms >= %s and time_ms < %s", [
        *(series.tolist(), span.start_ms, span.end_ms)
    ]


def _aggregate_rows(kind: Kind, condition: str, step_ms: int) -> str:
    return f"""select series, time_ms - time_ms %% {step_ms} as start_ms, count(*), sum(value),
        min(value), max(value), (array_agg(value order by time_ms desc))[1]
        from {kind} where {condition} and quality & {int(Quality.QUESTIONABLE)} = 0
        group by series, start_ms order by start_ms, series"""


def _sql(query: str) -> LiteralString:
    """Pass a query that was put together here, of no text from outside."""
    return query
