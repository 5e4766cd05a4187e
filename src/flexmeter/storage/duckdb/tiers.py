"""Where the rows of one kind lie: new ones as they came, older ones sorted.

    insert -> {kind}_new_7 --(full)--> sorted into {kind}_sorted        {kind}_rows = both, a view
                   writes go on to {kind}_new_8

Rows come minute by minute, each with all series; a question about one meter would have to read all
of them. Sorted, a row group (122,880 rows) holds some hundred neighbouring series over the time that
a new table covers, so DuckDB skips nearly all of the others. Neighbours are the series of one source,
quantity and phase (values of one size compress best), or 256 series in a row where a source has few.
Among neighbours the order stays minute by minute, up and down in turn, so that the steps between
series numbers need two bits.
"""

from __future__ import annotations

import threading

import duckdb

from flexmeter.storage.base import Kind
from flexmeter.storage.duckdb.errors import transaction
from flexmeter.storage.duckdb.schema import ROW_COLUMNS
from flexmeter.storage.query import MINUTE_MS

_NEIGHBOURS = """select id, case when count(*) over alike >= 32 then min(id) over alike
    else id // 256 * 256 end as neighbours
    from series window alike as (partition by source, quantity, phase)"""
_ORDER = f"""neighbours, time_ms,
    case when time_ms // {MINUTE_MS} % 2 = 0 then series else -series end"""


class Tiers:
    """The tables of one kind.

    Attributes
    ----------
    appending : hold it while inserting into `new`, so that the table is not changed meanwhile.
    moving : hold it while deleting rows, so that they are not moved meanwhile.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, kind: Kind) -> None:
        self._connection = connection
        self._kind = kind
        self.appending = threading.Lock()
        self.moving = threading.Lock()
        found = connection.execute(
            "select table_name from duckdb_tables() where starts_with(table_name, ?)", [f"{kind}_new_"]
        ).fetchall()
        self._numbers = sorted(int(name.rpartition("_")[2]) for (name,) in found)
        if not self._numbers:
            self._begin(1)

    @property
    def view(self) -> str:
        """The name under which all rows can be asked for."""
        return f"{self._kind}_rows"

    @property
    def new(self) -> str:
        """The table that takes new rows."""
        return self._name(self._numbers[-1])

    def tables(self) -> list[str]:
        """Return the tables that hold rows."""
        return [f"{self._kind}_sorted", *map(self._name, self._numbers)]

    def newest_query(self) -> str:
        """Return a query of rows among which is the newest of every series.

        The table of the newest sorted rows spares reading the sorted ones when a database is opened.
        """
        tables = [f"{self._kind}_newest", *map(self._name, self._numbers)]
        return " union all ".join(f"select * from {table}" for table in tables)

    def sort(self, full_rows: int) -> None:
        """Sort the new rows if they are many; inserting goes on into the next table."""
        cursor = self._connection.cursor()
        try:
            found = cursor.execute(f"select count(*) from {self.new}").fetchone()
        finally:
            cursor.close()
        if found is not None and found[0] >= full_rows:
            with self.appending:
                self._begin(self._numbers[-1] + 1)
        with self.moving:
            for number in self._numbers[:-1]:
                self._move(number)

    def _begin(self, number: int) -> None:
        numbers = [*self._numbers, number]
        cursor = self._connection.cursor()
        try:
            with transaction(cursor):
                cursor.execute(f"create table {self._name(number)}({ROW_COLUMNS})")
                self._set_view(cursor, numbers)
        finally:
            cursor.close()
        self._numbers = numbers

    def _move(self, number: int) -> None:
        kind, table = self._kind, self._name(number)
        rest = [other for other in self._numbers if other != number]
        cursor = self._connection.cursor()
        try:
            with transaction(cursor):
                cursor.execute(
                    f"""insert into {kind}_sorted select r.* from {table} r
                        join ({_NEIGHBOURS}) on id = series order by {_ORDER}"""
                )
                cursor.execute(
                    f"""create or replace table {kind}_newest as
                        select series, max(time_ms) as time_ms, arg_max_null(value32, time_ms) as value32,
                        arg_max_null(value64, time_ms) as value64, arg_max(sigma, time_ms) as sigma,
                        arg_max(quality, time_ms) as quality, arg_max(received_ms, time_ms) as received_ms
                        from (select * from {kind}_newest union all select * from {table}) group by series"""
                )
                cursor.execute(f"drop table {table}")
                self._set_view(cursor, rest)
        finally:
            cursor.close()
        self._numbers = rest

    def _set_view(self, connection: duckdb.DuckDBPyConnection, numbers: list[int]) -> None:
        tables = [f"{self._kind}_sorted", *map(self._name, numbers)]
        rows = " union all ".join(f"select * from {table}" for table in tables)
        connection.execute(f"create or replace view {self.view} as {rows}")

    def _name(self, number: int) -> str:
        return f"{self._kind}_new_{number}"
